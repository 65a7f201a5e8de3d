"""Utilities with Keras's names."""

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from torchnn import _checks, _config

__all__ = [
    "PyDataset",
    "Sequence",
    "custom_object_scope",
    "get_custom_objects",
    "normalize",
    "register_keras_serializable",
    "set_random_seed",
    "to_categorical",
]

T = TypeVar("T")


class PyDataset:
    """Batches by number, for fit, evaluate and predict: give a subclass __len__ and __getitem__.

    Args:
        workers, use_multiprocessing, max_queue_size: Keras's; they change nothing.
    """

    def __init__(
        self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10
    ) -> None:
        pass

    def __len__(self) -> int:
        """Returns the number of batches."""
        raise NotImplementedError(f"{type(self).__name__} needs __len__, the number of batches")

    def __getitem__(self, index: int) -> Any:
        """Returns the batch of this number: (x, y) or (x, y, sample_weight)."""
        raise NotImplementedError(f"{type(self).__name__} needs __getitem__, a batch by its number")

    def on_epoch_end(self) -> None:
        """Is called when all batches have been read."""


Sequence = PyDataset  # its old name


def register_keras_serializable(
    package: str = "Custom", name: str | None = None
) -> Callable[[T], T]:
    """Returns a decorator: files and configs find the class or the function by its name.

        @register_keras_serializable()
        def scaled_error(y_true, y_pred): ...

    Args:
        package: What Keras's own files call it by, too, as "package>name".
        name: Another name for it.
    """

    def register(thing: T) -> T:
        own: Any = thing
        names = [own.__name__] if name is None else [own.__name__, _checks.string("name", name)]
        for each in (*names, f"{package}>{names[-1]}"):
            _config.registered[each] = thing
        return thing

    return register


def get_custom_objects() -> dict[str, Any]:
    """Returns what register_keras_serializable has registered; what is put in is registered."""
    return _config.registered


def custom_object_scope(custom_objects: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Within it, files and configs find these classes and functions by their names.

    Args:
        custom_objects: From names to classes and functions.
    """
    return _config.known(custom_objects)


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


def to_categorical(x: Any, num_classes: int | None = None) -> Any:
    """Returns one row for each class number: 1 at its place, 0 elsewhere.

    Args:
        x: Class numbers from 0, shape (N,), (N, 1) or (..., N): an array, lists or a tensor.
        num_classes: The length of a row; the greatest number in x and 1 if None.

    Returns:
        Shape (N, num_classes), or (..., N, num_classes): a float64 array, and for a tensor a tensor
        of the default dtype.

    Raises:
        ValueError: x holds something else than whole numbers from 0 to num_classes - 1.
    """
    numbers = _checks.tensor("x", x)
    if numbers.ndim > 1 and numbers.shape[-1] == 1:
        numbers = numbers.squeeze(-1)
    classes = _class_numbers(numbers, num_classes)
    rows = nn.functional.one_hot(*classes)
    return rows.to(torch.get_default_dtype()) if isinstance(x, Tensor) else rows.double().numpy()


def normalize(x: Any, axis: int = -1, order: float = 2) -> Any:
    """Returns x / norm(x): vectors along an axis get the length 1, and those of zeros stay.

    Args:
        x: An array, lists or a tensor.
        axis: The axis that the vectors lie along.
        order: That of the norm: (sum |x|^order)^(1 / order).

    Returns:
        x's shape: an array, and for a tensor a tensor. Integers become float64.
    """
    values = _checks.tensor("x", x)
    values = values if values.is_floating_point() else values.double()
    axis, order = _checks.integer("axis", axis), _checks.positive_float("order", order)
    norm = torch.linalg.vector_norm(values, order, axis, keepdim=True)
    result = values / norm.where(norm != 0, 1)
    return result if isinstance(x, Tensor) else result.numpy()


def _class_numbers(numbers: Tensor, num_classes: Any) -> tuple[Tensor, int]:
    """Returns class numbers as int64, and how many classes there are."""
    whole = numbers.long()
    if num_classes is None and not len(whole.ravel()):
        raise ValueError("num_classes must be given where x is empty")
    classes = (
        int(whole.max()) + 1
        if num_classes is None
        else _checks.positive_int("num_classes", num_classes)
    )
    bad = (whole != numbers) | (whole < 0) | (whole >= classes)
    if bad.any():
        top = "" if num_classes is None else f" to {classes - 1}"
        raise ValueError(f"x must hold class numbers from 0{top}, got {numbers[bad][0].item():g}")
    return whole, classes
