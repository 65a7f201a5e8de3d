"""Calls of layers and models: on tensors as in PyTorch, on arrays and symbols as in Keras."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial, wraps
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from torchnn import _array, _checks
from torchnn.layers._symbols import Symbolic, apply
from torchnn.layers._values import as_array, as_tensor, has_any, mapped, mode


class Called(nn.Module):
    """An `nn.Module` that can be called on arrays and on symbols, too.

    Of arrays, or lists of numbers, it returns arrays. It gets them as tensors of its parameters'
    dtype and on their device, is in evaluation mode meanwhile, and no graph is kept for gradients.
    While a `torchnn.tf.GradientTape` is open it is, and what is returned are tensors.

    In any call, `training=True` or `training=False` puts it into that mode meanwhile.

    A class may call its forward `call`, as Keras does; an argument `training` of it is the mode. In
    it, `super().call` is the forward of the class that it extends:

        class MonteCarloDropout(Dropout):
            def call(self, inputs):
                return super().call(inputs, training=True)
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "call" in vars(cls) and "forward" not in vars(cls):
            cls.forward = _forward(vars(cls)["call"])

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        is_plain = inputs and isinstance(inputs[0], Tensor) and "training" not in options
        if is_plain and self._compiled_call_impl is None:
            return self._call_impl(*inputs, **options)  # nn.Module's, without a frame more
        return _call(self, inputs, options)

    def call(self, *inputs: Any, **options: Any) -> Any:
        """Returns what forward does, in a class whose own it is not `call`: the class that those
        with a `call` extend.

        Args:
            inputs: Those of forward.
            options: Those of forward, and `training`, for another mode than the present one.
        """
        return _call_extended(self, inputs, options)

    def _in_mode(self, training: bool) -> AbstractContextManager[nn.Module]:
        """Gives the module as it is in training mode, or in evaluation mode."""
        return mode(self, training)


def _call(module: Called, inputs: Any, options: dict[str, Any]) -> Any:
    """Calls a module on something else than tensors alone, or in a mode."""
    if has_any((*inputs, options), Symbolic):
        return apply(module, inputs, options)
    training = options.get("training")
    if training is not None:
        training = _checks.truth("training", training)
    if "training" in options and not _takes_training(module.forward):
        del options["training"]
    given = taken = [*inputs, *options.values()]
    if not torch.compiler.is_compiling():  # which takes tensors alone
        taken = [mapped(each, lambda value: as_tensor(value, module)) for each in given]
    is_of_arrays = not all(map(is_, taken, given)) and not has_any(given, Tensor)
    inputs, options = taken[: len(inputs)], dict(zip(options, taken[len(inputs) :], strict=True))
    keeps_mode = training is None and not is_of_arrays
    recorder = _array.recorder.get() if is_of_arrays else None
    with (
        nullcontext(module) if keeps_mode else module._in_mode(bool(training)) as called,
        nullcontext() if recorder or not is_of_arrays else torch.no_grad(),
    ):
        output = nn.Module.__call__(called, *inputs, **options)
    return mapped(output, partial(as_array, recorder)) if is_of_arrays else output


def _call_extended(module: Called, inputs: Any, options: dict[str, Any]) -> Any:
    """Runs the forward of the class that the classes with a `call` of their own extend."""
    training = options.pop("training", None)
    if training is not None:
        training = _checks.truth("training", training)
    is_as_asked = training in (None, module.training)
    with nullcontext(module) if is_as_asked else module._in_mode(bool(training)) as called:
        kinds = [kind for kind in type(called).__mro__ if "call" in vars(kind)]
        last = kinds[-2] if len(kinds) > 1 else None  # before Called
        extended: Any = called if last is None else super(last, called)
        if training is not None and _takes_training(extended.forward):
            options["training"] = training
        return extended.forward(*inputs, **options)


def _forward(call: Callable[..., Any]) -> Callable[..., Any]:
    """A class's `call` as its forward."""
    if not _takes_training(call):
        return call

    @wraps(call)
    def forward(self: Any, *inputs: Any, training: bool | None = None, **options: Any) -> Any:
        return call(
            self, *inputs, training=self.training if training is None else training, **options
        )

    return forward


def _takes_training(function: Callable[..., Any]) -> bool:
    return "training" in inspect.signature(function).parameters
