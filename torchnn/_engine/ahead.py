"""Epochs that have been trained before anyone is told of the first, and count one by one.

Whoever is told of an epoch finds the model as it was after that one, and may change whatever they
like. If they have, what was trained beyond it does not count: it is as if it had never been.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import is_
from typing import Any

from torch import Tensor

from torchnn import ops
from torchnn._engine.autograd import Result
from torchnn._engine.run import Samples
from torchnn._engine.watch import Watch
from torchnn.ops._network import hashed, restore_

MOST_BYTES = 2**24  # of the states of all epochs, and of what comes out in them
MOST_SHARED = 2**22  # bytes of samples that are looked through, epoch by epoch
GOES_ON = {"iterations": None, "place": None}  # what an epoch changes of an optimizer


class Ahead:
    """What came of some epochs, and the state after each.

    Args:
        result: Of all of them.
        job: What has trained them, with snapshots.
        optimizer: Whose steps these were, which it has not counted yet.
        guard: Knows whether anything has been touched since.
        is_read: Whether anybody looks at the model between epochs.

    Attributes:
        result: As given.
        epochs: How many these are.
        weights, biases: Those of each layer after each epoch, shape (epochs, ...).
    """

    def __init__(
        self, result: Result, job: ops.Training, optimizer: Any, guard: "Guard", is_read: bool
    ) -> None:
        kept: Any = job.snapshots[0]
        self.result, self.weights, self.biases = result, kept[::2], kept[1::2]
        self.epochs = len(self.weights[0])
        self._optimizer, self._guard, self._is_read = optimizer, guard, is_read
        self._before, self._steps = optimizer.iterations, len(result.losses) // self.epochs
        pairs = [p for pair in zip(job.weights, job.biases, strict=True) for p in pair]
        self._state, self._snapshots = _there([pairs, *job.slots]), _there(job.snapshots)
        self._epoch = -1  # the one that has been put last
        self._epoch_of_state = self.epochs - 1

    def put(self, epoch: int) -> bool:
        """Gives model and optimizer the state after an epoch, from the one after that before it.
        Weights and slots that nobody reads have to wait for leave.

        Returns:
            False if anything has been touched since they were given that one, and nothing changes:
            then this epoch and those behind it do not count.
        """
        before = self._before + epoch * self._steps
        if epoch and not (self._optimizer.iterations == before and self._guard.is_untouched()):
            return False
        expected = epoch - 1 if epoch and self._guard.has_watch else None
        if self._is_read and not self._give(epoch, expected):
            return False
        self._epoch, self._optimizer.iterations = epoch, before + self._steps
        return True

    def leave(self) -> None:
        """Lets nothing count beyond the epoch that was put last."""
        if self._epoch != self._epoch_of_state:
            self._give(self._epoch)

    def _give(self, epoch: int, expected: int | None = None) -> bool:
        is_so = restore_(self._state, self._snapshots, epoch, expected)
        if is_so:
            self._epoch_of_state = epoch
        return is_so


class Guard:
    """Tells whether anything has been touched that decides how the next epoch is trained: anything
    but the weights and the slots, which are compared where they are put.

    Args:
        optimizer: What trains.
        watch: On the model, if that may be touched; if not, what follows is not looked at.
        numbers: Returns what else may have changed though nothing has been assigned.
        shared: Samples, where somebody may write into them.
    """

    def __init__(
        self,
        optimizer: Any,
        watch: Watch | None,
        numbers: Callable[[], list[Any]],
        shared: list[Tensor],
    ) -> None:
        self._optimizer, self._watch = optimizer, watch
        self._numbers, self._shared = numbers, shared
        self._held, self._numbers_then, self._hash = self._look(), numbers(), hashed(shared)

    @property
    def has_watch(self) -> bool:
        """Whether the model may be touched."""
        return self._watch is not None

    def is_untouched(self) -> bool:
        """Whether the next epoch would be the one that has been trained."""
        held, watch = self._look(), self._watch
        return (
            len(held) == len(self._held)
            and all(map(is_, held, self._held))
            and (
                watch is None
                or (
                    watch.is_untouched(but_rest=True)  # which is seen here, and by restore_
                    and self._numbers() == self._numbers_then
                    and hashed(self._shared) == self._hash
                )
            )
        )

    def _look(self) -> list[Any]:
        """What the optimizer has, held here so that nothing new can take its place."""
        optimizer = self._optimizer
        own, lists = vars(optimizer) | GOES_ON, optimizer.slots.values()
        return [*own.values(), *optimizer.parameters, *chain.from_iterable(lists)]


def shared(samples: Samples, prepared: Samples) -> list[Tensor]:
    """Returns the tensors that others may write into where PyTorch does not see it, and that make a
    difference then: x, if it is trained on as it is, and what metrics read."""
    is_same = samples.x.data_ptr() == prepared.x.data_ptr()
    read = (samples.x if is_same else None, samples.y, samples.weight)
    return [t for t in read if t is not None]


def _there(lists: Iterable[Sequence[Tensor | None]]) -> list[Tensor]:
    """All tensors of some lists."""
    return [tensor for each in lists for tensor in each if tensor is not None]
