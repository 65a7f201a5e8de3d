"""Any torch optimizer with the interface of ours."""

import inspect
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torchnn import _checks
from torchnn.optimizers._base import Optimizer, Place
from torchnn.optimizers._common import Missing, Rate

TorchFactory = Callable[[Any], torch.optim.Optimizer]
UNCLIPPED = "PyTorch's optimizers do not clip gradients, those of torchnn do"


class TorchOptimizer(Optimizer):
    """A torch optimizer with the interface of ours.

    Its learning rate is that of the first parameter group; one that is assigned goes to all.

    Args:
        optimizer: A function from parameters to a torch optimizer, such as `torch.optim.AdamW` or
            `lambda parameters: torch.optim.SGD(parameters, lr=0.1)`; or an optimizer that already
            holds the model's parameters.
    """

    clipnorm, clipvalue, global_clipnorm = (
        Missing(UNCLIPPED),
        Missing(UNCLIPPED),
        Missing(UNCLIPPED),
    )

    def __init__(self, optimizer: torch.optim.Optimizer | TorchFactory):
        super().__init__()
        self._factory = None if isinstance(optimizer, torch.optim.Optimizer) else optimizer
        self._optimizer = optimizer if isinstance(optimizer, torch.optim.Optimizer) else None
        self._kinds: list[tuple[torch.dtype, torch.device]] = []  # of the parameters, when built

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The torch optimizer.

        Raises:
            RuntimeError: There is none before build.
        """
        if self._optimizer is None:
            raise RuntimeError("the torch optimizer is made when training begins: call build first")
        return self._optimizer

    @property
    def learning_rate(self) -> float:
        return Rate(self.optimizer.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        value = _checks.non_negative_float("learning_rate", value)
        for group in self.optimizer.param_groups:
            group["lr"] = value

    def _build(self, parameters: list[Tensor]) -> None:
        optimizer = self._optimizer
        is_new = list(map(id, parameters)) != list(map(id, self.parameters))
        if self._factory is not None and (optimizer is None or is_new):
            optimizer = self._factory(parameters)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer must make a torch optimizer, got {optimizer!r}")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise TypeError("optimizer must need one gradient per step, got LBFGS")
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if held.isdisjoint(map(id, parameters)):
            raise ValueError("the torch optimizer holds none of this model's parameters")
        if self._optimizer is not None and optimizer is not self._optimizer:
            _hand_on(self._optimizer, optimizer)
        self._optimizer, before = optimizer, self._kinds
        self._kinds = [(p.dtype, p.device) for p in parameters]
        if before not in ([], self._kinds):
            optimizer.load_state_dict(optimizer.state_dict())  # moves it to the parameters

    def _take_in_place(self, parameters: list[Tensor]) -> None:
        taken = dict(zip(self.parameters, parameters, strict=True))
        for group in self.optimizer.param_groups:
            group["params"] = [taken.get(p, p) for p in group["params"]]
        state = {taken.get(p, p): remembered for p, remembered in self.optimizer.state.items()}
        self.optimizer.state.clear()
        self.optimizer.state.update(state)
        super()._take_in_place(parameters)

    def get_config(self) -> dict[str, Any]:
        """Returns {"optimizer": a function that makes such a torch optimizer}: the one that was
        given, or PyTorch's class with the settings of now.

        Raises:
            TypeError: It is of a class of one's own, and was given as an object, which holds the
                parameters of a model.
        """
        given, factory = self._optimizer, self._factory
        kind = type(given)
        if given is not None and getattr(torch.optim, kind.__name__, None) is kind:
            taken = inspect.signature(kind).parameters
            settings = {**given.defaults, **given.param_groups[0]}
            factory = partial(
                kind, **{n: v for n, v in settings.items() if n in taken and n != "params"}
            )
        if factory is None:
            raise TypeError(
                "a torch optimizer that holds a model's parameters has no config: give compile a "
                "function that makes it, such as lambda parameters: SGD(parameters, lr=0.1)"
            )
        return {"optimizer": factory}

    def step(self) -> None:
        self.optimizer.step()
        self.iterations += 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "iterations": self.iterations,
            "place": asdict(self.place),
            "optimizer": None if self._optimizer is None else self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["optimizer"] is not None:  # of one that has not been made yet
            self.optimizer.load_state_dict(state["optimizer"])
        self.iterations = _checks.non_negative_int("iterations", state["iterations"])
        self.place = Place(**state.get("place", {}))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._optimizer or self._factory!r})"


def _hand_on(old: torch.optim.Optimizer, new: torch.optim.Optimizer) -> None:
    """Gives a new optimizer what an old one remembers of the same parameters, and its settings."""
    held = {p for group in new.param_groups for p in group["params"]}
    new.state.update({p: state for p, state in old.state.items() if p in held})
    if len(new.param_groups) == len(old.param_groups):
        for group, before in zip(new.param_groups, old.param_groups, strict=True):
            group.update({name: value for name, value in before.items() if name != "params"})
