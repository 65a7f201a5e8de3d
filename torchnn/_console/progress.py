"""One line an epoch: live in a terminal or a notebook, plain text anywhere else.

Nothing here sits in a training step: the line is redrawn between two runs of batches.
"""

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, Protocol, TypeVar

from torchnn._console.lines import Look, duration
from torchnn._console.screen import (
    INTERVAL,
    LiveScreen,
    NotebookScreen,
    PlainScreen,
    is_notebook,
    is_terminal,
)
from torchnn.callbacks._base import Callback, Logs

PATIENCE = 0.1  # seconds before an unfinished line is worth showing

T = TypeVar("T")


class Counter(Protocol):
    """An engine, as far as progress looks at it."""

    @property
    def steps_done(self) -> int: ...


class Means(Protocol):
    """The means of an epoch, as far as progress looks at them.

    Attributes:
        steps: Batches counted.
        seconds: From the beginning to the last of them.
    """

    steps: int
    seconds: float

    def so_far(self) -> dict[str, float]: ...


class Progress(Callback):
    """Shows an epoch, an evaluation or a prediction as one line.

    A context manager around the work, so that errors and Ctrl-C leave a clean screen.

    Args:
        engine: Counts its steps in `steps_done`.
        tally: The means so far.
        steps: Steps a line, or None if unknown.
        epochs: How many epochs there will be.
        verbose: 0 shows nothing; 1 or "auto" a live line where that can be; 2 plain lines.
        headline: Parts of a line to show before the first epoch, or none.
    """

    def __init__(
        self,
        engine: Counter,
        tally: Means,
        steps: int | None,
        epochs: int = 1,
        verbose: Any = 1,
        headline: Sequence[str] = (),
    ):
        self.engine, self.tally, self.steps, self.epochs = engine, tally, steps, epochs
        self._look, self._label, self._headline = Look(), "", headline
        self._started: float | None = None
        self._drawn = 0.0  # when
        self._first_step = 0
        self._screen = self._choose_screen(check_verbose(verbose))

    def __enter__(self) -> "Progress":
        return self  # begin opens the screen: inside the block, so that its end always follows

    def __exit__(self, *exception: Any) -> None:
        if self._screen:
            self._screen.__exit__(*exception)

    @property
    def is_visible(self) -> bool:
        """Whether anything is shown at all."""
        return self._screen is not None

    def on_train_begin(self, logs: Logs = None) -> None:
        if self._screen and self._headline:
            self._screen.open()
            self._screen.print(self._look.told(self._headline))

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.begin(f"Epoch {epoch + 1:>{len(str(self.epochs))}}/{self.epochs}")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.end(logs or {})

    def begin(self, label: str) -> None:
        """Starts a line."""
        self._label, self._started = label, perf_counter()
        self._first_step = self.engine.steps_done
        if self._screen:
            self._screen.open()

    def watched(self, runs: Iterable[T]) -> Iterator[T]:
        """Yields the runs, and redraws the line after one when it is time."""
        for run in runs:
            yield run
            self.draw()

    def draw(self, label: str | None = None) -> None:
        """Redraws the line when it is time, by another label if one is given."""
        self._label, now = label or self._label, perf_counter()
        if self._screen and self._started is not None and now - self._drawn >= INTERVAL:
            self._drawn = now
            self._screen.draw()

    def end(self, logs: Mapping[str, Any], label: str | None = None) -> None:
        """Finishes the line, by another label if one is given."""
        self._label = label or self._label
        if self._screen and self._started is not None:
            # Epochs that were trained together are told of afterwards, one right after the other.
            seconds = max(perf_counter() - self._started, self.tally.seconds)
            self._started = None
            rate = self.tally.steps / self.tally.seconds if self.tally.seconds else 0.0
            self._screen.print(self._look.finished(self._label, rate, duration(seconds), logs))

    def _live_line(self) -> str | None:
        """The unfinished line; None while it is too young to be read."""
        if isinstance(self._screen, LiveScreen):  # its window may change, but asking costs 20 us
            self._look.columns = shutil.get_terminal_size().columns
        started = self._started
        if started is None or (seconds := perf_counter() - started) < PATIENCE:
            return None
        done, steps = self.engine.steps_done - self._first_step, self.steps
        time, rate = duration(seconds), done / seconds
        if steps:
            done = min(done, steps)  # validation steps count on
            if 0 < done < steps:
                time = f"{duration((steps - done) / rate)} left"
        return self._look.live(self._label, done, steps, rate, time, self.tally.so_far())

    def _choose_screen(self, verbose: int) -> PlainScreen | None:
        """Returns where lines go, having found out how they may look there."""
        stream = sys.stdout
        if verbose == 0 or stream is None:
            return None
        is_live = is_terminal(stream) and os.environ.get("TERM") not in ("dumb", "unknown")
        if verbose == 2 or not (is_live or is_notebook(stream)):
            return PlainScreen(stream)
        encoding = getattr(stream, "encoding", None) or "utf-8"  # a stream of text may have none
        self._look.bar = ("━", "╸") if encoding.lower().startswith("utf") else ("=", "-")
        if not is_live:
            return NotebookScreen(stream, self._live_line)
        self._look.has_colours = not os.environ.get("NO_COLOR")
        self._look.columns = shutil.get_terminal_size().columns
        return LiveScreen(stream, self._live_line)


def check_verbose(verbose: Any) -> int:
    """Returns verbose as 0, 1 or 2."""
    if verbose == "auto":
        return 1
    if verbose not in (0, 1, 2):
        raise ValueError(f'verbose must be "auto", 0, 1 or 2, got {verbose!r}')
    return int(verbose)
