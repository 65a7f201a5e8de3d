"""One of many models that are to be trained at once, and what it has in common with others."""

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Generator, Tensor

from torchnn import ops
from torchnn._engine import building, ranks
from torchnn._engine.choice import build_optimizer
from torchnn._engine.fused import slots_of
from torchnn._engine.plan import NotFusedError, Plan, dropout_rate, plan
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Batches, Samples
from torchnn._training.tally import Tally
from torchnn.callbacks import BackupAndRestore, EarlyStopping, History, LearningRateScheduler
from torchnn.callbacks._base import HOOKS, CallbackList, access
from torchnn.losses import Loss
from torchnn.metrics import Metric
from torchnn.ops.reference import Stopping, StoppingState
from torchnn.optimizers._base import Place

# Who listens to one of these comes between two steps, or between an epoch and its validation.
WITHIN = (
    *("on_train_batch_begin", "on_train_batch_end", "on_test_begin", "on_test_end"),
    *("on_test_batch_begin", "on_test_batch_end"),
)
NEVER = 2**53  # epochs: as good as any more
OF_EPOCHS = ("on_epoch_begin", "on_epoch_end", "on_invalid_loss")
# PyTorch's generators are those of all threads: whose seed is its own keeps others like it waiting.
drawing = threading.RLock()
if hasattr(os, "register_at_fork"):  # the thread that holds it is not there in a new process
    os.register_at_fork(after_in_child=drawing._at_fork_reinit)  # type: ignore[attr-defined]


@dataclass(eq=False)
class Rows:
    """Samples, and those of them that a model sees.

    Attributes:
        samples: All of them.
        numbers: The row numbers, int64; None for all.
    """

    samples: Samples
    numbers: Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples) if self.numbers is None else len(self.numbers)

    @property
    def order(self) -> Tensor:
        """The numbers as they are."""
        if self.numbers is not None:
            return self.numbers
        return torch.arange(len(self.samples), device="cpu")

    def taken(self) -> Samples:
        """Returns these samples alone."""
        samples, rows = self.samples, self.numbers
        if rows is None:
            return samples
        x, y, weight = (
            None if t is None else t.index_select(0, rows.to(t.device))
            for t in (samples.x, samples.y, samples.weight)
        )
        return Samples(x, y, weight, samples.origin)  # type: ignore[arg-type]


