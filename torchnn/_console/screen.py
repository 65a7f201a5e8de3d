"""Where lines of progress go: a plain stream, a terminal whose last line changes, or a notebook.

None of them ever ends the work: a screen that cannot be written to says so once and falls silent.
"""

import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any, TextIO

from torchnn import _warnings

INTERVAL = 0.05  # seconds between two drawings
CLEAR = "\r\x1b[K"  # empties the line of a terminal where the cursor is


class PlainScreen:
    """Writes finished lines as they come, and no control characters.

    Args:
        stream: Where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._has_failed = False

    def __enter__(self) -> "PlainScreen":
        return self

    def __exit__(self, exception_type: Any, *exception: Any) -> None:
        self._attempt(self._close, exception_type is not None)

    def open(self) -> None:
        """Prepares for drawing; should Ctrl-C come in the middle, closing undoes what was done."""

    def print(self, line: str) -> None:
        """Shows a finished line, at the latest with the next drawing or at the end."""
        self._attempt(self._print, line)

    def draw(self) -> None:
        """Shows the line that changes as it is now, if the screen can take it back again."""
        self._attempt(self._draw)

    def _attempt(self, act: Callable[..., None], *arguments: Any) -> None:
        """Does something on the screen, as long as that works."""
        if self._has_failed:
            return
        try:
            act(*arguments)
        except Exception as error:
            self._has_failed = True
            _warnings.warn(
                "the display of progress has ended, the work goes on: "
                f"{type(error).__name__}: {error}",
                RuntimeWarning,
            )

    def _print(self, line: str) -> None:
        self._write(f"{line}\n")

    def _draw(self) -> None:
        pass

    def _close(self, has_error: bool) -> None:
        pass

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


class LiveScreen(PlainScreen):
    """A terminal: finished lines, and under them one that changes.

    What anyone else prints meanwhile appears above the changing line.

    Args:
        stream: The terminal.
        current: Returns the line that changes, without its end, or None for no such line.
    """

    def __init__(self, stream: TextIO, current: Callable[[], str | None]) -> None:
        super().__init__(stream)
        self.current, self.is_closed = current, False
        self._finished, self._printed = "", 0.0  # lines to show, and when some were
        self._is_drawn = False  # whether the changing line stands on the screen
        self._at_line_start = True
        self._stand_ins: dict[str, _Above] = {}

    def __exit__(self, exception_type: Any, *exception: Any) -> None:
        self.is_closed = True
        for name, stand_in in self._stand_ins.items():
            if getattr(sys, name) is stand_in:
                setattr(sys, name, stand_in.original())
        super().__exit__(exception_type, *exception)

    def open(self) -> None:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if name not in self._stand_ins and (stream is self.stream or is_terminal(stream)):
                self._stand_ins[name] = _Above(stream, self)
                setattr(sys, name, self._stand_ins[name])

    def write_above(self, stream: TextIO, text: str) -> int:
        """Writes someone else's text where the changing line was."""
        self._attempt(self._show, None)
        if text:
            self._at_line_start = text.endswith(("\n", CLEAR))
        return stream.write(text)

    def _print(self, line: str) -> None:
        self._finished += f"{line}\n"
        # Short epochs end by the hundred: one writing shows many.
        if (now := perf_counter()) - self._printed >= INTERVAL:
            self._printed = now
            self._show(None)

    def _draw(self) -> None:
        self._show(self.current())

    def _close(self, has_error: bool) -> None:
        # After an error the changing line stays: it tells how far things came.
        self._show(self.current() if has_error else None)
        if self._is_drawn:
            self._write("\n")

    def _show(self, line: str | None) -> None:
        """Replaces the changing line by the lines finished since, and by a new one."""
        finished, self._finished = self._finished, ""
        if finished and not self._at_line_start:
            finished, self._at_line_start = f"\n{finished}", True
        if not self._at_line_start:
            return  # someone has printed half a line: do not write over it
        text = (CLEAR if self._is_drawn else "") + finished + (line or "")
        self._is_drawn = bool(line)
        if text:
            self._write(text)


class NotebookScreen(PlainScreen):
    """A notebook's output, where a line that changes is one display, updated in its place.

    Args:
        stream: The output, for lines that never had to change.
        current: Returns the line that changes, or None for no such line.
    """

    def __init__(self, stream: TextIO, current: Callable[[], str | None]) -> None:
        super().__init__(stream)
        self.current = current
        self._display: Any = None  # of the changing line

    def _print(self, line: str) -> None:
        if self._display is None:
            self.stream.write(f"{line}\n")  # the kernel flushes by itself; asking takes its time
        else:
            self._show(line)
            self._display = None

    def _draw(self) -> None:
        if line := self.current():
            self._show(line)

    def _close(self, has_error: bool) -> None:
        if self._display is not None and not has_error:
            self._show("")

    def _show(self, line: str) -> None:
        text = {"text/plain": line}
        if self._display is None:
            display: Any = sys.modules["IPython.display"]  # a kernel has it
            self._display = display.display(text, raw=True, display_id=True)
        else:
            self._display.update(text, raw=True)


class _Above:
    """Stands in for sys.stdout while a line is live, so that prints do not run into it."""

    def __init__(self, stream: Any, screen: LiveScreen) -> None:
        self._stream, self._screen = stream, screen

    def write(self, text: str) -> int:
        return self._screen.write_above(self._stream, text)

    def writelines(self, lines: Any) -> None:
        self.write("".join(lines))

    def original(self) -> Any:
        """The stream that stood here before, past the stand-ins of screens closed meanwhile."""
        stream = self._stream
        while isinstance(stream, _Above) and stream._screen.is_closed:
            stream = stream._stream
        return stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def is_terminal(stream: Any) -> bool:
    """Whether a stream is one; whoever replaces sys.stdout may not answer, and nor does None."""
    try:
        return bool(stream.isatty())
    except (AttributeError, OSError, ValueError):  # ValueError: it is closed
        return False


def is_notebook(stream: Any) -> bool:
    """Whether a stream is the output of a notebook's cell."""
    return type(stream).__module__.startswith("ipykernel.")
