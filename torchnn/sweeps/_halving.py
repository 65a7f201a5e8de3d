"""Successive halving: all settings are trained a little, the best of them further."""

import math
from dataclasses import dataclass

from torchnn import _checks


@dataclass(frozen=True)
class Halving:
    """How successive halving goes on.

    All settings are trained for a few epochs, the best of them, one of `factor`, for `factor` times
    as many, and so on, until `epochs` are reached with those that are left. Which are best is told
    by the mean over seeds and folds, which stay together.

    Args:
        factor: One of so many settings is kept after each round.
        min_epochs: The first round is no shorter.

    Raises:
        TypeError: An argument is no integer.
        ValueError: factor is less than 2, or min_epochs less than 1.

    Source: Jamieson and Talwalkar, Non-stochastic best arm identification and hyperparameter
    optimization, 2016.
    """

    factor: int = 3
    min_epochs: int = 1

    def __post_init__(self) -> None:
        _checks.positive_int("min_epochs", self.min_epochs)
        if _checks.positive_int("factor", self.factor) < 2:
            raise ValueError(f"factor must be at least 2, got {self.factor}")

    @classmethod
    def of(cls, given: "Halving | int") -> "Halving":
        """Returns the Halving that is given, or that of a factor."""
        return given if isinstance(given, cls) else cls(given)  # type: ignore[arg-type]

    def ends(self, settings: int, epochs: int) -> list[int]:
        """Returns after how many epochs each round ends.

        Args:
            settings: How many there are.
            epochs: Those after which the last round ends.
        """
        ends, end = [epochs], epochs / self.factor
        while settings > 1 and round(end) >= self.min_epochs:
            ends.append(round(end))
            settings, end = self.kept(settings), end / self.factor
        return ends[::-1]

    def kept(self, settings: int) -> int:
        """Returns how many of so many settings are trained further."""
        return math.ceil(settings / self.factor)
