"""What becomes of a fitted model: given other parameters, moved, copied, stored, pruned."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from torchnn import Sequential, optimizers
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
