"""Metrics that are the mean of a value per sample, and what is made of such means."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchnn import _checks, losses
from torchnn.losses import Loss, TorchLoss
from torchnn.metrics._base import MeanMetric, Parts, Summed, mean_sums, of_samples, spread

EPSILON = 1e-7


class Accuracy(MeanMetric):
    """The share of predictions that equal the target exactly, as Keras's class has it.

    Of probabilities, hardly one does: the name "accuracy", given to compile, rounds them or takes
    the largest, whichever is right for the loss.
    """

    def __init__(self, name: str | None = "accuracy", dtype: Any = None):
        super().__init__(name, dtype)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return y_pred == _checks.matched(y_true, y_pred)


class BinaryAccuracy(MeanMetric):
    """The share of outputs that are on the target's side of the threshold."""

    def __init__(
        self, name: str | None = "binary_accuracy", dtype: Any = None, threshold: float = 0.5
    ):
        super().__init__(name, dtype)
        self.threshold = _checks.number("threshold", threshold)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        decided = (y_pred > self.threshold).to(y_pred.dtype)
        return decided == _checks.matched(y_true, y_pred)


class CategoricalAccuracy(MeanMetric):
    """Whether the largest output is the target's class.

    Targets are rows of probabilities, shape (N, classes), or class numbers, (N,) or (N, 1).
    """

    axis = -1

    def __init__(self, name: str | None = "categorical_accuracy", dtype: Any = None):
        super().__init__(name, dtype)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return y_pred.argmax(self.axis) == _classes(y_true, y_pred, self.axis)


class SparseCategoricalAccuracy(MeanMetric):
    """Whether the largest output is the target's class, a number: shape (N,) or (N, 1)."""

    def __init__(self, name: str | None = "sparse_categorical_accuracy", dtype: Any = None):
        super().__init__(name, dtype)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return y_pred.argmax(-1) == _numbers(y_true, y_pred)


class TopKCategoricalAccuracy(MeanMetric):
    """Whether fewer than k outputs are larger than that of the target's class.

    Targets are rows of probabilities, shape (N, classes), or class numbers, (N,) or (N, 1).
    """

    def __init__(
        self, k: int = 5, name: str | None = "top_k_categorical_accuracy", dtype: Any = None
    ):
        super().__init__(name, dtype)
        self.k = _checks.positive_int("k", k)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        own = _of_class(y_pred, _classes(y_true, y_pred, -1))
        return ((y_pred > own.unsqueeze(-1)).sum(-1) < self.k) & ~own.isnan()


class SparseTopKCategoricalAccuracy(TopKCategoricalAccuracy):
    """Whether fewer than k outputs are larger than that of the target's class, a number."""

    def __init__(
        self, k: int = 5, name: str | None = "sparse_top_k_categorical_accuracy", dtype: Any = None
    ):
        super().__init__(k, name, dtype)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return super().values(_numbers(y_true, y_pred), y_pred)


class LossAccuracy(MeanMetric):
    """What compile makes of "accuracy": the accuracy that goes with the loss.

    A binary loss asks of each output whether it is on the target's side of 0.5, or of 0 if it takes
    logits; a loss of classes, whether the largest output is the target's. Of other losses the shape
    decides, the first for one output and the second for several.

    Keras goes by the shape alone, and so reports other numbers for logits, which it cuts at 0.5,
    and for several sigmoids, of which it compares the largest.
    """

    def __init__(self, loss: Loss | None = None, name: str | None = "accuracy"):
        super().__init__(name)
        self.loss = loss

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self._metric(y_pred).values(y_true, y_pred)

    def _metric(self, y_pred: Tensor) -> MeanMetric:
        kind = _kind(self.loss, y_pred)
        if kind == "binary":
            is_logit = self.loss is not None and self.loss.from_logits
            return BinaryAccuracy(threshold=0.0 if is_logit else 0.5)
        metric = CategoricalAccuracy()
        metric.axis = _class_axis(self.loss)
        return metric


class LossCrossentropy(MeanMetric):
    """What compile makes of "crossentropy": that of the kind, and of the logits, of the loss."""

    def __init__(self, loss: Loss | None = None, name: str | None = "crossentropy"):
        super().__init__(name)
        self.loss = loss

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        logits = self.loss is not None and self.loss.from_logits
        if _kind(self.loss, y_pred) == "binary":
            return BinaryCrossentropy(from_logits=logits).values(y_true, y_pred)
        if _are_numbers(y_true, y_pred, -1):
            return SparseCategoricalCrossentropy(from_logits=logits).values(y_true, y_pred)
        return CategoricalCrossentropy(from_logits=logits).values(y_true, y_pred)


class LossMetric(MeanMetric):
    """A loss as a metric: the mean of what it says of each sample."""

    def __init__(self, loss: Loss, name: str | None = None, dtype: Any = None):
        super().__init__(loss.name if name is None else name, dtype)
        self.loss = loss

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self.loss.values(y_true, y_pred)


