"""MNIST: handwritten digits, ten classes."""

import os

from torchnn.datasets import _files

__all__ = ["load_data"]


def load_data(path: str | os.PathLike[str] = "mnist.npz") -> _files.Split:
    """Returns (x_train, y_train), (x_test, y_test).

    Args:
        path: The file, or its name in one of the folders that torchnn.datasets looks into.

    Returns:
        x: uint8 from 0 to 255, shapes (60000, 28, 28) and (10000, 28, 28). y: uint8 from 0 to 9.

    Raises:
        FileNotFoundError: There is no such file; the message says where to get it.

    Source: LeCun et al., Gradient-based learning applied to document recognition, 1998.
    """
    return _files.images(_files.find(path, "mnist.npz"))
