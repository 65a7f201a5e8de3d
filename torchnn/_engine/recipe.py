"""What compile settles: how a model is trained, and what is reported."""

import copy
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from torchnn import _checks, _warnings, losses, metrics, optimizers
from torchnn.losses import Loss
from torchnn.metrics import Metric
from torchnn.optimizers import Optimizer

ENGINES = ("auto", "fused", "autograd")


@dataclass
class Recipe:
    """How a model is trained, and what is reported beside the loss."""

    optimizer: Optimizer
    loss: Loss
    metrics: list[Metric] = field(default_factory=list)
    engine: str = "auto"  # one of ENGINES
    is_checked: bool = field(default=False, compare=False, repr=False)  # against the layers
    given: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # to compile
    is_to_tell: bool = False  # nobody chose the optimizer, and nobody has been told which it is
    is_frozen: bool = field(default=False, compare=False, repr=False)  # nothing was to be trained
    # What the optimizer knows the model by: a copy of the model has a copy of it.
    owner: object = field(default_factory=object, compare=False, repr=False)
    # For a kind of engine and a batch size, how many batches are trained in a run: the next fit
    # need not find out again.
    paces: dict[str, dict[int, int]] = field(default_factory=dict, compare=False, repr=False)

    # What train_on_batch need not rehearse again: axes of samples, and parts of the model.
    rehearsed: set[Any] = field(default_factory=set, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # It may be another machine that reads it.
        return vars(self) | {"paces": {}, "rehearsed": set()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({"paces": {}, "rehearsed": set()} | state)


def settle(
    optimizer: Any, loss: Any, metrics: Any, engine: str = "auto", weighted_metrics: Any = None
) -> Recipe:
    """Returns names, functions and objects as a recipe; of no optimizer, gradient descent.

    Raises:
        ValueError: An unknown name, no loss, a loss that is no number, or a name twice.
        TypeError: Something that is none of these.
    """
    engine = _checks.choice("engine", engine, ENGINES)
    chosen, loss = optimizers.get("sgd" if optimizer is None else optimizer), _loss(loss)
    measured = _all_metrics(metrics, weighted_metrics, loss)
    return Recipe(chosen, loss, measured, engine, is_to_tell=optimizer is None)


def _loss(value: Any) -> Loss:
    if value is None:
        names = ", ".join(losses.NAMES)
        raise ValueError(
            f"loss must be given, as a name or an object, got None. Known: {names}. "
            "(PyTorch's compiler is torch.compile(model).)"
        )
    loss = losses.get(value)
    if loss.reduction == "none":
        raise ValueError('loss must reduce to one number to train on, got reduction="none"')
    return loss


def _all_metrics(plain: Any, weighted: Any, loss: Loss) -> list[Metric]:
    """Both kinds, each under a name of its own.

    Raises:
        ValueError: A name twice.
        TypeError: Something that is no metric, or one that takes no weights among the weighted.
    """
    found = _metrics("metrics", plain, loss)
    taken = {metric.name for metric in found}
    for metric in _metrics("weighted_metrics", weighted, loss):
        if not metric.takes_weights:
            raise TypeError(f"{metric.name} takes no weights: give it among metrics")
        metric = copy.copy(metric)
        metric.is_weighted = True
        if metric.name in taken:
            metric.name = f"weighted_{metric.name}"
        found.append(metric)
    names = ["loss", *(metric.name for metric in found)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"metrics must have different names, not 'loss'; got {name!r} twice")
    return found


def _metrics(argument: str, values: Any, loss: Loss) -> list[Metric]:
    """The metrics of a list; of those that nobody named, the second of a kind gets a number."""
    if isinstance(values, str) or callable(values):
        values = [values]
    if not isinstance(values, (list, tuple, type(None))):
        raise TypeError(f"{argument} must be a list, got {values!r}")
    found: list[Metric] = []
    for value in values or ():
        metric = metrics.get(value, loss)
        if isinstance(metric, metrics.Mean) and not isinstance(metric, metrics.MeanMetric):
            raise TypeError(f"{metric.name} is of values that you give it, not of predictions")
        if isinstance(metric, metrics.Accuracy):
            _warnings.warn(
                "Accuracy() counts predictions that equal the target exactly, which outputs of a "
                'model hardly do: the name "accuracy" goes by the loss'
            )
        found.append(_numbered(metric, {each.name for each in found}))
    return found


def _numbered(metric: Metric, taken: set[str]) -> Metric:
    """The metric, or a copy with a number to its name if nobody gave it that and it is taken."""
    if metric.name not in taken or not metric.has_automatic_name:
        return metric
    other = copy.copy(metric)
    other.name = next(name for i in count(1) if (name := f"{metric.name}_{i}") not in taken)
    return other
