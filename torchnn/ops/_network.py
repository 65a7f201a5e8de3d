"""train_ and predict: whole networks of dense layers, in one native call."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from numbers import Integral
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, is_autocast_enabled

from torchnn import _checks
from torchnn.ops import reference
from torchnn.ops._native import ACTIVATIONS, LOSSES, OPTIONS, PLACES, UPDATES, call, trains_on
from torchnn.ops._transfer import float64, to_device
from torchnn.ops.reference import Results, Training, taking

# As in _dense: OpOverload's Python half would cost a tenth of a small network.
_train = torch.ops.torchnn.train_.default._op
_predict = torch.ops.torchnn.predict.default._op
_restore = torch.ops.torchnn.restore_.default._op
_hash = torch.ops.torchnn.hash.default._op
_activate = torch.ops.torchnn.activate_.default._op
_shuffle = torch.ops.torchnn.shuffle_.default._op

# These have no gradients: autograd, which would look at each tensor, is passed by.
_passing_by = torch.library.Library("torchnn", "IMPL")
for _name in ("activate_", "hash", "restore_", "shuffle_"):
    _passing_by.impl(_name, torch.library.fallthrough_kernel, "Autograd")

LARGEST = 2**63 - 1  # int64: any size above it is as good
CLIPPED_NORMS = ("clip_norm", "global_clip_norm")
KNOWN_OPTIONS = frozenset(OPTIONS)


def run(job: Training) -> Results:
    """Does what train_ says, for arguments that are there already."""
    try:
        arguments = _as_native(job)
        with _undisturbed(job.x.device.type):
            results = call(_train, *arguments)
    except (AttributeError, RuntimeError, TypeError):
        _check_training(job)  # after the fact, so that good calls do not pay for it
        raise
    mark_changed(job.weights, job.biases, *job.slots, *job.snapshots)
    return results


@taking(Training)
def train_(job: Training) -> Results:
    """Takes steps of gradient descent on a network of dense layers, in one native call.

    Weights, biases and slots change in place. `reference.train_` is the same in plain PyTorch. All
    tensors are on one device and contiguous, float32 or float64 where nothing else is said;
    steps_done is on the CPU; learning_rates, steps_before and options may be. What changes shares
    no memory with any other argument.

    What a model comes to that trains side by side with others does not depend on them, or on how
    many there are. On the CPU, each of several threads takes whole models. On CUDA, small models
    train each in a warp, others each in a multiprocessor of its own, if they fit into its memory;
    with penalties, dropout, clipped norms, silu or gelu, CUDA trains one network at a time.

    On CUDA, the call returns when the work is queued; a CUDA graph may record it if learning_rates
    and steps_before are on the device, and replays then read them anew. A row number in order that
    x does not have makes the loss NaN in a network that fits, and is an error of the device in
    another.

    Args:
        arguments: Those of Training.

    Returns:
        The loss of each batch before its step, shape (steps,), and the outputs in order, shape
        (samples, units), or (0, units) if they were not to be kept.

    Raises:
        TypeError: An argument is missing, unknown, or of another kind.
        ValueError: The loss, the update rule, one of its options or an activation is unknown.
        RuntimeError: A shape, size, dtype or device does not fit, or memory is shared.
        MemoryError: The CPU has too little memory. Nothing has changed, in all cases.
    """
    return run(job)


def _as_native(job: Training) -> list[Any]:
    """The arguments as the operator takes them, in its order, which is that of Training."""
    x, before = job.x, job.steps_before
    _check_models(job)
    if not isinstance(before, Tensor):
        before = torch.full((), before, dtype=torch.int64, device=x.device)
    converted = {
        "epoch_size": min(job.epoch_size, LARGEST),
        "batch_size": min(job.batch_size, LARGEST),
        "learning_rates": to_device(float64(job.learning_rates), x.device),
        "loss": LOSSES.index(_checks.choice("loss", job.loss, LOSSES)),
        "update": UPDATES.index(_checks.choice("update", job.update, UPDATES)),
        "options": _as_numbers(job.options, x.device),
        "steps_before": to_device(before, x.device),
        "activations": _as_places(job.activations),
        "slopes": float64(job.slopes).cpu(),
        "regularization": float64(job.regularization).cpu(),
        "seeds": list(job.seeds),
        "weights": list(job.weights),
        "biases": _filled_in(job.biases, x),
        "slots": _filled_in([tensor for slot in job.slots for tensor in slot], x),
        "snapshots": _filled_in([tensor for kept in job.snapshots for tensor in kept], x),
    }
    return list((vars(job) | converted).values())


def only_by_layers(
    activations: Sequence[str],
    regularization: Sequence[Sequence[float]] = (),
    options: Mapping[str, Any] = MappingProxyType({}),
    input_dropout: float = 0.0,
) -> str | None:
    """Returns what of a network trains on CUDA layer by layer alone, or None; see Training."""
    for name in reference.KEEP_Z:
        if name in activations:
            return f"the activation {name}"
    if any(any(row[:4]) for row in regularization):
        return "penalties"
    if input_dropout or any(row[4] for row in regularization):
        return "dropout"
    return "clipped norms" if any(map(_is_set, map(options.get, CLIPPED_NORMS))) else None


def _is_set(option: Any) -> bool:
    """Whether a number, or one of several, is there and not 0."""
    if option is None or isinstance(option, (int, float)):
        return bool(option)
    return bool((float64(option) != 0).any())


def _check_models(job: Training) -> None:
    """Raises for what CUDA trains of one network alone, of which the numbers are on the device."""
    clipped = only_by_layers((), (), job.options, job.input_dropout) if job.x.is_cuda else None
    if clipped and job.weights[0].ndim == 3:
        raise ValueError(f"models with {clipped} cannot be trained at once on CUDA")


def _as_places(activations: Sequence[str]) -> list[int]:
    try:
        return [PLACES[a] for a in activations]
    except (KeyError, TypeError):
        return [
            ACTIVATIONS.index(_checks.choice("activation", a, ACTIVATIONS)) for a in activations
        ]


def _as_numbers(options: Mapping[str, Any], device: torch.device) -> Tensor:
    """Shape (options,) on the CPU, or (models, options) on the device if one differs by model."""
    for name in options.keys() - KNOWN_OPTIONS:
        _checks.choice("each name in options", name, OPTIONS)
    numbers = [options.get(name, 0.0) for name in OPTIONS]
    if all(isinstance(number, (int, float)) for number in numbers):
        return float64(numbers)
    columns = [float64(number).cpu() for number in numbers]
    return to_device(torch.stack(torch.broadcast_tensors(*columns), -1), device)


def mark_changed(*tensors: Sequence[Tensor | None]) -> None:
    """Tells autograd, past which the kernels write, that what it may have saved has changed."""
    torch.autograd.graph.increment_version([t for ts in tensors for t in ts if t is not None])


def predict(
    x: Tensor,
    activations: Sequence[str],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    slopes: Sequence[float] = (),
) -> Tensor:
    """Computes the output of a network of dense layers, in one native call, without gradients.

    Args:
        x: Features, shape (N, in_features), float32 or float64, on the CPU or on CUDA.
        activations: A name from activations() for each layer.
        weights: Shape (units, in_features) each; on the CPU, those of models of one shape may have
            a dimension (models,) in front, and x one of its own.
        biases: Shape (units,) each, or None; of models likewise.
        slopes: As in train_.

    Returns:
        Shape (N, units of the last layer); of models, (models, N, units).

    Raises:
        TypeError: An argument is of another kind.
        ValueError: An activation is unknown.
        RuntimeError: A shape, dtype or device does not fit.
        MemoryError: The CPU has too little memory.
    """
    try:
        own = float64(slopes).cpu()
        network = _as_places(activations), own, list(weights), _filled_in(biases, x)
        with _undisturbed(x.device.type):
            return call(_predict, x, *network)
    except (AttributeError, RuntimeError, TypeError):
        _check_tensors(x, {"x": [x], "each weight": weights}, {"each bias": biases})
        raise


def activate_(x: Tensor, activation: str) -> Tensor:
    """Applies an activation to a contiguous tensor on the CPU, in place, and returns it.

    What an element comes to does not depend on how many there are, to the last bit.
    """
    call(_activate, x, _as_places([activation])[0])
    mark_changed([x])
    return x


def restore_(
    state: list[Tensor], snapshots: list[Tensor], epoch: int, expected: int | None = None
) -> bool:
    """Gives a network the state that train_ has kept of it after an epoch.

    All tensors are contiguous and on the CPU.

    Args:
        state: Weights, biases and slots, which change in place.
        snapshots: The same after each epoch, shape (epochs, ...).
        epoch: Which one to give, from 0.
        expected: The epoch after which the state must be, bit by bit, or None if it may be any.

    Returns:
        Whether it was as expected; if not, nothing has changed.

    Raises:
        RuntimeError: A shape, dtype or device does not fit.
    """
    is_so: bool = call(_restore, state, snapshots, epoch, expected)
    if is_so:
        mark_changed(state)
    return is_so


def hashed(tensors: list[Tensor]) -> int:
    """Returns a number that is another one, but for 1 in 2**64 times, once anybody has written into
    one of some contiguous tensors on the CPU, be it past PyTorch."""
    return int(call(_hash, tensors)) if tensors else 0


def shuffle_(rows: Tensor, seeds: Tensor) -> None:
    """Brings row numbers into an order that a seed tells, in place.

    rows = torch.arange(5).repeat(2, 1)
    shuffle_(rows, torch.tensor([0, 1]))

    It is that of `torch.randperm` on the CPU (up to 200 million rows), whose generator uses 32 bits
    of its seed; on every device, where a thread makes one of the orders.

    Args:
        rows: Shape (orders, samples), int64, contiguous.
        seeds: Of each order, (orders,), int64, on the same device.

    Raises:
        RuntimeError: A shape, dtype or device does not fit.
    """
    call(_shuffle, rows, seeds)
    mark_changed([rows])


def _undisturbed(device: str) -> AbstractContextManager[Any]:
    """Keeps autograd and autocast off the library's products inside a native call."""
    return _without_autocast(device) if is_autocast_enabled(device) else torch.no_grad()


