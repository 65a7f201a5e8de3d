"""Chains of the usual layers, built by the shapes alone: a call of an unbuilt model, and what would
undo it, take several times as long, which counts where there are thousands of models."""

import math
from typing import Any

import torch
from torch import nn

from torchnn.layers import Activation, Dense, Dropout, Flatten, Normalization, Rescaling
from torchnn.layers._variables import Told, is_chain, is_forward_alone

KNOWN = (Dense, Dropout, Flatten, Activation, Normalization, Rescaling)


def build(model: nn.Sequential, shape: tuple[int, ...], told: Told) -> bool:
    """Builds the layers of a chain without a call, if it can; returns whether it could.

    The random numbers are those that a call would draw. After an error nothing has changed.

    Args:
        model: The chain.
        shape: The axes of a sample.
        told: Is told of the shapes.

    Raises:
        ValueError: A layer that is built, or has statistics, is for another number of features.
    """
    if not is_chain(model) or torch.compiler.is_compiling():
        return False
    layers: list[Any] = list(model)
    shapes = [shape]
    for layer in layers:
        after = _after(layer, shapes[-1])
        if after is None:
            return False
        shapes.append(after)
    dense = [layer for layer in layers if type(layer) is Dense]
    if len({(layer.weight.dtype, layer.weight.device) for layer in dense}) > 1:
        return False
    steps = list(zip(layers, shapes, shapes[1:], strict=False))
    unbuilt = [(layer, before[-1]) for layer, before, _ in steps if not layer.built]
    state = torch.default_generator.get_state()  # values are drawn on the CPU
    try:
        values = [
            layer._first_values(features, layer.use_bias, layer.weight)
            for layer, features in unbuilt
        ]
    except BaseException:
        torch.default_generator.set_state(state)
        raise
    for (layer, _), own in zip(unbuilt, values, strict=True):
        layer._begin_with(*own)
    for step in steps:
        told.note(*step)
    told.note(model, shape, shapes[-1])
    return True


def _after(layer: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes of what a layer makes of a sample, or None if it takes a call to know."""
    kind = type(layer)
    if kind not in KNOWN or not is_forward_alone(layer):
        return None
    if kind in (Normalization, Rescaling):
        layer._check_axes(shape)
        return shape
    if kind is Flatten:
        return (math.prod(shape),)
    if kind is Dropout:
        return shape
    if not isinstance(layer.activation, str) or layer.activity_regularizer is not None:
        return None
    if kind is Activation:
        return shape
    if not shape:
        return None
    if layer.built:
        if not _has_its_weights(layer):
            return None
        layer._check_features(shape[-1])
    return (*shape[:-1], layer.units)


def _has_its_weights(layer: Dense) -> bool:
    """Whether weight and bias are still what units and in_features say, and alike."""
    weight, bias = layer.weight, layer.bias
    if tuple(weight.shape) != (layer.units, layer.in_features):
        return False
    if bias is None:
        return True
    is_alike = (bias.dtype, bias.device) == (weight.dtype, weight.device)
    return is_alike and tuple(bias.shape) == (layer.units,)
