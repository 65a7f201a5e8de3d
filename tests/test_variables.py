"""Weights as Keras's variables: order, names, reading, assigning; and shapes."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from torchnn.layers import Activation, Dense, Dropout, Flatten, Input, Layer
from torchnn.sequential import Sequential


def model():
    layers = [Input((3,)), Dense(5, "relu", name="hidden"), Dense(2, nn.PReLU(), name="end")]
    return Sequential(layers, name="m")


def test_weights_are_in_kerass_order_and_have_its_names():
    weights = model().weights
    assert [(w.path, tuple(w.shape)) for w in weights] == [
        ("m/hidden/kernel", (3, 5)),
        ("m/hidden/bias", (5,)),
        ("m/end/kernel", (5, 2)),
        ("m/end/bias", (2,)),
        ("m/end/weight", (1,)),  # the activation's
    ]
    assert [w.name for w in weights[:2]] == ["kernel", "bias"]
    assert all(w.dtype == torch.float32 for w in weights)


def test_get_weights_and_set_weights_go_by_the_same_order():
    one, other = model(), model()
    arrays = [w.numpy() + 1 for w in one.weights]
    for each in (other, *other.layers):
        each.set_weights(arrays if each is other else each.get_weights())
    for found, wanted in zip(other.get_weights(), arrays, strict=True):
        np.testing.assert_array_equal(found, wanted)
    unbuilt = Dense(2, nn.PReLU())
    unbuilt.set_weights(one.layers[1].get_weights())
    assert unbuilt.built


def test_a_variable_shows_what_the_weight_is_and_changes_it(device):
    layer = Dense(2, in_features=3, dtype="float64", device=device)
    kernel, bias = layer.weights
    with torch.no_grad():
        layer.weight.fill_(2)
    assert kernel.numpy().tolist() == np.full((3, 2), 2).tolist()
    kernel.assign([[1, 2], [3, 4], [5, 6]])
    assert layer.weight.tolist() == [[1, 3, 5], [2, 4, 6]]
    bias.assign_add(np.ones(2))
    bias.assign_sub([0.5, 1])
    assert layer.bias.tolist() == [0.5, 0]
    with pytest.raises(
        ValueError, match=r"^value must have shape \(3, 2\), that of kernel, got \(2"
    ):
        kernel.assign(np.ones((2, 3)))


def test_numpys_functions_take_a_variable_for_an_array():
    layer = Dense(2, in_features=3, kernel_initializer="ones")
    kernel = layer.kernel
    kernel.numpy()[:] = 7  # a copy
    assert (np.max(kernel), np.sum(kernel, axis=0).tolist()) == (1, [3, 3])
    assert np.concatenate([kernel, kernel]).shape == (6, 2)
    assert type(np.exp(kernel)) is type(np.asarray(kernel)) is np.ndarray
    assert (np.ones((3, 2)) + kernel).tolist() == [[2, 2]] * 3
    assert np.asarray(kernel, dtype="float64").dtype == np.float64
    assert float(Dense(1, in_features=1, bias_initializer="ones").weights[1]) == 1
    low = Dense(1, in_features=1, dtype="bfloat16")
    assert low.kernel.numpy().dtype == np.float32


def test_pytorchs_functions_take_a_variable_for_a_tensor_that_learns():
    layer = Dense(2, in_features=3, kernel_initializer="ones")
    total = (layer.kernel * torch.tensor([[1.0], [2.0], [3.0]])).sum()
    assert type(total) is torch.Tensor
    total.backward()
    assert layer.weight.grad.tolist() == [[1, 2, 3], [1, 2, 3]]
    assert repr(layer.weights[1]) == "<Variable bias, shape=(2,), value=[0. 0.]>"


def test_what_is_frozen_is_not_trainable():
    network = model()
    network.layers[0].trainable = False
    assert [w.path for w in network.non_trainable_weights] == ["m/hidden/kernel", "m/hidden/bias"]
    assert len(network.trainable_weights) == len(network.trainable_variables) == 3
    assert len(network.variables) == 5
    assert not Dense(2, trainable=False, in_features=3).trainable
    lazy = Dense(2, trainable=False)
    lazy.build(3)
    assert lazy.trainable_weights == []


def test_a_model_that_is_not_built_has_no_weights():
    network = Sequential([Dense(2), nn.LazyLinear(1)])
    assert network.weights == network.get_weights() == []
    with pytest.raises(
        ValueError, match=r"^layer 'sequential' has no weights yet: build the model"
    ):
        network.count_params()
    with pytest.raises(ValueError, match=r"^layer 'dense' has no weights yet: build the model"):
        network.set_weights([np.ones((3, 2))])


class Block(Layer):
    def __init__(self):
        super().__init__("block")
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("cache", torch.zeros(9), persistent=False)
        self.dense = Dense(2, in_features=3)
        self.linear = nn.Linear(2, 1)

    def forward(self, x):
        return self.linear(self.dense(x)) * self.scale


def test_a_layer_of_ones_own_shows_all_that_is_in_it():
    block = Block()
    shapes = [(w.path, tuple(w.shape), w.trainable) for w in block.weights]
    assert shapes == [
        ("block/scale", (1,), True),
        ("block/count", (1,), False),
        ("block/kernel", (3, 2), True),
        ("block/bias", (2,), True),
        ("block/weight", (1, 2), True),
        ("block/bias", (1,), True),
    ]
    assert block.count_params() == 13
    block.set_weights([array + 1 for array in block.get_weights()])
    assert block.scale.item() == 2


# Shapes


def test_layers_and_models_know_their_shapes():
    network = Sequential([Input((2, 4)), Flatten(), Dense(3), Dropout(0.5), Activation("relu")])
    assert [layer.input_shape for layer in network.layers] == [(None, 2, 4), (None, 8)] + [
        (None, 3)
    ] * 2
    assert [layer.output_shape for layer in network.layers] == [(None, 8)] + [(None, 3)] * 3
    assert (network.input_shape, network.output_shape) == ((None, 2, 4), (None, 3))
    assert network.inputs[0].shape == network.input.shape == (None, 2, 4)
    assert network.outputs[0].shape.as_list() == [None, 3]
    assert network.layers[0].output.shape.as_list() == [None, 8]
    for clone in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert clone.layers[0].output_shape == (None, 8)


def test_layers_of_a_model_in_a_model_know_their_shapes():
    inner = Sequential([Dense(4), Dropout(0.5)])
    network = Sequential([Input((3,)), inner, nn.Sequential(Activation("relu")), Dense(1)])
    assert inner.output_shape == inner.layers[1].input_shape == (None, 4)
    assert network.layers[1][0].output_shape == (None, 4)
    assert [w.path for w in network.weights][:2] == [
        "sequential/sequential/dense/kernel",
        "sequential/sequential/dense/bias",
    ]


def test_the_first_data_tells_the_shapes():
    network = Sequential([Dense(3), Dropout(0.5)])
    assert network.layers[1].output_shape is network.input is None
    assert network.inputs == network.outputs == []
    network.predict(np.ones((2, 4)), verbose=0)
    assert network.layers[1].output_shape == (None, 3)
    assert Dense(2, in_features=4).output_shape == (None, 2)
    network.add(Dense(1))
    network.predict(np.ones((2, 4)), verbose=0)
    assert (network.output_shape, network.layers[2].input_shape) == ((None, 1), (None, 3))


def test_a_weight_of_ones_own_keeps_its_shape_whatever_it_is_called():
    class Times(Layer):
        def build(self, shape):
            self.kernel = self.add_weight(name="kernel", shape=(shape[-1], 3))

        def forward(self, x):
            return x @ self.kernel

    model = Sequential([Input((2,)), Times()])
    values = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    model.set_weights([values])
    np.testing.assert_array_equal(model.predict(np.eye(2), verbose=0), values)
    np.testing.assert_array_equal(model.get_weights()[0], values)
    assert model.trainable_variables[0].shape == (2, 3)
