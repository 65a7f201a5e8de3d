"""Learning rates that change with the step: Keras's names and formulas.

A schedule is called with the number of steps taken so far and returns a float. Any function from
an int to a float will do in its place.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torchnn import _checks
from torchnn._config import Configured

__all__ = [
    "CosineDecay",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
]


@dataclass(frozen=True)
class LearningRateSchedule(Configured, ABC):
    """A learning rate for every step.

    Args:
        name: Keras's, for its graphs; it changes nothing.
    """

    name: str | None = field(default=None, kw_only=True, repr=False, compare=False)

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Returns the learning rate after that many steps."""


@dataclass(frozen=True)
class ExponentialDecay(LearningRateSchedule):
    """initial_learning_rate * decay_rate ^ (step / decay_steps).

    Args:
        initial_learning_rate: The learning rate of step 0.
        decay_steps: Steps until the learning rate has been multiplied by decay_rate once.
        decay_rate: The factor.
        staircase: Round step / decay_steps down, so that the rate falls in jumps.
    """

    initial_learning_rate: float
    decay_steps: int
    decay_rate: float
    staircase: bool = False

    def __post_init__(self) -> None:
        _checks.non_negative_float("initial_learning_rate", self.initial_learning_rate)
        _checks.positive_int("decay_steps", self.decay_steps)
        _checks.non_negative_float("decay_rate", self.decay_rate)
        _checks.truth("staircase", self.staircase)

    def __call__(self, step: int) -> float:
        periods = step // self.decay_steps if self.staircase else step / self.decay_steps
        return self.initial_learning_rate * self.decay_rate**periods


@dataclass(frozen=True)
class InverseTimeDecay(LearningRateSchedule):
    """initial_learning_rate / (1 + decay_rate * step / decay_steps).

    Args:
        initial_learning_rate: The learning rate of step 0.
        decay_steps: The steps in one unit of time.
        decay_rate: How much the divisor grows in one unit of time.
        staircase: Round step / decay_steps down, so that the rate falls in jumps.
    """

    initial_learning_rate: float
    decay_steps: int
    decay_rate: float
    staircase: bool = False

    def __post_init__(self) -> None:
        _checks.non_negative_float("initial_learning_rate", self.initial_learning_rate)
        _checks.positive_int("decay_steps", self.decay_steps)
        _checks.non_negative_float("decay_rate", self.decay_rate)
        _checks.truth("staircase", self.staircase)

    def __call__(self, step: int) -> float:
        periods = step // self.decay_steps if self.staircase else step / self.decay_steps
        return self.initial_learning_rate / (1 + self.decay_rate * periods)


@dataclass(frozen=True)
class PiecewiseConstantDecay(LearningRateSchedule):
    """values[i], with i the number of boundaries below step.

    Args:
        boundaries: Steps, increasing. A boundary itself still belongs to the value before it.
        values: Learning rates, one more than boundaries.
    """

    boundaries: list[int]
    values: list[float]

    def __post_init__(self) -> None:
        for boundary in self.boundaries:
            _checks.number("boundaries", boundary)
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"values must be one more than boundaries, "
                f"got {len(self.values)} values and {len(self.boundaries)} boundaries"
            )
        if list(self.boundaries) != sorted(self.boundaries):
            raise ValueError(f"boundaries must increase, got {self.boundaries}")
        for value in self.values:
            _checks.non_negative_float("values", value)

    def __call__(self, step: int) -> float:
        return self.values[sum(boundary < step for boundary in self.boundaries)]


@dataclass(frozen=True)
class PolynomialDecay(LearningRateSchedule):
    """(initial - end) * (1 - step / decay_steps) ^ power + end, and end from decay_steps on.

    Args:
        initial_learning_rate: The learning rate of step 0.
        decay_steps: The step at which the end is reached.
        end_learning_rate: The learning rate from there on.
        power: 1 for a straight line.
        cycle: Start anew beyond decay_steps, with decay_steps stretched to its next multiple.
    """

    initial_learning_rate: float
    decay_steps: int
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False

    def __post_init__(self) -> None:
        _checks.non_negative_float("initial_learning_rate", self.initial_learning_rate)
        _checks.positive_int("decay_steps", self.decay_steps)
        _checks.non_negative_float("end_learning_rate", self.end_learning_rate)
        _checks.positive_float("power", self.power)
        _checks.truth("cycle", self.cycle)

    def __call__(self, step: int) -> float:
        cycles = max(1, math.ceil(step / self.decay_steps)) if self.cycle else 1
        remaining = max(0.0, 1 - step / (self.decay_steps * cycles))
        fall = self.initial_learning_rate - self.end_learning_rate
        return fall * math.pow(remaining, self.power) + self.end_learning_rate


@dataclass(frozen=True)
class CosineDecay(LearningRateSchedule):
    """peak * ((1 - alpha) * (1 + cos(pi * step / decay_steps)) / 2 + alpha), after a warm-up.

    Args:
        initial_learning_rate: The learning rate of step 0; the peak, if there is no warm-up.
        decay_steps: Steps from the peak to the end.
        alpha: The learning rate at the end, as a share of the peak.
        warmup_target: The peak that the warm-up rises to in a straight line, or None for none.
        warmup_steps: Steps of the warm-up; they come before decay_steps.

    Source: Loshchilov and Hutter, SGDR: Stochastic gradient descent with warm restarts, 2016.
    """

    initial_learning_rate: float
    decay_steps: int
    alpha: float = 0.0
    warmup_target: float | None = None
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        _checks.non_negative_float("initial_learning_rate", self.initial_learning_rate)
        _checks.positive_int("decay_steps", self.decay_steps)
        _checks.non_negative_float("alpha", self.alpha)
        if self.warmup_target is not None:
            _checks.non_negative_float("warmup_target", self.warmup_target)
        _checks.non_negative_int("warmup_steps", self.warmup_steps)

    def __call__(self, step: int) -> float:
        peak = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return peak + (self.warmup_target - peak) * step / self.warmup_steps
            peak = self.warmup_target
            step -= self.warmup_steps
        cosine = (1 + math.cos(math.pi * min(step / self.decay_steps, 1))) / 2
        return peak * ((1 - self.alpha) * cosine + self.alpha)
