"""Epochs that have been trained before anyone is told of the first, and count one by one.

Whoever is told of an epoch finds the model as it was after that one, and may change whatever they
like. If they have, what was trained beyond it does not count: it is as if it had never been.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor

from torchnn import ops
from torchnn._engine.autograd import Result
from torchnn._engine.run import Samples
from torchnn._engine.watch import Watch

MOST_BYTES = 2**24  # of the states of all epochs, and of what comes out in them
MOST_SHARED = 2**20  # bytes of samples that are compared with what they were, epoch by epoch
GOES_ON = {"iterations": None, "place": None}  # what an epoch changes of an optimizer


class Ahead:
    """What came of some epochs, and the state after each.

    Args:
        result: Of all of them.
        job: What has trained them, with snapshots.
        optimizer: Whose steps these were, which it has not counted yet.
        numbers: Returns what else of its arguments may have changed though nothing was assigned.
        rates: Returns the learning rates of some steps, where they are computed anew each time.
        access: What is done with the model between epochs, as of a callback.
        watch: On the model.
        shared: Samples, where somebody may write into them.

    Attributes:
        result: As given.
        epochs: How many these are.
        weights, biases: Those of each layer after each epoch, shape (epochs, ...).
    """

    def __init__(
        self,
        result: Result,
        job: ops.Training,
        optimizer: Any,
        numbers: Callable[[], list[Any]],
        rates: Callable[[range], Tensor] | None,
        access: str,
        watch: Watch | None,
        shared: list[Tensor],
    ) -> None:
        kept: Any = job.snapshots[0]
        self.result, self.weights, self.biases = result, kept[::2], kept[1::2]
        self.epochs = len(self.weights[0])
        self._optimizer, self._rates_used = optimizer, job.learning_rates
        self._before, self._steps = optimizer.iterations, len(result.losses) // self.epochs
        pairs = [p for pair in zip(job.weights, job.biases, strict=True) for p in pair]
        self._state, self._snapshots = _there([pairs, *job.slots]), _there(job.snapshots)
        self._numbers, self._rates, self._shared = numbers, rates, shared
        self._is_read, self._watch = access != "none", watch if access == "write" else None
        self._numbers_then, self._hash = numbers(), ops.hashed(shared) if self._watch else 0
        self._held = self._look()
        self._is_at, self._has = (
            -1,
            self.epochs - 1,
        )  # the epoch that counts, and that of the weights

    def put(self, epoch: int) -> bool:
        """Gives model and optimizer the state after an epoch, from the one after that before it.
        Weights and slots that nobody reads have to wait for leave.

        Returns:
            False if anything has been touched since they were given that one, and nothing changes:
            then this epoch and those behind it do not count.
        """
        if epoch and not self._is_untouched(epoch):
            return False
        if self._is_read and not self._restore(
            epoch, expected=epoch - 1 if epoch and self._watch else None
        ):
            return False
        self._is_at = epoch
        self._optimizer.iterations = self._before + (epoch + 1) * self._steps
        return True

    def leave(self) -> None:
        """Lets nothing count beyond the epoch that was put last."""
        if self._has != self._is_at:
            self._restore(self._is_at)

    def _restore(self, epoch: int, expected: int | None = None) -> bool:
        is_so = ops.restore_(self._state, self._snapshots, epoch, expected)
        if is_so:
            self._has = epoch
        return is_so

    def _is_untouched(self, epoch: int) -> bool:
        held, steps, watch = self._look(), epoch * self._steps, self._watch
        return (
            self._optimizer.iterations == self._before + steps
            and len(held) == len(self._held)
            and all(map(is_, held, self._held))
            and (self._rates is None or self._has_rates(steps))
            and (
                watch is None
                or (
                    watch.is_untouched(of_layout=False)  # which restore_ sees
                    and self._numbers() == self._numbers_then
                    and ops.hashed(self._shared) == self._hash
                )
            )
        )

    def _look(self) -> list[Any]:
        """What the optimizer has, held here so that nothing new can take its place."""
        own = vars(self._optimizer) | GOES_ON
        return [*own.values(), *chain.from_iterable(self._optimizer.slots.values())]

    def _has_rates(self, first: int) -> bool:
        """Whether an epoch's steps would have the learning rates that they have had."""
        begin, used = self._before + first, self._rates_used[first : first + self._steps]
        return torch.equal(self._rates(range(begin, begin + self._steps)), used)  # type: ignore


def shared(samples: Samples, prepared: Samples) -> list[Tensor]:
    """Returns the tensors that are trained on and that others may write into, where PyTorch does
    not see it: they lie in memory that somebody has given."""
    given = samples.x, samples.y, samples.weight
    taken = prepared.x, prepared.y, prepared.weight
    return [
        t
        for g, t in zip(given, taken, strict=True)
        if g is not None and t is not None and g.data_ptr() == t.data_ptr()
    ]


def _there(lists: Iterable[Sequence[Tensor | None]]) -> list[Tensor]:
    """All tensors of some lists."""
    return [tensor for each in lists for tensor in each if tensor is not None]
