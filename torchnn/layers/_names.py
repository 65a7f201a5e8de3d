"""The names of a model's layers: their own, or "dense", "dense_1", ... as in Keras."""

import re
from collections.abc import Container, Sequence
from typing import Any

from torch import nn

from torchnn.layers._base import Layer
from torchnn.layers._symbols import Function


class AutomaticName(str):
    """A name that a model gave to a layer that had none."""

    __slots__ = ()


def of(layers: Sequence[nn.Module]) -> list[str]:
    """Returns one name per layer, all different.

    Raises:
        ValueError: Two layers were given the same name, or one layer is there twice.
    """
    own = check(layers)
    given = _given(own)
    names: list[str] = []
    for layer, name in zip(layers, own, strict=True):
        taken = {*given, *names}
        names.append(name if name and name in given else _free(name, layer, taken))
    return names


def check(layers: Sequence[nn.Module]) -> list[str | None]:
    """Returns each layer's own name, or None; raises what of() raises."""
    if len({id(layer) for layer in layers}) < len(layers):
        raise ValueError("layers must differ from each other, got one of them twice")
    own = [_own(layer) for layer in layers]
    if twice := _repeated(_given(own)):
        raise ValueError(f"layer names must differ, got {twice[0]!r} {len(twice)} times")
    return own


def give(layers: Sequence[Any]) -> None:
    """Writes the names of() into torchnn's layers that have none, and into models."""
    for layer, name in zip(layers, of(layers), strict=True):
        own = getattr(layer, "name", None)
        # A layer may stand in other models; a model has named itself before it stood in this one.
        if own is None if isinstance(layer, Layer) else isinstance(own, AutomaticName):
            layer.name = AutomaticName(name)


def repeated(layers: Sequence[nn.Module]) -> list[str]:
    """Returns the names that several layers were given, which of() refuses."""
    return _repeated(_given([_own(layer) for layer in layers]))


def _given(names: Sequence[str | None]) -> list[str]:
    return [name for name in names if name and not isinstance(name, AutomaticName)]


def _repeated(given: Sequence[str]) -> list[str]:
    return [name for name in given if given.count(name) > 1]


def _own(layer: nn.Module) -> str | None:
    name = getattr(layer, "name", None)
    return name if isinstance(name, str) and name else None


def _free(automatic: str | None, layer: nn.Module, taken: set[str]) -> str:
    """The automatic name if nobody else has it, or else the first free one of the layer's kind."""
    if automatic and automatic not in taken:
        return automatic
    # A LazyLinear becomes a Linear when it is built; its name should stay.
    kind = type(layer).__name__.removeprefix("Lazy")
    if isinstance(layer, Function):
        kind = layer.extra_repr()
    return free(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower(), taken)


def free(wanted: str, taken: Container[str]) -> str:
    """Returns the name, with the first number that makes it differ from those taken."""
    name, count = wanted, 0
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    return name
