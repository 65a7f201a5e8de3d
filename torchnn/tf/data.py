"""TensorFlow's data sets of arrays, over PyTorch's DataLoader."""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, SequentialSampler

from torchnn import _checks
from torchnn.layers._values import leaves, mapped
from torchnn.tf._missing import said_of
from torchnn.tf._tensor import as_generator, as_tensor

__all__ = ["AUTOTUNE", "Batches", "Dataset"]
__getattr__ = said_of(__name__)

AUTOTUNE = -1


class _Elements:
    """What can be gone through again and again, each time from the start: rows, or batches."""

    _word = "elements"

    @property
    def is_endless(self) -> bool:
        """Whether it never comes to an end."""
        return self._size() == math.inf

    def map(self, map_func: Callable[..., Any], num_parallel_calls: Any = None) -> Any:
        """Returns map_func of each element, anew each time; of a tuple, its parts are arguments."""

        def result(each: Any) -> Any:
            return map_func(*each) if isinstance(each, tuple) else map_func(each)

        return self._made(lambda: map(result, self._iterable()), self._size())

    def filter(self, predicate: Callable[..., Any]) -> Any:
        """Returns the elements that predicate is true of."""

        def holds(each: Any) -> bool:
            return bool(predicate(*each) if isinstance(each, tuple) else predicate(each))

        size = math.inf if self.is_endless else None
        return self._made(lambda: filter(holds, self._iterable()), size)

    def take(self, count: int) -> Any:
        """Returns the first elements; all of them if count is -1."""
        number, size = _count(count), self._size()
        left = number if size is None else min(size, math.inf if number is None else number)
        is_known = size is not None
        return self._made(lambda: islice(self._iterable(), number), left if is_known else None)

    def skip(self, count: int) -> Any:
        """Returns all but the first elements."""
        number, size = _checks.non_negative_int("count", count), self._size()
        left = None if size is None else max(size - number, 0)
        return self._made(lambda: islice(self._iterable(), number, None), left)

    def repeat(self, count: int | None = None) -> Any:
        """Returns the elements so many times, one time after the other; without end if None or
        -1."""
        number, size = None if count is None else _count(count), self._size()
        times = math.inf if number is None else number
        left = 0 if 0 in (size, times) else None if size is None else size * times
        return self._made(lambda: _repeated(self._iterable(), number), left)

    def shuffle(
        self, buffer_size: int, seed: int | None = None, reshuffle_each_iteration: bool = True
    ) -> Any:
        """Returns the elements in an order of its own each time, drawn from so many at a time."""
        _check_reshuffle(reshuffle_each_iteration)
        number = _checks.positive_int("buffer_size", buffer_size)
        return self._made(
            lambda: _mixed(self._iterable(), number, as_generator(seed)), self._size()
        )

    def batch(self, batch_size: int, drop_remainder: bool = False) -> Any:
        """Returns the elements in batches.

        Args:
            batch_size: Elements in each.
            drop_remainder: Whether a last batch of fewer is left out.
        """
        number, size = _checks.positive_int("batch_size", batch_size), self._size()
        drops = _checks.truth("drop_remainder", drop_remainder)
        left = size if size in (None, math.inf) else (size + (0 if drops else number - 1)) // number
        return _Stream(lambda: _in_batches(self._iterable(), number, drops), left)

    def prefetch(self, buffer_size: int) -> Any:
        """Returns the same: nothing is read ahead."""
        return self

    def cache(self) -> Any:
        """Returns the same: what it is made of is in memory, and map is computed anew."""
        return self

    def as_numpy_iterator(self) -> Iterator[Any]:
        """Yields the elements as arrays, in tuples and dicts where they are."""
        return (mapped(each, _as_numpy) for each in self._iterable())

    def cardinality(self) -> Any:
        """Returns the number of elements as a tensor; -1 if there is no end, -2 if unknown."""
        size = self._size()
        return as_tensor(-2 if size is None else -1 if size == math.inf else size, torch.int64)

    def __len__(self) -> int:
        size = self._size()
        if size is None or size == math.inf:
            raise TypeError(f"{self._word} {'without end' if size else 'of filter'} have no len()")
        return int(size)

    def __repr__(self) -> str:
        size = self._size()
        number = "some" if size is None else "endless" if size == math.inf else int(size)
        return f"<Dataset of {number} {self._word}>"

    def __getattr__(self, name: str) -> Any:
        there = ", ".join(each for each in dir(type(self)) if each in _METHODS)
        raise AttributeError(f"a Dataset of {self._word} has no {name!r}: it has {there}")

    def _iterable(self) -> Iterable[Any]:
        return self

    def _size(self) -> Any:
        """The number of elements, infinity, or None if unknown."""
        raise NotImplementedError

    def _made(self, source: Callable[[], Iterator[Any]], size: Any) -> Any:
        """Other elements of the same kind."""
        return _Stream(source, size)


_METHODS = {name for name in vars(_Elements) if not name.startswith("_")} - {"is_endless"}


class _Stream(_Elements):
    """Batches from what gives an iterator of them."""

    _word = "batches"

    def __init__(self, source: Callable[[], Iterator[Any]], size: Any):
        self._source, self._known_size = source, size

    def __iter__(self) -> Iterator[Any]:
        return self._source()

    def _size(self) -> Any:
        return self._known_size


class _Rows(_Stream, torch.utils.data.Dataset[Any]):
    """Rows from the same."""

    _word = "rows"

    def _made(self, source: Callable[[], Iterator[Any]], size: Any) -> Any:
        return _Rows(source, size)


