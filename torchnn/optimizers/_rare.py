"""Update rules that are asked for less often; they train through autograd."""

from typing import Any

import torch

from torchnn import _checks
from torchnn.optimizers._base import LearningRate, SlotOptimizer


class Adadelta(SlotOptimizer):
    """w -= learning_rate * change, change = grad * sqrt(d + epsilon) / sqrt(v + epsilon).

    v and d are running means of grad^2 and change^2: v = rho * v + (1 - rho) * grad^2.

    Args:
        learning_rate: A number of at least 0, or a schedule. The paper's is 1.
        rho: In [0, 1).
        epsilon: Above 0.
        weight_decay: Before each step, w -= w * weight_decay * learning_rate. None for none.
        common: As in SlotOptimizer.

    Source: Zeiler, ADADELTA: An adaptive learning rate method, 2012.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        **common: Any,
    ):
        self.rho = _checks.fraction("rho", rho)
        self.epsilon = _checks.positive_float("epsilon", epsilon)
        super().__init__(learning_rate, weight_decay, ["mean_squares", "mean_changes"], **common)

    def _update(self, learning_rate: float, parameters: Any, grads: Any, *slots: Any) -> None:
        mean_squares, mean_changes = slots
        torch._foreach_mul_(mean_squares, self.rho)
        torch._foreach_addcmul_(mean_squares, grads, grads, 1 - self.rho)
        ratios = torch._foreach_div(
            torch._foreach_add(mean_changes, self.epsilon),
            torch._foreach_add(mean_squares, self.epsilon),
        )
        changes = torch._foreach_mul(torch._foreach_sqrt(ratios), grads)
        torch._foreach_mul_(mean_changes, self.rho)
        torch._foreach_addcmul_(mean_changes, changes, changes, 1 - self.rho)
        torch._foreach_add_(parameters, changes, alpha=-learning_rate)


class Adamax(SlotOptimizer):
    """w -= learning_rate / (1 - b1^t) * m / (u + epsilon), u = max(b2 * u, |grad|).

    m is a running mean of grad: m += (1 - b1) * (grad - m); t counts steps from 1.

    Args:
        learning_rate: A number of at least 0, or a schedule.
        beta_1: b1, in [0, 1).
        beta_2: b2, in [0, 1).
        epsilon: Above 0.
        weight_decay: Before each step, w -= w * weight_decay * learning_rate. None for none.
        common: As in SlotOptimizer.

    Source: Kingma and Ba, Adam: A method for stochastic optimization, 2014, section 7.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        **common: Any,
    ):
        self.beta_1 = _checks.fraction("beta_1", beta_1)
        self.beta_2 = _checks.fraction("beta_2", beta_2)
        self.epsilon = _checks.positive_float("epsilon", epsilon)
        super().__init__(learning_rate, weight_decay, ["momentums", "norms"], **common)

    def _update(self, learning_rate: float, parameters: Any, grads: Any, *slots: Any) -> None:
        momentums, norms = slots
        alpha = learning_rate / (1 - self.beta_1 ** (self.iterations + 1))
        torch._foreach_lerp_(momentums, grads, 1 - self.beta_1)
        torch._foreach_mul_(norms, self.beta_2)
        torch._foreach_maximum_(norms, torch._foreach_abs(grads))
        divisors = torch._foreach_add(norms, self.epsilon)
        torch._foreach_addcdiv_(parameters, momentums, divisors, -alpha)


