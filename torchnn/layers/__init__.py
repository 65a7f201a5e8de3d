"""Layers: `nn.Module`s with Keras's arguments, for Sequential and for plain PyTorch alike.

`Dense` is the one that learns; the others shape, scale or drop what goes into it.
"""

from torchnn.layers._base import Layer
from torchnn.layers._dense import Dense
from torchnn.layers._weightless import (
    Activation,
    Dropout,
    Flatten,
    Input,
    Normalization,
    Rescaling,
)

# The course notes import the losses from here.
from torchnn.losses import BinaryCrossentropy, MeanSquaredError

__all__ = [
    "Activation",
    "BinaryCrossentropy",
    "Dense",
    "Dropout",
    "Flatten",
    "Input",
    "Layer",
    "MeanSquaredError",
    "Normalization",
    "Rescaling",
]
