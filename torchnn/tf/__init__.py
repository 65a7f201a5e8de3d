"""The words of TensorFlow that programs with dense networks use, in PyTorch.

    import torchnn.tf as tf

`tf.keras` is torchnn itself. Functions take tensors, arrays and numbers, and return tensors that
NumPy's functions take for arrays. It is a small part of TensorFlow: what is missing says so.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch

import torchnn as keras
from torchnn import initializers, losses, metrics, optimizers
from torchnn.tf import autograph, config, data, linalg, math, nn, random
from torchnn.tf._arrays import (
    argsort,
    boolean_mask,
    cast,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    concat,
    constant,
    convert_to_tensor,
    expand_dims,
    eye,
    fill,
    gather,
    gather_nd,
    identity,
    is_tensor,
    linspace,
    one_hot,
    ones,
    ones_like,
    rank,
    repeat,
    reshape,
    shape,
    size,
    sort,
    split,
    squeeze,
    stack,
    stop_gradient,
    tile,
    transpose,
    unstack,
    where,
    zeros,
    zeros_like,
)
from torchnn.tf._arrays import (
    range_ as range,
)
from torchnn.tf._keras import name_modules
from torchnn.tf._missing import said_of
from torchnn.tf._running import device
from torchnn.tf._running import (
    print_ as print,
)
from torchnn.tf._tape import GradientTape
from torchnn.tf._tensor import Variable
from torchnn.tf.linalg import einsum, matmul, norm, tensordot
from torchnn.tf.math import (
    abs,
    add,
    add_n,
    argmax,
    argmin,
    cos,
    cumsum,
    divide,
    equal,
    exp,
    floor,
    greater,
    greater_equal,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    pow,
    reduce_all,
    reduce_any,
    reduce_logsumexp,
    reduce_max,
    reduce_mean,
    reduce_min,
    reduce_prod,
    reduce_sum,
    round,
    sigmoid,
    sign,
    sin,
    sqrt,
    square,
    subtract,
    tan,
    tanh,
)

__all__ = [
    "GradientTape",
    "Tensor",
    "Variable",
    "abs",
    "add",
    "add_n",
    "argmax",
    "argmin",
    "argsort",
    "autograph",
    "bfloat16",
    "bool",
    "boolean_mask",
    "cast",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "concat",
    "config",
    "constant",
    "convert_to_tensor",
    "cos",
    "cumsum",
    "data",
    "device",
    "divide",
    "einsum",
    "equal",
    "executing_eagerly",
    "exp",
    "expand_dims",
    "eye",
    "fill",
    "float16",
    "float32",
    "float64",
    "floor",
    "function",
    "gather",
    "gather_nd",
    "get_logger",
    "greater",
    "greater_equal",
    "identity",
    "initializers",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_tensor",
    "keras",
    "less",
    "less_equal",
    "linalg",
    "linspace",
    "logical_and",
    "logical_not",
    "logical_or",
    "losses",
    "math",
    "matmul",
    "maximum",
    "metrics",
    "minimum",
    "multiply",
    "negative",
    "newaxis",
    "nn",
    "norm",
    "not_equal",
    "one_hot",
    "ones",
    "ones_like",
    "optimizers",
    "pow",
    "print",
    "random",
    "range",
    "rank",
    "reduce_all",
    "reduce_any",
    "reduce_logsumexp",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "repeat",
    "reshape",
    "round",
    "shape",
    "sigmoid",
    "sign",
    "sin",
    "size",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "stop_gradient",
    "subtract",
    "tan",
    "tanh",
    "tensordot",
    "tile",
    "transpose",
    "uint8",
    "unstack",
    "where",
    "zeros",
    "zeros_like",
]

# Of the TensorFlow whose words these are; after the +, of what speaks them.
__version__ = f"2.16+torchnn.{keras.__version__}"
__getattr__ = said_of(__name__)
name_modules(keras, f"{__name__}.keras")

Tensor = torch.Tensor
bool = torch.bool
float16, bfloat16, float32, float64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
int8, int16, int32, int64, uint8 = torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8
newaxis = None


def get_logger() -> logging.Logger:
    """Returns the logger called "tensorflow", which nothing here writes to."""
    return logging.getLogger("tensorflow")


def executing_eagerly() -> Any:
    """Returns True."""
    return True


def function(func: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Returns func itself, which runs as it is: the decorator that compiles it in TensorFlow."""
    return (lambda func: func) if func is None else func
