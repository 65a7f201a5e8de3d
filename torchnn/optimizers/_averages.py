"""Moving averages of the weights, which an optimizer keeps with use_ema=True."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from torchnn import _checks

AVERAGES = "averages"  # the slot's name
SETTINGS = {"use_ema": False, "ema_momentum": 0.99, "ema_overwrite_frequency": None}


class Averaging:
    """The part of an optimizer that keeps them in a slot.

    Attributes:
        averages_in_model: Whether swap_averages has brought them into the model.
    """

    parameters: list[Tensor]
    slots: dict[str, list[Tensor]]
    iterations: int
    build: Any
    _remember: Any
    averages_in_model = False

    @property
    def use_ema(self) -> bool:
        """Whether averages are kept; from True on, they start at the weights as they are."""
        return AVERAGES in self.slots

    @use_ema.setter
    def use_ema(self, value: bool) -> None:
        if _checks.truth("use_ema", value):
            self._remember([*(name for name in self.slots if name != AVERAGES), AVERAGES])
        elif self.use_ema:
            if self.averages_in_model:
                self.swap_averages()
            del self.slots[AVERAGES]

    @property
    def ema_momentum(self) -> float:
        return self._ema_momentum

    @ema_momentum.setter
    def ema_momentum(self, value: float) -> None:
        self._ema_momentum = _checks.fraction("ema_momentum", value)

    @property
    def ema_overwrite_frequency(self) -> int | None:
        return self._ema_overwrite_frequency

    @ema_overwrite_frequency.setter
    def ema_overwrite_frequency(self, value: int | None) -> None:
        self._ema_overwrite_frequency = (
            None if value is None else _checks.positive_int("ema_overwrite_frequency", value)
        )

    def swap_averages(self) -> None:
        """Exchanges the weights and their averages, in place; once more, and all is as before."""
        if not self.use_ema or not self.parameters:
            return
        with torch.no_grad():
            for average, weight in zip(*self._averaged(), strict=True):
                before = weight.clone()
                weight.copy_(average)
                average.copy_(before)
        self.averages_in_model = not self.averages_in_model

    def finalize_variable_values(self, var_list: Iterable[Tensor]) -> None:
        """Gives weights their averages, if there are any: fit does so at its end.

        Args:
            var_list: A model's trainable_variables, or its parameters.

        Raises:
            ValueError: One is not of those that build was given.
        """
        if not self.use_ema or not self.iterations:
            return
        weights = [getattr(variable, "weight", variable) for variable in var_list]
        if not self.parameters:  # a state has been loaded
            self.build(weights)
        if self.averages_in_model:
            self.swap_averages()
        of = dict(zip(map(id, self.parameters), self.slots[AVERAGES], strict=True))
        if not {*map(id, weights)} <= of.keys():
            raise ValueError("each variable must be one of the parameters that build was given")
        with torch.no_grad():
            for weight in weights:
                if weight.requires_grad:
                    weight.copy_(of[id(weight)])

    def _average(self) -> None:
        """Follows the weights, after a step; leads them when that is due."""
        averages, weights = self._averaged()
        with torch.no_grad():
            torch._foreach_lerp_(
                averages, weights, 1 - self.ema_momentum if self.iterations else 1.0
            )
            if (self.iterations + 1) % (self.ema_overwrite_frequency or math.inf) == 0:
                torch._foreach_copy_(weights, averages)

    def _averaged(self) -> tuple[Any, Any]:
        """The averages, and the weights that they are of: those that are trained."""
        pairs = zip(self.slots[AVERAGES], self.parameters, strict=True)
        trained = [pair for pair in pairs if pair[1].requires_grad]
        return [average for average, _ in trained], [weight for _, weight in trained]