@dataclass(eq=False)
class Member:
    """One of the models, and how it is to be trained.

    Attributes:
        number: Its place among the models.
        model: Compiled and built.
        recipe: What compile settled.
        train: What to train on.
        validation: What to measure after each epoch, or None.
        batch_size: Samples a step.
        epochs: How many.
        seed: What the order of the samples follows from; None for the rows as they are.
        drops_by: What dropout follows from.
        callbacks: Its own.
        history: Of its epochs.
        network: The model as the kernels see it, from look on.
        epoch: How many epochs it has been trained.
        tally: Of its metrics.
        begun: Of one that goes by itself, PyTorch's generator as it was when fit_many was called.
    """

    number: int
    model: Any
    recipe: Recipe
    train: Rows
    validation: Rows | None
    batch_size: int
    epochs: int
    seed: int | None
    drops_by: int
    callbacks: CallbackList
    history: History = field(default_factory=History)
    network: Plan = field(init=False, repr=False)
    epoch: int = 0
    tally: Tally = field(init=False, repr=False)
    has_warned: bool = False  # that its loss is no number
    begun: Tensor | None = field(default=None, repr=False)

    def look(self) -> str | None:
        """Reads the model onto the kernels, or says in half a sentence why it must go by itself."""
        recipe = self.recipe
        if recipe.engine == "autograd":
            return "compile asked for autograd"
        if ranks.count() > 1:
            return f"{ranks.count()} processes train together"
        if recipe.optimizer.place.batches:
            return "an epoch that was interrupted comes first"
        for callback in self.callbacks.callbacks:
            name, alone = type(callback).__name__, CallbackList(callback)
            if isinstance(callback, BackupAndRestore) or alone.listens(*WITHIN):
                return f"the callback {name} comes between the steps of an epoch"
            if type(callback) is LearningRateScheduler:  # it may set the rate in any case
                continue
            is_first = alone.listens("on_train_begin") and access(callback) == "write"
            if is_first or alone.model_access == "write":
                return f"the callback {name} may change the model: see Callback.model_access"
        try:
            self.network = plan(self.model, recipe, tuple(self.train.samples.x.shape[1:]))
        except NotFusedError as reason:
            return str(reason)
        self.weights, self.biases = self.network.weights, self.network.biases
        self.regularization = self.network.regularization
        if self.weights[0].is_cuda and not self._fits_cuda:
            return "its weights do not fit into the memory of a multiprocessor beside others"
        return None

    @property
    def _fits_cuda(self) -> bool:
        network, weights = self.network, self.weights
        plan = ops.cuda_trial_plan(
            [weights[0].shape[1], *map(len, weights)],
            weights[0].dtype,
            self.batch_size,
            ops.cuda_limits(weights[0].device)[0],
            loss=self.loss.name,
            update=self.rule.name,
            activations=network.in_training,
            dropped=[dropout_rate(each) > 0 for each in network.dropouts],
        )
        return plan.rows > 0

    @cached_property
    def kind(self) -> tuple[Any, ...]:
        """What models have in common whose calls can be shared."""
        network, rule, validation = self.network, self.rule, self.validation
        return (
            (self.weights[0].dtype, self.weights[0].device),
            (self.weights[0].shape[1], self.weights[-1].shape[0]),
            (*network.in_training, network.absorbed),
            tuple(network.slopes),
            tuple(bias is None for bias in self.biases),
            self.comparison,
            (rule.name, *sorted(rule.options)),
            (self.batch_size, len(self.train), None if validation is None else len(validation)),
            self.regularization != [],
            tuple(map(_traits, self.recipe.metrics)),
        )

    @cached_property
    def comparison(self) -> tuple[Any, ...]:
        """How outputs are compared with targets, and what these are."""
        loss, y = self.loss, self.train.samples.y  # type: Any, Any
        traits = _traits(self.network.loss)
        return loss.name, *loss.options.items(), traits, tuple(y.shape[1:]), y.dtype

    @cached_property
    def loss(self) -> ops.Kernel:
        """The kernel of the loss, for targets such as these."""
        loss, y = self._kernel(self.network.loss), self.train.samples.y  # type: Any, Any
        if loss.name in ops.reference.TAKE_LABELS and y[0].numel() > 1:
            loss = loss._replace(name=loss.name.removeprefix("sparse_"))
        return loss

    @cached_property
    def rule(self) -> ops.Kernel:
        """The kernel of the optimizer, by its present settings."""
        return self._kernel(self.recipe.optimizer)

    @staticmethod
    def _kernel(thing: Any) -> ops.Kernel:
        kernel = ops.kernel_of(thing)
        if kernel is None:  # plan has found it
            raise RuntimeError("the loss or the optimizer has become one that no kernel computes")
        return kernel

    @cached_property
    def work(self) -> float:
        """Multiply-adds of an epoch, roughly; an output costs as much as some of them."""
        weights = self.weights
        return float(len(self.train) * sum(3 * w.numel() + 40 * len(w) for w in weights))

    @cached_property
    def steps(self) -> int:
        """Batches an epoch."""
        return Batches(len(self.train), len(self.train), self.batch_size).count

    @cached_property
    def looks(self) -> bool:
        """Whether a callback is told of each epoch."""
        return self.stopper is None and self.callbacks.listens(*OF_EPOCHS)

    @cached_property
    def stopper(self) -> EarlyStopping | None:
        """The only callback that is told of epochs, if the kernels can do what it does."""
        told = [each for each in self.callbacks.callbacks if CallbackList(each).listens(*OF_EPOCHS)]
        if len(told) != 1 or type(told[0]) is not EarlyStopping or vars(told[0]).keys() & HOOKS:
            return None
        seen = ["loss"] if self.validation is None else ["loss", "val_loss"]
        return told[0] if told[0].monitor in seen else None

    @property
    def left(self) -> int:
        """Epochs still to come."""
        return 0 if self.model.stop_training else self.epochs - self.epoch

    # ---- what a call takes ----

    weights: list[Tensor] = field(default_factory=list, repr=False)
    biases: list[Tensor | None] = field(default_factory=list, repr=False)
    slots: list[Tensor | None] = field(default_factory=list, repr=False)
    options: dict[str, float] = field(default_factory=dict)
    regularization: list[tuple[float, ...]] = field(default_factory=list)
    input_dropout: float = 0.0
    seeds: list[int] = field(default_factory=list)

    def begin(self) -> None:
        """Readies the optimizer and the model, and tells the callbacks."""
        model, network = self.model, self.network
        optimizer: Any = self.recipe.optimizer
        build_optimizer(model, self.recipe)
        identity = (self.batch_size, len(self.train), self.seed is not None, self.steps)
        optimizer.place = Place(optimizer.place.epochs, feed=identity, seed=self.seed)
        self.tally, self.logs = Tally(self.recipe.metrics), {}
        self.slots = [*chain.from_iterable(slots_of(optimizer, network.parameters))]
        self.options = {**self.rule.options, **self.loss.options}
        self.input_dropout = dropout_rate(network.input_dropout)
        self.seeds = [*network.seeds(self.drops_by), network.input_seed(self.drops_by)]
        model.stop_training, model.history, model._stopped_fit = False, self.history, None
        params: dict[str, Any] = {"epochs": self.epochs, "steps": self.steps, "verbose": 0}
        params["validates"] = self.validation is not None
        self.callbacks.introduce(model, **params)
        self.history.set_model(model)
        self.history.set_params(params)
        self.callbacks("on_train_begin", {})
        if self.stopper is not None and self.stopper.restore_best_weights:
            self._ready_to_restore()

    def _ready_to_restore(self) -> None:
        """Makes room for the best epoch's weights, in a state dict of the model."""
        pairs = [p for pair in zip(self.weights, self.biases, strict=True) for p in pair]
        self.best = [None if p is None else torch.empty_like(p) for p in pairs]
        both = zip(pairs, self.best, strict=True)
        kept = {p.data_ptr(): own for p, own in both if p is not None and own is not None}
        self.best_state = {
            name: kept[value.data_ptr()].view_as(value)
            if value.data_ptr() in kept
            else value.clone()
            for name, value in self.model.state_dict().items()
        }

    def finish(self) -> None:
        """Tells the callbacks of the end; nothing of a call is kept."""
        self.weights, self.biases, self.slots, self.best = [], [], [], []
        self.callbacks("on_train_end", self.logs)

    # ---- when it ends early ----

    best: list[Tensor | None] = field(default_factory=list, repr=False)
    best_state: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def stopping(self) -> Stopping:
        """When that is."""
        own = self.stopper
        if own is None:
            return Stopping()
        return Stopping(
            min(own.patience, NEVER),
            own.monitor == "val_loss",
            -1 if own.mode == "max" else 1,
            own.min_delta,
            math.nan if own.baseline is None else own.baseline,
            min(own.start_from_epoch, NEVER),
        )

    @property
    def stopping_state(self) -> StoppingState:
        """What is known by now."""
        own = self.stopper
        if own is None:
            return StoppingState(epochs=self.epoch)
        is_known = own.best is not None or own.best_weights is not None
        best = math.nan if own.best is None else own.best
        return StoppingState(best, own.best_epoch if is_known else -1, own.wait, self.epoch)

    def take(self, state: StoppingState) -> None:
        """Takes in what is known after some more epochs."""
        own: Any = self.stopper  # there is one
        is_better = state.best_epoch != self.stopping_state.best_epoch
        own.best = None if math.isnan(state.best) else state.best
        own.wait = int(state.wait)
        if is_better and own.restore_best_weights:
            own.best_weights = self.best_state
        if own.best is not None or own.best_weights is not None:
            own.best_epoch = int(state.best_epoch)
        if state.has_stopped:
            own.stopped_epoch = int(state.epochs) - 1
            self.model.stop_training = True

    # ---- what comes of it ----

    logs: dict[str, Any] = field(default_factory=dict, repr=False)  # of the last epoch

    def end_epochs(self, columns: dict[str, list[float]]) -> None:
        """Counts some epochs of which nobody is told, given the values of each log."""
        optimizer, count = self.recipe.optimizer, len(columns["loss"])
        place = optimizer.place
        optimizer.place = Place(place.epochs + count, feed=place.feed, seed=self.seed)
        self.history.epoch += range(self.epoch, self.epoch + count)
        for name, values in columns.items():
            self.history.history.setdefault(name, []).extend(values)
        self.epoch += count
        self.logs = {name: values[-1] for name, values in columns.items()}

    def end_epoch(self, logs: dict[str, Any], tells: bool = True) -> None:
        """Counts an epoch, and tells of it."""
        optimizer = self.recipe.optimizer
        place, epoch = optimizer.place, self.epoch
        optimizer.place = Place(place.epochs + 1, feed=place.feed, seed=self.seed)
        self.epoch, self.logs = epoch + 1, logs
        try:
            if tells:
                self.callbacks("on_epoch_end", epoch, logs)
        finally:
            self.history.on_epoch_end(epoch, logs)


