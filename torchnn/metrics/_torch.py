"""Metrics of PyTorch and torchmetrics, which take (y_pred, y_true)."""

from typing import Any

import torch
from torch import Tensor, nn

from torchnn import _checks
from torchnn.losses import TorchLoss
from torchnn.metrics._base import Metric, aligned
from torchnn.metrics._means import MeanMetricWrapper


class TorchMetric(MeanMetricWrapper):
    """A module of (y_pred, y_true), such as `nn.L1Loss()`, as a metric.

    Args:
        fn: The module. It gets what it would get as a loss.
        name: The key in History.history; the name of the module's class if None.
    """

    fn: Any  # mypy knows it as a function

    def _measure(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return TorchLoss(self.fn).per_sample(y_true, y_pred)


class TorchAccumulator(Metric):
    """An object with update(y_pred, y_true), compute and reset, such as those of torchmetrics.

    Predictions of shape (N, 1) and their targets go in with shape (N,); class numbers, shape (N,)
    or (N, 1) against predictions of shape (N, classes), with shape (N,). Class numbers are
    integers, and so are all targets of metrics for classification.

    Args:
        metric: The object. It stays as it is: copies of it measure.
        name: The key in History.history; the name of the object's class if None.
    """

    takes_weights = False

    def __init__(self, metric: Any, name: str | None = None):
        super().__init__(type(metric).__name__ if name is None else name)
        self.metric = metric

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        if sample_weight is not None:
            raise TypeError(f"sample_weight must be None: {self.name} takes no weights")
        y_true, y_pred = aligned(y_true, y_pred)
        if getattr(self.metric, "device", y_pred.device) != y_pred.device:
            self.metric.to(y_pred.device)
        self.metric.update(*_as_pytorch_has_them(self.metric, y_true, y_pred))

    def result(self) -> Any:
        return self.metric.compute()

    def reset_state(self) -> None:
        self.metric.reset()


def _as_pytorch_has_them(metric: Any, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """Returns predictions and targets, in this order, in the shapes and dtypes of torchmetrics."""
    if y_pred.ndim == 2 and y_pred.shape[1] == 1:
        y_pred = y_pred.squeeze(1)
    if y_true.ndim == 2 and y_true.shape[1] == 1:
        y_true = y_true.squeeze(1)
    if y_pred.ndim == 2 and y_true.ndim == 1:
        return y_pred, _whole(y_true, y_pred)
    y_true = _checks.matched(y_true, y_pred)
    if not _is_for_classes(metric):
        return y_pred, y_true
    if y_pred.ndim == 2 and hasattr(metric, "num_classes"):
        return y_pred, y_true.argmax(1)  # of rows of probabilities
    return y_pred, _whole(y_true, y_pred)


def _is_for_classes(metric: Any) -> bool:
    """Whether a metric, or one that it is made of, is one for classification."""
    parts = metric.modules() if isinstance(metric, nn.Module) else [metric]
    kinds = [kind.__module__.split(".") for part in parts for kind in type(part).__mro__]
    return any("classification" in kind for kind in kinds)


def _whole(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Targets as integers."""
    whole = y_true.to(y_pred.device, torch.int64)
    if not torch.equal(whole.to(y_true), y_true):
        raise ValueError("y must hold whole numbers for a metric of classes")
    return whole
