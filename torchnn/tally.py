"""The means of an epoch, gathered run by run."""

from collections.abc import Sequence
from operator import mul
from time import perf_counter

import torch
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
        self._values: dict[str, Tensor] = {}

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
            self._measure(run.gather(run.samples.y), predictions)
        self.seconds = perf_counter() - self._began

    def _measure(self, y_true: Tensor, y_pred: Tensor) -> None:
        """Keeps every sample's value of every metric."""
        if (*y_true.shape, 1) == y_pred.shape:
            y_true = y_true.unsqueeze(-1)  # a metric may be any function: nothing may broadcast
        for metric in self.metrics:
            values = metric.per_sample(y_true, y_pred)
            known = self._values.get(metric.name)
            self._values[metric.name] = values if known is None else torch.cat([known, values])

    def logs(self) -> dict[str, float]:
        """Returns "loss" and each metric; nothing before the first batch."""
        total, samples = self._loss
        if not samples:
            return {}
        values = dict(self._values)
        return {"loss": total / samples} | {
            name: value.double().mean().item() for name, value in values.items()
        }
