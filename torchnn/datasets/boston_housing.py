"""Boston housing: 506 suburbs with 13 features each, and the median value of their houses.

One of the features supposes that segregation raises prices; `california_housing` has none of that.
"""

import os

from torchnn.datasets import _files

__all__ = ["load_data"]


def load_data(
    path: str | os.PathLike[str] = "boston_housing.npz", test_split: float = 0.2, seed: int = 113
) -> _files.Split:
    """Returns (x_train, y_train), (x_test, y_test), in Keras's order.

    Args:
        path: The file, or its name in one of the folders that torchnn.datasets looks into.
        test_split: The part of the samples that is kept for the test, in [0, 1).
        seed: What the order of the samples follows from.

    Returns:
        x: float64, shapes (404, 13) and (102, 13). y: float64, thousands of dollars.

    Raises:
        FileNotFoundError: There is no such file; the message says where to get it.

    Source: Harrison and Rubinfeld, Hedonic housing prices and the demand for clean air, 1978.
    """
    x, y = _files.arrays(_files.find(path, "boston_housing.npz"), "x", "y")
    return _files.split(x, y, test_split, seed)
