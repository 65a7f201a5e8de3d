"""Arrays, tensors and data frames in; checked tensors on the model's device out.

Everything a user can get wrong about x, y and weights is found here, before any work.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchnn import _checks
from torchnn._engine.parts import Parts
from torchnn._engine.run import Form, Samples
from torchnn._engine.several import of_each
from torchnn._training.arrays import as_tensor


def samples(
    form: Form,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    origin: str = "",
    may_be_empty: bool = False,
) -> Samples:
    """Returns x, y and the weights as checked tensors of the model's dtype on its device.

    Args:
        form: What the model eats.
        x: Features, shape (N, ...): an array, a tensor, a data frame or nested lists.
        y: Targets, shape (N, ...), or None.
        sample_weight: Shape (N,), or None.
        class_weight: A weight for each class label in y, or None.
        origin: Where the values came from, for the messages: " of validation_data".
        may_be_empty: Whether no samples will do, too.

    Raises:
        ValueError: Empty, of different lengths, of the wrong shape, NaN or infinite.
        TypeError: Not made of numbers.
    """
    if class_weight is not None and sample_weight is not None:
        raise ValueError("class_weight and sample_weight were both given: pass one of them")
    x = all_features(f"x{origin}", x, form, may_be_empty)
    if y is not None:
        y = all_rows(f"y{origin}", y, len(x), form)
    if class_weight is not None:
        if isinstance(y, Parts):
            raise ValueError("class_weight is for models with one output: use sample_weight")
        sample_weight = class_weights(class_weight, y, form)
    weight = None
    if sample_weight is not None:
        weight = all_weights(f"sample_weight{origin}", sample_weight, x, y, form)
    return Samples(x, y, weight, origin)


def all_features(name: str, value: Any, form: Form, may_be_empty: bool = False) -> Any:
    """Returns x, of several inputs as Parts of equally many rows."""
    value = _of_the_one(list(form.inputs), value)
    if len(form.inputs) < 2 and not (form.is_open and _is_several(value)):
        return features(name, value, form, may_be_empty)
    names, forms = list(form.inputs), list(form.inputs.values())
    if not names:  # the model's own affair
        names = list(value) if isinstance(value, Mapping) else list(map(str, range(len(value))))
        forms = [form] * len(names)
    each = [
        features(f"{name}[{key!r}]", part, own, may_be_empty)
        for key, part, own in zip(names, of_each(name, value, names, "inputs"), forms, strict=True)
    ]
    if len(set(map(len, each))) > 1:
        counts = ", ".join(f"{key}: {len(part)}" for key, part in zip(names, each, strict=True))
        raise ValueError(f"{name} must have as many rows of each input, got {counts}")
    return Parts(each, names if isinstance(value, Mapping) else None)


def all_rows(name: str, value: Any, count: int, form: Form) -> Any:
    """Returns y, for several outputs as Parts."""
    value, outputs = _of_the_one(form.outputs, value), form.outputs
    if len(outputs) < 2:
        return rows(name, value, count, form)
    each = zip(outputs, of_each(name, value, outputs), strict=True)
    return Parts([rows(f"{name}[{key!r}]", part, count, form) for key, part in each], outputs)


def all_weights(name: str, value: Any, x: Any, y: Any, form: Form) -> Any:
    """Returns sample_weight: one array for all outputs, or Parts."""
    if not isinstance(y, Parts):
        return weights(name, value, x, y, form)
    is_for_all = not isinstance(value, Mapping) and not _is_several(value)
    given = [value] * len(form.outputs) if is_for_all else of_each(name, value, form.outputs)
    each = zip(form.outputs, given, y.tensors, strict=True)
    return Parts([weights(f"{name}[{key!r}]", w, x, t, form) for key, w, t in each], form.outputs)


def _is_several(value: Any) -> bool:
    """Whether a value is several arrays, not one or the numbers of one."""
    if isinstance(value, Mapping):
        return True
    return isinstance(value, (list, tuple)) and all(getattr(v, "ndim", 0) > 0 for v in value)


def _of_the_one(names: Sequence[str], value: Any) -> Any:
    """What a dict or a list holds for the one input or output of a model."""
    if len(names) == 1 and isinstance(value, Mapping):
        return of_each("x or y", value, names)[0]
    is_list = len(names) == 1 and isinstance(value, (list, tuple)) and len(value) == 1
    return value[0] if is_list and getattr(value[0], "ndim", 0) > 1 else value


def features(name: str, value: Any, form: Form, may_be_empty: bool = False) -> Tensor:
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
    if x.numel() == 0 and not (may_be_empty and x.shape[1:].numel()):
        raise ValueError(f"{name} must hold at least one sample, got shape {shape}")
    _check_shape(name, x, form)
    return _finite(name, x, form)


def rows(name: str, value: Any, count: int, form: Form) -> Tensor:
    """Returns y as a finite tensor of count rows: as integers if they may be labels, and are."""
    y = _counted(name, value, count)
    if form.labels:
        whole = y.to(form.device, torch.int64)
        if not y.is_floating_point() or torch.equal(whole.to(y.dtype), y.to(form.device)):
            return whole.contiguous()
    return _finite(name, y, form)


def _counted(name: str, value: Any, count: int) -> Tensor:
    y = as_tensor(name, value)
    if y.ndim == 0 or len(y) != count:
        got = f"{len(y)} rows" if y.ndim else "a single number"
        hint = ""
        if name.startswith("y") and y.ndim > 1 and y.shape[1] == count and len(y) < count:
            losses = ", ".join(["..."] * len(y))
            hint = f". For {len(y)} outputs, compile needs a loss of each, loss=[{losses}]"
        raise ValueError(f"{name} must have as many rows as x, {count}, got {got}{hint}")
    if y.numel() == 0:
        raise ValueError(f"{name} must hold at least one value a row, got shape {tuple(y.shape)}")
    return y


def weights(name: str, value: Any, x: Tensor, y: Tensor | None, form: Form) -> Tensor:
    """Returns sample_weight as finite, non-negative numbers: one a sample, shape (N,), or one for
    each entry of the first axes of y, such as (N, T) for the time steps of y of shape (N, T, 1)."""
    weight = _finite(name, _counted(name, value, len(x)), form)
    shape = tuple(weight.shape)
    if weight.numel() == len(x):
        weight = weight.reshape(len(x))
    elif y is None or y.ndim <= weight.ndim or shape != y.shape[: weight.ndim]:
        raise ValueError(
            f"{name} must be one number a sample, shape ({len(x)},), got shape {shape}"
        )
    return weight


def class_weights(class_weight: Any, y: Tensor | None, form: Form) -> Tensor:
    """Returns every row's weight, shape (N,): that of its label, or 1 for a label without one.

    Args:
        class_weight: From labels, which are whole numbers, to non-negative numbers.
        y: Labels, shape (N,) or (N, 1), or one-hot rows, shape (N, classes).
        form: What the model eats.
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
    result = torch.ones_like(labels, dtype=form.dtype)
    for label, weight in _by_label(class_weight).items():
        result[labels == label] = _checks.non_negative_float(f"class_weight[{label}]", weight)
    return result


def _by_label(class_weight: Mapping[Any, Any]) -> dict[int, Any]:
    """Returns class_weight with labels that are ints, each of them once."""
    found: dict[int, Any] = {}
    for key, weight in class_weight.items():
        label = _label(key)
        if label in found:
            raise ValueError(f"class_weight must have each label once, got {label} twice")
        found[label] = weight
    return found


def _label(key: Any) -> int:
    """Returns a whole number of Python, NumPy or PyTorch as an int; False is 0, and True is 1."""
    value = key.item() if isinstance(key, (Tensor, np.ndarray)) and key.ndim == 0 else key
    if isinstance(value, np.bool_):
        value = bool(value)
    if not isinstance(value, Real):
        raise TypeError(f"a class label of class_weight must be a whole number, got {key!r}")
    if not float(value).is_integer():
        raise ValueError(f"a class label of class_weight must be a whole number, got {key!r}")
    return int(float(value))


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
