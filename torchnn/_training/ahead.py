"""How many epochs to train ahead of those who are told of them, and what these are validated by."""

from collections.abc import Iterator
from typing import Any

from torchnn._engine.ahead import Ahead
from torchnn._engine.choice import Engine
from torchnn._training.batches import ArrayFeed
from torchnn._training.tally import Figures, Tally

FEWEST, FIRST, MOST = 2, 8, 128  # epochs
# What is told between two epochs takes less than a tenth of one that is longer.
LEAST_A_PAUSE = 10


class Depth:
    """How many epochs to train ahead: twice as many each time that all of them count, and none for
    some time after someone has changed the model, so that little is trained in vain."""

    def __init__(self) -> None:
        self._epochs, self._rest, self._next_rest = FIRST, 0, 1

    def next(self) -> int:
        """Returns the number for the epochs to come; asked again for each that is trained alone."""
        if self._rest:
            self._rest -= 1
            return 0
        return self._epochs

    def kept(self) -> None:
        """All of them count."""
        self._epochs, self._next_rest = min(2 * self._epochs, MOST), max(self._next_rest // 2, 1)

    def lost(self) -> None:
        """Some of them do not."""
        self._epochs, self._rest, self._next_rest = FEWEST, self._next_rest, 2 * self._next_rest


def most_ahead(engine: Engine, feed: ArrayFeed, validation: ArrayFeed | None, wanted: int) -> int:
    """Returns how many of the epochs wanted are to be trained ahead, if that is worth while."""
    if feed.epochs_a_pause < LEAST_A_PAUSE:
        return 0
    others = () if validation is None else (validation.samples,)
    room = engine.most_ahead(feed.samples, *others)
    return min(wanted, feed.epochs_a_pause // 2, room)


def validations(
    engine: Engine, feed: ArrayFeed, ahead: Ahead, epochs: list[int], metrics: Any
) -> Iterator[dict[str, float]]:
    """Yields the means of what is validated on after some of the epochs, counted from 0."""
    if not epochs:
        return
    run, tally = feed.repeated(len(epochs)), Tally(metrics)
    result = engine.test_ahead(run, ahead, epochs)
    for numbers in Figures(tally.metrics, run, result).wait():
        tally.reset()
        tally.add(*numbers)
        yield tally.logs()
