"""Our own times for whole trainings: microseconds a step of 1 to 16,384 models, and of fit."""

import os
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO

import numpy as np
import torch

from benchmarks import networks
from benchmarks.gpu import device, kit
from benchmarks.networks import Network
from torchnn import Sequential, ops
from torchnn._engine import graphs
from torchnn.layers import Dense
from torchnn.ops import reference
from torchnn.optimizers import SGD

NETWORKS = networks.NETWORKS | {
    "tiny": Network((8, 16, 1), batch_size=32),
    "2-16-16-1": Network((2, 16, 16, 1), batch_size=32),
    "8-25-25-1": Network((8, 25, 25, 1), batch_size=32),
}
LOSS = "binary_crossentropy_from_logits"
CLASSES_LOSS = "sparse_categorical_crossentropy_from_logits"
SLOTS = {
    "gradient_descent": 0,
    "momentum": 1,
    "nesterov": 1,
    "adam": 2,
    "rmsprop": 1,
    "rmsprop_momentum": 2,
    "rmsprop_centered": 2,
    "adagrad": 1,
}
OPTIONS = {
    "momentum": 0.9,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-7,
    "weight_decay": 0.0,
    "rho": 0.9,
    "delta": 0.5,
}
PLAN = [  # network, models, update rule; the most telling first
    ("notes", 1, "gradient_descent"),
    ("notes", 132, "gradient_descent"),
    ("notes", 1056, "gradient_descent"),
    ("digits", 1, "gradient_descent"),
    ("digits", 132, "gradient_descent"),
    ("digits", 1056, "gradient_descent"),
    ("tiny", 1, "gradient_descent"),
    ("tiny", 1056, "gradient_descent"),
    ("notes", 1, "adam"),
    ("notes", 132, "adam"),
    ("deep", 1, "gradient_descent"),
    ("full-batch", 1, "gradient_descent"),
    ("medium", 1, "gradient_descent"),
    ("large", 1, "gradient_descent"),
    ("classes", 1, "adam"),
    ("classes", 1, "gradient_descent"),
    ("classes", 1056, "adam"),
    ("regularized", 1, "gradient_descent"),
    ("notes", 133, "gradient_descent"),
    ("notes", 264, "gradient_descent"),
    ("notes", 4096, "gradient_descent"),
    ("digits", 8192, "gradient_descent"),
]
MANY = ("2-16-16-1", "tiny", "8-25-25-1", "digits")  # small models, by warps and by blocks
COUNTS = (4096, 132, 1056, 16384)
STEPS = 500  # a call, about, as fit joins short epochs; one epoch of thousands of models
FIT_EPOCHS = 300


def network_of(name: str, where: str) -> Network:
    """A network by its name; on the CPU, few samples of it."""
    network = NETWORKS[name]
    return replace(network, samples=3 * network.batch_size - 7) if where == "cpu" else network


