"""The means of an epoch, gathered run by run."""

from collections.abc import Sequence
from functools import reduce
from operator import add, mul
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from torchnn._engine.autograd import Result
from torchnn._engine.run import Run
from torchnn.metrics import Metric
from torchnn.ops._transfer import to_host


class Tally:
    """Means over the samples seen so far: of the batches' losses, and of each metric.

    Another thread may ask for logs() at any time.

    Attributes:
        steps: Batches counted.
        seconds: From the beginning to the last of them.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = metrics
        self.reset()

    def reset(self) -> None:
        """Forgets everything: a new epoch begins."""
        self.steps, self.seconds = 0, 0.0
        self._began = perf_counter()
        self._loss: tuple[float, int] = 0.0, 0  # sum over samples, samples: replaced as one
        # Of each metric, the sum over samples; and samples: replaced as one, too.
        self._measured: tuple[list[float], int] = [0.0] * len(self.metrics), 0

    def add(self, run: Run, losses: Sequence[float], *sums: Sequence[float]) -> None:
        """Counts a run of batches.

        Args:
            run: What was trained or evaluated.
            losses: The loss of each batch, which counts by the batch's size.
            sums: Of each metric, the sum over the samples of each batch.
        """
        total, samples = self._loss
        # One by one, so that where an epoch is cut into runs does not change how it is rounded.
        for loss in map(mul, losses, run.sizes):
            total += loss
        samples += run.stop - run.start
        self._loss = total, samples
        if sums:
            totals = self._measured[0]
            self._measured = [reduce(add, *of) for of in zip(sums, totals, strict=True)], samples
        self.steps += len(losses)
        self.seconds = perf_counter() - self._began

    def logs(self) -> dict[str, float]:
        """Returns "loss" and each metric; nothing before the first batch."""
        total, samples = self._loss
        if not samples:
            return {}
        logs = {"loss": total / samples}
        values, measured = self._measured
        if measured:
            for metric, value in zip(self.metrics, values, strict=True):
                logs[metric.name] = value / measured
        return logs


class Figures:
    """The losses of a run's batches, and the sums of the metrics, on their way to the host.

    Args:
        metrics: What to measure.
        run: What was trained or evaluated.
        result: What came of it, which a device may still be working on.
    """

    def __init__(self, metrics: Sequence[Metric], run: Run, result: Result) -> None:
        self.run = run
        self._wait = to_host([result.losses, *_sums(metrics, run, result.predictions)])

    def wait(self) -> list[tuple[Any, ...]]:
        """Waits for the numbers; returns the arguments of Tally.add for each epoch of the run."""
        columns = [column.tolist() for column in self._wait()]
        steps = len(self.run) // self.run.epochs
        return [
            (part, *(column[i * steps : (i + 1) * steps] for column in columns))
            for i, part in enumerate(self.run.split())
        ]


def _sums(metrics: Sequence[Metric], run: Run, y_pred: Tensor | None) -> list[Tensor]:
    """Of each metric, the sum over the samples of each batch."""
    if not metrics or y_pred is None or run.samples.y is None:
        return []
    y_true = run.gather(run.samples.y)
    if (*y_true.shape, 1) == y_pred.shape:
        y_true = y_true.unsqueeze(-1)  # a metric may be any function: nothing may broadcast
    return [_batch_sums(metric, y_true, y_pred, run) for metric in metrics]


def _batch_sums(metric: Metric, y_true: Tensor, y_pred: Tensor, run: Run) -> Tensor:
    """The sum of a metric over the samples of each batch."""
    if not metric.is_per_sample:
        parts = zip(y_true.split(run.sizes), y_pred.split(run.sizes), strict=True)
        return torch.stack([metric.per_sample(*part).double().sum() for part in parts])
    return run.batches.reduce(metric.per_sample(y_true, y_pred).double(), torch.sum)
