"""fit: epoch after epoch, each followed by validation, with callbacks told.

    epoch    run after run, one call of the engine each
    run      as many batches as take about 50 ms, or one if a callback looks at each; several epochs
             if they are that short, ahead of those who are told of them

What happens inside a run, step by step, is the engine's affair. An engine on a GPU only queues it;
if nobody looks in between, the next run is queued before anyone is told of this one, so that it
need not wait for the host.

What has been trained counts, whatever ends a fit: Ctrl-C waits for the end of a step, the history
gets what is known, on_train_end is told, and the next fit goes on with the batch after the last.
"""

import math
from collections import deque
from collections.abc import Callable, Container, Iterator
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any
from uuid import uuid4

from torchnn import _warnings
from torchnn._console.progress import Progress
from torchnn._engine.ahead import Ahead
from torchnn._engine.autograd import Result
from torchnn._engine.building import mode
from torchnn._engine.choice import Engine
from torchnn._engine.interrupts import HeldInterrupt
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Run
from torchnn._training.ahead import Lookahead, is_due, is_pure
from torchnn._training.batches import ArrayFeed, Feed
from torchnn._training.going_on import go_on, state_of
from torchnn._training.loops import measure
from torchnn._training.ranks import Work, join
from torchnn._training.tally import Figures, Tally
from torchnn.callbacks import BackupAndRestore, History, InvalidLossWarning
from torchnn.callbacks._base import HOOKS, CallbackList
from torchnn.optimizers._base import Place

# Whoever listens to one of these may look at the model, or change it, between two epochs.
BETWEEN_EPOCHS = (
    "on_epoch_begin",
    "on_epoch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_invalid_loss",
)
# Whoever listens to one of these wants to come before what follows it.
BEFORE = ("on_epoch_begin", "on_test_begin", "on_test_batch_begin", "on_test_batch_end")


