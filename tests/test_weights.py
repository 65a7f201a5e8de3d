"""Weights as numpy arrays, in Keras's order, and back."""

import numpy as np
import pytest
import torch
from torch import nn

from torchnn.layers import Dense, Flatten
from torchnn.layers import _weights as weights


def layers():
    return [
        nn.Linear(2, 3),
        Flatten(),
        nn.BatchNorm1d(3),
        Dense(4, in_features=3),
        Dense(1, use_bias=False, in_features=4),
    ]


def test_kernels_are_in_kerass_order_and_other_tensors_as_they_are():
    mixed = layers()
    shapes = [array.shape for array in weights.get(mixed)]
    assert shapes == [(3, 2), (3,), *[(3,)] * 4, (), (3, 4), (4,), (4, 1)]
    np.testing.assert_array_equal(weights.get(mixed)[-3], mixed[3].weight.detach().numpy().T)


def test_what_get_returns_is_a_copy():
    linear = nn.Linear(1, 1)
    weights.get([linear])[0][:] = 7
    assert linear.weight.item() != 7


@pytest.mark.parametrize("kind", [lambda array: array, np.ndarray.tolist, torch.tensor])
def test_what_get_returns_can_be_put(kind):
    one, other = layers(), layers()
    parameter = one[3].weight
    weights.put(one, [kind(array) for array in weights.get(other)])
    for first, second in zip(weights.get(one), weights.get(other), strict=True):
        np.testing.assert_array_equal(first, second)
    assert one[3].weight is parameter


def test_bfloat16_becomes_float32():
    assert weights.get([nn.Linear(1, 1, dtype=torch.bfloat16)])[0].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda w: w[:-1], ValueError, "weights must hold 10 arrays, got 9"),
        (lambda w: [*w, w[0]], ValueError, "weights must hold 10 arrays, got 11"),
        (lambda w: [*w[:-1], w[-1].T], ValueError, r"weights\[9\] must have shape \(4, 1\), got"),
        (lambda w: [*w[:-1], w[-1].astype(str)], TypeError, r"weights\[9\] must hold numbers, got"),
        (lambda w: w[0], TypeError, "weights must be a list of arrays, got ndarray"),
    ],
)
def test_what_does_not_fit_changes_nothing(change, error, message):
    mixed = layers()
    before = weights.get(mixed)
    with pytest.raises(error, match=message):
        weights.put(mixed, change([array + 1 for array in before]))
    for one, other in zip(before, weights.get(mixed), strict=True):
        np.testing.assert_array_equal(one, other)
