"""Every operator in plain PyTorch: its definition, the tests' oracle and the slow way round.

This file imports torch alone. When a kernel and this file disagree, the kernel is wrong.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import accumulate
from typing import Any, NamedTuple, ParamSpec

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "ACTIVATIONS",
    "DERIVATIVES",
    "KEEP_Z",
    "LOSSES",
    "SLOPED",
    "TAKE_LABELS",
    "UPDATES",
    "Stopping",
    "StoppingState",
    "Training",
    "Trials",
    "dense",
    "dense_backward",
    "dropped",
    "predict",
    "train_",
    "train_many_",
]

EPSILON = 1e-7  # Keras's


def sparse_categorical_crossentropy(a: Tensor, y: Tensor, **_: float) -> Tensor:
    """Of class numbers, shape (N, 1); 0 where they are those of none."""
    is_class = y == torch.arange(a.shape[1], device=a.device)
    return -(is_class * torch.log_softmax(a, 1)).sum(1)


def huber(a: Tensor, y: Tensor, delta: float, **_: float) -> Tensor:
    return F.huber_loss(a, y, reduction="none", delta=delta).mean(1)


def mean_squared_logarithmic_error(a: Tensor, y: Tensor, **_: float) -> Tensor:
    return (a.clamp(min=EPSILON).log1p() - y.clamp(min=EPSILON).log1p()).square().mean(1)


def log_cosh(a: Tensor, y: Tensor, **_: float) -> Tensor:
    d = (a - y).abs()
    return (d + torch.logaddexp(-2 * d, torch.zeros_like(d)) - math.log(2)).mean(1)


# Of the outputs of each sample, (N, units), and its targets, which are as many, or the number of a
# class, (N, 1): one number a sample, (N,). Their own number comes by its name.
LOSSES: dict[str, Callable[..., Tensor]] = {
    "mean_squared_error": lambda a, y, **_: (a - y).square().mean(1),
    "binary_crossentropy_from_logits": lambda a, y, **_: F.binary_cross_entropy_with_logits(
        a, y, reduction="none"
    ).mean(1),
    "mean_absolute_error": lambda a, y, **_: (a - y).abs().mean(1),
    "categorical_crossentropy_from_logits": lambda a, y, **_: -(y * torch.log_softmax(a, 1)).sum(1),
    "sparse_categorical_crossentropy_from_logits": sparse_categorical_crossentropy,
    "huber": huber,
    "mean_squared_logarithmic_error": mean_squared_logarithmic_error,
    "log_cosh": log_cosh,
    "hinge": lambda a, y, **_: F.relu(1 - y * a).mean(1),
    "squared_hinge": lambda a, y, **_: F.relu(1 - y * a).square().mean(1),
    "poisson": lambda a, y, **_: (a - y * (a + EPSILON).log()).mean(1),
}
# Those whose targets are class numbers.
TAKE_LABELS = ("sparse_categorical_crossentropy_from_logits",)


def identity(z: Tensor) -> Tensor:
    return z  # a function with a name: copies and TorchScript need that


def leaky_relu(z: Tensor, slope: float = 0.2) -> Tensor:
    """z where z > 0, else slope z; the usual one is Keras's."""
    return F.leaky_relu(z, negative_slope=slope)


def softplus(z: Tensor) -> Tensor:
    """log(1 + e^z), which PyTorch's own takes to be z from 20 on."""
    return torch.logaddexp(z, torch.zeros_like(z))


def normal_density(z: Tensor) -> Tensor:
    return (-z.square() / 2).exp() / math.sqrt(2 * math.pi)


# Source: Klambauer et al., Self-normalizing neural networks, 2017.
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "identity": identity,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "leaky_relu": leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "softplus": softplus,
    "silu": F.silu,
    "gelu": F.gelu,
}
# Those whose derivative needs z: it cannot be told from a.
KEEP_Z = ("silu", "gelu")
# Those that take another slope, their derivative just below 0, of at least 0; and the usual ones.
SLOPED = {"leaky_relu": 0.2, "elu": 1.0}