class Fit:
    """One fit: its algorithm, and what that works with.

    Args:
        model: A built module with the attributes of a Model.
        recipe: What compile settled.
        feed: What to train on.
        validation: What to measure after each epoch, or None.
        callbacks: The user's.
        epochs: The numbers of the epochs.
        verbose: As in Progress.
        validation_freq: The number of epochs between two validations, or their numbers from 1.

    Raises:
        ValueError: There is nothing to train, or the optimizer belongs to another model.
    """

    def __init__(
        self,
        model: Any,
        recipe: Recipe,
        feed: Feed,
        validation: Feed | None,
        callbacks: CallbackList,
        epochs: range,
        verbose: Any,
        validation_freq: int | Container[int] = 1,
    ) -> None:
        self.model, self.recipe, self.epochs = model, recipe, epochs
        work = Work(None, feed, validation, callbacks, verbose)
        work = join(model, recipe, work, epochs=epochs, validation_freq=validation_freq)
        self.ranks, feed, validation, callbacks, verbose = work
        self.feed, self.validation, self.validation_freq = feed, validation, validation_freq
        self.engine = Engine(model, recipe, feed.first, callbacks, together=self.ranks)
        if self.ranks is None and isinstance(feed, ArrayFeed):  # ranks go at one pace
            feed.paces = recipe.paces.setdefault(self.engine.kind, {})
        self.engine.build_optimizer()
        self.steps_before = recipe.optimizer.iterations
        self.tally, self.history = Tally(recipe.metrics), History()
        tells = recipe.is_to_tell and len(epochs) > 0
        headline = _of_the_default(recipe.optimizer.current_learning_rate()) if tells else ()
        self.progress = Progress(
            self.engine, self.tally, feed.steps, epochs.stop, verbose, headline
        )
        recipe.is_to_tell &= not (tells and self.progress.is_visible)
        self.callbacks = callbacks
        # Told after the user's, so that what they add to the logs is shown and kept.
        self.shown = CallbackList(self.progress if self.progress.is_visible else None)
        params = {"epochs": epochs.stop, "steps": feed.steps, "verbose": verbose}
        for told in (callbacks, self.shown, CallbackList(self.history)):
            told.introduce(model, **params, validates=validation is not None)
        self.heard = {hook for hook in HOOKS if callbacks.listens(hook)}
        self.looks_at_batches = callbacks.listens("on_train_batch_begin", "on_train_batch_end")
        self.may_be_changed = callbacks.listens(*BETWEEN_EPOCHS)  # the model, between epochs
        # Of several ranks, the first has all callbacks.
        self.backups = [each for each in callbacks.callbacks if isinstance(each, BackupAndRestore)]
        self.looks_between_epochs = (
            validation is not None
            or self.may_be_changed
            or any(each.save_freq == "epoch" for each in self.backups)
        )
        self.may_measure_late = all(map(is_pure, recipe.metrics))
        self.lookahead = self._lookahead()
        self.validated: Iterator[dict[str, float]] | None = None  # of the epochs to be told of
        self.tells_late = self.engine.is_queued and not (self.may_be_changed or self.backups)
        self.first = epochs.start  # the epoch to begin with
        self.began = recipe.optimizer.place.epochs
        self.name = uuid4().hex  # by which a backup knows the fit that it is of
        self.goes_on = model._stopped_fit  # the fit that was stopped in this process, if one was
        self.interrupt = HeldInterrupt() if self.ranks is None else self.ranks.interrupt
        self.untold: deque[Callable[[], None]] = deque()
        self.has_failed = False  # then only the history is told
        self.arrived = 0.0  # when the figures of the last run were there
        self.logs: dict[str, float] = {}  # of the last epoch
        self.has_warned = False

    @property
    def place(self) -> Place:
        """How far the optimizer has come."""
        return self.recipe.optimizer.place

    @place.setter
    def place(self, place: Place) -> None:
        self.recipe.optimizer.place = place

    def run(self) -> History:
        """Trains the model and returns the history of the epochs."""
        model = self.model
        model.stop_training, model.history, model._stopped_fit = False, self.history, None
        self.place = self.resumed()
        with self.interrupt, mode(model, training=True), self.progress:
            self.call("on_train_begin", {})
            try:
                self.restore()
                self.fit()
                self.finalize()
            except BaseException:
                model._stopped_fit = self.name
                self.settle()
                raise
            finally:
                if model.optimizer is not self.recipe.optimizer:  # a callback has compiled it
                    model.epochs_trained = self.place.epochs
                self.call("on_train_end", self.logs)
        for backup in self.backups:
            backup.drop()
        return self.history

    def restore(self) -> None:
        """Goes on where another fit was, mostly of another process, if there is a backup."""
        steps = self.recipe.optimizer.iterations
        kept = [backup.kept(steps) for backup in self.backups]
        state = next((each for each in kept if each is not None), None)
        if self.ranks is not None:
            state = self.ranks.of_first(state)
        if state is not None:
            go_on(self, state)

    def back_up(self, epoch: int, has_ended: bool = False) -> None:
        """Keeps the state where that is due, if another process can go on from here.

        Args:
            epoch: The one that comes next, or is not over.
            has_ended: Whether one has just ended.
        """
        steps = self.recipe.optimizer.iterations
        due = [each for each in self.backups if each.is_due(steps, has_ended)]
        if due:
            self.remember_sums()
        if self.can_go_on_here():
            for backup in due:
                backup.keep(steps, state_of(self, epoch))

    def can_go_on_here(self) -> bool:
        """Whether another fit could: between two epochs, or in the middle of one whose samples lie
        in memory and whose metrics are sums; not when all that is left is to tell of it."""
        place = self.place
        is_known = isinstance(self.feed, ArrayFeed) and place.sums is not None
        return not place.batches or (is_known and place.batches != self.feed.steps)

    def resumed(self) -> Place:
        """Where an earlier fit stopped; where an epoch begins if this one cannot go on there."""
        place, first, feed = self.place, self.epochs.start, self.feed
        if place.epochs < first:
            place = Place(first)
        elif place.batches and place.batches == feed.steps:
            place = Place(place.epochs + 1)
        elif not place.batches or feed.identity is None or place.feed != feed.identity:
            place = Place(place.epochs)
        seed = place.seed if place.batches else feed.seed
        return replace(place, feed=feed.identity, seed=seed)

    def fit(self) -> None:
        """Epoch after epoch, until the last or until a callback says stop."""
        epoch = self.first
        while epoch < self.epochs.stop:
            self.interrupt.release()
            if self.feed.is_over():
                _warnings.warn(f"x ran out of batches after {epoch} of {self.epochs.stop} epochs")
                break
            epoch += self.short_epochs(epoch) or self.epochs_ahead(epoch) or self.epoch(epoch)
            self.back_up(epoch, has_ended=True)
            if self.model.stop_training:
                break
        self.catch_up()
        self.interrupt.release()

    def finalize(self) -> None:
        """Gives the weights the values that the optimizer has for them, if they were trained."""
        optimizer = self.recipe.optimizer
        if optimizer.iterations > self.steps_before:
            optimizer.finalize_variable_values(optimizer.parameters)

    def settle(self) -> None:
        """Of what has been trained, counts what nobody has been told of."""
        self.has_failed = True
        if self.ranks is not None:
            self.ranks.part()
        self.catch_up()
        if self.place.batches and self.place.batches == self.feed.steps:
            self.end_epoch(self.current)
            self.catch_up()
        self.remember_sums()

    def short_epochs(self, epoch: int) -> int:
        """Trains several epochs in one run, if nobody looks in between; returns how many."""
        if self.looks_between_epochs or self.place.batches or not self.may_measure_late:
            return 0
        run = self.feed.epochs(self.place.epochs, self.epochs.stop - epoch)
        if run is None:
            return 0
        self.train(run, epoch, size=run.epoch_size)
        return run.epochs

    def _lookahead(self) -> Lookahead | None:
        """What trains epochs ahead, unless somebody has to be asked before one begins."""
        feed, validation = self.feed, self.validation
        comes_between = (
            self.looks_at_batches
            or self.backups
            or self.ranks is not None
            or self.callbacks.listens(*BEFORE)
            or not self.may_measure_late
        )
        if comes_between or not isinstance(feed, ArrayFeed):
            return None
        if validation is None or (isinstance(validation, ArrayFeed) and validation.is_whole):
            metrics, freq = self.recipe.metrics, self.validation_freq
            return Lookahead(self.engine, feed, validation, freq, metrics)
        return None

    def epochs_ahead(self, epoch: int) -> int:
        """Trains several epochs before anyone is told of the first; returns how many count."""
        lookahead, left = self.lookahead, self.epochs.stop - epoch
        if lookahead is None or self.place.batches:
            return 0
        run = lookahead.next_run(self.place.epochs, left)
        if run is None:
            return 0
        self.current, began = epoch, perf_counter()
        self.tally.reset()
        ahead = lookahead.train(run)
        seconds = perf_counter() - began
        self.feed.learn(run, seconds)
        try:
            ahead.put(0)
            self.place = self.place.after(len(run) // run.epochs)
            figures = Figures(self.recipe.metrics, run, ahead.result).wait()
            self.validated = lookahead.validations(ahead, epoch)
            return self.tell_of_all(ahead, lookahead, figures, epoch, seconds / run.epochs)
        finally:
            ahead.leave()
            self.validated = None

    def tell_of_all(
        self, ahead: Ahead, lookahead: Lookahead, figures: Iterator[Any], epoch: int, seconds: float
    ) -> int:
        """Tells of one epoch after the other, each time as if only that one had been trained, until
        somebody changes what the next ones have come of; returns how many count."""
        begun = self.place.epochs
        for i, each in enumerate(figures):
            if i and not (self.place.epochs == begun + i and ahead.put(i)):
                lookahead.depth.lost()
                return i
            self.tell_of(epoch + i, each, seconds)
            if self.model.stop_training:
                return i + 1
            self.interrupt.release()
        lookahead.depth.kept()
        return ahead.epochs

    def tell_of(self, epoch: int, figures: tuple[Any, ...], seconds: float) -> None:
        """Tells of an epoch after which the model is as if it had just been trained."""
        self.begin(epoch)
        calls = self.callbacks.calls
        try:
            self.tally.add(*figures)
            self.tally.seconds = seconds
            self.check(epoch, *figures[1:3])
            may_write = self.callbacks.model_access == "write"
            if self.callbacks.calls != calls and may_write:  # whoever is told of an invalid loss
                self.validated = None
        finally:
            self.end_epoch(epoch)

    def epoch(self, epoch: int) -> int:
        """Trains on everything once, run after run; returns 1."""
        self.current = epoch
        place = self.place
        self.tell(self.begin, epoch, place)
        runs = self.feed.runs(place.epochs, self.looks_at_batches, place.batches, place.seed)
        for run in self.progress.watched(self.interrupt.between(runs)):
            self.call("on_train_batch_begin", self.tally.steps, {})
            self.train(run, epoch)
            if self.model.stop_training:
                break
            self.back_up(epoch)
        self.end_epoch(epoch)
        if self.looks_between_epochs:
            self.catch_up()
        return 1

    def end_epoch(self, epoch: int) -> None:
        """Counts an epoch, and tells of it."""
        place = self.place
        self.place = Place(place.epochs + 1, feed=place.feed, seed=self.feed.seed)
        self.tell(self.end, epoch)

    def train(self, run: Run, epoch: int, size: int = 0) -> None:
        """Trains a run; if it is made of whole epochs, of which nobody has been told, they have a
        size.

        A held Ctrl-C may cut it short. Then it takes effect here; should whoever handles it let the
        work go on, the rest is trained.
        """
        runs = [run]
        while runs:
            self.interrupt.release()
            run, began = runs.pop(0), perf_counter()
            result = self.train_counted(run, of_epochs=size > 0)
            done, rest = run.cut(len(result.losses))
            figures = [Figures(self.recipe.metrics, *each) for each in _results(done, result)]
            self.catch_up()  # now that the device has enough to do
            for each in figures:
                self.tell(self.count, epoch, each, size, began)
            runs[:0] = rest

    def train_counted(self, run: Run, of_epochs: bool) -> Result:
        """Trains a run, and counts the batches that have been trained, whatever happens."""
        before = self.engine.steps_done
        try:
            return self.engine.train(run, self.interrupt.is_pending)
        finally:
            steps = self.feed.steps if of_epochs else None
            self.place = self.place.after(self.engine.steps_done - before, steps)

    def tell(self, function: Callable[..., None], *arguments: Any) -> None:
        """Calls what reads figures or tells of them; if nobody waits for that, after the next run
        has been queued, so that the device goes on meanwhile."""
        self.untold.append(partial(function, *arguments))
        if not self.tells_late:
            self.catch_up()

    def catch_up(self) -> None:
        """Calls all that is still to be told, in order."""
        while self.untold:
            self.untold.popleft()()

    def call(self, hook: str, *arguments: Any) -> None:
        """Calls a hook of everybody: the user's callbacks may be interrupted, ours are quick."""
        if self.has_failed and hook != "on_train_end":
            return
        if hook in self.heard:
            self.interrupt.meanwhile(self.callbacks, hook, *arguments)
        self.shown(hook, *arguments)

    def begin(self, epoch: int, place: Place | None = None) -> None:
        """Tells that an epoch starts, or goes on from where an earlier fit stopped."""
        self.call("on_epoch_begin", epoch, {})
        self.tally.reset()
        if place is not None and place.batches:
            self.tally.restore(place.batches, place.sums or {})

    def count(self, epoch: int, figures: Figures, size: int, began: float) -> None:
        """Adds a run to the epoch's means, which are over the samples, while the weights changed;
        of whole epochs, tells one by one."""
        began, parts = max(began, self.arrived), figures.wait()
        self.arrived = perf_counter()
        seconds = (self.arrived - began) / figures.run.epochs
        add = partial(self.add, epoch, size, seconds)
        self.untold.appendleft(partial(self.each, parts, add, figures.run, began))

    def each(self, parts: Iterator[Any], add: Callable[..., None], run: Run, began: float) -> None:
        """Adds the next part; it is on the list of what is to be told until all have been."""
        part = next(parts, None)
        if part is None:
            self.counted(run, began)
            return
        self.untold.appendleft(partial(self.each, parts, add, run, began))  # telling may fail
        add(*part)

    def add(
        self,
        epoch: int,
        size: int,
        seconds: float,
        run: Run,
        losses: list[float],
        total: float | None,
        *more: Any,
    ) -> None:
        """Adds what was trained of an epoch; if that has a size, tells of its begin and end."""
        if size:
            epoch += run.start // size
        if size and run.start % size == 0:
            self.begin(epoch)
        self.tally.add(run, losses, total, *more)
        try:
            self.check(epoch, losses, total)
        finally:
            if size and run.stop % size == 0:
                self.tally.seconds = seconds
                self.end(epoch)

    def counted(self, run: Run, began: float) -> None:
        """Tells of the last batch of a run."""
        if self.looks_at_batches and not self.has_failed:
            self.remember_sums()
            self.call("on_train_batch_end", self.tally.steps - 1, self.tally.logs())
        if not self.looks_at_batches:  # it is not the engine that would take the time
            self.feed.learn(run, perf_counter() - began)

    def remember_sums(self) -> None:
        """Lets the means of an epoch that is not over go on in another fit."""
        if self.place.batches and self.place.batches == self.tally.steps:
            self.place = replace(self.place, sums=self.tally.sums())

    def end(self, epoch: int) -> None:
        """Validates, and tells that an epoch has ended."""
        self.logs = self.tally.logs()
        try:
            if (
                self.validation is not None
                and is_due(epoch, self.validation_freq)
                and not self.has_failed
            ):
                self.interrupt.release()
                self.logs |= self.interrupt.meanwhile(self.validate, self.validation)
            self.call("on_epoch_end", epoch, self.logs)
        finally:
            self.history.on_epoch_end(epoch, self.logs)

    def validate(self, validation: Feed) -> dict[str, float]:
        """Returns the means of the validation data by their "val_" names."""
        if self.validated is not None:
            means = next(self.validated)
            self.callbacks("on_test_end", means)
        else:
            tally = Tally(self.recipe.metrics)
            means = measure(
                self.model, self.engine, validation, tally, self.callbacks, self.progress
            )
        return {f"val_{name}": value for name, value in means.items()}

    def check(self, epoch: int, losses: list[float], total: float | None) -> None:
        """Tells everyone, once, if a loss that has just been counted is no number."""
        if self.has_warned or self.has_failed:
            return
        if math.isfinite(sum(losses) if total is None else total):
            return
        invalid = ((i, loss) for i, loss in enumerate(losses) if not math.isfinite(loss))
        index, loss = next(invalid, (-1, 0.0))
        if index < 0:  # only their sum is too large
            return
        self.has_warned = True
        batch = self.tally.steps - len(losses) + index
        self.call("on_invalid_loss", epoch, batch, {"loss": loss})
        _warnings.warn(
            f"the loss became {loss} at epoch {epoch + 1}, batch {batch + 1}. Try a smaller "
            f"learning_rate (it is {self.recipe.optimizer.current_learning_rate():g}), features "
            "scaled to mean 0 and variance 1, or another loss; the callback TerminateOnNaN() "
            "stops fit here",
            InvalidLossWarning,
        )


def _of_the_default(learning_rate: float) -> tuple[str, str]:
    return (
        f"optimizer: gradient descent, learning_rate={learning_rate:g}",
        '(the default here; Keras takes RMSprop: compile("rmsprop", ...))',
    )


def _results(runs: list[Run], result: Result) -> Iterator[tuple[Run, Result]]:
    """Yields each run with its part of what came of all of them together."""
    if len(runs) == 1:
        yield runs[0], result
        return
    losses, predictions = result
    for run in runs:
        steps, rows = len(run), run.stop - run.start
        own = None if predictions is None else predictions[:rows]
        yield run, Result(losses[:steps], own)
        losses = losses[steps:]
        predictions = None if predictions is None else predictions[rows:]
