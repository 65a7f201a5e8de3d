"""Losses of (y_true, y_pred): Keras's arguments and numbers.

A loss has one value per sample, the mean over the last axis, and a reduction that makes one
number of a batch:

    "sum_over_batch_size"   sum(w * l) / N, with N samples, not the sum of the weights
    "sum"                   sum(w * l)
    "none"                  w * l
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from torchnn import _checks
from torchnn.ops import Kernel

__all__ = [
    "EPSILON",
    "NAMES",
    "REDUCTIONS",
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "FunctionLoss",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "TorchLoss",
    "get",
]

REDUCTIONS = ("sum_over_batch_size", "sum", "none")

# Probabilities are kept this far from 0 and 1, so that their logarithms stay finite.
EPSILON = 1e-7


class Loss(ABC):
    """A value per sample, and a reduction of a batch to one number.

    A loss that native training knows has a method `kernel`, which returns the ops.Kernel that
    computes it, or None where its settings are not the kernel's.

    Args:
        reduction: "sum_over_batch_size", "sum" or "none".
        name: What the loss is called in messages.

    Attributes:
        activation: The output activation that the loss would rather take into itself: then
            on_logits() says what it is of what goes into that. None for none.
        from_logits: Whether it has done so: predictions are what goes into the activation.
        takes_labels: Whether targets may be class numbers, which check_labels then looks at.
    """

    activation: str | None = None
    from_logits = False
    takes_labels = False

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = None):
        self.reduction = _checks.choice(
            "reduction", "none" if reduction is None else reduction, REDUCTIONS
        )
        self.name = _checks.string("name", type(self).__name__ if name is None else name)

    @abstractmethod
    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns one value per sample.

        Args:
            y_true: Targets, shaped like y_pred, or (N,) against (N, 1).
            y_pred: Predictions, shape (N, ..., units) or (N,).

        Returns:
            Shape (N, ...).
        """

    def check_targets(self, y_true: Tensor) -> None:  # noqa: B027 (most losses take any target)
        """Raises ValueError if y_true holds values that the loss is not defined for."""

    def check_labels(self, y_true: Tensor, axes: tuple[int, ...]) -> None:  # noqa: B027 (likewise)
        """Raises ValueError if y_true holds class numbers that the model's output has no place for.

        Args:
            y_true: Targets, shape (N, ...).
            axes: The shape of one output, which is known once the model has been rehearsed.
        """

    def targets(self, y_true: Tensor) -> Tensor:
        """Returns what predictions are compared with."""
        return y_true

    def on_logits(self) -> "Loss":
        """Returns the same loss for predictions that are still to go into its activation."""
        loss = copy.copy(self)
        loss.from_logits = True
        return loss

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Returns the reduced loss of a batch.

        Args:
            y_true: Targets, shaped like y_pred, or (N,) against (N, 1). A tensor or an array.
            y_pred: Predictions, shape (N, ..., units) or (N,). A tensor or an array.
            sample_weight: Shape (N,), or the first axes of the losses: (N, T) for one weight a time
                step; a number for all; or None for weights of 1.

        Returns:
            A scalar, or shape (N, ...) if the reduction is "none".

        Raises:
            ValueError: The shapes do not fit; nothing else is broadcast.
        """
        losses = self.per_sample(_checks.tensor("y_true", y_true), _checks.tensor("y_pred", y_pred))
        if sample_weight is not None:
            losses = losses * _as_factor(_checks.tensor("sample_weight", sample_weight), losses)
        if self.reduction == "none":
            return losses
        return losses.sum() if self.reduction == "sum" else losses.mean()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(reduction={self.reduction!r}, name={self.name!r})"


class BinaryCrossentropy(Loss):
    """-y log(p) - (1 - y) log(1 - p), for targets y and predicted probabilities p in [0, 1].

    p is clipped to [1e-7, 1 - 1e-7]. Given logits z instead, with p = sigmoid(z), the same is
    computed as max(z, 0) - z y + log(1 + e^-|z|), which needs no clipping and keeps its gradient,
    sigmoid(z) - y, however large z is.

    Args:
        from_logits: y_pred holds z rather than p.
        label_smoothing: s in [0, 1]: targets become y (1 - s) + s / 2.
        axis: The axis to take the mean over.
        reduction: "sum_over_batch_size", "sum" or "none".
        name: What the loss is called in messages.
    """

    activation = "sigmoid"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
    ):
        super().__init__(reduction, name)
        self.from_logits = _checks.truth("from_logits", from_logits)
        self.label_smoothing = _smoothing(label_smoothing)
        self.axis = _checks.integer("axis", axis)

    def kernel(self) -> Kernel | None:
        if not self.from_logits or self.axis not in (-1, 1):
            return None
        return Kernel("binary_crossentropy_from_logits")

    def targets(self, y_true: Tensor) -> Tensor:
        smoothing = self.label_smoothing
        return y_true * (1 - smoothing) + smoothing / 2 if smoothing else y_true

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = _aligned(y_true, y_pred)
        y_true = self.targets(y_true)
        if self.from_logits:
            losses = nn.functional.binary_cross_entropy_with_logits(
                y_pred, y_true, reduction="none"
            )
        else:
            # Not PyTorch's binary_cross_entropy: on CUDA a NaN prediction would end the process.
            p = y_pred.clamp(EPSILON, 1 - EPSILON)
            losses = -(y_true * p.log() + (1 - y_true) * (1 - p).log())
        return losses.mean(self.axis)

    def check_targets(self, y_true: Tensor) -> None:
        _check_probabilities(self.name, y_true)


class CategoricalCrossentropy(Loss):
    """-sum(y log(p)) over the classes, for targets y and predicted probabilities p.

    p is divided by its sum and clipped to [1e-7, 1 - 1e-7]. Given logits z instead, with p =
    softmax(z), the same is computed as sum(y (log(sum(e^z)) - z)), which needs no clipping.

    Args:
        from_logits: y_pred holds z rather than p.
        label_smoothing: s in [0, 1]: targets become y (1 - s) + s / classes.
        axis: The axis of the classes.
        reduction: "sum_over_batch_size", "sum" or "none".
        name: What the loss is called in messages.
    """

    activation: str | None = "softmax"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
    ):
        super().__init__(reduction, name)
        self.from_logits = _checks.truth("from_logits", from_logits)
        self.label_smoothing = _smoothing(label_smoothing)
        self.axis = _checks.integer("axis", axis)
        if axis != -1:
            self.activation = None  # that softmax is over the last axis

    def kernel(self) -> Kernel | None:
        if not self.from_logits or self.axis not in (-1, 1):
            return None
        return Kernel("categorical_crossentropy_from_logits")

    def targets(self, y_true: Tensor) -> Tensor:
        smoothing = self.label_smoothing
        if not smoothing:
            return y_true
        return y_true * (1 - smoothing) + smoothing / y_true.shape[self.axis]

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = _aligned(y_true, y_pred)
        if self.from_logits:
            log_p = y_pred.log_softmax(self.axis)
        else:
            p = y_pred / y_pred.sum(self.axis, keepdim=True)
            log_p = p.clamp(EPSILON, 1 - EPSILON).log()
        return -(self.targets(y_true) * log_p).sum(self.axis)

    def check_targets(self, y_true: Tensor) -> None:
        if bool((y_true < 0).any()):
            raise ValueError(f"{self.name} needs y of at least 0, got {y_true.min().item():g}")


class MeanSquaredError(Loss):
    """(y_true - y_pred)^2, averaged over the last axis."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "mean_squared_error",
    ):
        super().__init__(reduction, name)

    def kernel(self) -> Kernel:
        return Kernel("mean_squared_error")

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = _aligned(y_true, y_pred)
        return (y_true - y_pred).square().mean(-1)


