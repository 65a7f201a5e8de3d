"""The base of the layers: an `nn.Module` with a name and a repr that reads like its call."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, NoReturn, TypedDict, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchnn import _checks, _config, activations, regularizers
from torchnn.layers import _building, _variables
from torchnn.layers._call import Called
from torchnn.layers._variables import HasWeights

Self = TypeVar("Self", bound="Layer")


class Options(TypedDict, total=False):
    """What every layer takes beside its own arguments."""

    name: str | None
    trainable: bool
    input_shape: Sequence[int] | int | None
    input_dim: int | None


class Layer(_config.Configured, HasWeights, Called):
    """An `nn.Module` that has a name, and can be called on arrays, too.

    Args:
        name: What messages and summaries call the layer, or None.
        trainable: Whether fit changes the parameters.
        input_shape: The shape of one sample, (400,); of the first layer of a Sequential, it builds
            the model at once, as an Input in front would.
        input_dim: The same for samples of one axis: 400.

    A class of one's own may make its weights in `build(self, input_shape)`, which is called with
    the shape of the first input, (None, 400), or the shapes of several in a list.

    Attributes:
        built: Whether the weights have their shapes.
    """

    built = True  # of a layer that has no build
    activity_regularizer: regularizers.Penalty | None = None
    first_shape: tuple[int, ...] | None = None  # what input_shape or input_dim said
    __jit_unused_properties__: tuple[str, ...] = _variables.PROPERTIES

    def __init__(
        self,
        name: str | None = None,
        trainable: bool = True,
        input_shape: Sequence[int] | int | None = None,
        input_dim: int | None = None,
        **unknown: NoReturn,  # an error to type checkers, and a better one when it runs
    ):
        nn.Module.__init__(self)  # not super's, which may be nn.Linear's
        self._refuse(unknown)
        if name is not None and not (isinstance(name, str) and name):
            raise TypeError(f"name must be a string with something in it, got {name!r}")
        self.name = name
        self._starts_trainable = _checks.truth("trainable", trainable)
        if input_shape is not None:
            self.first_shape = sample_shape("input_shape", input_shape)
        elif input_dim is not None:
            self.first_shape = (_checks.positive_int("input_dim", input_dim),)

        _building.announce(self)

    def build(self, input_shape: Any) -> None:
        """Makes the weights, in a class that has some by its input's shape.

        Args:
            input_shape: That of a batch, such as (None, 400).
        """

    def add_weight(
        self,
        shape: Sequence[int] | int = (),
        initializer: Any = "glorot_uniform",
        dtype: torch.dtype | None = None,
        trainable: bool = True,
        name: str | None = None,
        **settings: Any,
    ) -> Any:
        """Returns a new weight, registered as a parameter, or as a buffer if it is not trainable.

        The attribute that it is assigned to gives it its name in the state dict.

        Args:
            shape: Its shape.
            initializer: A name, an object or a function, as layers take them.
            dtype: PyTorch's default if None.
            trainable: Whether fit changes it.
            name: What it is registered as while no attribute has it.
            settings: None of Keras's others: penalties and constraints are those of its layers.
        """
        _building.refuse(settings)
        return _building.add(self, shape, initializer, dtype, trainable, name)

    def add_loss(self, loss: Any) -> NoReturn:
        """Raises NotImplementedError: losses are those of compile and of regularizers."""
        raise NotImplementedError(
            f"{type(self).__name__} cannot add a loss: give the layer an activity_regularizer, a "
            "function of its output, or compile a loss that knows the rest"
        )

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
        config = {"name": self.name, **super().get_config(), "trainable": trainable}
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
        taken = {parameter.name for parameter in _config.taken(cls)}
        given = {n: value for n, value in config.items() if n != "trainable" or n in taken}
        layer = super().from_config(given, custom_objects)
        if not config.get("trainable", True):
            layer.trainable = False
        return layer

    def _refuse(self, unknown: dict[str, Any]) -> None:
        """Raises TypeError for arguments that the layer does not take."""
        if unknown:
            own = [*inspect.signature(type(self)).parameters, *Options.__annotations__]
            known = [name for name in dict.fromkeys(own) if name not in ("options", "unknown")]
            raise TypeError(
                f"{type(self).__name__} got unknown {', '.join(unknown)}; "
                f"it takes {', '.join(known)}"
            )

    def get_weights(self) -> list[Any]:
        """Returns copies as numpy arrays, in Keras's order; none of a layer that is not built."""
        return [variable.numpy() for variable in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Takes what get_weights gives.

        Raises:
            ValueError: The number of arrays or a shape is wrong; nothing has changed then.
        """
        values = [_checks.tensor("weights", value) for value in weights]
        shapes = [tuple(value.shape) for value in values]
        wanted = self._weight_shapes(shapes)
        if len(shapes) != len(wanted):
            raise ValueError(
                f"weights of {self._called()} must be {len(wanted)} arrays, got {len(shapes)}"
            )
        if shapes != wanted:
            raise ValueError(f"weights of {self._called()} must have shapes {wanted}, got {shapes}")
        self._build_by_weights(shapes)
        for variable, value in zip(self.weights, values, strict=True):
            variable.assign(value)

    def _weight_shapes(self, given: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """The shapes of the weights, where set_weights is given such shapes."""
        if any(map(is_lazy, self.parameters())):
            raise ValueError(f"{self._called()} has no weights yet: {_variables.UNBUILT}")
        return [tuple(variable.shape) for variable in self.weights]

    def _build_by_weights(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Builds the layer for weights of these shapes, which fit, if it is not built."""

    def _with(self, kind: str) -> Iterator[tuple[Any, Tensor]]:
        """Yields the layer's regularizers or constraints, each with its weight in Keras's order; of
        what is frozen, no constraints."""
        for name, tensor, is_kernel in _variables.own(self):
            if kind == "constraint" and not tensor.requires_grad:
                continue
            setting = getattr(self, f"{name}_{kind}", None)
            if setting is not None:
                yield setting, tensor.t() if is_kernel else tensor

    def _observed(self, output: Tensor) -> Tensor:
        """The output, once the penalty on it has been counted."""
        regularizer = self.activity_regularizer
        return output if regularizer is None else regularizers.added(self, regularizer, output)

    def _called(self) -> str:
        return _variables.called(self)

    def _repr(self, *arguments: Any, **options: Any) -> str:
        """The arguments of a call that makes this layer; options that are None are left out."""
        options["name"] = self.name
        given = [f"{key}={value!r}" for key, value in options.items() if value is not None]
        return ", ".join([*map(repr, arguments), *given])


def sample_shape(name: str, value: Any) -> tuple[int, ...]:
    """Returns the shape of one sample, checked; a number is one size."""
    if isinstance(value, Integral):  # (400) for (400,), as older programs have it
        value = (value,)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"{name} must be a tuple of integers such as (400,), got {value!r}")
    return tuple(_checks.positive_int(f"each size in {name}", size) for size in value)


def is_regulated(model: nn.Module) -> bool:
    """Whether a layer has a regularizer or a constraint, also before there are weights."""
    return any(
        getattr(module, f"{name}_{kind}", None) is not None
        for module in model.modules()
        if isinstance(module, Layer)
        for kind in ("regularizer", "constraint")
        for name in ("activity", *(module._named or ()))
    )
