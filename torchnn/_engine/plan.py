"""Reads a model onto the kernels of csrc/train.h, or says in one sentence why it cannot."""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchnn import ops, regularizers
from torchnn._engine.autograd import has_hooks, has_own_forward, is_activation
from torchnn._engine.building import is_built
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Samples
from torchnn.activations import FUNCTIONS, TORCH_MODULES, USUAL_MODULES, name_of, sloped
from torchnn.layers import (
    ELU,
    Activation,
    Dense,
    Dropout,
    Flatten,
    LeakyReLU,
    Normalization,
    ReLU,
    Rescaling,
    Softmax,
)
from torchnn.layers._graph import has_graph
from torchnn.losses import Loss
from torchnn.ops._network import activate_, only_by_layers
from torchnn.optimizers import Optimizer

DESCRIPTION = "fused (whole epochs in one native call)"

# What may stand in front of the dense layers: it learns nothing and takes each sample by itself, so
# it is applied to all data once.
FLAT = (Flatten, nn.Flatten, nn.Identity)  # also behind what drops features
FRONT = (*FLAT, Normalization, Rescaling)
# All that the kernels stand in for.
KNOWN = (
    *(*FRONT, Dense, nn.Linear, Dropout, nn.Dropout),
    *(Activation, ELU, LeakyReLU, ReLU, Softmax),
    *(*TORCH_MODULES, *USUAL_MODULES, nn.LeakyReLU),
)


# Whose penalties the kernels know, and what a layer calls those, and what they do not know.
PENALTIES = (regularizers.L1, regularizers.L2, regularizers.L1L2)
REGULATED = ("kernel_regularizer", "bias_regularizer")
CONSTRAINED = ("kernel_constraint", "bias_constraint")


USUAL = -1.0  # slope


class NotFusedError(Exception):
    """The sentence that says why the kernels cannot train a model."""


@dataclass
class Plan:
    """A model as the kernels see it.

    Attributes:
        front: Layers to apply to the data once.
        layers: Modules with a weight and a bias, in order.
        activations: The activation of each, all of them fused ones but the last, if absorbed.
        slopes: Those of activations that have another than the usual one; -1 for the rest.
        input_dropout: What drops features in training, or None.
        dropouts: What drops outputs of each in training, or None.
        loss: The loss of what comes out in training; None for a plan that only predicts.
        absorbed: The last activation, if it has gone into that loss, as autograd would have it too.
    """

    front: list[nn.Module]
    layers: list[Any]
    activations: list[str]
    slopes: list[float] = field(default_factory=list)
    dropouts: list[Any] = field(default_factory=list)
    input_dropout: Any = None
    loss: Loss | None = None
    absorbed: str | None = None

    @property
    def in_training(self) -> list[str]:
        """The activations in training."""
        return [*self.activations[:-1], "identity"] if self.absorbed else self.activations

    @property
    def weights(self) -> list[Tensor]:
        return [layer.weight for layer in self.layers]

    @property
    def biases(self) -> list[Tensor | None]:
        return [layer.bias for layer in self.layers]

    @property
    def regularization(self) -> list[tuple[float, ...]]:
        """Of each layer l1 and l2 of its weight, those of its bias, and its dropout; nothing if all
        are 0."""
        rows: list[tuple[float, ...]] = [
            (*chain.from_iterable(_factors(layer, of) for of in REGULATED), dropout_rate(dropout))
            for layer, dropout in zip(self.layers, self.dropouts, strict=True)
        ]
        return rows if any(map(any, rows)) else []

    @property
    def parameters(self) -> list[Tensor | None]:
        """The weight and the bias of each layer in turn."""
        return [p for layer in self.layers for p in (layer.weight, layer.bias)]

    def regulated(self, parameters: Sequence[Tensor | None]) -> list[tuple[Any, Tensor]]:
        """The regularizers, each with what it is of among such parameters."""
        every = [getattr(layer, name, None) for layer in self.layers for name in REGULATED]
        return [
            (regularizer, p.t() if p.ndim == 2 else p)
            for regularizer, p in zip(every, parameters, strict=True)
            if regularizer is not None and p is not None
        ]

    def seeds(self, seed: int) -> list[int]:
        """Those of what each layer drops, from one for all of them, or their own."""
        return [_own_seed(dropout, seed + i) for i, dropout in enumerate(self.dropouts)]

    def input_seed(self, seed: int) -> int:
        """The same for the features."""
        return _own_seed(self.input_dropout, seed + len(self.dropouts))

    @property
    def is_fused(self) -> bool:
        """Whether the kernels compute the last activation, too."""
        return self.activations[-1] in ops.activations()

    def predictions(self, outputs: Tensor) -> Tensor:
        """Makes predictions of what comes out in training, in its place."""
        if self.absorbed in ops.activations() and outputs.is_cpu:
            return activate_(outputs, self.absorbed)
        return FUNCTIONS[self.absorbed](outputs) if self.absorbed else outputs

    def prepare(self, samples: Samples) -> Samples:
        """Returns samples as the kernels take them: x (N, in_features) and y (N, units)."""
        x, y = samples.x, samples.y
        with torch.no_grad():
            for layer in self.front:
                x = layer(x)
            if y is not None:
                y = y.reshape(len(x), -1)
                y = (self.loss.targets(y) if self.loss else y).to(x.dtype).contiguous()
        return Samples(x.contiguous(), y, samples.weight)


