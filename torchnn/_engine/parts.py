"""Several tensors in the place of one: what models of several inputs or outputs take and return."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Parts:
    """Several tensors, row for row; loops cut and gather them as they do a tensor.

    Args:
        tensors: Shape (N, ...) each.
        names: The keys, if they came in a dict; None for a list.
    """

    def __init__(self, tensors: Iterable[Tensor], names: Sequence[str] | None = None) -> None:
        self.tensors, self.names = list(tensors), names

    @property
    def given(self) -> Any:
        """The tensors in a list or a dict, as the model takes or returns them."""
        if self.names is None:
            return self.tensors
        return dict(zip(self.names, self.tensors, strict=True))

    @property
    def shape(self) -> tuple[Any, ...]:
        """The number of rows, and of each tensor the axes of a row."""
        return (len(self), *(tuple(tensor.shape[1:]) for tensor in self.tensors))

    @property
    def device(self) -> torch.device:
        """Where they all are."""
        return self.tensors[0].device

    @property
    def dtype(self) -> torch.dtype:
        """What the first one is made of."""
        return self.tensors[0].dtype

    def part(self, output: int, name: str) -> Tensor:
        """The tensor of an output, by its name if they came in a dict."""
        is_named = self.names is not None and name in self.names
        return self.tensors[self.names.index(name) if is_named else output]  # type: ignore[union-attr]

    def map(self, function: Callable[[Tensor], Any]) -> "Parts":
        """Returns function of each."""
        return Parts(map(function, self.tensors), self.names)

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, rows: slice) -> "Parts":
        return self.map(lambda tensor: tensor[rows])

    def index_select(self, axis: int, rows: Tensor) -> "Parts":
        """Returns the rows of these numbers."""
        return self.map(lambda tensor: tensor.index_select(axis, rows))

    def detach(self) -> "Parts":
        """Returns them without their graph."""
        return self.map(Tensor.detach)


def taken(value: Any) -> Any:
    """A tensor as a model takes it, or parts in their list or dict."""
    return value.given if isinstance(value, Parts) else value


def returned(output: Any) -> Any:
    """What a model returned: a tensor as it is, a list or a dict of them as parts."""
    if isinstance(output, Tensor) or not output:
        return output
    names = list(output) if isinstance(output, Mapping) else None
    tensors = output.values() if isinstance(output, Mapping) else output
    is_several = isinstance(output, (Mapping, list, tuple))
    if not is_several or not all(isinstance(tensor, Tensor) for tensor in tensors):
        return output
    return Parts(tensors, names)


def cat(values: Sequence[Any]) -> Any:
    """All rows of tensors, or of parts, one after the other."""
    if isinstance(values[0], Tensor):
        return torch.cat(list(values))
    together = zip(*(parts.tensors for parts in values), strict=True)
    return Parts(map(torch.cat, together), values[0].names)
