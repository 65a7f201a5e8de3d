"""Weights that a class of one's own makes in `build`, when the shape of its input is known."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from torchnn import _checks, initializers
from torchnn.layers._values import mapped

UNBUILT = "unbuilt"  # a parameter that stands for those to come


def building(build: Callable[..., None]) -> Callable[..., None]:
    """A class's build as one that notes that it has been called."""

    @wraps(build)
    def noted(self: Any, *args: Any, **options: Any) -> None:
        with torch.inference_mode(False):  # the first input may come in it
            build(self, *args, **options)
        self._parameters.pop(UNBUILT, None)
        for key, hook in list(self._forward_pre_hooks.items()):
            if hook is _build_first:
                del self._forward_pre_hooks[key]
        self.built = True
        self._settle()

    return noted


def announce(module: Any) -> None:
    """Has the module built at its first call, if its class says how."""
    if module._builds:
        module.built = False
        module.register_parameter(UNBUILT, unbuilt(None, None))
        module.register_forward_pre_hook(_build_first)


def _build_first(module: Any, inputs: tuple[Any, ...]) -> None:
    owner = getattr(module, "_viewed", module)  # a view in evaluation mode takes in no layers
    if owner._parameters.get(UNBUILT) is not None:
        owner.build(mapped(inputs[0], _shape))


def _shape(value: Any) -> Any:
    return (None, *value.shape[1:]) if isinstance(value, Tensor) else value


def refuse(settings: dict[str, Any]) -> None:
    """Raises TypeError for arguments of Keras's add_weight that mean something and are not ours."""
    if given := [name for name, value in settings.items() if value is not None]:
        raise TypeError(
            f"add_weight got {', '.join(given)}; it takes shape, initializer, dtype, trainable and "
            "name: penalties and constraints are settings of the layers of torchnn"
        )


def add(
    layer: Any,
    shape: Sequence[int] | int,
    initializer: Any,
    dtype: torch.dtype | None,
    trainable: bool,
    name: str | None,
) -> Tensor:
    """Returns a new weight, registered under its name until it gets an attribute."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    sizes = tuple(_checks.positive_int("each size in shape", size) for size in sizes)
    trainable = _checks.truth("trainable", trainable)
    first = next(layer.parameters(), torch.empty(0))
    with torch.inference_mode(False), torch.no_grad():
        # Initializers take PyTorch's order of axes, outputs first.
        values = torch.empty(sizes[::-1], dtype=dtype)
        initializers.filled(initializers.get(initializer), values)
        values = values.permute(tuple(reversed(range(len(sizes))))).contiguous().to(first.device)
    key = name if name and name.isidentifier() and not hasattr(layer, name) else _free(layer, name)
    if trainable:
        stands_for = layer._parameters.get(UNBUILT)
        learns = layer._starts_trainable and (stands_for is None or stands_for.requires_grad)
        layer.register_parameter(key, nn.Parameter(values, requires_grad=learns))
    else:
        layer.register_buffer(key, values)
    layer._unnamed = (*layer._unnamed, key)
    return getattr(layer, key)


def name(layer: Any, attribute: str, value: Any) -> bool:
    """Registers a weight of add's under the attribute that it is assigned to; whether it is one."""
    for kind in (layer._parameters, layer._buffers):
        for key in layer._unnamed:
            if kind.get(key) is value:
                del kind[key]
                kind[attribute] = value
                layer._unnamed = tuple(other for other in layer._unnamed if other != key)
                return True
    return False


def _free(layer: Any, wanted: str | None) -> str:
    stem = wanted if wanted and wanted.isidentifier() else "weight"
    number = 0
    while hasattr(layer, f"{stem}_{number}"):
        number += 1
    return f"{stem}_{number}"


class _UnbuiltParameter(UninitializedParameter):
    """An UninitializedParameter that pickles with its device and dtype."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self), (self.requires_grad, self.device, self.dtype)


def unbuilt(device: Any, dtype: torch.dtype | None) -> nn.Parameter:
    """A parameter that has no shape yet."""
    # torch's stub of UninitializedParameter is behind its source.
    return _UnbuiltParameter(device=device, dtype=dtype)  # type: ignore[call-arg, return-value]
