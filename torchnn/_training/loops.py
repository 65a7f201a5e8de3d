"""The loops that do not fit: evaluate and predict, run after run, and those of one batch."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from torch import Tensor, nn

from torchnn._console.progress import Progress
from torchnn._engine.autograd import Result
from torchnn._engine.building import mode, run_once
from torchnn._engine.choice import Chosen, Engine, build_optimizer, choose
from torchnn._engine.interrupts import HeldInterrupt
from torchnn._engine.parts import cat, taken
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Run, Samples
from torchnn._training.batches import Feed
from torchnn._training.tally import Figures, Tally
from torchnn._training.turns import check_free
from torchnn.callbacks._base import CallbackList


def measure(
    model: nn.Module,
    engine: Engine,
    feed: Feed,
    tally: Tally,
    callbacks: CallbackList,
    progress: Progress,
) -> dict[str, float]:
    """Returns the loss and the metrics of everything, by the model as it is in evaluation mode."""
    looks_at_batches = callbacks.listens("on_test_batch_begin", "on_test_batch_end")
    callbacks("on_test_begin", {})
    tally.reset()
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
    engine, tally = Engine(model, recipe, feed.first, callbacks), Tally(recipe.metrics)
    callbacks.introduce(model, epochs=1, steps=feed.steps, verbose=verbose)
    with Progress(engine, tally, feed.steps, verbose=verbose) as progress:
        progress.begin("Evaluate")
        logs = measure(model, engine, feed, tally, callbacks, progress)
        progress.end(logs)
    return logs


def train_on_batch(model: nn.Module, recipe: Recipe, samples: Samples) -> dict[str, float]:
    """Takes one step on all samples; returns "loss" and each metric from before it.

    Raises:
        RuntimeError: fit is at work on the model in another thread.
    """
    check_free(model)
    build_optimizer(model, recipe)
    with mode(model, training=True), HeldInterrupt():
        return _on_batch(recipe, samples, _choose(model, recipe, samples).train)


def test_on_batch(model: nn.Module, recipe: Recipe, samples: Samples) -> dict[str, float]:
    """Returns "loss" and each metric of all samples."""
    return _on_batch(recipe, samples, _choose(model, recipe, samples).test)


def predict(
    model: nn.Module,
    recipe: Recipe | None,
    feed: Feed,
    callbacks: CallbackList,
    verbose: Any,
    chosen: Chosen,
) -> Tensor:
    """Returns the model's output for everything, the model being in evaluation mode."""
    engine, outputs, batch = Engine(model, recipe, feed.first, callbacks, chosen), [], 0
    looks_at_batches = callbacks.listens("on_predict_batch_begin", "on_predict_batch_end")
    callbacks.introduce(model, epochs=1, steps=feed.steps, verbose=verbose)
    callbacks("on_predict_begin", {})
    progress = Progress(engine, Tally([]), feed.steps, verbose=verbose)
    with progress:
        progress.begin("Predict")  # and no end: the line goes when the work is done
        for run in progress.watched(feed.runs(one_by_one=looks_at_batches)):
            callbacks("on_predict_batch_begin", batch, {})
            began = perf_counter()
            outputs.append(engine.predict(run))
            callbacks("on_predict_batch_end", batch, {"outputs": taken(outputs[-1])})
            feed.learn(run, perf_counter() - began)
            batch += 1
    callbacks("on_predict_end", {})
    if len(outputs) == 1:
        return outputs[0]
    return cat(outputs) if outputs else run_once(model, feed.first.x)


def _choose(model: nn.Module, recipe: Recipe, samples: Samples) -> Any:
    return choose(model, recipe, tuple(samples.x.shape[1:]))


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
