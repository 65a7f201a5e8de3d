"""What a call on an array returns, of a function, a layer or a model."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor


class Array(np.ndarray[Any, Any]):
    """An array, with the method that makes one of a tensor.

    It is no tensor, since NumPy's functions call the methods of what they get, with arguments that
    PyTorch's do not take: np.max(a, axis=1) calls a.max(axis=1, out=None).
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


def like(result: Tensor, *inputs: Any) -> Any:
    """Returns what was computed of inputs: as an array, if none of them is a tensor."""
    has_tensors = any(hasattr(type(each), "__torch_function__") for each in inputs)
    return result if has_tensors else as_array(result)


def as_array(tensor: Tensor) -> Array:
    """Returns a tensor's numbers; bfloat16, which NumPy lacks, becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().view(Array)
