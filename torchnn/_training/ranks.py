"""fit in several processes: what they settle before it, and what rank 0's callbacks do to all.

All messages but those of the steps are here, and come where every rank waits for them: before a
fit, between two runs of batches, and after a callback. An error that is told of there is raised on
every rank. One that comes up elsewhere ends its rank alone; the others learn of it from the
backend, as soon as that process ends or when the process group's timeout is over.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from contextvars import ContextVar
from functools import wraps
from itertools import chain
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from torchnn._engine import ranks as _ranks
from torchnn._engine.choice import build_optimizer
from torchnn._engine.parts import Parts
from torchnn._engine.ranks import Failure, Ranks
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Run, Samples
from torchnn._training.batches import Feed, LoaderFeed
from torchnn.callbacks._base import HOOKS, CallbackList
from torchnn.layers._values import first_float, leaves, mapped

P = ParamSpec("P")
T = TypeVar("T")

SAMPLE = 16  # rows, or numbers of a weight, that are compared: the first, and the last ones
AGREED = (
    "every rank passes the same arguments, with all of the data in one order, or the same batches, "
    "of a DataLoader without a DistributedSampler; fit shares out each batch itself"
)

CHANGED = (
    "the model, its settings or which of its weights learn, which other ranks cannot follow: while "
    "several processes train together, callbacks may change weights in place, the learning rate "
    "and stop_training"
)

FOLLOWING = ("training", "iterations", "_learning_rate")

# After these, rank 0's weights go to all; after others, if they have changed in place.
SETTING = ("on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end")


class Settling:
    """A fit on this rank, until all ranks have told each other that they are ready for it."""

    def __init__(self, device: torch.device) -> None:
        self.ranks = Ranks(device)
        self.is_over = False

    def tell(self, error: BaseException | None, facts: dict[str, Any]) -> None:
        """Raises what is wrong with any rank, or what is not the same on all of them."""
        self.is_over = True
        failure = None if error is None else self.ranks.failure(error)
        told = self.ranks.gathered((failure, facts))
        if error is None:
            _raise_any(failure for failure, _ in told)
            _check_same([facts for _, facts in told])


_settling: ContextVar[Settling | None] = ContextVar("settling", default=None)


def settled(fit: Callable[P, T]) -> Callable[P, T]:
    """Makes a fit one of all processes, if there are several: what is wrong on one rank, and found
    before any work, is an error on all."""

    @wraps(fit)
    def call(*arguments: P.args, **named: P.kwargs) -> T:
        # One that a callback of another fit has called is rank 0's own.
        if _ranks.count() == 1 or _settling.get() is not None:
            return fit(*arguments, **named)
        device = first_float(arguments[0]).device  # type: ignore[arg-type]
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            return _together(Settling(device), fit, *arguments, **named)

    return call


def _together(own: Settling, fit: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    token = _settling.set(own)
    try:
        return fit(*arguments, **named)
    except BaseException as error:
        if not own.is_over:
            own.tell(error, {})
        raise
    finally:
        _settling.reset(token)


class Work(NamedTuple):
    """What a fit works with: this process's own, or what all ranks have of it.

    Attributes:
        ranks: Those that fit together, or None.
        feed, validation, callbacks, verbose: As in Fit.
    """

    ranks: Ranks | None
    feed: Any
    validation: Any
    callbacks: CallbackList
    verbose: Any


def join(model: nn.Module, recipe: Recipe, own: Work, **settings: Any) -> Work:
    """Returns the work of all ranks, or a process's own if it is alone.

    Weights, the optimizer's state and the seed are rank 0's then.

    Args:
        model: The model, built.
        recipe: How to train it.
        own: What this process would work with alone.
        settings: What else must be the same everywhere.

    Raises:
        ValueError: Ranks have other data, layers or settings, or one of them has a wrong argument.
    """
    settling = _settling.get()
    if settling is None or settling.is_over:
        return own
    build_optimizer(model, recipe)
    settings |= {"validation_data": "none" if own.validation is None else "some"}
    validation = {} if own.validation is None else _of_feed(own.validation)
    named = {f"{name} of validation_data": value for name, value in validation.items()}
    settling.tell(None, settings | _of_model(model, recipe) | _of_feed(own.feed) | named)
    return _shared(settling.ranks, model, recipe, own)


def _shared(ranks: Ranks, model: nn.Module, recipe: Recipe, own: Work) -> Work:
    """What all ranks have."""
    _follow(ranks, recipe.optimizer, [own.feed, own.validation])
    ranks.spread([*model.parameters(), *model.buffers()])
    return Work(
        ranks,
        SharedFeed(own.feed, model, ranks),
        own.validation and SharedFeed(own.validation, model, ranks),
        SharedCallbacks(own.callbacks, model, ranks),
        own.verbose if ranks.rank == 0 else 0,
    )


def _of_model(model: nn.Module, recipe: Recipe) -> dict[str, Any]:
    """What must be the same of a model and its recipe on all ranks."""
    weights = [(tuple(each.shape), each.requires_grad) for each in model.parameters()]
    rate = recipe.optimizer.learning_rate
    return {
        "the weights' shapes, and whether they learn,": weights,
        "the buffers' shapes": [tuple(each.shape) for each in model.buffers()],
        "loss": type(recipe.loss).__name__,
        "optimizer": type(recipe.optimizer).__name__,
        "learning_rate": "a schedule" if callable(rate) else rate,
        "engine": recipe.engine,
    }


def _of_feed(feed: Feed) -> dict[str, Any]:
    """What must be the same of a feed."""
    samples = feed.first
    given = {name: getattr(samples, name) for name in ("x", "y", "weight")}
    shapes = {
        f"the shape of {name}": None if each is None else tuple(each.shape)
        for name, each in given.items()
    }
    return shapes | {
        "batch_size": feed.batch_size,
        "steps": feed.steps,
        "shuffling": _seed(feed) is not None,
        "the first and the last rows": f"those of checksum {_checksum(samples):08x}",
    }


def _seed(feed: Any) -> int | None:
    """What the order of samples follows from, or that of batches by number; None for no order."""
    return getattr(getattr(feed, "loader", feed), "seed", None)


def _checksum(samples: Samples) -> int:
    """One of the first and the last rows; their order counts."""
    given = [each for each in (samples.x, samples.y, samples.weight) if each is not None]
    parts: Any = [each.tensors if isinstance(each, Parts) else [each] for each in given]
    return _crc(chain.from_iterable(parts))


def _crc(tensors: Any) -> int:
    """The checksum of the first and the last entries of tensors."""
    crc = 0
    for tensor in tensors:
        ends = torch.cat([tensor[:SAMPLE], tensor[-SAMPLE:]]).detach().cpu().contiguous()
        crc = zlib.crc32(ends.view(torch.uint8).numpy().tobytes(), crc)
    return crc


def _check_same(facts: list[dict[str, Any]]) -> None:
    """Raises ValueError where a rank knows something else than rank 0."""
    for rank, others in enumerate(facts):
        for name, value in facts[0].items():
            if others.get(name) != value:
                raise ValueError(
                    f"{name} must be the same on every rank, got {value} on rank 0 and "
                    f"{others.get(name)} on rank {rank}: {AGREED}"
                )


def _raise_any(failures: Iterable[Failure | None], own: BaseException | None = None) -> None:
    """Raises this rank's own error, or else the first of another one's, if there are any."""
    if own is not None:
        raise own
    failure = next(filter(None, failures), None)
    if failure is not None:
        failure.raise_elsewhere()


def _follow(ranks: Ranks, optimizer: Any, feeds: list[Any]) -> None:
    """Takes rank 0's seed, and the state of its optimizer if that is another."""
    state = optimizer.state_dict()
    tensors = [each.reshape(-1) for each in leaves(state) if isinstance(each, Tensor)]
    told = ranks.gathered((torch.initial_seed(), _plain(state), _crc(tensors)))
    ranks.seed = told[0][0]
    for feed in feeds:
        if feed is not None and _seed(feed) is not None:
            feed.shuffle(ranks.seed)
    if any(each[1:] != told[0][1:] for each in told):
        state = ranks.of_first(mapped(state, _on_cpu))
        if ranks.rank > 0:
            optimizer.load_state_dict(state)


