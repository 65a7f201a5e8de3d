"""Sequential: a chain of layers that can be compiled, fitted, evaluated and asked."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from torchnn import _checks
from torchnn._config import CustomObjects
from torchnn._console import summary as _summary
from torchnn._engine import building as _building
from torchnn._engine import chains as _chains
from torchnn._engine.evaluating import evaluating
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Form, Samples
from torchnn._training.batches import Feed
from torchnn.layers import Input, Layer, _names, _variables
from torchnn.layers._symbols import apply
from torchnn.model import Model

__all__ = ["Sequential"]

Self = TypeVar("Self", bound="Sequential")


# What each has been traced for, and the symbols; not in the models, since copies go without.
_traces: "WeakKeyDictionary[Sequential, tuple[Any, list[Any]]]" = WeakKeyDictionary()


class Sequential(Model, nn.Sequential):
    """x -> layer_n(... layer_2(layer_1(x))), with Keras's compile, fit, evaluate and predict.

    In every other respect an `nn.Sequential`: layers are any `nn.Module`s, `model[0]` is the
    first, and the state dict is that of an `nn.Sequential`. An Input in front does not count as a
    layer: it builds the others at once. A Sequential may be a layer of another one.

    Args:
        layers: The layers, in a list; or the first one, if all follow one another as arguments.
        more: Further layers.
        name: What the summary calls the model.

    Raises:
        TypeError: A layer is no module.
        ValueError: Two layers have the same name.
    """

    def __init__(
        self,
        layers: nn.Module | Iterable[nn.Module] | Mapping[str, nn.Module] = (),
        *more: nn.Module,
        name: str | None = None,
    ):
        super().__init__()
        self.name = (
            _names.AutomaticName("sequential") if name is None else _checks.string("name", name)
        )
        self._input_shape: tuple[int, ...] | None = None
        self._told: tuple[Any, ...] = ()  # the sample's shape and the layers that know their own
        if isinstance(layers, Mapping):  # slices of an nn.Sequential come as one
            layers = layers.values()
        for layer in (layers, *more) if isinstance(layers, nn.Module) else (*layers, *more):
            self._append(layer)
        self._build_from_input()

    forward = nn.Sequential.forward

    @property
    def layers(self) -> list[Any]:
        """The layers, in order, without the Input.

        To type checkers, they are anything: of an `nn.Module`, they take every attribute for a
        Tensor or a Module, and would refuse `model.layers[0].get_weights()`.
        """
        return list(self)

    def add(self, layer: nn.Module) -> None:
        """Appends a layer; if it does not fit, the model stays as it was."""
        input_shape, count = self._input_shape, len(self)
        self._append(layer)
        try:
            self._build_from_input()
        except Exception:
            self._input_shape = input_shape
            del self[count:]
            raise

    def append(self: Self, module: nn.Module) -> Self:
        """Appends a layer as add does, and returns the model, as `nn.Sequential` does."""
        self.add(module)
        return self

    def extend(self: Self, sequential: Iterable[nn.Module]) -> Self:
        """Appends several layers; if one does not fit, the model stays as it was."""
        input_shape, count = self._input_shape, len(self)
        try:
            for layer in list(sequential):
                self.add(layer)
        except Exception:
            self._input_shape = input_shape
            del self[count:]
            raise
        return self

    def pop(self, key: int | slice = -1) -> Any:
        """Removes a layer, the last one by default, and returns it."""
        self._check_layers()
        layer = super().pop(key)
        self._build_from_input()
        return layer

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Builds all layers for batches of a shape such as (None, 400)."""
        if not isinstance(input_shape, Iterable):
            raise TypeError(
                f"input_shape must be a batch's, such as (None, 400), got {input_shape!r}"
            )
        shape = tuple(input_shape)
        if not shape or shape[0] is not None:
            raise ValueError(
                "input_shape must be a batch's, with None for the samples, such as (None, 400), "
                f"got {shape}"
            )
        self._check_layers()
        before, self._input_shape = self._input_shape, Input(shape[1:]).sample_shape  # type: ignore[arg-type]
        try:
            self._build_from_input()
        except Exception:
            self._input_shape = before
            raise

    def get_config(self) -> dict[str, Any]:
        """Returns the name, what each layer was made with, and the shape that it is built for.

        Of a class with an __init__ of its own, the arguments of that take the layers' place.

        Raises:
            TypeError: A layer does not keep its arguments as attributes of their names.
        """
        config = super().get_config()
        if type(self).__init__ is not Sequential.__init__:
            config.pop("layers", None)
        return {**config, "build_input_shape": self._build_shape()}

    @classmethod
    def from_config(
        cls: type[Self], config: Mapping[str, Any], custom_objects: CustomObjects = None
    ) -> Self:
        """Returns a new model of what get_config returns, with first values of its own.

        Args:
            config: The layers' configs and the rest.
            custom_objects: From names to classes of one's own, where their modules do not tell.

        Raises:
            ValueError: The config names a class that nobody knows.
        """
        config = dict(config)
        shape = config.pop("build_input_shape", None)
        model = super().from_config(config, custom_objects)
        if shape is not None:
            model.build(shape)
        return model

    def _rows(self) -> list[_summary.Row]:
        return _summary.rows(self.layers, _names.of(self.layers), self._sample_form())

    def _append(self, layer: Any) -> None:
        """Takes a layer in, or the shape that an Input tells."""
        if isinstance(layer, type):
            name = layer.__name__
            raise TypeError(f"layers must be instances, got the class {name}: write {name}()")
        if not isinstance(layer, nn.Module):
            raise TypeError(f"layers must be torch.nn.Module instances, got {layer!r}")
        if not isinstance(layer, Input):
            _names.of([*self, layer])
            if not len(self) and self._input_shape is None and isinstance(layer, Layer):
                self._input_shape = layer.first_shape
            self.add_module(str(len(self)), layer)
            _names.give(self.layers)
            if len(self) == 1 and isinstance(layer, Sequential) and self._input_shape is None:
                self._input_shape = layer._input_shape
        elif len(self) or self._input_shape is not None:
            raise ValueError("Input must be the first layer, and the only one of its kind")
        else:
            self._input_shape = layer.sample_shape

    def _build_from_input(self) -> None:
        """Builds all layers if an Input has told the shape."""
        shape, told = self._input_shape, _variables.Told()
        if shape is None or not len(self):
            return
        if not _chains.build(self, shape, told):
            form = self._form()
            x = torch.zeros(1, *shape, device=form.device, dtype=form.dtype)
            _building.prepare(self, None, Samples(x), call=told.run)
        self._keep(told, shape)

    def _prepare(self, recipe: Recipe | None, *feeds: Feed) -> None:
        super()._prepare(recipe, *feeds)
        if self._told != (self.sample_shape, *self.layers):
            self._tell_shapes(feeds[0].first.x[:1])

    def _tell_shapes(self, x: torch.Tensor) -> None:
        """Lets the model and its layers know the shapes of what they get and give."""
        told = _variables.Told()
        with evaluating(self) as model, torch.no_grad():
            told.run(model, x)
        self._keep(told, tuple(x.shape[1:]))

    def _keep(self, told: _variables.Told, shape: tuple[int, ...]) -> None:
        """Does so by what has been told, of samples of a shape."""
        told.keep()
        _variables.claim(self)  # not the view
        self._told = (shape, *self.layers)

    def _latest(self, place: int, shape: Any) -> Any:
        """Its own symbols, once it is built, whatever else it has been called on."""
        return super()._latest(place, shape) if shape is None else self._traced()[place]

    def _traced(self) -> tuple[Any, Any]:
        """The symbols that it begins with and ends in, when its layers are called on them."""
        shape, parts = self._sample_form().shape, tuple(self)
        known, symbols = _traces.get(self, (None, []))
        if known != (shape, parts):
            symbols = [Input(shape)]
            for layer in parts:
                symbols.append(apply(layer, symbols[-1:], {}))
            _traces[self] = (shape, parts), symbols
        return symbols[0], symbols[-1]

    def _form(self) -> Form:
        return _building.form(self, self._input_shape)

    def _is_empty(self) -> bool:
        return not len(self)

    def _sample_form(self) -> Form:
        """The form with the shape of the samples, as far as an Input, data or a layer tells it."""
        return _building.form(self, self._input_shape or self.sample_shape)

    def _build_shape(self) -> tuple[int | None, ...] | None:
        """What build would be given to make the model what it is, or None if it is not built."""
        shape = self._sample_form().shape
        is_built = bool(shape) and len(self) > 0 and _building.is_built(self)
        return (None, *shape) if is_built else None

    def _check_layers(self) -> None:
        if self._is_empty():
            raise ValueError("the model has no layers: add one first")
        _names.check(self.layers)
