"""What Keras calls the backend: PyTorch, its default dtype, and a few constants."""

import gc

import torch

from torchnn import _checks
from torchnn.losses import EPSILON

__all__ = ["backend", "clear_session", "epsilon", "floatx", "set_floatx"]

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