def _plain(state: Any) -> Any:
    """A state without its tensors."""
    return mapped(state, lambda each: None if isinstance(each, Tensor) else each)


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value


class SharedFeed:
    """Batches that all ranks have; between two runs, they agree on the next one.

    It is a feed in all but that: runs are as long everywhere, and Ctrl-C takes effect there.

    Args:
        feed: This rank's.
        model: Its weights are compared at the beginning of each epoch.
        ranks: All of them.
    """

    def __init__(self, feed: Feed, model: nn.Module, ranks: Ranks) -> None:
        self._feed, self._model, self._ranks = feed, model, ranks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._feed, name)

    def runs(self, *arguments: Any, **named: Any) -> Iterator[Run]:
        """Yields an epoch run by run.

        Raises:
            ValueError: Another rank has other batches, or more of them.
            RuntimeError: Its weights have become others.
        """
        runs, weights = self._feed.runs(*arguments, **named), list(self._model.parameters())
        checksum = _crc(each.reshape(-1) for each in weights)
        while (run := self._agreed(runs, checksum)) is not None:
            yield run

    def epochs(self, epoch: int, most: int) -> None:
        """Returns None: between two epochs, ranks agree."""

    def learn(self, run: Run, seconds: float) -> None:
        """Learns nothing: a run is as long on every rank."""

    def _agreed(self, runs: Iterator[Run], checksum: int) -> Run | None:
        """The next run, if all ranks have come to it."""
        run, error = None, None
        try:
            run = next(runs, None)
        except Exception as raised:
            error = raised
        ranks, is_read = self._ranks, isinstance(self._feed, LoaderFeed)
        size = -1 if run is None else run.stop - run.start
        batch = _checksum(run.samples) if run is not None and is_read else 0
        own = [ranks.interrupt.has_come, error is not None, checksum, size, batch]
        told = ranks.numbers(map(int, own))
        with ranks.agreed():
            if any(has_failed for _, has_failed, *_ in told):
                _raise_any(ranks.gathered(error and ranks.failure(error)), error)
            _check_numbers(told)
            if any(is_interrupted for is_interrupted, *_ in told):
                ranks.interrupt.obey()
        return run


