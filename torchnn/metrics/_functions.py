"""Metrics as functions: what Keras has under the names of its classes, in small letters."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from torchnn.metrics._base import MeanMetric, aligned
from torchnn.metrics._means import (
    BinaryAccuracy,
    CategoricalAccuracy,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)

Function = Callable[..., Tensor]


def mean_squared_error(y_true: Any, y_pred: Any) -> Tensor:
    """Returns (y_true - y_pred)^2, averaged over the last axis."""
    return _error(MeanSquaredError(), y_true, y_pred)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Tensor:
    """Returns |y_true - y_pred|, averaged over the last axis."""
    return _error(MeanAbsoluteError(), y_true, y_pred)


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Tensor:
    """Returns 100 |y_true - y_pred| / max(|y_true|, 1e-7), averaged over the last axis."""
    return _error(MeanAbsolutePercentageError(), y_true, y_pred)


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Tensor:
    """Returns (log(1 + y_true) - log(1 + y_pred))^2, averaged over the last axis."""
    return _error(MeanSquaredLogarithmicError(), y_true, y_pred)


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Tensor:
    """Returns 1 for each output on the target's side of the threshold, else 0."""
    return _hits(BinaryAccuracy(threshold=threshold), y_true, y_pred)


def categorical_accuracy(y_true: Any, y_pred: Any) -> Tensor:
    """Returns 1 for each sample whose largest output is the target's class, else 0."""
    return _hits(CategoricalAccuracy(), y_true, y_pred)


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Tensor:
    """Returns 1 for each sample whose largest output is the target's class number, else 0."""
    return _hits(SparseCategoricalAccuracy(), y_true, y_pred)


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Tensor:
    """Returns 1 for each sample whose class is among the k largest outputs, else 0."""
    return _hits(TopKCategoricalAccuracy(k), y_true, y_pred)


def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Tensor:
    """Returns 1 for each sample whose class number is among the k largest outputs, else 0."""
    return _hits(SparseTopKCategoricalAccuracy(k), y_true, y_pred)


# The class that measures what a function does, for compile.
CLASSES: dict[Function, type[MeanMetric]] = {
    mean_squared_error: MeanSquaredError,
    mean_absolute_error: MeanAbsoluteError,
    mean_absolute_percentage_error: MeanAbsolutePercentageError,
    mean_squared_logarithmic_error: MeanSquaredLogarithmicError,
    binary_accuracy: BinaryAccuracy,
    categorical_accuracy: CategoricalAccuracy,
    sparse_categorical_accuracy: SparseCategoricalAccuracy,
    top_k_categorical_accuracy: TopKCategoricalAccuracy,
    sparse_top_k_categorical_accuracy: SparseTopKCategoricalAccuracy,
}


def _error(metric: MeanMetric, y_true: Any, y_pred: Any) -> Tensor:
    return metric.values(*aligned(y_true, y_pred)).mean(-1)


def _hits(metric: MeanMetric, y_true: Any, y_pred: Any) -> Tensor:
    y_true, y_pred = aligned(y_true, y_pred)
    return metric.values(y_true, y_pred).to(y_pred.dtype)
