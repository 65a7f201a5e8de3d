"""Which rows each network of a trial is trained on, and which it is validated on."""

import math
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor

from torchnn import _checks

Rows = np.ndarray[Any, Any]
Fold = tuple[Rows, Rows]
ALLOWED = "how many there are, a splitter such as KFold(5), or a list of pairs of row numbers"


def folds(given: Any, x: Any, y: Any, groups: Any, seed: int) -> list[Fold]:
    """Returns pairs of row numbers, to train and to validate on.

    Args:
        given: How many folds; a splitter as scikit-learn has them; or such pairs.
        x: Features, for a splitter.
        y: Targets. Whole numbers in one column are labels, of which each fold gets its share.
        groups: For a splitter.
        seed: What the rows of a number of folds are drawn by.

    Raises:
        TypeError: given is nothing of that kind.
        ValueError: There are too few rows, or others than a fold names.
    """
    y = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if isinstance(given, str):  # which has a split of its own
        raise TypeError(f"folds must be {ALLOWED}, got {given!r}")
    if hasattr(given, "split"):
        pairs = given.split(x, y, groups)
    elif groups is not None:
        raise ValueError("groups are for a splitter, such as GroupKFold: give that as folds")
    elif isinstance(given, (list, tuple)):
        pairs = given
    elif isinstance(given, bool) or not isinstance(given, Integral):
        raise TypeError(f"folds must be {ALLOWED}, got {given!r}")
    else:
        return _drawn(_checks.bounded_int("folds", given, 2, len(y)), y, seed)
    pairs = [tuple(pair) if isinstance(pair, Iterable) else () for pair in pairs]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError("folds must give pairs of row numbers, to train and to validate on")
    return [(_rows(train, len(y)), _rows(held, len(y))) for train, held in pairs]


def last(fraction: float, y: Any) -> Fold:
    """Returns the first rows, to train on, and this part of them, the last ones, as fit does."""
    count = len(y)
    at = math.floor(count * (1 - _checks.fraction("validation_split", fraction)))
    if not 0 < at < count:
        raise ValueError(
            f"validation_split={fraction} of {count} samples leaves {at} to train on and "
            f"{count - at} to validate on: both need some"
        )
    return np.arange(at), np.arange(at, count)


def _drawn(count: int, y: Rows, seed: int) -> list[Fold]:
    """So many folds of rows in a random order, dealt out like cards; of labels, label by label."""
    order = np.random.default_rng(seed).permutation(len(y))
    labels = y.reshape(len(y), -1)
    if labels.shape[1] == 1 and (labels == np.round(labels)).all():
        order = order[np.argsort(labels[order, 0], kind="stable")]
    held = [np.sort(order[number::count]) for number in range(count)]
    return [(np.setdiff1d(order, rows), rows) for rows in held]


def _rows(given: Any, count: int) -> Rows:
    rows = np.asarray(given)
    if rows.dtype == bool and rows.shape == (count,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows):
        raise TypeError(f"folds must give row numbers, got {given!r}")
    if rows.min() < 0 or rows.max() >= count:
        raise ValueError(f"folds must give rows from 0 to {count - 1}, got {rows.max()}")
    return rows