def _check_numbers(told: list[list[int]]) -> None:
    """Raises what is wrong if ranks are about to train with others' weights, or other batches."""
    _, _, weights, *batches = zip(*told, strict=True)
    if len(set(weights)) > 1:
        raise RuntimeError(
            "the weights of the ranks have come apart: callbacks, which rank 0 calls, may change "
            "weights in place, the learning rate and stop_training, and nothing else"
        )
    if any(len(set(each)) > 1 for each in batches):
        raise ValueError(f"x must give every rank the same batches, and as many: {AGREED}")


class After(NamedTuple):
    """What the callbacks of rank 0 leave behind, for all.

    Attributes:
        failure: What they raised, or None.
        stops: Whether training is to stop.
        learning_rate: That of the optimizer; None if it has a schedule.
        logs: With what they have added.
        optimizer: Its state, if they have changed how far it has come; or None.
        has_weights: Whether weights follow.
    """

    failure: Failure | None
    stops: bool
    learning_rate: float | None
    logs: dict[str, Any]
    optimizer: dict[str, Any] | None
    has_weights: bool


class SharedCallbacks(CallbackList):
    """Callbacks that are called on rank 0; what they do to weights, the learning rate, logs and
    stop_training is done on every rank.

    Args:
        callbacks: This rank's. All ranks go by what those of rank 0 listen to.
        model: The model.
        ranks: All of them.
    """

    def __init__(self, callbacks: CallbackList, model: Any, ranks: Ranks) -> None:
        super().__init__(callbacks.callbacks if ranks.rank == 0 else None)
        self._model, self._ranks = model, ranks
        own = [hook for hook in HOOKS if callbacks.listens(hook)]
        self._heard = frozenset(ranks.of_first(own))

    def listens(self, *hooks: str) -> bool:
        """Whether any callback of rank 0 overrides any of the hooks."""
        return not self._heard.isdisjoint(hooks)

    def __call__(self, hook: str, *arguments: Any) -> None:
        """Calls a hook on rank 0, and does on every rank what came of it."""
        if hook not in self._heard:
            return
        if self._ranks.is_apart:
            super().__call__(hook, *arguments)  # of rank 0: the others have none
            return
        logs = next((each for each in arguments if isinstance(each, dict)), {})
        own, error = None, None
        if self._ranks.rank == 0:
            own, error = self._called(hook, arguments, logs)
        after: After = self._ranks.of_first(own)
        self._take(after, logs)
        with self._ranks.agreed():
            _raise_any([after.failure], error)

    def _called(
        self, hook: str, arguments: tuple[Any, ...], logs: dict[str, Any]
    ) -> tuple[After, BaseException | None]:
        """Calls a hook; returns what it has left behind, and what it raised."""
        model, optimizer, error = self._model, self._model.optimizer, None
        made, weights, place = _made_of(model), _versions(model), _place(optimizer)
        try:
            self._ranks.interrupt.let_through(super().__call__, hook, *arguments)
            if _made_of(model) != made:
                raise RuntimeError(f"{hook} of a callback has changed {CHANGED}")
        except BaseException as raised:
            error = raised
        rate = optimizer.learning_rate
        after = After(
            None if error is None else self._ranks.failure(error),
            model.stop_training,
            None if callable(rate) else float(rate),
            logs,
            mapped(optimizer.state_dict(), _on_cpu) if _place(optimizer) != place else None,
            error is None and (hook in SETTING or _versions(model) != weights),
        )
        return after, error

    def _take(self, after: After, logs: dict[str, Any]) -> None:
        """Does what rank 0's callbacks have done."""
        model, optimizer = self._model, self._model.optimizer
        if self._ranks.rank > 0:
            model.stop_training = after.stops
            logs.clear()
            logs.update(after.logs)
            if after.optimizer is not None:
                optimizer.load_state_dict(after.optimizer)
            if after.learning_rate not in (None, optimizer.learning_rate):
                optimizer.learning_rate = after.learning_rate
        if after.has_weights:
            self._ranks.spread([*model.parameters(), *model.buffers()])


def _made_of(model: Any) -> list[Any]:
    """What a model is made of, and its settings, so far that all ranks must have the same."""
    recipe, (_, *layers) = model._recipe, model.modules()
    weights = [(id(each), each.requires_grad) for each in model.parameters()]
    settings = [_settings(each) for each in (recipe.loss, recipe.optimizer, *layers)]
    return [id(recipe), *map(id, layers), *weights, *settings]


def _settings(thing: Any) -> list[Any]:
    """The numbers and names among what something has, but for those that follow rank 0's."""
    return [
        (name, value)
        for name, value in vars(thing).items()
        if isinstance(value, (bool, int, float, str)) and name not in FOLLOWING
    ]


def _versions(model: nn.Module) -> list[int]:
    return [each._version for each in (*model.parameters(), *model.buffers())]


def _place(optimizer: Any) -> tuple[Any, ...]:
    return optimizer.iterations, optimizer.place
