"""TensorFlow's linear algebra, in PyTorch."""

from typing import Any

import numpy as np
import torch

from torchnn.tf._missing import said_of
from torchnn.tf._tensor import as_axes, as_tensor
from torchnn.tf.math import alike, l2_normalize

__all__ = [
    "einsum",
    "global_norm",
    "inv",
    "l2_normalize",
    "matmul",
    "matvec",
    "norm",
    "solve",
    "tensordot",
]
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


def solve(matrix: Any, rhs: Any) -> Any:
    """The x of matrix @ x = rhs, both of them with columns: rhs of shape (..., N, K)."""
    matrix, rhs = alike(matrix, rhs)
    if rhs.ndim < 2:
        raise ValueError(f"rhs must have shape (..., N, K), got {tuple(rhs.shape)}")
    return torch.linalg.solve(matrix, rhs)


def matvec(a: Any, b: Any, transpose_a: bool = False) -> Any:
    """a @ b, of the last two axes of a, transposed first if asked for, and the last one of b."""
    a, b = alike(a, b)
    return torch.matmul(a.mT if transpose_a else a, b.unsqueeze(-1)).squeeze(-1)


def einsum(equation: str, *inputs: Any) -> Any:
    """The sum of products that an equation such as "ij,jk->ik" tells."""
    return torch.einsum(equation, *alike(*inputs))


def tensordot(a: Any, b: Any, axes: Any) -> Any:
    """The sum of products over axes.

    Args:
        a: A tensor.
        b: Another one.
        axes: How many, the last ones of a and the first ones of b; or those of a and those of b.
    """
    pairs = axes if isinstance(axes, int) else [np.atleast_1d(each).tolist() for each in axes]
    a, b = alike(a, b)
    return torch.tensordot(a, b, pairs)


def global_norm(t_list: Any) -> Any:
    """The norm of all entries of several tensors; None among them counts as nothing."""
    return norm(torch.stack([norm(each) for each in t_list if each is not None]))
