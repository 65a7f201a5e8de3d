"""Fashion-MNIST: images of clothes, ten classes."""

import os
from pathlib import Path

from torchnn.datasets import _files

__all__ = ["load_data"]

NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def load_data(path: str | os.PathLike[str] = "fashion-mnist") -> _files.Split:
    """Returns (x_train, y_train), (x_test, y_test).

    Args:
        path: The folder of the four IDX files, or an .npz file with the four arrays; or the name of
            either in one of the folders that torchnn.datasets looks into.

    Returns:
        x: uint8 from 0 to 255, shapes (60000, 28, 28) and (10000, 28, 28). y: uint8 from 0 to 9.

    Raises:
        FileNotFoundError: A file is missing; the message says where to get it.

    Source: Xiao et al., Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms, 2017.
    """
    if Path(path).suffix == ".npz":
        return _files.images(_files.find(path))
    files = [_files.find(Path(path, name), name) for name in NAMES]
    x_train, y_train, x_test, y_test = map(_files.idx, files)
    return (x_train, y_train), (x_test, y_test)
