"""Network: a module that is made of layers, by a graph of them or by a forward of its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from torchnn import _checks
from torchnn._console import summary as _summary
from torchnn._engine import choice as _choice
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Form
from torchnn.layers import _building, _held, _names, _variables, _weights
from torchnn.layers._call import Called
from torchnn.layers._graph import Graph
from torchnn.layers._symbols import Shape
from torchnn.layers._values import leaves, mapped
from torchnn.layers._variables import HasWeights


class Network(HasWeights, Called):
    """A module that is made of layers.

    Args:
        inputs: An Input, or several in a list or a dict; None for a class with a forward, or a
            `call`, of its own.
        outputs: What layers that were called on the inputs returned: one, a list or a dict.
        name: What summaries call the model.

    Raises:
        ValueError: Only one of inputs and outputs is given, or outputs depend on other inputs.
        TypeError: One of them is no such thing.
    """

    name: str
    sample_shape: Any = None
    _graph: Graph | None = None
    _recipe: Recipe | None = None

    def __init__(self, inputs: Any = None, outputs: Any = None, name: str | None = None) -> None:
        super().__init__()
        self.name = _names.AutomaticName("model") if name is None else _checks.string("name", name)
        if inputs is None and outputs is None:
            _building.announce(self)
            return
        if inputs is None or outputs is None:
            missing = "inputs" if inputs is None else "outputs"
            raise ValueError(f"{missing} must be given too, to make a model of a graph")
        self._graph = Graph(inputs, outputs)
        _names.of(self._graph.modules)
        for number, module in enumerate(self._graph.modules):
            self.add_module(str(number), module)
        _names.give(self._graph.modules)

    def forward(self, inputs: Any) -> Any:
        """Returns the outputs of the graph, as they were given to the model.

        Args:
            inputs: A tensor; or for several inputs, a list of them, or a dict by their names.
        """
        if self._graph is None:
            raise NotImplementedError(
                f"{type(self).__name__} has no forward: write one, or make a model of a graph, "
                "Model(inputs, outputs)"
            )
        return self._graph.run(list(self.children()), self._in_order(inputs))

    @property
    def layers(self) -> list[Any]:
        """The layers, in order; of a graph, an Input for each input before them; those in lists and
        dicts one by one.

        To type checkers, they are anything: of an `nn.Module`, they take every attribute for a
        Tensor or a Module, and would refuse `model.layers[0].get_weights()`.
        """
        own = list(self.children())
        return own if self._graph is not None else list(dict.fromkeys(_held.flat(own)))

    @property
    def _chain(self) -> list[Any] | None:
        """The layers of a graph without its Input, if each takes what the one before it returns."""
        if self._graph is None or type(self).forward is not Network.forward:
            return None
        numbers = self._graph.chain()
        return None if numbers is None else [self._modules[str(number)] for number in numbers]

    @property
    def _head(self) -> Any:
        """The layer that returns the one output of a graph, and nothing else; or None."""
        if self._graph is None or type(self).forward is not Network.forward:
            return None
        number = self._graph.head()
        return None if number is None else self._modules[str(number)]

    def _with_head(self, head: Callable[..., Any], inputs: Any) -> Any:
        """Returns what forward would if the last layer were another."""
        last = self._head

        def call(module: Any, inputs: list[Any], options: dict[str, Any]) -> Any:
            return (head if module is last else module)(*inputs, **options)

        return self._needed().run(list(self.children()), self._in_order(inputs), call)

    @property
    def inputs(self) -> list[Any]:
        """The symbols that the graph begins with; without one, what is known of what goes in."""
        if self._graph is None:
            return [] if self.input is None else [self.input]
        return list(leaves(self.input))

    @property
    def outputs(self) -> list[Any]:
        """The symbols that the graph ends in; without one, what is known of what comes out."""
        if self._graph is None:
            return [] if self.output is None else [self.output]
        return list(leaves(self.output))

    @property
    def input(self) -> Any:
        """The symbol that the graph begins with, or several as they were given."""
        return super().input if self._graph is None else self._graph.symbols(self.layers)[0]

    @property
    def output(self) -> Any:
        """The symbol that the graph ends in, or several as they were given."""
        return super().output if self._graph is None else self._graph.symbols(self.layers)[1]

    @property
    def input_names(self) -> list[str]:
        """What a dict of inputs calls them: the keys of that of the graph, or the Inputs' names."""
        graph = self._needed()
        return graph.keys or _names.of(self.layers)[: graph.input_count]

    @property
    def output_names(self) -> list[str]:
        """What a dict of targets calls them: the keys of that of the graph, or layers' names."""
        graph = self._needed()
        if isinstance(graph.returns, dict):
            return list(graph.returns)
        known, names = _names.of(self.layers), list[str]()
        for place in leaves(graph.returns):
            names.append(_names.free(known[graph.made_by[place]], names))
        return names

    @property
    def input_shape(self) -> Any:
        """The shape of a batch, (None, 400), or those of several, as they were given."""
        graph = self._graph
        if graph is None:
            return super().input_shape
        shapes = [Shape((None, *shape)) for shape in graph.shapes[: graph.input_count]]
        if graph.keys is not None:
            return dict(zip(graph.keys, shapes, strict=True))
        return shapes if len(shapes) > 1 else shapes[0]

    @property
    def output_shape(self) -> Any:
        """The shape of what comes of a batch, (None, 1), or those of several, likewise."""
        graph = self._graph
        if graph is None:
            return super().output_shape
        return mapped(graph.returns, lambda place: _shape(graph, place))

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """Returns the layer of this name, or at this index.

        Raises:
            ValueError: There is none; the message lists the names.
        """
        known = _names.of(self.layers)
        if (name is None) == (index is None):
            raise ValueError(f"get_layer takes a name or an index, got {name!r} and {index!r}")
        if name is not None and name not in known:
            raise ValueError(f"no layer is named {name!r}. Layers: {', '.join(known)}")
        if index is not None and not -len(known) <= index < len(known):
            raise ValueError(f"index must be below {len(known)}, the number of layers, got {index}")
        return self.layers[index if index is not None else known.index(str(name))]

    def get_weights(self) -> list[np.ndarray[Any, Any]]:
        """Returns copies of all weights, layer by layer: kernel (in_features, units), bias, ..."""
        return _weights.get(self.layers)

    def set_weights(self, values: Sequence[Any]) -> None:
        """Takes what get_weights gives; if a shape or the number is wrong, nothing changes."""
        _weights.put(self.layers, values)

    def summary(
        self,
        print_fn: Callable[[str], Any] | None = None,
        line_length: int | None = None,
        expand_nested: Any = None,
        show_trainable: Any = None,
        positions: Any = None,
        layer_range: Any = None,
    ) -> None:
        """Prints layers, output shapes and parameters, and which engine trains the model.

        Args:
            print_fn: Gets the text, as one string, in place of the terminal.
            line_length: The width in characters; that of the terminal if None.
            expand_nested, show_trainable, positions, layer_range: Keras's, for tables that are not
                ours; they change nothing.
        """
        width = None if line_length is None else _checks.positive_int("line_length", line_length)
        _variables.settle(self)
        title = f'Model: "{self.name}"'
        trains = f"Training engine: {_choice.describe(self, self._recipe, self.sample_shape)}"
        _summary.show(title, self._rows(), [*_summary.totals(self), trains], print_fn, width)

    def _settle(self) -> None:
        """Also names the layers of a class of one's own, as a chain and a graph do theirs."""
        super()._settle()
        is_open = self._graph is None and not isinstance(self, nn.Sequential)
        if is_open and "_modules" in vars(self) and not _names.repeated(self.layers):
            _names.give(self.layers)

    def _rows(self) -> list[Any]:
        """The rows of the summary."""
        layers, names = self.layers, _names.of(self.layers)
        rows = _summary.rows(layers, names, Form(torch.device("cpu"), torch.float32))
        graph = self._graph
        if graph is None:
            return rows
        last = {number: _shape(graph, place) for place, number in enumerate(graph.made_by)}
        sources = [", ".join(names[i] for i in graph.sources(number)) for number in last]
        shown = [(kind, str(last[i]), count) for i, (kind, _, count) in enumerate(rows)]
        if self._chain is not None:
            return shown
        return [(*row, source) for row, source in zip(shown, sources, strict=True)]

    def _in_order(self, given: Any) -> list[Any]:
        """The graph's inputs, one after the other."""
        graph = self._needed()
        if isinstance(given, Mapping):
            names = self.input_names
            if set(given) != set(names):
                raise ValueError(
                    f"x must hold the inputs {', '.join(names)}, got {', '.join(map(str, given))}"
                )
            return [given[name] for name in names]
        if graph.input_count == 1 and not isinstance(given, (list, tuple)):
            return [given]
        if not isinstance(given, (list, tuple)) or len(given) != graph.input_count:
            got = len(given) if isinstance(given, (list, tuple)) else type(given).__name__
            raise ValueError(f"x must be a list of {graph.input_count} inputs, got {got}")
        return list(given)

    def _needed(self) -> Graph:
        if self._graph is None:
            raise AttributeError("the model was not made of a graph")
        return self._graph


def _shape(graph: Graph, place: Any) -> Any:
    """The shape of the batches at a place; of anything else, that itself."""
    return Shape((None, *graph.shapes[place])) if isinstance(place, int) else place
