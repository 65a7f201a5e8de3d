"""Losses that compare numbers or directions: no cross-entropies."""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from torchnn import _checks
from torchnn.losses._base import EPSILON, Loss, aligned
from torchnn.ops import Kernel


class NamedLoss(Loss):
    """A loss with no settings but the reduction and the name, which it has a default of.

    Args:
        reduction: "sum_over_batch_size", "sum" or "none".
        name: What the loss is called in messages.
    """

    default_name: str

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = None):
        super().__init__(reduction, self.default_name if name is None else name)


class MeanLoss(NamedLoss):
    """A value per prediction, averaged over the last axis."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = aligned(y_true, y_pred)
        return self._values(self.targets(y_true), y_pred).mean(-1)

    @abstractmethod
    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The value of each prediction."""


class MeanSquaredError(MeanLoss):
    """(y_true - y_pred)^2, averaged over the last axis."""

    default_name = "mean_squared_error"

    def kernel(self) -> Kernel:
        return Kernel("mean_squared_error")

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return (y_true - y_pred).square()


class MeanAbsoluteError(MeanLoss):
    """|y_true - y_pred|, averaged over the last axis."""

    default_name = "mean_absolute_error"

    def kernel(self) -> Kernel:
        return Kernel("mean_absolute_error")

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return (y_true - y_pred).abs()


class MeanAbsolutePercentageError(MeanLoss):
    """100 |y_true - y_pred| / max(|y_true|, 1e-7), averaged over the last axis."""

    default_name = "mean_absolute_percentage_error"

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return 100 * (y_true - y_pred).abs() / y_true.abs().clamp(min=EPSILON)


class MeanSquaredLogarithmicError(MeanLoss):
    """(log(1 + y_true) - log(1 + y_pred))^2, averaged over the last axis.

    What lies below 1e-7 counts as 1e-7.
    """

    default_name = "mean_squared_logarithmic_error"

    def kernel(self) -> Kernel:
        return Kernel("mean_squared_logarithmic_error")

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = y_true.clamp(min=EPSILON), y_pred.clamp(min=EPSILON)
        return (y_true.log1p() - y_pred.log1p()).square()


class Huber(MeanLoss):
    """d^2 / 2 where |d| <= delta, else delta |d| - delta^2 / 2, with d = y_true - y_pred; averaged
    over the last axis.

    Args:
        delta: Above 0: where the parabola goes over into straight lines.
        reduction: "sum_over_batch_size", "sum" or "none".
        name: What the loss is called in messages.
    """

    default_name = "huber_loss"

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ):
        super().__init__(reduction, name)
        self.delta = _checks.positive_float("delta", delta)

    def kernel(self) -> Kernel:
        return Kernel("huber", {"delta": self.delta})

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return nn.functional.huber_loss(y_pred, y_true, reduction="none", delta=self.delta)


class LogCosh(MeanLoss):
    """log(cosh(y_pred - y_true)), averaged over the last axis.

    Computed as log(e^d + e^-d) - log(2), with d = y_pred - y_true, which does not overflow.
    """

    default_name = "log_cosh"

    def kernel(self) -> Kernel:
        return Kernel("log_cosh")

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        d = y_pred - y_true
        if d.requires_grad:
            return torch.logaddexp(d, -d) - math.log(2)
        # The last bit of logaddexp depends on where a number lies in an array.
        size = d.abs()
        return size + torch.log1p(torch.exp(-2 * size)) - math.log(2)


class Poisson(MeanLoss):
    """y_pred - y_true log(y_pred + 1e-7), averaged over the last axis."""

    default_name = "poisson"

    def kernel(self) -> Kernel:
        return Kernel("poisson")

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return y_pred - y_true * (y_pred + EPSILON).log()


class Hinge(MeanLoss):
    """max(1 - y_true y_pred, 0), averaged over the last axis.

    Targets are -1 and 1. If there is nothing else in them than 0 and 1, these become -1 and 1.
    """

    default_name = "hinge"

    def kernel(self) -> Kernel:
        return Kernel("hinge")

    def targets(self, y_true: Tensor) -> Tensor:
        return torch.where(_is_binary(y_true), 2 * y_true - 1, y_true)

    def check_targets(self, y_true: Tensor) -> None:
        if bool((y_true == 0).any() & ~_is_binary(y_true)):
            low, high = y_true.min().item(), y_true.max().item()
            raise ValueError(
                f"{self.name} needs y of -1 and 1, or of 0 and 1, got 0 among values from "
                f"{low:g} to {high:g}"
            )

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return (1 - y_true * y_pred).relu()


class SquaredHinge(Hinge):
    """max(1 - y_true y_pred, 0)^2, averaged over the last axis, for the targets of Hinge."""

    default_name = "squared_hinge"

    def kernel(self) -> Kernel:
        return Kernel("squared_hinge")

    def _values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return super()._values(y_true, y_pred).square()


class CategoricalHinge(NamedLoss):
    """max(1 + max((1 - y_true) y_pred) - sum(y_true y_pred), 0), over the last axis.

    Targets are one-hot: this is how far the best of the other classes comes up to the right one.
    """

    default_name = "categorical_hinge"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = aligned(y_true, y_pred)
        right, wrong = (y_true * y_pred).sum(-1), ((1 - y_true) * y_pred).amax(-1)
        return (wrong - right + 1).relu()


class KLDivergence(NamedLoss):
    """sum(y_true log(y_true / y_pred)) over the last axis, both clipped to [1e-7, 1]."""

    default_name = "kl_divergence"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = (each.clamp(EPSILON, 1) for each in aligned(y_true, y_pred))
        return (y_true * (y_true / y_pred).log()).sum(-1)


class CosineSimilarity(NamedLoss):
    """-sum(y_true y_pred) / (|y_true| |y_pred|): from -1 for one direction to 1 for opposite ones.

    Args:
        axis: The axis of the vectors.
        reduction: "sum_over_batch_size", "sum" or "none".
        name: What the loss is called in messages.
    """

    default_name = "cosine_similarity"

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ):
        super().__init__(reduction, name)
        self.axis = _checks.integer("axis", axis)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        both = aligned(y_true, y_pred)
        y_true, y_pred = (nn.functional.normalize(x, dim=self.axis, eps=EPSILON) for x in both)
        return -(y_true * y_pred).sum(self.axis)


def _is_binary(y_true: Tensor) -> Tensor:
    return ((y_true == 0) | (y_true == 1)).all()
