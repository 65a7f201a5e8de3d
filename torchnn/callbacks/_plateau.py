"""What to do when a logged value has stopped improving."""

from typing import NoReturn

from torch import Tensor

from torchnn import _checks
from torchnn.callbacks._base import Logs, verbosity
from torchnn.callbacks._monitor import Monitor
from torchnn.callbacks._rates import check_rate


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

    @property
    def model_access(self) -> str:  # type: ignore[override]
        return "read" if self.restore_best_weights else "none"

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
        if self.restore_best_weights and self.best_weights is None:
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


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by `factor` when a logged value has not improved for `patience`
    epochs in a row.

    model.fit(x, y, validation_split=0.2, callbacks=[ReduceLROnPlateau(factor=0.2, patience=5)])

    The rate of every epoch goes into the logs and so into the History, as "learning_rate".

    Args:
        monitor: The value's name: "loss", "val_loss", "val_accuracy", ...
        factor: In [0, 1).
        patience: Epochs without improvement before the rate falls; 0 and 1 both mean the first one.
        verbose: 1 prints every new rate.
        mode: "min", "max", or "auto" to tell by the name: accuracies rise, losses and errors fall.
        min_delta: What counts as an improvement must exceed this.
        cooldown: Epochs after a fall during which patience does not count.
        min_lr: The rate falls no further.
        unknown: None; of Keras 2's, epsilon is min_delta.

    Attributes:
        best: The best value of the fit, or None.
        wait: Epochs since the last improvement or fall.
        cooldown_counter: Epochs of the cooldown that are left.

    Raises:
        TypeError, ValueError: An argument is wrong; or, when fit begins, the optimizer's learning
            rate is a schedule, which this one would replace.
    """

    model_access = "none"

    remembered = ("best", "wait", "cooldown_counter")
    consequence = "never reduces the learning rate"
    wait: int
    cooldown_counter: int

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
        **unknown: NoReturn,
    ):
        for name in unknown:
            hint = ": it is min_delta" if name == "epsilon" else ""
            raise TypeError(f"ReduceLROnPlateau takes no {name}{hint}")
        super().__init__(monitor, mode, min_delta)
        self.factor = _checks.fraction("factor", factor)
        self.patience = _checks.non_negative_int("patience", patience)
        self.verbose = verbosity(verbose)
        self.cooldown = _checks.non_negative_int("cooldown", cooldown)
        self.min_lr = _checks.non_negative_float("min_lr", min_lr)
        self._forget()

    def on_train_begin(self, logs: Logs = None) -> None:
        check_rate(self)
        self._forget()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        logs = {} if logs is None else logs
        value = self._monitored(logs)
        logs["learning_rate"] = self.model.optimizer.current_learning_rate()
        if value is None:
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self._improves(value, self.best):
            self.best, self.wait = value, 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce(epoch)

    def in_cooldown(self) -> bool:
        """Whether patience does not count at present."""
        return self.cooldown_counter > 0

    def _reduce(self, epoch: int) -> None:
        """Lets the rate fall, if it can."""
        optimizer = self.model.optimizer
        if optimizer.learning_rate <= self.min_lr:
            return
        optimizer.learning_rate = max(optimizer.learning_rate * self.factor, self.min_lr)
        self.cooldown_counter, self.wait = self.cooldown, 0
        if self.verbose:
            rate = optimizer.learning_rate
            print(f"Epoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {rate:g}")

    def _forget(self) -> None:
        super()._forget()
        self.wait = self.cooldown_counter = 0
