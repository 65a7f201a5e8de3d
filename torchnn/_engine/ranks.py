"""The engine of several processes that train one model: each computes its share of every batch.

    forward    of a rank's own rows; outputs are gathered, so that every rank has all of them
    loss       of the whole batch, on every rank: that of one process, whatever it is made of
    backward   through a rank's own rows, times the number of ranks
    average    by DistributedDataParallel: sum(ranks * own) / ranks is the batch's gradient

No share is weighted, however many rows it has, since no rank takes a mean of its own. Penalties on
weights are part of that loss, and so of the average, once.
"""

import math
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from torchnn import regularizers
from torchnn._engine.autograd import AutogradEngine, Result, never
from torchnn._engine.evaluating import evaluating
from torchnn._engine.interrupts import HeldInterrupt
from torchnn._engine.parts import Parts, returned, taken
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Run
from torchnn.layers import BatchNormalization

KINDS: dict[str, type[BaseException]] = {
    kind.__name__: kind for kind in (ValueError, TypeError, KeyboardInterrupt)
}


def count() -> int:
    """Returns how many processes the program has joined by `torch.distributed`, or 1."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class Failure(NamedTuple):
    """An error of one rank, as the others are told of it."""

    rank: int
    kind: str
    message: str

    def raise_elsewhere(self) -> NoReturn:
        """Raises it on another rank, in a kind that is there."""
        kind = KINDS.get(self.kind, RuntimeError)
        named = self.message if kind.__name__ == self.kind else f"{self.kind}: {self.message}"
        raise kind(f"rank {self.rank}: {named}")


class SharedInterrupt(HeldInterrupt):
    """Ctrl-C between two runs, on all ranks together: one that stopped alone would leave the others
    waiting."""

    def is_pending(self) -> bool:
        """Whether a run should be cut short: no, since the others would go on with it."""
        return False

    @property
    def has_come(self) -> bool:
        """Whether this rank holds one."""
        return self._pending is not None

    def release(self) -> None:
        """Does nothing: obey does, once all ranks know."""

    def obey(self) -> None:
        """Lets it take effect here, wherever it came."""
        pending, self._pending = self._pending or (signal.SIGINT, None), None
        if not callable(self._handler):
            raise KeyboardInterrupt("of another rank")
        self._handler(*pending)

    def meanwhile(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Returns what a function returns; it is held meanwhile, too."""
        return function(*arguments, **named)

    def let_through(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Returns what a function returns, during which nothing is held."""
        return super().meanwhile(function, *arguments)

    def __exit__(self, exception_type: Any, *exception: Any) -> None:
        super().__exit__(exception_type, *exception)
        if exception_type is None and self.has_come:
            self.obey()


class Ranks:
    """The processes that train together, and what they tell each other.

    Args:
        device: Where the model is.

    Attributes:
        rank, count: Which one this is, and of how many.
        interrupt: Ctrl-C, for all of them.
        seed: What noise follows from: rank 0's.
        is_apart: Whether an error has ended the work of this rank alone: it says no more.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.count = dist.get_rank(), count()
        self.interrupt = SharedInterrupt()
        self.seed = 0
        self.is_apart = self._has_agreed = False
        # Messages travel where the backend can take them: NCCL's are on the GPU.
        self._device = device if dist.get_backend() == "nccl" else torch.device("cpu")

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """For what every rank does: an error within is raised on all of them."""
        try:
            yield
        except BaseException:
            self._has_agreed = True
            raise

    def part(self) -> None:
        """An error ends the work: together, if all ranks have it."""
        self.is_apart = not self._has_agreed

    def gathered(self, value: Any) -> list[Any]:
        """Returns every rank's value, anything that can be pickled."""
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def numbers(self, values: Iterable[int]) -> list[list[int]]:
        """Returns every rank's integers, of which all have as many."""
        own = torch.tensor(list(values), dtype=torch.int64, device=self._device)
        found = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(found, own)
        return [each.tolist() for each in found]

    def of_first(self, value: Any) -> Any:
        """Returns rank 0's value, anything that can be pickled."""
        box = [value]
        dist.broadcast_object_list(box, device=self._device)
        return box[0]

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Writes rank 0's numbers into those of the others."""
        for tensor in tensors:
            dist.broadcast(tensor.data, 0)

    def failure(self, error: BaseException) -> Failure:
        """What to tell the others of an error."""
        return Failure(self.rank, type(error).__name__, str(error))

    def share(self, rows: int) -> tuple[int, int]:
        """Returns start and stop of this rank's rows of a batch; sizes differ by one at most."""
        return rows * self.rank // self.count, rows * (self.rank + 1) // self.count


class RanksEngine(AutogradEngine):
    """Trains any model together with the other ranks.

    Args:
        model: The model, built; the same layers on every rank.
        recipe: How to train it.
        ranks: All of them.
    """

    def __init__(self, model: nn.Module, recipe: Recipe | None, ranks: Ranks) -> None:
        super().__init__(model, recipe)
        self._ranks = ranks
        self._parallel: DistributedDataParallel | None = None

    def train(self, run: Run, says_stop: Callable[[], bool] = never) -> Result:
        """Takes one step for each batch of the run, all of them, since other ranks do."""
        with torch.enable_grad():
            self._parallel = self._parallel or _parallel(self._model, run)
        with _noise(self._ranks, self._optimizer.iterations, run), _joint(self._model):
            result = super().train(run)
        # Those that follow a rank's share alone, such as nn.BatchNorm1d's.
        self._ranks.spread(self._model.buffers())
        return result

    def _measure(self, x: Any, y: Any, weight: Any) -> tuple[Tensor, Any]:
        """The loss and the output of the whole batch, of which this rank computes its share."""
        start, stop = self._ranks.share(len(x))
        call: Callable[[Any], Any] = self._forward
        if self._parallel is not None and torch.is_grad_enabled():
            call = partial(self._parallel, call)
        with regularizers.watched() as penalties:
            output = self._gathered(returned(call(taken(x[start:stop]))), start, len(x))
        loss = self._loss(y, output, weight)
        if self._is_regulated:
            penalty = self._joint_penalty(penalties, (stop - start) / len(x))
            loss = loss + penalty + regularizers.total(self._regularized)
        return loss, output

    def _gathered(self, own: Any, start: int, rows: int) -> Any:
        """The outputs for a whole batch."""
        gather = partial(_Gathered.apply, self._ranks.count, start, rows)
        return own.map(gather) if isinstance(own, Parts) else gather(own)

    def _joint_penalty(self, penalties: list[Tensor], share: float) -> Any:
        """The mean over a batch of penalties on outputs, from those of each rank's share."""
        if not penalties:
            return 0
        own: Any = sum(penalties) * share
        ranks = self._ranks
        return _Gathered.apply(ranks.count, ranks.rank, ranks.count, own.reshape(1)).sum()


class _Gathered(torch.autograd.Function):
    """Every rank's rows, of which this rank's learn: as much as all ranks together, since gradients
    are averaged over them."""

    @staticmethod
    def forward(ctx: Any, count: int, start: int, rows: int, own: Tensor) -> Tensor:
        ctx.own = slice(start, start + len(own))
        ctx.count = count
        whole = own.new_zeros((rows, *own.shape[1:]))
        whole[ctx.own] = own
        dist.all_reduce(whole)  # of zeros and one rank's number: no rounding
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return None, None, None, grad[ctx.own] * ctx.count


class _Sum(torch.autograd.Function):
    """The sum over the ranks; so is its gradient, of which each rank knows a part."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        whole = own.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        whole = grad.contiguous().clone()
        dist.all_reduce(whole)
        return whole


class _Shell(nn.Module):
    """What DistributedDataParallel calls, and the weights whose gradients it averages."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weights)

    def forward(self, call: Callable[[Any], Any], x: Any) -> Any:
        return call(x)


def _parallel(model: nn.Module, run: Run) -> DistributedDataParallel:
    """Wraps the weights of a model that learn."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return DistributedDataParallel(
        _Shell(weights),
        find_unused_parameters=_has_unused(model, weights, run),
        gradient_as_bucket_view=True,
    )


def _has_unused(model: nn.Module, weights: list[nn.Parameter], run: Run) -> bool:
    """Whether there are weights that no output depends on: averaging must not wait for them."""
    with evaluating(model) as view, regularizers.watched():
        output = returned(view(taken(run.samples.x[:1])))
    parts = output.tensors if isinstance(output, Parts) else [output]
    sums = [part.sum() for part in parts if part.requires_grad]
    return None in torch.autograd.grad(sums, weights, allow_unused=True)


@contextmanager
def _noise(ranks: Ranks, step: int, run: Run) -> Iterator[None]:
    """Lets what is drawn follow from rank 0's seed, the step and the rank, so that no two ranks
    drop the same units; afterwards, generators are as they were, on all ranks alike."""
    device = run.samples.x.device
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index])
    states = [(generator, generator.get_state()) for generator in generators]
    mixed = (ranks.seed * 1_000_003 + step) * ranks.count + ranks.rank
    for generator in generators:
        generator.manual_seed(mixed % 2**63)
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


@contextmanager
def _joint(model: nn.Module) -> Iterator[None]:
    """Lets BatchNormalization take mean and variance of whole batches, not of a rank's share."""
    layers = [each for each in model.modules() if isinstance(each, BatchNormalization)]
    for layer in layers:
        vars(layer)["_moments"] = _joint_moments
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["_moments"]


def _joint_moments(x: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
    """The variance and the mean over these axes of all ranks' x."""
    own = x.sum(axes, keepdim=True)
    size = own.new_tensor([math.prod(x.shape[axis] for axis in axes)])
    total, size = _Sum.apply(torch.cat([own.reshape(-1), size])).split([own.numel(), 1])
    mean = (total / size).reshape(own.shape)
    squares = _Sum.apply((x - mean).square().sum(axes, keepdim=True))
    return (squares / size).squeeze(axes), mean.squeeze(axes)
