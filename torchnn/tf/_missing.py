"""What is said of names that torchnn.tf does not have."""

from collections.abc import Callable
from typing import Any, NoReturn

import torch


def said_of(module: str) -> Callable[[str], NoReturn]:
    """Returns the __getattr__ of a module."""

    def getattribute(name: str) -> NoReturn:
        there: Any = hasattr(torch, name) and not name.startswith("_")
        hint = (
            f"torch.{name} takes its tensors"
            if there
            else "PyTorch's and NumPy's functions take its tensors"
        )
        raise AttributeError(
            f"module {module!r} has no attribute {name!r}: it is the small part of TensorFlow that "
            f"programs with dense networks use; {hint}"
        )

    return getattribute
