"""What Keras's optimizers have in common beside their rules: limits of gradients, and old names."""

from typing import Any, NoReturn

import torch
from torch import Tensor

from torchnn import _checks

# And what the kernels call them.
LIMITS = {
    "clipnorm": "clip_norm",
    "clipvalue": "clip_value",
    "global_clipnorm": "global_clip_norm",
}

# What Keras's optimizers take, or once took, and ours do not; and what to do instead.
MISSING = {
    "lr": "the learning rate is learning_rate",
    "decay": "for a rate that falls, learning_rate takes one of torchnn.optimizers.schedules",
    "loss_scale_factor": "losses are not scaled",
    "gradient_accumulation_steps": "a larger batch_size has the same effect",
    "jit_compile": "the kernels are compiled already",
}


class Rate(float):
    """A learning rate: a float, with the method that Keras's variables have."""

    def numpy(self) -> float:
        """Returns it as a float."""
        return float(self)

    def assign(self, value: Any) -> NoReturn:
        """Raises TypeError: a rate is assigned to the optimizer."""
        raise TypeError(f"a learning rate is a number: write optimizer.learning_rate = {value!r}")


class Missing:
    """An attribute of others' optimizers that says, when it is used, what to use instead."""

    def __init__(self, instead: str):
        self.instead = instead

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, optimizer: Any, kind: type) -> Any:
        if optimizer is None:
            return self
        raise AttributeError(f"{kind.__name__} has no {self.name}: {self.instead}")

    def __set__(self, optimizer: Any, value: Any) -> None:
        self.__get__(optimizer, type(optimizer))


class Limit:
    """A limit of gradients, above 0, or None; of an optimizer's limits, one at a time is set."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, optimizer: Any, kind: type) -> Any:
        if optimizer is None:
            return self
        return optimizer.limit[1] if self._is_set(optimizer) else None

    def __set__(self, optimizer: Any, value: float | None) -> None:
        if value is None:
            optimizer.limit = None if self._is_set(optimizer) else optimizer.limit
            return
        value = _checks.positive_float(self.name, value)
        if optimizer.limit and not self._is_set(optimizer):
            other, number = optimizer.limit
            raise ValueError(
                f"only one of {', '.join(LIMITS)} can be set, got {other}={number:g} and "
                f"{self.name}={value:g}"
            )
        optimizer.limit = self.name, value

    def _is_set(self, optimizer: Any) -> bool:
        return optimizer.limit is not None and optimizer.limit[0] == self.name


def refuse(kind: type, unknown: dict[str, Any]) -> None:
    """Raises TypeError for arguments that are not known, unless Keras has them and they are off."""
    for name, value in unknown.items():
        if name not in MISSING:
            raise TypeError(f"{kind.__name__} got an unknown argument {name}")
        if value is not None and value is not False:
            raise TypeError(f"{kind.__name__} takes no {name}: {MISSING[name]}")


def clipped(grads: list[Tensor], kind: str, limit: float) -> Any:
    """Returns gradients within a limit.

    clipvalue: every element at most that far from 0. clipnorm: every gradient g becomes
    g limit / max(|g|, limit). global_clipnorm: the same with the norm of all of them together.
    """
    if kind == "clipvalue":
        return torch._foreach_clamp_max(torch._foreach_clamp_min(grads, -limit), limit)
    norms = list(torch._foreach_norm(grads))
    if kind == "global_clipnorm":
        total = torch.linalg.vector_norm(torch.stack([norm.to(norms[0]) for norm in norms]))
        norms = [total.to(norm) for norm in norms]
    return torch._foreach_mul(grads, [limit / norm.clamp(min=limit) for norm in norms])
