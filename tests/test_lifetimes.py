"""What becomes of a fitted model: given other parameters, moved, copied, stored, pruned, freed."""

import copy
import gc
import pickle
import weakref
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from torchnn import Sequential, optimizers
from torchnn.callbacks import EarlyStopping, History, LambdaCallback, LearningRateScheduler
from torchnn.layers import Dense
from torchnn.utils import set_random_seed

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = X[:, 0]
OPTIMIZERS = {
    "Adam": lambda: optimizers.Adam(0.01),
    "SGD": lambda: optimizers.SGD(0.01, momentum=0.9),
    "torch": lambda: torch.optim.Adam,
}

every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)
every_engine = pytest.mark.parametrize("engine", ["auto", "autograd"])


def fitted(optimizer="Adam", engine="auto", **options):
    set_random_seed(0)
    model = Sequential([Dense(4, "tanh"), Dense(1)])
    model.compile(OPTIMIZERS[optimizer](), "mse", engine=engine)
    fit(model, **options)
    return model


def fit(model, **options):
    return model.fit(X, Y, batch_size=8, epochs=2, verbose=0, **options).history["loss"]


def assigned(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    return model


def recompiled(model):
    assigned(model).compile(model.optimizer, "mse", engine=model._recipe.engine)
    return model


def there_and_back(model):
    return model.double().float()


STAYS_THE_SAME = {
    "state dict assigned": assigned,
    "assigned and compiled again": recompiled,
    "moved": there_and_back,
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@every_engine
@every_optimizer
@pytest.mark.parametrize("name", STAYS_THE_SAME)
def test_it_goes_on_with_all_that_the_optimizer_remembers(name, optimizer, engine):
    expected = fit(fitted(optimizer, engine))
    model = STAYS_THE_SAME[name](fitted(optimizer, engine))
    assert fit(model) == expected
    ours = {id(p) for p in model.parameters()}
    assert {id(p) for p in model.optimizer.parameters} == ours


@pytest.mark.parametrize("name", STAYS_THE_SAME)
def test_it_goes_on_with_a_torch_optimizer_that_was_made_for_it(name):
    found = []
    for change in (lambda model: model, STAYS_THE_SAME[name]):
        set_random_seed(0)
        model = Sequential([Dense(4, "tanh", in_features=3), Dense(1, in_features=4)])
        model.compile(torch.optim.Adam(model.parameters(), lr=0.01), "mse")
        fit(model)
        found.append(fit(change(model)))
    assert found[0] == found[1]


@every_engine
@every_optimizer
def test_parameters_may_be_assigned_midway(optimizer, engine):
    expected = fit(fitted(optimizer, engine))
    model = fitted(optimizer, engine)
    assign = LambdaCallback(on_epoch_end=lambda epoch, logs: assigned(model) and None)
    assert fit(model, callbacks=assign) == expected


@every_engine
@every_optimizer
def test_a_copy_is_trained_without_the_original(optimizer, engine):
    model = fitted(optimizer, engine)
    before, steps = model.get_weights(), model.optimizer.iterations
    fit(copy.deepcopy(model))
    assert all(map(np.array_equal, model.get_weights(), before))
    assert model.optimizer.iterations == steps


@every_engine
def test_a_model_in_another_dtype_goes_on(engine):
    model = fitted(engine=engine).double()
    assert fit(model) == pytest.approx(fit(fitted(engine=engine)), rel=1e-5)
    assert {slot.dtype for slot in model.optimizer.momentums} == {torch.float64}


@every_optimizer
def test_its_optimizer_is_not_for_another_model(optimizer):
    model = fitted(optimizer)
    other = Sequential([Dense(4, "tanh", in_features=3), Dense(1, in_features=4)])
    other.compile(model.optimizer, "mse")
    message = "has already trained other parameters: make a new one for each model"
    with pytest.raises(ValueError, match=message):
        fit(other)
    del model  # as little when the first one is gone
    with pytest.raises(ValueError, match=message):
        fit(other)


SWAPS = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "parametrized": lambda layer: parametrize.register_parametrization(layer, "weight", Halved()),
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
}


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


@every_engine
@every_optimizer
@pytest.mark.parametrize("name", SWAPS)
def test_a_layer_may_be_reparametrized_between_two_fits(name, optimizer, engine):
    model = fitted(optimizer, engine)
    SWAPS[name](model[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model)
    changed = {name for name, value in model.named_parameters() if not value.equal(before[name])}
    assert changed == {name for name, _ in model.named_parameters()}
    if name == "pruned":
        assert (model[0].weight == 0).sum() == 6


def fail(*_):
    raise RuntimeError("not today")


def interrupt(*_):
    raise KeyboardInterrupt


def listening():
    return [EarlyStopping("loss", restore_best_weights=True), LearningRateScheduler(lambda _, r: r)]


DEEDS = {
    "fit": fit,
    "fit with a live line": lambda model: model.fit(X, Y, verbose=1),
    "fit with validation": lambda model: fit(model, validation_split=0.2),
    "fit with callbacks": lambda model: fit(model, callbacks=listening()),
    "fit that a callback ends": lambda model: fit(model, callbacks=ends(fail)),
    "fit that Ctrl-C ends": lambda model: fit(model, callbacks=ends(interrupt)),
    "fit of data that does not fit": lambda model: model.fit(X, np.ones((40, 7)), verbose=0),
    "evaluate": lambda model: model.evaluate(X, Y, verbose=0),
    "predict": lambda model: model.predict(X, verbose=0),
    "train_on_batch": lambda model: model.train_on_batch(X, Y),
    "summary": lambda model: model.summary(print_fn=str),
}


def ends(function):
    return LambdaCallback(on_epoch_end=function)


@pytest.fixture
def no_collector():
    torch.optim.Adam([torch.ones(1)])  # what PyTorch imports then keeps the frames of its caller
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@every_engine
@every_optimizer
@pytest.mark.parametrize("deed", DEEDS)
def test_a_model_is_freed_with_its_last_name(deed, optimizer, engine, no_collector):
    model = Sequential([Dense(4, "tanh"), Dense(1)])
    model.compile(OPTIMIZERS[optimizer](), "mse", engine=engine)
    with suppress(RuntimeError, KeyboardInterrupt, ValueError):
        DEEDS[deed](model)
    parts = [model, model[0], model[0].weight, model.optimizer, model.history or model.loss]
    left = [weakref.ref(part) for part in parts]
    del model, parts
    assert [part() for part in left] == [None] * 5


def test_a_history_knows_its_model_as_long_as_there_is_one():
    model = fitted()
    history = model.history
    assert history.model is model
    assert copy.deepcopy(model).history.history == history.history
    del model
    assert history.model is None
    assert History().model is None
