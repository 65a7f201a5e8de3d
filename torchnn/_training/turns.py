"""Whose turn it is: one fit at a time changes a model."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn

_lock = threading.Lock()
_fits: WeakKeyDictionary[nn.Module, "_Fit"] = WeakKeyDictionary()  # those under way


class _Fit:
    """A fit that is under way, and its thread."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()


@contextmanager
def fitting(model: nn.Module) -> Iterator[None]:
    """Reserves a model for a fit.

    Raises:
        RuntimeError: Another one is under way.
    """
    own = _Fit()
    try:  # from here on, so that Ctrl-C cannot come between
        with _lock:
            if _fits.setdefault(model, own) is not own:
                raise RuntimeError(
                    "fit is at work on this model already: wait until it has finished, or fit a "
                    "copy, copy.deepcopy(model)"
                )
        yield
    finally:
        with _lock:
            if _fits.get(model) is own:
                del _fits[model]


def check_free(model: nn.Module) -> None:
    """Raises RuntimeError if another thread fits the model. This one may, and have called back."""
    fit = _fits.get(model)
    if fit is not None and fit.thread != threading.get_ident():
        raise RuntimeError("fit is at work on this model in another thread: wait until it is done")
