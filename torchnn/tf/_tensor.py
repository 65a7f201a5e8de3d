"""The tensors that functions of torchnn.tf return, and variables."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from torchnn import _checks
from torchnn.layers._symbols import Shape

# PyTorch's functions that go by another name than NumPy's.
RENAMED: dict[str, Callable[..., Any]] = {"power": torch.pow, "invert": torch.bitwise_not}
ARRAYS = (np.ndarray, np.generic)


class Tensor(torch.Tensor):
    """A tensor that goes together with arrays, as TensorFlow's do.

    To NumPy's functions it is an array. An operator with an array on its other side gives a tensor,
    through which gradients flow; the array becomes one of the same floating dtype.
    """

    def numpy(self, *, force: bool = True) -> Any:
        """Returns the values as an array, or as a number if there are no axes; gradients stay."""
        with torch._C.DisableTorchFunctionSubclass():
            values = self.detach().cpu()
            values = values.float() if values.dtype == torch.bfloat16 else values
            return torch.Tensor.numpy(values)[()]

    def get_shape(self) -> Shape:
        """Returns the shape as a tuple that has as_list()."""
        return Shape(self.shape)

    def __float__(self) -> float:
        return float(self.item())  # PyTorch warns of what has a gradient

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.numpy(), spec) if not self.ndim else super().__format__(spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tensor":
        values: Tensor = torch.clone(self.detach())  # type: ignore[assignment]
        memo[id(self)] = values.requires_grad_(self.requires_grad)
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        values = np.asarray(self.numpy(), dtype)
        return values.copy() if copy else values

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return func(*_with_arrays(args), **_with_arrays(kwargs))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        function = RENAMED.get(ufunc.__name__, getattr(torch, ufunc.__name__, None))
        if method == "__call__" and function is not None and not options:
            return function(*map(as_tensor, _with_tensors(inputs)))
        return getattr(ufunc, method)(*_with_arrays(inputs), **_with_arrays(options))

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            args, kwargs = _with_tensors((args, kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)


class Variable(Tensor):
    """A tensor that keeps its values until others are assigned, and learns if they are floating.

    Args:
        initial_value: A number, an array, lists or a tensor, which is copied.
        trainable: Whether gradients with respect to it are wanted.
        name: What it is called.
        dtype: Its dtype; that of the values if None, float32 for Python's floats.
    """

    name: str | None = None

    def __new__(
        cls, initial_value: Any, trainable: bool = True, name: str | None = None, dtype: Any = None
    ) -> "Variable":
        values = torch.clone(as_tensor(initial_value, dtype)).detach().as_subclass(torch.Tensor)
        learns = _checks.truth("trainable", trainable) and values.is_floating_point()
        self: Variable = torch.Tensor._make_subclass(cls, values, learns)
        self.name = name
        return self

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Tensor.__torch_function__(func, [Tensor], args, kwargs)  # what comes out is a Tensor

    def __deepcopy__(self, memo: dict[int, Any]) -> "Variable":
        memo[id(self)] = Variable(self, self.requires_grad, self.name)
        return memo[id(self)]

    @property
    def trainable(self) -> bool:
        """Whether gradients with respect to it are wanted."""
        return self.requires_grad

    def assign(self, value: Any) -> "Variable":
        """Takes new values of the same shape, in place."""
        value = as_tensor(value).to(self.dtype)
        if value.shape != self.shape:
            raise ValueError(f"value must have shape {tuple(self.shape)}, got {tuple(value.shape)}")
        with torch.no_grad():
            self.copy_(value)
        return self

    def assign_add(self, delta: Any) -> "Variable":
        """Adds to its values, in place."""
        return self.assign(self.detach() + as_tensor(delta).detach())

    def assign_sub(self, delta: Any) -> "Variable":
        """Subtracts from its values, in place."""
        return self.assign(self.detach() - as_tensor(delta).detach())

    def value(self) -> Tensor:
        """Returns its values as a tensor, through which gradients flow."""
        return torch.clone(self)  # type: ignore[return-value]


def as_tensor(value: Any, dtype: Any = None) -> Any:
    """Returns a number, an array, lists or a tensor as a Tensor.

    Arrays keep their dtype. Python's floats are of the default dtype, and its integers int32 where
    they fit. What PyTorch's functions take for a tensor, such as a symbol, stays what it is.

    Args:
        value: The values.
        dtype: The dtype to convert to, in PyTorch's, NumPy's or TensorFlow's words, or None.
    """
    if not isinstance(value, torch.Tensor):
        function = getattr(type(value), "__torch_function__", None)
        if function is not None and dtype is None:
            return value
        if function is not None:
            return function(torch.Tensor.to, (type(value),), (value, as_dtype(dtype)))
        value = _of_values(value, is_final=dtype is None)
    value = value if isinstance(value, Tensor) else value.as_subclass(Tensor)
    return value if dtype is None else value.to(as_dtype(dtype))


def as_dtype(dtype: Any) -> torch.dtype:
    """Returns PyTorch's dtype of this name."""
    if isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, str(np.dtype(dtype)), None)
    if not isinstance(found, torch.dtype):
        raise TypeError(f"dtype must be one of numbers, such as tf.float32, got {dtype!r}")
    return found


