"""Symbols: they stand for tensors that are still to come while a graph of modules is made of them.

    inputs = Input((8,))
    outputs = Dense(1)(Dense(25, "relu")(inputs))

A module that is called on symbols returns symbols, each of which knows the call that it came from.
The graph is nothing but that.
"""

import operator
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from torchnn.layers._values import first_float, has_any, mapped, mode

ROWS = 2  # of the samples that show which shapes come out
_numbers = count()
# Neither a module nor its last call keeps the other: what nobody else knows is freed.
_latest: "WeakKeyDictionary[nn.Module, ref[Call]]" = WeakKeyDictionary()


class Shape(tuple[int | None, ...]):
    """A batch's shape, None for the samples."""

    __slots__ = ()

    def as_list(self) -> list[int | None]:
        """Returns the same as a list."""
        return list(self)


class Symbolic:
    """What takes the place of a tensor: layers and PyTorch's functions and operators take it.

    Attributes:
        sample_shape: The axes of a sample, (25,) for a tensor of shape (None, 25).
        dtype: What the tensor is made of.
        made_by: The call that it comes from; None for an input.
    """

    sample_shape: tuple[int, ...]
    dtype: torch.dtype
    made_by: "Call | None" = None
    __iter__ = None  # though it has entries

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, inputs: Any = (), options: Any = None
    ) -> Any:
        if has_any((*inputs, options), nn.Parameter):
            raise TypeError(
                f"{getattr(function, '__name__', function)} got a symbol and a parameter, of which "
                "a model would not know: call a module of PyTorch on a symbol by way of Lambda, "
                "as in Lambda(nn.Linear(3, 4))(x)"
            )
        return apply(Function(function), inputs, options or {})

    @property
    def shape(self) -> Shape:
        """The shape, with None for the number of samples."""
        return Shape((None, *self.sample_shape))

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __bool__(self) -> bool:
        raise TypeError("a symbol has no value yet: it cannot decide what a model is made of")

    def __getitem__(self, index: Any) -> Any:
        return _applied(operator.getitem, self, index)

    def __add__(self, other: Any) -> Any:
        return _applied(operator.add, self, other)

    def __radd__(self, other: Any) -> Any:
        return _applied(operator.add, other, self)

    def __sub__(self, other: Any) -> Any:
        return _applied(operator.sub, self, other)

    def __rsub__(self, other: Any) -> Any:
        return _applied(operator.sub, other, self)

    def __mul__(self, other: Any) -> Any:
        return _applied(operator.mul, self, other)

    def __rmul__(self, other: Any) -> Any:
        return _applied(operator.mul, other, self)

    def __truediv__(self, other: Any) -> Any:
        return _applied(operator.truediv, self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _applied(operator.truediv, other, self)

    def __pow__(self, other: Any) -> Any:
        return _applied(operator.pow, self, other)

    def __matmul__(self, other: Any) -> Any:
        return _applied(operator.matmul, self, other)

    def __neg__(self) -> Any:
        return _applied(operator.neg, self)

    def __abs__(self) -> Any:
        return _applied(operator.abs, self)


class Symbol(Symbolic):
    """What a call on symbols returns, or a part of it."""

    def __init__(self, value: Tensor, call: "Call") -> None:
        self.sample_shape, self.dtype = tuple(value.shape[1:]), value.dtype
        self.made_by: Call = call
        self.index = len(call.shapes)  # among all that the call has returned

    def __getattr__(self, name: str) -> Any:
        method = None if name.startswith("_") else getattr(Tensor, name, None)
        if not callable(method):
            raise AttributeError(f"a symbol has no attribute {name!r}")
        return lambda *inputs, **options: apply(Function(method), (self, *inputs), options)

    def __repr__(self) -> str:
        return f"<symbol of shape {self.shape}, from {type(self.made_by.module).__name__}>"


class Call:
    """A call of a module on symbols.

    Attributes:
        number: Larger than those of the calls that it depends on.
        shapes: The axes of a sample of each symbol that came of it.
    """

    def __init__(
        self, module: nn.Module, inputs: list[Any], options: dict[str, Any], output: Any
    ) -> None:
        self.module, self.inputs, self.options = module, inputs, options
        self.output = mapped(output, _only_shape)
        self.number = next(_numbers)
        self.shapes: list[tuple[int, ...]] = []

    def outputs(self) -> Any:
        """Returns what came out, with symbols for tensors; equal ones each time."""
        self.shapes.clear()
        return mapped(self.output, self.symbol)

    def symbol(self, value: Any) -> Any:
        """A tensor that came out as a symbol."""
        if not isinstance(value, Tensor):
            return value
        if value.shape[:1] != (ROWS,):
            raise ValueError(
                f"{type(self.module).__name__} must return one row a sample to be called on "
                f"symbols, got shape {tuple(value.shape)} for {ROWS} samples"
            )
        symbol = Symbol(value, self)
        self.shapes.append(symbol.sample_shape)
        return symbol


class Function(nn.Module):
    """A function of PyTorch that was called on symbols."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any, **options: Any) -> Any:
        output = self.function(*inputs, **options)
        return tuple(output) if isinstance(output, tuple) else output  # not one of named fields

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", str(self.function))


def apply(module: nn.Module, inputs: Any, options: dict[str, Any]) -> Any:
    """Returns what a module makes of symbols. Zeros in their shapes show it, and build the module.

    Raises:
        ValueError: It returns something else than one row a sample.
        TypeError: It returns no tensor.
    """
    like = first_float(module)

    def example(value: Any) -> Any:
        if not isinstance(value, Symbolic):
            return value
        dtype = like.dtype if value.dtype.is_floating_point else value.dtype
        return torch.zeros(ROWS, *value.sample_shape, dtype=dtype, device=like.device)

    with mode(module, training=False), torch.no_grad():
        without_mode = {name: each for name, each in options.items() if name != "training"}
        examples = mapped(list(inputs), example), mapped(without_mode, example)
        output = nn.Module.__call__(module, *examples[0], **examples[1])
    call = Call(module, list(inputs), options, output)
    symbols = call.outputs()
    _latest[module] = ref(call)
    if symbols is output:
        raise TypeError(f"{type(module).__name__} must return tensors, got {type(output).__name__}")
    return symbols


def latest(module: nn.Module) -> tuple[Any, Any] | None:
    """Returns what a module was last called on, and what came of it, as symbols: Keras's `input`
    and `output` of a layer. None if there are none, or all that was made of them is gone."""
    call = _latest.get(module, lambda: None)()
    if call is None:
        return None
    inputs = call.inputs[0] if len(call.inputs) == 1 else call.inputs
    return inputs, call.outputs()


def _only_shape(value: Any) -> Any:
    """A tensor without memory in the place of one."""
    return value.to("meta") if isinstance(value, Tensor) else value


def _applied(function: Any, *inputs: Any) -> Any:
    return Symbolic.__torch_function__(function, (), inputs)
