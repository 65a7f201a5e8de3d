"""Where lines of progress go: a plain stream, or a terminal whose last line is redrawn."""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

INTERVAL = 0.05  # seconds between two drawings


class PlainScreen:
    """Writes finished lines as they come, and no control characters."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __enter__(self) -> "PlainScreen":
        return self

    def __exit__(self, *exception: Any) -> None:
        pass

    def print(self, line: str) -> None:
        """Writes a finished line."""
        self.stream.write(f"{line}\n")
        self.stream.flush()


class LiveScreen:
    """Draws finished lines, and under them one that changes, from a thread of its own.

    What anyone else prints meanwhile appears above the changing line.

    Args:
        stream: A terminal, or a notebook's output.
        current: Returns the line that changes, without its end, or None for no such line.
        erase: What clears the rest of a line; "" where only spaces do.
    """

    def __init__(self, stream: TextIO, current: Callable[[], str | None], erase: str = "\x1b[K"):
        self.stream, self.current, self.erase = stream, current, erase
        self.is_closed = False
        self._finished: deque[str] = deque()
        self._drawn = 0  # characters of the changing line that stand on the screen
        self._at_line_start = True
        self._stand_ins: dict[str, _Above] = {}
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._draw_until_stopped, daemon=True)

    def __enter__(self) -> "LiveScreen":
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is self.stream or (stream is not None and stream.isatty()):
                self._stand_ins[name] = _Above(stream, self)
                setattr(sys, name, self._stand_ins[name])
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stop.set()
        self._thread.join()
        self.is_closed = True
        for name, stand_in in self._stand_ins.items():
            if getattr(sys, name) is stand_in:
                setattr(sys, name, stand_in.original())
        # An error leaves the half-done line standing: it tells how far things came.
        self._draw(self.current() if exception[0] else None)
        if self._drawn:
            self._write("\n")

    def print(self, line: str) -> None:
        """Takes a finished line; the next drawing shows it."""
        self._finished.append(line)

    def write_above(self, stream: TextIO, text: str) -> int:
        """Writes someone else's text where the changing line was."""
        with self._lock:
            self._draw(None)
            self._at_line_start = text.endswith("\n") if text else self._at_line_start
            return stream.write(text)

    def _draw_until_stopped(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._draw(self.current())

    def _draw(self, live: str | None) -> None:
        """Replaces the changing line by the lines finished since, and a new changing line."""
        with self._lock:
            lines = [f"{self._finished.popleft()}\n" for _ in range(len(self._finished))]
            if lines and not self._at_line_start:
                lines.insert(0, "\n")
                self._at_line_start = True
            if not self._at_line_start:
                return  # someone has printed half a line: do not write over it
            if lines or live or self._drawn:
                clear = "\r" + (self.erase or " " * self._drawn + "\r") if self._drawn else ""
                self._drawn = len(live or "")
                self._write(clear + "".join(lines) + (live or ""))

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


class _Above:
    """Stands in for sys.stdout while a line is live, so that prints do not run into it."""

    def __init__(self, stream: Any, screen: LiveScreen) -> None:
        self._stream, self._screen, self._process = stream, screen, os.getpid()

    def write(self, text: str) -> int:
        # A forked worker has the screen's lock, but not the thread that would give it back.
        if os.getpid() != self._process:
            return int(self._stream.write(text))
        return self._screen.write_above(self._stream, text)

    def original(self) -> Any:
        """The stream that stood here before, past the stand-ins of screens closed meanwhile."""
        stream = self._stream
        while isinstance(stream, _Above) and stream._screen.is_closed:
            stream = stream._stream
        return stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
