"""Fused dense layers for PyTorch, and a trainer with Keras's words.

    from torchnn import Sequential
    from torchnn.layers import Dense
    from torchnn.losses import BinaryCrossentropy

`torchnn.layers` and `torchnn.ops` work in any PyTorch program; `Sequential` adds compile, fit,
evaluate and predict.
"""

from torchnn import (
    activations,
    backend,
    callbacks,
    initializers,
    layers,
    losses,
    metrics,
    ops,
    optimizers,
    utils,
)
from torchnn.layers import Input
from torchnn.sequential import Sequential

__all__ = [
    "Input",
    "Sequential",
    "activations",
    "backend",
    "callbacks",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "ops",
    "optimizers",
    "utils",
]
__version__ = "0.1.0"
