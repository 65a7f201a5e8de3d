"""A graph of modules: what leads from some symbols to others, as a list of steps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.jit import is_tracing  # type: ignore[attr-defined]

from torchnn._config import found, known_objects, plain
from torchnn._files import tree
from torchnn.layers._symbols import Call, Function, Symbolic, apply
from torchnn.layers._values import leaves, mapped
from torchnn.layers._weightless import Input

_PLACE = "$place"  # the key of a place in a config


class Place(int):
    """Where a value is in the list of all values of a run."""


class Step(NamedTuple):
    """A call of a module, the number of which this is; places stand for what is computed."""

    module: int
    inputs: list[Any]
    options: dict[str, Any]
    outputs: int  # how many values it returns


def has_graph(module: Any) -> bool:
    """Whether a module is a model that was made of a graph."""
    return isinstance(getattr(module, "_graph", None), Graph)


class Graph:
    """The steps from inputs to outputs.

    Args:
        inputs: A symbol, or several in a list, a tuple or a dict: an Input each, or what a layer
            returned.
        outputs: What to return, likewise.

    Attributes:
        modules: Those called, each once: first one for each input, then in the order of the calls.
            A copy has none: they are the model's.
        steps: The calls.
        returns: outputs, with places for symbols.
        input_count: The number of inputs, which have the first places.
        keys: What a dict of inputs calls them, or None.
        shapes: The axes of a sample of the value at each place.

    Raises:
        TypeError: An input or output is no symbol.
        ValueError: An output depends on an Input that is none of inputs, or one is there twice.
    """

    def __init__(self, inputs: Any, outputs: Any) -> None:
        sources, results = _symbols("inputs", inputs), _symbols("outputs", outputs)
        places = {_key(source): Place(i) for i, source in enumerate(sources)}
        if len(places) < len(sources):
            raise ValueError("inputs must differ from each other, got one of them twice")
        self.keys = list(inputs) if isinstance(inputs, dict) else None
        self.input_count = len(sources)
        self.modules: list[nn.Module] = [
            each if isinstance(each, Input) else Input(each.sample_shape) for each in sources
        ]
        self.steps: list[Step] = []
        self.shapes = [source.sample_shape for source in sources]
        for call in _calls_between(sources, results):
            self._add(call, places)
        self.returns = mapped(_unpacked(outputs), partial(_placed, places))
        self._symbols: tuple[Any, Any] | None = inputs, outputs

    def _add(self, call: Call, places: dict[Any, Place]) -> None:
        """Makes a step of a call."""
        if not any(module is call.module for module in self.modules):
            self.modules.append(call.module)
        number = [module is call.module for module in self.modules].index(True)
        placed = partial(_placed, places)
        self.steps.append(
            Step(
                number, mapped(call.inputs, placed), mapped(call.options, placed), len(call.shapes)
            )
        )
        for index, shape in enumerate(call.shapes):
            places.setdefault((call.number, index), Place(len(self.shapes)))
            self.shapes.append(shape)

    def run(
        self,
        modules: Sequence[nn.Module],
        inputs: Iterable[Any],
        call: Callable[..., Any] = lambda module, inputs, options: module(*inputs, **options),
    ) -> Any:
        """Returns what comes of inputs, one value for each.

        Args:
            modules: The graph's, or others in their places.
            inputs: Tensors, in order.
            call: How to call a module.
        """
        values = list(inputs)
        if isinstance(values[0], Tensor) and not is_tracing():  # which follows no checks
            for module, value in zip(modules, values):  # noqa: B905 (there are more modules)
                module(value)

        def found(value: Any) -> Any:
            return values[value] if type(value) is Place else value

        for step in self.steps:
            arguments = mapped(step.inputs, found), mapped(step.options, found)
            output = call(modules[step.module], *arguments)
            values += [each for each in leaves(output) if each is output or _is_value(each)]
        return mapped(self.returns, found)

    @property
    def made_by(self) -> list[int]:
        """The number of the module that returns the value at each place."""
        numbers = [[step.module] * step.outputs for step in self.steps]
        return sum(numbers, list(range(self.input_count)))

    def chain(self) -> list[int] | None:
        """The numbers of the modules if each is called once, on what the one before it returned,
        and the last one's output is returned; or None."""
        called = [step.module for step in self.steps]
        is_chain = self.input_count == 1 and len(set(called)) == len(called)
        is_chain = is_chain and len(self.shapes) == len(called) + 1 and self.returns == len(called)
        links = [step.inputs == [place] for place, step in enumerate(self.steps)]
        has_options = any(step.options for step in self.steps)
        return called if is_chain and all(links) and not has_options else None

    def head(self) -> int | None:
        """The number of the module that is called once, and for the one output alone; or None."""
        last = self.steps[-1] if self.steps else None
        if last is None or last.outputs != 1 or self.returns != len(self.shapes) - 1:
            return None
        is_called_once = [step.module for step in self.steps].count(last.module) == 1
        return last.module if is_called_once else None

    def sources(self, module: int) -> list[int]:
        """The numbers of the modules whose outputs a module is called on."""
        places = (leaf for s in self.steps if s.module == module for leaf in leaves([*s[1:3]]))
        return list(dict.fromkeys(self.made_by[p] for p in places if type(p) is Place))

    def symbols(self, modules: Sequence[Any]) -> tuple[Any, Any]:
        """Returns inputs and outputs as they were given; of a copy, what would make it again."""
        if self._symbols is None:
            inputs: Any = list(modules[: self.input_count])
            outputs = self.run(modules, inputs, apply)
            if self.keys is not None:
                inputs = dict(zip(self.keys, inputs, strict=True))
            self._symbols = inputs if len(inputs) > 1 else inputs[0], outputs
        return self._symbols

    def to_plain(self, modules: Sequence[nn.Module]) -> dict[str, Any]:
        """Returns the calls and the modules in plain values, for of_plain.

        Args:
            modules: The graph's.

        Raises:
            TypeError: A function or a constant in it is of a kind that no name tells.
        """
        constants: dict[str, Tensor] = {}

        def told(value: Any) -> Any:
            placed = mapped(value, lambda leaf: {_PLACE: leaf} if type(leaf) is Place else leaf)
            return tree.encode(placed, constants, "constant")

        layers = [
            {"function": told(each.function)} if isinstance(each, Function) else plain(each)
            for each in modules
        ]
        steps = [[s.module, told(list(s.inputs)), told(s.options), s.outputs] for s in self.steps]
        config = {"layers": layers, "steps": steps, "outputs": told(self.returns)}
        values = {
            name: {"values": plain(t), "dtype": plain(t.dtype)} for name, t in constants.items()
        }
        return {**config, "inputs": self.keys or self.input_count, "constants": values}

    @classmethod
    def of_plain(cls, config: Mapping[str, Any]) -> tuple[Any, Any]:
        """Returns the inputs and the outputs of a new graph of what to_plain returns."""
        constants = {
            name: torch.tensor(each["values"], dtype=getattr(torch, each["dtype"]))
            for name, each in config["constants"].items()
        }

        def made(value: Any) -> Any:
            return _in_place(tree.decode(value, constants, known_objects()))

        modules = [
            Function(made(each["function"])) if "function" in each else found(each)
            for each in config["layers"]
        ]
        inputs, graph = config["inputs"], cls.__new__(cls)
        graph.keys = inputs if isinstance(inputs, list) else None
        graph.input_count = len(inputs) if isinstance(inputs, list) else inputs
        graph.steps = [Step(m, made(i), made(o), count) for m, i, o, count in config["steps"]]
        graph.returns, graph._symbols = made(config["outputs"]), None
        return graph.symbols(modules)

    def __getstate__(self) -> dict[str, Any]:
        # Symbols and calls lead from one to the next: too deep for copy and pickle.
        return {**vars(self), "_symbols": None, "modules": []}


