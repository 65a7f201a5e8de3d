"""The native engine: forward, loss, backward and update of every layer, one call a run of batches.

`plan` reads a model onto the kernels of csrc/train.h, or says in one sentence why it cannot.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchnn import graphs, ops
from torchnn.autograd import Result, has_hooks, has_own_forward
from torchnn.batches import Run
from torchnn.building import is_built
from torchnn.data import Samples
from torchnn.interrupts import HeldInterrupt
from torchnn.layers import Activation, Dense, Flatten, Normalization, Rescaling
from torchnn.losses import BinaryCrossentropy, Loss, MeanSquaredError
from torchnn.optimizer import LearningRate, SlotOptimizer
from torchnn.optimizers import SGD, Adam
from torchnn.recipe import Recipe
from torchnn.transfer import is_queued, to_device

# What may stand in front of the dense layers: it learns nothing and takes each sample by itself, so
# it is applied to all data once.
FRONT = (Flatten, Normalization, Rescaling, nn.Flatten, nn.Identity)
TORCH_ACTIVATIONS = {nn.Sigmoid: "sigmoid", nn.ReLU: "relu", nn.Tanh: "tanh"}
# All that the kernels stand in for.
KNOWN = (*FRONT, Dense, nn.Linear, Activation, *TORCH_ACTIVATIONS)


class NotFusedError(Exception):
    """The sentence that says why the kernels cannot train a model."""


@dataclass
class Plan:
    """A model as the kernels see it.

    Attributes:
        front: Layers to apply to the data once.
        layers: Modules with a weight and a bias, in order.
        activations: The fused activation of each.
        loss: The loss of what comes out in training; None for a plan that only predicts.
        takes_sigmoid: The last sigmoid has gone into that loss, as autograd would have it too.
    """

    front: list[nn.Module]
    layers: list[Any]
    activations: list[str]
    loss: Loss | None = None
    takes_sigmoid: bool = False

    @property
    def in_training(self) -> list[str]:
        """The activations in training."""
        return [*self.activations[:-1], "identity"] if self.takes_sigmoid else self.activations

    @property
    def weights(self) -> list[Tensor]:
        return [layer.weight.detach() for layer in self.layers]

    @property
    def biases(self) -> list[Tensor | None]:
        return [None if layer.bias is None else layer.bias.detach() for layer in self.layers]

    def predictions(self, outputs: Tensor) -> Tensor:
        """Makes predictions of what comes out in training."""
        return torch.sigmoid(outputs) if self.takes_sigmoid else outputs

    def prepare(self, samples: Samples) -> Samples:
        """Returns samples as the kernels take them: x (N, in_features) and y (N, units)."""
        x, y = samples.x, samples.y
        with torch.no_grad():
            for layer in self.front:
                x = layer(x)
            if y is not None:
                y = y.reshape(len(x), -1).contiguous()
                smoothing = getattr(self.loss, "label_smoothing", 0.0)
                y = y * (1 - smoothing) + smoothing / 2 if smoothing else y
        return Samples(x.contiguous(), y, samples.weight)


class FusedEngine:
    """Trains a run of batches in one native call.

    Args:
        network: From plan.
        recipe: How to train it; without one, the engine only predicts.

    Attributes:
        steps_done: Batches trained or tested so far.
    """

    description = "fused (whole epochs in one native call)"

    def __init__(self, network: Plan, recipe: Recipe | None) -> None:
        self._network = network
        self._counter = torch.zeros(1, dtype=torch.int64)
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

    def train(self, run: Run) -> Result:
        """Takes one step for each batch of the run, or queues them; Ctrl-C waits until it has."""
        network, optimizer = self._network, self._optimizer
        samples = self._prepare(run.samples)
        first = optimizer.iterations
        with HeldInterrupt(), torch.no_grad():
            losses, outputs = self._trainer.train_(
                x=samples.x,
                y=samples.y,
                sample_weight=samples.weight,
                order=run.rows,
                epoch_size=run.epoch_size,
                batch_size=run.batch_size,
                learning_rates=_rates(
                    optimizer.learning_rate, range(first, first + len(run)), samples.x.device
                ),
                loss=_kernel_loss(network.loss),
                update=_kernel_update(optimizer),
                options=_options(optimizer),
                steps_before=first,
                activations=network.in_training,
                weights=network.weights,
                biases=network.biases,
                slots=_slots(optimizer, network.layers),
                keep_predictions=self._keeps_predictions,
                steps_done=self._counter,
            )
            optimizer.iterations += len(run)
        return Result(losses, network.predictions(outputs) if self._keeps_predictions else None)

    def test(self, run: Run) -> Result:
        """Measures each batch of the run, and changes nothing."""
        network, samples = self._network, run.samples  # type: Any, Any
        outputs = self._outputs(run, network.in_training)
        values = network.loss.per_sample(run.gather(samples.y), outputs)
        if samples.weight is not None:
            values = values * run.gather(samples.weight)
        whole = len(values) // run.batch_size * run.batch_size
        losses = values[:whole].reshape(-1, run.batch_size).mean(1)
        if whole < len(values):
            losses = torch.cat([losses, values[whole:].mean(0, keepdim=True)])
        self._counter += len(run)
        return Result(losses, network.predictions(outputs) if self._keeps_predictions else None)

    def predict(self, run: Run) -> Tensor:
        """Returns the model's output for the run, row by row."""
        outputs = self._outputs(run, self._network.activations)
        self._counter += len(run)
        return outputs

    def _prepare(self, samples: Samples) -> Any:
        """The samples as the kernels take them: made once, as long as they stay what they are."""
        versions = version(samples.x), version(samples.y)
        if samples is not self._seen or versions != self._versions:
            self._prepared = self._network.prepare(samples)
            self._seen, self._versions = samples, versions
        return self._prepared

    def _outputs(self, run: Run, activations: list[str]) -> Tensor:
        x = run.gather(self._prepare(run.samples).x)
        with torch.no_grad():
            return ops.predict(x, activations, self._network.weights, self._network.biases)


