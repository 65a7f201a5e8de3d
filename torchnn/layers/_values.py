"""What goes into modules and comes out of them: tensors and arrays, in lists, tuples and dicts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchnn import _array, _checks


def mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """Returns function of a value, or of what its lists, tuples and dicts hold; the value itself
    where that is the same."""
    changed = function(value)
    if changed is not value or type(value) not in (list, tuple, dict):
        return changed
    parts = list(value.values() if isinstance(value, dict) else value)
    made = [mapped(part, function) for part in parts]
    if all(map(is_, made, parts)):
        return value
    return dict(zip(value, made, strict=True)) if isinstance(value, dict) else type(value)(made)


def leaves(value: Any) -> Iterator[Any]:
    """Yields what lists, tuples and dicts hold in the end; of anything else, itself."""
    if type(value) not in (list, tuple, dict):
        yield value
        return
    for part in value.values() if isinstance(value, dict) else value:
        yield from leaves(part)


def has_any(value: Any, kind: type) -> bool:
    """Whether a value is of a kind, or something in its lists, tuples and dicts is."""
    return any(isinstance(leaf, kind) for leaf in leaves(value))


def as_tensor(value: Any, module: nn.Module) -> Any:
    """An array or a list of numbers as what the module computes with; anything else as it is."""
    if not _is_array(value):
        return value
    like = first_float(module)
    return _checks.tensor("x", value).to(like.device, like.dtype)


def first_float(module: nn.Module) -> Tensor:
    """Of a module's parameters and buffers, the one that tells what it computes with, and where."""
    own = chain(module.parameters(), module.buffers())
    return next((t for t in own if t.is_floating_point()), torch.empty(0, device="cpu"))


def _is_array(value: Any) -> bool:
    if type(value) in (list, tuple):
        return len(value) > 0 and _is_number(value[0])
    # Of the class: torch.fx's proxies have every attribute.
    return hasattr(type(value), "__array__") and not isinstance(value, Tensor)


def _is_number(value: Any) -> bool:
    """Whether a value is a number, or a list of them."""
    if type(value) in (list, tuple):
        return len(value) > 0 and _is_number(value[0])
    return isinstance(value, (int, float, np.generic))


def as_array(recorder: Callable[[Tensor], Tensor] | None, value: Any) -> Any:
    """A tensor as an array, or as what the recorder makes of it; anything else as it is."""
    return (recorder or _array.as_array)(value) if isinstance(value, Tensor) else value


@contextmanager
def mode(module: nn.Module, training: bool) -> Iterator[nn.Module]:
    """Puts every module into training or evaluation mode, and back afterwards."""
    before = [(each, each.training) for each in module.modules()]
    try:
        module.train(training)
        yield module
    finally:
        for each, flag in before:
            each.training = flag