# ---- what it draws, trained by itself ----


@dataclass(frozen=True)
class Noise:
    """What a model will draw next: PyTorch's generators as they were when its training paused.

    Attributes:
        at: Its seed, the epochs that it had been trained, and the batches of the next one.
        states: That of the CPU's generator, and of a model on a GPU, of that one's.
    """

    at: tuple[int, int, int]
    states: list[Tensor]


def order_seed(model: Any) -> int:
    """Returns what the order of a model's samples follows from: a seed of its own, or PyTorch's."""
    seed: int | None = model._order_seed
    return torch.initial_seed() if seed is None else seed


def keep_noise(model: Any, seed: int, states: list[Tensor] | None = None) -> None:
    """Lets a model go on with these states; with those that PyTorch's generators are in, if None,
    as if it had been trained with them."""
    if states is None:
        states = [each.get_state() for each in _generators(model)]
    vars(model)["_noise"] = Noise(_at(model, seed), states)


def kept_noise(model: Any, seed: int) -> list[Tensor] | None:
    """Returns the states that a model goes on with; None if it has been trained otherwise since."""
    noise: Noise | None = vars(model).get("_noise")
    return None if noise is None or noise.at != _at(model, seed) else noise.states


@contextmanager
def own_noise(model: Any, begun: Tensor | None) -> Iterator[None]:
    """Lets what a model draws not depend on what others have drawn, nor others on it.

    Args:
        model: The model: it goes on with what it has kept, and else by a seed of its own.
        begun: The state of the CPU's generator for one that has neither.
    """
    with nullcontext() if model._order_seed is None else drawing:
        seed, generators = order_seed(model), _generators(model)
        before = [each.get_state() for each in generators]
        kept = kept_noise(model, seed)
        try:
            if kept is not None:
                for each, state in zip(generators, kept, strict=False):  # it may have moved
                    each.set_state(state)
            elif model._order_seed is not None:
                for each in generators:
                    each.manual_seed(_mixed(*_at(model, seed)))
            elif begun is not None:
                generators[0].set_state(begun)
            yield
        finally:
            keep_noise(model, seed)
            for each, state in zip(generators, before, strict=True):
                each.set_state(state)


def _generators(model: Any) -> list[Generator]:
    """Those of PyTorch's that a model draws from."""
    found = [torch.default_generator]
    device = building.form(model).device
    if device.type == "cuda":
        found.append(torch.cuda.default_generators[device.index])
    return found


def _at(model: Any, seed: int) -> tuple[int, int, int]:
    place = model.optimizer.place
    return seed, place.epochs, place.batches


def _mixed(seed: int, epochs: int, batches: int) -> int:
    """A seed of what is drawn from there on, which is no first weights' seed."""
    return ((seed * 1_000_003 + epochs) * 1_000_003 + batches + 1) % 2**63


def _traits(thing: Any) -> Any:
    """What makes a loss or a metric compute the same as another."""
    if not isinstance(thing, (Loss, Metric)):
        return thing
    if not type(thing).__module__.startswith("torchnn."):
        return id(thing)
    own = {name: _traits(value) for name, value in vars(thing).items() if name != "totals"}
    return type(thing), repr([pair for pair in own.items() if not pair[0].startswith("_")])