def spread(models: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors for the first weights, and for the learning rate, of each model; 1 for one alone."""
    if models == 1:
        return np.ones(1), np.ones(1)
    return np.linspace(0.8, 1.2, models), np.linspace(0.5, 2, models)


def arguments(
    network: Network,
    models: int = 1,
    epochs: int = 1,
    where: str = "cuda",
    dtype: torch.dtype = torch.float32,
    update: str = "gradient_descent",
    loss: str | None = None,
) -> dict[str, object]:
    """What ops.train_ is given; two models or more have weights and learning rates of their own.

    The loss is a cross-entropy, if none is given: of classes, if the network has them.
    """
    loss = loss or (CLASSES_LOSS if network.has_classes else LOSS)
    scales, rates = (torch.from_numpy(factors).to(where) for factors in spread(models))

    def own(array: np.ndarray) -> torch.Tensor:
        t = torch.from_numpy(array).to(where, dtype)
        return (t if models == 1 else _times(scales.to(dtype), t)).contiguous()

    x, y = map(torch.from_numpy, network.data())
    if network.has_classes:
        y = y[:, None] if loss in reference.TAKE_LABELS else torch.nn.functional.one_hot(y)
    x, y = x.to(where, dtype), y.to(where, dtype)
    pairs = [(own(kernel.T), own(bias)) for kernel, bias in network.weights()]
    steps = torch.full((network.steps * epochs,), network.learning_rate, dtype=torch.float64)
    parameters = [p for pair in pairs for p in pair]
    return {
        "x": x,
        "y": y,
        "sample_weight": None,
        "order": torch.arange(network.samples, device=where).repeat(epochs),
        "epoch_size": network.samples,
        "batch_size": network.batch_size,
        "learning_rates": steps.to(where) if models == 1 else _times(rates, steps.to(where)),
        "loss": loss,
        "update": update,
        "options": OPTIONS,
        "steps_before": 0,
        "activations": ["sigmoid"] * (len(pairs) - 1) + [_last_for(loss)],
        "regularization": _regularization(network),
        "weights": [weight for weight, _ in pairs],
        "biases": [bias for _, bias in pairs],
        "slots": [[torch.zeros_like(p) for p in parameters] for _ in range(SLOTS[update])],
        "keep_predictions": False,
        "steps_done": torch.zeros(1, dtype=torch.int64),
    }


def _regularization(network: Network) -> list[list[float]]:
    """Five numbers a layer, or none at all; the last layer drops nothing."""
    if not (network.l2 or network.dropout):
        return []
    hidden, last = [[0, network.l2, 0, 0, rate] for rate in (network.dropout, 0)]
    return [hidden] * (len(network.widths) - 2) + [last]


def _last_for(loss: str) -> str:
    """The last activation: Poisson's loss is of numbers above 0."""
    return "softplus" if loss == "poisson" else "identity"


def _times(factors: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """t times each factor, along a new first dimension."""
    return factors.view(-1, *[1] * t.dim()) * t


def alone(many: dict[str, object], i: int | slice) -> dict[str, object]:
    """The arguments of model i, or of a slice of models, with tensors of their own."""

    def own(value: object) -> object:
        return [own(v) for v in value] if isinstance(value, list) else value[i].clone()

    names = ("learning_rates", "weights", "biases", "slots")
    return many | {name: own(many[name]) for name in names}


class Ours:
    """Epochs of one model as fit takes them, or of many in one launch; on the CPU, in turn."""

    def __init__(self, network: Network, models: int, where: str, **changes: object) -> None:
        found = arguments(network, models, where=where, **changes)
        self.where, self.train_ = where, ops.train_ if models > 1 else graphs.Trainer().train_
        in_turn = models > 1 and where == "cpu"
        self.calls = [alone(found, i) for i in range(models)] if in_turn else [found]
        sizes = np.minimum(network.batch_size, network.samples - self._starts(network))
        self.shares = torch.from_numpy(sizes / network.samples).to(where)

    @staticmethod
    def _starts(network: Network) -> np.ndarray:
        return np.arange(0, network.samples, network.batch_size)

    def epoch(self) -> torch.Tensor:
        """Queues an epoch; returns its mean loss, shape () or (models,)."""
        losses = [self.train_(**call)[0].double() @ self.shares for call in self.calls]
        for call in self.calls:
            call["steps_before"] += len(self.shares)  # which Adam reckons with
        return losses[0] if len(losses) == 1 else torch.stack(losses)

    def wait(self) -> None:
        device.wait(self.where)


def time_steps(network: str, models: int, update: str, where: str) -> kit.Row:
    """Microseconds a step of all models together, and what that comes to."""
    net = network_of(network, where)
    epochs = 1 if models > 1000 or where == "cpu" else max(1, STEPS // net.steps)
    steps = net.steps * epochs
    train_ = ops.train_ if models > 1 else graphs.Trainer().train_
    call = partial(train_, **arguments(net, models, epochs, where, update=update))
    us = device.Sampler(call, device=where).timing(rounds=5)
    us.median, us.p20, us.p80 = (value / steps for value in (us.median, us.p20, us.p80))
    return {
        "us_a_step": us,
        "steps_a_call": steps,
        "million_model_steps_a_second": models / us.median,
        "tflops": models * net.flop / us.median / 1e6,
    }


def time_many(network: str, models: int, update: str, kernel: str, where: str) -> kit.Row:
    """The same with each model in a warp or in a block of threads, whatever the library prefers."""
    os.environ["TORCHNN_CUDA_WARPS"] = "1" if kernel == "warp" else "0"
    try:
        return time_steps(network, models, update, where)
    finally:
        del os.environ["TORCHNN_CUDA_WARPS"]


def time_launch(network: str, where: str) -> kit.Row:
    """Microseconds of a call beside its steps: what a short one takes beyond a long one's rate."""
    net = network_of(network, where)
    few, many = 1, 15

    def us(epochs: int) -> float:
        call = partial(ops.train_, **arguments(net, epochs=epochs, where=where))
        return device.Sampler(call, device=where).timing(rounds=5).median

    short, long = us(few), us(many)
    return {"us_a_call_beside_steps": short - few * (long - short) / (many - few)}


def time_fit(
    network: str, fit_on: str, where: str, epochs: int = FIT_EPOCHS, verbose: int = 0
) -> kit.Row:
    """Microseconds a step of the whole of fit, on the GPU or on the CPU beside it."""
    net = network_of(network, where)
    epochs = epochs if where == "cuda" else 3
    x, y = net.data()
    model = Sequential([Dense(units, "sigmoid") for units in net.widths[1:]])
    model.to(fit_on)
    model.compile(SGD(net.learning_rate), loss="bce", metrics=["accuracy"])
    with redirect_stdout(StringIO()):
        model.fit(x, y, net.batch_size, epochs=max(1, epochs // 10), verbose=verbose)
        begun = time.perf_counter()
        model.fit(x, y, net.batch_size, epochs=epochs, verbose=verbose)
        us = (time.perf_counter() - begun) * 1e6 / (epochs * net.steps)
    finite = bool(np.isfinite(model.predict(x[:4], verbose=0)).all())
    return {"us_a_step": us, "threads": torch.get_num_threads(), "fine": finite}


def steps_plan(where: str) -> Iterator[kit.Row]:
    plan = [("tiny", 1, "gradient_descent"), ("tiny", 1, "adam")] if where == "cpu" else PLAN
    for network, models, update in plan:
        yield {"network": network, "models": models, "update": update}


def many_plan(where: str) -> Iterator[kit.Row]:
    """Only CUDA trains many models in one call."""
    cases = [(n, count, "gradient_descent") for count in COUNTS for n in MANY]
    cases += [(network, 4096, "adam") for network in MANY]
    for network, models, update in cases if where == "cuda" else []:
        for kernel in ("warp", "block"):
            yield {"network": network, "models": models, "update": update, "kernel": kernel}


def main() -> None:
    options = kit.parse(kit.parser(__doc__))
    where = options.device
    names = ("tiny",) if options.cpu else ("notes", "digits")
    rows = kit.Rows("training-cuda", options)
    rows.fill(steps_plan(where), partial(time_steps, where=where))
    rows.fill([{"network": names[0]}], partial(time_launch, where=where))
    fits = [{"network": n, "fit_on": d} for n in names for d in dict.fromkeys((where, "cpu"))]
    rows.fill(fits, partial(time_fit, where=where))
    rows.fill(many_plan(where), partial(time_many, where=where))
    raise SystemExit(rows.failed)


if __name__ == "__main__":
    main()
