"""The ways to train many models of one shape that benchmarks.many compares.

Each class takes a network and a number of models, whose first weights and learning rates are those
of benchmarks.gpu.training's spread, and has `fit(epochs)`: it trains all of them on, and returns
the mean loss of every epoch, (models, epochs), of the models that `compared` names.
"""

import copy
from dataclasses import replace

import numpy as np
import torch

import torchnn
from benchmarks.fits import TorchnnFit
from benchmarks.gpu.peers import Func, Jax
from benchmarks.gpu.training import spread
from benchmarks.networks import Network
from benchmarks.peers import ON_CPU, Peer
from torchnn import ops
from torchnn.ops.reference import Trials

MOST_COMPARED = 5


def compared(models: int) -> list[int]:
    """The numbers of the models whose losses are compared: the first, the last, some between."""
    return np.unique(np.linspace(0, models - 1, MOST_COMPARED).round().astype(int)).tolist()


def environment(threads: int) -> dict[str, str]:
    """What lets a process's libraries compute in so many threads."""
    found = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if threads == 1:  # else JAX takes all cores
        found |= {"NPROC": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    return found


class FitMany:
    """torchnn.fit_many, on NumPy arrays."""

    def __init__(self, network: Network, models: int):
        self.network = network
        self.x, self.y = network.data()
        self.models = compiled_models(network, models)

    def fit(self, epochs: int) -> list[list[float]]:
        histories = torchnn.fit_many(self.models, self.x, self.y, **self.options(epochs))
        return [histories[i].history["loss"] for i in compared(len(self.models))]

    def options(self, epochs: int) -> dict[str, object]:
        size = self.network.batch_size
        return {"epochs": epochs, "batch_size": size, "shuffle": False, "verbose": 0}


class FitInTurn(FitMany):
    """Sequential.fit of one model after the other."""

    def fit(self, epochs: int) -> list[list[float]]:
        options = self.options(epochs)
        histories = [model.fit(self.x, self.y, **options) for model in self.models]
        return [histories[i].history["loss"] for i in compared(len(self.models))]


def compiled_models(network: Network, models: int) -> list[torchnn.Sequential]:
    """Compiled models: copies of one, since to build thousands takes long."""
    first = TorchnnFit(network).model
    found = []
    for scale, rate in zip(*spread(models), strict=True):
        model = copy.deepcopy(first)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= scale
        model.optimizer.learning_rate = network.learning_rate * rate
        found.append(model)
    return found


class TrainMany:
    """The operator under fit_many, one call for all epochs, on tensors known to be good."""

    def __init__(self, network: Network, models: int):
        self.network = network
        scales, rates = spread(models)
        self.rates = torch.from_numpy(rates * network.learning_rate)[:, None]
        x, y = map(torch.from_numpy, network.data())
        pairs = [
            [torch.from_numpy(array.T * array.dtype.type(scale)).contiguous() for array in pair]
            for scale in scales
            for pair in network.weights()
        ]
        layers = len(network.widths) - 1
        self.job = Trials(
            x=x,
            y=y,
            sample_weight=None,
            orders=torch.arange(network.samples)[None],
            order_of=torch.zeros(models, dtype=torch.int64),
            epoch_size=network.samples,
            batch_size=network.batch_size,
            learning_rates=self.rates.expand(-1, network.steps).contiguous(),
            loss="binary_crossentropy_from_logits",
            update="gradient_descent",
            options={},
            steps_before=torch.zeros(models, dtype=torch.int64),
            activations=[*["sigmoid"] * (layers - 1), "identity"],
            regularization=torch.zeros(0, dtype=torch.float64),
            seeds=torch.zeros(models, layers + 1, dtype=torch.int64),
            input_dropout=torch.zeros(models, dtype=torch.float64),
            weights=[weight for weight, _ in pairs],
            biases=[bias for _, bias in pairs],
            slots=[],
            keep_predictions=False,
            steps_done=torch.zeros(1, dtype=torch.int64),
        )

    def fit(self, epochs: int) -> list[list[float]]:
        network, job = self.network, self.job
        steps = epochs * network.steps
        job = replace(
            job,
            orders=torch.arange(network.samples).repeat(1, epochs),
            learning_rates=self.rates.expand(-1, steps).contiguous(),
        )
        losses, *_ = ops.train_many_(job)
        starts = torch.arange(0, network.samples, network.batch_size)
        shares = (network.samples - starts).clamp(max=network.batch_size) / network.samples
        shown = losses[compared(job.models)].reshape(-1, epochs, network.steps)
        return (shown.double() @ shares.double()).tolist()


class JaxVmap:
    """A jitted lax.scan of an epoch, under jax.vmap."""

    def __init__(self, network: Network, models: int):
        self.models, self.trainer = models, Jax(network, models, "cpu", None)

    def fit(self, epochs: int) -> list[list[float]]:
        losses = [self.trainer.epoch() for _ in range(epochs)]  # queued
        self.trainer.wait()
        found = np.stack([np.asarray(loss).reshape(-1) for loss in losses], 1)
        return found[compared(self.models)].tolist()


class JaxInTurn:
    """The jitted lax.scan of an epoch, of one model after the other."""

    def __init__(self, network: Network, models: int):
        import jax

        one = Jax(network, 1, "cpu", None)
        weights, *rest = one.state
        scales, rates = (factors.astype(np.float32) for factors in spread(models))
        self.rates = rates * np.float32(network.learning_rate)
        self.states = [(jax.tree.map(lambda w, s=s: w * s, weights), *rest) for s in scales]
        self.epoch, self.data = jax.jit(one.train), (one.full, one.rest)

    def fit(self, epochs: int) -> list[list[float]]:
        import jax

        losses = [self.fit_one(i, epochs) for i in range(len(self.states))]
        jax.block_until_ready(self.states)
        return [[float(loss) for loss in losses[i]] for i in compared(len(losses))]

    def fit_one(self, i: int, epochs: int) -> list[object]:
        losses = []
        for _ in range(epochs):
            self.states[i], loss = self.epoch(self.rates[i], self.states[i], *self.data)
            losses.append(loss)
        return losses


class FuncVmap:
    """torch.func: vmap of grad_and_value over stacked weights, an eager step at a time."""

    def __init__(self, network: Network, models: int):
        self.models, self.trainer = models, Func(network, models, "cpu")

    def fit(self, epochs: int) -> list[list[float]]:
        losses = torch.stack([self.trainer.epoch() for _ in range(epochs)], 1)
        return losses[compared(self.models)].tolist()


PEERS = {
    "fit_many": Peer("torchnn fit_many", FitMany, ("torch",)),
    "train_many_": Peer(
        "torchnn, the operator alone",
        TrainMany,
        ("torch",),
        differs="without what fit_many does around the training: checks, histories, callbacks",
    ),
    "fit": Peer("torchnn fit, one after the other", FitInTurn, ("torch",)),
    "jax": Peer("JAX vmap + scan", JaxVmap, ("jax",), ON_CPU),
    "jax-in-turn": Peer("JAX scan, one after the other", JaxInTurn, ("jax",), ON_CPU),
    "torch.func": Peer("torch.func vmap", FuncVmap, ("torch",)),
}

IN_TURN = ("fit", "jax-in-turn")  # who takes as long for each model, however many they are
WHOLE_CALLS = ("fit_many", "fit")  # whose call does work of its own, and so has some epochs
