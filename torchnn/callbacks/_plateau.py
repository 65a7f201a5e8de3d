"""What to do when a logged value has stopped improving."""

from torch import Tensor

from torchnn import _checks
from torchnn.callbacks._base import Logs, verbosity
from torchnn.callbacks._monitor import Monitor


class EarlyStopping(Monitor):
    """Stops fit when a logged value has not improved for `patience` epochs in a row.

    Args:
        monitor: The value's name: "loss", "val_loss", "val_accuracy", ...
        min_delta: What counts as an improvement must exceed this.
        patience: Epochs without improvement before fit stops; 0 and 1 both mean the first one.
        verbose: 1 prints the epoch of the stop.
        mode: "min", "max", or "auto" to tell by the name: accuracies rise, losses and errors fall.
        baseline: Patience starts afresh only on an improvement that also beats this value.
        restore_best_weights: Whether to end with the weights of the best epoch.
        start_from_epoch: Epochs to let pass before looking.

    Attributes:
        best: The best value of the fit, or None.
        best_epoch: Its epoch.
        best_weights: The state dict after that epoch, if it is to be restored.
        wait: Epochs since the last improvement.
        stopped_epoch: The epoch after which fit was stopped, or 0.
    """

    remembered = ("best", "best_epoch", "best_weights", "wait", "stopped_epoch")
    consequence = "never stops"
    best_epoch: int
    best_weights: dict[str, Tensor] | None
    wait: int
    stopped_epoch: int

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience = _checks.non_negative_int("patience", patience)
        self.verbose = verbosity(verbose)
        self.baseline = None if baseline is None else _checks.number("baseline", baseline)
        self.restore_best_weights = _checks.truth("restore_best_weights", restore_best_weights)
        self.start_from_epoch = _checks.non_negative_int("start_from_epoch", start_from_epoch)
        self._forget()

    def on_train_begin(self, logs: Logs = None) -> None:
        self._forget()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        value = self._monitored(logs or {})
        if value is None or epoch < self.start_from_epoch:
            return
        self.wait += 1
        if self._improves(value, self.best):
            self.best = value
            self._remember(epoch)
            if self._improves(value, self.baseline):
                self.wait = 0
            return
        if self.best is None and self.best_weights is None:
            self._remember(epoch)  # NaN so far: there must be something to restore all the same
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs = None) -> None:
        if self.stopped_epoch and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            if self.verbose:
                print(f"Restoring the weights of the best epoch: {self.best_epoch + 1}")
            self.model.load_state_dict(self.best_weights)

    def _forget(self) -> None:
        super()._forget()
        self.best_weights = None
        self.best_epoch = self.wait = self.stopped_epoch = 0

    def _remember(self, epoch: int) -> None:
        """Takes this epoch for the best one."""
        self.best_epoch = epoch
        if self.restore_best_weights:
            state = self.model.state_dict()
            self.best_weights = {name: value.clone() for name, value in state.items()}