class BinaryCrossentropy(LossMetric):
    """-y log(p) - (1 - y) log(1 - p), as the loss of this name computes it."""

    def __init__(
        self,
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
    ):
        super().__init__(losses.BinaryCrossentropy(from_logits, label_smoothing), name, dtype)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing


class CategoricalCrossentropy(LossMetric):
    """-sum(y log(p)) over the classes, as the loss of this name computes it."""

    def __init__(
        self,
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
    ):
        loss = losses.CategoricalCrossentropy(from_logits, label_smoothing, axis)
        super().__init__(loss, name, dtype)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis


class SparseCategoricalCrossentropy(MeanMetric):
    """-log(p) of the target's class, a number: shape (N,) or (N, 1).

    p is divided by its sum and clipped to [1e-7, 1 - 1e-7], or computed from logits by log_softmax.
    """

    def __init__(
        self,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        axis: int = -1,
    ):
        super().__init__(name, dtype)
        self.from_logits = _checks.truth("from_logits", from_logits)
        self.axis = _checks.integer("axis", axis)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_pred = y_pred.movedim(self.axis, -1)
        if self.from_logits:
            log_p = y_pred.log_softmax(-1)
        else:
            p = y_pred / y_pred.sum(-1, keepdim=True)
            log_p = p.clamp(EPSILON, 1 - EPSILON).log()
        return -_of_class(log_p, _numbers(y_true, y_pred))


class CosineSimilarity(MeanMetric):
    """The cosine of the angle between target and prediction."""

    def __init__(self, name: str | None = "cosine_similarity", dtype: Any = None, axis: int = -1):
        super().__init__(name, dtype)
        self.axis = _checks.integer("axis", axis)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = _with_outputs(y_true, y_pred)
        return (_unit(y_true, self.axis) * _unit(y_pred, self.axis)).sum(self.axis)


