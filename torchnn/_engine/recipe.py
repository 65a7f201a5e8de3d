"""What compile settles: how a model is trained, and what is reported."""

from dataclasses import dataclass, field
from typing import Any

from torchnn import _checks, losses, metrics, optimizers
from torchnn.losses import Loss
from torchnn.metrics import Accumulator, Metric
from torchnn.optimizers import Optimizer

ENGINES = ("auto", "fused", "autograd")


@dataclass
class Recipe:
    """How a model is trained, and what is reported beside the loss."""

    optimizer: Optimizer
    loss: Loss
    metrics: list[Metric | Accumulator] = field(default_factory=list)
    engine: str = "auto"  # one of ENGINES
    # What the optimizer knows the model by: a copy of the model has a copy of it.
    owner: object = field(default_factory=object, compare=False, repr=False)


def settle(optimizer: Any, loss: Any, metrics: Any, engine: str = "auto") -> Recipe:
    """Returns names, functions and objects as a recipe.

    Raises:
        ValueError: An unknown name, no loss, a loss that is no number, or a name twice.
        TypeError: Something that is none of these.
    """
    engine = _checks.choice("engine", engine, ENGINES)
    return Recipe(optimizers.get(optimizer), _loss(loss), _metrics(metrics), engine)


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


def _metrics(values: Any) -> list[Metric | Accumulator]:
    if isinstance(values, str) or callable(values):
        values = [values]
    if not isinstance(values, (list, tuple, type(None))):
        raise TypeError(f"metrics must be a list, got {values!r}")
    found = [metrics.get(value) for value in values or ()]
    names = ["loss", *(metric.name for metric in found)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"metrics must have different names, not 'loss'; got {name!r} twice")
    return found
