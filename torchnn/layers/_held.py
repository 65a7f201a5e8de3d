"""Modules that an attribute holds in a list, a tuple or a dict: PyTorch sees none of them there."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

KINDS: tuple[type, ...] = (list, tuple, dict)


def registered(owner: nn.Module, name: str, value: Any) -> Any:
    """Returns what an attribute must be for PyTorch to know the modules in a list, tuple or dict.

    That is an `nn.ModuleList` or an `nn.ModuleDict`, of others where they are nested. The value
    stays what it is if it holds no module, or none that the owner does not know anyway.

    Raises:
        TypeError: It holds other things beside modules that may learn, or the owner is a model
            that does not run them.
    """
    modules = modules_in(value)
    if not modules or _is_known(owner, name, modules):
        return value
    if isinstance(owner, nn.Sequential) or getattr(owner, "_graph", None) is not None:
        raise TypeError(
            f"{name} of {type(owner).__name__} holds layers that are not among those that the "
            "model runs, and would never be trained: write a Model with a call of its own"
        )
    if _is_whole(value):
        return _container(value)
    if any(_may_learn(module) for module in modules):
        raise TypeError(
            f"{name} of {type(owner).__name__} holds layers and other things, so the layers would "
            "never be trained: keep them apart, all layers in an nn.ModuleList or a list of their "
            "own, or in a dict with strings for keys"
        )
    return value


def modules_in(value: Any) -> list[nn.Module]:
    """Returns the modules in lists, tuples and dicts, however deep."""
    found: list[nn.Module] = []  # in words that torch.compile can trace
    seen: set[int] = set()
    queue = [value]
    for each in queue:  # which grows meanwhile
        if isinstance(each, nn.Module):
            found.append(each)
        elif type(each) in KINDS and id(each) not in seen:
            seen.add(id(each))
            queue.extend(_items(each))
    return found


def flat(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Yields the modules, and those in containers, which run nothing, in place of these."""
    for module in modules:
        if isinstance(module, nn.ModuleList):
            yield from flat(module)
        elif isinstance(module, nn.ModuleDict):
            yield from flat(module.values())
        else:
            yield module


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _is_known(owner: nn.Module, name: str, modules: list[nn.Module]) -> bool:
    """Whether the owner has all the modules under other names, or they have the owner."""
    if any(owner in module.modules() for module in modules):
        return True
    return name not in owner._modules and set(modules) <= set(owner.modules())


def _is_whole(value: Any) -> bool:
    """Whether a container can hold all that is in it."""
    if type(value) is dict and not all(isinstance(key, str) for key in value):
        return False
    return isinstance(value, nn.Module) or (
        type(value) in KINDS and all(map(_is_whole, _items(value)))
    )


def _container(value: Any) -> nn.Module:
    if isinstance(value, nn.Module):
        return value
    if isinstance(value, dict):
        return nn.ModuleDict({key: _container(each) for key, each in value.items()})
    return nn.ModuleList(map(_container, value))


def _may_learn(module: nn.Module) -> bool:
    """Whether it has parameters, or is a layer of a kind that may get some."""
    is_ours = hasattr(module, "trainable_weights")
    return is_ours or any(True for _ in module.parameters())