# dL/dz for each of them, of dL/da, and of a, or of z for those that keep it. Source: their
# derivatives.
DERIVATIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda grad, a: grad,
    "sigmoid": lambda grad, a: grad * a * (1 - a),
    "relu": lambda grad, a: torch.where(a <= 0, 0, grad),
    "tanh": lambda grad, a: grad * (1 - a * a),
    "leaky_relu": lambda grad, a: torch.where(a <= 0, 0.2 * grad, grad),
    "elu": lambda grad, a: torch.where(a <= 0, grad * (a + 1), grad),
    "selu": lambda grad, a: grad * torch.where(a <= 0, a + SELU_ALPHA * SELU_SCALE, SELU_SCALE),
    "softplus": lambda grad, a: -grad * torch.expm1(-a),
    "silu": lambda grad, z: grad * z.sigmoid() * (1 + z * (1 - z.sigmoid())),
    "gelu": lambda grad, z: grad * (torch.special.ndtr(z) + z * normal_density(z)),
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


def rmsprop_centered(
    w: Tensor,
    slots: list[Tensor],
    grad: Tensor,
    rate: float,
    rho: float,
    epsilon: float,
    **_: float,
) -> None:
    mean_square, mean = slots
    mean_square += (grad * grad - mean_square) * (1 - rho)
    mean += (grad - mean) * (1 - rho)
    w -= rate * grad / (mean_square - mean * mean + epsilon).sqrt()


def adagrad(
    w: Tensor, slots: list[Tensor], grad: Tensor, rate: float, epsilon: float, **_: float
) -> None:
    slots[0] += grad * grad
    w -= rate * grad / (slots[0] + epsilon).sqrt()


# Each changes a weight and its slots in place. Source: Keras's optimizers.
UPDATES: dict[str, Callable[..., None]] = {
    "gradient_descent": gradient_descent,
    "momentum": momentum,
    "nesterov": nesterov,
    "adam": adam,
    "rmsprop": rmsprop,
    "rmsprop_momentum": rmsprop,
    "rmsprop_centered": rmsprop_centered,
    "adagrad": adagrad,
}

BITS = 0xFFFFFFFF  # of 32-bit numbers, which are in int64 here


