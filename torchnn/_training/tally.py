"""The means of an epoch, gathered run by run."""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import add, mul
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from torchnn._engine.autograd import Result
from torchnn._engine.run import Run
from torchnn.metrics import Accumulator, Metric
from torchnn.ops._transfer import to_host


class Tally:
    """Means over the samples seen so far: of the batches' losses, and of each metric.

    Another thread may ask for so_far() at any time.

    Args:
        metrics: What is measured. Of accumulators, the tally has copies of its own.

    Attributes:
        steps: Batches counted.
        seconds: From the beginning to the last of them.
    """

    def __init__(self, metrics: Sequence[Metric | Accumulator]) -> None:
        self.metrics = [m.fresh() if isinstance(m, Accumulator) else m for m in metrics]
        self.reset()

    def reset(self) -> None:
        """Forgets everything: a new epoch begins."""
        self.steps, self.seconds = 0, 0.0
        self._began = perf_counter()
        self._loss: tuple[float, int] = 0.0, 0  # sum over samples, samples: replaced as one
        # Of each metric, the sum over samples; and samples: replaced as one, too.
        self._measured: tuple[list[float], int] = [0.0] * len(self.metrics), 0
        for metric in self.metrics:
            if isinstance(metric, Accumulator):
                metric.reset()

    def sums(self) -> dict[str, float] | None:
        """Returns what restore takes; None with accumulators, which keep more than a sum."""
        if any(isinstance(metric, Accumulator) for metric in self.metrics):
            return None
        (loss, samples), (values, measured) = self._loss, self._measured
        names = [metric.name for metric in self.metrics]
        sums = dict(zip(names, values, strict=True))
        return {"loss": loss, "samples": samples, "measured": measured, **sums}

    def restore(self, steps: int, sums: Mapping[str, float]) -> None:
        """Goes on after so many batches, and from sums() if they are of the same metrics."""
        names = [metric.name for metric in self.metrics]
        if set(sums) == {"loss", "samples", "measured", *names}:
            self._loss = sums["loss"], int(sums["samples"])
            self._measured = [sums[name] for name in names], int(sums["measured"])
        self.steps = steps

    def add(self, run: Run, losses: Sequence[float], *measured: Sequence[Any]) -> None:
        """Counts a run of batches.

        Args:
            run: What was trained or evaluated.
            losses: The loss of each batch, which counts by the batch's size.
            measured: Of each metric, the sum over the samples of each batch; or each batch, as
                (y_true, y_pred), for an accumulator.
        """
        total, samples = self._loss
        # One by one, so that where an epoch is cut into runs does not change how it is rounded.
        for loss in map(mul, losses, run.sizes):
            total += loss
        samples += run.stop - run.start
        self._loss = total, samples
        if measured:
            of_each = zip(self.metrics, measured, self._measured[0], strict=True)
            self._measured = [_gathered(*of) for of in of_each], samples
        self.steps += len(losses)
        self.seconds = perf_counter() - self._began

    def logs(self) -> dict[str, float]:
        """Returns "loss" and each metric; nothing before the first batch."""
        means = self.so_far()
        if not self._measured[1]:
            return means
        values = {
            metric.name: metric.result() if isinstance(metric, Accumulator) else means[metric.name]
            for metric in self.metrics
        }
        return {"loss": means["loss"], **values}

    def so_far(self) -> dict[str, float]:
        """Returns the means among logs(): the result of an accumulator may take its time."""
        total, samples = self._loss
        if not samples:
            return {}
        logs = {"loss": total / samples}
        values, measured = self._measured
        for metric, value in zip(self.metrics, values, strict=True):
            if measured and not isinstance(metric, Accumulator):
                logs[metric.name] = value / measured
        return logs


def _gathered(metric: Metric | Accumulator, measured: Sequence[Any], total: float) -> float:
    """The sum of a metric over all samples, after some batches more."""
    if not isinstance(metric, Accumulator):
        return reduce(add, measured, total)
    for batch in measured:
        metric.update(*batch)
    return total


class Figures:
    """The losses of a run's batches, and the sums of the metrics, on their way to the host.

    What accumulators measure stays where it is.

    Args:
        metrics: What to measure.
        run: What was trained or evaluated.
        result: What came of it, which a device may still be working on.
    """

    def __init__(self, metrics: Sequence[Metric | Accumulator], run: Run, result: Result) -> None:
        self.run = run
        self._columns = [result.losses, *_measured(metrics, run, result.predictions)]
        self._wait = to_host([each for each in self._columns if isinstance(each, Tensor)])

    def wait(self) -> Iterator[tuple[Any, ...]]:
        """Waits for the numbers; returns the arguments of Tally.add for each epoch of the run."""
        sent = iter(self._wait())
        columns = [
            next(sent).tolist() if isinstance(column, Tensor) else column
            for column in self._columns
        ]
        steps = len(self.run) // self.run.epochs
        # Lazily: thousands of short epochs at once would keep the garbage collector busy.
        return (
            (part, *(column[i * steps : (i + 1) * steps] for column in columns))
            for i, part in enumerate(self.run.split())
        )


def _measured(
    metrics: Sequence[Metric | Accumulator], run: Run, y_pred: Tensor | None
) -> list[Any]:
    """Of each metric, the sum over the samples of each batch, or the batches themselves."""
    if not metrics or y_pred is None or run.samples.y is None:
        return []
    y_true = run.gather(run.samples.y)
    if (*y_true.shape, 1) == y_pred.shape:
        y_true = y_true.unsqueeze(-1)  # a metric may be any function: nothing may broadcast
    return [_of_batches(metric, y_true, y_pred, run) for metric in metrics]


def _of_batches(metric: Metric | Accumulator, y_true: Tensor, y_pred: Tensor, run: Run) -> Any:
    """The sum of a metric over the samples of each batch, or the batches themselves."""
    if isinstance(metric, Metric) and metric.is_per_sample:
        return run.batches.reduce(metric.per_sample(y_true, y_pred).double(), torch.sum)
    batches = zip(y_true.split(run.sizes), y_pred.split(run.sizes), strict=True)
    if isinstance(metric, Accumulator):
        return list(batches)
    return torch.stack([metric.per_sample(*batch).double().sum() for batch in batches])
