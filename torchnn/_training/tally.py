"""The means of an epoch, and its metrics, gathered run by run."""

from collections.abc import Iterator, Mapping, Sequence
from operator import mul
from time import perf_counter
from typing import Any

import numpy as np
from torch import Tensor

from torchnn._engine.autograd import Result
from torchnn._engine.run import Run
from torchnn._engine.several import selected
from torchnn.metrics import Metric, Summed
from torchnn.metrics._base import listed, number
from torchnn.ops._transfer import to_host


class Tally:
    """The mean of the batches' losses over the samples seen so far, and each metric of these.

    Another thread may ask for so_far() at any time.

    Args:
        metrics: What is measured: the tally has copies of its own.

    Attributes:
        steps: Batches counted.
        seconds: From the beginning to the last of them.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = [metric.fresh() for metric in metrics]
        self.reset()

    def reset(self) -> None:
        """Forgets everything: a new epoch begins."""
        self.steps, self.seconds = 0, 0.0
        self._began = perf_counter()
        self._loss: tuple[float, int] = 0.0, 0  # sum over samples, samples: replaced as one
        self._has_measured = False
        for metric in self.metrics:
            metric.reset_state()

    def sums(self) -> dict[str, Any] | None:
        """Returns what restore takes; None with metrics that keep more than sums."""
        sums: dict[str, Any] = dict(zip(("loss", "samples"), self._loss, strict=True))
        for metric in self.metrics:
            if not isinstance(metric, Summed):
                return None
            sums[metric.name] = [np.asarray(total).tolist() for total in metric.totals]
        return sums

    def restore(self, steps: int, sums: Mapping[str, Any]) -> None:
        """Goes on after so many batches, and from sums() if they are of the same metrics."""
        if set(sums) == {"loss", "samples", *(metric.name for metric in self.metrics)}:
            self._loss = sums["loss"], int(sums["samples"])
            for metric in self.metrics:
                if isinstance(metric, Summed):
                    metric.totals = [_total(each) for each in sums[metric.name]]
                    self._has_measured = bool(metric.totals)
        self.steps = steps

    def add(
        self, run: Run, losses: Sequence[float], total: float | None, *measured: Sequence[Any]
    ) -> None:
        """Counts a run of batches.

        Args:
            run: What was trained or evaluated.
            losses: The loss of each batch, which counts by the batch's size.
            total: Their sum over the samples, from the first on, if it is known.
            measured: For each metric, what is to be added to its totals; or of any other than a
                Summed, each batch, as (y_true, y_pred, sample_weight).
        """
        before, samples = self._loss
        count = run.stop - run.start
        if total is None or samples:
            # One by one, so that where an epoch is cut into runs does not change how it is rounded.
            total = before
            for loss in map(mul, losses, run.sizes):
                total += loss
        self._loss = total, samples + count
        if measured:
            for metric, sums in zip(self.metrics, measured, strict=True):
                _take(metric, sums, count)
            self._has_measured = True
        self.steps += len(losses)
        self.seconds = perf_counter() - self._began

    def logs(self) -> dict[str, Any]:
        """Returns "loss" and each metric; nothing before the first batch."""
        return self._logs(self.metrics)

    def so_far(self) -> dict[str, Any]:
        """Returns those among logs() that are sums: the result of others may take its time."""
        return self._logs([each for each in self.metrics if isinstance(each, Summed)])

    def _logs(self, metrics: Sequence[Metric]) -> dict[str, Any]:
        total, samples = self._loss
        if not samples:
            return {}
        values = {m.name: number(m.name, m.value()) for m in metrics if self._has_measured}
        return {"loss": total / samples, **values}


def _take(metric: Metric, sums: Sequence[Any], samples: int) -> None:
    """Takes in some batches more."""
    if isinstance(metric, Summed):
        metric.take(sums, samples)
        return
    for batch in sums[0]:
        metric.take_batch(*batch)


def _total(value: Any) -> Any:
    return np.array(value) if isinstance(value, list) else value


class Figures:
    """The losses of a run's batches, and the sums of the metrics, on their way to the host.

    Batches for metrics that are no sums stay where they are.

    Args:
        metrics: What to measure.
        run: What was trained or evaluated.
        result: What came of it, which a device may still be working on.
    """

    def __init__(self, metrics: Sequence[Metric], run: Run, result: Result) -> None:
        self.run = run
        self._losses = result.losses
        self._columns = _measured(metrics, run, result.predictions)
        sent = [each for columns in self._columns for each in columns if isinstance(each, Tensor)]
        self._wait = to_host([result.losses, *sent])

    def wait(self) -> Iterator[tuple[Any, ...]]:
        """Waits for the numbers; returns the arguments of Tally.add for each epoch of the run."""
        losses, *sent = map(listed, self._wait())
        arrived = iter(sent)
        columns = [
            [next(arrived) if isinstance(each, Tensor) else each for each in columns]
            for columns in self._columns
        ]
        epochs = self.run.epochs
        totals = _totals(losses, self.run) if epochs > 1 else [None]
        # Lazily: thousands of short epochs at once would keep the garbage collector busy.
        return (
            (
                part,
                _part(losses, i, epochs),
                totals[i],
                *([_part(c, i, epochs) for c in of] for of in columns),
            )
            for i, part in enumerate(self.run.split())
        )


def _totals(losses: Sequence[float], run: Run) -> list[float]:
    """The sums of the losses over the samples of each epoch, added up one by one."""
    sizes = next(run.split()).sizes
    return np.add.accumulate(np.reshape(losses, (-1, len(sizes))) * sizes, 1)[:, -1].tolist()


def _part(column: Sequence[Any], epoch: int, epochs: int) -> Sequence[Any]:
    """What belongs to one of the epochs."""
    each = len(column) // epochs
    return column[epoch * each : (epoch + 1) * each]


def _measured(metrics: Sequence[Metric], run: Run, y_pred: Tensor | None) -> list[list[Any]]:
    """For each metric, what is to be added to its totals, or the batches themselves."""
    if not metrics or y_pred is None or run.samples.y is None:
        return []
    y_true, weight = run.gather(run.samples.y), None
    if run.samples.weight is not None and any(metric.is_weighted for metric in metrics):
        weight = run.gather(run.samples.weight)
    return [
        _of_batches(
            run, metric, *selected(metric, y_true, y_pred, weight if metric.is_weighted else None)
        )
        for metric in metrics
    ]


def _of_batches(
    run: Run, metric: Metric, y_true: Tensor, y_pred: Tensor, weight: Tensor | None
) -> list[Any]:
    """What is to be added to the totals of a metric, or the batches themselves."""
    if (*y_true.shape, 1) == y_pred.shape:
        y_true = y_true.unsqueeze(-1)  # a metric may be any function: nothing may broadcast
    if isinstance(metric, Summed):
        return metric.sums(y_true, y_pred, weight, run.batches)
    sizes = run.sizes
    weights = [None] * len(sizes) if weight is None else weight.split(sizes)
    return [list(zip(y_true.split(sizes), y_pred.split(sizes), weights, strict=True))]
