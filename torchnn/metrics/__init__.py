"""Metrics: what fit and evaluate report beside the loss.

All of them have Keras's names, arguments and formulas. They work by themselves:

    auc = metrics.AUC()
    auc.update_state(y_true, y_pred)
    print(float(auc.result()))

and in compile, by name, class or object; then they are those of all samples of an epoch together,
whichever engine trains, and no means over batches.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from torch import nn

from torchnn import _checks, losses
from torchnn._config import deserializer, serialize
from torchnn.losses import Loss
from torchnn.metrics._base import Mean, MeanMetric, Metric, Sum, Summed, Variable
from torchnn.metrics._counts import (
    AUC,
    F1Score,
    FalseNegatives,
    FalsePositives,
    FBetaScore,
    Precision,
    Recall,
    TrueNegatives,
    TruePositives,
)
from torchnn.metrics._functions import (
    CLASSES,
    binary_accuracy,
    categorical_accuracy,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from torchnn.metrics._means import (
    Accuracy,
    BinaryAccuracy,
    BinaryCrossentropy,
    CategoricalAccuracy,
    CategoricalCrossentropy,
    CosineSimilarity,
    LogCoshError,
    LossAccuracy,
    LossCrossentropy,
    LossMetric,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanMetricWrapper,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    R2Score,
    RootMeanSquaredError,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossentropy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)
from torchnn.metrics._torch import TorchAccumulator, TorchMetric

__all__ = [
    "AUC",
    "NAMES",
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CosineSimilarity",
    "F1Score",
    "FBetaScore",
    "FalseNegatives",
    "FalsePositives",
    "LogCoshError",
    "LossAccuracy",
    "LossCrossentropy",
    "LossMetric",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanMetric",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "Precision",
    "R2Score",
    "Recall",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "Sum",
    "Summed",
    "TopKCategoricalAccuracy",
    "TorchAccumulator",
    "TorchMetric",
    "TrueNegatives",
    "TruePositives",
    "Variable",
    "binary_accuracy",
    "categorical_accuracy",
    "deserialize",
    "get",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "serialize",
    "sparse_categorical_accuracy",
    "sparse_top_k_categorical_accuracy",
    "top_k_categorical_accuracy",
]

# What compile makes of a name by the loss.
BY_LOSS: dict[str, Callable[..., Metric]] = {
    "accuracy": LossAccuracy,
    "acc": LossAccuracy,
    "crossentropy": LossCrossentropy,
    "ce": LossCrossentropy,
}
NAMES: dict[str, Callable[..., Metric]] = BY_LOSS | {
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "top_k_categorical_accuracy": TopKCategoricalAccuracy,
    "sparse_top_k_categorical_accuracy": SparseTopKCategoricalAccuracy,
    "binary_crossentropy": BinaryCrossentropy,
    "bce": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "root_mean_squared_error": RootMeanSquaredError,
    "rmse": RootMeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "mean_absolute_percentage_error": MeanAbsolutePercentageError,
    "mape": MeanAbsolutePercentageError,
    "mean_squared_logarithmic_error": MeanSquaredLogarithmicError,
    "msle": MeanSquaredLogarithmicError,
    "logcosh": LogCoshError,
    "log_cosh_error": LogCoshError,
    "r2_score": R2Score,
    "cosine_similarity": CosineSimilarity,
    "auc": AUC,
    "precision": Precision,
    "recall": Recall,
    "f1_score": F1Score,
    "fbeta_score": FBetaScore,
    "true_positives": TruePositives,
    "false_positives": FalsePositives,
    "true_negatives": TrueNegatives,
    "false_negatives": FalseNegatives,
}


def get(value: Any, loss: Loss | None = None) -> Metric:
    """Returns the metric of this name, the metric itself, or a function of (y_true, y_pred) as one.

    A class of metrics is instantiated; a loss, by object or by name, is a metric, too. An
    `nn.Module` is called PyTorch's way round, with (y_pred, y_true); so is an object with update,
    compute and reset, such as those of torchmetrics, which is computed of whole epochs.

    A metric that was asked for by name keeps the spelling as its own name: "acc" is reported as
    "acc".

    Args:
        value: What is wanted.
        loss: What "accuracy" and "crossentropy" go by; if None, they go by shapes alone.

    Raises:
        ValueError: Unknown name.
        TypeError: No metric, another class, or a function of (y_pred, y_true).
    """
    if isinstance(value, str):
        return _named(value, loss)
    if isinstance(value, type) and issubclass(value, Metric):
        value = value()
    elif isinstance(value, FunctionType) and value in CLASSES:
        value = CLASSES[value]()
    metric = _checks.admit("metric", value, NAMES, lambda v: callable(v) or _accumulates(v))
    _checks.takes_targets_first("metric", metric)
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, Loss):
        return LossMetric(metric)
    if _accumulates(metric):
        return TorchAccumulator(metric)
    return (TorchMetric if isinstance(metric, nn.Module) else MeanMetricWrapper)(metric)


def _named(value: str, loss: Loss | None) -> Metric:
    """The metric of a name, or the loss of it as one."""
    if value in losses.NAMES and value not in NAMES:
        return LossMetric(losses.NAMES[value](), value)
    name = _checks.find("metric", value, NAMES)
    return BY_LOSS[name](loss, name=value) if name in BY_LOSS else NAMES[name](name=value)


def _accumulates(value: Any) -> bool:
    """Whether a value has the methods of torchmetrics."""
    return all(callable(getattr(value, name, None)) for name in ("update", "compute", "reset"))


deserialize = deserializer(get)
