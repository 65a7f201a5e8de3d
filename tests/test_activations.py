"""torchnn.activations: names, aliases and values."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch

import torchnn
from torchnn import activations, ops
from torchnn.layers import Activation, Dense

# By their formulas, at z = -1 and z = 2.
VALUES = {
    "elu": (math.exp(-1) - 1, 2),
    "exponential": (math.exp(-1), math.exp(2)),
    "gelu": (-(1 + math.erf(-1 / math.sqrt(2))) / 2, 1 + math.erf(2 / math.sqrt(2))),
    "hard_sigmoid": (2 / 6, 5 / 6),
    "identity": (-1, 2),
    "leaky_relu": (-0.2, 2),
    "log_softmax": (-3 - math.log(1 + math.exp(-3)), -math.log(1 + math.exp(-3))),
    "mish": (
        -math.tanh(math.log(1 + math.exp(-1))),
        2 * math.tanh(math.log(1 + math.exp(2))),
    ),
    "relu": (0, 2),
    "relu6": (0, 2),
    "selu": (1.0507009873554805 * 1.6732632423543772 * (math.exp(-1) - 1), 2 * 1.0507009873554805),
    "sigmoid": (1 / (1 + math.e), 1 / (1 + math.exp(-2))),
    "silu": (-1 / (1 + math.e), 2 / (1 + math.exp(-2))),
    "softmax": (1 / (1 + math.exp(3)), 1 / (1 + math.exp(-3))),
    "softplus": (math.log(1 + math.exp(-1)), math.log(1 + math.exp(2))),
    "softsign": (-1 / 2, 2 / 3),
    "tanh": (math.tanh(-1), math.tanh(2)),
}


@pytest.mark.parametrize("name", activations.FUNCTIONS)
def test_activation_matches_its_formula(name, device):
    z = torch.tensor([[-1.0, 2.0]], dtype=torch.float64, device=device)
    wanted = torch.tensor([VALUES[name]], dtype=torch.float64, device=device)
    torch.testing.assert_close(activations.apply(activations.get(name), z), wanted)


def test_every_fused_activation_has_a_name_here():
    assert set(ops.activations()) <= set(activations.FUNCTIONS)


@pytest.mark.parametrize(
    ("value", "name"),
    [(None, "identity"), ("linear", "identity"), ("swish", "silu"), ("LeakyReLU", "leaky_relu")],
)
def test_other_spellings_become_the_one_name(value, name):
    assert activations.get(value) == name


def test_a_callable_is_returned_and_applied():
    assert activations.get(torch.sin) is torch.sin
    assert activations.apply(torch.sin, torch.zeros(2)).tolist() == [0, 0]


def test_an_unknown_name_is_an_error_with_the_list():
    with pytest.raises(ValueError, match=r"^unknown activation 'sigmod': did you mean 'sigmoid'\?"):
        activations.get("sigmod")


def test_a_class_is_told_to_be_instantiated():
    with pytest.raises(TypeError, match=r"got the class ReLU: write ReLU\(\)"):
        activations.get(torch.nn.ReLU)


@pytest.mark.parametrize(
    ("activation", "label"),
    [("relu", "relu"), (torch.sin, "sin"), (torch.nn.ReLU(), None)],
)
def test_label_is_what_a_repr_shows(activation, label):
    assert activations.label(activation) == label


@pytest.mark.parametrize("name", activations.FUNCTIONS)
def test_every_activation_is_a_function_of_its_name(name):
    function = getattr(activations, name)
    assert (function, activations.get(function)) == (name, function)
    assert function.__name__ == ("linear" if name == "identity" else name)
    torch.testing.assert_close(function([-1, 2]), np.array(VALUES[name], "float32"))
    z = torch.tensor([-1.0, 2.0], requires_grad=True)
    assert function(z).requires_grad


@pytest.mark.parametrize("x", [-3, -3.0, [-3], np.array([[-3]]), np.float64(-3)])
def test_what_comes_of_an_array_is_one_for_numpy(x):
    out = activations.relu(x)
    assert (out.dtype, out.shape) == (np.float32, np.shape(x))
    assert np.max(out) == np.sum(out, axis=None) == 0
    assert type(out.numpy()) is np.ndarray


def test_an_array_of_an_activation_says_that_it_is_no_tensor():
    with pytest.raises(AttributeError, match="no attribute 'backward', a tensor has: make the"):
        activations.relu([1.0]).backward()


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("elu", {"alpha": 2.0}, [2 * math.exp(-3) - 2, 1, 8]),
        ("gelu", {"approximate": True}, [-0.003637, 0.841192, 8]),
        ("leaky_relu", {"negative_slope": 0.5}, [-1.5, 1, 8]),
        ("relu", {"negative_slope": 0.1, "max_value": 6.0, "threshold": 2.0}, [-0.5, -0.1, 6]),
        ("relu", {"max_value": 6}, [0, 1, 6]),
        ("softmax", {"axis": 0}, [1, 1, 1]),
        ("log_softmax", {"axis": 0}, [0, 0, 0]),
    ],
)
def test_options_are_kerass(name, options, wanted):
    out = getattr(activations, name)([[-3.0, 1.0, 8.0]], **options)
    np.testing.assert_allclose(out, [wanted], atol=1e-5)


def test_an_activation_without_options_refuses_them():
    with pytest.raises(TypeError, match=r"^tanh takes x alone, got \['alpha'\]$"):
        activations.tanh(1.0, alpha=2)


@pytest.mark.parametrize("kind", [lambda activation: Dense(2, activation), Activation])
@pytest.mark.parametrize("given", ["relu", "ReLU", activations.relu])
def test_a_layer_says_its_activation_in_a_word_that_can_be_called(kind, given):
    activation = kind(given).activation
    assert activation == activations.relu == "relu"
    assert activation([-1.0, 1.0]).tolist() == [0, 1]


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_of_an_activation_is_the_same(clone):
    assert clone(activations.gelu) is activations.gelu
    assert clone(Dense(2, "swish")).activation is activations.swish


@pytest.mark.parametrize("name", activations.FUNCTIONS)
def test_a_symbol_makes_a_graph(name):
    inputs = torchnn.Input((4,))
    model = torchnn.Model(inputs, activations.get(name)(inputs))
    x = torch.linspace(-2, 2, 8).reshape(2, 4)
    torch.testing.assert_close(model(x), activations.FUNCTIONS[name](x))
    scaled = torchnn.Model(inputs, activations.relu(inputs, max_value=1.0))
    torch.testing.assert_close(scaled(x), x.clamp(0, 1))
