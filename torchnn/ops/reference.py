"""Every operator in plain PyTorch: its definition, the tests' oracle and the slow way round.

This file imports torch alone. When a kernel and this file disagree, the kernel is wrong.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "UPDATES",
    "adam",
    "dense",
    "gradient_descent",
    "momentum",
    "nesterov",
    "predict",
    "train_",
]

# Of an output and its target, element by element.
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean_squared_error": lambda a, y: (a - y) ** 2,
    "binary_crossentropy_from_logits": lambda a, y: (
        torch.nn.functional.binary_cross_entropy_with_logits(a, y, reduction="none")
    ),
}

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "tanh": torch.tanh,
}


def gradient_descent(w: Tensor, slots: list[Tensor], grad: Tensor, rate: float, **_: float) -> None:
    w -= rate * grad


def momentum(
    w: Tensor, slots: list[Tensor], grad: Tensor, rate: float, momentum: float, **_: float
) -> None:
    slots[0].mul_(momentum).sub_(rate * grad)
    w += slots[0]


def nesterov(
    w: Tensor, slots: list[Tensor], grad: Tensor, rate: float, momentum: float, **_: float
) -> None:
    slots[0].mul_(momentum).sub_(rate * grad)
    w += momentum * slots[0] - rate * grad


def adam(
    w: Tensor,
    slots: list[Tensor],
    grad: Tensor,
    rate: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    step: int,
    **_: float,
) -> None:
    slots[0] += (grad - slots[0]) * (1 - beta_1)
    slots[1] += (grad * grad - slots[1]) * (1 - beta_2)
    corrected = rate * (1 - beta_2**step) ** 0.5 / (1 - beta_1**step)
    w -= corrected * slots[0] / (slots[1].sqrt() + epsilon)


# Each changes a weight and its slots in place. Source: Keras's optimizers.
UPDATES: dict[str, Callable[..., None]] = {
    "gradient_descent": gradient_descent,
    "momentum": momentum,
    "nesterov": nesterov,
    "adam": adam,
}


def dense(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None
) -> Tensor:
    """activation(x @ weight.T + bias).

    Args:
        x: Shape (..., in_features).
        weight: Shape (units, in_features).
        bias: Shape (units,), or None.
        activation: A key of ACTIVATIONS, or None for the identity.

    Returns:
        Shape (..., units).
    """
    return ACTIVATIONS[activation or "identity"](torch.nn.functional.linear(x, weight, bias))


def predict(
    x: Tensor,
    activations: Sequence[str],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
) -> Tensor:
    """The output of a network of dense layers, shape (N, units of the last)."""
    for weight, bias, activation in zip(weights, biases, activations, strict=True):
        x = dense(x, weight, bias, activation)
    return x


def train_(
    x: Tensor,
    y: Tensor,
    sample_weight: Tensor | None,
    order: Tensor | None,
    *,
    epoch_size: int,
    batch_size: int,
    learning_rates: Sequence[float],
    loss: str,
    update: str,
    options: Mapping[str, float],
    steps_before: int,
    activations: Sequence[str],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    slots: Sequence[Sequence[Tensor | None]],
    keep_predictions: bool,
    steps_done: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradient descent on a network of dense layers: the arguments of `torchnn.ops.train_`."""
    parameters = [p for pair in zip(weights, biases, strict=True) for p in pair]
    rows = torch.arange(len(x)) if order is None else order
    losses, outputs = [], []
    batches = [batch for epoch in rows.split(epoch_size) for batch in epoch.split(batch_size)]
    for step, batch in enumerate(batches):
        with torch.enable_grad():
            learning = [None if p is None else p.detach().requires_grad_() for p in parameters]
            output = predict(x[batch], activations, learning[::2], learning[1::2])  # type: ignore[arg-type]
            values = LOSSES[loss](output, y[batch]).mean(1)
            value = (values if sample_weight is None else values * sample_weight[batch]).mean()
            gradients = iter(torch.autograd.grad(value, [p for p in learning if p is not None]))
        for i, parameter in enumerate(parameters):
            if parameter is not None:
                parameter *= 1 - options["weight_decay"] * learning_rates[step]
                own = [slot[i] for slot in slots]
                now = {"rate": learning_rates[step], "step": steps_before + step + 1}
                UPDATES[update](parameter, own, next(gradients), **now, **options)
        losses.append(value.detach())
        outputs.append(output.detach())
        steps_done += 1
    kept = torch.cat(outputs) if keep_predictions else y.new_empty(0, y.shape[1])
    return torch.stack(losses), kept
