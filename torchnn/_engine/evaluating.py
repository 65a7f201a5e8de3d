"""A model as it is in evaluation mode, without a change to the model: other threads may be at work
with it, training it among them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from torchnn.activations import TORCH_MODULES
from torchnn.layers import Activation, Dense, Flatten, Input, Normalization, Rescaling
from torchnn.layers._values import mode

# These do the same in training and in evaluation, unless it is what they contain that does not.
STEADY = (
    *(Activation, Dense, Flatten, Input, Normalization, Rescaling),
    *(nn.Linear, nn.Identity, nn.Flatten, nn.Softmax, *TORCH_MODULES),
)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Gives the model as it would be after `model.eval()`.

    That is a model of views: each has all that its module has, but for training, which is False,
    and for its children, which are views in turn. What cannot be viewed is put into evaluation mode
    meanwhile: a module that calls itself and not whom it is called through (TorchScript,
    torch.compile, a forward of the module's own), or that becomes another when it is built.
    """
    switched: list[nn.Module] = []
    view = _view(model, {}, switched)
    before = [(module, module.training) for root in switched for module in root.modules()]
    for module in switched:
        module.eval()
    try:
        yield view
    finally:
        for module, training in before:
            module.training = training


def _view(module: nn.Module, known: dict[nn.Module, nn.Module], switched: list[nn.Module]) -> Any:
    """The module itself where nothing in it is in training mode, or what is does not matter."""
    if module in known:
        return known[module]
    known[module] = module  # should it contain itself
    if not _can_be_viewed(module):
        switched.append(module)
        return module
    children = {
        name: None if child is None else _view(child, known, switched)
        for name, child in module._modules.items()
    }
    is_same = all(view is module._modules[name] for name, view in children.items())
    if not is_same or (module.training and not _is_steady(module)):
        view = known[module] = object.__new__(_class_of(type(module)))  # type: ignore[arg-type]
        vars_of: Any = view
        vars_of.__dict__ = module.__dict__
        vars_of._views = children
        object.__setattr__(view, "_viewed", module)  # nn.Module would take it for a child
        return view
    return module


def _is_steady(module: nn.Module) -> bool:
    kind = type(module)
    return kind in STEADY or kind.forward in (nn.Sequential.forward, Activation.forward)


def _can_be_viewed(module: nn.Module) -> bool:
    own = vars(module)
    return (
        "forward" not in own
        and own.get("_compiled_call_impl") is None
        and not own.get("_keeps_lists")  # which would still hold the modules, not their views
        and not isinstance(module, (torch.jit.ScriptModule, LazyModuleMixin))
    )


class _Evaluating:
    """What a view has of its own, before all that it has of its module's class."""

    __slots__ = ("_viewed", "_views")

    _viewed: nn.Module
    _views: dict[str, nn.Module | None]
    training = property(lambda self: False)

    @property
    def _modules(self) -> dict[str, nn.Module | None]:
        return self._views

    def _in_mode(self, training: bool) -> AbstractContextManager[Any]:
        """For a call that says `training=True` or `training=False`."""
        return mode(self._viewed, True) if training else nullcontext(self)

    def __getattr__(self, name: str) -> Any:
        views = object.__getattribute__(self, "_views")
        if name in views:
            return views[name]
        return super().__getattr__(name)  # type: ignore[misc]  # nn.Module's: parameters, buffers


@lru_cache(maxsize=256)
def _class_of(kind: type[nn.Module]) -> type[nn.Module]:
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (_Evaluating, kind), names)
