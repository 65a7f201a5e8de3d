"""The order of an epoch: which rows make which batch, in runs for an engine to train."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count, cycle, islice, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from torchnn._engine import building
from torchnn._engine.run import Batches, Form, Run, Samples
from torchnn._training import data
from torchnn._training.arrays import ARRAY_PROTOCOLS
from torchnn.ops._network import shuffle_
from torchnn.ops._transfer import is_queued, to_device

PAUSE = 0.05  # seconds a run: so often do progress, Ctrl-C and a look at the loss get their turn
# A run reads and writes all parameters, which a few batches repay: it has at least FEW, if these
# take no longer than LONGEST times PAUSE.
FEW, LONGEST = 4, 5
FIRST_PACE = 8  # batches a run, while nobody knows how long one takes

CheckTargets = Callable[[Any], None]
CheckBatch = Callable[[Samples], None]


class ArrayFeed:
    """Batches of samples that lie in memory, shuffled if there is a seed.

    Attributes:
        first: Samples to rehearse with: all of them, since labels are looked at then.
        steps: Batches an epoch: all of them, or what limit has set.
        identity: Equal for feeds whose epochs are cut alike.
        paces: By batch size, how many batches a run has; may be what another feed has learnt.
    """

    def __init__(self, samples: Samples, batch_size: int, seed: int | None = None) -> None:
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.first = samples
        self.count = len(samples)
        self._all = Batches(self.count, max(self.count, 1), batch_size).count
        self.steps: int | None = self._all
        self.paces: dict[int, int] = {}
        # Of a device that works through a queue, two runs are under way at a time.
        self._pause = PAUSE / 2 if is_queued(samples.x.device) else PAUSE

    @property
    def identity(self) -> tuple[int, ...] | None:
        return self.batch_size, self.count, self.seed is not None, self._steps

    @property
    def _steps(self) -> int:
        return self._all if self.steps is None else self.steps

    @property
    def _pace(self) -> int:
        return self.paces.get(self.batch_size, FIRST_PACE)

    @property
    def is_whole(self) -> bool:
        """Whether an epoch is all samples, once."""
        return self.steps == self._all

    def limit(self, steps: int | None, repeats: bool = False) -> None:
        """Makes an epoch so many batches, if there are as many or it repeats."""
        if steps is not None:
            self.steps = steps if repeats else min(steps, self._all)

    def shuffle(self, seed: int) -> None:
        """Gives every epoch an order of its own."""
        self.seed = seed

    def is_over(self) -> bool:
        """Returns False: there is always another epoch."""
        return False

    def runs(
        self, epoch: int = 0, one_by_one: bool = False, first: int = 0, seed: int | None = None
    ) -> Iterator[Run]:
        """Yields an epoch in runs of about PAUSE seconds, a few batches at least, or of one batch.

        Args:
            epoch: Which one.
            one_by_one: Whether a run is one batch.
            first: The batch to begin with.
            seed: What the order follows from; the feed's own if None.
        """
        start, stop = epoch * self._steps + first, (epoch + 1) * self._steps
        while start < stop:  # an epoch of other than all batches begins where the last one ended
            number, batch = divmod(start, max(self._all, 1))
            batches = min(stop - start, self._all - batch)
            yield from self._pass(number, batch, batches, one_by_one, seed)
            start += batches

    def _pass(
        self, number: int, first: int, batches: int, one_by_one: bool, seed: int | None
    ) -> Iterator[Run]:
        """Yields some of all batches, which have another order each time they are gone through."""
        order = self._orders(number, 1, seed) if self.seed is not None else None
        start, end = first * self.batch_size, min((first + batches) * self.batch_size, self.count)
        while start < end:
            size = self.batch_size if one_by_one else self._pace * self.batch_size
            # What would be left for a short run is taken along.
            is_last = not one_by_one and start + size + size // 2 >= end
            stop = end if is_last else min(start + size, end)
            yield Run(self.samples, self.batch_size, start, stop, order)
            start = stop

    def go_on(self, order: Any) -> None:
        """Gives the epochs to come the order that another feed of the same samples told."""
        self.seed = order

    @property
    def order(self) -> Any:
        """What the order of all epochs follows from."""
        return self.seed

    def epochs(self, epoch: int, most: int) -> Run | None:
        """Returns as many whole epochs as take PAUSE seconds, in one run; None if one takes longer.

        Args:
            epoch: The first of them.
            most: How many there may be.
        """
        count = min(most, self.epochs_a_pause)
        return self.repeated(count, epoch) if count and self.is_whole else None

    @property
    def epochs_a_pause(self) -> int:
        """How many whole epochs take PAUSE seconds."""
        return self._pace * self.batch_size // max(self.count, self.batch_size)

    def repeated(self, count: int, epoch: int = 0) -> Run:
        """Returns so many whole epochs in one run."""
        order, stop = self._orders(epoch, count), count * self.count
        return Run(self.samples, self.batch_size, 0, stop, order, count)

    def learn(self, run: Run, seconds: float) -> None:
        """Sets the length of the runs to come by how long one took."""
        fitting = len(run) * self._pause / max(seconds, 1e-6)
        few = min(FEW, int(fitting * LONGEST))
        self.paces[self.batch_size] = max(1, int(fitting), few)

    def _orders(self, epoch: int, count: int, seed: int | None = None) -> Tensor:
        """The rows' order in so many epochs, one after the other."""
        seed = self.seed if seed is None else seed
        if seed is None:
            orders = torch.arange(self.count, device="cpu").repeat(count)
        else:
            orders = permutation(self.count, seed, epoch, count)
        return to_device(orders, self.samples.x.device)

    def unweighted(self) -> "ArrayFeed":
        """Returns the same batches, with every sample counting as one."""
        samples = Samples(self.samples.x, self.samples.y, None, self.samples.origin)
        return ArrayFeed(samples, self.batch_size, self.seed)

    def split(self, validation_split: float, batch_size: int) -> "tuple[ArrayFeed, ArrayFeed]":
        """Returns the first samples, to train on, and the last ones, in their order."""
        train, validation = self.samples.split(validation_split)
        return ArrayFeed(train, self.batch_size, self.seed), ArrayFeed(validation, batch_size)