def mixed(x: Any) -> Any:
    """A number of 32 bits, each of which depends on every bit of x."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & BITS
    x = ((x ^ (x >> 15)) * 0x846CA68B) & BITS
    return x ^ (x >> 16)


def dropped(rows: Tensor, units: int, rate: float, seed: int, step: int) -> Tensor:
    """Which outputs of a layer, or features of x, a step of training drops, at a rate.

    It follows from these numbers alone, on every device: the hash of an output's row and unit is
    compared with the rate. Source: csrc/math/dropout.h.

    Args:
        rows: Their places in the batch, shape (N,), int64.
        units: How many there are.
        rate: At least 0 and below 1.
        seed: Any int64.
        step: From the first ever, 1, 2, ...

    Returns:
        Shape (N, units), bool.
    """
    key = mixed(seed & BITS)
    for part in ((seed >> 32) & BITS, step & BITS, step >> 32):
        key = mixed(key ^ part)
    of_rows = mixed((rows + key) & BITS)
    of_units = (torch.arange(units, device=rows.device) * 0x9E3779B9) & BITS
    return mixed((of_rows[:, None] + of_units) & BITS) >> 1 < int(rate * 2**31)


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
        out: What dense gave, (..., units), or z for those in KEEP_Z; not looked at for the
            identity.
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
    slopes: Sequence[float] = (),
) -> Tensor:
    """The output of a network of dense layers, shape (N, units of the last), or of models of one
    shape, (models, N, units)."""
    if weights[0].ndim == 3:
        each = [
            ([w[i] for w in weights], [None if b is None else b[i] for b in biases])
            for i in range(len(weights[0]))
        ]
        own = x if x.ndim == 3 else [x] * len(each)
        return torch.stack(
            [predict(x, activations, *of, slopes) for x, of in zip(own, each, strict=True)]
        )
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = _activated(dense(x, weight, bias), activations, slopes, layer)
    return x


def _activated(
    z: Tensor, activations: Sequence[str], slopes: Sequence[float], layer: int
) -> Tensor:
    name = activations[layer]
    has_own = name in SLOPED and len(slopes) > 0 and slopes[layer] >= 0
    return ACTIVATIONS[name](z, slopes[layer]) if has_own else ACTIVATIONS[name](z)


@dataclass
class Training:
    """Steps of gradient descent on a network of dense layers: the arguments of train_.

    Several models of one shape may train side by side: weights, biases and slots then have a
    leading dimension of models, and so have the results. Anything else may have it too, or is
    shared by all models.

    Args:
        x: Features, shape (N, in_features).
        y: Targets, shape (N, units of the last layer), or class numbers, (N, 1), if the loss is one
            of TAKE_LABELS: negative where a sample does not count, which CUDA does not know.
        sample_weight: Shape (N,), or None.
        order: Rows of x in the order of training, shape (samples,), int64; None for x as it lies.
        epoch_size: Samples an epoch: a batch ends where its epoch does.
        batch_size: Rows a step; the last step of an epoch may have fewer.
        learning_rates: One for each step, shape (steps,).
        loss: A key of LOSSES: of the last layer's output and y, averaged over a batch.
        update: A key of UPDATES.
        options: The numbers of the update rule and of the loss by their names, and weight_decay,
            clip_value, clip_norm (of each weight's and bias's gradient) and global_clip_norm (of
            all together), 0 for none; for models, a number or one for each.
        steps_before: Steps that earlier calls have taken, for Adam: a number, or one int64.
        activations: A key of ACTIVATIONS for each layer.
        slopes: Those of SLOPED just below 0, one a layer, negative for the usual one, which is all
            that CUDA knows; or none at all.
        regularization: Five numbers a layer, or none at all: l1 and l2 of the weight, l1 and l2 of
            the bias, and the dropout of the outputs. A penalty l1 sum|w| + l2 sum(w^2) is added to
            the loss.
        seeds: Of what is dropped, one a layer, or none for 0.
        input_dropout: That of x.
        input_seed: Of what of x is dropped.
        weights: Shape (units, in_features) each.
        biases: Shape (units,) each, or None.
        slots: For each slot of the update rule, what it remembers of weight and bias of each layer
            in turn, shaped like these.
        snapshots: What weights, biases and slots become after each epoch of the call, all of which
            are whole: a list for weight and bias of each layer in turn and one for each slot, of
            shapes (epochs, ...); or none at all. Of one model, on the CPU, alone.
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
    slopes: Sequence[float] = ()
    regularization: Sequence[Sequence[float]] = ()
    seeds: Sequence[int] = ()
    input_dropout: float = 0.0
    input_seed: int = 0
    weights: Sequence[Tensor]
    biases: Sequence[Tensor | None]
    slots: Sequence[Sequence[Tensor | None]]
    snapshots: Sequence[Sequence[Tensor | None]] = ()
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
    epochs = [epoch.split(job.batch_size) for epoch in rows.split(job.epoch_size)]
    ends = list(accumulate(map(len, epochs)))
    batches = [batch for epoch in epochs for batch in epoch]
    options: Any = job.options
    for i, batch in enumerate(batches):
        rate, step = float(job.learning_rates[i]), int(job.steps_before) + i + 1
        with torch.enable_grad():
            learning = [None if p is None else p.detach().requires_grad_() for p in parameters]
            output = _outputs(job, batch, learning[::2], learning[1::2], step)
            values = LOSSES[job.loss](output, job.y[batch], **options)
            weight = 1 if job.sample_weight is None else job.sample_weight[batch]
            value = (values * weight).sum() / _counted(job, batch) + _penalties(job, learning)
            found = torch.autograd.grad(value, [p for p in learning if p is not None])
        gradients = iter(clipped(found, **options))
        for place, parameter in enumerate(parameters):
            if parameter is not None:
                parameter *= 1 - options.get("weight_decay", 0.0) * rate
                own = [slot[place] for slot in job.slots]
                now = {"rate": rate, "step": step}
                UPDATES[job.update](parameter, own, next(gradients), **now, **options)
        losses.append(value.detach())
        outputs.append(output.detach())
        job.steps_done += 1
        if job.snapshots and i + 1 in ends:
            _keep(job, [parameters, *job.slots], ends.index(i + 1))
    kept = job.weights[-1].shape[0]
    nothing = job.x.new_empty(0, kept)
    return torch.stack(losses), torch.cat(outputs) if job.keep_predictions else nothing


