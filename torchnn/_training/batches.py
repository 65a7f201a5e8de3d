"""The order of an epoch: which rows make which batch, in runs for an engine to train."""

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from torchnn._engine.run import Batches, Form, Run, Samples
from torchnn._training import data
from torchnn.ops._transfer import is_queued, to_device

PAUSE = 0.05  # seconds a run: so often do progress, Ctrl-C and a look at the loss get their turn
FIRST_PACE = 8  # batches a run, while nobody knows how long one takes

CheckTargets = Callable[[Any], None]
CheckLabels = Callable[[Samples], None]


class ArrayFeed:
    """Batches of samples that lie in memory, shuffled if there is a seed.

    Attributes:
        first: Samples to rehearse with: all of them, since labels are looked at then.
        steps: Batches an epoch.
        identity: Equal for feeds whose epochs are cut alike.
    """

    def __init__(self, samples: Samples, batch_size: int, seed: int | None = None) -> None:
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.first = samples
        self.count = len(samples)
        self.steps: int | None = Batches(self.count, max(self.count, 1), batch_size).count
        self._pace = FIRST_PACE
        # Of a device that works through a queue, two runs are under way at a time.
        self._pause = PAUSE / 2 if is_queued(samples.x.device) else PAUSE

    @property
    def identity(self) -> tuple[int, ...] | None:
        return self.batch_size, self.count, self.seed is not None

    def runs(
        self, epoch: int = 0, one_by_one: bool = False, first: int = 0, seed: int | None = None
    ) -> Iterator[Run]:
        """Yields an epoch in runs of about PAUSE seconds, or of one batch.

        Args:
            epoch: Which one.
            one_by_one: Whether a run is one batch.
            first: The batch to begin with.
            seed: What the order follows from; the feed's own if None.
        """
        order = self._orders(epoch, 1, seed) if self.seed is not None else None
        start = first * self.batch_size
        while start < self.count:
            batches = 1 if one_by_one else self._pace
            stop = start + batches * self.batch_size
            # What would be left for a short run is taken along.
            if one_by_one or stop + batches * self.batch_size // 2 < self.count:
                stop = min(stop, self.count)
            else:
                stop = self.count
            yield Run(self.samples, self.batch_size, start, stop, order)
            start = stop

    def epochs(self, epoch: int, most: int) -> Run | None:
        """Returns as many whole epochs as take PAUSE seconds, in one run; None if one takes longer.

        Args:
            epoch: The first of them.
            most: How many there may be.
        """
        count = min(most, self._pace * self.batch_size // max(self.count, self.batch_size))
        if count < 1:
            return None
        order, stop = self._orders(epoch, count), count * self.count
        return Run(self.samples, self.batch_size, 0, stop, order, count)

    def learn(self, run: Run, seconds: float) -> None:
        """Sets the length of the runs to come by how long one took."""
        self._pace = max(1, int(len(run) * self._pause / max(seconds, 1e-6)))

    def _orders(self, epoch: int, count: int, seed: int | None = None) -> Tensor:
        """The rows' order in so many epochs, one after the other."""
        seed = self.seed if seed is None else seed
        orders = torch.arange(self.count, device="cpu").repeat(count, 1)
        if seed is not None:
            for i, order in enumerate(orders.unbind()):
                permutation(self.count, seed, epoch + i, out=order)
        return to_device(orders.reshape(-1), self.samples.x.device)

    def unweighted(self) -> "ArrayFeed":
        """Returns the same batches, with every sample counting as one."""
        samples = Samples(self.samples.x, self.samples.y, None, self.samples.origin)
        return ArrayFeed(samples, self.batch_size, self.seed)

    def split(self, validation_split: float) -> "tuple[ArrayFeed, ArrayFeed]":
        """Returns the first samples, to train on, and the last ones, in their order."""
        train, validation = self.samples.split(validation_split)
        return (
            ArrayFeed(train, self.batch_size, self.seed),
            ArrayFeed(validation, self.batch_size),
        )


class LoaderFeed:
    """Batches as a DataLoader makes them: (x, y) or (x, y, sample_weight).

    Attributes:
        batch_size: Not the loader's, which is its own affair; for validation_data in memory.
        first: The first batch.
        check_labels: Raises for labels that the model's output has no place for; set when that is
            known. None for no look at them.
        steps: Batches an epoch, or None if unknown.
        identity: As of an ArrayFeed; None if unknown.
    """

    seed = None  # the loader has its own

    def __init__(
        self,
        loader: "DataLoader[Any]",
        form: Form,
        batch_size: int,
        check_targets: CheckTargets | None = None,
        origin: str = "",
    ) -> None:
        self.loader, self.form, self.batch_size = loader, form, batch_size
        self.check_targets = check_targets
        self.origin = origin or " from the DataLoader"
        self.check_labels: CheckLabels | None = None
        self.steps = _length(loader)
        self.started: Iterator[Any] | None = iter(loader)
        first = next(self.started, None)
        if first is None:
            raise ValueError(f"x{self.origin} must hold at least one batch, got none")
        self.first = self._samples(first)
        # The first epoch goes on from the batch that showed the shapes: it is not read twice.
        self.started = chain([first], self.started)

    def epochs(self, epoch: int, most: int) -> None:
        """Returns None: what a loader will give is not known before it gives it."""

    def learn(self, run: Run, seconds: float) -> None:
        """Learns nothing: how long a batch is, the loader says."""

    @property
    def identity(self) -> tuple[int, ...] | None:
        return None if self.steps is None else (self.steps,)

    def runs(
        self, epoch: int = 0, one_by_one: bool = True, first: int = 0, seed: int | None = None
    ) -> Iterator[Run]:
        """Yields an epoch batch by batch, in the loader's own order, without the first so many."""
        batches, self.started = self.started or self.loader, None
        for batch in islice(batches, first, None):
            samples = self._samples(batch)
            yield Run(samples, len(samples), 0, len(samples))

    def split(self, validation_split: float) -> "tuple[LoaderFeed, LoaderFeed]":
        """Raises ValueError: a loader cannot be split."""
        raise ValueError(
            f"validation_split must be 0 when x is a DataLoader, got {validation_split}: "
            "pass validation_data"
        )

    def _samples(self, batch: Any) -> Samples:
        """Returns one batch, checked."""
        parts = tuple(batch) if isinstance(batch, (list, tuple)) else (batch,)
        needed = 1 if self.check_targets is None else 2
        if isinstance(batch, dict) or not needed <= len(parts) <= 3:
            got = type(batch).__name__ + (f" of {len(parts)}" if parts[0] is not batch else "")
            raise ValueError(
                f"a batch{self.origin} must be (x, y) or (x, y, sample_weight), got {got}"
            )
        x, y, weight = (*parts, None, None)[:3]
        if self.check_targets is None:
            return data.samples(self.form, x, origin=self.origin)
        samples = data.samples(self.form, x, y, weight, origin=self.origin)
        if self.check_labels is not None:
            self.check_labels(samples)
        return _with_good_targets(samples, self.check_targets)


Feed = ArrayFeed | LoaderFeed


def feed(
    form: Form,
    batch_size: int,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    check_targets: CheckTargets | None = None,
    origin: str = "",
) -> Feed:
    """Returns x, y and the weights, checked, as something that gives batches.

    Args:
        form: What the model eats.
        batch_size: Samples a batch, unless x is a DataLoader, which knows its own.
        x: Features, or a DataLoader of (x, y) or (x, y, sample_weight); then the rest is None.
        y: Targets.
        sample_weight: A weight for each sample.
        class_weight: A weight for each label in y.
        check_targets: Raises for targets that the loss does not take; None if none are needed.
        origin: Where the values came from, for the messages: " of validation_data".
    """
    if not isinstance(x, DataLoader):
        if isinstance(x, Dataset):
            raise TypeError(f"x{origin} is a Dataset: wrap it in a torch.utils.data.DataLoader")
        if check_targets is not None and y is None:
            raise ValueError(f"y{origin} must be given, unless x is a DataLoader; got None")
        only_predicts = check_targets is None
        samples = data.samples(form, x, y, sample_weight, class_weight, origin, only_predicts)
        return ArrayFeed(_with_good_targets(samples, check_targets), batch_size)
    given = {"y": y, "sample_weight": sample_weight, "class_weight": class_weight}
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} must be None when x is a DataLoader, which yields (x, y)")
    return LoaderFeed(x, form, batch_size, check_targets, origin)


def permutation(count: int, seed: int, epoch: int, out: Tensor | None = None) -> Tensor:
    """Returns the rows' order in an epoch, a function of the seed and the epoch alone.

    A generator of its own leaves torch's global one as it was.
    """
    # The generator uses 32 bits of its seed: a prime keeps neighbouring seeds' epochs apart.
    mixed = (seed * 1_000_003 + epoch) % 2**63
    generator = torch.Generator("cpu").manual_seed(mixed)
    return torch.randperm(count, generator=generator, out=out, device="cpu")


def _with_good_targets(samples: Samples, check_targets: CheckTargets | None) -> Samples:
    """Returns the samples if the loss takes their targets."""
    try:
        if check_targets is not None:
            check_targets(samples.y)
    except ValueError as error:
        raise ValueError(f"y{samples.origin} does not suit the loss: {error}") from error
    return samples


def _length(loader: "DataLoader[Any]") -> int | None:
    """The number of batches, or None where only reading them tells."""
    try:
        return len(loader)
    except TypeError:
        return None
