"""Utilities with Keras's names."""

import random

import numpy as np
import pytest
import torch

from torchnn import utils
from torchnn.utils import normalize, set_random_seed, to_categorical


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_one_seed_seeds_everything():
    set_random_seed(1234)
    first = draws()
    assert first != draws()
    set_random_seed(np.int64(1234))
    assert draws() == first


@pytest.mark.parametrize("seed", [-1, 1.5, "1", True, None, 2**32])
def test_seed_is_checked(seed):
    with pytest.raises((ValueError, TypeError), match="seed must be"):
        set_random_seed(seed)


@pytest.mark.parametrize(
    ("x", "num_classes", "rows"),
    [
        ([0, 2, 1], None, [[1, 0, 0], [0, 0, 1], [0, 1, 0]]),
        (np.array([[1], [0]], np.uint8), 3, [[0, 1, 0], [1, 0, 0]]),
        (np.array([1.0, 0.0]), None, [[0, 1], [1, 0]]),
        ([[0, 1], [1, 1]], None, [[[1, 0], [0, 1]], [[0, 1], [0, 1]]]),
        (1, 2, [0, 1]),
        ([True, False], None, [[0, 1], [1, 0]]),
    ],
)
def test_to_categorical_makes_a_row_for_each_class_number(x, num_classes, rows):
    result = to_categorical(x, num_classes)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, rows)
    tensor = to_categorical(torch.as_tensor(x), num_classes=num_classes)
    assert tensor.dtype == torch.float32
    assert tensor.tolist() == rows


@pytest.mark.parametrize(
    ("x", "num_classes", "message"),
    [
        ([0, -1], None, "class numbers from 0, got -1"),
        ([0, 3], 3, "class numbers from 0 to 2, got 3"),
        ([0.5, 1], None, "class numbers from 0, got 0.5"),
        ([float("nan")], 2, "class numbers from 0 to 1, got nan"),
        ([], None, "num_classes must be given where x is empty"),
        ([0], 2.5, "num_classes must be a positive integer"),
        (["a"], None, "x must hold numbers"),
    ],
)
def test_to_categorical_takes_class_numbers_alone(x, num_classes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        to_categorical(x, num_classes)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[0.6, 0.8], [0, 0]]),
        ({"order": 1}, [[3 / 7, 4 / 7], [0, 0]]),
        ({"axis": 0}, [[1, 1], [0, 0]]),
    ],
)
def test_normalize_divides_by_the_norm_along_an_axis(options, expected):
    x = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    result = normalize(x, **options)
    assert (type(result), result.dtype) == (np.ndarray, np.float32)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    torch.testing.assert_close(normalize(torch.tensor(x), **options), torch.tensor(result))
    assert normalize(x.astype(int).tolist(), **options).dtype == np.float64


def test_a_dataset_of_batches_says_what_it_lacks():
    class Empty(utils.PyDataset):
        pass

    assert utils.Sequence is utils.PyDataset
    for action, name in ((len, "__len__"), (lambda each: each[0], "__getitem__")):
        with pytest.raises(NotImplementedError, match=f"^Empty needs {name}"):
            action(Empty(workers=2))
