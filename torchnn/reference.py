"""Every operator in plain PyTorch: its definition, the tests' oracle and the slow way round.

This file imports torch alone. When a kernel and this file disagree, the kernel is wrong.
"""

from collections.abc import Callable

import torch
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "tanh": torch.tanh,
}


def dense(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None
) -> Tensor:
    """activation(x @ weight.T + bias).

    Args:
        x: Shape (..., in_features).
        weight: Shape (units, in_features).
        bias: Shape (units,), or None.
        activation: A key of ACTIVATIONS, or None for the identity.

    Returns:
        Shape (..., units).
    """
    return ACTIVATIONS[activation or "identity"](torch.nn.functional.linear(x, weight, bias))
