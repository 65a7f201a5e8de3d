"""Validators of arguments: each returns the value in its plain form, or says what is wrong.

Every message names the argument, what is allowed and what came. Numpy's integers are integers
and its floats are floats; a bool is neither. Names become objects here, too, with one message for
every kind of thing that has a name.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

# What Keras or PyTorch have under names that might be taken for slips of others'.
OTHERS = frozenset(
    (
        *("adamax", "adamw", "asgd", "nadam", "radam"),
        *("auc", "mape", "msle"),
        *("celu", "crelu", "glu", "logsigmoid", "prelu", "rrelu", "softmin", "sparsemax"),
        *("normal", "uniform"),
    )
)


class ShapeError(ValueError):
    """The shapes of targets and predictions do not go together.

    Attributes:
        hint: What might be meant, as an end of the message, or nothing.
    """

    hint = ""

    def __str__(self) -> str:
        return super().__str__() + self.hint


def positive_int(name: str, value: Any) -> int:
    """Returns value as an int of at least 1."""
    return _integer(name, value, least=1, allowed="a positive integer")


def non_negative_int(name: str, value: Any) -> int:
    """Returns value as an int of at least 0."""
    return _integer(name, value, least=0, allowed="a non-negative integer")


def integer(name: str, value: Any) -> int:
    """Returns value as an int."""
    return _integer(name, value, least=None, allowed="an integer")


def string(name: str, value: Any) -> str:
    """Returns value if it is a string."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {value!r}")
    return value


def bounded_int(name: str, value: Any, least: int, most: int) -> int:
    """Returns value as an int from least to most."""
    allowed = f"an integer from {least} to {most}"
    if _integer(name, value, least, allowed) > most:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return int(value)


def number(name: str, value: Any) -> float:
    """Returns value as a finite float."""
    return _real(name, value, lambda v: True, "a finite number")


def positive_float(name: str, value: Any) -> float:
    """Returns value as a finite float above 0."""
    return _real(name, value, lambda v: v > 0, "a positive number")


def non_negative_float(name: str, value: Any) -> float:
    """Returns value as a finite float of at least 0."""
    return _real(name, value, lambda v: v >= 0, "a non-negative number")


def fraction(name: str, value: Any) -> float:
    """Returns value as a float in [0, 1)."""
    return _real(name, value, lambda v: 0 <= v < 1, "a number in [0, 1)")


def dtype(name: str, value: Any) -> torch.dtype | None:
    """Returns a floating dtype of PyTorch's, also by its name or NumPy's; None as it is."""
    if value is None:
        return None
    word = str(getattr(value, "__name__", value)).removeprefix("torch.")
    found = getattr(torch, word, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"{name} must be a floating dtype such as 'float32', got {value!r}")
    return found


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    """Returns value if it is one of the options."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")
    return value


def truth(name: str, value: Any) -> bool:
    """Returns True or False; what merely counts as one of them is refused."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def unmasked(name: str, value: Any) -> Any:
    """Returns value as it is if no entry is masked, neither of it nor of arrays listed in it."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    masked = sum(np.ma.count_masked(v) for v in parts if isinstance(v, np.ma.MaskedArray))
    if masked:
        raise ValueError(
            f"{name} must have no masked entries, got {masked}: fill them, as in "
            f"{name.split()[0]}.filled(0), or drop their rows"
        )
    return value


def tensor(name: str, value: Any) -> Tensor:
    """Returns a tensor as it is, and an array, a data frame or nested lists as a tensor.

    What PyTorch's functions take for a tensor, such as the symbols of a graph, is as good as one.
    """
    if isinstance(value, Tensor) or hasattr(type(value), "__torch_function__"):
        return value
    unmasked(name, value)
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must have rows of equal length") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, got dtype {array.dtype}")
    # A copy, because torch warns of read-only arrays and refuses reversed ones.
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))


def matched(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Returns y_true in y_pred's shape, dtype and device.

    Args:
        y_true: Targets of y_pred's shape, or of shape (N,) against predictions of shape (N, 1).
        y_pred: Predictions.

    Raises:
        ShapeError: The shapes differ in any other way; nothing is ever broadcast.
    """
    if y_true.shape != y_pred.shape:
        if (*y_true.shape, 1) != tuple(y_pred.shape):
            raise ShapeError(
                f"y_true of shape {tuple(y_true.shape)} does not fit "
                f"y_pred of shape {tuple(y_pred.shape)}"
            )
        y_true = y_true.unsqueeze(-1)
    return y_true.to(y_pred)


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


def find(kind: str, name: str, known: Collection[str]) -> str:
    """Returns the known name that is spelled like name, up to capitals and underscores."""
    if name in known:
        return name
    spellings = {_plain(each): each for each in known}
    if _plain(name) in spellings:
        return spellings[_plain(name)]
    meant = _unfinished(name, spellings.values()) or spellings.get(_misspelled(name, spellings))
    hint = f": did you mean {meant!r}?" if meant else "."
    raise ValueError(f"unknown {kind} {name!r}{hint} Known: {', '.join(spellings.values())}")


def admit(kind: str, value: Any, known: Iterable[str], accept: Callable[[Any], bool]) -> Any:
    """Returns value if it is an object, not a class, that accept admits."""
    if isinstance(value, type):
        name = value.__name__
        raise TypeError(f"{kind} must be an instance, got the class {name}: write {name}()")
    if not accept(value):
        raise TypeError(f"{kind} must be an object or one of {', '.join(known)}; got {value!r}")
    return value


def takes_targets_first(kind: str, value: Any) -> None:
    """Raises TypeError for a function of PyTorch or torchmetrics: theirs take (y_pred, y_true)."""
    home = str(getattr(value, "__module__", ""))
    for package in ("torch.nn.functional", "torchmetrics.functional"):
        if home.startswith(package):
            raise TypeError(
                f"{kind} must be a function of (y_true, y_pred), and those of {package} take "
                f"(y_pred, y_true): pass the nn.Module of {value.__name__} instead"
            )


def _integer(name: str, value: Any, least: int | None, allowed: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be {allowed}, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return int(value)


def _real(name: str, value: Any, admits: Callable[[float], bool], allowed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {allowed}, got {value!r}")
    number = float(value)
    if not math.isfinite(number) or not admits(number):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return number


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _unfinished(name: str, known: Iterable[str]) -> str | None:
    """The first known name that begins with the words of this one, or None."""
    return next((each for each in known if each.startswith(f"{name.lower()}_")), None)


def _misspelled(name: str, spellings: Iterable[str]) -> str:
    """The spelling that this name is a slip of, or nothing."""
    name = _plain(name)
    nearest = min(spellings, key=lambda each: _slips(name, each), default="")
    is_slip = _slips(name, nearest) <= 1 + (len(name) > 5)
    return nearest if is_slip and name not in OTHERS else ""


def _slips(one: str, other: str) -> int:
    """How many letters were added, left out, mistaken or exchanged with the next."""
    before, row = [0] * (len(other) + 1), list(range(len(other) + 1))
    for i, a in enumerate(one):
        before, last, row = row, before, [i + 1]
        for j, b in enumerate(other):
            row.append(min(before[j + 1] + 1, row[j] + 1, before[j] + (a != b)))
            if i and j and (a, one[i - 1]) == (other[j - 1], b):
                row[-1] = min(row[-1], last[j - 1] + 1)
    return row[-1]