def plan(model: nn.Module, recipe: Recipe | None, shape: tuple[int, ...] | None = None) -> Plan:
    """Returns the model as the kernels see it.

    Args:
        model: The model.
        recipe: How to train it, or None.
        shape: The axes of a sample, or None.

    Raises:
        NotFusedError: They cannot train it; the message is half a sentence that says why.
    """
    chain = _chain(model)
    if chain is None and has_graph(model):
        raise NotFusedError("its graph is no chain of layers")
    if chain is None or has_own_forward(model):
        raise NotFusedError(f"{type(model).__name__} has a forward of its own")
    if has_hooks(model):
        raise NotFusedError("the model has hooks")
    network = _read(chain, _absorbable(recipe))
    _check_parameters(model, network)
    _check_samples(network.front, shape)
    if recipe is not None:
        _check_regulation(network)
        _read_loss(network, recipe.loss)
        _check_optimizer(recipe.optimizer)
    return network


def describe(network: Plan) -> str:
    """Returns one line on how the engine trains a network, and why in that way."""
    layers = network.layers
    if layers[0].weight.device.type != "cuda" or not all(map(is_built, layers)):
        return DESCRIPTION
    weights = network.weights
    widths = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    dropout = dropout_rate(network.input_dropout)
    reason = only_by_layers(network.in_training, network.regularization, input_dropout=dropout)
    return describe_on_cuda(widths, weights[0].dtype, *ops.cuda_limits(weights[0].device), reason)


def describe_on_cuda(
    widths: list[int],
    dtype: torch.dtype,
    shared_bytes: int,
    blocks: int = 1,
    reason: str | None = None,
) -> str:
    """The same for a network on CUDA, given the memory that a block of threads may share, how many
    of them may work together, and what only_by_layers says of the network."""
    if reason:
        return f"fused (layer by layer in CUDA graphs, since it has {reason})"
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


def _absorbable(recipe: Recipe | None) -> str | None:
    """The last activation that the kernels need not know, since it would go into the loss."""
    if recipe is None or recipe.loss.from_logits or recipe.loss.activation is None:
        return None
    is_kernel = ops.kernel_of(recipe.loss.on_logits()) is not None
    return recipe.loss.activation if is_kernel else None


def _read(model: Iterable[nn.Module], absorbable: str | None) -> Plan:
    """Sorts the layers into those in front, dense ones and their activations."""
    network = Plan([], [], [])
    known = {*ops.activations(), absorbable}
    for index, layer in enumerate(_flat(model)):
        called = f"layer {index + 1} is a {type(layer).__name__}"
        if has_hooks(layer):
            raise NotFusedError(f"{called} with hooks")
        if has_own_forward(layer):
            raise NotFusedError(f"{called} with a forward of its own")
        if network.activations and network.activations[-1] not in ops.activations():
            raise NotFusedError(
                f"layer {index} has the activation {network.activations[-1]}, which is fused into "
                "a loss alone"
            )
        if type(layer) in (Dense, nn.Linear):
            network.layers.append(layer)
            activation = getattr(layer, "activation", "identity")
            name, slope = _fused(activation, called, known)
            network.activations.append(name)
            network.slopes.append(slope)
            network.dropouts.append(None)
        elif type(layer) in (FLAT if network.input_dropout else FRONT) and not network.layers:
            network.front.append(layer)
        elif _drops(layer) and not (network.layers or network.input_dropout):
            network.input_dropout = layer
        elif _drops(layer) and network.dropouts[-1:] == [None]:
            network.dropouts[-1] = layer
        elif (
            network.activations[-1:] == ["identity"]
            and network.dropouts[-1] is None
            and _is_activation(layer)
        ):
            network.activations[-1], network.slopes[-1] = _fused(layer, called, known)
        else:
            raise NotFusedError(f"{called}, which the fused kernels do not know at that place")
    if not network.layers:
        raise NotFusedError("the model has no dense layer")
    return network