class LoaderFeed:
    """Batches as a DataLoader, a generator or anything else makes them: (x, y) or (x, y,
    sample_weight).

    Attributes:
        batch_size: Not the loader's, which is its own affair; for validation_data in memory.
        first: The first batch.
        check_batch: Raises for batches that the model or the loss does not take, such as labels
            that the output has no place for; set when that is known. None for no look at them.
        steps: Batches an epoch, or None if unknown.
        identity: As of an ArrayFeed; None if unknown.
        is_iterator: Whether what it has given is gone.
    """

    seed = None  # the loader has its own

    def __init__(
        self,
        loader: Any,
        form: Form,
        batch_size: int,
        check_targets: CheckTargets | None = None,
        origin: str = "",
    ) -> None:
        self.form, self.batch_size, self.check_targets = form, batch_size, check_targets
        self.kind = type(loader).__name__
        self.origin = origin or f" from the {self.kind}"
        self.check_batch: CheckBatch | None = None
        self.steps = _length(loader)
        self._limit: int | None = None
        self._stream: Iterator[Any] | None = None  # of batches that go on from epoch to epoch
        self.is_iterator = hasattr(loader, "__next__")
        says_so = getattr(loader, "is_endless", False) is True  # as torchnn.tf.data's may
        self.is_endless = says_so or isinstance(loader, (count, cycle, repeat))
        self.loader = _Stream(loader) if self.is_iterator else _iterable(loader)
        self.started: Iterator[Any] | None = iter(self.loader)
        first = next(self.started, None)
        if first is None:
            raise ValueError(f"x{self.origin} must hold at least one batch, got none")
        self.first = self._samples(first)
        # The first epoch goes on from the batch that showed the shapes: it is not read twice.
        self.started = chain([first], self.started)
        if isinstance(self.loader, _Stream):
            self.loader.ahead, self.started = [first], None

    def shuffle(self, seed: int) -> None:
        """Gives every epoch an order of its own, if batches have numbers: else the loader has."""
        if isinstance(self.loader, _Indexed):
            self.loader.seed, self.started = seed, None

    def go_on(self, order: Any) -> None:
        """Reads all anew when the next epoch begins, by a generator that has been set back."""
        if isinstance(self.loader, _Indexed):
            self.loader.seed, self.loader.epoch = order
        if not self.is_iterator:
            self.started = None

    @property
    def order(self) -> Any:
        """What the order of batches by number follows from; None if the loader has its own."""
        loader = self.loader
        return (loader.seed, loader.epoch) if isinstance(loader, _Indexed) else None

    def limit(self, steps: int | None, repeats: bool = False) -> None:
        """Makes an epoch so many batches, if there are as many or it repeats."""
        if steps is None:
            return
        self._limit = self.steps = steps
        if repeats and not self.is_iterator:
            self._stream = chain(self.started or (), self._again())

    def is_over(self) -> bool:
        """Whether nothing is left of what can be read only once."""
        return isinstance(self.loader, _Stream) and self.loader.is_empty()

    def epochs(self, epoch: int, most: int) -> None:
        """Returns None: what a loader will give is not known before it gives it."""

    def learn(self, run: Run, seconds: float) -> None:
        """Learns nothing: how long a batch is, the loader says."""

    @property
    def identity(self) -> tuple[int, ...] | None:
        has_own_order = self._limit is not None or isinstance(self.loader, _Indexed)
        return None if self.steps is None or has_own_order else (self.steps,)

    def runs(
        self, epoch: int = 0, one_by_one: bool = True, first: int = 0, seed: int | None = None
    ) -> Iterator[Run]:
        """Yields an epoch batch by batch, in the loader's own order, without the first so many."""
        batches = self._anew() if self._stream is None else self._stream
        for batch in islice(batches, first, self._limit):
            samples = self._samples(batch)
            yield Run(samples, len(samples), 0, len(samples))

    def _anew(self) -> Iterator[Any]:
        """All batches, from the beginning if they can be read again."""
        batches, self.started = self.started, None
        return iter(self.loader) if batches is None else batches

    def _again(self) -> Iterator[Any]:
        """All batches again and again, as long as there are some."""
        has_some = True
        while has_some:
            has_some = False
            for batch in self.loader:
                has_some = True
                yield batch

    def split(self, validation_split: float, batch_size: int) -> "tuple[LoaderFeed, LoaderFeed]":
        """Raises ValueError: a loader cannot be split."""
        raise ValueError(
            f"validation_split must be 0 when x is a {self.kind}, "
            f"got {validation_split}: pass validation_data"
        )

    def _samples(self, batch: Any) -> Samples:
        """Returns one batch, checked."""
        parts = tuple(batch) if isinstance(batch, (list, tuple)) else (batch,)
        needed = 1 if self.check_targets is None else 2
        if (isinstance(batch, dict) and needed == 2) or not needed <= len(parts) <= 3:
            got = type(batch).__name__ + (f" of {len(parts)}" if parts[0] is not batch else "")
            raise ValueError(
                f"a batch{self.origin} must be (x, y) or (x, y, sample_weight), got {got}"
            )
        x, y, weight = (*parts, None, None)[:3]
        if self.check_targets is None:
            return data.samples(self.form, x, origin=self.origin)
        samples = data.samples(self.form, x, y, weight, origin=self.origin)
        if self.check_batch is not None:
            self.check_batch(samples)
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
        batch_size: Samples a batch, unless x gives batches, which have their own.
        x: Features, or what gives batches, (x, y) or (x, y, sample_weight); then the rest is None.
        y: Targets.
        sample_weight: A weight for each sample.
        class_weight: A weight for each label in y.
        check_targets: Raises for targets that the loss does not take; None if none are needed.
        origin: Where the values came from, for the messages: " of validation_data".
    """
    building.check_device(form)
    given = {"y": y, "sample_weight": sample_weight, "class_weight": class_weight}
    if not gives_batches(x) or (y is not None and not isinstance(x, DataLoader)):
        if isinstance(x, Dataset):
            has_own = hasattr(x, "batch")  # torchnn.tf.data's
            hint = "call its batch" if has_own else "wrap it in a torch.utils.data.DataLoader"
            raise TypeError(f"x{origin} is a Dataset: {hint}")
        if check_targets is not None and y is None:
            raise ValueError(f"y{origin} must be given, unless x is a DataLoader; got None")
        only_predicts = check_targets is None
        samples = data.samples(form, x, y, sample_weight, class_weight, origin, only_predicts)
        return ArrayFeed(_with_good_targets(samples, check_targets), batch_size)
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name} must be None when x is a {type(x).__name__}, which yields (x, y)"
            )
    return LoaderFeed(x, form, batch_size, check_targets, origin)


def gives_batches(value: Any) -> bool:
    """Whether a value gives batches, as a DataLoader, a generator or Keras's PyDataset does, rather
    than being an array."""
    if type(value) in (np.ndarray, Tensor):  # so they are told at once
        return False
    if isinstance(value, DataLoader) or hasattr(value, "__next__"):
        return True
    names = (*ARRAY_PROTOCOLS, "__dlpack__", "__cuda_array_interface__", "toarray", "collect")
    is_other = isinstance(value, (Tensor, Dataset, Mapping)) or type(value).__module__ == "builtins"
    if is_other or isinstance(value, type) or any(hasattr(value, name) for name in names):
        return False
    return hasattr(value, "__iter__") or _is_sequence(value)


def check_end(feed: Feed, epochs: int, name: str, steps_name: str, steps: int | None) -> None:
    """Raises ValueError if batches that can be read only once are needed more often, or never
    end."""
    if steps is not None or not isinstance(feed, LoaderFeed):
        return
    if feed.is_endless:
        raise ValueError(f"{name} never ends: pass {steps_name}")
    if epochs > 1 and feed.is_iterator:
        raise ValueError(
            f"{name} is a {feed.kind}, which can be read only once, not in each of "
            f"{epochs} epochs: pass {steps_name} if it goes on for so long, or something that can "
            "be read again"
        )


class _Stream:
    """An iterator that tells whether it has come to its end."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self.batches = batches
        self.ahead: list[Any] = []  # what has been read already

    def __iter__(self) -> "_Stream":
        return self

    def __next__(self) -> Any:
        return self.ahead.pop() if self.ahead else next(self.batches)

    def is_empty(self) -> bool:
        if not self.ahead:
            self.ahead = [*islice(self.batches, 1)]
        return not self.ahead


