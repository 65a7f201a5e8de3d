"""Activations by name: the fused ones of torchnn.ops, and well-known others in plain PyTorch.

Each is a function of tensors, arrays and numbers, too, and equal to its name, which is what a layer
says its activation is:

    activations.relu([-1, 2])
    Dense(3, activation=activations.relu).activation == activations.relu  # and == "relu"
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchnn import _checks
from torchnn._array import as_array
from torchnn._config import deserializer, serialize
from torchnn.ops import reference

__all__ = [
    "ALIASES",
    "FUNCTIONS",
    "TORCH_MODULES",
    "Activation",
    "Named",
    "apply",
    "deserialize",
    "elu",
    "exponential",
    "gelu",
    "get",
    "hard_sigmoid",
    "identity",
    "label",
    "leaky_relu",
    "linear",
    "log_softmax",
    "mish",
    "name_of",
    "relu",
    "relu6",
    "selu",
    "serialize",
    "sigmoid",
    "silu",
    "sloped",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]

Activation = str | Callable[[Tensor], Tensor]


def _elu(z: Tensor, alpha: float = 1.0) -> Tensor:
    return nn.functional.elu(z, alpha)


def _gelu(z: Tensor, approximate: bool = False) -> Tensor:
    return nn.functional.gelu(z, approximate="tanh" if approximate else "none")


def _leaky_relu(z: Tensor, negative_slope: float = 0.2) -> Tensor:
    return nn.functional.leaky_relu(z, negative_slope=negative_slope)


def _log_softmax(z: Tensor, axis: int = -1) -> Tensor:
    return torch.log_softmax(z, dim=axis)


def _relu(
    z: Tensor,
    negative_slope: float = 0.0,
    max_value: float | None = None,
    threshold: float = 0.0,
) -> Tensor:
    below = negative_slope * (z - threshold) if negative_slope else torch.zeros_like(z)
    return torch.where(z > threshold, z if max_value is None else z.clamp(max=max_value), below)


def _softmax(z: Tensor, axis: int = -1) -> Tensor:
    return torch.softmax(z, dim=axis)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **reference.ACTIVATIONS,
    "elu": nn.functional.elu,
    "exponential": torch.exp,
    "gelu": nn.functional.gelu,
    "hard_sigmoid": nn.functional.hardsigmoid,
    "leaky_relu": _leaky_relu,
    "log_softmax": _log_softmax,
    "mish": nn.functional.mish,
    "relu6": nn.functional.relu6,
    "selu": nn.functional.selu,
    "silu": nn.functional.silu,
    "softmax": _softmax,
    "softplus": nn.functional.softplus,
    "softsign": nn.functional.softsign,
}
# Those with options in their calls.
OPTIONS: dict[str, Callable[..., Tensor]] = {
    "elu": _elu,
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "log_softmax": _log_softmax,
    "relu": _relu,
    "softmax": _softmax,
}


class Named(str):
    """An activation: the string that names it, and a function of what it is applied to.

    Args:
        name: A name in FUNCTIONS.
        formula: What the function computes of z.
    """

    __name__: str

    def __new__(cls, name: str, formula: str) -> "Named":
        self = super().__new__(cls, name)
        self.__doc__ = formula
        self.__name__ = "linear" if name == "identity" else name  # as Keras calls it
        return self

    def __call__(self, x: Any, *options: Any, **named: Any) -> Any:
        """Returns a tensor of a tensor, and an array of an array, lists or a number."""
        function = OPTIONS.get(self) if options or named else FUNCTIONS[self]
        if function is None:
            raise TypeError(f"{self} takes x alone, got {[*options, *named]}")
        if isinstance(x, Tensor):
            return function(x, *options, **named)
        if hasattr(type(x), "__torch_function__"):  # a symbol of a graph
            return type(x).__torch_function__(function, (type(x),), (x, *options), named)
        z = _checks.tensor("x", x).to("cpu", torch.get_default_dtype())
        return as_array(function(z, *options, **named))

    def __reduce__(self) -> Any:
        return get, (str(self),)  # the same one, in copies and pickles too


elu = Named("elu", "z where z > 0, else alpha (e^z - 1), with alpha = 1.0.")
exponential = Named("exponential", "e^z.")
gelu = Named("gelu", "z Phi(z) of the normal distribution; approximate=True takes tanh for Phi.")
hard_sigmoid = Named("hard_sigmoid", "z / 6 + 1 / 2, kept in [0, 1].")
identity = linear = Named("identity", "z.")
leaky_relu = Named("leaky_relu", "z where z > 0, else negative_slope z, with negative_slope = 0.2.")
log_softmax = Named("log_softmax", "z - log(sum(e^z)) over an axis, the last one.")
mish = Named("mish", "z tanh(log(1 + e^z)).")
relu = Named(
    "relu",
    "max(z, 0); with options, min(z, max_value) above threshold, and "
    "negative_slope (z - threshold) below.",
)
relu6 = Named("relu6", "z, kept in [0, 6].")
selu = Named("selu", "1.0507 z where z > 0, else 1.0507 * 1.6733 (e^z - 1).")
sigmoid = Named("sigmoid", "1 / (1 + e^-z).")
silu = swish = Named("silu", "z / (1 + e^-z).")
softmax = Named("softmax", "e^z / sum(e^z) over an axis, the last one.")
softplus = Named("softplus", "log(1 + e^z).")
softsign = Named("softsign", "z / (1 + |z|).")
tanh = Named("tanh", "(e^z - e^-z) / (e^z + e^-z).")

ALIASES = {"linear": "identity", "swish": "silu"}


_NAMED: dict[str, Named] = {each: each for each in globals().values() if isinstance(each, Named)}

# PyTorch's own, where they are the same.
TORCH_FUNCTIONS = [
    (torch.relu, "relu"),
    (torch.sigmoid, "sigmoid"),
    (torch.tanh, "tanh"),
    (nn.functional.relu, "relu"),
    (nn.functional.sigmoid, "sigmoid"),
    (nn.functional.tanh, "tanh"),
    (nn.functional.elu, "elu"),
    (nn.functional.selu, "selu"),
    (nn.functional.softplus, "softplus"),
    (nn.functional.silu, "silu"),
    (nn.functional.gelu, "gelu"),
]
TORCH_MODULES = {nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh"}
# These with their usual settings.
USUAL_MODULES = {
    nn.ELU: "elu",
    nn.SELU: "selu",
    nn.Softplus: "softplus",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
}


def name_of(activation: Any) -> str | None:
    """Returns the name of what get returned, or of a module; None if it has none here."""
    if isinstance(activation, str):
        return activation
    if type(activation) is nn.Softmax and activation.dim == -1:
        return "softmax"
    kind = type(activation)
    if kind in USUAL_MODULES and activation.extra_repr() == kind().extra_repr():
        return USUAL_MODULES[kind]
    names = [name for function, name in TORCH_FUNCTIONS if function is activation]
    return names[0] if names else TORCH_MODULES.get(kind)


def sloped(activation: Any) -> tuple[str, float] | None:
    """Returns "leaky_relu" or "elu" and the slope just below 0, for what is one of these.

    That are PyTorch's modules and functions, and functions with their options in a partial; None
    for anything else, also for a slope that is negative.
    """
    found = _sloped(activation)
    if found is None or not isinstance(found[1], (int, float)) or not 0 <= found[1] < math.inf:
        return None
    return found[0], float(found[1])


def _sloped(activation: Any) -> tuple[str, Any] | None:
    if type(activation) is nn.LeakyReLU:
        return "leaky_relu", activation.negative_slope
    if type(activation) is nn.ELU:
        return "elu", activation.alpha
    if activation is nn.functional.leaky_relu:
        return "leaky_relu", 0.01
    if not isinstance(activation, partial) or activation.args:
        return None
    function, options = activation.func, dict(activation.keywords)
    if function in (relu, OPTIONS["relu"]) and options.pop("threshold", 0) == 0:
        function = leaky_relu
    for name, option in (("leaky_relu", "negative_slope"), ("elu", "alpha")):
        known = name, OPTIONS[name], getattr(nn.functional, name)
        if function in known and list(options) == [option]:
            return name, options[option]
    return None


def get(value: Activation | None) -> Activation:
    """Returns the activation that has this name, or the callable itself; None is the identity.

    The first is a string, the activation's one name, that can be called: `activations.relu`.

    Raises:
        ValueError: Unknown name.
        TypeError: Neither a name nor callable, or a class that was not instantiated.
    """
    if value is None or isinstance(value, Named):
        return identity if value is None else value
    if isinstance(value, str):
        name = _checks.find("activation", value, [*FUNCTIONS, *ALIASES])
        return _NAMED[ALIASES.get(name, name)]
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


deserialize = deserializer(get)
