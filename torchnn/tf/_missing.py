"""What is said of names that torchnn.tf does not have."""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch.overrides import get_testing_overrides

# Where PyTorch has what TensorFlow has there.
PLACES: dict[str, Any] = {
    "torchnn.tf": torch,
    "torchnn.tf.linalg": torch.linalg,
    "torchnn.tf.math": torch,
    "torchnn.tf.nn": torch.nn.functional,
}


def said_of(module: str) -> Callable[[str], NoReturn]:
    """Returns the __getattr__ of a module."""

    def getattribute(name: str) -> NoReturn:
        hint = "PyTorch's and NumPy's functions take its tensors"
        place: Any = PLACES.get(module)
        if not name.startswith("_") and _takes_tensors(getattr(place, name, None)):
            hint = f"{place.__name__}.{name} takes its tensors"
        raise AttributeError(
            f"module {module!r} has no attribute {name!r}: it is the small part of TensorFlow that "
            f"programs with dense networks use; {hint}"
        )

    return getattribute


def _takes_tensors(found: Any) -> bool:
    """Whether it is one of PyTorch's functions of tensors, of which it keeps a list."""
    return callable(found) and found in get_testing_overrides()
