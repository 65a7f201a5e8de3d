"""Random models at once: what fit_many comes to is what fit comes to, each model by itself.

In float64 up to rounding, whatever rows, sizes of batches, optimizers, widths and callbacks the
models have; and to the last bit whichever of the models are trained together.
"""

import random
import warnings

import numpy as np
import torch

from tests.fuzz.programs import Program, compare, random_optimizer
from torchnn import Sequential, fit_many
from torchnn.callbacks import EarlyStopping
from torchnn.layers import Dropout
from torchnn.utils import set_random_seed


class Model:
    """One of them.

    Args:
        rng: Draws it.
        program: What it shares with the others: data, loss, dtype.
        rows: What it trains on, and how many rows the others do: None for all.
    """

    def __init__(self, rng, program, rows):
        self.seed = rng.randrange(2**31)
        features, outputs = program.x[0].size, program.y.shape[1]
        self.layers = program.random_layers(rng, features, outputs)
        if rng.random() < 0.2:
            rate = rng.choice([0.1, 0.5])
            self.layers.insert(len(self.layers) - 1, lambda: Dropout(rate))
        self.optimizer = random_optimizer(rng)
        self.metrics = rng.choice([None, None, program.metrics])
        count = len(program.x)
        self.rows = None if rows is None else [rng.randrange(count) for _ in range(rows)]
        self.validated = [rng.randrange(count) for _ in range(5)]
        # Rounding grows from step to step: few of them.
        self.epochs = rng.choice([1, 2, 5, 9])
        least = -(-(count if rows is None else rows) * self.epochs // 30)
        self.batch_size = max(least, rng.choice([1, 7, 32, 2**40]))
        self.stops = rng.random() < 0.4
        self.stopping = {
            "monitor": rng.choice(["loss", "val_loss"] if program.validates else ["loss"]),
            "patience": rng.randrange(3),
            "min_delta": 1e-6,  # more than rounding
            "restore_best_weights": rng.random() < 0.5,
            "start_from_epoch": rng.choice([0, 0, 2]),
            "mode": rng.choice(["min", "min", "max"]),
        }

    def made(self, program):
        set_random_seed(self.seed)
        model = Sequential([make() for make in self.layers]).to(program.dtype)
        model(program.x[:1])
        model.compile(self.optimizer(), program.loss, self.metrics)
        set_random_seed(program.seed)  # of the order
        return model

    def callbacks(self):
        return [EarlyStopping(**self.stopping)] if self.stops else []


class Case:
    """What a seed stands for."""

    def __init__(self, seed):
        rng = random.Random(seed)
        self.program = Program(seed)
        self.program.validates = rng.random() < 0.5
        rows = rng.choice([None, rng.randint(1, 70)])
        self.models = [Model(rng, self.program, rows) for _ in range(rng.choice([1, 2, 5, 19]))]
        self.shuffle = rng.random() < 0.7
        self.some = rng.sample(self.models, rng.randint(1, len(self.models)))

    def at_once(self, models):
        """What fit_many makes of these."""
        program = self.program
        rows = [model.rows for model in models]
        made = [model.made(program) for model in models]
        histories = fit_many(
            made,
            program.x,
            program.y,
            epochs=[model.epochs for model in models],
            batch_size=[model.batch_size for model in models],
            rows=None if rows[0] is None else list(map(torch.tensor, rows)),
            validation_rows=[torch.tensor(model.validated) for model in models]
            if program.validates
            else None,
            callbacks=[model.callbacks() for model in models],
            shuffle=self.shuffle,
            verbose=0,
        )
        return list(map(found, made, histories))

    def alone(self, model):
        """What fit makes of one."""
        program, made = self.program, model.made(self.program)
        rows = range(len(program.x)) if model.rows is None else model.rows
        validated = program.x[model.validated], program.y[model.validated]
        history = made.fit(
            program.x[list(rows)],
            program.y[list(rows)],
            epochs=model.epochs,
            batch_size=model.batch_size,
            validation_data=validated if program.validates else None,
            callbacks=model.callbacks(),
            shuffle=self.shuffle,
            verbose=0,
        )
        return found(made, history)


def found(model, history):
    """All that a model comes to, as arrays by name."""
    weights = {f"weight {i}": w for i, w in enumerate(model.get_weights())}
    return weights | {name: np.array(values) for name, values in history.history.items()}


def check(seed):
    case = Case(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = case.at_once(case.models)
        for model, result in zip(case.some, case.at_once(case.some), strict=True):
            compare(result, every[case.models.index(model)], "its like among others", 0, 0)
        if case.program.dtype == torch.float32:
            return "the same bits"
        for model, result in zip(case.models, every, strict=True):
            compare(result, case.alone(model), "fit", 1e-6, 1e-8)
    return "compared"