def _flat(layers: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Yields layers, and in place of chains among them, the layers of these."""
    for layer in layers:
        chain = _chain(layer)
        if chain is None or has_hooks(layer) or has_own_forward(layer):
            yield layer
        else:
            yield from _flat(chain)


def _chain(model: Any) -> Iterable[nn.Module] | None:
    """The layers of a model if each takes what the one before it returns, and all that is known."""
    if isinstance(model, nn.Sequential):
        return model if type(model).forward is nn.Sequential.forward else None
    return model._chain if has_graph(model) else None


def _check_regulation(network: Plan) -> None:
    for layer in network.layers:
        if any(getattr(layer, name, None) is not None for name in CONSTRAINED):
            raise NotFusedError("a layer has a constraint")
        given = [getattr(layer, name, None) for name in (*REGULATED, "activity_regularizer")]
        if any(each is not None and type(each) not in PENALTIES for each in given):
            raise NotFusedError("a layer has a regularizer that is none of L1, L2 and L1L2")
        if given[-1] is not None:
            raise NotFusedError("a layer has a regularizer of its outputs")


def _factors(layer: Any, of: str) -> tuple[float, float]:
    """l1 and l2 of a layer's kernel or bias."""
    regularizer = getattr(layer, of, None)
    return (0.0, 0.0) if regularizer is None else (regularizer.l1, regularizer.l2)


def _drops(layer: nn.Module) -> bool:
    """Whether a layer is a dropout, but for one that leaves nothing, as PyTorch's may."""
    return type(layer) in (Dropout, nn.Dropout) and dropout_rate(layer) < 1


def dropout_rate(dropout: Any) -> float:
    """The probability that a layer drops an output, if there is one, in training mode."""
    if dropout is None:
        return 0.0
    return float(dropout.rate if isinstance(dropout, Dropout) else dropout.p)


def _own_seed(dropout: Any, otherwise: int) -> int:
    seed = getattr(dropout, "seed", None)
    return _int64(otherwise if seed is None else seed)


def _int64(number: int) -> int:
    """The number, of which 64 bits count."""
    return (number + 2**63) % 2**64 - 2**63


def _is_activation(layer: nn.Module) -> bool:
    return is_activation(layer) or sloped(layer) is not None or name_of(layer) is not None


def _fused(activation: Any, called: str, known: Container[str | None]) -> tuple[str, float]:
    """The name of an activation, be it a layer, and its slope if that is not the usual one."""
    if isinstance(activation, nn.Module) and is_activation(activation):
        activation = activation.activation
    name, slope = sloped(activation) or (name_of(activation), USUAL)
    if name not in known or name is None:
        label = "a function" if name is None else name
        raise NotFusedError(f"{called} with the activation {label}, which is not a fused one")
    return str(name), USUAL if slope == ops.reference.SLOPED.get(name) else slope


def _check_parameters(model: nn.Module, network: Plan) -> None:
    own = [p for layer in network.layers for p in (layer.weight, layer.bias) if p is not None]
    if {id(p) for p in model.parameters()} != {id(p) for p in own}:
        raise NotFusedError("it has parameters outside its dense layers")
    if not all(p.requires_grad for p in own):
        raise NotFusedError("a parameter is frozen (requires_grad is False)")
    device = own[0].device
    if not ops.trains_on(device):
        raise NotFusedError(f"the model is on {device}")
    if device.type == "cuda" and any(slope != USUAL for slope in network.slopes):
        raise NotFusedError("an activation has a slope of its own, which CUDA does not know")
    for p in own:
        if p.device != device:
            raise NotFusedError(f"the model is on {device} and on {p.device}")
        if p.dtype not in (torch.float32, torch.float64) or p.dtype != own[0].dtype:
            raise NotFusedError(f"a parameter is of {p.dtype}")
        if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None):
            raise NotFusedError("a parameter has hooks")
        if not is_lazy(p) and not p.is_contiguous():
            raise NotFusedError("a parameter is not contiguous")
    if _share_memory(own):
        raise NotFusedError("layers share parameters")


def _share_memory(parameters: list[Tensor]) -> bool:
    """Whether one is there twice, or lies in the memory of another."""
    ends = {id(p): 0 if is_lazy(p) else p.data_ptr() + p.nbytes for p in parameters}
    by_place = sorted((p for p in parameters if ends[id(p)]), key=Tensor.data_ptr)
    return len(ends) < len(parameters) or any(
        ends[id(one)] > other.data_ptr() for one, other in pairwise(by_place)
    )


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
    """Finds the kernels' loss: of the output, or of what goes into its activation."""
    if loss.reduction != "sum_over_batch_size":
        raise NotFusedError(f"the loss has the reduction {loss.reduction}")
    network.loss = loss
    if loss.activation and not loss.from_logits:
        on_logits = loss.on_logits()
        if ops.kernel_of(on_logits) is not None and network.activations[-1] != loss.activation:
            raise NotFusedError(
                f"{type(loss).__name__} needs a {loss.activation} output or from_logits here"
            )
        network.loss, network.absorbed = on_logits, loss.activation
    if loss.ignores and network.layers[0].weight.is_cuda:
        raise NotFusedError(f"the loss {loss.name} may ignore classes, which CUDA does not know")
    if ops.kernel_of(network.loss) is None:
        raise NotFusedError(f"the loss {loss.name} is not one of the kernels")


def _check_optimizer(optimizer: Optimizer) -> None:
    if optimizer.use_ema:
        raise NotFusedError("the optimizer keeps moving averages of the weights (use_ema=True)")
    if ops.kernel_of(optimizer) is None:
        raise NotFusedError(f"the optimizer {type(optimizer).__name__} is not one of the kernels")