class MeanAbsoluteError(Loss):
    """|y_true - y_pred|, averaged over the last axis."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "mean_absolute_error",
    ):
        super().__init__(reduction, name)

    def kernel(self) -> Kernel:
        return Kernel("mean_absolute_error")

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = _aligned(y_true, y_pred)
        return (y_true - y_pred).abs().mean(-1)


class FunctionLoss(Loss):
    """A plain function of (y_true, y_pred) as a loss.

    Args:
        function: Returns one value per sample, or one per prediction, or, where no sample weights
            are needed, a scalar.
        reduction: "sum_over_batch_size", "sum" or "none".
        name: What the loss is called in messages.
    """

    def __init__(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ):
        if name is None:
            name = str(getattr(function, "__name__", type(function).__name__))
        super().__init__(reduction, name)
        self.function = function

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self.function(_checks.matched(y_true, y_pred), y_pred)


class TorchLoss(FunctionLoss):
    """A loss of PyTorch, such as `nn.HuberLoss()`, which takes (y_pred, y_true).

    `nn.CrossEntropyLoss` and `nn.NLLLoss` take class numbers, too, shape (N,) or (N, 1) against
    predictions of shape (N, classes).

    Args:
        function: The module.
        reduction: "sum_over_batch_size", "sum" or "none".
        name: What the loss is called in messages.
    """

    function: Any  # of a module's attributes, mypy knows nothing

    def __init__(
        self,
        function: nn.Module,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ):
        super().__init__(function, reduction, name)
        self.from_logits = isinstance(function, (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss))
        self.takes_labels = isinstance(function, (nn.CrossEntropyLoss, nn.NLLLoss))

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if self._are_labels(y_true.shape[1:], y_pred.shape[1:]):
            numbers = y_pred.shape[:1] + y_pred.shape[2:]
            return self.function(y_pred, y_true.reshape(numbers).long())
        return self.function(y_pred, _checks.matched(y_true, y_pred))

    def check_targets(self, y_true: Tensor) -> None:
        if isinstance(self.function, (nn.BCELoss, nn.BCEWithLogitsLoss)):
            _check_probabilities(self.name, y_true)

    def check_labels(self, y_true: Tensor, axes: tuple[int, ...]) -> None:
        if self._are_labels(y_true.shape[1:], axes):
            _check_class_numbers(y_true, axes[0], self.function.ignore_index)

    def _are_labels(self, axes_true: tuple[int, ...], axes_pred: tuple[int, ...]) -> bool:
        """Whether targets are class numbers: they lack the first axis, that of the classes."""
        numbers = tuple(axes_pred[1:])
        return self.takes_labels and bool(axes_pred) and axes_true in (numbers, (*numbers, 1))


NAMES: dict[str, Callable[[], Loss]] = {
    "binary_crossentropy": BinaryCrossentropy,
    "bce": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
}


def get(value: str | Loss | Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Returns the loss of this name, the loss itself, or a function of (y_true, y_pred) as a loss.

    An `nn.Module` is called PyTorch's way round, with (y_pred, y_true).

    Raises:
        ValueError: Unknown name.
        TypeError: No loss, or a class that was not instantiated.
    """
    loss = _checks.resolve("loss", value, NAMES, accept=callable)
    _checks.takes_targets_first("loss", loss)
    if isinstance(loss, Loss):
        return loss
    return TorchLoss(loss) if isinstance(loss, nn.Module) else FunctionLoss(loss)


