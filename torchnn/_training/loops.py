"""The loops: fit, evaluate and predict.

    fit      epoch after epoch, each followed by validation, with callbacks told
    epoch    run after run, one call of the engine each
    run      as many batches as take about 50 ms, or one if a callback looks at each; several epochs
             if they are that short and nobody looks at the model in between

What happens inside a run, step by step, is the engine's affair. An engine on a GPU only queues it;
if nobody looks in between, the next run is queued before anyone is told of this one, so that it
need not wait for the host.
"""

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from torchnn import _warnings
from torchnn._console.progress import Progress
from torchnn._engine.autograd import Result
from torchnn._engine.building import mode, run_once
from torchnn._engine.choice import Engine, build_optimizer, choose
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Run, Samples
from torchnn._training.batches import Feed
from torchnn._training.tally import Figures, Tally
from torchnn.callbacks import History, InvalidLossWarning
from torchnn.callbacks._base import CallbackList

# Whoever listens to one of these may look at the model, or change it, between two epochs.
BETWEEN_EPOCHS = (
    "on_epoch_begin",
    "on_epoch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_invalid_loss",
)


class Fit:
    """One fit: its algorithm, and what that works with.

    Args:
        model: A built module with the attributes stop_training, epochs_trained and history.
        recipe: What compile settled.
        feed: What to train on.
        validation: What to measure after each epoch, or None.
        callbacks: The user's.
        epochs: The numbers of the epochs.
        verbose: As in Progress.

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
    ) -> None:
        self.model, self.recipe, self.epochs = model, recipe, epochs
        self.feed, self.validation = feed, validation
        self.engine = Engine(model, recipe, callbacks)
        self.engine.build_optimizer()
        self.tally, self.history = Tally(recipe.metrics), History()
        self.progress = Progress(self.engine, self.tally, feed.steps, epochs.stop, verbose)
        # The user's come first, so that what they add to the logs is shown and kept.
        shown = [self.progress] if self.progress.is_visible else []
        self.callbacks = CallbackList([*callbacks.callbacks, *shown, self.history])
        self.callbacks.introduce(model, epochs=epochs.stop, steps=feed.steps, verbose=verbose)
        self.looks_at_batches = self.callbacks.listens("on_train_batch_begin", "on_train_batch_end")
        self.may_be_changed = callbacks.listens(*BETWEEN_EPOCHS)  # the model, between epochs
        self.looks_between_epochs = validation is not None or self.may_be_changed
        self.tells_late = self.engine.is_queued and not self.may_be_changed
        self.untold: deque[Callable[[], None]] = deque()
        self.arrived = 0.0  # when the figures of the last run were there
        self.logs: dict[str, float] = {}  # of the last epoch
        self.has_warned = False

    def run(self) -> History:
        """Trains the model and returns the history of the epochs."""
        model = self.model
        model.stop_training, model.history = False, self.history
        self.epochs_trained = max(model.epochs_trained, self.epochs.start)
        try:
            with mode(model, training=True), self.progress:
                self.fit()
        finally:
            model.epochs_trained = self.epochs_trained
        return self.history

    def fit(self) -> None:
        """Epoch after epoch, until the last or until a callback says stop."""
        self.callbacks("on_train_begin", {})
        epoch = self.epochs.start
        while epoch < self.epochs.stop:
            epoch += self.short_epochs(epoch) or self.epoch(epoch)
            if self.model.stop_training:
                break
        self.catch_up()
        self.callbacks("on_train_end", self.logs)

    def short_epochs(self, epoch: int) -> int:
        """Trains several epochs in one run, if nobody looks in between; returns how many."""
        if self.looks_between_epochs:
            return 0
        run = self.feed.epochs(self.epochs_trained, self.epochs.stop - epoch)
        if run is None:
            return 0
        self.train(run, epoch, is_whole=True)
        return run.epochs

    def epoch(self, epoch: int) -> int:
        """Trains on everything once, run after run; returns 1."""
        self.tell(self.begin, epoch)
        runs = self.feed.runs(self.epochs_trained, self.looks_at_batches)
        for run in self.progress.watched(runs):
            self.callbacks("on_train_batch_begin", self.tally.steps, {})
            self.train(run, epoch, is_whole=False)
            if self.model.stop_training:
                break
        self.epochs_trained += 1
        self.tell(self.end, epoch)
        if self.looks_between_epochs:
            self.catch_up()
        return 1

    def train(self, run: Run, epoch: int, is_whole: bool) -> None:
        """Trains a run; is_whole if it is made of whole epochs, of which nobody has been told."""
        began = perf_counter()
        result = self.engine.train(run)
        self.epochs_trained += run.epochs if is_whole else 0
        figures = Figures(self.recipe.metrics, run, result)
        self.catch_up()  # now that the device has enough to do
        self.tell(self.count, epoch, figures, is_whole, began)

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

    def begin(self, epoch: int) -> None:
        """Tells that an epoch starts."""
        self.callbacks("on_epoch_begin", epoch, {})
        self.tally.reset()

    def count(self, epoch: int, figures: Figures, is_whole: bool, began: float) -> None:
        """Adds a run to the epoch's means, which are over the samples, while the weights changed;
        of whole epochs, tells one by one."""
        began, parts = max(began, self.arrived), figures.wait()
        self.arrived = perf_counter()
        for part, losses, *sums in parts:
            if is_whole:
                self.begin(epoch)
            self.tally.add(part, losses, *sums)
            self.check(epoch, losses)
            if is_whole:
                self.tally.seconds = (self.arrived - began) / len(parts)
                self.end(epoch)
                epoch += 1
        if self.looks_at_batches:
            self.callbacks("on_train_batch_end", self.tally.steps - 1, self.tally.logs())
        self.feed.learn(figures.run, perf_counter() - began)

    def end(self, epoch: int) -> None:
        """Validates, and tells that an epoch has ended."""
        self.logs = self.tally.logs()
        if self.validation is not None:
            tally = Tally(self.recipe.metrics)
            measured = measure(
                self.model, self.engine, self.validation, tally, self.callbacks, self.progress
            )
            self.logs |= {f"val_{name}": value for name, value in measured.items()}
        self.callbacks("on_epoch_end", epoch, self.logs)

    def check(self, epoch: int, losses: list[float]) -> None:
        """Tells everyone, once, if a loss that has just been counted is no number."""
        if self.has_warned or math.isfinite(sum(losses)):
            return
        self.has_warned = True
        index, loss = next((i, loss) for i, loss in enumerate(losses) if not math.isfinite(loss))
        batch = self.tally.steps - len(losses) + index
        self.callbacks("on_invalid_loss", epoch, batch, {"loss": loss})
        _warnings.warn(
            f"the loss became {loss} at epoch {epoch + 1}, batch {batch + 1}. Try a smaller "
            f"learning_rate (it is {self.recipe.optimizer.current_learning_rate():g}), features "
            "scaled to mean 0 and variance 1, or another loss; the callback TerminateOnNaN() "
            "stops fit here",
            InvalidLossWarning,
        )


def measure(
    model: nn.Module,
    engine: Engine,
    feed: Feed,
    tally: Tally,
    callbacks: CallbackList,
    progress: Progress,
) -> dict[str, float]:
    """Returns the loss and the metrics of everything, the model being in evaluation mode."""
    looks_at_batches = callbacks.listens("on_test_batch_begin", "on_test_batch_end")
    callbacks("on_test_begin", {})
    tally.reset()
    with mode(model, training=False):
        for run in progress.watched(feed.runs(one_by_one=looks_at_batches)):
            callbacks("on_test_batch_begin", tally.steps, {})
            began = perf_counter()
            _count(run, engine.test(run), tally)
            if looks_at_batches:
                callbacks("on_test_batch_end", tally.steps - 1, tally.logs())
            feed.learn(run, perf_counter() - began)
    logs = tally.logs()
    callbacks("on_test_end", logs)
    return logs


def evaluate(
    model: nn.Module, recipe: Recipe, feed: Feed, callbacks: CallbackList, verbose: Any
) -> dict[str, float]:
    """Returns "loss" and each metric, and shows them."""
    engine, tally = Engine(model, recipe, callbacks), Tally(recipe.metrics)
    callbacks.introduce(model, epochs=1, steps=feed.steps, verbose=verbose)
    with Progress(engine, tally, feed.steps, verbose=verbose) as progress:
        progress.begin("Evaluate")
        logs = measure(model, engine, feed, tally, callbacks, progress)
        progress.end(logs)
    return logs


def train_on_batch(model: nn.Module, recipe: Recipe, samples: Samples) -> dict[str, float]:
    """Takes one step on all samples; returns "loss" and each metric from before it."""
    build_optimizer(model, recipe)
    with mode(model, training=True):
        return _on_batch(recipe, samples, choose(model, recipe).train)


def test_on_batch(model: nn.Module, recipe: Recipe, samples: Samples) -> dict[str, float]:
    """Returns "loss" and each metric of all samples."""
    with mode(model, training=False):
        return _on_batch(recipe, samples, choose(model, recipe).test)


def predict(
    model: nn.Module, recipe: Recipe | None, feed: Feed, callbacks: CallbackList, verbose: Any
) -> Tensor:
    """Returns the model's output for everything, the model being in evaluation mode."""
    engine, outputs, batch = Engine(model, recipe, callbacks), [], 0
    looks_at_batches = callbacks.listens("on_predict_batch_begin", "on_predict_batch_end")
    callbacks.introduce(model, epochs=1, steps=feed.steps, verbose=verbose)
    callbacks("on_predict_begin", {})
    progress = Progress(engine, Tally([]), feed.steps, verbose=verbose)
    with mode(model, training=False), progress:
        progress.begin("Predict")  # and no end: the line goes when the work is done
        for run in progress.watched(feed.runs(one_by_one=looks_at_batches)):
            callbacks("on_predict_batch_begin", batch, {})
            began = perf_counter()
            outputs.append(engine.predict(run))
            callbacks("on_predict_batch_end", batch, {"outputs": outputs[-1]})
            feed.learn(run, perf_counter() - began)
            batch += 1
    callbacks("on_predict_end", {})
    return torch.cat(outputs) if outputs else run_once(model, feed.first.x)


def _on_batch(
    recipe: Recipe, samples: Samples, function: Callable[[Run], Result]
) -> dict[str, float]:
    """Tallies one run of one batch."""
    tally, run = Tally(recipe.metrics), Run(samples, len(samples), 0, len(samples))
    _count(run, function(run), tally)
    return tally.logs()


def _count(run: Run, result: Result, tally: Tally) -> None:
    """Adds a run to the means."""
    for numbers in Figures(tally.metrics, run, result).wait():
        tally.add(*numbers)
