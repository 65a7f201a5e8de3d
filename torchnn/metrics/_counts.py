"""Metrics of what was said to be positive and what is: counts of an epoch, exact over all of it.

Their state is a histogram: how many of the positives, and of the negatives, have a prediction
between two neighbouring thresholds. It tells, for each threshold, the true positives and the rest.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchnn import _checks
from torchnn._config import plain
from torchnn.metrics._base import Parts, Summed, spread

EPSILON = 1e-7
CURVES = ("ROC", "PR")
METHODS = ("interpolation", "minoring", "majoring")
AVERAGES = ("micro", "macro", "weighted")


class Counts(NamedTuple):
    """For each threshold, on the first axis, how many there are of each kind, or their weight."""

    tp: Any
    fp: Any
    tn: Any
    fn: Any


class _Confusion(Summed):
    """Counts of predictions above thresholds, among the positives and among the others.

    Targets of another value than 0 are positive; predictions that are larger than the threshold
    are said to be. All outputs of a sample count.

    Args:
        thresholds: A number in [0, 1] or several of them, for one value each; 0.5 if None.
        name: The key in History.history.
        dtype: Ignored.
    """

    top_k: int | None = None
    class_id: int | None = None
    labels = 1  # of each of which there is a histogram

    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: Any = None):
        super().__init__(name, dtype)
        self.thresholds = [0.5] if thresholds is None else _thresholds(thresholds)
        self._set_sorted(self.thresholds)

    def _set_sorted(self, thresholds: Sequence[float]) -> None:
        self._order = np.argsort(thresholds, kind="stable")
        self._sorted = torch.tensor(sorted(thresholds), dtype=torch.float32, device="cpu")

    def sums(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, batches: Parts
    ) -> list[Tensor]:
        y_true = _checks.matched(y_true, y_pred)
        if self.top_k is not None:
            y_pred = _of_top(y_pred, self.top_k)
        if self.class_id is not None:
            _check_class(self.class_id, y_pred)
            own = slice(self.class_id, self.class_id + 1)
            y_true, y_pred = y_true[..., own], y_pred[..., own]
        weight = None if sample_weight is None else spread(sample_weight, y_pred)
        return [self._histogram(y_true != 0, y_pred, weight, batches)]

    def _histogram(
        self, is_positive: Tensor, y_pred: Tensor, weight: Tensor | None, batches: Parts
    ) -> Tensor:
        """Of each epoch, in a row: how many lie between thresholds, label by label, negatives
        first."""
        epochs = batches.samples // batches.epoch_size
        rows, places = epochs * self.labels, len(self._sorted) + 1
        place = self._places(y_pred).add(is_positive, alpha=places).long()
        if rows > 1:
            offsets = 2 * places * torch.arange(rows, device=place.device)
            place = place.reshape(epochs, -1, self.labels) + offsets.reshape(epochs, 1, -1)
        counts = torch.zeros(rows * 2 * places, dtype=torch.float64, device=place.device)
        amounts = counts.new_ones(()) if weight is None else weight.reshape(-1).double()
        counts.scatter_add_(0, place.reshape(-1), amounts.expand(place.numel()))
        return counts.reshape(epochs, -1)

    def _places(self, y_pred: Tensor) -> Tensor:
        """How many thresholds each prediction exceeds: none, if it is not a number."""
        if len(self._sorted) == 1:
            return (y_pred > self._sorted.item()).float()
        values = y_pred.float().nan_to_num(-math.inf, math.inf, -math.inf).contiguous()
        return torch.searchsorted(self._sorted.to(values.device), values)

    def counts(self, totals: list[Any]) -> Counts:
        """Of the sorted thresholds, and of each label on the second axis if there are several."""
        histogram = totals[0].reshape(self.labels, 2, -1)
        above = histogram[..., ::-1].cumsum(-1)[..., ::-1]  # and those in the place itself
        everything = above[..., :1]
        (fp, tp), (tn, fn) = (
            np.moveaxis(each, (1, 2), (0, 1))
            for each in (above[..., 1:], (everything - above[..., 1:]))
        )
        return Counts(*(each[:, 0] if self.labels == 1 else each for each in (tp, fp, tn, fn)))

    def value_of(self, totals: list[Any]) -> Any:
        values = np.empty(len(self._sorted))
        values[self._order] = self.of(self.counts(totals))
        return float(values[0]) if len(values) == 1 else values

    def of(self, counts: Counts) -> Any:
        """Returns the value for each of the sorted thresholds."""
        raise NotImplementedError


class TruePositives(_Confusion):
    """The number of positives that are said to be, or their weight."""

    def of(self, counts: Counts) -> Any:
        return counts.tp


class FalsePositives(_Confusion):
    """The number of negatives that are said to be positive, or their weight."""

    def of(self, counts: Counts) -> Any:
        return counts.fp


class TrueNegatives(_Confusion):
    """The number of negatives that are said to be, or their weight."""

    def of(self, counts: Counts) -> Any:
        return counts.tn


class FalseNegatives(_Confusion):
    """The number of positives that are said to be negative, or their weight."""

    def of(self, counts: Counts) -> Any:
        return counts.fn


class _OfTop(_Confusion):
    """Counts of some of the outputs.

    Args:
        thresholds: A number in [0, 1] or several of them, for one value each. If None, 0.5; with
            top_k, none. For logits, 0.
        top_k: Only the k largest outputs of each sample are said to be positive.
        class_id: Only this output counts.
        name: The key in History.history.
        dtype: Ignored.
    """

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ):
        super().__init__(thresholds, name, dtype)
        self.top_k = None if top_k is None else _checks.positive_int("top_k", top_k)
        if class_id is not None:
            class_id = _checks.non_negative_int("class_id", class_id)
        self.class_id = class_id
        if top_k is not None and thresholds is None:
            self.thresholds = [-math.inf]
            self._set_sorted(self.thresholds)


class Precision(_OfTop):
    """TP / (TP + FP): the share of positives among what is said to be; 0 if nothing is."""

    def of(self, counts: Counts) -> Any:
        return _ratio(counts.tp, counts.tp + counts.fp)


class Recall(_OfTop):
    """TP / (TP + FN): the share of the positives that is said to be; 0 if there are none."""

    def of(self, counts: Counts) -> Any:
        return _ratio(counts.tp, counts.tp + counts.fn)


class AUC(_Confusion):
    """The area under the curve through the points of num_thresholds thresholds.

    ROC has the false positives' rate FP / (FP + TN) on the x axis and the recall on the y axis; PR
    has the recall and the precision. The points are exact over the epoch; the area between two of
    them is interpolated, as in Keras: with straight lines, or, for PR, with counts that change
    linearly (Davis and Goadrich 2006). Predictions between two thresholds are not told apart. More
    thresholds cost next to nothing and come as near to the area of scikit-learn and torchmetrics,
    which have one for each prediction, as you like.

    Args:
        num_thresholds: How many there are, evenly from 0 to 1, the ends included.
        curve: "ROC" or "PR".
        summation_method: "interpolation"; "minoring" or "majoring" for bounds of the area.
        name: The key in History.history.
        dtype: Ignored.
        thresholds: Numbers in [0, 1] to have between the ends, in place of num_thresholds.
        multi_label: Whether each output has an area of its own, of which this is the mean.
        num_labels: The number of outputs; it is found out if None.
        label_weights: Weights of the outputs: of their areas if multi_label, else of their counts.
        from_logits: Predictions are logits, of which the sigmoid is compared.
    """

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: Any = None,
        thresholds: Any = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ):
        if thresholds is None:
            count = _checks.bounded_int("num_thresholds", num_thresholds, 2, 2**24) - 1
            inner = [i / count for i in range(1, count)]
        else:
            inner = sorted(_thresholds(thresholds))
        super().__init__(None, name, dtype)
        self.is_even = thresholds is None
        self.thresholds = [-EPSILON, *inner, 1 + EPSILON]
        self._set_sorted(self.thresholds)
        self.num_thresholds = len(self.thresholds)
        self.curve = _checks.choice("curve", curve, CURVES)
        self.summation_method = _checks.choice("summation_method", summation_method, METHODS)
        self.multi_label = _checks.truth("multi_label", multi_label)
        self.num_labels = num_labels
        self.label_weights = None
        if label_weights is not None:
            self.label_weights = _checks.tensor("label_weights", label_weights).double()
        self.from_logits = _checks.truth("from_logits", from_logits)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return config | {"thresholds": None if self.is_even else plain(self.thresholds[1:-1])}

    def sums(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, batches: Parts
    ) -> list[Tensor]:
        y_true = _checks.matched(y_true, y_pred)
        self.labels = self._outputs(y_pred) if self.multi_label else 1
        weight = None if sample_weight is None else spread(sample_weight, y_pred)
        if self.label_weights is not None and not self.multi_label:
            own = self.label_weights.to(y_pred.device).expand_as(y_pred)
            weight = own if weight is None else own * weight
        p = y_pred.sigmoid() if self.from_logits else y_pred
        return [self._histogram(y_true != 0, p, weight, batches)]

    def _outputs(self, y_pred: Tensor) -> int:
        """The number of outputs, each of which is a label."""
        if y_pred.ndim != 2 or self.num_labels not in (None, y_pred.shape[1]):
            raise ValueError(
                f"{self.name} with multi_label=True needs predictions of shape "
                f"(N, {self.num_labels or 'labels'}), got {tuple(y_pred.shape)}"
            )
        return y_pred.shape[1]

    def _places(self, y_pred: Tensor) -> Tensor:
        if not self.is_even:
            return super()._places(y_pred.clamp(0, 1))
        last = self.num_thresholds - 1  # the first threshold, below 0, is always exceeded
        p = y_pred.float().nan_to_num(0.0).clamp_(0, 1)
        return p.mul_(last).ceil_().clamp_(min=1)

    def value_of(self, totals: list[Any]) -> float:
        areas = self._areas(self.counts(totals)).sum(0)
        if not self.multi_label:
            return float(areas)
        if self.label_weights is None:
            return float(areas.mean())
        weights = self.label_weights.numpy()
        return float(_ratio((areas * weights).sum(), weights.sum()))

    def _areas(self, counts: Counts) -> Any:
        """The area between each two neighbouring points."""
        recall = _ratio(counts.tp, counts.tp + counts.fn)
        if self.curve == "ROC":
            x, y = _ratio(counts.fp, counts.fp + counts.tn), recall
        elif self.summation_method == "interpolation":
            return _precision_areas(counts)
        else:
            x, y = recall, _ratio(counts.tp, counts.tp + counts.fp)
        heights = {
            "interpolation": (y[:-1] + y[1:]) / 2,
            "minoring": np.minimum(y[:-1], y[1:]),
            "majoring": np.maximum(y[:-1], y[1:]),
        }
        return (x[:-1] - x[1:]) * heights[self.summation_method]


class FBetaScore(Summed):
    """(1 + beta^2) precision recall / (beta^2 precision + recall), of each class.

    Args:
        average: None for the scores of all classes; "macro" for their mean; "weighted" for that
            weighted by the number of their positives; "micro" for the score of all counts together.
        beta: How much more recall weighs than precision.
        threshold: An output above it is said to be positive. If None, the largest is, or, of a
            single one, which always is the largest and for which Keras therefore says yes to every
            sample, what is above 0.5.
        name: The key in History.history.
        dtype: Ignored.
    """

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = "fbeta_score",
        dtype: Any = None,
    ):
        super().__init__(name, dtype)
        self.average = None if average is None else _checks.choice("average", average, AVERAGES)
        self.beta = _checks.positive_float("beta", beta)
        self.threshold = None if threshold is None else _checks.number("threshold", threshold)

    def sums(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, batches: Parts
    ) -> list[Tensor]:
        y, p = _checks.matched(y_true, y_pred), self._said(y_pred).to(y_pred.dtype)
        y, p = (each.unsqueeze(-1) if each.ndim == 1 else each for each in (y, p))
        parts = [p * y, p, y]
        if sample_weight is not None:
            parts = [part * spread(sample_weight, part) for part in parts]
        epochs, classes = batches.samples // batches.epoch_size, y.shape[-1]
        counts = [each.reshape(epochs, -1, classes).sum(1, dtype=torch.float64) for each in parts]
        return [torch.cat(counts, 1)]

    def _said(self, y_pred: Tensor) -> Tensor:
        """What is said to be positive."""
        if self.threshold is not None or y_pred.ndim == 1 or y_pred.shape[-1] == 1:
            return y_pred > (0.5 if self.threshold is None else self.threshold)
        return (y_pred >= y_pred.amax(-1, keepdim=True)) & (y_pred.abs() > 1e-9)

    def value_of(self, totals: list[Any]) -> Any:
        tp, said, positive = totals[0].reshape(3, -1)
        if self.average == "micro":
            tp, said, positive = tp.sum(), said.sum(), positive.sum()
        precision, recall = tp / (said + EPSILON), tp / (positive + EPSILON)
        squared = self.beta**2
        scores = (1 + squared) * precision * recall / (squared * precision + recall + EPSILON)
        if self.average == "weighted":
            return float((scores * positive).sum() / (positive.sum() + EPSILON))
        return scores if self.average is None else float(scores.mean())


class F1Score(FBetaScore):
    """2 precision recall / (precision + recall), of each class: FBetaScore with a beta of 1.

    Args:
        average: As in FBetaScore.
        threshold: As in FBetaScore.
        name: The key in History.history.
        dtype: Ignored.
    """

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = "f1_score",
        dtype: Any = None,
    ):
        super().__init__(average, 1.0, threshold, name, dtype)


def _precision_areas(counts: Counts) -> Any:
    """The area under precision and recall where both counts of what is said to be positive change
    linearly between two points: slope (dTP + (TP - slope P) log(P' / P)) / positives."""
    tp, said = counts.tp, counts.tp + counts.fp
    rise = tp[:-1] - tp[1:]
    slope = _ratio(rise, said[:-1] - said[1:])
    both = (said[:-1] > 0) & (said[1:] > 0)
    growth = np.where(both, _ratio(said[:-1], said[1:]), 1.0)
    area = slope * (rise + (tp[1:] - slope * said[1:]) * np.log(np.where(growth > 0, growth, 1.0)))
    return _ratio(area, tp[1:] + counts.fn[1:])


def _ratio(part: Any, whole: Any) -> Any:
    """part / whole, or 0 where there is nothing."""
    whole = np.asarray(whole)
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), 0.0)


def _of_top(y_pred: Tensor, k: int) -> Tensor:
    """The k largest outputs of each sample, the first ones of equal ones; -inf for the others."""
    order = y_pred.argsort(dim=-1, descending=True, stable=True)
    return torch.full_like(y_pred, -math.inf).scatter(
        -1, order[..., :k], y_pred.gather(-1, order[..., :k])
    )


def _thresholds(values: Any) -> list[float]:
    """Returns one or more numbers in [0, 1] as a list."""
    given = list(values) if isinstance(values, (Sequence, np.ndarray)) else [values]
    numbers = [_checks.number("thresholds", value) for value in given]
    if not numbers or not all(0 <= each <= 1 for each in numbers):
        raise ValueError(f"thresholds must lie in [0, 1], got {values!r}")
    return numbers


def _check_class(class_id: int, y_pred: Tensor) -> None:
    outputs = y_pred.shape[-1] if y_pred.ndim > 1 else 1
    if class_id >= outputs:
        raise ValueError(f"class_id must be below {outputs}, the outputs, got {class_id}")