@dataclass
class Trials:
    """Models that train at once, each by numbers of its own: the arguments of train_many_.

    Activations, slopes, loss, update rule, batches and the kind of every argument are the same for
    all; so are the features of x, the units of the last layer, and which layers have a bias. The
    layers between may have other units in each model.

    Args:
        x: Features, shape (N, in_features), of all models.
        y: Targets, shape (N, units of the last layer), or class numbers, (N, 1), as in Training; or
            those of each model, with a leading dimension of models.
        sample_weight: Shape (N,), or (models, N), or None.
        orders: Orders of training, shape (orders, samples), int64: rows of x.
        order_of: Which of them is each model's, shape (models,), int64.
        epoch_size: As in Training.
        batch_size: As in Training.
        learning_rates: Shape (models, steps), float64.
        loss: A key of LOSSES.
        update: A key of UPDATES.
        options: As in Training, a number or one for each model; delta is that of all.
        steps_before: Shape (models,), int64.
        activations: A key of ACTIVATIONS for each layer.
        slopes: As in Training.
        regularization: As in Training, shape (models, layers, 5), float64; or without elements.
        seeds: Of what is dropped, of each layer and of x, shape (models, layers + 1), int64.
        input_dropout: That of x, shape (models,), float64.
        weights: Those of the first model, of the second, and so on, (units, in_features) each.
        biases: The same; or None.
        slots: The same: of each model, for each slot, what it remembers of weight and bias of each
            layer in turn.
        validation_x: Features to measure the models on, in batches of that size, after each epoch
            of the call, all of which are whole, or once if orders holds no samples; shape (M,
            in_features), or None.
        validation_y: Their targets, as y.
        validation_weight: What they count for, as sample_weight.
        validation_rows: Rows of it in sets, shape (sets, rows), int64; None for all of it.
        validation_of: Which of them is each model's, shape (models,), int64; None with no sets.
        stopping: When each model may end early, shape (models, 6), float64: the numbers of a
            Stopping; or without elements.
        stopping_state: What is known of that, shape (models, 5), float64: those of a StoppingState.
            It changes in place. Of epochs behind a model's last one, no losses or outputs are told.
        best: Where weight and bias of each layer in turn, of the first model, of the second, and so
            on, are kept as they are after the best epoch: like these, or None; or none at all.
        keep_predictions: As in Training.
        steps_done: As in Training. All steps of a model that ends early count.
    """

    x: Tensor
    y: Tensor
    sample_weight: Tensor | None
    orders: Tensor
    order_of: Tensor
    _: KW_ONLY
    epoch_size: int
    batch_size: int
    learning_rates: Tensor
    loss: str
    update: str
    options: Mapping[str, float | Sequence[float] | Tensor]
    steps_before: Tensor
    activations: Sequence[str]
    slopes: Sequence[float] = ()
    regularization: Tensor
    seeds: Tensor
    input_dropout: Tensor
    weights: Sequence[Tensor]
    biases: Sequence[Tensor | None]
    slots: Sequence[Tensor | None]
    validation_x: Tensor | None = None
    validation_y: Tensor | None = None
    validation_weight: Tensor | None = None
    validation_rows: Tensor | None = None
    validation_of: Tensor | None = None
    stopping: Tensor = field(default_factory=lambda: _no_numbers())
    stopping_state: Tensor = field(default_factory=lambda: _no_numbers())
    best: Sequence[Tensor | None] = ()
    keep_predictions: bool
    steps_done: Tensor

    @property
    def models(self) -> int:
        """How many there are."""
        return len(self.weights) // max(len(self.activations), 1)

    def of_model(self, i: int) -> Training:
        """The training of one of them, on the same memory, without its validation."""
        layers, models = len(self.activations), self.models
        each = slice(i * layers, (i + 1) * layers)
        count = len(self.slots) // models
        slots = self.slots[i * count : (i + 1) * count]
        weight = self.sample_weight

        def number(value: Any) -> float:
            value = torch.as_tensor(value, dtype=torch.float64, device="cpu")
            return float(value[i] if value.ndim else value)

        return Training(
            self.x,
            self.y[i] if self.y.ndim > 2 else self.y,
            weight[i] if weight is not None and weight.ndim > 1 else weight,
            self.orders[self.order_of[i]],
            epoch_size=self.epoch_size,
            batch_size=self.batch_size,
            learning_rates=self.learning_rates[i],
            loss=self.loss,
            update=self.update,
            options={name: number(value) for name, value in self.options.items()},
            steps_before=int(self.steps_before[i]),
            activations=self.activations,
            slopes=self.slopes,
            regularization=self.regularization[i].tolist() if self.regularization.numel() else (),
            seeds=self.seeds[i, :-1].tolist(),
            input_dropout=float(self.input_dropout[i]),
            input_seed=int(self.seeds[i, -1]),
            weights=self.weights[each],
            biases=self.biases[each],
            slots=[slots[k : k + 2 * layers] for k in range(0, count, 2 * layers)],
            keep_predictions=self.keep_predictions,
            steps_done=self.steps_done.clone(),
        )


