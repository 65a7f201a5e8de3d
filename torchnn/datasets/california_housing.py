"""California housing: 20,640 districts with 8 features each, and the median value of a house."""

import os

from torchnn import _checks
from torchnn.datasets import _files

__all__ = ["load_data"]

SIZES = {"small": 600, "large": None}


def load_data(
    version: str = "large",
    path: str | os.PathLike[str] = "california_housing.npz",
    test_split: float = 0.2,
    seed: int = 113,
) -> _files.Split:
    """Returns (x_train, y_train), (x_test, y_test), in Keras's order.

    Args:
        version: "large" for all districts, "small" for the first 600 of the file.
        path: The file, or its name in one of the folders that torchnn.datasets looks into.
        test_split: The part of the samples that is kept for the test, in [0, 1).
        seed: What the order of the samples follows from.

    Returns:
        x: float32, shapes (16512, 8) and (4128, 8) of all districts. y: float32, dollars.

    Raises:
        FileNotFoundError: There is no such file; the message says where to get it.

    Source: Pace and Barry, Sparse spatial autoregressions, 1997.
    """
    size = SIZES[_checks.choice("version", version, list(SIZES))]
    x, y = _files.arrays(_files.find(path, "california_housing.npz"), "x", "y")
    return _files.split(x[:size], y[:size], test_split, seed)
