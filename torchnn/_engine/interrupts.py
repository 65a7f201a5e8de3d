"""Ctrl-C between two steps of training, never in the middle of one."""

import signal
import threading
from typing import Any


class HeldInterrupt:
    """Holds Ctrl-C back inside a with block, except where release lets it through.

    A second Ctrl-C is not held, for a step that never ends. Outside the main thread, where Python
    delivers no signals, nothing is held.
    """

    def __enter__(self) -> "HeldInterrupt":
        self._pending: tuple[Any, ...] | None = None
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

    def release(self) -> None:
        """Lets a Ctrl-C that came since take effect."""
        if self._pending:
            pending, self._pending = self._pending, None
            self._handler(*pending)

    def _hold(self, *arguments: Any) -> None:
        if self._pending:
            self._handler(*arguments)
        self._pending = arguments