def _smoothing(value: Any) -> float:
    smoothing = _checks.number("label_smoothing", value)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label_smoothing must lie in [0, 1], got {value!r}")
    return smoothing


def _check_probabilities(name: str, y_true: Tensor) -> None:
    if bool(((y_true < 0) | (y_true > 1)).any()):
        low, high = y_true.min().item(), y_true.max().item()
        raise ValueError(f"{name} needs y in [0, 1], got values from {low:g} to {high:g}")


def _check_class_numbers(y_true: Tensor, classes: int, ignored: int) -> None:
    is_class = (y_true >= 0) & (y_true < classes) & (y_true == y_true.round())
    bad = (~(is_class | (y_true == ignored))).nonzero()
    if len(bad):
        raise ValueError(
            f"y must hold class numbers from 0 to {classes - 1}, or {ignored} to be ignored, "
            f"got {y_true[tuple(bad[0])].item():g} at row {bad[0][0].item()}"
        )


def _aligned(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one shape (N, ..., units) and one dtype in which logarithms make sense."""
    if not y_pred.is_floating_point():
        y_pred = y_pred.to(torch.get_default_dtype())
    elif y_pred.dtype.itemsize < 4:  # half types cannot tell 1 - 1e-7 from 1
        y_pred = y_pred.float()
    y_true = _checks.matched(y_true, y_pred)
    return (y_true.unsqueeze(-1), y_pred.unsqueeze(-1)) if y_pred.ndim == 1 else (y_true, y_pred)


def _as_factor(sample_weight: Tensor, losses: Tensor) -> Tensor:
    """Weights of the first axes of the losses as a factor of them all; a number goes with any."""
    axes = tuple(sample_weight.shape)
    if axes and axes != losses.shape[: len(axes)] and axes[-1] == 1:
        axes = axes[:-1]
    if axes != losses.shape[: len(axes)] or (sample_weight.ndim and not axes):
        raise ValueError(
            f"sample_weight of shape {tuple(sample_weight.shape)} does not fit "
            f"losses of shape {tuple(losses.shape)}: one weight per sample and one loss per sample"
        )
    return sample_weight.to(losses).reshape(*axes, *[1] * (losses.ndim - len(axes)))
