"""Where fit, evaluate and predict are called changes nothing: under a default device other than the
data's, in inference mode."""

import os
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import Sequential, fit_many, optimizers
from torchnn.callbacks import EarlyStopping, LambdaCallback
from torchnn.layers import Dense, Dropout, Input, Normalization
from torchnn.utils import set_random_seed

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.float32)


@contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


PLACES = {
    "set_default_device": default_device,
    "with torch.device": lambda: torch.device("meta"),
}
MODELS = {
    "fused": (
        lambda: [Normalization(mean=[0.1] * 3, variance=[2.0] * 3), Dense(4, "relu"), Dense(1)],
        lambda: optimizers.Adam(optimizers.schedules.ExponentialDecay(0.01, 5, 0.9)),
    ),
    "autograd": (
        lambda: [nn.LazyLinear(4), nn.BatchNorm1d(4), nn.Dropout(0.3), Dense(1)],
        lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    ),
    "a torch optimizer": (lambda: [Dense(4, "tanh"), Dense(1)], lambda: torch.optim.SGD),
}


def compiled(name, engine="auto"):
    layers, optimizer = MODELS[name]
    model = Sequential(layers())
    model.compile(optimizer(), "mse", ["accuracy"], engine=engine)
    return model


def story(model):
    """All that a model can be asked, and what comes of it."""
    set_random_seed(0)
    looks = [LambdaCallback(on_train_batch_end=lambda *_: None)]
    looks.append(EarlyStopping(restore_best_weights=True))
    options = {"batch_size": 8, "verbose": 0}
    return [
        model.fit(X, Y, epochs=3, validation_split=0.2, callbacks=looks, **options).history,
        model.fit(X, Y, epochs=4, class_weight={1: 2.0}, **options).history,
        model.fit(torch.from_numpy(X), Y, shuffle=False, validation_data=(X, Y), **options).history,
        model.evaluate(X, Y, sample_weight=Y + 1, **options),
        model.predict(X, **options).tolist(),
        model.train_on_batch(X, Y),
        model.test_on_batch(X, Y),
        model.predict_on_batch(X).tolist(),
        model.set_weights([2 * array for array in model.get_weights()]),
        [array.tolist() for array in model.get_weights()],
        model.summary(print_fn=lambda text: None),
    ]


@pytest.mark.parametrize("place", [*PLACES])
@pytest.mark.parametrize("name", MODELS)
def test_the_data_and_the_model_say_where_not_the_default_device(name, place):
    model, expected = compiled(name), story(compiled(name))
    with PLACES[place]():
        found = story(model)
    assert found == expected
    assert {p.device.type for p in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("metrics", [None, ["accuracy"]])
@pytest.mark.parametrize("place", [*PLACES])
def test_many_models_say_where_not_the_default_device(metrics, place):
    def built(units):
        model = Sequential([Input((3,)), Dense(units, "relu"), Dropout(0.2), Dense(1)])
        model.compile(optimizers.Adam(0.1), "mse", metrics)
        return model

    def at_once(models):
        stopping = EarlyStopping("val_loss", patience=1, restore_best_weights=True)
        rows = [range(i, 30 + i) for i in range(4)]
        options = {"rows": rows, "validation_rows": rows, "callbacks": stopping, "verbose": 0}
        histories = fit_many(models, X, Y, epochs=9, batch_size=8, **options)
        return [history.history for history in histories], [m.get_weights() for m in models]

    def all_built():
        set_random_seed(0)
        return [built(3 + i) for i in range(4)]

    models, others = all_built(), all_built()
    expected = at_once(others)
    with PLACES[place]():
        found = at_once(models)
    assert found[0] == expected[0]
    for one, other in zip(found[1], expected[1], strict=True):
        assert all(map(np.array_equal, one, other))


@pytest.mark.parametrize("engine", ["auto", "autograd"])
@pytest.mark.parametrize("name", MODELS)
def test_in_inference_mode_a_model_trains_as_anywhere(name, engine):
    model, other = compiled(name, engine), compiled(name, engine)
    expected = story(other)
    with torch.inference_mode():
        found = story(model)
    assert found == expected
    assert story(model) == story(other)  # and goes on outside


def test_inference_mode_is_no_grad_to_the_callbacks_of_fit():
    model, modes = compiled("fused"), []

    def look(*_):
        modes.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))

    with torch.inference_mode():
        model.fit(X, Y, verbose=0, callbacks=LambdaCallback(on_train_begin=look))
        look()
    assert modes == [(False, False), (True, False)]


@pytest.mark.parametrize("is_inside", [True, False])
@pytest.mark.parametrize("action", ["fit", "evaluate", "predict"])
def test_data_that_inference_mode_has_made(action, is_inside):
    with torch.inference_mode():
        x, y = torch.tensor(X), torch.tensor(Y)
    model, arguments = compiled("autograd"), (x,) if action == "predict" else (x, y)
    with torch.inference_mode(is_inside):
        getattr(model, action)(*arguments, verbose=0)


LAYERS = {
    "not built": lambda: [Dense(4), nn.LazyBatchNorm1d(), nn.LazyLinear(1)],
    "built": lambda: [Dense(1, in_features=3)],
    "PyTorch's": lambda: [nn.Linear(3, 1)],
}


@pytest.mark.parametrize("action", ["fit", "train_on_batch"])
@pytest.mark.parametrize("is_inside", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_a_model_that_inference_mode_has_made_can_be_asked_but_not_trained(name, is_inside, action):
    with torch.inference_mode():
        model = Sequential([*LAYERS[name](), nn.Linear(1, 1)])
        model.compile("adam", "mse")
    with torch.inference_mode(is_inside):
        with pytest.raises(ValueError, match=r"^the model was made in inference mode, where"):
            getattr(model, action)(X, Y)
        assert model.history is None
        assert model.predict(X, verbose=0).shape == (40, 1)
        assert model.evaluate(X, Y, verbose=0) == pytest.approx(model.test_on_batch(X, Y))


@pytest.mark.parametrize("engine", ["auto", "autograd"])
@pytest.mark.parametrize("in_features", [None, 3])
def test_dense_layers_that_inference_mode_has_made_learn(in_features, engine):
    with torch.inference_mode():
        model = Sequential([Dense(1, in_features=in_features)])
        model.compile("adam", "mse", engine=engine)
        before = model.evaluate(X, Y, verbose=0)
        model.fit(X, Y, epochs=5, verbose=0)
    assert model.evaluate(X, Y, verbose=0) < before


FORKED = """
import multiprocessing, torch
from torchnn import Sequential
from torchnn.layers import Dense, Input

x = torch.rand(64, 3)

def train(_):
    model = Sequential([Input((3,)), Dense(5, "sigmoid"), Dense(1)])
    model.compile("adam", "mse")
    return len(model.fit(x, x[:, :1], epochs=3, verbose=0).history["loss"])

torch.set_num_threads(2)
train(0)
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(train, range(2)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_small_model_trains_in_a_process_that_was_forked_off_after_a_fit():
    # There, PyTorch's threads are gone, and who wakes them waits for ever.
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.returncode) == ("[3, 3]\n", 0), done.stderr
