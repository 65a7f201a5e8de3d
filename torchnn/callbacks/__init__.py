"""Callbacks: listeners to fit that stop it, steer it and keep its history."""

import inspect
import math
from collections.abc import Callable
from numbers import Real
from typing import Any
from weakref import ref

import numpy as np
from torch import Tensor

from torchnn import _checks, _warnings
from torchnn.callbacks._base import HOOKS, Callback, Logs

__all__ = [
    "Callback",
    "EarlyStopping",
    "History",
    "InvalidLossWarning",
    "LambdaCallback",
    "LearningRateScheduler",
    "TerminateOnNaN",
]


# What the names of metrics end in.
RISING = (
    *("acc", "auc", "auroc", "precision", "recall", "score", "similarity"),
    *("true_positives", "true_negatives"),
)
FALLING = (
    *("loss", "error", "mse", "mae", "rmse", "mape", "msle", "logcosh", "entropy"),
    *("false_positives", "false_negatives"),
)


class History(Callback):
    """Keeps every epoch's logs: what fit returns.

    Attributes:
        epoch: The numbers of the epochs that finished.
        history: For "loss", each metric and their "val_" twins, a list of one float an epoch.
        model: The model, as long as someone else has it, or None.
    """

    _model: Callable[[], Any] = staticmethod(lambda: None)  # before set_model, and in a copy

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[Any]] = {}

    @property
    def model(self) -> Any:
        return self._model()

    @model.setter
    def model(self, model: Any) -> None:
        # The model has its history: only if that does not have the model, both are freed at once.
        self._model = ref(model)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_model"}

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(
                float(value) if isinstance(value, (Real, Tensor)) else value
            )

    def __repr__(self) -> str:
        return f"History({len(self.epoch)} epochs of {', '.join(self.history) or 'nothing'})"


class LambdaCallback(Callback):
    """Functions in place of hooks: `LambdaCallback(on_epoch_end=lambda epoch, logs: ...)`."""

    def __init__(self, **hooks: Callable[..., Any] | None):
        for name, function in hooks.items():
            if name not in HOOKS:
                raise TypeError(f"unknown hook {name!r}. Known: {', '.join(HOOKS)}")
            if function is not None and not callable(function):
                raise TypeError(f"{name} must be a function, got {function!r}")
            if function is not None:
                setattr(self, name, function)


class InvalidLossWarning(RuntimeWarning):
    """The loss of a fit became NaN or infinite."""


class TerminateOnNaN(Callback):
    """Stops fit when a batch's loss is NaN or infinite."""

    def on_invalid_loss(self, epoch: int, batch: int, logs: Logs = None) -> None:
        self.model.stop_training = True


class LearningRateScheduler(Callback):
    """Sets the learning rate of every epoch to schedule(epoch, learning_rate).

    Args:
        schedule: A function of the epoch, the first being 0, and the present learning rate; or of
            the epoch alone, if it takes no more than that.
        verbose: 1 prints the learning rate of every epoch.

    Raises:
        TypeError: schedule is no such function; or, when fit begins, the optimizer's learning rate
            is a schedule already, which this one would replace.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0):
        if not callable(schedule) or not (_takes(schedule, 0, 0.0) or _takes(schedule, 0)):
            raise TypeError(f"schedule must be a function (epoch, learning_rate), got {schedule!r}")
        self.schedule = schedule
        self.verbose = _verbose(verbose)

    def on_train_begin(self, logs: Logs = None) -> None:
        rate = self.model.optimizer.learning_rate
        if callable(rate):
            raise TypeError(
                "LearningRateScheduler needs an optimizer whose learning_rate is a number, "
                f"got the schedule {rate!r}"
            )

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        optimizer = self.model.optimizer
        optimizer.learning_rate = self._rate(epoch, optimizer.current_learning_rate())
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate {optimizer.learning_rate:g}")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.current_learning_rate()

    def _rate(self, epoch: int, present: float) -> float:
        if _takes(self.schedule, epoch, present):
            return self.schedule(epoch, present)
        return self.schedule(epoch)


class EarlyStopping(Callback):
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

    best: float | None
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
        if not isinstance(monitor, str):
            raise TypeError(f"monitor must be a name such as 'val_loss', got {monitor!r}")
        self.monitor = monitor
        self.min_delta = abs(_checks.number("min_delta", min_delta))
        self.patience = _checks.non_negative_int("patience", patience)
        self.verbose = _verbose(verbose)
        self.mode = _checks.choice("mode", mode, ("auto", "min", "max"))
        self.baseline = None if baseline is None else _checks.number("baseline", baseline)
        self.restore_best_weights = _checks.truth("restore_best_weights", restore_best_weights)
        self.start_from_epoch = _checks.non_negative_int("start_from_epoch", start_from_epoch)
        if mode == "auto":
            self.mode = _direction(monitor)
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
        self.best = self.best_weights = None
        self.best_epoch = self.wait = self.stopped_epoch = 0
        self._warned = False

    def _monitored(self, logs: dict[str, Any]) -> float | None:
        """The value to watch, or a warning and None if it is not there."""
        if self.monitor in logs:
            return float(logs[self.monitor])
        if not self._warned:
            self._warned = True
            _warnings.warn(
                f"EarlyStopping cannot see {self.monitor!r} and so never stops"
                f"{_why_unseen(self.monitor, logs)}. Available: {', '.join(logs)}"
            )
        return None

    def _improves(self, value: float, reference: float | None) -> bool:
        """Whether value is better than reference by more than min_delta; NaN never is."""
        if reference is None:
            return not math.isnan(value)
        gain = value - reference if self.mode == "max" else reference - value
        return gain > self.min_delta

    def _remember(self, epoch: int) -> None:
        """Takes this epoch for the best one."""
        self.best_epoch = epoch
        if self.restore_best_weights:
            state = self.model.state_dict()
            self.best_weights = {name: value.clone() for name, value in state.items()}


def _takes(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether a function can be called so; of one that does not tell, any call may do."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some of C have none
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _verbose(value: Any) -> int:
    """Returns what a callback prints by: 0 or 1, True and False among them."""
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    return _checks.non_negative_int("verbose", value)


def _why_unseen(name: str, logs: dict[str, Any]) -> str:
    """What may be wrong if a value is not among the logs; empty if nobody can tell."""
    measured = name.removeprefix("val_")
    if name != measured and not any(other.startswith("val_") for other in logs):
        return ": pass validation_data to fit"
    if measured in logs:
        return ""
    return f": {measured} is not in compile's metrics, and no callback before this one adds it"


def _direction(name: str) -> str:
    """Returns "max" if a value of this name is better when it is larger, else "min"."""
    lower = name.lower().rstrip("_0123456789")  # the second precision is precision_1
    if lower.endswith(RISING) or "accuracy" in lower:
        return "max"
    if lower.endswith(FALLING):
        return "min"
    raise ValueError(
        f'mode must be "min" or "max" for monitor={name!r}, since "auto" does not know whether it '
        "should fall or rise"
    )
