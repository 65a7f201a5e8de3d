"""Views of a model in evaluation mode, which leave the model as it is."""

import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from torchnn._engine.evaluating import evaluating
from torchnn.layers import Dense, Dropout
from torchnn.sequential import Sequential

X = torch.arange(12.0).reshape(3, 4)


class Block(nn.Module):
    """Children of every kind, and attributes that forward changes."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.listed = nn.ModuleList([nn.Linear(4, 4), nn.Dropout(0.9)])
        self.named = nn.ModuleDict({"drop": nn.Dropout(0.5)})
        self.calls, self.seen, self.empty = 0, [], None

    def forward(self, x):
        self.calls += 1
        self.seen.append((self.training, self.named["drop"].training))
        x = self.norm(self.first(x))
        for layer in self.listed:
            x = layer(x)
        return self.named.drop(x)


def dropping():
    """A function of the module's own, which calls its children by their own names."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9))
    model.forward = lambda x: model[1](model[0](x))
    return model


MODELS = {
    "block": Block,
    "nested": lambda: nn.Sequential(Sequential([Block(), Dropout(0.5)]), nn.Dropout(0.5)),
    "activation": lambda: Dense(3, nn.Dropout(0.5), in_features=4),
    "shared": lambda: nn.Sequential(*[nn.Dropout(0.5)] * 2),
    "parametrized": lambda: nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 2)), nn.Dropout(0.5)
    ),
    "own forward": dropping,
    "scripted": lambda: nn.Sequential(torch.jit.script(nn.Dropout(0.5)), nn.Dropout(0.5)),
    "compiled": lambda: nn.Sequential(torch.compile(dropping(), backend="eager")),
    "lazy": lambda: nn.Sequential(nn.LazyLinear(3), nn.Dropout(0.5), nn.LazyBatchNorm1d()),
}


def flags(model):
    return [module.training for module in model.modules()]


def evaluated(model):
    with evaluating(model) as view, torch.no_grad():
        return view(X)


@pytest.mark.parametrize("name", MODELS)
def test_a_view_does_what_the_model_does_in_evaluation_mode(name):
    model = MODELS[name]()
    evaluated(model)  # builds what is lazy
    before = flags(model)
    assert all(before)
    ours = evaluated(model)
    assert flags(model) == before
    with torch.no_grad():
        assert torch.equal(ours, model.eval()(X))


def test_the_model_never_leaves_training_mode_meanwhile():
    model = nn.Sequential(Block(), Dropout(0.5))
    with evaluating(model) as view:
        view(X)
        assert flags(model) == [True] * len(flags(model))
        assert model[0].seen == [(False, False)]


def test_what_forward_writes_is_in_the_model():
    block = Block()
    evaluated(block)
    assert (block.calls, block.seen) == (1, [(False, False)])
    assert block.norm.num_batches_tracked == 0


def test_views_have_parameters_attributes_and_the_class_of_their_module():
    block = Block()
    with evaluating(block) as view:
        assert isinstance(view, Block)
        assert view.first.weight is block.first.weight
        assert view.norm.running_mean is block.norm.running_mean
        assert view.empty is None
        assert type(view).__name__ == "Block"
        with pytest.raises(AttributeError, match="'Block' object has no attribute 'missing'"):
            view.missing  # noqa: B018


@pytest.mark.parametrize("training", [False, True])
def test_a_model_is_its_own_view_where_training_makes_no_difference(training):
    model = Sequential([Dense(3, "relu", in_features=4), nn.Linear(3, 2), nn.Sigmoid()])
    with evaluating(model.train(training)) as view:
        assert view is model
    dropping = nn.Sequential(Block()).eval()
    with evaluating(dropping) as view:
        assert view is dropping


def test_what_is_frozen_in_evaluation_mode_stays_there_after_a_switch():
    model = nn.Sequential(dropping(), nn.Dropout(0.5))
    model[0][1].eval()
    before = flags(model)
    evaluated(model)
    assert flags(model) == before


def test_threads_that_read_leave_one_another_alone():
    model = Sequential([Dense(8, "relu", in_features=4), Dropout(0.5), Dense(1, in_features=8)])
    expected, wrong = model.predict(X, verbose=0), []

    def read():
        for _ in range(20):
            if not (model.predict(X, batch_size=1, verbose=0) == expected).all():
                wrong.append(1)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert model.training
        assert model[1].training
    assert not wrong
