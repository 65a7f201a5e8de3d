"""Calls of layers and models: on tensors as PyTorch has them, on arrays as Keras does."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from operator import is_
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from torchnn import _checks


class Array(np.ndarray[Any, Any]):
    """What a call on an array returns: an array, with the method that makes one of a tensor.

    It is no tensor, since NumPy's functions call the methods of what they get, with arguments that
    PyTorch's do not take: np.max(a, axis=1) calls a.max(axis=1, out=None).
    """

    def numpy(self) -> np.ndarray[Any, Any]:
        """Returns the same numbers as a plain array."""
        return self.view(np.ndarray)

    if not TYPE_CHECKING:  # which would take every name for one that is there

        def __getattr__(self, name: str) -> Any:
            hint = ", a tensor has: call the layer or model on a tensor to get one"
            raise AttributeError(
                f"an array has no attribute {name!r}{hint if hasattr(Tensor, name) else ''}"
            )


class Called(nn.Module):
    """An `nn.Module` that can be called on arrays, too.

    Of arrays, or lists of numbers, it returns arrays. It gets them as tensors of its parameters'
    dtype and on their device, is in evaluation mode meanwhile, and no graph is kept for gradients.

    In any call, `training=True` or `training=False` puts it into that mode meanwhile.
    """

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        is_plain = inputs and isinstance(inputs[0], Tensor) and "training" not in options
        if is_plain and self._compiled_call_impl is None:
            return self._call_impl(*inputs, **options)  # nn.Module's, without a frame more
        return _call(self, inputs, options)

    def _in_mode(self, training: bool) -> AbstractContextManager[nn.Module]:
        """Gives the module as it is in training mode, or in evaluation mode."""
        return mode(self, training)


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


def _call(module: Called, inputs: Any, options: dict[str, Any]) -> Any:
    """Calls a module on something else than tensors alone, or in a mode."""
    training = options.get("training")
    if training is not None:
        training = _checks.truth("training", training)
    if "training" in options and not _takes_training(module):
        del options["training"]
    given = taken = [*inputs, *options.values()]
    if not torch.compiler.is_compiling():  # which takes tensors alone
        taken = [_mapped(each, lambda value: _as_tensor(value, module)) for each in given]
    is_of_arrays = not all(map(is_, taken, given)) and not any(map(_has_tensors, given))
    inputs, options = taken[: len(inputs)], dict(zip(options, taken[len(inputs) :], strict=True))
    keeps_mode = training is None and not is_of_arrays
    with (
        nullcontext(module) if keeps_mode else module._in_mode(bool(training)) as called,
        torch.no_grad() if is_of_arrays else nullcontext(),
    ):
        output = nn.Module.__call__(called, *inputs, **options)
    return _mapped(output, _as_array) if is_of_arrays else output


def _takes_training(module: nn.Module) -> bool:
    """Whether a module has an argument of that name, as Keras's `call` may have."""
    return "training" in inspect.signature(module.forward).parameters


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """Returns function of a value, or of what its lists, tuples and dicts hold; the value itself
    where that is the same."""
    changed = function(value)
    if changed is not value or type(value) not in (list, tuple, dict):
        return changed
    parts = list(value.values() if isinstance(value, dict) else value)
    made = [_mapped(part, function) for part in parts]
    if all(map(is_, made, parts)):
        return value
    return dict(zip(value, made, strict=True)) if isinstance(value, dict) else type(value)(made)


def _has_tensors(value: Any) -> bool:
    if type(value) in (list, tuple, dict):
        return any(map(_has_tensors, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Tensor)


def _as_tensor(value: Any, module: nn.Module) -> Any:
    """An array or a list of numbers as what the module computes with; anything else as it is."""
    if not _is_array(value):
        return value
    own = chain(module.parameters(), module.buffers())
    like = next((t for t in own if t.is_floating_point()), torch.empty(0, device="cpu"))
    return _checks.tensor("x", value).to(like.device, like.dtype)


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


def _as_array(value: Any) -> Any:
    """A tensor as an array; bfloat16, which NumPy lacks, becomes float32."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy().view(Array)