@contextmanager
def _without_autocast(device: str) -> Iterator[None]:
    with torch.no_grad(), torch.autocast(device, enabled=False):
        yield


def _filled_in(tensors: Sequence[Tensor | None], like: Tensor) -> list[Tensor]:
    """An operator's list holds tensors only: one without elements stands for None."""
    return [like.new_empty(0) if t is None else t for t in tensors]


def _check_training(job: Training) -> None:
    """Raises the error that tells a user which argument is of another kind, if any."""
    _check_settings(job)
    needed = {"x": [job.x], "y": [job.y], "each weight": job.weights}
    slots = [tensor for slot in job.slots for tensor in slot]
    snapshots = [tensor for kept in job.snapshots for tensor in kept]
    optional: dict[str, Sequence[Any]] = {
        "sample_weight": [job.sample_weight],
        "order": [job.order],
        "each bias": job.biases,
        "each slot": slots,
        "each snapshot": snapshots,
    }
    _check_tensors(job.x, needed, optional)
    if not isinstance(job.steps_done, Tensor):
        raise TypeError(f"steps_done must be a torch.Tensor, got {type(job.steps_done).__name__}")


def _check_settings(job: Any) -> None:
    """The same for the sizes and the options of a Training or of Trials."""
    for name in ("epoch_size", "batch_size"):
        if not isinstance(getattr(job, name), Integral):
            raise TypeError(f"{name} must be an integer, got {getattr(job, name)!r}")
    if not isinstance(job.options, Mapping):
        raise TypeError(f"options must be a dict of numbers, got {job.options!r}")


def _check_tensors(
    x: Tensor, needed: Mapping[str, Sequence[Any]], optional: Mapping[str, Sequence[Any]]
) -> None:
    """The same for tensors on the device of x, by their names; optional ones may be None."""
    for name, values in [*needed.items(), *optional.items()]:
        for value in values:
            if value is None and name in optional:
                continue
            if not isinstance(value, Tensor):
                raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
            if not trains_on(x.device):
                raise RuntimeError(f"x must be on the CPU, or on a GPU, got {x.device}")
            if value.device != x.device:
                raise RuntimeError(
                    f"{name} must be on the device of x, {x.device}, got {value.device}"
                )
