"""Ctrl-C where it can do no harm: between two steps of training, never in the middle of one."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class HeldInterrupt:
    """Holds Ctrl-C back inside a with block, except where it is let through.

    A second Ctrl-C is not held, for a step that never ends. Outside the main thread, where Python
    delivers no signals, nothing is held.
    """

    def __enter__(self) -> "HeldInterrupt":
        self._pending: tuple[Any, ...] | None = None
        self._holds = True
        self._handler: Any = None
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.getsignal(signal.SIGINT)
        if callable(self._handler):
            signal.signal(signal.SIGINT, self._hold)
        return self

    def __exit__(self, exception_type: Any, *exception: Any) -> None:
        if callable(self._handler):
            signal.signal(signal.SIGINT, self._handler)
        if exception_type is None:
            self.release()

    def is_pending(self) -> bool:
        """Whether a Ctrl-C is being held."""
        return self._pending is not None

    def release(self) -> None:
        """Lets a Ctrl-C that came since take effect."""
        if self._pending:
            pending, self._pending = self._pending, None
            self._handler(*pending)

    def meanwhile(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Returns what a function returns, during which nothing is held."""
        held, self._holds = self._holds, False
        try:
            return function(*arguments, **named)
        finally:
            self._holds = held

    def between(self, items: Iterable[T]) -> Iterator[T]:
        """Yields the items; while the next one is fetched, nothing is held."""
        iterator, end = iter(items), object()
        while True:
            self.release()
            if (item := self.meanwhile(next, iterator, end)) is end:
                return
            yield item  # type: ignore[misc]

    def _hold(self, *arguments: Any) -> None:
        if self._pending or not self._holds:
            self._handler(*arguments)
        else:
            self._pending = arguments
