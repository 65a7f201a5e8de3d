"""First values of weights: functions that fill a tensor of shape (units, in_features) in place.

Names, formulas and default numbers are Keras's. fan_in is in_features, fan_out is units; for a
bias both are its length. Any function that fills a tensor will do as well, `torch.nn.init`'s too.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import init

from torchnn import _checks

__all__ = [
    "FUNCTIONS",
    "Initializer",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_uniform",
    "ones",
    "orthogonal",
    "random_normal",
    "random_uniform",
    "zeros",
]

Initializer = Callable[[Tensor], Any]

# The standard deviation of a standard normal that is cut off at -2 and 2.
_TRUNCATED_STD = 0.87962566103423978


def glorot_uniform(tensor: Tensor) -> Tensor:
    """U(-limit, limit) with limit = sqrt(6 / (fan_in + fan_out)).

    Source: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
    networks, 2010.
    """
    return _uniform(tensor, variance=2 / sum(_fans(tensor)))


def glorot_normal(tensor: Tensor) -> Tensor:
    """Normal of variance 2 / (fan_in + fan_out), cut off at two standard deviations."""
    return _truncated_normal(tensor, variance=2 / sum(_fans(tensor)))


def he_uniform(tensor: Tensor) -> Tensor:
    """U(-limit, limit) with limit = sqrt(6 / fan_in).

    Source: He et al., Delving deep into rectifiers, 2015.
    """
    return _uniform(tensor, variance=2 / _fans(tensor)[0])


def he_normal(tensor: Tensor) -> Tensor:
    """Normal of variance 2 / fan_in, cut off at two standard deviations."""
    return _truncated_normal(tensor, variance=2 / _fans(tensor)[0])


def lecun_uniform(tensor: Tensor) -> Tensor:
    """U(-limit, limit) with limit = sqrt(3 / fan_in).

    Source: LeCun et al., Efficient backprop, 1998.
    """
    return _uniform(tensor, variance=1 / _fans(tensor)[0])


def lecun_normal(tensor: Tensor) -> Tensor:
    """Normal of variance 1 / fan_in, cut off at two standard deviations."""
    return _truncated_normal(tensor, variance=1 / _fans(tensor)[0])


def random_uniform(tensor: Tensor) -> Tensor:
    """U(-0.05, 0.05)."""
    return init.uniform_(tensor, -0.05, 0.05)


def random_normal(tensor: Tensor) -> Tensor:
    """Normal of mean 0 and standard deviation 0.05."""
    return init.normal_(tensor, std=0.05)


def orthogonal(tensor: Tensor) -> Tensor:
    """Orthonormal rows or columns, whichever are fewer.

    Source: Saxe et al., Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks, 2013.
    """
    return init.orthogonal_(tensor)


def zeros(tensor: Tensor) -> Tensor:
    """All 0."""
    return init.zeros_(tensor)


def ones(tensor: Tensor) -> Tensor:
    """All 1."""
    return init.ones_(tensor)


FUNCTIONS: dict[str, Initializer] = {
    function.__name__: function
    for function in (
        glorot_uniform,
        glorot_normal,
        he_uniform,
        he_normal,
        lecun_uniform,
        lecun_normal,
        random_uniform,
        random_normal,
        orthogonal,
        zeros,
        ones,
    )
}


def get(value: str | Initializer) -> Initializer:
    """Returns the initializer of this name, or the callable itself."""
    if isinstance(value, str):
        return FUNCTIONS[_checks.find("initializer", value, FUNCTIONS)]
    initializer: Initializer = _checks.admit("initializer", value, FUNCTIONS, accept=callable)
    return initializer


def _fans(tensor: Tensor) -> tuple[int, int]:
    return tensor.shape[-1], tensor.shape[0]


def _uniform(tensor: Tensor, variance: float) -> Tensor:
    limit = math.sqrt(3 * variance)
    return init.uniform_(tensor, -limit, limit)


def _truncated_normal(tensor: Tensor, variance: float) -> Tensor:
    # Wider before the cut, so that the variance is right after it.
    std = math.sqrt(variance) / _TRUNCATED_STD
    return init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std)
