"""Tensors made, cut and put together, in TensorFlow's words."""

from typing import Any

import numpy as np
import torch

from torchnn import _checks
from torchnn.tf import linalg, math
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


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """The entries of x where condition is true, and those of y where it is not; without x and y,
    the places where it is true, one a row."""
    if (x is None) != (y is None):
        raise ValueError("x and y must both be given, or neither")
    if x is None:
        return torch.argwhere(as_tensor(condition))
    return torch.where(as_tensor(condition), *math.alike(x, y))


def clip_by_value(t: Any, clip_value_min: Any, clip_value_max: Any) -> Any:
    """The entries, none less than the one value or greater than the other."""
    return math.minimum(math.maximum(t, clip_value_min), clip_value_max)


def clip_by_norm(t: Any, clip_norm: Any, axes: Any = None) -> Any:
    """The entries, divided by what makes their norm clip_norm where it is greater."""
    t = as_tensor(t)
    limit = as_tensor(clip_norm, t.dtype)
    return t * (limit / torch.maximum(linalg.norm(t, axis=axes, keepdims=True), limit))


def clip_by_global_norm(t_list: Any, clip_norm: Any, use_norm: Any = None) -> Any:
    """Several tensors, divided by what makes the norm of all their entries clip_norm.

    Args:
        t_list: The tensors; None among them stays.
        clip_norm: The norm above which they are divided.
        use_norm: The norm that they have, if it is known.

    Returns:
        The list of them, and the norm that they had; all are NaN if it was not finite.
    """
    total = as_tensor(linalg.global_norm(t_list) if use_norm is None else use_norm)
    limit = as_tensor(clip_norm, total.dtype)
    scale = torch.where(torch.isfinite(total), limit / torch.maximum(total, limit), torch.nan)
    return [None if t is None else as_tensor(t) * scale for t in t_list], total


def sort(values: Any, axis: int = -1, direction: str = "ASCENDING") -> Any:
    """The entries in their order along an axis, from the least on or from the greatest."""
    x = as_tensor(values)
    places = torch.argsort(x, dim=axis, descending=_is_descending(direction))
    return torch.take_along_dim(x, places, axis)


def argsort(values: Any, axis: int = -1, direction: str = "ASCENDING", stable: bool = True) -> Any:
    """The places of the entries in their order along an axis; of equals, the first one is first."""
    places = torch.argsort(
        as_tensor(values), dim=axis, descending=_is_descending(direction), stable=True
    )
    return as_tensor(places, torch.int32)


def _is_descending(direction: str) -> Any:
    return _checks.choice("direction", direction, ("ASCENDING", "DESCENDING")) == "DESCENDING"


def split(value: Any, num_or_size_splits: Any, axis: int = 0) -> Any:
    """The parts of a tensor along an axis: so many equal ones, or of these sizes.

    Args:
        value: The tensor.
        num_or_size_splits: How many parts, which must come out even, or a list of their sizes, of
            which one may be -1: what is left.
        axis: The axis that is cut.
    """
    value = as_tensor(value)
    size = value.shape[axis]
    if np.ndim(num_or_size_splits) == 0:
        count = _checks.positive_int("num_or_size_splits", int(num_or_size_splits))
        sizes = [size // count] * count
    else:
        sizes = list(as_shape(num_or_size_splits))
        left = size - sum(each for each in sizes if each != -1)
        sizes = [left if each == -1 else each for each in sizes]
    if sum(sizes) != size or min(sizes, default=0) < 0:
        raise ValueError(
            f"num_or_size_splits must divide {size}, the size of axis {axis}, "
            f"got {num_or_size_splits!r}"
        )
    return list(torch.split(value, sizes, axis))


def unstack(value: Any, num: int | None = None, axis: int = 0) -> Any:
    """The tensors beside each other along an axis, which they lack, as a list."""
    parts = list(torch.unbind(as_tensor(value), axis))
    if num not in (None, len(parts)):
        raise ValueError(f"num must be {len(parts)}, the size of axis {axis}, got {num!r}")
    return parts


def boolean_mask(tensor: Any, mask: Any, axis: int = 0) -> Any:
    """The entries where mask is true, which is of the axes from one on, the first if 0."""
    return as_tensor(tensor)[(slice(None),) * (axis or 0) + (as_tensor(mask, torch.bool),)]


def repeat(input: Any, repeats: Any, axis: int | None = None) -> Any:
    """The entries, each so many times, along an axis or, if None, one after the other."""
    return torch.repeat_interleave(as_tensor(input), as_tensor(repeats, torch.int64), axis)


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