def as_shape(sizes: Any) -> tuple[int, ...]:
    """Returns a shape that is given as a number, a sequence or a tensor."""
    return tuple(int(size) for size in (sizes if np.ndim(sizes) else [sizes]))


def as_axes(axis: Any) -> Any:
    """Returns an axis, or several of them, in PyTorch's words."""
    return tuple(axis) if isinstance(axis, (list, tuple)) else axis


def as_generator(seed: int | None) -> torch.Generator | None:
    """Returns what draws the numbers that follow from a seed; None, PyTorch's own, for None."""
    return None if seed is None else torch.Generator().manual_seed(_checks.integer("seed", seed))


def _of_values(value: Any, is_final: bool) -> torch.Tensor:
    """Values as a tensor: Python's numbers in the dtype that they have by themselves if that is
    final, else in one of 64 bits, so that none is rounded twice."""
    if isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value):
        return torch.stack(list(map(as_tensor, value)))
    found = _checks.tensor("value", value)
    if not is_final or hasattr(value, "dtype") or hasattr(value, "__array__"):
        return found
    if found.dtype == torch.float64:
        return found.to(torch.get_default_dtype())
    return found.to(torch.int32) if _fits_int32(found) else found


def _fits_int32(values: torch.Tensor) -> bool:
    limits = torch.iinfo(torch.int32)
    return values.dtype == torch.int64 and not bool(
        ((values < limits.min) | (values > limits.max)).any()
    )


def _with_tensors(values: Any) -> Any:
    """The same with arrays as tensors: floating ones of the dtype of the first floating tensor."""
    found = list(_leaves(values))
    if not any(isinstance(value, ARRAYS) for value in found):
        return values
    tensors = [value for value in found if isinstance(value, torch.Tensor)]
    like = next((t.dtype for t in tensors if t.is_floating_point()), None)

    def converted(value: Any) -> Any:
        if not isinstance(value, ARRAYS):
            return value
        return as_tensor(value, like if value.dtype.kind == "f" else None)

    return _mapped(converted, values)


def _with_arrays(values: Any) -> Any:
    return _mapped(lambda v: v.numpy() if isinstance(v, Tensor) else v, values)


def _mapped(function: Callable[[Any], Any], values: Any) -> Any:
    """The same lists, tuples and dicts with function of what they hold."""
    if type(values) in (list, tuple):
        return type(values)(_mapped(function, value) for value in values)
    if type(values) is dict:
        return {key: _mapped(function, value) for key, value in values.items()}
    return function(values)


def _leaves(values: Any) -> Iterator[Any]:
    """What lists, tuples and dicts hold."""
    if type(values) in (list, tuple, dict):
        for value in values.values() if type(values) is dict else values:
            yield from _leaves(value)
    else:
        yield values
