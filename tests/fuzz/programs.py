"""Random programs: a network is made, trained and used by both engines, and by the definition.

The fused engine in float64, autograd, and the fused engine with reference.py in place of the
kernels must come to the same History, weights, losses and predictions. In float32, where a network
may fall to either side of a kink, the fused engine must come twice to the same bits.
"""

import random
import warnings
from dataclasses import fields
from unittest.mock import patch

import numpy as np
import torch

from torchnn import Sequential, losses, ops, optimizers
from torchnn.layers import Activation, Dense, Flatten, Normalization, Rescaling
from torchnn.ops import reference
from torchnn.utils import set_random_seed

schedules = optimizers.schedules


def random_loss(rng):
    """Makes a loss, its last activation, how many outputs, and how targets are made of numbers."""
    logits, smoothing = rng.random() < 0.3, rng.choice([0.0, 0.0, 0.2])
    kind = rng.choice(["bce", "mse", "mae", "cce"])
    outputs = rng.randint(2, 5) if kind == "cce" else rng.choice([1, 1, 2, 3])
    if kind == "bce":
        last = None if logits else "sigmoid"
        loss = losses.BinaryCrossentropy(from_logits=logits, label_smoothing=smoothing)
        return loss, last, outputs, lambda z: (z > 0).astype(float)
    if kind == "cce":
        last = None if logits else "softmax"
        loss = losses.CategoricalCrossentropy(from_logits=logits, label_smoothing=smoothing)
        return loss, last, outputs, lambda z: np.eye(z.shape[1])[z.argmax(1)]
    loss = losses.MeanSquaredError() if kind == "mse" else losses.MeanAbsoluteError()
    return loss, rng.choice([None, "tanh", "sigmoid"]), outputs, lambda z: z


def random_optimizer(rng):
    """Returns what makes an optimizer: each model gets one of its own."""
    rate = rng.choice([0.01, 0.1, schedules.ExponentialDecay(0.1, 5, 0.7)])
    decay = rng.choice([None, None, 0.1])
    momentum = rng.choice([0.0, 0.5, 0.9])
    return rng.choice(
        [
            lambda: optimizers.SGD(rate, momentum, momentum > 0 and decay is None, decay),
            lambda: optimizers.Adam(rate, epsilon=1e-3, weight_decay=decay),
            lambda: optimizers.RMSprop(rate, momentum=momentum, epsilon=1e-3, weight_decay=decay),
        ]
    )


class Program:
    """What a seed stands for."""

    def __init__(self, seed):
        rng = random.Random(seed)
        self.seed = rng.randrange(2**31)
        numbers = np.random.default_rng(self.seed)
        rows, features = rng.choice([1, 2, 3, 9, 33, 70, 150]), rng.choice([1, 2, 5, 16, 40])
        self.loss, self.last, outputs, targets = random_loss(rng)
        self.optimizer = random_optimizer(rng)
        self.dtype = rng.choice([torch.float64, torch.float64, torch.float32])
        self.shape = (1, features) if rng.random() < 0.1 else (features,)
        self.x = numbers.normal(size=(rows, *self.shape))
        self.y = targets(numbers.normal(size=(rows, outputs)))
        self.layers = self.random_layers(rng, features, outputs)
        self.metrics = rng.choice([None, ["accuracy"], ["mae", "mse"]])
        most = 2**63 if rng.random() < 0.1 else rows + 3
        self.batch_size = rng.randint(1, most)
        self.fits = [self.random_fit(rng, numbers, rows, outputs) for _ in range(rng.randint(1, 2))]

    def random_layers(self, rng, features, outputs):
        """What makes each layer."""
        kinds = rng.sample(ops.activations(), 2)
        front = [lambda: Rescaling(0.5, 0.1)] * (rng.random() < 0.1)
        if len(self.shape) > 1:
            front.append(Flatten)
        elif rng.random() < 0.1:
            front.append(lambda: adapted(Normalization(), self.x))
        middle = []
        for _ in range(rng.choice([0, 1, 1, 2, 3])):
            units, bias, kind = rng.choice([1, 3, 8, 17, 40]), rng.random() < 0.8, rng.choice(kinds)
            if rng.random() < 0.2:
                middle.append(lambda u=units, b=bias: Dense(u, use_bias=b))
                middle.append(lambda k=kind: Activation(k))
            else:
                middle.append(lambda u=units, b=bias, k=kind: Dense(u, k, use_bias=b))
        return [*front, *middle, lambda: Dense(outputs, self.last)]

    def random_fit(self, rng, numbers, rows, outputs):
        """The arguments of fit."""
        chosen = {"epochs": rng.choice([1, 2, 3, 7]), "shuffle": rng.random() < 0.5}
        if rng.random() < 0.3:
            chosen["sample_weight"] = numbers.random(rows) + 0.1
        if rng.random() < 0.3 and rows > 3:
            chosen["validation_split"] = 0.3
        elif rng.random() < 0.2:
            chosen["validation_data"] = (self.x[: rows // 2 + 1], self.y[: rows // 2 + 1])
        return chosen

    def run(self, engine):
        """All that the program comes to, as arrays by name."""
        set_random_seed(self.seed)
        model = Sequential([make() for make in self.layers]).to(self.dtype)
        model.compile(self.optimizer(), self.loss, self.metrics, engine=engine)
        found = {}
        for i, fit in enumerate(self.fits):
            history = model.fit(self.x, self.y, self.batch_size, verbose=0, **fit)
            found |= {f"{name} of fit {i}": np.array(v) for name, v in history.history.items()}
        found["evaluate"] = np.array(model.evaluate(self.x, self.y, self.batch_size, verbose=0))
        found["predict"] = model.predict(self.x, verbose=0)
        return found | {f"weight {i}": w for i, w in enumerate(model.get_weights())}


def adapted(layer, x):
    layer.adapt(x)
    return layer


def by_definition(job):
    """Takes the place of the kernels."""
    return reference.train_(**{field.name: getattr(job, field.name) for field in fields(job)})


def compare(found, expected, name, rtol, atol):
    assert found.keys() == expected.keys()
    for key, value in found.items():
        if np.isfinite(expected[key]).all():
            message = f"{key}, against {name}"
            np.testing.assert_allclose(value, expected[key], rtol, atol, err_msg=message)


def check(seed):
    program = Program(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = program.run("fused")
        if program.dtype == torch.float32:
            compare(program.run("fused"), found, "itself", 0, 0)
            return "twice the same"
        compare(found, program.run("autograd"), "autograd", 1e-6, 1e-8)
        with patch("torchnn._engine.graphs.run", by_definition):
            compare(found, program.run("fused"), "reference.py", 1e-6, 1e-8)
    return "compared"
