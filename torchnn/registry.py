"""Names to objects, with one error message for every kind of thing that has a name."""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any


def resolve(
    kind: str, value: Any, table: Mapping[str, Callable[[], Any]], accept: Callable[[Any], bool]
) -> Any:
    """Returns the object that value names, or value itself if it is such an object.

    Args:
        kind: What is looked for, as the message should call it: "optimizer".
        value: A name, or an object.
        table: From each name to a function of no arguments that makes the object.
        accept: Whether an object will do.

    Raises:
        ValueError: No such name; the message lists the names and suggests the nearest.
        TypeError: A class that was not instantiated, or an object that accept refuses.
    """
    if isinstance(value, str):
        return table[find(kind, value, table)]()
    return admit(kind, value, table, accept)


def find(kind: str, name: str, known: Iterable[str]) -> str:
    """Returns the known name that is spelled like name, up to capitals and underscores."""
    spellings = {_plain(each): each for each in known}
    if _plain(name) in spellings:
        return spellings[_plain(name)]
    nearest = get_close_matches(_plain(name), spellings, n=1)
    hint = f": did you mean {spellings[nearest[0]]!r}?" if nearest else "."
    raise ValueError(f"unknown {kind} {name!r}{hint} Known: {', '.join(spellings.values())}")


def admit(kind: str, value: Any, known: Iterable[str], accept: Callable[[Any], bool]) -> Any:
    """Returns value if it is an object, not a class, that accept admits."""
    if isinstance(value, type):
        name = value.__name__
        raise TypeError(f"{kind} must be an instance, got the class {name}: write {name}()")
    if not accept(value):
        raise TypeError(f"{kind} must be an object or one of {', '.join(known)}; got {value!r}")
    return value


def _plain(name: str) -> str:
    return name.lower().replace("_", "")
