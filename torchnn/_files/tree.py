"""Nested values as JSON beside named tensors, and back.

What JSON lacks is an object with the key "$", which says what it stands for:

    {"$": "tuple", "items": [3, 4]}          {"$": "tensor", "key": "/optimizer/0"}

Functions and classes are told by their names alone. Those of PyTorch that compute tensors, and its
optimizers, are found again by these; any other one only among the objects that the reader gives.
"""

import operator
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

TAG = "$"
Objects = Mapping[str, Any]


def encode(value: Any, tensors: dict[str, Tensor], prefix: str) -> Any:
    """Returns a value as what JSON can hold.

    Args:
        value: Numbers, strings, tensors, arrays, functions, and lists, tuples and dicts of these.
        tensors: Takes the tensors in it, each under a name of its own.
        prefix: What the names begin with.

    Raises:
        TypeError: There is something else in it.
    """
    keys = (f"{prefix}/{number}" for number in count())

    def put(value: Any, where: str) -> Any:
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (np.generic, torch.Size)):
            return put(value.item() if isinstance(value, np.generic) else tuple(value), where)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):  # JSON has no NaN
            finite = value - value == 0
            return float(value) if finite else {TAG: "float", "value": str(float(value))}
        if isinstance(value, list):
            return [put(each, f"{where}[{i}]") for i, each in enumerate(value)]
        if type(value) is tuple:
            return {TAG: "tuple", "items": put(list(value), where)}
        if isinstance(value, dict):
            if all(isinstance(key, str) for key in value) and TAG not in value:
                return {key: put(each, f"{where}[{key!r}]") for key, each in value.items()}
            return {TAG: "dict", "items": [put(list(pair), where) for pair in value.items()]}
        if isinstance(value, (Tensor, np.ndarray)):
            key = next(keys)
            tensors[key] = value if isinstance(value, Tensor) else torch.from_numpy(value)
            return {TAG: "tensor" if isinstance(value, Tensor) else "array", "key": key}
        if isinstance(value, torch.dtype):
            return {TAG: "dtype", "name": str(value).removeprefix("torch.")}
        if isinstance(value, slice):
            items = put([value.start, value.stop, value.step], where)
            return {TAG: "slice", "items": items}
        if value is Ellipsis:
            return {TAG: "ellipsis"}
        if isinstance(value, partial):
            parts = {"function": value.func, "inputs": list(value.args), "options": value.keywords}
            return {TAG: "partial", **{n: put(v, f"{where}.{n}") for n, v in parts.items()}}
        if callable(value):
            return {TAG: "function", **_told(value, where)}
        raise TypeError(f"{where} is {_article(value)}, which a file cannot hold")

    return put(value, prefix.lstrip("/"))


def decode(value: Any, tensors: Mapping[str, Tensor], objects: Objects) -> Any:
    """Returns the value that encode was given.

    Args:
        value: What encode returned.
        tensors: The tensors that it put aside.
        objects: From names to functions and classes of one's own.

    Raises:
        ValueError: It is no such thing, or names a function that nobody knows.
    """

    def get(value: Any) -> Any:
        if isinstance(value, list):
            return [get(each) for each in value]
        if not isinstance(value, dict):
            return value
        if TAG not in value:
            return {key: get(each) for key, each in value.items()}
        made = kinds.get(str(value[TAG]))
        if made is None:
            raise ValueError(f"a value of the unknown kind {value[TAG]!r}")
        return made(value)

    kinds: dict[str, Callable[[Any], Any]] = {
        "float": lambda value: float(value["value"]),
        "tuple": lambda value: tuple(get(value["items"])),
        "dict": lambda value: {get(key): get(each) for key, each in value["items"]},
        "tensor": lambda value: tensors[value["key"]],
        "array": lambda value: tensors[value["key"]].numpy(),
        "dtype": lambda value: _dtype(value["name"]),
        "slice": lambda value: slice(*get(value["items"])),
        "ellipsis": lambda value: Ellipsis,
        "function": lambda value: _function(value, objects),
        "partial": lambda value: partial(
            get(value["function"]), *get(value["inputs"]), **get(value["options"])
        ),
    }
    return get(value)


def _told(function: Any, where: str) -> dict[str, str]:
    """The name of a function or a class, and where PyTorch has it, if that is so."""
    known = _known_names().get(function) if _is_hashable(function) else None
    if known is not None:
        return {"module": known[0], "name": known[1]}
    name = getattr(function, "__name__", None)
    if name is None or name == "<lambda>":
        what = "a lambda" if name else _article(function)
        raise TypeError(f"{where} is {what}, which has no name to find it by: write a def")
    return {"name": name}


def _function(value: Mapping[str, Any], objects: Objects) -> Any:
    """The function of a name."""
    name, module = value["name"], value.get("module")
    if module is not None and (known := _known_functions().get((module, name))):
        return known
    if name in objects:
        return objects[name]
    raise ValueError(f"nobody knows {name!r}: pass custom_objects={{{name!r}: {name}}}")


@lru_cache(maxsize=1)
def _known_functions() -> dict[tuple[str, str], Any]:
    """PyTorch's functions of tensors and its optimizers, by module and name."""
    overridable = torch.overrides.get_overridable_functions()
    places: dict[str, Any] = {
        "operator": operator,
        "torch": torch,
        "torch.nn.functional": torch.nn.functional,
        "torch.special": torch.special,
        "torch.linalg": torch.linalg,
        "torch.Tensor": Tensor,
    }
    found: dict[tuple[str, str], Any] = {}
    for module, place in places.items():
        allowed = overridable.get(place, ())
        for name in dir(place):
            function = getattr(place, name, None)
            is_public = callable(function) and not name.startswith("_")
            if is_public and (place is operator or any(function is each for each in allowed)):
                found[module, name] = function
    for name, each in vars(torch.optim).items():
        if isinstance(each, type) and issubclass(each, torch.optim.Optimizer):
            found["torch.optim", name] = each
    return found


@lru_cache(maxsize=1)
def _known_names() -> dict[Any, tuple[str, str]]:
    return {
        function: name
        for name, function in reversed(_known_functions().items())
        if _is_hashable(function)
    }


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _dtype(name: Any) -> torch.dtype:
    found = getattr(torch, str(name), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name!r} is no dtype")
    return found


def _article(value: Any) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0] in "AEIOUaeiou" else f"a {name}"
