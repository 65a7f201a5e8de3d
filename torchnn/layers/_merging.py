"""The layers that make one of several: sums and products entry by entry, rows side by side; and any
function as a layer."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from torchnn import _checks
from torchnn.layers._base import Layer

LEAST_NORM = 1e-6  # of what is divided by its norm: the square root of Keras's epsilon


class Merge(Layer):
    """The base of the layers that take a list of inputs, and do the same to all entries.

    Inputs with fewer axes get more of them behind that of the samples; axes of length 1 stretch.
    """

    is_of_two = False

    def __init__(self, *, name: str | None = None):
        super().__init__(name)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        inputs = self._checked(inputs)
        axes = max(each.ndim for each in inputs)
        level = [
            each.reshape(each.shape[0], *[1] * (axes - each.ndim), *each.shape[1:])
            for each in inputs
        ]
        try:
            return self._merged(level)
        except RuntimeError as error:
            shapes = ", ".join(str(tuple(each.shape)) for each in inputs)
            raise ValueError(f"{self._called()} cannot merge the shapes {shapes}") from error

    def _merged(self, inputs: list[Tensor]) -> Tensor:
        """What comes of inputs with as many axes each."""
        raise NotImplementedError

    def _checked(self, inputs: Any) -> list[Tensor]:
        """The inputs, if they are a list of as many as may be."""
        wanted = "exactly two" if self.is_of_two else "at least two"
        fits = isinstance(inputs, (list, tuple)) and (
            len(inputs) == 2 if self.is_of_two else len(inputs) >= 2
        )
        if not fits:
            got = len(inputs) if isinstance(inputs, (list, tuple)) else type(inputs).__name__
            raise ValueError(f"{self._called()} takes a list of {wanted} inputs, got {got}")
        return list(inputs)

    def extra_repr(self) -> str:
        return self._repr()


class Add(Merge):
    """a + b + ..."""

    def _merged(self, inputs: list[Tensor]) -> Tensor:
        return reduce(torch.add, inputs)


class Subtract(Merge):
    """a - b."""

    is_of_two = True

    def _merged(self, inputs: list[Tensor]) -> Tensor:
        return inputs[0] - inputs[1]


class Multiply(Merge):
    """a * b * ..., entry by entry."""

    def _merged(self, inputs: list[Tensor]) -> Tensor:
        return reduce(torch.mul, inputs)


class Average(Merge):
    """(a + b + ...) / n."""

    def _merged(self, inputs: list[Tensor]) -> Tensor:
        return reduce(torch.add, inputs) / len(inputs)


class Maximum(Merge):
    """max(a, b, ...), entry by entry."""

    def _merged(self, inputs: list[Tensor]) -> Tensor:
        return reduce(torch.maximum, inputs)


class Minimum(Merge):
    """min(a, b, ...), entry by entry."""

    def _merged(self, inputs: list[Tensor]) -> Tensor:
        return reduce(torch.minimum, inputs)


class Concatenate(Merge):
    """The inputs one after the other along an axis; in all others they are equally long.

    Args:
        axis: The axis; not 0, that of the samples.
        name: What messages and summaries call the layer.
    """

    def __init__(self, axis: int = -1, *, name: str | None = None):
        super().__init__(name=name)
        self.axis = _checks.integer("axis", axis)
        if axis == 0:
            raise ValueError("axis must not be 0, that of the samples")

    def _merged(self, inputs: list[Tensor]) -> Tensor:
        return torch.cat(inputs, self.axis)

    def extra_repr(self) -> str:
        return self._repr(*([] if self.axis == -1 else [self.axis]))


class Dot(Merge):
    """sum(a * b) over an axis of each, sample by sample: (N, d) and (N, d) become (N, 1).

    Of inputs with more axes, all others stay, those of a before those of b.

    Args:
        axes: The axis of both, or one for each.
        normalize: Whether each is divided by its norm over that axis: cosines come of it.
        name: What messages and summaries call the layer.
    """

    is_of_two = True

    def __init__(
        self, axes: int | Sequence[int], normalize: bool = False, *, name: str | None = None
    ):
        super().__init__(name=name)
        pair = axes if isinstance(axes, (list, tuple)) else [axes, axes]
        if len(pair) != 2:
            raise ValueError(f"axes must be an integer or two of them, got {axes!r}")
        self.axes = tuple(_checks.integer("each of axes", axis) for axis in pair)
        if 0 in self.axes:
            raise ValueError("axes must not be 0, that of the samples")
        self.normalize = _checks.truth("normalize", normalize)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        a, b = (
            self._last(each, axis)
            for each, axis in zip(self._checked(inputs), self.axes, strict=True)
        )
        if a.shape[-1] != b.shape[-1]:
            raise ValueError(
                f"{self._called()} expects axes of one length, got {a.shape[-1]} and {b.shape[-1]}"
            )
        if a.ndim == b.ndim == 2:
            return (a * b).sum(-1, keepdim=True)
        rows = a.flatten(1, -2) if a.ndim > 2 else a.unsqueeze(1)
        columns = b.flatten(1, -2) if b.ndim > 2 else b.unsqueeze(1)
        products = rows @ columns.transpose(1, 2)
        return products.reshape(a.shape[0], *a.shape[1:-1], *b.shape[1:-1])

    def _last(self, x: Tensor, axis: int) -> Tensor:
        """x with the axis at the end, normalized if need be."""
        if not -x.ndim < axis < x.ndim:
            raise ValueError(f"{self._called()} got shape {tuple(x.shape)}, without axis {axis}")
        x = x.movedim(axis, -1)
        return nn.functional.normalize(x, dim=-1, eps=LEAST_NORM) if self.normalize else x

    def extra_repr(self) -> str:
        a, b = self.axes
        return self._repr(a if a == b else self.axes, normalize=self.normalize or None)


class Lambda(Layer):
    """function(inputs), for any function of tensors; or an `nn.Module`, which then can be called on
    symbols.

    Args:
        function: Takes what the layer is called on: a tensor, or a list of them.
        output_shape: Taken and ignored, since the function itself shows it.
        arguments: Further arguments of the function, by their names.
        name: What messages and summaries call the layer.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        output_shape: Any = None,
        arguments: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
    ):
        super().__init__(name)
        if not callable(function) or isinstance(function, type):
            raise TypeError(f"function must be a function or a module, got {function!r}")
        self.function = function
        self.arguments = dict(arguments or {})

    def forward(self, inputs: Any) -> Any:
        return self.function(inputs, **self.arguments)

    def extra_repr(self) -> str:
        is_module = isinstance(self.function, nn.Module)
        called = getattr(self.function, "__name__", repr(self.function))
        return self._repr(*([] if is_module else [called]))


def add(inputs: Sequence[Any]) -> Any:
    """Returns what Add() makes of inputs."""
    return Add()(inputs)


def subtract(inputs: Sequence[Any]) -> Any:
    """Returns what Subtract() makes of inputs."""
    return Subtract()(inputs)


def multiply(inputs: Sequence[Any]) -> Any:
    """Returns what Multiply() makes of inputs."""
    return Multiply()(inputs)


def average(inputs: Sequence[Any]) -> Any:
    """Returns what Average() makes of inputs."""
    return Average()(inputs)


def maximum(inputs: Sequence[Any]) -> Any:
    """Returns what Maximum() makes of inputs."""
    return Maximum()(inputs)


def minimum(inputs: Sequence[Any]) -> Any:
    """Returns what Minimum() makes of inputs."""
    return Minimum()(inputs)


def concatenate(inputs: Sequence[Any], axis: int = -1) -> Any:
    """Returns what Concatenate(axis) makes of inputs."""
    return Concatenate(axis)(inputs)


def dot(inputs: Sequence[Any], axes: int | Sequence[int], normalize: bool = False) -> Any:
    """Returns what Dot(axes, normalize) makes of inputs."""
    return Dot(axes, normalize)(inputs)
