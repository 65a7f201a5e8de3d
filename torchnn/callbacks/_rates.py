"""Setting the learning rate."""

import inspect
from collections.abc import Callable
from typing import Any

from torchnn.callbacks._base import Callback, Logs, verbosity


def check_rate(callback: Callback) -> None:
    """Raises TypeError if the learning rate that a callback is to set is a schedule."""
    rate = callback.model.optimizer.learning_rate
    if callable(rate):
        raise TypeError(
            f"{type(callback).__name__} needs an optimizer whose learning_rate is a number, "
            f"got the schedule {rate!r}"
        )


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
        check_rate(self)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        optimizer = self.model.optimizer
        rate = self._rate(epoch, optimizer.current_learning_rate())
        if rate is None:
            raise TypeError(
                f"schedule must return a learning rate, and {self.schedule!r} returned None"
            )
        optimizer.learning_rate = rate
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
