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

from torchnn import _checks
from torchnn._config import deserializer, serialize
from torchnn.ops import Kernel
from torchnn.optimizers import schedules
from torchnn.optimizers._base import LearningRate, Optimizer, SlotOptimizer
from torchnn.optimizers._rare import Adadelta, Adamax, Ftrl, Lion, Nadam
from torchnn.optimizers._torch import TorchFactory, TorchOptimizer

__all__ = [
    "NAMES",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lion",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "TorchOptimizer",
    "deserialize",
    "get",
    "schedules",
    "serialize",
]


class SGD(SlotOptimizer):
    """velocity = momentum * velocity - learning_rate * grad; w += velocity.

    With nesterov, w += momentum * velocity - learning_rate * grad, with the new velocity. Keras's
    rule: the learning rate sits inside the velocity, unlike in torch.optim.SGD.

    Args:
        learning_rate: A number of at least 0, or a schedule.
        momentum: In [0, 1). It can be assigned at any time; from 0 on, the velocities start at 0.
        nesterov: Look ahead along the velocity.
        weight_decay: Before each step, w -= w * weight_decay * learning_rate. None for none.
        common: clipnorm, use_ema, name and the others of SlotOptimizer.

    Source: Sutskever et al., On the importance of initialization and momentum in deep learning,
    2013.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        **common: Any,
    ):
        super().__init__(learning_rate, weight_decay, [], **common)
        self.momentum = momentum
        self.nesterov = _checks.truth("nesterov", nesterov)

    @property
    def momentum(self) -> float:
        return self._momentum

    @momentum.setter
    def momentum(self, value: float) -> None:
        self._momentum = _checks.fraction("momentum", value)
        self._remember(["velocities"] if self._momentum else [])

    def kernel(self) -> Kernel | None:
        name = "nesterov" if self.nesterov else "momentum"
        return self._kernel(name if self.momentum else "gradient_descent", "momentum")

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
        amsgrad: Divide by the largest v so far.
        weight_decay: Before each step, w -= w * weight_decay * learning_rate. None for none.
        common: clipnorm, use_ema, name and the others of SlotOptimizer.

    Source: Kingma and Ba, Adam: A method for stochastic optimization, 2014; alpha and epsilon as
    in the last paragraph of its section 2.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        **common: Any,
    ):
        self.beta_1 = _checks.fraction("beta_1", beta_1)
        self.beta_2 = _checks.fraction("beta_2", beta_2)
        self.epsilon = _checks.positive_float("epsilon", epsilon)
        self.amsgrad = _checks.truth("amsgrad", amsgrad)
        slots = ["momentums", "variances", *["largest_variances"] * self.amsgrad]
        super().__init__(learning_rate, weight_decay, slots, **common)

    def kernel(self) -> Kernel | None:
        return None if self.amsgrad else self._kernel("adam", "beta_1", "beta_2", "epsilon")

    @property
    def momentums(self) -> list[Tensor]:
        """The running means of grad, one per parameter once built."""
        return self.slots["momentums"]

    @property
    def variances(self) -> list[Tensor]:
        """The running means of grad^2, one per parameter once built."""
        return self.slots["variances"]

    def _update(self, learning_rate: float, parameters: Any, grads: Any, *slots: Any) -> None:
        momentums, variances, *largest = slots
        t = self.iterations + 1
        alpha = learning_rate * (1 - self.beta_2**t) ** 0.5 / (1 - self.beta_1**t)
        torch._foreach_lerp_(momentums, grads, 1 - self.beta_1)
        torch._foreach_mul_(variances, self.beta_2)
        torch._foreach_addcmul_(variances, grads, grads, 1 - self.beta_2)
        if largest:
            torch._foreach_maximum_(largest[0], variances)
            (variances,) = largest
        divisors = torch._foreach_sqrt(variances)
        torch._foreach_add_(divisors, self.epsilon)
        torch._foreach_addcdiv_(parameters, momentums, divisors, -alpha)


class AdamW(Adam):
    """Adam with a weight decay unless told otherwise: w -= w * weight_decay * learning_rate.

    Args: Those of Adam, with weight_decay in the second place.

    Source: Loshchilov and Hutter, Decoupled weight decay regularization, 2017.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **common: Any,
    ):
        weight_decay = _checks.non_negative_float("weight_decay", weight_decay)
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, **common)

    def kernel(self) -> Kernel | None:
        return super().kernel()  # by a class's own word, a kernel does what it does


