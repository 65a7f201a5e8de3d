"""TensorFlow's data sets of arrays, over PyTorch's DataLoader."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, SequentialSampler

from torchnn import _checks
from torchnn.tf._missing import said_of
from torchnn.tf._tensor import as_tensor

__all__ = ["AUTOTUNE", "Batches", "Dataset"]
__getattr__ = said_of(__name__)

AUTOTUNE = -1


class Dataset(torch.utils.data.Dataset[Any]):
    """The rows of an array, or of several.

        Dataset.from_tensor_slices((x, y)).shuffle(100).batch(32)

    What TensorFlow's have beside these, such as map, is done to the arrays before.
    """

    def __init__(self, columns: Any, is_mixed: bool = False, seed: int | None = None):
        self._columns, self._is_mixed, self._seed = columns, is_mixed, seed

    @staticmethod
    def from_tensor_slices(tensors: Any) -> "Dataset":
        """Returns the rows of an array or tensor, or of a tuple of several of one length."""
        columns = (
            tuple(map(as_tensor, tensors)) if isinstance(tensors, tuple) else as_tensor(tensors)
        )
        lengths = [len(column) for column in (columns if isinstance(columns, tuple) else [columns])]
        if len(set(lengths)) > 1:
            raise ValueError(f"tensors must have as many rows as each other, got {lengths}")
        return Dataset(columns)

    def shuffle(
        self, buffer_size: int, seed: int | None = None, reshuffle_each_iteration: bool = True
    ) -> "Dataset":
        """Returns the same rows in an order of their own each time, whatever buffer_size may be."""
        if not reshuffle_each_iteration:
            raise ValueError("reshuffle_each_iteration must be True: use tf.random.shuffle instead")
        _checks.positive_int("buffer_size", buffer_size)
        return Dataset(self._columns, True, seed)

    def take(self, count: int) -> "Dataset":
        """Returns the first rows."""
        return self._part(slice(_checks.non_negative_int("count", count)))

    def skip(self, count: int) -> "Dataset":
        """Returns all but the first rows."""
        return self._part(slice(_checks.non_negative_int("count", count), None))

    def batch(self, batch_size: int, drop_remainder: bool = False) -> "Batches":
        """Returns the rows in batches, as a DataLoader, which fit takes too.

        Args:
            batch_size: Rows in each.
            drop_remainder: Whether a last batch of fewer is left out.
        """
        size = _checks.positive_int("batch_size", batch_size)
        batches = BatchSampler(self._order(), size, _checks.truth("drop_remainder", drop_remainder))
        return Batches(self, sampler=batches, batch_size=None)

    def __len__(self) -> int:
        return len(self._columns[0] if isinstance(self._columns, tuple) else self._columns)

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(self._columns, tuple):
            return tuple(column[rows] for column in self._columns)
        return self._columns[rows]

    def __iter__(self) -> Iterator[Any]:
        return (self[row] for row in self._order())

    def _order(self) -> Sampler[int]:
        if not self._is_mixed:
            return SequentialSampler(self)
        seed = self._seed
        return RandomSampler(
            self, generator=None if seed is None else torch.Generator().manual_seed(seed)
        )

    def _part(self, rows: slice) -> "Dataset":
        return Dataset(self[rows], self._is_mixed, self._seed)


class Batches(DataLoader[Any]):
    """Batches of rows."""

    def take(self, count: int) -> list[Any]:
        """Returns the first batches."""
        return list(islice(self, _checks.non_negative_int("count", count)))

    def prefetch(self, buffer_size: int) -> "Batches":
        """Returns the same: all rows are in memory."""
        return self

    def cache(self) -> "Batches":
        """Returns the same: all rows are in memory."""
        return self