class _Error(MeanMetric):
    """The mean of a function of target and prediction."""

    default_name = ""

    def __init__(self, name: str | None = None, dtype: Any = None):
        super().__init__(self.default_name if name is None else name, dtype)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self.error(_checks.matched(y_true, y_pred), y_pred)

    def error(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        raise NotImplementedError


class MeanSquaredError(_Error):
    """(y_true - y_pred)^2, averaged over the outputs."""

    default_name = "mean_squared_error"

    def error(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return (y_true - y_pred).square()


class RootMeanSquaredError(MeanSquaredError):
    """The root of the mean of (y_true - y_pred)^2 over everything."""

    default_name = "root_mean_squared_error"

    def value_of(self, totals: list[Any]) -> float:
        return math.sqrt(super().value_of(totals))


class MeanAbsoluteError(_Error):
    """|y_true - y_pred|, averaged over the outputs."""

    default_name = "mean_absolute_error"

    def error(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return (y_true - y_pred).abs()


class MeanAbsolutePercentageError(_Error):
    """100 |y_true - y_pred| / max(|y_true|, 1e-7), averaged over the outputs."""

    default_name = "mean_absolute_percentage_error"

    def error(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return 100 * (y_true - y_pred).abs() / y_true.abs().clamp(min=EPSILON)


class MeanSquaredLogarithmicError(_Error):
    """(log(1 + y_true) - log(1 + y_pred))^2, of values of at least 1e-7, averaged over the
    outputs."""

    default_name = "mean_squared_logarithmic_error"

    def error(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return (y_true.clamp(min=EPSILON).log1p() - y_pred.clamp(min=EPSILON).log1p()).square()


class LogCoshError(_Error):
    """log(cosh(y_pred - y_true)), averaged over the outputs."""

    default_name = "logcosh"

    def error(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        error = (y_pred - y_true).abs()
        return error + (-2 * error).exp().log1p() - math.log(2)


class R2Score(Summed):
    """1 - sum((y_true - y_pred)^2) / sum((y_true - mean(y_true))^2), of each output; 0 where that
    is infinite.

    Args:
        class_aggregation: "uniform_average" for the mean of the outputs' scores;
            "variance_weighted_average" to weigh them by the variance of their targets; None for
            all of them.
        num_regressors: p in the adjusted score, 1 - (1 - score) (N - 1) / (N - p - 1), for N
            samples, as each of which Keras counts every output; 0 for the plain one.
        name: The key in History.history.
        dtype: Ignored.
    """

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = "r2_score",
        dtype: Any = None,
    ):
        super().__init__(name, dtype)
        if class_aggregation is not None:
            options = ("uniform_average", "variance_weighted_average")
            _checks.choice("class_aggregation", class_aggregation, options)
        self.class_aggregation = class_aggregation
        self.num_regressors = _checks.non_negative_int("num_regressors", num_regressors)

    def sums(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, batches: Parts
    ) -> list[Tensor]:
        y, p = (each.flatten(1).double() for each in _with_outputs(y_true, y_pred))
        weight = torch.ones_like(y) if sample_weight is None else spread(sample_weight, y)
        addends = [weight * y, weight * y * y, weight * (y - p).square(), weight]
        columns = torch.cat([torch.ones_like(y[:, :1]), *addends], 1)
        return [batches.reduce(column, torch.sum) for column in columns.unbind(1)]

    def value_of(self, totals: list[Any]) -> Any:
        samples, (total, squares, errors, weight) = totals[0], np.reshape(totals[1:], (4, -1))
        with np.errstate(divide="ignore", invalid="ignore"):
            spreads = squares - total * total / weight
            scores = 1 - errors / spreads
            scores = np.where(np.isinf(scores), 0.0, scores)
            if self.class_aggregation == "uniform_average":
                scores = scores.mean()
            elif self.class_aggregation is not None:
                scores = (spreads * scores).sum() / spreads.sum()
        rest = samples - self.num_regressors - 1
        if self.num_regressors and rest > 0:
            scores = 1 - (1 - scores) * (samples - 1) / rest
        return scores if scores.ndim else float(scores)


class MeanMetricWrapper(MeanMetric):
    """A plain function of (y_true, y_pred) as a metric.

    It is called for each batch, since it may look at all of its samples.

    Args:
        fn: Returns one value per sample or per prediction, or one for the batch; a tensor, an
            array or a number. Targets that are class numbers come to it as they are.
        name: The key in History.history; the function's own name if None.
        dtype: Ignored.
        kwargs: Further arguments of the function.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ):
        if name is None:
            name = str(getattr(fn, "__name__", type(fn).__name__))
        super().__init__(name, dtype)
        self.fn, self.kwargs = fn, kwargs

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        values = of_samples(self.name, self._measure(y_true, y_pred), y_pred)
        return values.to(y_pred.device)

    def sums(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, batches: Parts
    ) -> list[Tensor]:
        sizes = batches.sizes
        values = map(self.values, y_true.split(sizes), y_pred.split(sizes))
        return mean_sums(torch.cat([*values]), sample_weight, batches)

    def _measure(self, y_true: Tensor, y_pred: Tensor) -> Any:
        has_classes = y_pred.ndim > 1 and y_pred.shape[-1] > 1
        if has_classes and _are_numbers(y_true, y_pred, -1):
            y_true = y_true.to(y_pred.device)
        else:
            y_true = _checks.matched(y_true, y_pred)
        return self.fn(y_true, y_pred, **self.kwargs)


def _kind(loss: Loss | None, y_pred: Tensor) -> str:
    """Whether outputs are yes or no, each of them, or classes: by the loss, or by their number."""
    function = loss.function if isinstance(loss, TorchLoss) else None
    is_binary = loss is not None and (loss.is_binary or loss.activation == "sigmoid")
    if is_binary or isinstance(function, (nn.BCELoss, nn.BCEWithLogitsLoss)):
        return "binary"
    if loss is not None and (loss.activation == "softmax" or loss.takes_labels):
        return "categorical"
    return "binary" if y_pred.ndim == 1 or y_pred.shape[-1] == 1 else "categorical"


def _class_axis(loss: Loss | None) -> int:
    """The axis of the classes: PyTorch's losses have them behind the samples."""
    is_torchs = isinstance(loss, TorchLoss) and loss.takes_labels
    return 1 if is_torchs else getattr(loss, "axis", -1)


def _are_numbers(y_true: Tensor, y_pred: Tensor, axis: int) -> bool:
    """Whether targets are class numbers: they lack the axis of the classes, or have it of 1."""
    axes = list(y_pred.shape)
    del axes[axis]
    return list(y_true.shape) in (axes, [*axes, 1])


def _classes(y_true: Tensor, y_pred: Tensor, axis: int) -> Tensor:
    """The target's class numbers, which may have come as rows of probabilities."""
    if _are_numbers(y_true, y_pred, axis):
        return _numbers(y_true, y_pred, axis)
    return _checks.matched(y_true, y_pred).argmax(axis)


def _numbers(y_true: Tensor, y_pred: Tensor, axis: int = -1) -> Tensor:
    """Class numbers as integers.

    Raises:
        ShapeError: They are something else.
    """
    if not _are_numbers(y_true, y_pred, axis):
        raise _checks.ShapeError(
            f"y_true of shape {tuple(y_true.shape)} holds no class numbers for "
            f"y_pred of shape {tuple(y_pred.shape)}"
        )
    axes = list(y_pred.shape)
    del axes[axis]
    return y_true.reshape(axes).to(y_pred.device, torch.int64)


def _of_class(y_pred: Tensor, classes: Tensor) -> Tensor:
    """The prediction for each sample's class, which is NaN for a class that there is none of."""
    is_there = (classes >= 0) & (classes < y_pred.shape[-1])
    index = classes.clamp(0, y_pred.shape[-1] - 1).unsqueeze(-1)
    return torch.where(is_there, y_pred.gather(-1, index).squeeze(-1), math.nan)


def _with_outputs(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one shape, (N, ..., outputs)."""
    y_true = _checks.matched(y_true, y_pred)
    return (y_true.unsqueeze(-1), y_pred.unsqueeze(-1)) if y_pred.ndim == 1 else (y_true, y_pred)


def _unit(vectors: Tensor, axis: int) -> Tensor:
    """Vectors of length 1; those that are next to nothing stay so."""
    return vectors * vectors.square().sum(axis, keepdim=True).clamp(min=1e-12).rsqrt()
