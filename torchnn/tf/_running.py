"""What programs say of how they run: what to print, and on which device."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import numpy as np
import torch

from torchnn.layers._values import mapped


def print_(
    *inputs: Any,
    output_stream: TextIO | None = None,
    sep: str = " ",
    end: str = "\n",
    summarize: int | None = None,
) -> None:
    """Prints values, tensors as arrays.

    Args:
        inputs: Tensors, arrays, strings, and lists, tuples and dicts that hold them.
        output_stream: Where to; standard error if None.
        sep: What stands between them.
        end: What stands after them.
        summarize: How many entries to print at each end of an axis; -1 for all, None for 3.
    """
    ends = 3 if summarize is None else summarize
    limit = sys.maxsize if ends < 0 else 2 * ends
    with np.printoptions(threshold=limit, edgeitems=max(ends, 0)):
        words = [str(mapped(_shown(value), _listed)) for value in inputs]
    print(*words, sep=sep, end=end, file=output_stream or sys.stderr)


def _shown(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else value


@contextmanager
def device(device_name: str | None) -> Iterator[None]:
    """Does nothing: tensors are made on the CPU, and models are where `model.to("cuda")` puts them.

    Args:
        device_name: TensorFlow's name of a CPU or GPU, such as "/GPU:0" or "/device:CPU:0".
    """
    name = getattr(device_name, "name", device_name)
    if name is not None and not re.search(r"\b(CPU|GPU)(:(\d+|\*))?$", str(name), re.IGNORECASE):
        raise ValueError(f'device_name must be one such as "/CPU:0" or "/GPU:0", got {name!r}')
    yield
