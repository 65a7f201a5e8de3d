"""Arrays, tensors and data frames in; checked tensors on the model's device out.

Everything a user can get wrong about x, y and weights is found here, before any work.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from torchnn import _checks
from torchnn._engine.run import Form, Samples


def samples(
    form: Form,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    origin: str = "",
) -> Samples:
    """Returns x, y and the weights as checked tensors of the model's dtype on its device.

    Args:
        form: What the model eats.
        x: Features, shape (N, ...): an array, a tensor, a data frame or nested lists.
        y: Targets, shape (N, ...), or None.
        sample_weight: Shape (N,), or None.
        class_weight: A weight for each class label in y, or None.
        origin: Where the values came from, for the messages: " of validation_data".

    Raises:
        ValueError: Empty, of different lengths, of the wrong shape, NaN or infinite.
        TypeError: Not made of numbers.
    """
    if class_weight is not None and sample_weight is not None:
        raise ValueError("class_weight and sample_weight were both given: pass one of them")
    x = features(f"x{origin}", x, form)
    if y is not None:
        y = rows(f"y{origin}", y, len(x), form)
    if class_weight is not None:
        sample_weight = class_weights(class_weight, y)
    weight = None
    if sample_weight is not None:
        weight = weights(f"sample_weight{origin}", sample_weight, len(x), form)
    return Samples(x, y, weight, origin)


def features(name: str, value: Any, form: Form) -> Tensor:
    """Returns x as a finite tensor of shape (N, ...) that fits the model."""
    x = as_tensor(name, value)
    shape = tuple(x.shape)
    if x.ndim == 1 and form.shape == (1,):
        x = x.unsqueeze(1)  # for a model of one feature, N numbers are N samples
    elif x.ndim < 2 or (form.exact and shape == form.shape):
        one = ", ".join(map(str, (1, *shape)))
        raise ValueError(
            f"{name} must have a batch axis, shape (samples, features), got shape {shape}: "
            f"one sample is {name.split()[0]}.reshape({one})"
        )
    if x.numel() == 0:
        raise ValueError(f"{name} must hold at least one sample, got shape {shape}")
    _check_shape(name, x, form)
    return _finite(name, x, form)


def rows(name: str, value: Any, count: int, form: Form) -> Tensor:
    """Returns y as a finite tensor of count rows."""
    y = as_tensor(name, value)
    if y.ndim == 0 or len(y) != count:
        got = f"{len(y)} rows" if y.ndim else "a single number"
        raise ValueError(f"{name} must have as many rows as x, {count}, got {got}")
    if y.numel() == 0:
        raise ValueError(f"{name} must hold at least one value a row, got shape {tuple(y.shape)}")
    return _finite(name, y, form)


def weights(name: str, value: Any, count: int, form: Form) -> Tensor:
    """Returns sample_weight as a finite, non-negative tensor of shape (count,)."""
    weight = rows(name, value, count, form)
    if weight.numel() != count:
        shape = tuple(weight.shape)
        raise ValueError(f"{name} must be one number a sample, shape ({count},), got shape {shape}")
    if weight.min() < 0:
        raise ValueError(f"{name} must not be negative, got {weight.min().item()}")
    return weight.reshape(count)


def class_weights(class_weight: Any, y: Tensor | None) -> Tensor:
    """Returns every row's weight, shape (N,): that of its label, or 1 for a label without one.

    Args:
        class_weight: From labels to non-negative numbers.
        y: Labels, shape (N,) or (N, 1), or one-hot rows, shape (N, classes).
    """
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            f"class_weight must be a dict from class labels to weights, got {class_weight!r}"
        )
    if y is None:
        raise ValueError("class_weight needs the labels in y, got y=None")
    labels = y.argmax(dim=1) if y[0].numel() > 1 else y.reshape(len(y))
    if y.ndim > 2 or (labels != labels.round()).any():
        raise ValueError(
            "class_weight needs whole-number labels in y, "
            f"got shape {tuple(y.shape)}, from {y.min().item():g} to {y.max().item():g}"
        )
    result = torch.ones_like(labels, dtype=y.dtype)
    for label, weight in class_weight.items():
        label = _checks.non_negative_int("a class label of class_weight", label)
        result[labels == label] = _checks.non_negative_float(f"class_weight[{label}]", weight)
    return result


def as_tensor(name: str, value: Any) -> Tensor:
    """Returns the value's numbers as a tensor, in whatever dtype and on whatever device they are.

    Raises:
        TypeError: The value is no array, or does not hold numbers.
        ValueError: Nested lists are ragged.
    """
    if isinstance(value, Tensor):
        return _plain(name, value)
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], Tensor):
        return _plain(name, torch.stack(list(value)))
    return torch.from_numpy(_array(name, value))


def _plain(name: str, tensor: Tensor) -> Tensor:
    """Returns the tensor without its graph, refusing complex and sparse ones."""
    if tensor.layout != torch.strided or tensor.is_complex():
        raise TypeError(
            f"{name} must be a dense tensor of real numbers, got {tensor.layout}, {tensor.dtype}"
        )
    # What inference_mode made cannot be saved for a backward pass; a copy can.
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _array(name: str, value: Any) -> np.ndarray[Any, Any]:
    """Returns the value as a NumPy array that torch.from_numpy takes without a warning."""
    if isinstance(value, Dataset):
        raise TypeError(f"{name} is a Dataset: wrap it in a torch.utils.data.DataLoader")
    array = value.to_numpy() if hasattr(value, "to_numpy") else value
    if hasattr(value, "columns") and array.dtype == object and not _culprits(value):
        array = array.astype(np.float64)  # columns of numbers and of truth values
    if not isinstance(array, (np.ndarray, np.generic, list, tuple, int, float)):
        raise TypeError(
            f"{name} must be an array, a tensor, a data frame or lists of numbers, "
            f"got {type(value).__name__}"
        )
    try:
        array = np.asarray(array)
    except ValueError:
        raise ValueError(f"{name} must be rectangular, got rows of different lengths") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, got dtype {array.dtype}{_culprits(value)}")
    if array.dtype.kind == "u" and array.itemsize > 1:
        array = array.astype(np.float64)  # torch knows unsigned integers in part only
    native = array.dtype.newbyteorder("=") if array.itemsize < 16 else np.dtype(np.float64)
    return np.require(array, native, ["C", "W"])


def _culprits(value: Any) -> str:
    """Names a data frame's columns that hold no numbers."""
    if not hasattr(value, "columns"):
        return ""
    columns = [str(c) for c in value.columns if getattr(value[c].dtype, "kind", "O") not in "biuf"]
    return f" (columns {', '.join(columns)})" if columns else ""


def _check_shape(name: str, x: Tensor, form: Form) -> None:
    """Raises unless the axes of a sample are those that the model expects."""
    sample = tuple(x.shape[1:])
    fits = sample == form.shape if form.exact else sample[-1:] == form.shape[-1:]
    if form.shape and not fits:
        expected = (
            f"{form.shape[0]} features" if len(form.shape) == 1 else f"samples of {form.shape}"
        )
        raise ValueError(
            f"{name} must have {expected}, as the first layer expects, got shape {tuple(x.shape)}"
        )


def _finite(name: str, tensor: Tensor, form: Form) -> Tensor:
    """Returns the tensor in the model's dtype and on its device, refusing NaN and infinity."""
    moved = tensor.to(form.device, form.dtype).contiguous()
    # A finite sum proves every value finite, without a mask of the same size; an infinite one
    # may also be an overflow, so only then look closer.
    if not math.isfinite(moved.sum().item()):
        bad = (~moved.isfinite()).nonzero()
        if len(bad):
            value = moved[tuple(bad[0])].item()
            raise ValueError(
                f"{name} must be finite in {str(form.dtype).removeprefix('torch.')}, "
                f"got {value} at row {bad[0][0].item()}"
            )
    return moved
