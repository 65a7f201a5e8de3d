"""Losses and metrics of models with several outputs: each is of one of them."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchnn import _checks, optimizers
from torchnn._engine.parts import Parts
from torchnn._engine.recipe import Recipe, settle
from torchnn.losses import Loss
from torchnn.metrics import Mean
from torchnn.metrics._base import Summed


class SeveralLosses(Loss):
    """The sum of a loss for each output, times its weight.

    Args:
        outputs: The outputs' names.
        losses: Their losses.
        weights: How much each counts.
    """

    def __init__(
        self, outputs: Sequence[str], losses: Sequence[Loss], weights: Sequence[float]
    ) -> None:
        super().__init__(name="loss of several outputs")
        self.outputs, self.losses, self.weights = list(outputs), list(losses), list(weights)
        self.takes_labels = any(loss.takes_labels for loss in losses)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Returns the sum for a batch, a scalar."""
        if not isinstance(y_pred, Parts) or len(y_pred.tensors) != len(self.outputs):
            got = len(y_pred.tensors) if isinstance(y_pred, Parts) else 1
            raise ValueError(f"the model must return {len(self.outputs)} outputs, got {got}")
        total: Any = 0
        for i, (name, loss) in enumerate(zip(self.outputs, self.losses, strict=True)):
            target, output = y_true.part(i, name), y_pred.part(i, name)
            weight = sample_weight
            if isinstance(weight, Parts):
                weight = weight.part(i, name)
            try:
                total = total + self.weights[i] * loss(target, output, weight)
            except _checks.ShapeError as error:
                raise ValueError(f"y of the output {name!r} does not fit it: {error}") from error
        return total

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        raise NotImplementedError("losses of several outputs are computed batch by batch")

    def check_targets(self, y_true: Any) -> None:
        for i, (name, loss) in enumerate(zip(self.outputs, self.losses, strict=True)):
            try:
                loss.check_targets(y_true.part(i, name))
            except ValueError as error:
                raise ValueError(f"the output {name!r}: {error}") from error

    def check_labels(self, y_true: Any, axes: tuple[Any, ...]) -> None:
        for i, (name, loss) in enumerate(zip(self.outputs, self.losses, strict=True)):
            if loss.takes_labels:
                loss.check_labels(y_true.part(i, name), axes[i])


class OutputLoss(Mean):
    """The loss of one output, without its weight among the outputs, but with those of samples."""

    is_weighted = True

    def __init__(self, output: int, name: str, loss: Loss) -> None:
        super().__init__(f"{name}_loss")
        self.output, self.output_name, self.loss = output, name, loss

    def sums(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, batches: Any
    ) -> list[Tensor]:
        sizes = batches.sizes
        weights = [None] * len(sizes) if sample_weight is None else sample_weight.split(sizes)
        each = zip(y_true.split(sizes), y_pred.split(sizes), weights, sizes, strict=True)
        return [torch.stack([self.loss(y, p, w).double() * size for y, p, w, size in each])]

    update_state = Summed.update_state  # type: ignore[assignment]


def settle_several(
    outputs: Sequence[str],
    optimizer: Any,
    loss: Any,
    metrics: Any,
    engine: str,
    weighted_metrics: Any = None,
    loss_weights: Any = None,
) -> Recipe:
    """Returns how to train a model with several outputs.

    Args:
        outputs: Their names.
        optimizer: As in settle.
        loss: One for all outputs, or one for each, in a list or in a dict.
        metrics: For each output, one or a list of them, in a list or in a dict.
        engine: As in settle.
        weighted_metrics: As metrics.
        loss_weights: A number for each output, in a list or in a dict; None for ones.

    Raises:
        ValueError: A list or a dict does not go with the outputs, or whatever settle raises.
    """
    is_one = not isinstance(loss, (list, tuple, Mapping))
    losses = [loss] * len(outputs) if is_one else of_each("loss", loss, outputs)
    given = of_each("metrics", metrics, outputs, may_lack=True)
    weighted = of_each("weighted_metrics", weighted_metrics, outputs, may_lack=True)
    weights = of_each("loss_weights", loss_weights, outputs, may_lack=True)
    each = [
        settle("sgd", own, plain, engine, more)
        for own, plain, more in zip(losses, given, weighted, strict=True)
    ]
    found: list[Any] = [
        OutputLoss(i, name, recipe.loss)
        for i, (name, recipe) in enumerate(zip(outputs, each, strict=True))
    ]
    for i, (name, recipe) in enumerate(zip(outputs, each, strict=True)):
        found += [_of_output(metric, i, name) for metric in recipe.metrics]
    numbers = [1.0 if w is None else _checks.number("loss_weights", w) for w in weights]
    whole = SeveralLosses(outputs, [recipe.loss for recipe in each], numbers)
    chosen = optimizers.get("sgd" if optimizer is None else optimizer)
    return Recipe(chosen, whole, found, engine, is_to_tell=optimizer is None)


def of_each(
    name: str,
    value: Any,
    outputs: Sequence[str],
    kind: str = "outputs",
    may_lack: bool = False,
) -> list[Any]:
    """What an argument says of each output, from a list or a dict.

    Args:
        name: What messages call the argument.
        value: The argument.
        outputs: The outputs' names.
        kind: Or what else these are the names of.
        may_lack: Whether nothing may be said of an output; then it is None.
    """
    if value is None and may_lack:
        return [None] * len(outputs)
    names = ", ".join(outputs)
    if isinstance(value, Mapping):
        unknown = [str(key) for key in value if key not in outputs]
        if unknown or (not may_lack and len(value) < len(outputs)):
            got = ", ".join(map(str, value))
            raise ValueError(f"{name} must be a dict of the {kind} {names}, got {got}")
        return [value.get(output) for output in outputs]
    if not isinstance(value, (list, tuple)) or len(value) != len(outputs):
        got = f"{len(value)} items" if isinstance(value, (list, tuple)) else type(value).__name__
        raise ValueError(
            f"{name} must be a list with one item, or a dict with one key, for each of the "
            f"{kind} {names}; got {got}"
        )
    return list(value)


def selected(metric: Any, *values: Any) -> list[Any]:
    """Of parts, the one that a metric is of; anything else as it is."""
    output = getattr(metric, "output", None)
    if output is None:
        return list(values)
    return [v.part(output, metric.output_name) if isinstance(v, Parts) else v for v in values]


def _of_output(metric: Any, output: int, name: str) -> Any:
    """A metric of one output, which is in its name."""
    bound = copy.copy(metric)
    bound.output, bound.output_name, bound.name = output, name, f"{name}_{metric.name}"
    return bound
