"""Weights of a list of layers as numpy arrays, in Keras's order, and back."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from torchnn.layers import _variables
from torchnn.layers._variables import UNBUILT, called

Array = np.ndarray[Any, Any]


def get(layers: Iterable[nn.Module]) -> list[Array]:
    """Returns copies of all weights, layer by layer.

    A layer with a get_weights of its own says how they look: Dense gives its kernel, shape
    (in_features, units), and its bias. Any other module gives its parameters and buffers as they
    are, and then what the modules in it give.
    """
    return [array for layer in layers for array in _of(layer)]


def put(layers: Iterable[nn.Module], weights: Sequence[Any]) -> None:
    """Sets all weights from what get returns: all of them, or none if one does not fit.

    Raises:
        ValueError: Their number or a shape is wrong.
        TypeError: They are no arrays of numbers.
    """
    layers = list(layers)
    for layer in layers:
        if any(map(is_lazy, (*layer.parameters(), *layer.buffers()))):
            raise ValueError(f"{called(layer)} has no weights yet: {UNBUILT}")
    present = [_of(layer) for layer in layers]
    arrays = _checked(weights, [array.shape for each in present for array in each])
    for layer, each in zip(layers, present, strict=True):
        own, arrays = arrays[: len(each)], arrays[len(each) :]
        _set(layer, own)


def _of(layer: nn.Module) -> list[Array]:
    own: Any = getattr(layer, "get_weights", None)
    return list(own()) if own is not None else [v.numpy() for v in _variables.variables(layer)]


def _checked(weights: Any, shapes: list[tuple[int, ...]]) -> list[Array]:
    """Returns weights as arrays of these shapes."""
    if not isinstance(weights, (list, tuple)):
        raise TypeError(f"weights must be a list of arrays, got {type(weights).__name__}")
    if len(weights) != len(shapes):
        raise ValueError(f"weights must hold {len(shapes)} arrays, got {len(weights)}")
    arrays = [w.detach().cpu().numpy() if isinstance(w, torch.Tensor) else w for w in weights]
    arrays = [np.asarray(array) for array in arrays]
    for index, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
        if array.dtype.kind not in "biuf":
            raise TypeError(f"weights[{index}] must hold numbers, got dtype {array.dtype}")
        if array.shape != shape:
            raise ValueError(f"weights[{index}] must have shape {shape}, got {array.shape}")
    return arrays


def _set(layer: nn.Module, arrays: list[Array]) -> None:
    own: Any = getattr(layer, "set_weights", None)
    if own is not None:
        own(arrays)
        return
    for variable, array in zip(_variables.variables(layer), arrays, strict=True):
        variable.assign(array)
