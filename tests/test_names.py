"""The names of a model's layers."""

import copy
import pickle

import pytest
from torch import nn

from torchnn.layers import Dense
from torchnn.layers import _names as names
from torchnn.layers._names import AutomaticName
from torchnn.sequential import Sequential


def test_layers_without_a_name_are_counted_by_kind():
    layers = [nn.Linear(1, 1), Dense(1), nn.BatchNorm1d(1), Dense(1), nn.Linear(1, 1), nn.ReLU()]
    assert names.of(layers) == ["linear", "dense", "batch_norm1d", "dense_1", "linear_1", "re_lu"]


def test_a_lazy_layer_has_the_name_that_it_will_have():
    model = Sequential([nn.LazyLinear(1), nn.Linear(1, 1)])
    assert names.of(model.layers) == ["linear", "linear_1"]
    model.build((None, 3))
    assert names.of(model.layers) == ["linear", "linear_1"]


def test_given_names_stay_and_are_kept_free():
    assert names.of([Dense(1), Dense(1, name="dense"), Dense(1)]) == ["dense_1", "dense", "dense_2"]


def test_a_model_writes_names_into_its_layers():
    model = Sequential([Dense(1), Dense(1, name="mine"), Dense(1), nn.Linear(1, 1)])
    assert [layer.name for layer in model.layers[:3]] == ["dense", "mine", "dense_1"]
    assert not hasattr(model[3], "name")


def test_layers_of_two_models_can_be_joined():
    first, second = Sequential([Dense(1), Dense(1)]), Sequential([Dense(1)])
    joined = Sequential([*first.layers, *second.layers])
    assert names.of(joined.layers) == ["dense", "dense_1", "dense_2"]
    assert [layer.name for layer in first.layers] == ["dense", "dense_1"]


def test_an_automatic_name_stays_when_layers_before_it_go():
    model = Sequential([Dense(1), Dense(1)])
    assert names.of(Sequential(model.layers[1:]).layers) == ["dense_1"]


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_automatic_names_stay_automatic_in_copies(clone):
    name = clone(AutomaticName("dense"))
    assert (name, type(name)) == ("dense", AutomaticName)


def test_nested_models_have_names_too():
    model = Sequential([Sequential([Dense(1)]), Sequential([Dense(1)], name="head")])
    assert names.of(model.layers) == ["sequential", "head"]


def test_nested_models_are_called_what_the_outer_one_calls_them():
    model = Sequential([Sequential([Dense(1)]), Sequential([Dense(1)])])
    assert [layer.name for layer in model.layers] == ["sequential", "sequential_1"]
    assert model.get_layer("sequential_1") is model.layers[1]


def test_duplicate_names_are_refused():
    with pytest.raises(ValueError, match="layer names must differ, got 'a' 2 times"):
        names.of([Dense(1, name="a"), Dense(1), Dense(1, name="a")])


def test_one_layer_twice_is_refused():
    layer = Dense(1)
    with pytest.raises(ValueError, match="layers must differ"):
        names.of([layer, Dense(1), layer])
