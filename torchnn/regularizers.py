"""Penalties on weights and outputs, which are part of the loss: Keras's names and formulas.

    Dense(25, activation="relu", kernel_regularizer=regularizers.l2(0.01))

Any function from a tensor to one number will do as well.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from torchnn import _checks
from torchnn._config import Configured, deserializer, serialize

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "NAMES",
    "Penalty",
    "Regularizer",
    "deserialize",
    "get",
    "l1",
    "l1_l2",
    "l2",
    "losses",
    "penalty",
    "serialize",
]

Penalty = Callable[[Tensor], Any]


class Regularizer(Configured, ABC):
    """A function from a tensor to the penalty on it, one number."""

    @abstractmethod
    def __call__(self, x: Any) -> Any:
        """Returns the penalty.

        Args:
            x: A weight, a kernel with the shape (in_features, units), or an output.
        """

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({settings})"


class L1L2(Regularizer):
    """l1 * sum(|w|) + l2 * sum(w^2).

    Args:
        l1: A number of at least 0.
        l2: Likewise.
    """

    l1 = 0.0
    l2 = 0.0

    def __init__(self, l1: float = 0.0, l2: float = 0.0):
        self.l1 = _checks.non_negative_float("l1", l1)
        self.l2 = _checks.non_negative_float("l2", l2)

    def __call__(self, x: Any) -> Tensor:
        w = _checks.tensor("x", x)
        terms = [self.l1 * w.abs().sum()] if self.l1 else []
        terms += [self.l2 * w.square().sum()] if self.l2 else []
        return torch.stack(terms).sum() if terms else w.new_zeros(())


class L1(L1L2):
    """l1 * sum(|w|).

    Args:
        l1: A number of at least 0.
    """

    def __init__(self, l1: float = 0.01):
        self.l1 = _checks.non_negative_float("l1", l1)


class L2(L1L2):
    """l2 * sum(w^2).

    Args:
        l2: A number of at least 0.
    """

    def __init__(self, l2: float = 0.01):
        self.l2 = _checks.non_negative_float("l2", l2)


l1, l2 = L1, L2


def l1_l2(l1: float = 0.01, l2: float = 0.01) -> L1L2:
    """Returns L1L2(l1, l2)."""
    return L1L2(l1, l2)


NAMES: dict[str, Callable[[], Penalty]] = {"l1": L1, "l2": L2, "l1_l2": l1_l2}


def get(value: str | Penalty | None, kind: str = "regularizer") -> Penalty | None:
    """Returns the regularizer of this name, or the callable itself; None for none.

    Raises:
        ValueError: Unknown name.
        TypeError: Neither a name nor callable.
    """
    if value is None:
        return None
    if inspect.isclass(value) and issubclass(value, Regularizer):
        value = value()
    found: Penalty = _checks.resolve(kind, value, NAMES, accept=callable)
    return found


def of_weights(model: nn.Module) -> list[tuple[Penalty, Tensor]]:
    """Returns the regularizers of a model's weights, each with its weight in Keras's order."""
    return [
        pair
        for module in model.modules()
        for pair in getattr(module, "_with", _none)("regularizer")
    ]


def penalty(model: nn.Module) -> Any:
    """Returns the sum of the penalties on a model's weights; 0 if it has no regularizers."""
    return total(of_weights(model))


def total(pairs: Sequence[tuple[Penalty, Tensor]]) -> Any:
    """Returns the sum of the penalties of some regularizers on their weights."""
    return sum(_number(*pair) for pair in pairs)


def losses(model: nn.Module) -> list[Tensor]:
    """Returns the penalties on a model's weights, and on the outputs of the latest call."""
    outputs = [_latest[module] for module in model.modules() if module in _latest]
    return [_number(*pair) for pair in of_weights(model)] + outputs


_latest: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()
_watching: ContextVar[list[Tensor] | None] = ContextVar("watching", default=None)


def added(layer: nn.Module, regularizer: Penalty, output: Tensor) -> Tensor:
    """Counts the penalty on a layer's output, a sample's share of it; returns the output."""
    value = _number(regularizer, output) / max(len(output), 1)
    if not torch.compiler.is_compiling():
        _latest[layer] = value
    watching = _watching.get()
    if watching is not None:
        watching.append(value)
    return output


@contextmanager
def watched() -> Iterator[list[Tensor]]:
    """Gives a list of the penalties on outputs that are computed meanwhile."""
    values: list[Tensor] = []
    token = _watching.set(values)
    try:
        yield values
    finally:
        _watching.reset(token)


def _none(kind: str) -> list[tuple[Penalty, Tensor]]:
    return []


def _number(regularizer: Penalty, x: Tensor) -> Tensor:
    value = regularizer(x)
    if getattr(value, "shape", ()) != ():
        raise ValueError(f"a regularizer must return one number, got shape {tuple(value.shape)}")
    return torch.as_tensor(value)


deserialize = deserializer(get)
