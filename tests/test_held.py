"""Modules in lists, tuples and dicts that are attributes."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import Model, Sequential
from torchnn.layers import Dense, Dropout, Layer
from torchnn.models import clone_model

X = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
Y = X.sum(1)


class Residual(Layer):
    def __init__(self, count, units=4, **options):
        super().__init__(**options)
        self.count, self.units = count, units
        self.hidden = [Dense(units) for _ in range(count)]

    def call(self, x):
        output = x
        for layer in self.hidden:
            output = layer(output)
        return x + output


class Own(Model):
    """Its layers are in what `make` returns."""

    def __init__(self, make=lambda: [Dense(4)], **options):
        super().__init__(**options)
        self.make = make
        self.held = make()
        self.late = []
        self.late.append(Residual(2))

    def call(self, x):
        for layer in layers_in(self.held):
            x = layer(x)
        return self.late[0](x)


def layers_in(held):
    if isinstance(held, nn.Module) and not isinstance(held, (nn.ModuleList, nn.ModuleDict)):
        return [held]
    values = held.values() if isinstance(held, (dict, nn.ModuleDict)) else held
    return [layer for value in values for layer in layers_in(value)]


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: [Dense(4), Dense(4)], nn.ModuleList),
        (lambda: (Dense(4), Dense(4)), nn.ModuleList),
        (lambda: {"a": Dense(4), "b": Dense(4)}, nn.ModuleDict),
        (lambda: [[Dense(4)], {"b": Dense(4)}], nn.ModuleList),
    ],
)
def test_layers_in_a_list_or_a_dict_are_trained(make, kind):
    model = Own(make)
    assert type(model.held) is kind
    assert type(model.late) is nn.ModuleList
    assert [type(layer) for layer in model.layers] == [Dense, Dense, Residual]
    model.compile(loss="mse")
    model.predict(X)
    before = model.get_weights()
    model.fit(X, Y[:, None].repeat(4, 1), verbose=0)
    changed = [(a != b).any() for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [True] * 8


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_hold_layers_of_their_own(copied):
    layer = Residual(2)
    layer(X)
    other = copied(layer)
    np.testing.assert_array_equal(other(X), layer(X))
    assert not {*map(id, other.parameters())} & {*map(id, layer.parameters())}


def test_configs_tell_what_a_list_holds():
    class Chain(Layer):
        def __init__(self, parts, named):
            super().__init__()
            self.parts, self.named = parts, named

    config = Chain([Dense(2)], {"out": Dense(3)}).get_config()
    assert config["parts"][0]["config"]["units"] == 2
    assert config["named"]["out"]["config"]["units"] == 3
    assert Residual.from_config(Residual(3).get_config()).count == 3


def test_a_clone_of_a_model_has_as_many_layers():
    model = Own()
    model.predict(X)
    clone = clone_model(model)
    clone.predict(X)
    assert [w.shape for w in clone.get_weights()] == [w.shape for w in model.get_weights()]


def test_a_list_can_grow():
    layer = Residual(1)
    layer.hidden += [Dense(4)]
    layer.hidden.append(Dense(4))
    layer(X)
    assert len(layer.weights) == 6
    assert len(layer.hidden[1:]) == 2


def test_what_is_appended_later_is_found_by_compile():
    model = Own()
    model.more = []
    model.more.append(Dense(2))
    assert type(model.more) is list
    model.compile(loss="mse")
    assert type(model.more) is nn.ModuleList
    model.more = [1, 2]  # and may become a list of something else
    assert model.more == [1, 2]
    assert len(model.layers) == 2


@pytest.mark.parametrize(
    "value", [[Dense(1), None], {0: Dense(1)}, [("a", Dense(1))], [torch.tanh, Dropout(0.5)]]
)
def test_a_mixture_is_an_error(value):
    layer = Residual(1)
    with pytest.raises(TypeError, match=r"^mixed of Residual holds layers and .* nn.ModuleList"):
        layer.mixed = value
    assert not hasattr(layer, "mixed")


@pytest.mark.parametrize("value", [[], [1, 2], {"a": [None]}, (), [torch.tanh, nn.ReLU()]])
def test_other_lists_stay_what_they_are(value):
    layer = Residual(1)
    layer.other = value
    assert layer.other is value


def test_a_list_of_layers_that_are_known_stays_one_and_runs_in_the_same_mode():
    class Known(Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = Dense(4), Dropout(0.9)
            self.all = [self.first, self.second]

        def call(self, x):
            for layer in self.all:
                x = layer(x)
            return x

    model = Known()
    assert type(model.all) is list
    assert len(model.layers) == 2
    np.testing.assert_array_equal(model.predict(X), model.predict(X))


def test_a_list_of_layers_that_a_chain_does_not_run_is_an_error():
    class Chain(Sequential):
        def __init__(self, more):
            super().__init__([Dense(1)])
            self.own = [self[0]]
            self.more = more

    assert type(Chain([]).own) is list
    with pytest.raises(TypeError, match=r"^more of Chain holds layers that are not among"):
        Chain([Dense(1)])


def test_torch_compile_traces_a_list_that_is_assigned():
    class Sized(Layer):
        def __init__(self):
            super().__init__()
            self.inner = Dense(2, in_features=3)

        def forward(self, x):
            self.sizes = [x.shape[0]]
            return self.inner(x)

    layer, x = Sized(), torch.rand(4, 3)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), layer(x))
    assert layer.sizes == [4]
