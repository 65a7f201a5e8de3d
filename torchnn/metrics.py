"""Metrics by name: what fit and evaluate report beside the loss, one value per sample."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchnn import _checks

__all__ = [
    "NAMES",
    "Accuracy",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "FunctionMetric",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "get",
]


class Metric(ABC):
    """A value per sample; what is reported is the mean over the samples.

    Args:
        name: The key in History.history.

    Attributes:
        is_per_sample: Whether a sample's value is its own, so that several batches may be measured
            at once.
    """

    is_per_sample = True

    def __init__(self, name: str):
        self.name = name

    @abstractmethod
    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns one value per sample.

        Args:
            y_true: Targets, shaped like y_pred, or (N,) against (N, 1).
            y_pred: Predictions, shape (N, ..., units) or (N,).

        Returns:
            Shape (N,), floating point.
        """

    def __call__(self, y_true: Any, y_pred: Any) -> Tensor:
        """Returns the mean over the samples, a scalar. Takes tensors or arrays."""
        y_true, y_pred = _checks.tensor("y_true", y_true), _checks.tensor("y_pred", y_pred)
        return self.per_sample(y_true, y_pred).mean()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"


class BinaryAccuracy(Metric):
    """The share of outputs that are on the target's side of the threshold."""

    def __init__(self, name: str = "binary_accuracy", threshold: float = 0.5):
        super().__init__(name)
        self.threshold = _checks.number("threshold", threshold)

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        decided = (y_pred > self.threshold).to(y_pred.dtype)
        return _mean_of_outputs(decided == _checks.matched(y_true, y_pred))


class CategoricalAccuracy(Metric):
    """Whether the largest output is the target's class.

    Targets are rows of probabilities, shape (N, classes), or class numbers, (N,) or (N, 1).
    """

    def __init__(self, name: str = "categorical_accuracy"):
        super().__init__(name)

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        decided = y_pred.argmax(-1)
        if y_true.shape in (decided.shape, (*decided.shape, 1)):
            classes = y_true.reshape(decided.shape)
        else:
            classes = _checks.matched(y_true, y_pred).argmax(-1)
        return _mean_of_outputs(decided == classes.to(decided.device))


class Accuracy(Metric):
    """Binary accuracy for one output, categorical accuracy for several."""

    def __init__(self, name: str = "accuracy"):
        super().__init__(name)
        self._binary = BinaryAccuracy()
        self._categorical = CategoricalAccuracy()

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        one_output = y_pred.ndim == 1 or y_pred.shape[-1] == 1
        return (self._binary if one_output else self._categorical).per_sample(y_true, y_pred)


class MeanSquaredError(Metric):
    """(y_true - y_pred)^2, averaged over the outputs."""

    def __init__(self, name: str = "mean_squared_error"):
        super().__init__(name)

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return _mean_of_outputs((_checks.matched(y_true, y_pred) - y_pred).square())


class MeanAbsoluteError(Metric):
    """|y_true - y_pred|, averaged over the outputs."""

    def __init__(self, name: str = "mean_absolute_error"):
        super().__init__(name)

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return _mean_of_outputs((_checks.matched(y_true, y_pred) - y_pred).abs())


class FunctionMetric(Metric):
    """A plain function of (y_true, y_pred) as a metric.

    Args:
        function: Returns one value per sample or per prediction, or one for the batch.
        name: The key in History.history; the function's own name if None.
    """

    is_per_sample = False  # who knows: it is called for each batch

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], name: str | None = None):
        super().__init__(name or str(getattr(function, "__name__", type(function).__name__)))
        self.function = function

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        values = self.function(_checks.matched(y_true, y_pred), y_pred)
        return values.expand(len(y_pred)) if values.ndim == 0 else _mean_of_outputs(values)


NAMES: dict[str, Callable[[str], Metric]] = {
    "accuracy": Accuracy,
    "acc": Accuracy,
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
}


def get(value: str | Metric | Callable[[Tensor, Tensor], Tensor]) -> Metric:
    """Returns the metric of this name, the metric itself, or a function of (y_true, y_pred) as one.

    A metric that was asked for by name keeps the spelling as its own name: "acc" is reported as
    "acc".

    Raises:
        ValueError: Unknown name.
        TypeError: No metric, or a class that was not instantiated.
    """
    if isinstance(value, str):
        name = _checks.find("metric", value, NAMES)
        return NAMES[name](name)
    metric = _checks.admit("metric", value, NAMES, accept=callable)
    return metric if isinstance(metric, Metric) else FunctionMetric(metric)


def _mean_of_outputs(values: Tensor) -> Tensor:
    """The mean over all axes but the first, in float32 or wider."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    return values.flatten(1).mean(1) if values.ndim > 1 else values
