"""What every loss does: values of samples, and one number of a batch."""

import copy
from abc import ABC
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

    A loss of one's own says in `call` what the values of samples are:

        class Cubes(Loss):
            def call(self, y_true, y_pred):
                return (y_true - y_pred).abs().pow(3).mean(-1)

    A loss that native training knows has a method `kernel`, which returns the ops.Kernel that
    computes it, or None where its settings are not the kernel's.

    Args:
        reduction: "sum_over_batch_size", "sum" or "none".
        name: What the loss is called in messages.

    Attributes:
        activation: The output activation that the loss would rather take into itself: then
            on_logits() says what it is of what goes into that. None for none.
        from_logits: Whether it has done so: predictions are what goes into the activation.
        is_binary: Whether each output is a yes or no of its own, which "accuracy" goes by.
        takes_labels: Whether targets may be class numbers, which check_labels then looks at. Of a
            class of one's own: whether call gets targets as they are, of any shape.
    """

    activation: str | None = None
    from_logits = False
    is_binary = False
    takes_labels = False

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = None):
        if _method(self) is Loss.call:
            raise TypeError(
                f"{type(self).__name__} must have a method call(self, y_true, y_pred), "
                "which returns one value per sample"
            )
        self.reduction = _checks.choice(
            "reduction", "none" if reduction is None else reduction, REDUCTIONS
        )
        self.name = _checks.string("name", type(self).__name__ if name is None else name)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not vars(cls).keys().isdisjoint({"call", "per_sample", "activation"}):
            # Values of another formula's are not known to be of what goes into the activation.
            cls.activation = vars(cls).get("activation")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns one value per sample: what a loss is made of.

        Args:
            y_true: Targets. To a class of one's own they come with as many axes as y_pred, (N, 1)
                against (N, units), and in its dtype, unless it says takes_labels = True.
            y_pred: Predictions, shape (N, ..., units) or (N,).

        Returns:
            Shape (N, ...).
        """
        raise NotImplementedError

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns one value per sample.

        Args:
            y_true: Targets, shaped like y_pred, or (N,) against (N, 1).
            y_pred: Predictions, shape (N, ..., units) or (N,).

        Returns:
            Shape (N, ...).
        """
        return self.call(y_true, y_pred)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns per_sample; to a class of one's own, targets come with as many axes as y_pred.

        Raises:
            ValueError: The shapes do not fit.
            TypeError: The class, or the function, returns no tensor.
        """
        if _method(self).__module__.startswith("torchnn."):  # these see to it themselves
            return self.per_sample(y_true, y_pred)
        if not self.takes_labels:
            y_true = _with_axes(y_true, y_pred)
        return returned(self.name, self.per_sample(y_true, y_pred))

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
            TypeError: The class, or the function, returns something else than such values.
        """
        given = y_true, y_pred
        y_true, y_pred = _checks.tensor("y_true", y_true), _checks.tensor("y_pred", y_pred)
        losses = self.values(y_true, y_pred)
        if sample_weight is not None:
            weight = _checks.tensor("sample_weight", sample_weight)
            losses = losses * _as_factor(weight, losses, self.name)
        if self.reduction == "none":
            return _array.like(losses, *given)
        if self.reduction == "sum":
            return _array.like(losses.sum(), *given)
        if isinstance(losses, Tensor) and not losses.dtype.is_floating_point:
            raise TypeError(
                f"loss {self.name} must return a floating point tensor, which has a mean, "
                f"got {losses.dtype}"
            )
        return _array.like(self._mean(losses, y_true), *given)

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


def _with_axes(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Targets with as many axes as y_pred, in its dtype and on its device."""
    if y_true.ndim == y_pred.ndim - 1:
        y_true = y_true.unsqueeze(-1)
    elif y_true.ndim == y_pred.ndim + 1 and y_true.shape[-1] == 1:
        y_true = y_true.squeeze(-1)
    if y_true.ndim != y_pred.ndim or y_true.shape[:1] != y_pred.shape[:1]:
        return _checks.matched(y_true, y_pred)  # which says what is wrong
    return y_true.to(y_pred)


def _method(loss: Loss) -> Any:
    """What says the values of a loss: per_sample of its class, or call, to which that leads."""
    kind = type(loss)
    return kind.call if kind.per_sample is Loss.per_sample else kind.per_sample


def returned(name: str, losses: Any) -> Tensor:
    """Returns what a function of one's own has returned, if it is a tensor, or as good as one."""
    if isinstance(losses, Tensor) or hasattr(type(losses), "__torch_function__"):
        return losses
    count = f" of {len(losses)}" if isinstance(losses, (list, tuple)) else ""
    raise TypeError(f"loss {name} must return a tensor, got {type(losses).__name__}{count}")


def _as_factor(sample_weight: Tensor, losses: Tensor, name: str) -> Tensor:
    """Weights of the first axes of the losses as a factor of them all; a number goes with any."""
    axes = tuple(sample_weight.shape)
    if axes and axes != losses.shape[: len(axes)] and axes[-1] == 1:
        axes = axes[:-1]
    if axes != losses.shape[: len(axes)] or (sample_weight.ndim and not axes):
        raise ValueError(
            f"sample_weight of shape {tuple(sample_weight.shape)} does not fit "
            f"losses of shape {tuple(losses.shape)}, which {name} returned: one weight per sample "
            "and one loss per sample"
        )
    return sample_weight.to(losses).reshape(*axes, *[1] * (losses.ndim - len(axes)))