class Dataset(_Elements, torch.utils.data.Dataset[Any]):
    """The rows of an array, or of several in a tuple or a dict.

    Dataset.from_tensor_slices((x, y)).shuffle(100).batch(32)
    """

    _word = "rows"

    def __init__(self, columns: Any, is_mixed: bool = False, seed: int | None = None):
        self._columns, self._is_mixed, self._seed = columns, is_mixed, seed

    @staticmethod
    def from_tensor_slices(tensors: Any) -> "Dataset":
        """Returns the rows of an array or tensor, or of a tuple or dict of several of one
        length."""
        columns = _columns(tensors)
        lengths = [len(column) for column in leaves(columns)]
        if len(set(lengths)) > 1:
            raise ValueError(f"tensors must have as many rows as each other, got {lengths}")
        return Dataset(columns)

    @staticmethod
    def zip(*datasets: Any) -> Any:
        """Returns tuples of an element of each, as long as all of them have some.

        Args:
            datasets: Datasets of rows, or of batches; also as one tuple.
        """
        several = datasets[0] if len(datasets) == 1 else datasets
        if not isinstance(several, tuple) or not all(isinstance(d, _Elements) for d in several):
            raise TypeError(f"datasets must be Datasets, or a tuple of them, got {several!r}")
        if len({each._word for each in several}) != 1:
            raise ValueError("datasets must all be of rows, or all of batches")
        sizes = [each._size() for each in several]
        size = None if None in sizes else min(sizes)
        return several[0]._made(lambda: zip(*several, strict=False), size)

    def shuffle(
        self, buffer_size: int, seed: int | None = None, reshuffle_each_iteration: bool = True
    ) -> "Dataset":
        """Returns the same rows in an order of their own each time, whatever buffer_size may be."""
        _check_reshuffle(reshuffle_each_iteration)
        _checks.positive_int("buffer_size", buffer_size)
        return Dataset(self._columns, True, seed)

    def take(self, count: int) -> Any:
        """Returns the first rows, of those that are shuffled the first of each time; all of them if
        count is -1."""
        return super().take(count) if self._is_mixed else Dataset(self[: _count(count)])

    def skip(self, count: int) -> Any:
        """Returns all but the first rows."""
        if self._is_mixed:
            return super().skip(count)
        return Dataset(self[_checks.non_negative_int("count", count) :])

    def batch(self, batch_size: int, drop_remainder: bool = False) -> "Batches":
        """Returns the rows in batches, as a DataLoader, which fit takes too.

        Args:
            batch_size: Rows in each.
            drop_remainder: Whether a last batch of fewer is left out.
        """
        size = _checks.positive_int("batch_size", batch_size)
        batches = BatchSampler(self._order(), size, _checks.truth("drop_remainder", drop_remainder))
        return Batches(self, sampler=batches, batch_size=None, collate_fn=_as_they_are)

    def __getitem__(self, rows: Any) -> Any:
        return mapped(
            self._columns, lambda each: each[rows] if isinstance(each, torch.Tensor) else each
        )

    def __iter__(self) -> Iterator[Any]:
        return (self[row] for row in self._order())

    def _size(self) -> Any:
        return len(next(leaves(self._columns)))

    def _made(self, source: Callable[[], Iterator[Any]], size: Any) -> Any:
        return _Rows(source, size)

    def _order(self) -> Sampler[int]:
        if not self._is_mixed:
            return SequentialSampler(self)
        return RandomSampler(self, generator=as_generator(self._seed))


class Batches(_Elements, DataLoader[Any]):
    """Batches of rows."""

    _word = "batches"
    __len__ = DataLoader.__len__

    def _size(self) -> Any:
        return DataLoader.__len__(self)


def _as_they_are(rows: Any) -> Any:
    """The rows of a batch, which are one already; DataLoader would make lists of their tuples."""
    return rows


def _columns(tensors: Any) -> Any:
    """The same tuples and dicts, of tensors."""
    if isinstance(tensors, tuple):
        return tuple(map(_columns, tensors))
    if isinstance(tensors, dict):
        return {name: _columns(value) for name, value in tensors.items()}
    return as_tensor(tensors)


def _count(count: int) -> int | None:
    """A number of elements, None for -1: all."""
    return None if count == -1 else _checks.non_negative_int("count", count)


def _check_reshuffle(value: bool) -> None:
    if not value:
        raise ValueError("reshuffle_each_iteration must be True: use tf.random.shuffle instead")


def _repeated(elements: Iterable[Any], number: int | None) -> Iterator[Any]:
    """Yields elements so many times, as long as there are some."""
    for _ in count() if number is None else range(number):
        is_empty = True
        for each in elements:
            is_empty = False
            yield each
        if is_empty:
            return


def _mixed(elements: Iterable[Any], size: int, generator: torch.Generator | None) -> Iterator[Any]:
    """Yields elements, each drawn from the next ones, so many of them."""
    ahead: list[Any] = []
    for each in elements:
        if len(ahead) < size:
            ahead.append(each)
            continue
        place = int(torch.randint(size, (), generator=generator))
        yield ahead[place]
        ahead[place] = each
    yield from (ahead[i] for i in torch.randperm(len(ahead), generator=generator))


def _in_batches(elements: Iterable[Any], size: int, drops: bool) -> Iterator[Any]:
    rest = iter(elements)
    while rows := list(islice(rest, size)):
        if len(rows) == size or not drops:
            yield _stacked(rows)


def _stacked(rows: list[Any]) -> Any:
    """Rows as one of each tensor in their tuples and dicts."""
    if isinstance(rows[0], tuple):
        return tuple(_stacked(list(parts)) for parts in zip(*rows, strict=True))
    if isinstance(rows[0], dict):
        return {name: _stacked([row[name] for row in rows]) for name in rows[0]}
    return torch.stack(list(map(as_tensor, rows)))


def _as_numpy(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value
