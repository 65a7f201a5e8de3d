"""What a thing was made with, in plain values, and things made of these: get_config, from_config.

A config holds the arguments of __init__, each with the value of the attribute of that name. A thing
among the values is a dict of its own:

    {"module": "torchnn.layers", "class_name": "Dense", "config": {"units": 25, ...}}
"""

import inspect
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import takewhile
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Self = TypeVar("Self", bound="Configured")
CustomObjects = Mapping[str, Any] | None

# Where a thing is and what comes in say nothing of what it is: that is for build.
LAYER_OPTIONS = "Unpack[Options]"  # how their arguments are annotated
UNKNOWN = "unknown"  # arguments of this name are refused
PLACES = {"device", "in_features", "input_dim", "input_shape", "output_shape"}
NOTHING: Mapping[str, Any] = MappingProxyType({})
_custom_objects: ContextVar[Mapping[str, Any]] = ContextVar("custom_objects", default=NOTHING)
_is_trusted: ContextVar[bool] = ContextVar("is_trusted", default=True)
registered: dict[str, Any] = {}  # by utils.register_keras_serializable


class Configured:
    """What can tell its arguments, and can be made of them."""

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make such a thing, by their names, in plain values.

        Functions and modules have the names that they are known by here; those of one's own stay
        what they are.

        Raises:
            TypeError: An argument of a class of one's own is not kept as an attribute of its name.
        """
        return arguments(self)

    @classmethod
    def from_config(
        cls: type[Self], config: Mapping[str, Any], custom_objects: CustomObjects = None
    ) -> Self:
        """Returns a new thing of what get_config returns.

        Args:
            config: Arguments by their names.
            custom_objects: From names to classes of one's own, where their modules do not tell.

        Raises:
            ValueError: The config names a class that nobody knows.
        """
        with known(custom_objects):
            return make(cls, config)


def serialize(thing: Any) -> Any:
    """Returns a thing in plain values: the name of a function of ours, or class and config."""
    return plain(thing)


def deserializer(get: Callable[[Any], Any]) -> Callable[..., Any]:
    """Returns the function that makes things of one kind of what serialize returned.

    Args:
        get: Makes one of a name.
    """

    def deserialize(config: Any, custom_objects: CustomObjects = None) -> Any:
        """Returns what serialize was given, or what a name stands for.

        Args:
            config: A name, or a dict of class_name and config; without a module, or with one of
                Keras's, it is of this one.
            custom_objects: From names to classes and functions of one's own.

        Raises:
            ValueError: It names something that nobody knows.
        """
        with known(custom_objects):
            if isinstance(config, dict):
                if not {"class_name", "config"} <= config.keys():
                    got = ", ".join(map(repr, config)) or "none"
                    raise ValueError(
                        f"config must have the keys 'class_name' and 'config', got {got}"
                    )
                module = str(config.get("module") or "keras")
                is_kerass = module.partition(".")[0] == "keras"
                return found(config | {"module": _home(get) if is_kerass else module})
            own = known_objects().get(config) if isinstance(config, str) else None
            return get(config if own is None else own)

    return deserialize


@contextmanager
def known(custom_objects: CustomObjects) -> Iterator[None]:
    """Within it, these classes are found by their names."""
    token = _custom_objects.set({**_custom_objects.get(), **(custom_objects or {})})
    try:
        yield
    finally:
        _custom_objects.reset(token)


def known_objects() -> dict[str, Any]:
    """Returns the classes and functions that are found by their names."""
    return {**registered, **_custom_objects.get()}


@contextmanager
def untrusted() -> Iterator[None]:
    """Within it, a config names only classes of torchnn, of torch.nn and known ones."""
    token = _is_trusted.set(False)
    try:
        yield
    finally:
        _is_trusted.reset(token)


def arguments(thing: Any) -> dict[str, Any]:
    """Returns the arguments of a thing's __init__, each as plain makes it of the attribute."""
    return {p.name: plain(_value(thing, p)) for p in taken(type(thing)) if not _is_left(thing, p)}


def make(cls: type, config: Mapping[str, Any]) -> Any:
    """Returns a new object of a class, of its arguments in plain values."""
    values = {name: found(value) for name, value in config.items()}
    if isinstance(values.get("dtype"), str):
        values["dtype"] = getattr(torch, values["dtype"])
    if cls.__module__.startswith("torch.nn."):  # whose weights of classes and the like are tensors
        for name, parameter in inspect.signature(cls).parameters.items():
            if "Tensor" in str(parameter.annotation) and isinstance(values.get(name), list):
                values[name] = torch.tensor(values[name])
    return cls(**values)