def train_many_(job: Trials) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Takes the steps of all models: weights, biases and slots change in place.

    Returns:
        Losses, shape (models, steps), and predictions, (models, samples, units), as in train_; and
        of the validation rows the losses, with penalties, (models, epochs, batches), and the
        outputs, (models, epochs, rows, units), or none if they were not to be kept.
    """
    results = [_train_and_validate(job, i) for i in range(job.models)]
    losses, predictions, values, outputs = map(torch.stack, zip(*results, strict=True))
    job.steps_done += losses.numel()
    return losses, predictions, values, outputs


def _train_and_validate(job: Trials, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    model, samples, size = job.of_model(i), job.orders.shape[1], job.epoch_size
    steps = len(job.orders[0, :size].split(job.batch_size))
    trained: list[Any] = []
    measured: list[Any] = []
    for epoch in range(-(-samples // size)):
        if (state := _state(job, i)) is not None and state.has_stopped:
            break
        part = replace(
            model,
            order=model.order[epoch * size : (epoch + 1) * size],  # type: ignore[index]
            learning_rates=model.learning_rates[epoch * steps :],
            steps_before=int(model.steps_before) + epoch * steps,
        )
        trained.append(_train_one(part))
        measured.append(_measured(job, i, model))
        if len(part.order) == size:  # type: ignore[arg-type]
            _end_epoch(job, i, model, trained[-1][0], measured[-1][0])
    if not trained:
        trained = [(job.x.new_empty(0), job.x.new_empty(0, job.weights[-1].shape[0]))]
        measured = [_measured(job, i, model)]
    losses, predictions = map(torch.cat, zip(*trained, strict=True))
    values, outputs = map(torch.stack, zip(*measured, strict=True))
    epochs = max(samples // size, 1) if job.validation_x is not None else 0
    return (
        _filled_up(losses, job.learning_rates.shape[1]),
        _filled_up(predictions, samples if job.keep_predictions else 0),
        _filled_up(values[:epochs], epochs),
        _filled_up(outputs[:epochs], epochs),
    )


def _filled_up(told: Tensor, count: int) -> Tensor:
    """So many of them: NaN where a model has ended early."""
    return torch.cat([told, told.new_full((count - len(told), *told.shape[1:]), math.nan)])


def _no_numbers() -> Tensor:
    return torch.empty(0, dtype=torch.float64, device="cpu")


class Stopping(NamedTuple):
    """When the training of a model ends early.

    Attributes:
        patience: As in callbacks.EarlyStopping; below 0 if it never does.
        of_validation: 1 to look at the loss of the validation rows, 0 at that of training.
        sign: 1 if it is to fall, -1 if it is to rise.
        min_delta: As in callbacks.EarlyStopping.
        baseline: Likewise; NaN for none.
        start_from_epoch: Likewise.
    """

    patience: float = -1.0
    of_validation: float = 0.0
    sign: float = 1.0
    min_delta: float = 0.0
    baseline: float = math.nan
    start_from_epoch: float = 0.0


class StoppingState(NamedTuple):
    """What is known of it after some epochs.

    Attributes:
        best: The best loss; NaN for none.
        best_epoch: Its epoch, or the first one that was looked at; -1 for none.
        wait: Epochs since the last improvement.
        epochs: Those trained.
        has_stopped: 1 if it has ended early.
    """

    best: float = math.nan
    best_epoch: float = -1.0
    wait: float = 0.0
    epochs: float = 0.0
    has_stopped: float = 0.0

    def after(self, rule: Stopping, loss: float) -> tuple["StoppingState", bool]:
        """Returns what is known after another epoch of that loss, and whether it is the best one
        so far."""

        def improves(other: float) -> bool:
            if math.isnan(other):
                return not math.isnan(loss)
            return rule.sign * loss + rule.min_delta < rule.sign * other

        epoch, state = self.epochs, self._replace(epochs=self.epochs + 1)
        if epoch < rule.start_from_epoch:
            return state, False
        wait = self.wait + 1
        if improves(self.best):
            wait = 0 if improves(rule.baseline) else wait
            return state._replace(best=loss, best_epoch=epoch, wait=wait), True
        has_stopped = float(wait >= rule.patience and epoch > 0)
        state = state._replace(wait=wait, has_stopped=has_stopped)
        if self.best_epoch < 0:  # NaN so far: there must be something to keep all the same
            return state._replace(best_epoch=epoch), True
        return state, False


def _state(job: Trials, i: int) -> StoppingState | None:
    """What is known of a model that may end early."""
    if not job.stopping.numel() or job.stopping[i, 0] < 0:
        return None
    return StoppingState(*job.stopping_state[i].tolist())


def _end_epoch(job: Trials, i: int, model: Training, losses: Tensor, measured: Tensor) -> None:
    """Takes the losses of an epoch into what is known, and keeps the weights of the best one."""
    state = _state(job, i)
    if state is None:
        return
    rule = Stopping(*job.stopping[i].tolist())
    values, rows = losses, job.epoch_size
    if rule.of_validation:
        values, rows = measured, len(job.validation_x)  # type: ignore[arg-type]
        if job.validation_rows is not None:
            rows = job.validation_rows.shape[1]
    sizes = [min(job.batch_size, rows - first) for first in range(0, rows, job.batch_size)]
    parts = (value * size for value, size in zip(values.tolist(), sizes, strict=True))
    state, is_best = state.after(rule, sum(parts) / rows)
    job.stopping_state[i] = job.stopping_state.new_tensor(state)
    if is_best and job.best:
        own = [p for pair in zip(model.weights, model.biases, strict=True) for p in pair]
        for kept, p in zip(job.best[i * len(own) : (i + 1) * len(own)], own, strict=True):
            if kept is not None and p is not None:
                kept.copy_(p)


def _measured(job: Trials, i: int, model: Training) -> tuple[Tensor, Tensor]:
    """The losses of the batches of a model's validation rows, and the outputs of all."""
    x, y, weight = job.validation_x, job.validation_y, job.validation_weight
    if x is None or y is None:
        return job.x.new_empty(0), job.x.new_empty(0, job.weights[-1].shape[0])
    y = y[i] if y.ndim > 2 else y
    weight = weight[i] if weight is not None and weight.ndim > 1 else weight
    rows = torch.arange(len(x), device=x.device)
    if job.validation_rows is not None and job.validation_of is not None:
        rows = job.validation_rows[job.validation_of[i]]
    output = predict(x[rows], model.activations, model.weights, model.biases, model.slopes)
    options: Any = model.options
    parameters = [p for pair in zip(model.weights, model.biases, strict=True) for p in pair]
    losses = []
    for batch, a in zip(rows.split(job.batch_size), output.split(job.batch_size), strict=True):
        values = LOSSES[job.loss](a, y[batch], **options)
        if weight is not None:
            values = values * weight[batch]
        measured = replace(model, y=y)
        losses.append(values.sum() / _counted(measured, batch) + _penalties(model, parameters))
    return torch.stack(losses), output if job.keep_predictions else output[:0]