class _Indexed:
    """An object of batches by number, such as Keras's PyDataset, as something to iterate over.

    Attributes:
        seed: What the order of the batches follows from, or None for that of their numbers.
    """

    seed: int | None = None

    def __init__(self, batches: Any) -> None:
        self.batches, self.epoch = batches, 0

    def __iter__(self) -> Iterator[Any]:
        size, seed = len(self.batches), self.seed
        for i in range(size) if seed is None else permutation(size, seed, self.epoch).tolist():
            yield self.batches[i]
        self.epoch += 1
        if hasattr(self.batches, "on_epoch_end"):
            self.batches.on_epoch_end()


def _iterable(batches: Any) -> Any:
    """Batches by number as something to iterate over, and anything else as it is."""
    has_own = isinstance(batches, (DataLoader, list)) or not _is_sequence(batches)
    return batches if has_own else _Indexed(batches)


def _is_sequence(value: Any) -> bool:
    return hasattr(value, "__getitem__") and hasattr(value, "__len__")


def seed_of_order(seed: int, epoch: int) -> int:
    """Returns what the rows' order in an epoch follows from.

    shuffle_ uses 32 bits of it: a prime keeps neighbouring seeds' epochs apart.
    """
    return (seed * 1_000_003 + epoch) % 2**63


def permutation(count: int, seed: int, epoch: int, epochs: int = 1) -> Tensor:
    """Returns the rows' order in some epochs, one after the other, each a function of the seed and
    the epoch alone."""
    seeds = [seed_of_order(seed, epoch + i) for i in range(epochs)]
    orders = torch.arange(count, device="cpu").repeat(epochs, 1)
    shuffle_(orders, torch.tensor(seeds, device="cpu"))
    return orders.reshape(-1)


def _with_good_targets(samples: Samples, check_targets: CheckTargets | None) -> Samples:
    """Returns the samples if the loss takes their targets."""
    try:
        if check_targets is not None:
            check_targets(samples.y)
    except ValueError as error:
        raise ValueError(f"y{samples.origin} does not suit the loss: {error}") from error
    return samples


def _length(loader: Any) -> int | None:
    """The number of batches, or None where only reading them tells."""
    try:
        return len(loader)
    except TypeError:
        return None
