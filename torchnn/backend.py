"""What Keras calls the backend: PyTorch, its default dtype, a few constants, and the functions that
losses and metrics of older programs are made of.

    def root_mean_squared_error(y_true, y_pred):
        return backend.sqrt(backend.mean(backend.square(y_pred - y_true)))

These take tensors, arrays and numbers, and return tensors.
"""

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchnn import _checks
from torchnn.losses import EPSILON

__all__ = [
    "abs",
    "backend",
    "cast",
    "clear_session",
    "clip",
    "epsilon",
    "equal",
    "exp",
    "flatten",
    "floatx",
    "greater",
    "less",
    "log",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "round",
    "set_floatx",
    "sqrt",
    "square",
    "sum",
]

FLOATS = ("float16", "bfloat16", "float32", "float64")


def backend() -> str:
    """Returns "torch"."""
    return "torch"


def floatx() -> str:
    """Returns the name of PyTorch's default dtype, such as "float32": new layers are of it."""
    return str(torch.get_default_dtype()).removeprefix("torch.")


def set_floatx(value: str | torch.dtype) -> None:
    """Sets the dtype of all layers that are made from now on, unless they are given one.

    It is `torch.set_default_dtype`, so there is one default, whichever of the two sets it; in
    PyTorch, it is also that of tensors made of Python's floats.

    Args:
        value: "float16", "bfloat16", "float32" or "float64", or such a dtype.
    """
    name = str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else value
    torch.set_default_dtype(getattr(torch, _checks.choice("value", name, FLOATS)))


def epsilon() -> float:
    """Returns 1e-7: losses keep probabilities that far from 0 and 1."""
    return EPSILON


def clear_session(free_memory: bool = True) -> None:
    """Runs Python's garbage collector.

    There is nothing else to clear: each model names its layers by itself.

    Args:
        free_memory: Whether to do even that.
    """
    if free_memory:
        gc.collect()


Axes = int | Sequence[int] | None


def _each(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of PyTorch, of arrays and numbers, too."""

    def apply(*x: Any) -> Tensor:
        return function(*(_checks.tensor("x", each) for each in x))

    apply.__name__, apply.__doc__ = function.__name__, f"Returns torch.{function.__name__}(*x)."
    return apply


def _over_axes(function: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """The same over axes: all of them if axis is None."""

    def reduce(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
        x = _checks.tensor("x", x)
        axes = tuple(range(x.ndim)) if axis is None else axis
        return function(x, axes, keepdim=keepdims)

    reduce.__name__, reduce.__doc__ = name, f"Returns the {name} over axis, a number or several."
    return reduce


abs, exp, log, round, sqrt, square = map(
    _each, (torch.abs, torch.exp, torch.log, torch.round, torch.sqrt, torch.square)
)
maximum, minimum, equal, greater, less = map(
    _each, (torch.maximum, torch.minimum, torch.eq, torch.gt, torch.lt)
)
max, min = _over_axes(torch.amax, "max"), _over_axes(torch.amin, "min")
mean, sum = _over_axes(torch.mean, "mean"), _over_axes(torch.sum, "sum")


def cast(x: Any, dtype: str | torch.dtype) -> Tensor:
    """Returns x in another dtype, such as "float32"."""
    return _checks.tensor("x", x).to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)


def clip(x: Any, min_value: float | None, max_value: float | None) -> Tensor:
    """Returns x, kept between two numbers."""
    return _checks.tensor("x", x).clamp(min_value, max_value)


def flatten(x: Any) -> Tensor:
    """Returns x with one axis."""
    return _checks.tensor("x", x).flatten()


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"module 'torchnn.backend' has no attribute {name!r}: PyTorch's functions and those of "
        "torchnn.tf take the same tensors"
    )
