"""Callbacks: listeners to fit that stop it, steer it and keep its history."""

from collections.abc import Callable
from typing import Any

from torchnn.callbacks._backup import BackupAndRestore
from torchnn.callbacks._base import HOOKS, Callback, Logs
from torchnn.callbacks._checkpoint import ModelCheckpoint
from torchnn.callbacks._csv import CSVLogger
from torchnn.callbacks._ema import SwapEMAWeights
from torchnn.callbacks._history import History
from torchnn.callbacks._loops import CallbackList, ProgbarLogger
from torchnn.callbacks._plateau import EarlyStopping, ReduceLROnPlateau
from torchnn.callbacks._rates import LearningRateScheduler
from torchnn.callbacks._tensorboard import TensorBoard

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "InvalidLossWarning",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "SwapEMAWeights",
    "TensorBoard",
    "TerminateOnNaN",
]


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

    model_access = "none"

    def on_invalid_loss(self, epoch: int, batch: int, logs: Logs = None) -> None:
        self.model.stop_training = True
