"""The layers that make one of several, against NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import Input, Model, layers
from torchnn.layers import (
    Add,
    Average,
    Concatenate,
    Dot,
    Lambda,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
)

A = np.arange(6.0).reshape(2, 3)
B = A[::-1] - 1
DEEP_A = np.arange(24.0).reshape(2, 3, 4)
DEEP_B = np.arange(40.0).reshape(2, 4, 5)


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


MERGED = [
    (Add(), "add", {}, A + B),
    (Subtract(), "subtract", {}, A - B),
    (Multiply(), "multiply", {}, A * B),
    (Average(), "average", {}, (A + B) / 2),
    (Maximum(), "maximum", {}, np.maximum(A, B)),
    (Minimum(), "minimum", {}, np.minimum(A, B)),
    (Concatenate(), "concatenate", {}, np.concatenate([A, B], 1)),
    (Concatenate(axis=1), "concatenate", {"axis": 1}, np.concatenate([A, B], 1)),
    (Dot(axes=1), "dot", {"axes": 1}, (A * B).sum(1, keepdims=True)),
    (Dot(1, normalize=True), "dot", {"axes": 1, "normalize": True}, cosines(A, B)[:, None]),
]


@pytest.mark.parametrize(("layer", "name", "options", "expected"), MERGED)
def test_two_merged_match_numpy(layer, name, options, expected):
    function = getattr(layers, name)
    np.testing.assert_allclose(layer([A, B]), expected, rtol=1e-6)
    np.testing.assert_allclose(function([A, B], **options), expected, rtol=1e-6)
    symbols = Input((3,)), Input((3,))
    model = Model(symbols, function(list(symbols), **options))
    np.testing.assert_allclose(model([A, B]), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Add(), A + B + A),
        (Multiply(), A * B * A),
        (Average(), (A + B + A) / 3),
        (Maximum(), np.maximum(A, B)),
        (Concatenate(), np.concatenate([A, B, A], 1)),
    ],
)
def test_three_merged_match_numpy(layer, expected):
    np.testing.assert_allclose(layer([A, B, A]), expected)


def test_inputs_with_fewer_axes_get_more_behind_the_samples():
    expected = DEEP_A + np.ones((2, 1, 4))
    np.testing.assert_array_equal(Add()([DEEP_A, np.ones((2, 4))]), expected)
    np.testing.assert_array_equal(Add()([np.ones((2, 1, 1)), DEEP_A]), DEEP_A + 1)


@pytest.mark.parametrize(
    ("axes", "a", "b", "formula"),
    [
        ((2, 1), DEEP_A, DEEP_B, "nij,njk->nik"),
        ([1, 2], DEEP_A, DEEP_A.swapaxes(1, 2), "nij,nki->njk"),
        (-1, DEEP_A, DEEP_A, "nij,nkj->nik"),
        ((1, 1), np.ones((2, 4)), DEEP_B, "nj,njk->nk"),
    ],
)
def test_dot_over_an_axis_of_more_matches_einsum(axes, a, b, formula):
    np.testing.assert_allclose(Dot(axes)([a, b]), np.einsum(formula, a, b), rtol=1e-6)


def test_dot_of_zeros_has_no_direction():
    assert Dot(1, normalize=True)([np.zeros((2, 3)), A]).tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("layer", "inputs", "message"),
    [
        (Add(), A, r"^this Add layer takes a list of at least two inputs, got Tensor$"),
        (Add(name="sum"), [A], r"^layer 'sum' takes a list of at least two inputs, got 1$"),
        (Subtract(), [A, A, A], "takes a list of exactly two inputs, got 3$"),
        (Add(), [A, np.ones((2, 4))], r"cannot merge the shapes \(2, 3\), \(2, 4\)$"),
        (Concatenate(1), [DEEP_A, DEEP_B[:, :, :2]], r"cannot merge the shapes \(2, 3, 4\), "),
        (Dot(1), [A, np.ones((2, 4))], "expects axes of one length, got 3 and 4$"),
        (Dot(2), [A, A], r"got shape \(2, 3\), without axis 2$"),
    ],
)
def test_what_cannot_be_merged_is_an_error(layer, inputs, message):
    with pytest.raises(ValueError, match=message):
        layer(inputs)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Concatenate(0), ValueError, "^axis must not be 0, that of the samples$"),
        (lambda: Concatenate(1.5), TypeError, "^axis must be an integer, got 1.5$"),
        (lambda: Dot(0), ValueError, "^axes must not be 0, that of the samples$"),
        (lambda: Dot((1, 1, 1)), ValueError, r"^axes must be an integer or two of them, got \(1, "),
        (lambda: Dot(1, normalize=1), TypeError, "^normalize must be True or False, got 1$"),
        (lambda: Lambda("relu"), TypeError, "^function must be a function or a module, got 'relu'"),
        (
            lambda: Lambda(nn.ReLU),
            TypeError,
            "^function must be a function or a module, got <class",
        ),
    ],
)
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_lambda_is_any_function_with_its_arguments():
    np.testing.assert_array_equal(Lambda(lambda x: x * 2)(A), A * 2)
    np.testing.assert_array_equal(Lambda(torch.add, arguments={"other": 3})(A), A + 3)
    np.testing.assert_array_equal(Lambda(lambda both: both[0] - both[1])([A, B]), A - B)


def test_lambda_keeps_the_parameters_of_a_module():
    layer = Lambda(nn.Linear(3, 2))
    assert len(list(layer.parameters())) == 2
    assert layer(A).shape == (2, 2)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (Add(), "Add()"),
        (Concatenate(1, name="all"), "Concatenate(1, name='all')"),
        (Dot((1, 2), normalize=True), "Dot((1, 2), normalize=True)"),
        (Lambda(torch.relu), "Lambda('relu')"),
    ],
)
def test_reprs_read_like_calls(layer, text):
    assert repr(layer) == text
