"""What a call on an array returns, of a function, a layer or a model."""

import operator
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

# While a tape records gradients, what gives the tensor that stands in for an array, else None.
recorder: ContextVar[Callable[[Tensor], Tensor] | None] = ContextVar("recorder", default=None)


class Array(np.ndarray[Any, Any]):
    """An array, with the method that makes one of a tensor.

    It is no tensor, since NumPy's functions call the methods of what they get, with arguments that
    PyTorch's do not take: np.max(a, axis=1) calls a.max(axis=1, out=None). With a tensor, operators
    make a tensor.
    """

    def numpy(self) -> np.ndarray[Any, Any]:
        """Returns the same numbers as a plain array."""
        return self.view(np.ndarray)

    if not TYPE_CHECKING:  # which would take every name for one that is there

        def __getattr__(self, name: str) -> Any:
            hint = ", a tensor has: make the call on a tensor to get one"
            raise AttributeError(
                f"an array has no attribute {name!r}{hint if hasattr(Tensor, name) else ''}"
            )


def _with_tensors(name: str, operator: Callable[[Any, Any], Any], is_swapped: bool) -> Any:
    """An operator of arrays that takes tensors, too, of which NumPy would make arrays."""
    of_arrays = getattr(np.ndarray, name)

    def apply(self: Array, other: Any) -> Any:
        if not isinstance(other, Tensor):
            return of_arrays(self, other)
        own = torch.as_tensor(self.numpy(), device=other.device)
        return operator(other, own) if is_swapped else operator(own, other)

    return apply


for _name in ("add", "sub", "mul", "truediv", "pow", "matmul"):
    for _prefix in ("", "r", "i"):
        _method, _operator = f"__{_prefix}{_name}__", getattr(operator, _name)
        setattr(Array, _method, _with_tensors(_method, _operator, _prefix == "r"))


def like(result: Tensor, *inputs: Any) -> Any:
    """Returns what was computed of inputs: as an array, if none of them is a tensor."""
    has_tensors = any(hasattr(type(each), "__torch_function__") for each in inputs)
    return result if has_tensors else as_array(result)


def as_array(tensor: Tensor) -> Array:
    """Returns a tensor's numbers; bfloat16, which NumPy lacks, becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().view(Array)
