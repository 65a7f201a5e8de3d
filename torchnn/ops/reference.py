"""Every operator in plain PyTorch: its definition, the tests' oracle and the slow way round.

This file imports torch alone. When a kernel and this file disagree, the kernel is wrong.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "ACTIVATIONS",
    "DERIVATIVES",
    "LOSSES",
    "UPDATES",
    "Training",
    "dense",
    "dense_backward",
    "predict",
    "train_",
]

# Of the outputs of each sample and its targets, (N, units) both: one number a sample, (N,).
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean_squared_error": lambda a, y: (a - y).square().mean(1),
    "binary_crossentropy_from_logits": lambda a, y: F.binary_cross_entropy_with_logits(
        a, y, reduction="none"
    ).mean(1),
    "mean_absolute_error": lambda a, y: (a - y).abs().mean(1),
    "categorical_crossentropy_from_logits": lambda a, y: -(y * torch.log_softmax(a, 1)).sum(1),
}


def identity(z: Tensor) -> Tensor:
    return z  # a function with a name: copies and TorchScript need that


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": identity,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "tanh": torch.tanh,
}

# dL/dz, of dL/da and a, for each of them. Source: their derivatives, in terms of a.
DERIVATIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda grad, a: grad,
    "sigmoid": lambda grad, a: grad * a * (1 - a),
    "relu": lambda grad, a: torch.where(a <= 0, 0, grad),
    "tanh": lambda grad, a: grad * (1 - a * a),
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


def rmsprop(
    w: Tensor,
    slots: list[Tensor],
    grad: Tensor,
    rate: float,
    rho: float,
    epsilon: float,
    momentum: float,
    **_: float,
) -> None:
    mean_square, *velocity = slots
    mean_square += (grad * grad - mean_square) * (1 - rho)
    change = rate * grad / (mean_square + epsilon).sqrt()
    w -= velocity[0].mul_(momentum).add_(change) if velocity else change


# Each changes a weight and its slots in place. Source: Keras's optimizers.
UPDATES: dict[str, Callable[..., None]] = {
    "gradient_descent": gradient_descent,
    "momentum": momentum,
    "nesterov": nesterov,
    "adam": adam,
    "rmsprop": rmsprop,
    "rmsprop_momentum": rmsprop,
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
    return ACTIVATIONS[activation or "identity"](F.linear(x, weight, bias))


def dense_backward(
    grad_out: Tensor, out: Tensor, x: Tensor | None, weight: Tensor | None, activation: str
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """The gradients of dense, given that of its output; these can be differentiated in turn.

    Args:
        grad_out: Shape (..., units).
        out: What dense gave, (..., units); not looked at for the identity.
        x: Shape (..., in_features), or None if weight's gradient is not wanted.
        weight: Shape (units, in_features), or None if x's gradient is not wanted.
        activation: A key of ACTIVATIONS.

    Returns:
        The gradients of x, weight and bias.
    """
    grad_z = DERIVATIVES[activation](grad_out, out)
    rows = grad_z.reshape(-1, grad_z.shape[-1])
    grad_x = None if weight is None else grad_z @ weight
    grad_weight = None if x is None else rows.mT @ x.reshape(-1, x.shape[-1])
    return grad_x, grad_weight, rows.sum(0)


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


@dataclass
class Training:
    """Steps of gradient descent on a network of dense layers: the arguments of train_.

    Several models of one shape may train side by side: weights, biases and slots then have a
    leading dimension of models, and so have the results. Anything else may have it too, or is
    shared by all models.

    Args:
        x: Features, shape (N, in_features).
        y: Targets, shape (N, units of the last layer).
        sample_weight: Shape (N,), or None.
        order: Rows of x in the order of training, shape (samples,), int64; None for x as it lies.
        epoch_size: Samples an epoch: a batch ends where its epoch does.
        batch_size: Rows a step; the last step of an epoch may have fewer.
        learning_rates: One for each step, shape (steps,).
        loss: A key of LOSSES: of the last layer's output and y, averaged over a batch.
        update: A key of UPDATES.
        options: The update rule's numbers by their names, and weight_decay; for models, a number or
            one for each.
        steps_before: Steps that earlier calls have taken, for Adam: a number, or one int64.
        activations: A key of ACTIVATIONS for each layer.
        weights: Shape (units, in_features) each.
        biases: Shape (units,) each, or None.
        slots: For each slot of the update rule, what it remembers of weight and bias of each layer
            in turn, shaped like these.
        keep_predictions: Whether to return what came out, before each step, of the last layer.
        steps_done: Shape (1,), int64, on the CPU: the steps are added to it.
    """

    x: Tensor
    y: Tensor
    sample_weight: Tensor | None
    order: Tensor | None
    _: KW_ONLY
    epoch_size: int
    batch_size: int
    learning_rates: Sequence[float] | Tensor
    loss: str
    update: str
    options: Mapping[str, float | Sequence[float] | Tensor]
    steps_before: int | Tensor
    activations: Sequence[str]
    weights: Sequence[Tensor]
    biases: Sequence[Tensor | None]
    slots: Sequence[Sequence[Tensor | None]]
    keep_predictions: bool
    steps_done: Tensor

    @property
    def samples(self) -> int:
        """How many to train on, of all epochs together."""
        return self.x.shape[-2] if self.order is None else self.order.shape[-1]

    @property
    def models(self) -> int | None:
        """How many models train side by side, or None without a dimension for them."""
        return len(self.weights[0]) if self.weights[0].ndim == 3 else None

    def of_model(self, i: int) -> "Training":
        """The same for one of the models by itself, on the same memory."""

        def own(value: Any, dim: int) -> Any:
            return value[i] if value is not None and value.ndim > dim else value

        place: Any = {"dtype": torch.float64, "device": "cpu"}
        rates = torch.as_tensor(self.learning_rates, **place)
        options = {name: torch.as_tensor(value, **place) for name, value in self.options.items()}
        return replace(
            self,
            x=own(self.x, 2),
            y=own(self.y, 2),
            sample_weight=own(self.sample_weight, 1),
            order=own(self.order, 1),
            learning_rates=own(rates, 1),
            options={name: own(number, 0).item() for name, number in options.items()},
            weights=[weight[i] for weight in self.weights],
            biases=[None if bias is None else bias[i] for bias in self.biases],
            slots=[[None if t is None else t[i] for t in slot] for slot in self.slots],
        )


Results = tuple[Tensor, Tensor]
P = ParamSpec("P")


def taking(
    kind: Callable[P, Training],
) -> Callable[[Callable[[Training], Results]], Callable[P, Results]]:
    """Makes a function of a Training one of its arguments, which are spelled there alone."""

    def decorate(train: Callable[[Training], Results]) -> Callable[P, Results]:
        @functools.wraps(train)
        def train_(*arguments: P.args, **named: P.kwargs) -> Results:
            return train(kind(*arguments, **named))

        signature = inspect.signature(kind)
        train_.__signature__ = signature.replace(return_annotation=Results)  # type: ignore[attr-defined]
        return train_

    return decorate


@taking(Training)
def train_(job: Training) -> Results:
    """Takes the steps: weights, biases and slots change in place.

    Args: Those of Training.

    Returns:
        The loss of each batch before its step, shape (steps,), and the outputs in order, shape
        (samples, units), or (0, units) if they were not to be kept.
    """
    if job.models is None:
        return _train_one(job)
    done = job.steps_done.clone()
    results = [
        _train_one(replace(job.of_model(i), steps_done=done.clone())) for i in range(job.models)
    ]
    losses, predictions = map(torch.stack, zip(*results, strict=True))
    job.steps_done += losses.shape[1]
    return losses, predictions


def _train_one(job: Training) -> Results:
    parameters = [p for pair in zip(job.weights, job.biases, strict=True) for p in pair]
    rows = torch.arange(len(job.x), device=job.x.device) if job.order is None else job.order
    losses, outputs = [], []
    batches = [
        batch for epoch in rows.split(job.epoch_size) for batch in epoch.split(job.batch_size)
    ]
    options: Any = job.options
    for step, batch in enumerate(batches):
        rate = float(job.learning_rates[step])
        with torch.enable_grad():
            learning = [None if p is None else p.detach().requires_grad_() for p in parameters]
            output = predict(job.x[batch], job.activations, learning[::2], learning[1::2])  # type: ignore[arg-type]
            values = LOSSES[job.loss](output, job.y[batch])
            weight = 1 if job.sample_weight is None else job.sample_weight[batch]
            value = (values * weight).mean()
            gradients = iter(torch.autograd.grad(value, [p for p in learning if p is not None]))
        for i, parameter in enumerate(parameters):
            if parameter is not None:
                parameter *= 1 - options.get("weight_decay", 0.0) * rate
                own = [slot[i] for slot in job.slots]
                now = {"rate": rate, "step": int(job.steps_before) + step + 1}
                UPDATES[job.update](parameter, own, next(gradients), **now, **options)
        losses.append(value.detach())
        outputs.append(output.detach())
        job.steps_done += 1
    kept = torch.cat(outputs) if job.keep_predictions else job.y.new_empty(0, job.y.shape[1])
    return torch.stack(losses), kept
