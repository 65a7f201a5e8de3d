"""TensorFlow's linear algebra, in PyTorch."""

from typing import Any

import torch

from torchnn.tf._missing import said_of
from torchnn.tf._tensor import as_axes, as_tensor
from torchnn.tf.math import alike
from torchnn.tf.nn import l2_normalize

__all__ = ["inv", "l2_normalize", "matmul", "norm"]
__getattr__ = said_of(__name__)


def matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
    """a @ b, of the last two axes; each transposed first if asked for."""
    a, b = alike(a, b)
    return torch.matmul(a.mT if transpose_a else a, b.mT if transpose_b else b)


def norm(tensor: Any, ord: Any = "euclidean", axis: Any = None, keepdims: bool = False) -> Any:
    """The norm (sum |x|^ord)^(1 / ord), over all axes or those given."""
    order = 2 if ord == "euclidean" else ord
    return torch.linalg.vector_norm(as_tensor(tensor), order, as_axes(axis), keepdims)


def inv(input: Any) -> Any:
    """The inverse of a matrix."""
    return torch.linalg.inv(as_tensor(input))
