"""Activations by name: the fused ones of torchnn.ops, and well-known others in plain PyTorch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from torchnn import _checks
from torchnn.ops import reference

__all__ = [
    "ALIASES",
    "FUNCTIONS",
    "TORCH_MODULES",
    "Activation",
    "apply",
    "get",
    "label",
    "leaky_relu",
    "log_softmax",
    "name_of",
    "softmax",
]

Activation = str | Callable[[Tensor], Tensor]


def leaky_relu(z: Tensor) -> Tensor:
    """max(0.2 z, z): Keras's slope."""
    return nn.functional.leaky_relu(z, negative_slope=0.2)


def softmax(z: Tensor) -> Tensor:
    """e^z / sum(e^z) over the last axis."""
    return torch.softmax(z, dim=-1)


def log_softmax(z: Tensor) -> Tensor:
    """z - log(sum(e^z)) over the last axis."""
    return torch.log_softmax(z, dim=-1)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **reference.ACTIVATIONS,
    "elu": nn.functional.elu,
    "exponential": torch.exp,
    "gelu": nn.functional.gelu,
    "hard_sigmoid": nn.functional.hardsigmoid,
    "leaky_relu": leaky_relu,
    "log_softmax": log_softmax,
    "mish": nn.functional.mish,
    "relu6": nn.functional.relu6,
    "selu": nn.functional.selu,
    "silu": nn.functional.silu,
    "softmax": softmax,
    "softplus": nn.functional.softplus,
    "softsign": nn.functional.softsign,
}
ALIASES = {"linear": "identity", "swish": "silu"}


# PyTorch's own, where they are the same.
TORCH_FUNCTIONS = [
    (torch.relu, "relu"),
    (torch.sigmoid, "sigmoid"),
    (torch.tanh, "tanh"),
    (nn.functional.relu, "relu"),
    (nn.functional.sigmoid, "sigmoid"),
    (nn.functional.tanh, "tanh"),
]
TORCH_MODULES = {nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh"}


def name_of(activation: Any) -> str | None:
    """Returns the name of what get returned, or of a module; None if it has none here."""
    if isinstance(activation, str):
        return activation
    if type(activation) is nn.Softmax and activation.dim == -1:
        return "softmax"
    names = [name for function, name in TORCH_FUNCTIONS if function is activation]
    return names[0] if names else TORCH_MODULES.get(type(activation))


def get(value: Activation | None) -> Activation:
    """Returns the activation's one name, or the callable itself; None is the identity.

    Raises:
        ValueError: Unknown name.
        TypeError: Neither a name nor callable, or a class that was not instantiated.
    """
    if value is None:
        return "identity"
    if isinstance(value, str):
        name = _checks.find("activation", value, [*FUNCTIONS, *ALIASES])
        return ALIASES.get(name, name)
    activation: Activation = _checks.admit("activation", value, FUNCTIONS, accept=callable)
    return activation


def apply(activation: Activation, z: Tensor) -> Tensor:
    """Computes activation(z), with activation as get returned it."""
    function = FUNCTIONS[activation] if isinstance(activation, str) else activation
    return function(z)


def label(activation: Activation) -> str | None:
    """What a repr calls the activation; None for a module, which the repr shows as a child."""
    if isinstance(activation, nn.Module):
        return None
    return getattr(activation, "__name__", str(activation))
