"""What a sweep tries: all combinations of lists, and draws from distributions."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from torchnn import _checks

Settings = dict[str, Any]


@dataclass(frozen=True)
class Uniform:
    """Numbers between two limits, each as likely as any other, or their logarithms are."""

    low: float
    high: float
    is_logarithmic: bool = False

    def rvs(self, random_state: np.random.Generator) -> float:
        """Returns one of them."""
        if not self.is_logarithmic:
            return float(random_state.uniform(self.low, self.high))
        drawn = random_state.uniform(math.log(self.low), math.log(self.high))
        return min(max(math.exp(drawn), self.low), self.high)


@dataclass(frozen=True)
class Integers:
    """Whole numbers between two limits, both included, each as likely as any other."""

    low: int
    high: int

    def rvs(self, random_state: np.random.Generator) -> int:
        """Returns one of them."""
        return int(random_state.integers(self.low, self.high, endpoint=True))


def uniform(low: float, high: float) -> Uniform:
    """Returns a distribution for `random`: any number from low to high, each as likely.

    Raises:
        TypeError: A limit is no number.
        ValueError: high is not above low.
    """
    low, high = _checks.number("low", low), _checks.number("high", high)
    _check_order(low, high)
    return Uniform(low, high)


def loguniform(low: float, high: float) -> Uniform:
    """Returns a distribution for `random`: numbers from low to high, as many from 0.001 to 0.01 as
    from 0.01 to 0.1. That is how learning rates are drawn.

    Raises:
        TypeError: A limit is no number.
        ValueError: low is not above 0, or high not above low.
    """
    low, high = _checks.positive_float("low", low), _checks.positive_float("high", high)
    _check_order(low, high)
    return Uniform(low, high, is_logarithmic=True)


def integers(low: int, high: int) -> Integers:
    """Returns a distribution for `random`: whole numbers from low to high, both included.

    Raises:
        TypeError: A limit is no whole number.
        ValueError: high is not above low.
    """
    low, high = _checks.integer("low", low), _checks.integer("high", high)
    _check_order(low, high)
    return Integers(low, high)


def _check_order(low: float, high: float) -> None:
    if high <= low:
        raise ValueError(f"high must be above low, {low}, got {high}")


def settings(grid: Any, random: Any, trials: Any, seed: int) -> list[Settings]:
    """Returns the settings of each trial: every draw with all combinations of the grid.

    Args:
        grid: From names to lists of values, or a list of such dicts; None for nothing.
        random: From names to lists or distributions; None for nothing.
        trials: How many draws of random; None without it.
        seed: What the draws follow from.

    Raises:
        TypeError: One of them is no such thing.
        ValueError: There is nothing to try, or a name stands in both.
    """
    if grid is None and random is None:
        raise ValueError("a sweep needs a grid, or random and trials, got neither")
    combinations = [{}] if grid is None else _combinations(grid)
    if random is None:
        if trials is not None:
            raise ValueError(f"trials is the number of draws of random, got {trials!r} without it")
        return combinations
    if trials is None:
        raise ValueError("random needs the number of draws: trials=20")
    draws = _draws(random, _checks.positive_int("trials", trials), seed)
    if both := {name for each in combinations for name in each} & set(random):
        raise ValueError(f"grid and random must name different settings, got {min(both)!r} twice")
    return [drawn | combination for drawn in draws for combination in combinations]


def _combinations(grid: Any) -> list[Settings]:
    grids = [grid] if isinstance(grid, Mapping) else grid
    if not isinstance(grids, Iterable) or isinstance(grids, str):
        raise TypeError(f"grid must be a dict of lists, or a list of such dicts, got {grid!r}")
    found: list[Settings] = []
    for each in grids:
        if not isinstance(each, Mapping):
            raise TypeError(f"grid must hold dicts of lists, got {each!r}")
        values = [_values(f"grid[{_name(name)!r}]", given) for name, given in each.items()]
        found += [dict(zip(each, some, strict=True)) for some in product(*values)]
    if not found:
        raise ValueError("grid must hold at least one dict, got none")
    return found


def _draws(random: Any, trials: int, seed: int) -> list[Settings]:
    if not isinstance(random, Mapping):
        raise TypeError(f"random must be a dict of lists or distributions, got {random!r}")
    generator = np.random.default_rng(seed)
    choices = {
        _name(name): given if hasattr(given, "rvs") else _values(f"random[{name!r}]", given)
        for name, given in random.items()
    }
    return [
        {name: _drawn(choice, generator) for name, choice in choices.items()} for _ in range(trials)
    ]


def _drawn(choice: Any, generator: np.random.Generator) -> Any:
    if isinstance(choice, list):
        return choice[generator.integers(len(choice))]
    return _plain(choice.rvs(random_state=generator))


def _name(name: Any) -> str:
    return _checks.string("the name of a setting", name)


def _values(where: str, given: Any) -> list[Any]:
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise TypeError(f"{where} must be a list of values, got {given!r}: write [{given!r}]")
    values = [_plain(value) for value in given]
    if not values:
        raise ValueError(f"{where} must hold at least one value, got none")
    return values


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, which tables and files hold."""
    return value.item() if isinstance(value, (np.generic, np.ndarray)) and not value.ndim else value
