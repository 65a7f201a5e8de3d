"""The native engine: one call trains every layer on a run of batches, from forward to update."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchnn import ops, regularizers
from torchnn._engine import graphs
from torchnn._engine.ahead import MOST_BYTES, MOST_SHARED, Ahead, Guard, shared
from torchnn._engine.autograd import Result, never
from torchnn._engine.plan import DESCRIPTION, Plan, dropout_rate
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Run, Samples
from torchnn._engine.watch import Watch, version
from torchnn.losses._base import IGNORED
from torchnn.ops._transfer import float64, is_queued, to_device
from torchnn.optimizers import schedules
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
        self._prepared: list[tuple[Samples, Any, Any]] = []
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
        with torch.no_grad():
            result = self._result(self._trainer.train(self._job(run)))
            self._optimizer.iterations += len(run)
        return result

    def most_ahead(self, samples: Samples, others: Sequence[Samples], access: str) -> int:
        """Returns how many epochs of the samples it can train ahead, the others being what else the
        model is to be measured on then; access is what is done with it, as of a callback."""
        every = [samples, *others]
        shared_bytes = sum(t.nbytes for t in self._shared(every, access))
        if self.is_queued or shared_bytes > MOST_SHARED or not _is_pure(self._optimizer):
            return 0
        layers = self._network.layers
        units, size = layers[-1].weight.shape[0], layers[0].weight.element_size()
        state = (1 + len(self._optimizer.slots)) * sum(p.nbytes for p in self._optimizer.parameters)
        return int(MOST_BYTES // (state + units * size * sum(map(len, every))))

    def ahead(self, run: Run, others: Sequence[Samples], access: str, watch: Watch | None) -> Ahead:
        """Trains the whole epochs of a run, and keeps the state after each."""
        network, optimizer = self._network, self._optimizer
        with torch.no_grad():
            job = self._job(run)
            state = network.parameters, *job.slots
            job = replace(job, snapshots=[_room(run.epochs, each) for each in state])
            result = self._result(self._trainer.train(job))
        guard = self._guard([run.samples, *others], access, watch)
        return Ahead(result, job, optimizer, guard, is_read=access != "none")

    def _guard(self, every: list[Samples], access: str, watch: Watch | None) -> Guard:
        """On all that goes into a job and the measurements after it."""
        optimizer, network = self._optimizer, self._network
        penalties = [regularizer for regularizer, _ in network.regulated(network.parameters)]
        behind_a_front = [each.x for each in every if network.front]  # not read as they are

        def numbers() -> list[Any]:
            versions = [*map(version, behind_a_front)]
            rate = repr(optimizer.learning_rate) if callable(optimizer.learning_rate) else None
            return [[(r.l1, r.l2) for r in penalties], seed_of(optimizer), versions, rate]

        own = watch if access == "write" else None
        return Guard(optimizer, own, numbers, self._shared(every, access))

    def _shared(self, every: list[Samples], access: str) -> list[Tensor]:
        """What whoever has such access may write into."""
        if access != "write":
            return []
        return [t for each in every for t in shared(each, self._prepare(each))]

    def _job(self, run: Run) -> ops.Training:
        """The arguments of a call that trains a run."""
        network, optimizer = self._network, self._optimizer
        samples, first = self._prepare(run.samples), optimizer.iterations
        loss, rule = self._kernels(samples.y)
        return ops.Training(
            x=samples.x,
            y=samples.y,
            sample_weight=samples.weight,
            order=run.rows,
            epoch_size=len(run.samples),  # also for a part of one
            batch_size=run.batch_size,
            learning_rates=rates_of(
                optimizer.learning_rate, range(first, first + len(run)), samples.x.device
            ),
            loss=loss.name,
            update=rule.name,
            options={**rule.options, **loss.options},
            steps_before=first,
            activations=network.in_training,
            slopes=network.slopes,
            regularization=network.regularization,
            seeds=network.seeds(seed_of(optimizer)),
            input_dropout=dropout_rate(network.input_dropout),
            input_seed=network.input_seed(seed_of(optimizer)),
            weights=network.weights,
            biases=network.biases,
            slots=slots_of(optimizer, network.parameters),
            keep_predictions=self._keeps_predictions,
            steps_done=self._counter,
        )

    def _result(self, results: tuple[Tensor, Tensor]) -> Result:
        losses, outputs = results
        own = self._network.predictions(outputs) if self._keeps_predictions else None
        return Result(losses, own)

    def test(self, run: Run) -> Result:
        """Measures each batch of the run, and changes nothing."""
        network = self._network
        outputs = self._outputs(run, network.in_training)
        regulated = network.regulated(network.parameters)
        penalty = regularizers.total(regulated) if regulated else None
        result = self._measured(run, outputs, penalty)
        self._counter += len(run)
        return result

    def test_ahead(self, run: Run, ahead: Ahead, epochs: list[int]) -> Result:
        """Measures a run of as many epochs as are given here, each by the state after that one."""
        network, x, penalty = self._network, self._prepare(run.samples).x, None
        are_all = len(epochs) == ahead.epochs
        weights, biases = (
            [each if are_all or each is None else each[epochs] for each in of]
            for of in (ahead.weights, ahead.biases)
        )
        with torch.no_grad():
            outputs = ops.predict(x, network.in_training, weights, biases, network.slopes)
            pairs = [p for pair in zip(weights, biases, strict=True) for p in pair]
            regulated = [network.regulated(_of(i, pairs)) for i in range(len(epochs))]
            if any(regulated):
                penalties = torch.stack([regularizers.total(each) for each in regulated])
                penalty = penalties.repeat_interleave(len(run) // run.epochs)
            return self._measured(run, outputs.flatten(0, 1), penalty)

    def _measured(self, run: Run, outputs: Tensor, penalty: Tensor | None) -> Result:
        """What outputs come to: the loss of each batch, with its penalty, and predictions."""
        network, samples = self._network, run.samples  # type: Any, Any
        values = network.loss.per_sample(run.gather(samples.y), outputs)
        if samples.weight is not None:
            values = values * run.gather(samples.weight)
        losses = run.batches.reduce(values, torch.mean)
        if network.loss.ignores:
            counted = (network.loss.targets(run.gather(samples.y)) != IGNORED).to(values)
            losses /= run.batches.reduce(counted.reshape(len(values), -1)[:, 0], torch.mean).clamp(
                min=1e-9
            )
        return self._result((losses if penalty is None else losses + penalty, outputs))

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
        for seen, then, prepared in self._prepared:
            if seen is samples and then == versions:
                return prepared
        prepared = self._network.prepare(samples)
        # Those that it trains on, and those that it validates on.
        self._prepared = [*self._prepared[-1:], (samples, versions, prepared)]
        return prepared

    def _outputs(self, run: Run, activations: list[str]) -> Tensor:
        x, network = run.gather(self._prepare(run.samples).x), self._network
        return ops.predict(x, activations, network.weights, network.biases, network.slopes)


def seed_of(optimizer: Any) -> int:
    """That of the run: also where an earlier one is gone on with."""
    seed = optimizer.place.seed
    return torch.initial_seed() if seed is None else seed


def rates_of(rate: LearningRate, steps: range, device: torch.device) -> Tensor:
    """The learning rate of each step."""
    if callable(rate):
        return to_device(float64([float(rate(step)) for step in steps]), device)
    return torch.full((len(steps),), rate, dtype=torch.float64, device=device)


def _is_pure(optimizer: Any) -> bool:
    """Whether learning rates follow from the step alone, as nobody knows of others' functions."""
    rate = optimizer.learning_rate
    return not callable(rate) or type(rate).__module__ == schedules.__name__


def _room(epochs: int, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Memory for tensors as they are after each of so many epochs."""
    return [None if t is None else t.new_empty(epochs, *t.shape) for t in tensors]


def _of(epoch: int, tensors: Sequence[Tensor | None]) -> list[Any]:
    return [None if t is None else t[epoch] for t in tensors]


def slots_of(
    optimizer: SlotOptimizer, parameters: list[Tensor | None]
) -> list[list[Tensor | None]]:
    """For each slot, the tensors of these parameters."""
    if not optimizer.slots:
        return []
    place = {id(p): i for i, p in enumerate(optimizer.parameters)}
    return [
        [None if p is None else tensors[place[id(p)]] for p in parameters]
        for tensors in optimizer.slots.values()
    ]