def version(tensor: Tensor | None) -> int:
    """Returns a number that grows whenever PyTorch writes into the tensor's memory."""
    return 0 if tensor is None or tensor.is_inference() else tensor._version


def plan(model: nn.Module, recipe: Recipe | None) -> Plan:
    """Returns the model as the kernels see it.

    Raises:
        NotFusedError: They cannot train it; the message is half a sentence that says why.
    """
    if (
        not isinstance(model, nn.Sequential)
        or type(model).forward is not nn.Sequential.forward
        or has_own_forward(model)
    ):
        raise NotFusedError(f"{type(model).__name__} has a forward of its own")
    if has_hooks(model):
        raise NotFusedError("the model has hooks")
    front, layers, activations = _read(model)
    network = Plan(front, layers, activations)
    _check_parameters(model, network)
    _check_samples(front, getattr(model, "sample_shape", None))
    if recipe is not None:
        _read_loss(network, recipe.loss)
        _check_optimizer(recipe.optimizer)
    return network


def describe(network: Plan) -> str:
    """Returns one line on how the engine trains a network, and why in that way."""
    layers = network.layers
    if layers[0].weight.device.type != "cuda" or not all(map(is_built, layers)):
        return FusedEngine.description
    weights = network.weights
    widths = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    return describe_on_cuda(widths, weights[0].dtype, *ops.cuda_limits(weights[0].device))


def describe_on_cuda(
    widths: list[int], dtype: torch.dtype, shared_bytes: int, blocks: int = 1
) -> str:
    """The same for a network on CUDA, given the memory that a block of threads may share, and how
    many of them may work together."""
    plan = ops.cuda_plan(widths, dtype, 1, shared_bytes, blocks)
    of = f"of {shared_bytes / 1024:,.0f} KB of shared memory"
    if not plan.rows:
        wanted = f"{plan.size / 1024:,.0f}" if plan.size else "far more"
        return (
            f"fused (layer by layer in CUDA graphs, since one launch of many steps would take "
            f"{wanted} {of})"
        )
    batch_size, most_rows = min(32, plan.most_rows), plan.most_rows
    plan = ops.cuda_plan(widths, dtype, batch_size, shared_bytes, blocks)
    on = f" on {plan.blocks} multiprocessors" if plan.blocks > 1 else ""
    each = " each" if plan.blocks > 1 else ""
    return (
        f"fused (many steps in one launch{on}: with batch_size={batch_size} the network takes "
        f"{plan.size / 1024:,.0f} {of}{each}; layer by layer in CUDA graphs above "
        f"batch_size={most_rows})"
    )


def _read(model: nn.Sequential) -> tuple[list[nn.Module], list[Any], list[str]]:
    """Sorts the layers into those in front, dense ones and their activations."""
    front: list[nn.Module] = []
    layers: list[Any] = []
    activations: list[str] = []
    for index, layer in enumerate(model):
        called = f"layer {index + 1} is a {type(layer).__name__}"
        if has_hooks(layer):
            raise NotFusedError(f"{called} with hooks")
        if has_own_forward(layer):
            raise NotFusedError(f"{called} with a forward of its own")
        if type(layer) in (Dense, nn.Linear):
            layers.append(layer)
            activations.append(_fused(getattr(layer, "activation", "identity"), called))
        elif type(layer) in FRONT and not layers:
            front.append(layer)
        elif activations and activations[-1] == "identity" and _is_activation(layer):
            activations[-1] = _activation(layer, called)
        else:
            raise NotFusedError(f"{called}, which the fused kernels do not know at that place")
    if not layers:
        raise NotFusedError("the model has no dense layer")
    return front, layers, activations


