"""Random programs whose callbacks look at the model and change it, at random moments.

Epochs that are trained ahead of them must come to what they come to one by one: all that callbacks
find, and all that is left, to the last bit, whatever they do and however a fit ends.
"""

import random
import warnings
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from tests.fuzz.programs import Program
from torchnn import Sequential, callbacks, regularizers
from torchnn._training import ahead, batches
from torchnn.callbacks import Callback
from torchnn.layers import Dropout
from torchnn.utils import set_random_seed


class StopError(Exception):
    """What a callback raises."""


def fail(*_):
    raise StopError


def interrupt(*_):
    raise KeyboardInterrupt


def dense(model):
    return [layer for layer in model.layers if hasattr(layer, "weight")]


def nudge(model, rng):
    weight = rng.choice(dense(model)).weight
    with torch.no_grad():
        weight.view(-1)[rng.randrange(weight.numel())] += 0.1


def nudge_past_pytorch(model, rng):
    weight = rng.choice(dense(model)).weight.detach().numpy().reshape(-1)
    weight[rng.randrange(len(weight))] += 0.1


def swap_memory(model, rng):
    parameter = rng.choice(dense(model)).weight
    parameter.data = parameter.data.clone() if rng.random() < 0.5 else 0.9 * parameter.data


def swap_parameter(model, rng):
    layer = rng.choice(dense(model))
    layer.weight = nn.Parameter(layer.weight.detach().clone())


def forget(model, rng):
    for tensors in model.optimizer.slots.values():
        rng.choice(tensors).zero_()


def freeze(model, rng):
    layer = rng.choice(dense(model))
    layer.trainable = not layer.trainable


def set_rate(model, rng):
    model.optimizer.learning_rate = rng.choice([0.01, 0.02, 0.05])


def hook(model, rng):
    rng.choice(dense(model)).register_forward_hook(lambda *_: None)


def train(model, rng):
    shape = model.layers[-1].weight.shape if hasattr(model.layers[-1], "weight") else (1,)
    x = np.ones((3, *model.input_shape[1:]))
    model.train_on_batch(x, np.ones((3, shape[0])) / shape[0])


def look(model, rng):
    model.predict(np.ones((3, *model.input_shape[1:])), verbose=0)


def penalise(model, rng):
    rng.choice(dense(model)).kernel_regularizer = rng.choice([None, regularizers.L2(0.1)])


def start_anew(model, rng):
    model.optimizer.iterations = rng.choice([0, 7])


def drop(model, rng):
    for layer in model.layers:
        if isinstance(layer, Dropout):
            layer.rate = rng.choice([0.1, 0.5])


def stop(model, rng):
    model.stop_training = True


ACTIONS = [
    *(nudge, nudge_past_pytorch, swap_memory, swap_parameter, forget, freeze, set_rate, hook),
    *(train, look, penalise, start_anew, drop, stop, fail, interrupt),
]
HOOKS = ["on_epoch_end"] * 4 + ["on_test_end", "on_epoch_begin", "on_train_batch_end"]


class Acting(Callback):
    """Does something now and then, and writes down what it finds."""

    def __init__(self, seed, found):
        self.rng, self.found, self.samples = random.Random(seed), found, []
        self.action = self.rng.choice([*ACTIONS, self.write_samples])
        self.rate = self.rng.choice([0.02, 0.1, 0.5])
        setattr(self, self.rng.choice(HOOKS), self.act)

    def write_samples(self, *_):
        values = self.rng.choice(self.samples).reshape(-1)
        values[self.rng.randrange(len(values))] *= 0.5

    def act(self, *arguments):
        self.found.append(state(self.model, arguments[-1] or {}))
        if self.rng.random() < self.rate:
            self.action(self.model, self.rng)


def state(model, logs):
    """All that a callback may see, as numbers."""
    optimizer = model.optimizer
    tensors = [*model.parameters(), *(t for ts in optimizer.slots.values() for t in ts)]
    numbers = [t.detach().numpy().tobytes() for t in tensors]
    counts = optimizer.iterations, model.epochs_trained, len(model.history.epoch)
    return numbers, counts, repr(dict(logs))


class Watched(Program):
    """A program whose fits have callbacks."""

    def __init__(self, seed):
        super().__init__(seed)
        rng = random.Random(f"{seed} watched")
        self.x, self.y = (
            a.astype(np.float32 if rng.random() < 0.5 else float) for a in (self.x, self.y)
        )
        if rng.random() < 0.3:
            self.layers.insert(-1, lambda: Dropout(0.3))
        for fit in self.fits:
            fit["epochs"] = rng.choice([2, 9, 30, 60])
            fit["callbacks"] = [rng.randrange(2**31) for _ in range(rng.choice([1, 1, 2]))]
            fit["validation_freq"] = rng.choice([1, 1, 1, 2, 5])
            fit["is_alone"] = rng.random() < 0.2
            fit["more"] = rng.sample(["early", "best", "plateau"], rng.choice([0, 0, 1, 2]))

    def run(self):
        """All that callbacks find, and what is left in the end."""
        set_random_seed(self.seed)
        model = Sequential([make() for make in self.layers]).to(self.dtype)
        model.compile(self.optimizer(), self.loss, self.metrics)
        found = []
        for fit in self.fits:
            own = dict(fit)
            x, y = self.x.copy(), self.y.copy()
            acting = [Acting(seed, found) for seed in own.pop("callbacks")]
            for each in acting:
                each.samples = [x, y]
            acting = [] if own.pop("is_alone") else acting
            monitor = (
                "val_loss" if "validation_split" in own or "validation_data" in own else "loss"
            )
            more = {
                "early": callbacks.EarlyStopping(monitor, patience=3),
                "best": callbacks.EarlyStopping(monitor, patience=5, restore_best_weights=True),
                "plateau": callbacks.ReduceLROnPlateau(monitor, patience=2),
            }
            acting += [more[name] for name in own.pop("more")]
            try:
                model.fit(x, y, self.batch_size, verbose=0, callbacks=acting, **own)
            except (StopError, KeyboardInterrupt, TypeError, ValueError) as error:
                found.append(repr(error))
            found += [state(model, model.history.history), model.history.epoch]
        return found


def check(seed):
    trained, train = [], ahead.Engine.ahead

    def counted(self, run, others):
        trained.append(run.epochs)
        return train(self, run, others)

    always = property(lambda self: 1000)
    with (
        warnings.catch_warnings(),
        patch.object(batches.ArrayFeed, "epochs_a_pause", always),
        # Where autograd validates, last bits depend on how long the runs are, that is, on the time.
        patch.object(batches.ArrayFeed, "learn", lambda *_: None),
    ):
        warnings.simplefilter("ignore")
        with patch.object(ahead.Engine, "ahead", counted):
            found = Watched(seed).run()
        with patch.object(ahead.Depth, "next", lambda self: 0):
            expected = Watched(seed).run()
    assert len(found) == len(expected), f"{len(found)} and not {len(expected)} looks"
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one == other, f"look {i} of {len(found)} finds something else"
    return "ahead" if trained else "one by one"
