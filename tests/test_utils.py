"""Utilities with Keras's names."""

import random

import numpy as np
import pytest
import torch

from torchnn.utils import set_random_seed


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