def _is_activation(layer: nn.Module) -> bool:
    return type(layer) is Activation or type(layer) in TORCH_ACTIVATIONS


def _activation(layer: Any, called: str) -> str:
    name = layer.activation if type(layer) is Activation else TORCH_ACTIVATIONS[type(layer)]
    return _fused(name, called)


def _fused(activation: Any, called: str) -> str:
    if not isinstance(activation, str) or activation not in ops.activations():
        label = activation if isinstance(activation, str) else "a function"
        raise NotFusedError(f"{called} with the activation {label}, which is not a fused one")
    return activation


def _check_parameters(model: nn.Module, network: Plan) -> None:
    own = [p for layer in network.layers for p in (layer.weight, layer.bias) if p is not None]
    if len({id(p) for p in own}) < len(own):
        raise NotFusedError("layers share parameters")
    if {id(p) for p in model.parameters()} != {id(p) for p in own}:
        raise NotFusedError("it has parameters outside its dense layers")
    for p in own:
        if not p.requires_grad:
            raise NotFusedError("a parameter is frozen (requires_grad is False)")
        if not ops.trains_on(p.device):
            raise NotFusedError(f"the model is on {p.device}")
        if p.device != own[0].device:
            raise NotFusedError(f"the model is on {own[0].device} and on {p.device}")
        if p.dtype not in (torch.float32, torch.float64) or p.dtype != own[0].dtype:
            raise NotFusedError(f"a parameter is of {p.dtype}")
        if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None):
            raise NotFusedError("a parameter has hooks")
        if not is_lazy(p) and not p.is_contiguous():
            raise NotFusedError("a parameter is not contiguous")


def _check_samples(front: list[nn.Module], shape: tuple[int, ...] | None) -> None:
    """Raises if samples of that shape, None if unknown, do not reach the dense layers as rows."""
    if shape is None or len(shape) == 1:
        return
    x = torch.empty(1, *shape, device="meta")
    for layer in front:
        x = x.flatten(1) if isinstance(layer, Flatten) else x
        x = layer(x) if isinstance(layer, nn.Flatten) else x
    if x.ndim != 2:
        raise NotFusedError(f"its samples have {x.ndim - 1} axes, not one")


def _read_loss(network: Plan, loss: Loss) -> None:
    """Finds the kernels' loss: of the output, or of what goes into its sigmoid."""
    if loss.reduction != "sum_over_batch_size":
        raise NotFusedError(f"the loss has the reduction {loss.reduction}")
    network.loss = loss
    if type(loss) is BinaryCrossentropy and loss.axis in (-1, 1):
        if not loss.from_logits:
            if network.activations[-1] != "sigmoid":
                raise NotFusedError("BinaryCrossentropy needs a sigmoid output or from_logits here")
            network.loss, network.takes_sigmoid = loss.on_logits(), True
    elif type(loss) is not MeanSquaredError:
        raise NotFusedError(f"the loss {loss.name} is not one of the kernels")


def _check_optimizer(optimizer: Any) -> None:
    if type(optimizer) not in (SGD, Adam):
        raise NotFusedError(f"the optimizer {type(optimizer).__name__} is not one of the kernels")


def _kernel_loss(loss: Loss | None) -> str:
    if isinstance(loss, BinaryCrossentropy):
        return "binary_crossentropy_from_logits"
    return "mean_squared_error"


def _kernel_update(optimizer: SGD | Adam) -> str:
    if isinstance(optimizer, Adam):
        return "adam"
    if not optimizer.momentum:
        return "gradient_descent"
    return "nesterov" if optimizer.nesterov else "momentum"


def _options(optimizer: Any) -> dict[str, float]:
    names = ("momentum", "beta_1", "beta_2", "epsilon", "weight_decay")
    return {name: getattr(optimizer, name, 0.0) for name in names}


def _rates(rate: LearningRate, steps: range, device: torch.device) -> Tensor:
    """The learning rate of each step."""
    if callable(rate):
        rates = torch.tensor([float(rate(step)) for step in steps], dtype=torch.float64)
        return to_device(rates, device)
    return torch.full((len(steps),), rate, dtype=torch.float64, device=device)


def _slots(optimizer: SlotOptimizer, layers: list[Any]) -> list[list[Tensor | None]]:
    """For each slot, the tensors of weight and bias of each layer in turn."""
    place = {id(p): i for i, p in enumerate(optimizer.parameters)}
    wanted = [p for layer in layers for p in (layer.weight, layer.bias)]
    return [
        [None if p is None else tensors[place[id(p)]] for p in wanted]
        for tensors in optimizer.slots.values()
    ]
