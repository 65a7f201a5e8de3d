"""Programs that are interrupted again and again, and go on each time: nothing may be lost.

Ctrl-C comes before, in and after steps; callbacks fail; sometimes a new model goes on from the
state dicts. Weights, steps, epochs and the History must be those of a fit that was left alone, bit
for bit.
"""

import os
import pickle
import random
import signal
import threading
import time
import warnings
from unittest.mock import patch

import numpy as np

from tests.fuzz.programs import Program
from torchnn import Sequential
from torchnn._engine.choice import Engine
from torchnn.callbacks import LambdaCallback
from torchnn.utils import set_random_seed

HOOKS = ("on_epoch_begin", "on_epoch_end", "on_train_batch_begin", "on_train_batch_end")


class CallbackError(Exception):
    """What a callback raises."""


class Fits:
    """A program's fits, by one engine; each as often as it takes."""

    def __init__(self, program, engine, interruptions):
        self.program, self.engine, self.interruptions = program, engine, interruptions
        self.model = self.made()
        self.history, self.count = {}, 0

    def made(self):
        set_random_seed(self.program.seed)
        model = Sequential([make() for make in self.program.layers]).to(self.program.dtype)
        model.compile(
            self.program.optimizer(), self.program.loss, self.program.metrics, engine=self.engine
        )
        return model

    def run(self):
        for fit in self.program.fits:
            done = 0
            while done < fit["epochs"]:
                done += self.attempt(fit | {"initial_epoch": done})
        return self

    def attempt(self, fit):
        """Fits until it is over or interrupted; returns how many epochs that made."""
        program, model = self.program, self.model
        model.history = None  # it may be interrupted before it has one
        interruption = next(self.interruptions)
        try:
            with interruption as callbacks:
                x, y = program.x, program.y
                model.fit(x, y, program.batch_size, verbose=0, callbacks=callbacks, **fit)
        except (CallbackError, KeyboardInterrupt):
            self.count += 1
            if interruption.hops:
                self.hop()
        if model.history is None:
            return 0
        begin = fit["initial_epoch"]
        assert model.history.epoch == [begin + i for i in range(len(model.history.epoch))]
        for name, values in model.history.history.items():
            self.history.setdefault(name, []).extend(values)
        return len(model.history.epoch)

    def hop(self):
        """Goes on with another model, which knows nothing but the state dicts."""
        if not self.model.optimizer.iterations:
            return
        state = pickle.dumps((self.model.state_dict(), self.model.optimizer.state_dict()))
        history, self.model = self.model.history, self.made()
        own, optimizer = pickle.loads(state)
        self.model.load_state_dict(own)
        self.model.optimizer.load_state_dict(optimizer)
        self.model.history = history


class Quiet:
    """No interruption."""

    hops = False

    def __enter__(self):
        return []

    def __exit__(self, *exception):
        pass


class InStep(Quiet):
    """Ctrl-C while an engine is at work, at the call of that number."""

    def __init__(self, rng):
        self.hops, self.countdown = rng.random() < 0.3, rng.choice([0, 0, 1, 2, 5])

    def __enter__(self):
        train = Engine.train

        def interrupted(engine, *arguments):
            self.countdown -= 1
            if self.countdown < 0:
                signal.raise_signal(signal.SIGINT)
            return train(engine, *arguments)

        self.patch = patch.object(Engine, "train", interrupted)
        self.patch.start()
        return []

    def __exit__(self, *exception):
        self.patch.stop()


class AnyTime(Quiet):
    """Ctrl-C after a while, wherever that is."""

    def __init__(self, rng):
        self.hops, self.seconds = rng.random() < 0.3, rng.expovariate(1 / rng.choice([0.001, 0.02]))

    def __enter__(self):
        pressed = threading.Thread(target=self.press)
        pressed.start()
        self.pressed = pressed
        return []

    def press(self):
        time.sleep(self.seconds)
        os.kill(os.getpid(), signal.SIGINT)

    def __exit__(self, *exception):
        while self.pressed.is_alive():  # Ctrl-C must not hit whoever comes next
            time.sleep(0.001)


class InCallback(Quiet):
    """A hook that fails, at the call of that number."""

    def __init__(self, rng):
        self.hops, self.countdown = rng.random() < 0.3, rng.choice([0, 1, 2, 7])
        self.hook = rng.choice(HOOKS)

    def __enter__(self):
        return LambdaCallback(**{self.hook: self.fail})

    def fail(self, *arguments):
        self.countdown -= 1
        if self.countdown < 0:
            raise CallbackError


def interruptions(rng, most):
    """Yields so many, then none; counts those that there were."""
    for _ in range(rng.randint(1, most)):
        yield rng.choice([InStep, AnyTime, InCallback])(rng)
    while True:
        yield Quiet()


def quiet():
    while True:
        yield Quiet()


def check(seed):
    program, rng = Program(seed), random.Random(seed + "i")
    engine = rng.choice(["fused", "autograd"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = Fits(program, engine, quiet()).run()
        found = Fits(program, engine, interruptions(rng, 8)).run()
    for one, other in zip(found.model.get_weights(), alone.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    ours, theirs = found.model.optimizer, alone.model.optimizer
    assert ours.iterations == theirs.iterations
    assert ours.place.epochs == theirs.place.epochs == sum(fit["epochs"] for fit in program.fits)
    np.testing.assert_array_equal(found.history["loss"], alone.history["loss"])
    for name, values in alone.history.items():
        if not name.startswith("val_"):  # a validation that was interrupted has no result
            # Of the same predictions; but how PyTorch rounds them goes by where runs are cut.
            np.testing.assert_allclose(found.history[name], values, 1e-6, 1e-7, err_msg=name)
    return f"{engine} with {found.count} interrupts"