def _keep(job: Training, state: Sequence[Sequence[Tensor | None]], epoch: int) -> None:
    """Takes the snapshots after an epoch."""
    for kept, tensors in zip(job.snapshots, state, strict=True):
        for to, tensor in zip(kept, tensors, strict=True):
            if to is not None and tensor is not None:
                to[epoch] = tensor


def _counted(job: Training, batch: Tensor) -> int:
    """The rows of a batch that its mean is over."""
    if job.loss not in TAKE_LABELS:
        return len(batch)
    return max(int((job.y[batch] >= 0).sum()), 1)


def _outputs(job: Training, batch: Tensor, weights: Any, biases: Any, step: int) -> Tensor:
    """Those in training: some of them are dropped."""
    places = torch.arange(len(batch), device=job.x.device)

    def left(a: Tensor, rate: float, seed: int) -> Tensor:
        return torch.where(dropped(places, a.shape[1], rate, seed, step), 0, a / (1 - rate))

    a = job.x[batch]
    if job.input_dropout:
        a = left(a, job.input_dropout, job.input_seed)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        a = _activated(dense(a, weight, bias), job.activations, job.slopes, layer)
        rate = job.regularization[layer][4] if job.regularization else 0
        if rate:
            a = left(a, rate, job.seeds[layer] if job.seeds else 0)
    return a


def _penalties(job: Training, parameters: Sequence[Tensor | None]) -> Tensor | float:
    """What weights and biases, in turn, add to the loss."""
    factors = [pair for row in job.regularization for pair in (row[0:2], row[2:4])]
    return sum(
        l1 * p.abs().sum() + l2 * p.square().sum()
        for p, (l1, l2) in zip(parameters, factors, strict=False)
        if p is not None
    )


def clipped(
    gradients: Sequence[Tensor],
    clip_value: float = 0.0,
    clip_norm: float = 0.0,
    global_clip_norm: float = 0.0,
    **_: float,
) -> Sequence[Tensor]:
    """Gradients of which each number, each norm, or the norm of all is at most so large."""

    def factor(norm: Tensor, most: float) -> Tensor:
        return torch.where(norm > most, most / norm, 1.0)

    if clip_norm:
        gradients = [grad * factor(grad.norm(), clip_norm) for grad in gradients]
    elif global_clip_norm:
        norm = torch.stack([grad.norm() for grad in gradients]).norm()
        gradients = [grad * factor(norm, global_clip_norm) for grad in gradients]
    return [grad.clamp(-clip_value, clip_value) if clip_value else grad for grad in gradients]
