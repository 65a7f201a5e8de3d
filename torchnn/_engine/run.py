"""A run: the batches that an engine trains in one call, and the samples that they are made of."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor | None, Tensor | None]  # x, y, weight


@dataclass(frozen=True)
class Form:
    """What a model eats.

    Attributes:
        device: Where its parameters are.
        dtype: What they are made of.
        shape: Axes of one sample, as far as they are known: () for anything, (400,) for a last
            axis of 400.
        exact: Whether a sample has these axes and no others in front of them.
        labels: Whether whole numbers in y may be those of classes, and are to be integers.
        inputs: The form of each input by its name, if there are several; the rest is of the first.
        outputs: The outputs' names, as far as they are known.
        is_open: Whether x may come in several parts, since only the model knows what it takes.
    """

    device: torch.device
    dtype: torch.dtype
    shape: tuple[int, ...] = ()
    exact: bool = False
    labels: bool = False
    inputs: dict[str, "Form"] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    is_open: bool = False


@dataclass(frozen=True)
class Samples:
    """Features with targets and weights, row for row.

    Attributes:
        x: Shape (N, ...); Parts of that shape for a model with several inputs, and so on.
        y: Shape (N,) or (N, ...), or None where there is nothing to compare with.
        weight: Shape (N,), or more of the first axes of y; None for all ones.
        origin: Where they came from, for messages: " of validation_data".
    """

    x: Tensor
    y: Tensor | None = None
    weight: Tensor | None = None
    origin: str = ""

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice) -> "Samples":
        y, weight = (None if t is None else t[rows] for t in (self.y, self.weight))
        return Samples(self.x[rows], y, weight, self.origin)

    def split(self, validation_split: float) -> tuple["Samples", "Samples"]:
        """Returns the first rows, to train on, and the last validation_split of them."""
        at = math.floor(len(self) * (1 - validation_split))
        if not 0 < at < len(self):
            raise ValueError(
                f"validation_split={validation_split} of {len(self)} samples "
                f"leaves {at} to train on and {len(self) - at} to validate on: both need some"
            )
        return self[:at], self[at:]


@dataclass(frozen=True, slots=True)
class Batches:
    """Where batches end: after so many samples, and where their epoch does; the one place.

    Attributes:
        samples: All of them, of one or several epochs; the last may have begun late or end early.
        epoch_size: Samples an epoch.
        batch_size: Samples a batch; the last one of an epoch may be shorter.
    """

    samples: int
    epoch_size: int
    batch_size: int

    @property
    def sizes(self) -> list[int]:
        """The number of samples in each batch."""
        epochs, rest = divmod(self.samples, self.epoch_size)
        return self._sizes(self.epoch_size) * epochs + self._sizes(rest)

    @property
    def count(self) -> int:
        """The number of batches."""
        epochs, rest = divmod(self.samples, self.epoch_size)
        return epochs * -(-self.epoch_size // self.batch_size) + -(-rest // self.batch_size)

    def reduce(self, values: Tensor, reduction: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Returns a number for each batch of whole epochs: reduction(values of batches, 1).

        Args:
            values: Shape (samples,).
            reduction: A function of (batches, samples of each) and an axis, such as torch.sum.
        """
        whole = self.epoch_size // self.batch_size * self.batch_size
        if whole == self.epoch_size:
            return reduction(values.reshape(-1, self.batch_size), 1)
        epochs = values.reshape(-1, self.epoch_size)
        rest = reduction(epochs[:, whole:], 1).unsqueeze(1)
        full = reduction(epochs[:, :whole].reshape(-1, self.batch_size), 1)
        return torch.cat([full.reshape(len(epochs), -1), rest], 1).reshape(-1)

    def _sizes(self, samples: int) -> list[int]:
        full, rest = divmod(samples, self.batch_size)
        return [self.batch_size] * full + [rest] * (rest > 0)


@dataclass(slots=True)
class Run:
    """Consecutive batches of an epoch, or of several: what an engine trains in one call.

    Attributes:
        samples: Where the rows are.
        batch_size: Rows a batch; the last one of an epoch may be shorter.
        start, stop: The run's part of the order.
        order: Row numbers, on the samples' device; None for rows as they lie.
        epochs: How many whole epochs these are; 1 for a part of one, too.
    """

    samples: Samples
    batch_size: int
    start: int
    stop: int
    order: Tensor | None = None
    epochs: int = 1

    @property
    def rows(self) -> Tensor:
        """The row numbers of the run, in its order."""
        if self.order is not None:
            return self.order[self.start : self.stop]
        return torch.arange(self.start, self.stop, device=self.samples.x.device)

    @property
    def epoch_size(self) -> int:
        """The number of rows in each epoch."""
        return (self.stop - self.start) // self.epochs

    @property
    def batches(self) -> Batches:
        """Where they end."""
        return Batches(self.stop - self.start, self.epoch_size, self.batch_size)

    def __len__(self) -> int:
        """The number of batches."""
        return self.batches.count

    @property
    def sizes(self) -> list[int]:
        """The number of rows in each batch."""
        return self.batches.sizes

    def split(self) -> "Iterator[Run]":
        """Yields every epoch as a run of its own."""
        size = self.epoch_size
        for start in range(self.start, self.stop, size):
            yield Run(self.samples, self.batch_size, start, start + size, self.order)

    def cut(self, batches: int) -> "tuple[list[Run], list[Run]]":
        """Returns the first so many batches, and the others; epoch by epoch, unless it is all."""
        if batches == len(self):
            return [self], []
        done, rest = [], []
        for part in self.split():
            here = min(batches, len(part))
            batches -= here
            middle = min(part.start + here * self.batch_size, part.stop)
            if part.start < middle:
                done.append(replace(part, stop=middle))
            if middle < part.stop:
                rest.append(replace(part, start=middle))
        return done, rest

    def gather(self, tensor: Tensor) -> Tensor:
        """Returns the tensor's rows in the run's order."""
        return _rows(tensor, self.order, self.start, self.stop)

    def __iter__(self) -> Iterator[Batch]:
        """Yields (x, y, weight) batch by batch."""
        x, y, weight = self.samples.x, self.samples.y, self.samples.weight
        stop = self.start
        for size in self.sizes:
            start, stop = stop, stop + size
            rows = self.order, start, stop
            yield (
                _rows(x, *rows),
                None if y is None else _rows(y, *rows),
                None if weight is None else _rows(weight, *rows),
            )


def _rows(tensor: Tensor, order: Tensor | None, start: int, stop: int) -> Tensor:
    """The tensor's rows at the positions start to stop of the order."""
    return tensor[start:stop] if order is None else tensor.index_select(0, order[start:stop])
