"""torchnn.activations: names, aliases and values."""

import math

import pytest
import torch

from torchnn import activations, ops

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
