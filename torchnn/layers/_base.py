"""The base of the layers: an `nn.Module` with a name and a repr that reads like its call."""

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

from torchnn import _config, activations
from torchnn.layers._call import Called

Self = TypeVar("Self", bound="Layer")


class Layer(_config.Configured, Called):
    """An `nn.Module` that has a name, and can be called on arrays, too.

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

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make such a layer, by their names, in plain values.

        Functions and modules have the names that they are known by here; those of one's own stay
        what they are. The shape of the input is not among them.

        Raises:
            TypeError: An argument of a class of one's own is not kept as an attribute of its name.
        """
        parameters = list(self.parameters())
        trainable = not parameters or any(parameter.requires_grad for parameter in parameters)
        config = {"name": self.name, "trainable": trainable, **super().get_config()}
        activation = activations.name_of(getattr(self, "activation", None))
        if "activation" in config and activation is not None:
            config["activation"] = "linear" if activation == "identity" else str(activation)
        return config

    @classmethod
    def from_config(
        cls: type[Self], config: Mapping[str, Any], custom_objects: _config.CustomObjects = None
    ) -> Self:
        """Returns a new layer of what get_config returns, with first values of its own.

        Args:
            config: Arguments by their names.
            custom_objects: From names to classes of one's own, where their modules do not tell.

        Raises:
            ValueError: The config names a class that nobody knows.
        """
        config = dict(config)
        trainable = config.pop("trainable", True)
        layer = super().from_config(config, custom_objects)
        if not trainable:
            layer.trainable = False
        return layer

    def _called(self) -> str:
        return f"layer {self.name!r}" if self.name else f"this {type(self).__name__} layer"

    def _repr(self, *arguments: Any, **options: Any) -> str:
        """The arguments of a call that makes this layer; options that are None are left out."""
        options["name"] = self.name
        given = [f"{key}={value!r}" for key, value in options.items() if value is not None]
        return ", ".join([*map(repr, arguments), *given])
