"""The native engine: one call trains every layer on a run of batches, from forward to update."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchnn import ops
from torchnn._engine import graphs
from torchnn._engine.autograd import Result, never
from torchnn._engine.plan import DESCRIPTION, Plan, dropout_rate
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Run, Samples
from torchnn.losses._base import IGNORED
from torchnn.ops._transfer import float64, is_queued, to_device
from torchnn.optimizers._base import LearningRate, SlotOptimizer


class FusedEngine:
    """Trains a run of batches in one native call.

    Args:
        network: From plan.
        recipe: How to train it; without one, the engine only predicts.

    Attributes:
        steps_done: Batches trained or tested so far.
    """

    description = DESCRIPTION

    def __init__(self, network: Plan, recipe: Recipe | None) -> None:
        self._network = network
        self._counter = torch.zeros(1, dtype=torch.int64, device="cpu")
        self._seen: Samples | None = None
        self._versions: Any = None
        self._prepared: Any = None
        if recipe is not None:
            self._optimizer: Any = recipe.optimizer
            self._keeps_predictions = bool(recipe.metrics)
            self._trainer = graphs.Trainer()

    @property
    def steps_done(self) -> int:
        return int(self._counter)

    @property
    def is_queued(self) -> bool:
        """Whether train returns before its work is done."""
        return is_queued(self._network.layers[0].weight.device)

    def train(self, run: Run, says_stop: Callable[[], bool] = never) -> Result:
        """Takes one step for each batch of the run, or queues them, whoever says stop meanwhile."""
        network, optimizer = self._network, self._optimizer
        samples, first = self._prepare(run.samples), optimizer.iterations
        loss, rule = self._kernels(samples.y)
        with torch.no_grad():
            job = ops.Training(
                x=samples.x,
                y=samples.y,
                sample_weight=samples.weight,
                order=run.rows,
                epoch_size=len(run.samples),  # also for a part of one
                batch_size=run.batch_size,
                learning_rates=_rates(
                    optimizer.learning_rate, range(first, first + len(run)), samples.x.device
                ),
                loss=loss.name,
                update=rule.name,
                options={**rule.options, **loss.options},
                steps_before=first,
                activations=network.in_training,
                slopes=network.slopes,
                regularization=network.regularization,
                seeds=network.seeds(_seed(optimizer)),
                input_dropout=dropout_rate(network.input_dropout),
                input_seed=network.input_seed(_seed(optimizer)),
                weights=network.weights,
                biases=network.biases,
                slots=_slots(optimizer, network.layers),
                keep_predictions=self._keeps_predictions,
                steps_done=self._counter,
            )
            losses, outputs = self._trainer.train(job)
            optimizer.iterations += len(run)
        return Result(losses, network.predictions(outputs) if self._keeps_predictions else None)

    def test(self, run: Run) -> Result:
        """Measures each batch of the run, and changes nothing."""
        network, samples = self._network, run.samples  # type: Any, Any
        outputs = self._outputs(run, network.in_training)
        values = network.loss.per_sample(run.gather(samples.y), outputs)
        if samples.weight is not None:
            values = values * run.gather(samples.weight)
        losses = run.batches.reduce(values, torch.mean)
        if network.loss.ignores:
            counted = (network.loss.targets(run.gather(samples.y)) != IGNORED).to(values)
            losses /= run.batches.reduce(counted.reshape(len(values), -1)[:, 0], torch.mean).clamp(
                min=1e-9
            )
        if network.regularization:
            losses = losses + network.penalty
        self._counter += len(run)
        return Result(losses, network.predictions(outputs) if self._keeps_predictions else None)

    def predict(self, run: Run) -> Tensor:
        """Returns the model's output for the run, row by row."""
        network = self._network
        if network.is_fused:
            outputs = self._outputs(run, network.activations)
        else:
            outputs = network.predictions(self._outputs(run, network.in_training))
        self._counter += len(run)
        return outputs

    def _kernels(self, y: Tensor) -> tuple[ops.Kernel, ops.Kernel]:
        """Those of the loss, for such targets, and of the optimizer, by their present settings."""
        loss, rule = ops.kernel_of(self._network.loss), ops.kernel_of(self._optimizer)
        if loss is None or rule is None:  # plan has found them
            raise RuntimeError("the loss or the optimizer has become one that no kernel computes")
        if loss.name in ops.reference.TAKE_LABELS and y.shape[1] > 1:  # PyTorch's takes both
            loss = loss._replace(name=loss.name.removeprefix("sparse_"))
        return loss, rule

    def _prepare(self, samples: Samples) -> Any:
        """The samples as the kernels take them: made once, as long as they stay what they are."""
        versions = version(samples.x), version(samples.y)
        if samples is not self._seen or versions != self._versions:
            self._prepared = self._network.prepare(samples)
            self._seen, self._versions = samples, versions
        return self._prepared

    def _outputs(self, run: Run, activations: list[str]) -> Tensor:
        x, network = run.gather(self._prepare(run.samples).x), self._network
        return ops.predict(x, activations, network.weights, network.biases, network.slopes)


def _seed(optimizer: Any) -> int:
    """That of the run: also where an earlier one is gone on with."""
    seed = optimizer.place.seed
    return torch.initial_seed() if seed is None else seed


def version(tensor: Tensor | None) -> int:
    """Returns a number that grows whenever PyTorch writes into the tensor's memory."""
    return 0 if tensor is None or tensor.is_inference() else tensor._version


def _rates(rate: LearningRate, steps: range, device: torch.device) -> Tensor:
    """The learning rate of each step."""
    if callable(rate):
        return to_device(float64([float(rate(step)) for step in steps]), device)
    return torch.full((len(steps),), rate, dtype=torch.float64, device=device)


def _slots(optimizer: SlotOptimizer, layers: list[Any]) -> list[list[Tensor | None]]:
    """For each slot, the tensors of weight and bias of each layer in turn."""
    if not optimizer.slots:
        return []
    place = {id(p): i for i, p in enumerate(optimizer.parameters)}
    wanted = [p for layer in layers for p in (layer.weight, layer.bias)]
    return [
        [None if p is None else tensors[place[id(p)]] for p in wanted]
        for tensors in optimizer.slots.values()
    ]
