"""Whose turn it is: one fit at a time changes a model."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn

_lock = threading.Lock()
_fitting: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # by which thread


@contextmanager
def fitting(model: nn.Module) -> Iterator[None]:
    """Reserves a model for a fit.

    Raises:
        RuntimeError: Another one is under way.
    """
    with _lock:
        if model in _fitting:
            raise RuntimeError(
                "fit is at work on this model already: wait until it has finished, or fit a copy, "
                "copy.deepcopy(model)"
            )
        _fitting[model] = threading.get_ident()
    try:
        yield
    finally:
        with _lock:
            del _fitting[model]


def check_free(model: nn.Module) -> None:
    """Raises RuntimeError if another thread is fitting the model. This one may be, and have called
    back."""
    if _fitting.get(model, threading.get_ident()) != threading.get_ident():
        raise RuntimeError("another thread's fit is at work on this model: wait until it is done")
