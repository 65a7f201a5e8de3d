"""Finds the files of data sets, reads them and splits what they hold."""

import gzip
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from torchnn import _checks

Array = np.ndarray[Any, Any]
Split = tuple[tuple[Array, Array], tuple[Array, Array]]

ORIGIN = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
VARIABLE = "TORCHNN_DATASETS"


def places(path: str | os.PathLike[str]) -> list[Path]:
    """Returns where a file may be, in the order in which they are looked at."""
    keras = Path(os.environ.get("KERAS_HOME") or "~/.keras", "datasets")
    folders = [Path(), Path(os.environ.get(VARIABLE, "")), keras]
    found = [folder.expanduser() / Path(path).expanduser() for folder in folders]
    return list(dict.fromkeys(place.absolute() for place in found))


def find(path: str | os.PathLike[str], origin: str | None = None) -> Path:
    """Returns where a file is.

    Args:
        path: The file, or its name in one of the folders.
        origin: Its name among the files that Keras downloads, or None if it is not one of them.

    Raises:
        FileNotFoundError: It is nowhere; the message says where it can be had from.
    """
    looked_at = places(path)
    for place in looked_at:
        if place.is_file():
            return place
    hint = (
        f": get it from {ORIGIN}{origin}, and put it at the last of these places, "
        f"or set {VARIABLE} to the folder that it is in"
    )
    raise FileNotFoundError(f"no file {', '.join(map(str, looked_at))}{hint if origin else ''}")


def arrays(path: Path, *names: str) -> list[Array]:
    """Returns the arrays of these names in an .npz file."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no .npz file")
    with np.load(path, allow_pickle=False) as file:
        if missing := [name for name in names if name not in file]:
            raise ValueError(f"{path} must hold {', '.join(missing)}, got {', '.join(file)}")
        return [file[name] for name in names]


def images(path: Path) -> Split:
    """Returns training and test images with their labels from an .npz file."""
    x_train, y_train, x_test, y_test = arrays(path, "x_train", "y_train", "x_test", "y_test")
    return (x_train, y_train), (x_test, y_test)


def idx(path: Path) -> Array:
    """Returns the bytes in a gzipped IDX file, in the shape that it says."""
    with gzip.open(path) as file:
        data = file.read()
    kind, axes = data[:3], data[3] if len(data) > 3 else 0
    shape = np.frombuffer(data[: 4 + 4 * axes], ">u4", offset=4) if axes else np.zeros(0, int)
    values = np.frombuffer(data, np.uint8, offset=min(4 + 4 * axes, len(data)))
    if kind != b"\0\0\x08" or len(shape) != axes or values.size != shape.prod(dtype=int):
        raise ValueError(f"{path} is no whole IDX file of bytes")
    return values.reshape(shape).copy()  # its own, and so writable


def split(x: Array, y: Array, test_split: float, seed: int) -> Split:
    """Returns samples in an order that follows from the seed, the last ones apart to test with."""
    test_split = _checks.fraction("test_split", test_split)
    order = np.random.RandomState(_checks.non_negative_int("seed", seed)).permutation(len(x))
    train, test = np.split(order, [int(len(x) * (1 - test_split))])
    return (x[train], y[train]), (x[test], y[test])
