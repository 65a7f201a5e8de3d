"""Utilities with Keras's names."""

import random

import numpy as np
import torch

from torchnn import _checks

__all__ = ["set_random_seed"]


def set_random_seed(seed: int) -> None:
    """Seeds Python, NumPy and PyTorch, on every device: the same seed makes the same run.

    First weights, the order of the batches and dropout follow from it.

    Args:
        seed: From 0 to 2**32 - 1.

    Raises:
        ValueError, TypeError: seed is anything else.
    """
    seed = _checks.non_negative_int("seed", seed)
    if seed >= 2**32:
        raise ValueError(f"seed must be less than 2**32, got {seed}")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
