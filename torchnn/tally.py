"""The means of an epoch, gathered run by run."""

from collections.abc import Sequence
from operator import mul
from time import perf_counter

from torch import Tensor

from torchnn.batches import Run
from torchnn.metrics import Metric


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

    def add(self, run: Run, losses: Sequence[float], predictions: Tensor | None) -> None:
        """Counts a run of batches.

        Args:
            run: What was trained or evaluated.
            losses: The loss of each batch, which counts by the batch's size.
            predictions: The run's predictions, row by row; needed if there are metrics.
        """
        total, samples = self._loss
        # One by one, so that where an epoch is cut into runs does not change how it is rounded.
        for loss in map(mul, losses, run.sizes):
            total += loss
        self._loss = total, samples + run.stop - run.start
        self.steps += len(losses)
        if self.metrics and predictions is not None and run.samples.y is not None:
            self._measure(run, run.gather(run.samples.y), predictions)
        self.seconds = perf_counter() - self._began

    def _measure(self, run: Run, y_true: Tensor, y_pred: Tensor) -> None:
        """Adds up every metric."""
        if (*y_true.shape, 1) == y_pred.shape:
            y_true = y_true.unsqueeze(-1)  # a metric may be any function: nothing may broadcast
        totals, samples = self._measured
        values = []
        for metric, total in zip(self.metrics, totals, strict=True):
            # Batch by batch, as with the losses.
            for value in _batch_sums(metric, y_true, y_pred, run):
                total += value
            values.append(total)
        self._measured = values, samples + len(y_pred)

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


def _batch_sums(metric: Metric, y_true: Tensor, y_pred: Tensor, run: Run) -> list[float]:
    """The sum of a metric over the samples of each batch."""
    if not metric.is_per_sample:
        parts = zip(y_true.split(run.sizes), y_pred.split(run.sizes), strict=True)
        return [metric.per_sample(*part).double().sum().item() for part in parts]
    values = metric.per_sample(y_true, y_pred).double()
    whole = len(values) // run.batch_size * run.batch_size
    sums: list[float] = values[:whole].reshape(-1, run.batch_size).sum(1).tolist()
    return sums if whole == len(values) else [*sums, values[whole:].sum().item()]
