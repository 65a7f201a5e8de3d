"""TensorFlow's activations and the like, in PyTorch: functions of tensors, arrays and numbers."""

from typing import Any

import torch
from torch.nn import functional

from torchnn import _checks, activations
from torchnn.tf._missing import said_of
from torchnn.tf._tensor import as_generator, as_shape, as_tensor
from torchnn.tf.math import l2_normalize, sigmoid, softplus, tanh, top_k

__all__ = [
    "dropout",
    "elu",
    "gelu",
    "l2_normalize",
    "leaky_relu",
    "log_softmax",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "sigmoid_cross_entropy_with_logits",
    "silu",
    "softmax",
    "softmax_cross_entropy_with_logits",
    "softplus",
    "sparse_softmax_cross_entropy_with_logits",
    "swish",
    "tanh",
    "top_k",
]
__getattr__ = said_of(__name__)


def elu(features: Any) -> Any:
    """z where z > 0, else e^z - 1."""
    return functional.elu(as_tensor(features))


def gelu(features: Any, approximate: bool = False) -> Any:
    """z Phi(z), with Phi of the normal distribution, or by way of tanh."""
    return functional.gelu(as_tensor(features), approximate="tanh" if approximate else "none")


def leaky_relu(features: Any, alpha: float = 0.2) -> Any:
    """max(alpha z, z)."""
    return functional.leaky_relu(as_tensor(features), alpha)


def relu(features: Any) -> Any:
    """max(z, 0)."""
    return torch.relu(as_tensor(features))


def relu6(features: Any) -> Any:
    """min(max(z, 0), 6)."""
    return functional.relu6(as_tensor(features))


def selu(features: Any) -> Any:
    """1.0507 z where z > 0, else 1.7581 (e^z - 1)."""
    return functional.selu(as_tensor(features))


def silu(features: Any, beta: float = 1.0) -> Any:
    """z sigmoid(beta z)."""
    z = as_tensor(features)
    return z * torch.sigmoid(beta * z)


swish = silu


def softmax(logits: Any, axis: int = -1) -> Any:
    """e^z / sum(e^z) over an axis."""
    return torch.softmax(as_tensor(logits), axis)


def log_softmax(logits: Any, axis: int = -1) -> Any:
    """z - log(sum(e^z)) over an axis."""
    return torch.log_softmax(as_tensor(logits), axis)


def dropout(x: Any, rate: float, noise_shape: Any = None, seed: int | None = None) -> Any:
    """x with entries set to 0 at random, and the others divided by 1 - rate.

    Args:
        x: Floats.
        rate: The probability of 0.
        noise_shape: The shape of what is drawn, 1 along axes that share it; that of x if None.
        seed: What the numbers follow from; the seed that set_seed was given if None.
    """
    x, rate = as_tensor(x), _checks.fraction("rate", rate)
    sizes = x.shape if noise_shape is None else as_shape(noise_shape)
    is_kept = torch.rand(sizes, generator=as_generator(seed), device="cpu") >= rate
    return torch.where(is_kept.to(x.device), x / (1 - rate), 0.0)


def sigmoid_cross_entropy_with_logits(labels: Any, logits: Any) -> Any:
    """max(z, 0) - z y + log(1 + e^-|z|), entry by entry."""
    z = as_tensor(logits)
    return functional.binary_cross_entropy_with_logits(
        z, as_tensor(labels, z.dtype), reduction="none"
    )


def softmax_cross_entropy_with_logits(labels: Any, logits: Any, axis: int = -1) -> Any:
    """sum(y (log(sum(e^z)) - z)) over the axis of the classes."""
    z = as_tensor(logits)
    return -(as_tensor(labels, z.dtype) * torch.log_softmax(z, axis)).sum(axis)


def sparse_softmax_cross_entropy_with_logits(labels: Any, logits: Any) -> Any:
    """log(sum(e^z)) - z of the class that labels names, over the last axis."""
    log_p, numbers = torch.log_softmax(as_tensor(logits), -1), as_tensor(labels, torch.int64)
    return -log_p.gather(-1, numbers.unsqueeze(-1)).squeeze(-1)


# To layers, engines and losses they are what has the same name there.
activations.TORCH_FUNCTIONS.extend(
    (globals()[name], name) for name in __all__ if name in activations.FUNCTIONS
)
