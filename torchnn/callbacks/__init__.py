"""Callbacks: listeners to fit that stop it, steer it and keep its history."""

import inspect
from collections.abc import Callable
from numbers import Real
from typing import Any
from weakref import ref

from torch import Tensor

from torchnn.callbacks._base import HOOKS, Callback, Logs, verbosity
from torchnn.callbacks._ema import SwapEMAWeights
from torchnn.callbacks._plateau import EarlyStopping

__all__ = [
    "Callback",
    "EarlyStopping",
    "History",
    "InvalidLossWarning",
    "LambdaCallback",
    "LearningRateScheduler",
    "SwapEMAWeights",
    "TerminateOnNaN",
]


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
        self.verbose = verbosity(verbose)

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
