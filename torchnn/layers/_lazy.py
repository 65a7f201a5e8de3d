"""Weights that get their shapes from the first input."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchnn import constraints, initializers, regularizers
from torchnn.layers._base import Layer, Options
from torchnn.layers._building import unbuilt

ONES = ("gamma_initializer", "moving_variance_initializer")  # the others begin at 0


class LazyLayer(Layer):
    """A layer whose weights are all of one shape, which follows from that of the first input.

    What it is made of, `_named` says: parameters, and buffers, which are empty until then.

    Args:
        settings: An initializer for each weight, `gamma_initializer`, and a regularizer and a
            constraint for each that learns: names, objects, or None for none; of an initializer,
            for its default.
        options: As any Layer takes them.

    Attributes:
        built: Whether the weights have their shapes.
    """

    _named: dict[str, str]

    def __init__(self, settings: dict[str, Any], options: Options):
        super().__init__(**options)
        self.built = False
        getters: dict[str, Any] = {
            "initializer": initializers.get,
            "regularizer": regularizers.get,
            "constraint": constraints.get,
        }
        for name, value in settings.items():
            kind = name.rpartition("_")[2]
            usual = "ones" if name in ONES else "zeros"
            setattr(self, name, getters[kind](value, usual if kind == "initializer" else kind))

    def _declare(self, attribute: str, has_one: bool = True) -> None:
        """Registers a parameter that has no shape yet, or none."""
        parameter = unbuilt(None, None) if has_one else None
        self.register_parameter(attribute, parameter)
        if parameter is not None and not self._starts_trainable:
            parameter.requires_grad = False

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Gives the weights their shapes and first values.

        Args:
            input_shape: That of a batch, such as (None, 400).
        """
        if not self.built:
            self._build_as(self._shape_of_weights(tuple(input_shape)))

    def reset_parameters(self) -> None:
        """Gives the weights first values again."""
        if self.built:
            self._build_as(tuple(next(iter(self._tensors().values())).shape))

    def _shape_of_weights(self, input_shape: tuple[int | None, ...]) -> tuple[int, ...]:
        """The shape of each weight, for batches of a shape."""
        raise NotImplementedError

    def _build_as(self, shape: tuple[int, ...]) -> None:
        names = {attribute: name for name, attribute in self._named.items()}
        values = {
            attribute: filled(
                getattr(self, f"{names[attribute]}_initializer"), shape, tensor.device, tensor.dtype
            )
            for attribute, tensor in self._tensors().items()
        }
        for attribute, value in values.items():
            if attribute in self._buffers:
                self._buffers[attribute] = value
            else:
                parameter: Any = self._parameters[attribute]
                parameter.data = value
                parameter.__class__ = nn.Parameter
        self.built = True

    def _tensors(self) -> dict[str, Tensor]:
        """The weights that the layer has, by their attributes."""
        found = {attribute: getattr(self, attribute) for attribute in self._named.values()}
        return {attribute: tensor for attribute, tensor in found.items() if tensor is not None}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # Parameters that are not built cannot be detached.
        super()._save_to_state_dict(destination, prefix, keep_vars or not self.built)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        given = [state_dict.get(prefix + attribute) for attribute in self._tensors()]
        shapes = [tuple(t.shape) for t in given if t is not None and not is_lazy(t) and t.numel()]
        if not self.built and shapes:
            self._build_as(shapes[0])
        super()._load_from_state_dict(state_dict, prefix, *args)


def filled(
    initializer: initializers.Filler,
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """First values, drawn on the CPU: a seed gives the same ones on every device."""
    # The first input may come in inference mode; the parameters must still be able to learn.
    with torch.inference_mode(False):
        values = torch.empty(shape, device="meta" if device.type == "meta" else "cpu", dtype=dtype)
        return initializers.filled(initializer, values).to(device)
