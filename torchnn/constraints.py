"""What weights are made to obey after each step: Keras's names and formulas.

    Dense(1, kernel_constraint="non_neg")

Any function from a weight, a kernel with the shape (in_features, units), to what it is to become
will do as well.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchnn import _checks
from torchnn._config import Configured, deserializer, serialize

__all__ = [
    "NAMES",
    "Constraint",
    "MaxNorm",
    "MinMaxNorm",
    "NonNeg",
    "UnitNorm",
    "deserialize",
    "get",
    "max_norm",
    "min_max_norm",
    "non_neg",
    "serialize",
    "unit_norm",
]

EPSILON = 1e-7  # what is added to norms, so that they can divide


class Constraint(Configured, ABC):
    """A function from a weight to what it is to become."""

    @abstractmethod
    def __call__(self, w: Any) -> Any:
        """Returns the weight as it should be.

        Args:
            w: A weight; a kernel with the shape (in_features, units).
        """

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({settings})"


class NonNeg(Constraint):
    """max(w, 0)."""

    def __call__(self, w: Any) -> Tensor:
        return _checks.tensor("w", w).clamp(min=0)


class MinMaxNorm(Constraint):
    """w, scaled so that its norms lie between two numbers.

    Args:
        min_value: The least norm.
        max_value: The greatest.
        rate: In [0, 1]: the part of the way there that is gone at each step.
        axis: The axis, or axes, that a norm is of: 0 for one norm for each unit of a kernel.
    """

    def __init__(
        self,
        min_value: float = 0.0,
        max_value: float = 1.0,
        rate: float = 1.0,
        axis: int | Sequence[int] = 0,
    ):
        self.min_value = _checks.non_negative_float("min_value", min_value)
        self.max_value = _checks.non_negative_float("max_value", max_value)
        self.rate = _checks.non_negative_float("rate", rate)
        self.axis = _axis(axis)

    def __call__(self, w: Any) -> Tensor:
        w = _checks.tensor("w", w)
        norms = _norms(w, self.axis)
        wanted = norms + self.rate * (norms.clamp(self.min_value, self.max_value) - norms)
        return w * (wanted / (EPSILON + norms))


class MaxNorm(Constraint):
    """w, scaled so that its norms are at most max_value.

    Args:
        max_value: The greatest norm.
        axis: The axis, or axes, that a norm is of: 0 for one norm for each unit of a kernel.
    """

    def __init__(self, max_value: float = 2.0, axis: int | Sequence[int] = 0):
        self.max_value = _checks.non_negative_float("max_value", max_value)
        self.axis = _axis(axis)

    def __call__(self, w: Any) -> Tensor:
        w = _checks.tensor("w", w)
        norms = _norms(w, self.axis)
        return w * (norms.clamp(max=self.max_value) / (EPSILON + norms))


class UnitNorm(Constraint):
    """w, divided by its norms.

    Args:
        axis: The axis, or axes, that a norm is of: 0 for one norm for each unit of a kernel.
    """

    def __init__(self, axis: int | Sequence[int] = 0):
        self.axis = _axis(axis)

    def __call__(self, w: Any) -> Tensor:
        w = _checks.tensor("w", w)
        return w / (EPSILON + _norms(w, self.axis))


max_norm, min_max_norm, non_neg, unit_norm = MaxNorm, MinMaxNorm, NonNeg, UnitNorm

NAMES: dict[str, Callable[[], Constraint]] = {
    "max_norm": MaxNorm,
    "min_max_norm": MinMaxNorm,
    "non_neg": NonNeg,
    "unit_norm": UnitNorm,
}


def get(
    value: str | Callable[[Tensor], Any] | None, kind: str = "constraint"
) -> Callable[[Tensor], Any] | None:
    """Returns the constraint of this name, or the callable itself; None for none.

    Raises:
        ValueError: Unknown name.
        TypeError: Neither a name nor callable.
    """
    if value is None:
        return None
    if inspect.isclass(value) and issubclass(value, Constraint):
        value = value()
    found: Callable[[Tensor], Any] = _checks.resolve(kind, value, NAMES, accept=callable)
    return found


def of_weights(model: nn.Module) -> list[tuple[Callable[[Tensor], Any], Tensor]]:
    """Returns the constraints of a model's weights, each with its weight in Keras's order."""
    return [
        pair
        for module in model.modules()
        for pair in getattr(module, "_with", lambda kind: [])("constraint")
    ]


def apply(pairs: Sequence[tuple[Callable[[Tensor], Any], Tensor]]) -> None:
    """Makes weights obey: pairs are what of_weights returned."""
    with torch.no_grad():
        for constraint, weight in pairs:
            wanted = constraint(weight.detach())
            if wanted.shape != weight.shape:
                raise ValueError(
                    f"a constraint must return shape {tuple(weight.shape)}, "
                    f"got {tuple(wanted.shape)}"
                )
            weight.copy_(wanted)


def _norms(w: Tensor, axis: int | list[int]) -> Tensor:
    return torch.linalg.vector_norm(w, dim=axis, keepdim=True)


def _axis(value: Any) -> int | list[int]:
    if isinstance(value, (list, tuple)):
        return [_checks.integer("each axis", each) for each in value]
    return _checks.integer("axis", value)


deserialize = deserializer(get)
