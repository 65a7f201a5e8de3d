"""Optimizers: Keras's formulas and defaults, and any torch optimizer in the same clothes.

In a training loop of one's own:

    optimizer.build(model.parameters())   once
    optimizer.zero_grad()
    loss.backward()                       puts gradients into .grad
    optimizer.step()                      changes the parameters
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchnn import checks, registry, schedules
from torchnn.optimizer import LearningRate, Optimizer, SlotOptimizer

__all__ = ["SGD", "Adam", "Optimizer", "TorchOptimizer", "get", "schedules"]

TorchFactory = Callable[[Any], torch.optim.Optimizer]


class SGD(SlotOptimizer):
    """velocity = momentum * velocity - learning_rate * grad; w += velocity.

    With nesterov, w += momentum * velocity - learning_rate * grad, with the new velocity. Keras's
    rule: the learning rate sits inside the velocity, unlike in torch.optim.SGD.

    Args:
        learning_rate: A number of at least 0, or a schedule.
        momentum: In [0, 1). It can be assigned at any time; from 0 on, the velocities start at 0.
        nesterov: Look ahead along the velocity.
        weight_decay: Before each step, w -= w * weight_decay * learning_rate. None for none.

    Source: Sutskever et al., On the importance of initialization and momentum in deep learning,
    2013.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
    ):
        super().__init__(learning_rate, weight_decay, [])
        self.momentum = momentum
        self.nesterov = bool(nesterov)

    @property
    def momentum(self) -> float:
        return self._momentum

    @momentum.setter
    def momentum(self, value: float) -> None:
        self._momentum = checks.fraction("momentum", value)
        self._remember(["velocities"] if self._momentum else [])

    @property
    def velocities(self) -> list[Tensor]:
        """One per parameter once built; empty without momentum."""
        return self.slots.get("velocities", [])

    def _update(self, learning_rate: float, parameters: Any, grads: Any, *slots: Any) -> None:
        if not slots:
            torch._foreach_add_(parameters, grads, alpha=-learning_rate)
            return
        (velocities,) = slots
        torch._foreach_mul_(velocities, self.momentum)
        torch._foreach_add_(velocities, grads, alpha=-learning_rate)
        if self.nesterov:
            torch._foreach_add_(parameters, velocities, alpha=self.momentum)
            torch._foreach_add_(parameters, grads, alpha=-learning_rate)
        else:
            torch._foreach_add_(parameters, velocities)


class Adam(SlotOptimizer):
    """w -= alpha * m / (sqrt(v) + epsilon), alpha = learning_rate * sqrt(1 - b2^t) / (1 - b1^t).

    m and v are running means of grad and grad^2: m += (1 - b1) * (grad - m), v likewise; t counts
    steps from 1. As in Keras, epsilon is added to the uncorrected sqrt(v), unlike in
    torch.optim.Adam.

    Args:
        learning_rate: A number of at least 0, or a schedule.
        beta_1: b1, in [0, 1).
        beta_2: b2, in [0, 1).
        epsilon: Above 0.
        weight_decay: Before each step, w -= w * weight_decay * learning_rate. None for none.

    Source: Kingma and Ba, Adam: A method for stochastic optimization, 2014; alpha and epsilon as
    in the last paragraph of its section 2.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
    ):
        self.beta_1 = checks.fraction("beta_1", beta_1)
        self.beta_2 = checks.fraction("beta_2", beta_2)
        self.epsilon = checks.positive_float("epsilon", epsilon)
        super().__init__(learning_rate, weight_decay, ["momentums", "variances"])

    @property
    def momentums(self) -> list[Tensor]:
        """The running means of grad, one per parameter once built."""
        return self.slots["momentums"]

    @property
    def variances(self) -> list[Tensor]:
        """The running means of grad^2, one per parameter once built."""
        return self.slots["variances"]

    def _update(self, learning_rate: float, parameters: Any, grads: Any, *slots: Any) -> None:
        momentums, variances = slots
        t = self.iterations + 1
        alpha = learning_rate * (1 - self.beta_2**t) ** 0.5 / (1 - self.beta_1**t)
        torch._foreach_lerp_(momentums, grads, 1 - self.beta_1)
        torch._foreach_mul_(variances, self.beta_2)
        torch._foreach_addcmul_(variances, grads, grads, 1 - self.beta_2)
        divisors = torch._foreach_sqrt(variances)
        torch._foreach_add_(divisors, self.epsilon)
        torch._foreach_addcdiv_(parameters, momentums, divisors, -alpha)


class TorchOptimizer(Optimizer):
    """A torch optimizer with the interface of ours.

    Its learning rate is that of the first parameter group; one that is assigned goes to all.

    Args:
        optimizer: A function from parameters to a torch optimizer, such as `torch.optim.AdamW` or
            `lambda parameters: torch.optim.SGD(parameters, lr=0.1)`; or an optimizer that already
            holds the model's parameters.
    """

    def __init__(self, optimizer: torch.optim.Optimizer | TorchFactory):
        super().__init__()
        self._factory = None if isinstance(optimizer, torch.optim.Optimizer) else optimizer
        self._optimizer = optimizer if isinstance(optimizer, torch.optim.Optimizer) else None

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
        return float(self.optimizer.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        value = checks.non_negative_float("learning_rate", value)
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
        self._optimizer = optimizer

    def step(self) -> None:
        self.optimizer.step()
        self.iterations += 1

    def state_dict(self) -> dict[str, Any]:
        return {"iterations": self.iterations, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.iterations = checks.non_negative_int("iterations", state["iterations"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._optimizer or self._factory!r})"


def _hand_on(old: torch.optim.Optimizer, new: torch.optim.Optimizer) -> None:
    """Gives a new optimizer what an old one remembers of the same parameters, and its settings."""
    held = {p for group in new.param_groups for p in group["params"]}
    new.state.update({p: state for p, state in old.state.items() if p in held})
    if len(new.param_groups) == len(old.param_groups):
        for group, before in zip(new.param_groups, old.param_groups, strict=True):
            group.update({name: value for name, value in before.items() if name != "params"})


NAMES: dict[str, Callable[[], Optimizer]] = {"sgd": SGD, "adam": Adam}


def get(value: str | Optimizer | torch.optim.Optimizer | TorchFactory) -> Optimizer:
    """Returns the optimizer of this name, the optimizer itself, or a torch optimizer as one.

    Args:
        value: A name; one of our optimizers; a torch optimizer, its class, or a function from
            parameters to one.

    Raises:
        ValueError: Unknown name.
        TypeError: No optimizer, or a class of ours that was not instantiated.
    """
    if isinstance(value, torch.optim.Optimizer):
        return TorchOptimizer(value)
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer):
        return TorchOptimizer(value)
    optimizer = registry.resolve(
        "optimizer", value, NAMES, accept=lambda v: isinstance(v, Optimizer) or callable(v)
    )
    return optimizer if isinstance(optimizer, Optimizer) else TorchOptimizer(optimizer)