class Adagrad(SlotOptimizer):
    """w -= learning_rate * grad / sqrt(a + epsilon), a the sum of grad^2 so far.

    Args:
        learning_rate: A number of at least 0, or a schedule.
        initial_accumulator_value: What a begins at, at least 0.
        epsilon: Above 0.
        weight_decay: Before each step, w -= w * weight_decay * learning_rate. None for none.
        common: clipnorm, use_ema, name and the others of SlotOptimizer.

    Source: Duchi et al., Adaptive subgradient methods, 2011; epsilon under the root as in Keras,
    unlike in torch.optim.Adagrad.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        **common: Any,
    ):
        self.initial_accumulator_value = _checks.non_negative_float(
            "initial_accumulator_value", initial_accumulator_value
        )
        self.epsilon = _checks.positive_float("epsilon", epsilon)
        super().__init__(learning_rate, weight_decay, ["accumulators"], **common)
        self.initial_values = {"accumulators": self.initial_accumulator_value}

    def kernel(self) -> Kernel | None:
        return self._kernel("adagrad", "epsilon")

    def _update(self, learning_rate: float, parameters: Any, grads: Any, *slots: Any) -> None:
        (accumulators,) = slots
        torch._foreach_addcmul_(accumulators, grads, grads)
        divisors = torch._foreach_sqrt(torch._foreach_add(accumulators, self.epsilon))
        torch._foreach_addcdiv_(parameters, grads, divisors, -learning_rate)


class RMSprop(SlotOptimizer):
    """w -= learning_rate * grad / sqrt(v + epsilon), v a running mean of grad^2.

    v += (1 - rho) * (grad^2 - v). With momentum, these changes gather in a velocity: velocity =
    momentum * velocity + change; w -= velocity. Centered, v - m^2 takes the place of v, with m a
    running mean of grad.

    Args:
        learning_rate: A number of at least 0, or a schedule.
        rho: In [0, 1).
        momentum: In [0, 1).
        epsilon: Above 0.
        centered: Divide by an estimate of the gradient's deviation, not of its size. With momentum,
            that trains through autograd.
        weight_decay: Before each step, w -= w * weight_decay * learning_rate. None for none.
        common: clipnorm, use_ema, name and the others of SlotOptimizer.

    Source: Tieleman and Hinton, Lecture 6.5 of Neural networks for machine learning, 2012; epsilon
    under the root as in Keras, unlike in torch.optim.RMSprop.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        **common: Any,
    ):
        self.rho = _checks.fraction("rho", rho)
        self.epsilon = _checks.positive_float("epsilon", epsilon)
        self.momentum = _checks.fraction("momentum", momentum)
        self.centered = _checks.truth("centered", centered)
        slots = ["mean_squares", *["velocities"] * (momentum > 0), *["means"] * self.centered]
        super().__init__(learning_rate, weight_decay, slots, **common)

    def kernel(self) -> Kernel | None:
        is_moving = "velocities" in self.slots
        if is_moving and self.centered:
            return None
        kind = "_momentum" if is_moving else "_centered" if self.centered else ""
        return self._kernel(f"rmsprop{kind}", "rho", "momentum", "epsilon")

    def _update(self, learning_rate: float, parameters: Any, grads: Any, *slots: Any) -> None:
        named = dict(zip(self.slots, slots, strict=False))  # averages are the last
        mean_squares, means = named["mean_squares"], named.get("means")
        torch._foreach_mul_(mean_squares, self.rho)
        torch._foreach_addcmul_(mean_squares, grads, grads, 1 - self.rho)
        divisors = torch._foreach_add(mean_squares, self.epsilon)
        if means is not None:
            torch._foreach_lerp_(means, grads, 1 - self.rho)
            torch._foreach_addcmul_(divisors, means, means, -1)
        torch._foreach_sqrt_(divisors)
        if velocities := named.get("velocities"):
            torch._foreach_mul_(velocities, self.momentum)
            torch._foreach_addcdiv_(velocities, grads, divisors, learning_rate)
            torch._foreach_sub_(parameters, velocities)
        else:
            torch._foreach_addcdiv_(parameters, grads, divisors, -learning_rate)


NAMES: dict[str, Callable[[], Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "rmsprop": RMSprop,
    "adamw": AdamW,
    "adagrad": Adagrad,
    "adadelta": Adadelta,
    "adamax": Adamax,
    "nadam": Nadam,
    "lion": Lion,
    "ftrl": Ftrl,
}


def get(value: str | Optimizer | torch.optim.Optimizer | TorchFactory) -> Optimizer:
    """Returns the optimizer of this name, the optimizer itself, or a torch optimizer as one.

    Args:
        value: A name; one of our optimizers; a dict of "class_name" and "config"; a torch
            optimizer, its class, or a function from parameters to one.

    Raises:
        ValueError: Unknown name.
        TypeError: No optimizer, or a class of ours that was not instantiated.
    """
    if isinstance(value, dict) and {"class_name", "config"} <= value.keys():
        kind: Any = NAMES[_checks.find("optimizer", value["class_name"], NAMES)]
        return kind.from_config(value["config"])
    if isinstance(value, torch.optim.Optimizer):
        return TorchOptimizer(value)
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer):
        return TorchOptimizer(value)
    optimizer = _checks.resolve(
        "optimizer", value, NAMES, accept=lambda v: isinstance(v, Optimizer) or callable(v)
    )
    return optimizer if isinstance(optimizer, Optimizer) else TorchOptimizer(optimizer)


deserialize = deserializer(get)
