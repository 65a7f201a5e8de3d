"""Epochs trained ahead of those who are told of them: when, how many, how they are validated."""

from collections.abc import Container, Iterator
from typing import Any

from torchnn._engine.ahead import Ahead
from torchnn._engine.choice import Engine
from torchnn._engine.run import Run, Samples
from torchnn._training.batches import ArrayFeed
from torchnn._training.tally import Figures, Tally
from torchnn.losses._functions import FunctionLoss
from torchnn.metrics import MeanMetricWrapper, Metric
from torchnn.metrics._torch import TorchAccumulator

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


class Lookahead:
    """Trains epochs ahead, where that is worth while.

    Args:
        engine: What trains.
        feed: What it trains on.
        validation: What the model is measured on after each, or None.
        freq: The number of epochs between two validations, or their numbers from 1.
        metrics: What is measured.

    Attributes:
        depth: To be told whether the epochs count.
    """

    def __init__(
        self,
        engine: Engine,
        feed: ArrayFeed,
        validation: ArrayFeed | None,
        freq: int | Container[int],
        metrics: Any,
    ) -> None:
        self.depth = Depth()
        self._engine, self._feed, self._metrics = engine, feed, metrics
        self._validation, self._freq = validation, freq

    def next_run(self, epoch: int, left: int) -> Run | None:
        """Returns the epochs to train ahead, in one run; None to train the next one alone.

        Args:
            epoch: The first of them, as the feed counts.
            left: How many there may be.
        """
        wanted = min(self.depth.next(), left)
        if wanted < FEWEST or self._feed.epochs_a_pause < LEAST_A_PAUSE:
            return None
        room = self._engine.most_ahead(self._feed.samples, self._others)
        most = min(wanted, self._feed.epochs_a_pause // 2, room)
        return self._feed.epochs(epoch, most) if most >= FEWEST else None

    def train(self, run: Run) -> Ahead:
        """Trains them."""
        return self._engine.ahead(run, self._others)

    def validations(self, ahead: Ahead, first: int) -> Iterator[dict[str, float]] | None:
        """Returns the means of what is validated on, after each epoch that is due.

        Args:
            ahead: The epochs.
            first: The number of the first.
        """
        due = [i for i in range(ahead.epochs) if is_due(first + i, self._freq)]
        if self._validation is None or not due:
            return None
        return self._measured(self._validation.repeated(len(due)), ahead, due)

    def _measured(self, run: Run, ahead: Ahead, epochs: list[int]) -> Iterator[dict[str, float]]:
        tally = Tally(self._metrics)
        result = self._engine.test_ahead(run, ahead, epochs)
        for numbers in Figures(tally.metrics, run, result).wait():
            tally.reset()
            tally.add(*numbers)
            yield tally.logs()

    @property
    def _others(self) -> list[Samples]:
        return [] if self._validation is None else [self._validation.samples]


def is_pure(metric: Metric) -> bool:
    """Whether a metric measures predictions and nothing else. One of somebody else's may look at
    the model, fail, or count its calls: it is called when an epoch has been trained."""
    loss = getattr(metric, "loss", None)
    parts = [metric] if loss is None else [metric, loss]
    is_others = isinstance(metric, (MeanMetricWrapper, TorchAccumulator))
    is_others = is_others or isinstance(loss, FunctionLoss)
    return not is_others and all(type(part).__module__.startswith("torchnn.") for part in parts)


def is_due(epoch: int, freq: int | Container[int]) -> bool:
    """Whether an epoch is one to validate after."""
    return (epoch + 1) % freq == 0 if isinstance(freq, int) else epoch + 1 in freq