def _in_place(value: Any) -> Any:
    """A value with places where to_plain has said so."""
    if isinstance(value, dict) and set(value) == {_PLACE}:
        return Place(value[_PLACE])
    if isinstance(value, dict):
        return {key: _in_place(each) for key, each in value.items()}
    return type(value)(map(_in_place, value)) if type(value) in (list, tuple) else value


def _calls_between(sources: list[Any], results: list[Any]) -> list[Call]:
    """The calls that lead from sources to results, in their order."""
    given = set(map(_key, sources))
    found: dict[int, Call] = {}
    waiting = list(results)
    while waiting:
        symbol = waiting.pop()
        if _key(symbol) in given:
            continue
        call = symbol.made_by
        if call is None:
            raise ValueError(f"outputs depend on {symbol!r}, which is none of inputs")
        if call.number not in found:
            found[call.number] = call
            waiting += [
                leaf for leaf in leaves([call.inputs, call.options]) if isinstance(leaf, Symbolic)
            ]
    return [found[number] for number in sorted(found)]


def _symbols(name: str, value: Any) -> list[Any]:
    """The symbols in a value, which holds nothing else."""
    found = list(leaves(value))
    wrong = [each for each in found if not isinstance(each, Symbolic)]
    if wrong or not found:
        raise TypeError(
            f"{name} must be an Input or what layers return for one, or several of these in a list "
            f"or a dict; got {wrong[0] if wrong else value!r}"
        )
    return found


def _is_value(value: Any) -> bool:
    """Whether something in a list, a tuple or a dict that a module returned has a place."""
    return isinstance(value, (Tensor, Symbolic))


def _placed(places: dict[Any, Place], value: Any) -> Any:
    """A symbol's place; anything else as it is."""
    return places[_key(value)] if isinstance(value, Symbolic) else value


def _key(symbol: Any) -> Any:
    """What symbols are told apart by."""
    return symbol if symbol.made_by is None else (symbol.made_by.number, symbol.index)


def _unpacked(value: Any) -> Any:
    """The one in a list of one, or the value itself."""
    is_one = isinstance(value, (list, tuple)) and len(value) == 1
    return value[0] if is_one else value
