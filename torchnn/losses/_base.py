"""What every loss does: values of samples, and one number of a batch."""

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from torchnn import _array, _checks
from torchnn._config import Configured

REDUCTIONS = ("sum_over_batch_size", "sum", "none")

# Probabilities are kept this far from 0 and 1, so that their logarithms stay finite.
EPSILON = 1e-7

# A class number for the kernels that is none: its sample does not count.
IGNORED = -1


class Loss(Configured, ABC):
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

    def check_targets(self, y_true: Tensor) -> None:
        """Raises ValueError if y_true holds values that the loss is not defined for."""

    def check_labels(self, y_true: Tensor, axes: tuple[int, ...]) -> None:
        """Raises ValueError if y_true holds class numbers that the model's output has no place for.

        Args:
            y_true: Targets, shape (N, ...).
            axes: The shape of one output, which is known once the model has been rehearsed.
        """

    def targets(self, y_true: Tensor) -> Tensor:
        """Returns what predictions are compared with; class numbers that do not count are
        IGNORED."""
        return y_true

    @property
    def ignores(self) -> bool:
        """Whether there may be class numbers that do not count: the mean is over the others."""
        return False

    def on_logits(self) -> "Loss":
        """Returns the same loss for predictions that are still to go into its activation."""
        loss = copy.copy(self)
        loss.from_logits = True
        return loss

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Returns the reduced loss of a batch.

        Args:
            y_true: Targets, shaped like y_pred, or (N,) against (N, 1). A tensor or an array.
            y_pred: Predictions, shape (N, ..., units) or (N,). A tensor or an array.
            sample_weight: Shape (N,), or the first axes of the losses: (N, T) for one weight a time
                step; a number for all; or None for weights of 1.

        Returns:
            A scalar, or shape (N, ...) if the reduction is "none": of two arrays, an array.

        Raises:
            ValueError: The shapes do not fit; nothing else is broadcast.
        """
        given = y_true, y_pred
        y_true, y_pred = _checks.tensor("y_true", y_true), _checks.tensor("y_pred", y_pred)
        losses = self.per_sample(y_true, y_pred)
        if sample_weight is not None:
            losses = losses * _as_factor(_checks.tensor("sample_weight", sample_weight), losses)
        if self.reduction == "none":
            return _array.like(losses, *given)
        mean = losses.sum() if self.reduction == "sum" else self._mean(losses, y_true)
        return _array.like(mean, *given)

    def _mean(self, losses: Tensor, y_true: Tensor) -> Tensor:
        return losses.mean()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(reduction={self.reduction!r}, name={self.name!r})"


def precise(y_pred: Tensor) -> Tensor:
    """Predictions in a dtype in which logarithms make sense."""
    if not y_pred.is_floating_point():
        return y_pred.to(torch.get_default_dtype())
    # half types cannot tell 1 - 1e-7 from 1
    return y_pred.float() if y_pred.dtype.itemsize < 4 else y_pred


def aligned(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one shape (N, ..., units) and one dtype in which logarithms make sense."""
    y_pred = precise(y_pred)
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
