"""Layers: `nn.Module`s with Keras's arguments, for Sequential and for plain PyTorch alike.

`Dense`, `PReLU` and the normalizations of batches and samples learn; the others shape, scale or
drop what goes into them.
"""

from torchnn.layers._activations import ELU, LeakyReLU, PReLU, ReLU, Softmax
from torchnn.layers._base import Layer
from torchnn.layers._dense import Dense
from torchnn.layers._merging import (
    Add,
    Average,
    Concatenate,
    Dot,
    Lambda,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
    add,
    average,
    concatenate,
    dot,
    maximum,
    minimum,
    multiply,
    subtract,
)
from torchnn.layers._normalization import BatchNormalization, LayerNormalization
from torchnn.layers._weightless import (
    Activation,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    InputLayer,
    Normalization,
    Rescaling,
    Reshape,
)

# The course notes import the losses from here.
from torchnn.losses import BinaryCrossentropy, MeanSquaredError

__all__ = [
    "ELU",
    "Activation",
    "Add",
    "Average",
    "BatchNormalization",
    "BinaryCrossentropy",
    "Concatenate",
    "Dense",
    "Dot",
    "Dropout",
    "Flatten",
    "GaussianNoise",
    "Input",
    "InputLayer",
    "Lambda",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "Maximum",
    "MeanSquaredError",
    "Minimum",
    "Multiply",
    "Normalization",
    "PReLU",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Softmax",
    "Subtract",
    "add",
    "average",
    "concatenate",
    "dot",
    "maximum",
    "minimum",
    "multiply",
    "subtract",
]