def plain(value: Any) -> Any:
    """Returns a value as numbers, strings, lists and dicts, as far as these can tell it."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if type(value) is dict:
        return {key: plain(each) for key, each in value.items()}
    if type(value) is nn.ModuleList:  # what a layer makes of a list
        return [plain(each) for each in value]
    if type(value) is nn.ModuleDict:
        return {key: plain(each) for key, each in value.items()}
    if type(value) is nn.Sequential:
        modules = {name: plain(each) for name, each in value.named_children()}
        return {"module": "torch.nn", "class_name": "Sequential", "config": modules}
    if hasattr(type(value), "get_config") or isinstance(value, nn.Module):
        config = value.get_config() if hasattr(value, "get_config") else arguments(value)
        return {"module": _home(value), "class_name": type(value).__name__, "config": config}
    is_ours = callable(value) and _home(value).partition(".")[0] == "torchnn"
    return getattr(value, "__name__", value) if is_ours and not isinstance(value, type) else value


def found(value: Any) -> Any:
    """Returns what plain made a value of."""
    if type(value) in (list, tuple):
        return type(value)(map(found, value))
    if type(value) is not dict:
        return value
    if not {"class_name", "config"} <= value.keys():
        return {key: found(each) for key, each in value.items()}
    cls = _class(str(value.get("module")), value["class_name"])
    if cls is nn.Sequential:
        modules = {name: found(each) for name, each in value["config"].items()}
        return nn.Sequential(OrderedDict(modules))
    from_config: Any = getattr(cls, "from_config", None)
    return from_config(value["config"]) if from_config else make(cls, value["config"])


def taken(cls: type) -> Iterator[inspect.Parameter]:
    """Yields the arguments of __init__, and where it passes others on, those of the next one.

    Where a thing is, and what comes in, is not among them. What a layer takes of the options of all
    layers, it passes on to whoever has those.
    """
    wanted: set[str] = set()  # of all further classes, the one that takes these
    for each in cls.__mro__:
        if "__init__" not in vars(each):
            continue
        _, *own = inspect.signature(vars(each)["__init__"]).parameters.values()
        others = [p for p in own if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if not wanted <= {p.name for p in own}:
            continue
        yield from (p for p in own if p not in others and not _is_place(p))
        if not [p for p in others if p.kind == p.VAR_KEYWORD and p.name != UNKNOWN]:
            return
        if any(p.annotation == LAYER_OPTIONS for p in others):
            wanted = PLACES - {"device", "in_features"}


def _is_place(parameter: inspect.Parameter) -> bool:
    return parameter.name in PLACES and parameter.default is not parameter.empty


def _is_left(thing: Any, parameter: inspect.Parameter) -> bool:
    """Whether a module of PyTorch's does not keep an argument, which nobody gives any more."""
    is_torch = type(thing).__module__.startswith("torch.nn.") and parameter.name != "dtype"
    return is_torch and parameter.default is None and not hasattr(thing, parameter.name)


def _value(thing: Any, parameter: inspect.Parameter) -> Any:
    """The attribute that keeps an argument."""
    name = parameter.name
    if name == "dtype" and isinstance(thing, nn.Module) and not hasattr(thing, name):
        return next((p.dtype for p in thing.parameters()), None)
    try:
        value = getattr(thing, name)
    except AttributeError:
        raise TypeError(
            f"{type(thing).__name__} keeps no attribute {name!r} of the argument: "
            f"set self.{name} in __init__, or write a get_config of its own"
        ) from None
    if isinstance(parameter.default, bool) and (value is None or isinstance(value, Tensor)):
        return value is not None  # PyTorch's modules keep the bias itself as bias
    return value


def _home(value: Any) -> str:
    """The module that others import a class, an object's class or a function from."""
    module = str(getattr(value, "__module__", ""))
    if module.partition(".")[0] != "torchnn":
        return module
    return ".".join(takewhile(lambda part: part[0] != "_", module.split(".")))


def _class(module: str, name: str) -> type:
    """The class of this name, out of what has been imported: a config makes nothing else run."""
    is_open = _is_trusted.get() or f"{module}.".startswith(("torchnn.", "torch.nn."))
    place = sys.modules.get(module, object) if is_open else object
    cls = known_objects().get(name) or vars(place).get(name)
    if not isinstance(cls, type) or not (hasattr(cls, "from_config") or issubclass(cls, nn.Module)):
        raise ValueError(
            f"{module} has no class {name!r} for a config: import the module that has it, or pass "
            f"custom_objects={{{name!r}: ...}}"
            if is_open
            else f"nobody knows the class {name!r} of {module}: pass custom_objects={{{name!r}: "
            f"{name}}}, or decorate it with torchnn.utils.register_keras_serializable()"
        )
    return cls
