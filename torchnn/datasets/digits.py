"""Handwritten digits of 8x8 pixels, ten classes: what scikit-learn brings, so no file is needed."""

import numpy as np

from torchnn.datasets import _files

__all__ = ["load_data"]


def load_data(test_split: float = 0.2, seed: int = 113) -> _files.Split:
    """Returns (x_train, y_train), (x_test, y_test).

    Args:
        test_split: The part of the 1,797 samples that is kept for the test, in [0, 1).
        seed: What the order of the samples follows from.

    Returns:
        x: uint8 from 0 to 16, shapes (1437, 8, 8) and (360, 8, 8). y: uint8 from 0 to 9.

    Raises:
        ImportError: There is no scikit-learn.

    Source: Alpaydin and Kaynak, Optical recognition of handwritten digits, 1998.
    """
    try:
        from sklearn.datasets import load_digits  # type: ignore[import, unused-ignore]
    except ImportError as error:
        raise ImportError("digits are scikit-learn's: pip install scikit-learn") from error
    found = load_digits()
    return _files.split(
        found.images.astype(np.uint8), found.target.astype(np.uint8), test_split, seed
    )
