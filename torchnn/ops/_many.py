"""train_many_: many networks of dense layers at once, in one native call."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchnn import _checks
from torchnn.ops._native import LOSSES, OPTIONS, UPDATES, call
from torchnn.ops._network import (
    KNOWN_OPTIONS,
    LARGEST,
    _as_places,
    _check_settings,
    _check_tensors,
    _filled_in,
    _undisturbed,
    mark_changed,
)
from torchnn.ops._transfer import float64
from torchnn.ops.reference import Trials

_train_many = torch.ops.torchnn.train_many_.default._op


def train_many_(job: Trials) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Takes steps of gradient descent on many networks of dense layers, in one native call.

    Weights, biases and slots change in place. `reference.train_many_` is the same in plain PyTorch.

    What a model comes to follows from its own numbers and rows alone, to the last bit: neither from
    the other models, nor from their number, the threads, or how its steps are cut into calls. On
    the CPU, small models train side by side in the lanes of registers: many of one shape take a
    half to a fifth of the time of one after the other, and one alone takes longer than by itself.
    Each thread takes whole groups of them. Large models train one a thread, as in `train_`.

    On CUDA, a block of threads trains a model, and each must fit into the memory of one
    (cuda_trial_plan), with activations of the usual slopes. Row numbers are not looked at there: a
    loss is NaN if x has no such row.

    x, y and the like are contiguous, float32 or float64, on one device, as are all weights; so are,
    on that device, orders, learning_rates and validation_rows. All else is on the CPU.

    Args:
        job: The models, and all else.

    Returns:
        Losses of the batches before their steps, shape (models, steps); outputs in order, shape
        (models, samples, units), or (models, 0, units) if they were not to be kept; and of the
        validation rows, after each epoch, the losses of their batches, (models, epochs, batches),
        and the outputs, (models, epochs, rows, units), or no rows of them.

    Raises:
        TypeError: An argument is of another kind.
        ValueError: The loss, the update rule, one of its options or an activation is unknown.
        RuntimeError: A shape, size, dtype or device does not fit, or memory is shared.
        MemoryError: The CPU has too little memory. Nothing has changed, in all cases, unless a
            model of more than 2,400 weights finds none when others have been trained.
    """
    try:
        arguments = _as_native(job)
        with _undisturbed(job.x.device.type):
            results: tuple[Tensor, Tensor, Tensor, Tensor] = call(_train_many, *arguments)
    except (AttributeError, RuntimeError, TypeError):
        _check(job)  # after the fact, so that good calls do not pay for it
        raise
    mark_changed(job.weights, job.biases, job.slots, job.best)
    return results


def _as_native(job: Trials) -> list[Any]:
    """The arguments as the operator takes them, in its order, which is that of Trials."""
    converted = {
        "epoch_size": min(job.epoch_size, LARGEST),
        "batch_size": min(job.batch_size, LARGEST),
        "loss": LOSSES.index(_checks.choice("loss", job.loss, LOSSES)),
        "update": UPDATES.index(_checks.choice("update", job.update, UPDATES)),
        "options": _as_table(job.options, job.models),
        "activations": _as_places(job.activations),
        "slopes": float64(job.slopes).cpu(),
        "weights": list(job.weights),
        "biases": _filled_in(job.biases, job.x),
        "slots": _filled_in(job.slots, job.x),
        "best": _filled_in(job.best, job.x),
    }
    return list((vars(job) | converted).values())


def _as_table(options: Mapping[str, Any], models: int) -> Tensor:
    """Shape (models, options), from numbers of all or of each."""
    for name in options.keys() - KNOWN_OPTIONS:
        _checks.choice("each name in options", name, OPTIONS)
    table = torch.zeros(models, len(OPTIONS), dtype=torch.float64, device="cpu")
    for name, value in options.items():
        numbers = float64(value).cpu()
        if tuple(numbers.shape) not in ((), (models,)):
            raise ValueError(
                f"options[{name!r}] must be a number, or one for each of {models} models, got "
                f"shape {tuple(numbers.shape)}"
            )
        table[:, OPTIONS.index(name)] = numbers
    return table


def _check(job: Trials) -> None:
    """Raises the error that tells a user which argument is of another kind, if any."""
    _check_settings(job)
    needed: dict[str, Sequence[Any]] = {"x": [job.x], "y": [job.y], "each weight": job.weights}
    optional: dict[str, Sequence[Any]] = {
        "sample_weight": [job.sample_weight],
        "each bias": job.biases,
        "each slot": job.slots,
        "validation_x": [job.validation_x],
        "validation_y": [job.validation_y],
        "validation_weight": [job.validation_weight],
        "each of best": job.best,
    }
    _check_tensors(job.x, needed, optional)
