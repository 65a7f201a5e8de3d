"""Tensors made, cut and put together, in TensorFlow's words."""

from typing import Any

import numpy as np
import torch

from torchnn import _checks
from torchnn.tf import math
from torchnn.tf._tensor import as_axes, as_dtype, as_shape, as_tensor


def constant(value: Any, dtype: Any = None, shape: Any = None) -> Any:
    """Returns values as a tensor: Python's floats as float32, its integers as int32.

    Args:
        value: A number, lists, an array or a tensor.
        dtype: The dtype of the tensor, or None for that of the values.
        shape: Its shape, which a single number fills, or None for that of the values.
    """
    found = as_tensor(value, dtype)
    if shape is None:
        return found
    sizes = as_shape(shape)
    return found.expand(sizes).clone() if found.numel() == 1 else found.reshape(sizes)


def convert_to_tensor(value: Any, dtype: Any = None) -> Any:
    """Returns values as a tensor, like constant."""
    return as_tensor(value, dtype)


def cast(x: Any, dtype: Any) -> Any:
    """Returns x in another dtype; of floats, integers are the part before the point."""
    return as_tensor(x, dtype)


def identity(input: Any) -> Any:
    """Returns a copy."""
    return torch.clone(as_tensor(input))


def stop_gradient(input: Any) -> Any:
    """Returns the same values, through which no gradient flows."""
    return as_tensor(input).detach()


def is_tensor(x: Any) -> Any:
    """Whether x is a tensor."""
    return isinstance(x, torch.Tensor)


def zeros(shape: Any, dtype: Any = torch.float32) -> Any:
    """A tensor of zeros."""
    return as_tensor(torch.zeros(as_shape(shape), dtype=as_dtype(dtype)))


def ones(shape: Any, dtype: Any = torch.float32) -> Any:
    """A tensor of ones."""
    return as_tensor(torch.ones(as_shape(shape), dtype=as_dtype(dtype)))


def fill(dims: Any, value: Any) -> Any:
    """A tensor of one value."""
    return constant(value, shape=dims)


def eye(num_rows: int, num_columns: int | None = None, dtype: Any = torch.float32) -> Any:
    """The identity matrix."""
    columns = num_rows if num_columns is None else num_columns
    return as_tensor(torch.eye(num_rows, columns, dtype=as_dtype(dtype)))


def zeros_like(input: Any, dtype: Any = None) -> Any:
    """Zeros in the shape of input."""
    return as_tensor(torch.zeros_like(as_tensor(input)), dtype)


def ones_like(input: Any, dtype: Any = None) -> Any:
    """Ones in the shape of input."""
    return as_tensor(torch.ones_like(as_tensor(input)), dtype)


def range_(start: Any, limit: Any = None, delta: Any = 1, dtype: Any = None) -> Any:
    """The numbers start, start + delta, ... below limit; with one argument, from 0 on below it."""
    start, limit = (0, start) if limit is None else (start, limit)
    return as_tensor(np.arange(start, limit, delta).tolist(), dtype)


def linspace(start: Any, stop: Any, num: int) -> Any:
    """So many numbers from start to stop, evenly apart."""
    return as_tensor(np.linspace(start, stop, _checks.positive_int("num", num)).tolist())


def reshape(tensor: Any, shape: Any) -> Any:
    """The same entries in another shape; one size may be -1."""
    return torch.reshape(as_tensor(tensor), as_shape(shape))


def transpose(a: Any, perm: Any = None) -> Any:
    """The axes in another order, or reversed."""
    a = as_tensor(a)
    return torch.permute(a, tuple(reversed(range(a.ndim))) if perm is None else as_shape(perm))


def expand_dims(input: Any, axis: int) -> Any:
    """One more axis, of size 1, at a place."""
    return torch.unsqueeze(as_tensor(input), axis)


def squeeze(input: Any, axis: Any = None) -> Any:
    """Without the axes of size 1, or without those given."""
    x = as_tensor(input)
    return torch.squeeze(x) if axis is None else torch.squeeze(x, as_axes(axis))


def concat(values: Any, axis: int) -> Any:
    """Tensors one after the other along an axis."""
    return torch.concat(list(map(as_tensor, values)), axis)


def stack(values: Any, axis: int = 0) -> Any:
    """Tensors beside each other along a new axis."""
    return torch.stack(list(map(as_tensor, values)), axis)


def tile(input: Any, multiples: Any) -> Any:
    """The entries repeated so many times along each axis."""
    return torch.tile(as_tensor(input), as_shape(multiples))


def gather(params: Any, indices: Any, axis: int = 0) -> Any:
    """The entries at these places along an axis."""
    places = as_tensor(indices, torch.int64)
    return torch.index_select(as_tensor(params), axis, places.reshape(-1)).unflatten(
        axis, tuple(places.shape)
    )


def gather_nd(params: Any, indices: Any) -> Any:
    """The entries at places with several axes each, which the last axis of indices holds."""
    return as_tensor(params)[as_tensor(indices, torch.int64).unbind(-1)]


def where(condition: Any, x: Any, y: Any) -> Any:
    """The entries of x where condition is true, and those of y where it is not."""
    return torch.where(as_tensor(condition), *math.alike(x, y))


def clip_by_value(t: Any, clip_value_min: Any, clip_value_max: Any) -> Any:
    """The entries, none less than the one value or greater than the other."""
    return math.minimum(math.maximum(t, clip_value_min), clip_value_max)


def one_hot(
    indices: Any,
    depth: int,
    on_value: float = 1.0,
    off_value: float = 0.0,
    axis: int = -1,
    dtype: Any = torch.float32,
) -> Any:
    """A row for each index: on_value at its place, off_value elsewhere.

    Args:
        indices: Whole numbers; the row of one that is not from 0 to depth - 1 has no on_value.
        depth: The length of a row.
        on_value: What stands at the place of the index.
        off_value: What stands elsewhere.
        axis: Where the rows lie in the result.
        dtype: The dtype of the result.
    """
    places = torch.arange(_checks.positive_int("depth", depth))
    is_on = as_tensor(indices).unsqueeze(-1) == places
    return torch.where(is_on, on_value, off_value).to(as_dtype(dtype)).movedim(-1, axis)


def shape(input: Any) -> Any:
    """The shape, as a tensor of int32."""
    return as_tensor(list(as_tensor(input).shape), torch.int32)


def size(input: Any) -> Any:
    """The number of entries, as a tensor."""
    return as_tensor(as_tensor(input).numel())


def rank(input: Any) -> Any:
    """The number of axes, as a tensor."""
    return as_tensor(as_tensor(input).ndim)