class Nadam(SlotOptimizer):
    """w -= learning_rate * m' / (sqrt(v / (1 - b2^t)) + epsilon), with Nesterov's look ahead in m'.

    m' = u(t+1) m / (1 - u(1) ... u(t+1)) + (1 - u(t)) grad / (1 - u(1) ... u(t)), where
    u(t) = b1 (1 - 0.96^t / 2); m and v are Adam's running means of grad and grad^2, and t counts
    steps from 1.

    Args:
        learning_rate: A number of at least 0, or a schedule.
        beta_1: b1, in [0, 1).
        beta_2: b2, in [0, 1).
        epsilon: Above 0.
        weight_decay: Before each step, w -= w * weight_decay * learning_rate. None for none.
        common: As in SlotOptimizer.

    Source: Dozat, Incorporating Nesterov momentum into Adam, 2016.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        **common: Any,
    ):
        self.beta_1 = _checks.fraction("beta_1", beta_1)
        self.beta_2 = _checks.fraction("beta_2", beta_2)
        self.epsilon = _checks.positive_float("epsilon", epsilon)
        self._product = 0, 1.0  # t, u(1) ... u(t)
        super().__init__(learning_rate, weight_decay, ["momentums", "variances"], **common)

    def _momentum(self, t: int) -> float:
        return self.beta_1 * (1 - 0.5 * 0.96**t)

    def _product_until(self, t: int) -> float:
        """u(1) ... u(t): one factor more than a step ago, unless a state has been loaded."""
        known, product = self._product if self._product[0] <= t else (0, 1.0)
        for each in range(known + 1, t + 1):
            product *= self._momentum(each)
        self._product = t, product
        return product

    def _update(self, learning_rate: float, parameters: Any, grads: Any, *slots: Any) -> None:
        momentums, variances = slots
        t = self.iterations + 1
        product, now, ahead = self._product_until(t), self._momentum(t), self._momentum(t + 1)
        torch._foreach_lerp_(momentums, grads, 1 - self.beta_1)
        torch._foreach_mul_(variances, self.beta_2)
        torch._foreach_addcmul_(variances, grads, grads, 1 - self.beta_2)
        divisors = torch._foreach_sqrt(torch._foreach_div(variances, 1 - self.beta_2**t))
        torch._foreach_add_(divisors, self.epsilon)
        of_grad = learning_rate * (1 - now) / (1 - product)
        of_momentum = learning_rate * ahead / (1 - product * ahead)
        torch._foreach_addcdiv_(parameters, grads, divisors, -of_grad)
        torch._foreach_addcdiv_(parameters, momentums, divisors, -of_momentum)


class Lion(SlotOptimizer):
    """w -= learning_rate * sign(b1 * m + (1 - b1) * grad); then m = b2 * m + (1 - b2) * grad.

    Args:
        learning_rate: A number of at least 0, or a schedule.
        beta_1: b1, in [0, 1).
        beta_2: b2, in [0, 1).
        weight_decay: Before each step, w -= w * weight_decay * learning_rate. None for none.
        common: As in SlotOptimizer.

    Source: Chen et al., Symbolic discovery of optimization algorithms, 2023.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        weight_decay: float | None = None,
        **common: Any,
    ):
        self.beta_1 = _checks.fraction("beta_1", beta_1)
        self.beta_2 = _checks.fraction("beta_2", beta_2)
        super().__init__(learning_rate, weight_decay, ["momentums"], **common)

    def _update(self, learning_rate: float, parameters: Any, grads: Any, *slots: Any) -> None:
        (momentums,) = slots
        changes = torch._foreach_sign(torch._foreach_lerp(momentums, grads, 1 - self.beta_1))
        torch._foreach_add_(parameters, changes, alpha=-learning_rate)
        torch._foreach_lerp_(momentums, grads, 1 - self.beta_2)


class Ftrl(SlotOptimizer):
    """w = (clip(s, -l1, l1) - s) / (a^p / learning_rate + 2 l2 + beta / learning_rate).

    a += grad^2; s += grad + 2 shrinkage w - (a^p - a_before^p) / learning_rate * w, with p =
    -learning_rate_power.

    Args:
        learning_rate: A number above 0, or a schedule.
        learning_rate_power: At most 0; 0 for a constant rate.
        initial_accumulator_value: What a begins at, at least 0.
        l1_regularization_strength: l1, at least 0: keeps small weights at 0.
        l2_regularization_strength: l2, at least 0.
        l2_shrinkage_regularization_strength: At least 0: a penalty that only gradients see.
        beta: At least 0.
        weight_decay: Before each step, w -= w * weight_decay * learning_rate. None for none.
        common: As in SlotOptimizer.

    Source: McMahan et al., Ad click prediction: A view from the trenches, 2013.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
        weight_decay: float | None = None,
        **common: Any,
    ):
        at_least_0 = _checks.non_negative_float
        self.l1_regularization_strength = at_least_0(
            "l1_regularization_strength", l1_regularization_strength
        )
        self.l2_regularization_strength = at_least_0(
            "l2_regularization_strength", l2_regularization_strength
        )
        self.l2_shrinkage_regularization_strength = at_least_0(
            "l2_shrinkage_regularization_strength", l2_shrinkage_regularization_strength
        )
        self.beta = at_least_0("beta", beta)
        self.initial_accumulator_value = at_least_0(
            "initial_accumulator_value", initial_accumulator_value
        )
        self.learning_rate_power = _checks.number("learning_rate_power", learning_rate_power)
        if self.learning_rate_power > 0:
            raise ValueError(f"learning_rate_power must be at most 0, got {learning_rate_power!r}")
        super().__init__(learning_rate, weight_decay, ["accumulators", "linears"], **common)
        self.initial_values = {"accumulators": self.initial_accumulator_value}

    def _update(self, learning_rate: float, parameters: Any, grads: Any, *slots: Any) -> None:
        _checks.positive_float("learning_rate", learning_rate)  # it divides by it
        accumulators, linears = slots
        l1, power = self.l1_regularization_strength, -self.learning_rate_power
        l2 = self.l2_regularization_strength + self.beta / (2 * learning_rate)
        shrinkage = self.l2_shrinkage_regularization_strength
        before = torch._foreach_pow(accumulators, power)
        torch._foreach_addcmul_(accumulators, grads, grads)
        after = torch._foreach_pow(accumulators, power)
        torch._foreach_add_(linears, grads)
        torch._foreach_add_(linears, parameters, alpha=2 * shrinkage)
        grown = torch._foreach_sub(after, before)
        torch._foreach_addcmul_(linears, grown, parameters, -1 / learning_rate)
        divisors = torch._foreach_add(torch._foreach_div(after, learning_rate), 2 * l2)
        kept = torch._foreach_clamp_max(torch._foreach_clamp_min(linears, -l1), l1)
        torch._foreach_sub_(kept, linears)
        torch._foreach_copy_(parameters, torch._foreach_div(kept, divisors))
