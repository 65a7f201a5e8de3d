"""The base of the layers: an `nn.Module` with a name and a repr that reads like its call."""

from typing import Any

from torch import nn


class Layer(nn.Module):
    """An `nn.Module` that has a name.

    Args:
        name: What messages and summaries call the layer, or None.
    """

    def __init__(self, name: str | None = None):
        nn.Module.__init__(self)  # not super's, which may be nn.Linear's
        if name is not None and not (isinstance(name, str) and name):
            raise TypeError(f"name must be a string with something in it, got {name!r}")
        self.name = name

    @property
    def trainable(self) -> bool:
        """Whether fit changes the parameters: Keras's word for requires_grad of them all."""
        return all(parameter.requires_grad for parameter in self.parameters())

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for parameter in self.parameters():
            parameter.requires_grad = bool(value)  # also before there are values

    def _called(self) -> str:
        return f"layer {self.name!r}" if self.name else f"this {type(self).__name__} layer"

    def _repr(self, *arguments: Any, **options: Any) -> str:
        """The arguments of a call that makes this layer; options that are None are left out."""
        options["name"] = self.name
        given = [f"{key}={value!r}" for key, value in options.items() if value is not None]
        return ", ".join([*map(repr, arguments), *given])
