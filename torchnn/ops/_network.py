"""A whole network of dense layers in one native call."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, is_autocast_enabled

from torchnn.ops._native import LOSSES, OPTIONS, PLACES, UPDATES
from torchnn.ops._transfer import to_device


def train_(
    x: Tensor,
    y: Tensor,
    sample_weight: Tensor | None,
    order: Tensor | None,
    *,
    epoch_size: int,
    batch_size: int,
    learning_rates: Sequence[float] | Tensor,
    loss: str,
    update: str,
    options: Mapping[str, float],
    steps_before: int | Tensor,
    activations: Sequence[str],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    slots: Sequence[Sequence[Tensor | None]],
    keep_predictions: bool,
    steps_done: Tensor,
) -> tuple[Tensor, Tensor]:
    """Takes steps of gradient descent on a network of dense layers, in one native call.

    Weights, biases and slots change in place. `reference.train_` is the same in plain PyTorch. All
    tensors are on one device and contiguous, float32 or float64 where nothing else is said;
    steps_done is on the CPU, learning_rates and steps_before may be.

    On CUDA, the call returns when the work is queued; a CUDA graph may record it if learning_rates
    and steps_before are on the device, and replays then read them anew. There, weights, biases and
    slots may have a leading dimension of models, which train side by side: small ones each in a
    warp, others each in a multiprocessor of its own, if they fit into its memory. x, y,
    sample_weight, order and learning_rates are then shared, or have that dimension too, and so do
    the results. What a model comes to does not depend on the others, or on how many there are. A
    row number in order that x does not have makes the loss NaN in a network that fits, and is an
    error of the device in another.

    Args:
        x: Features, shape (N, in_features).
        y: Targets, shape (N, units of the last layer).
        sample_weight: Shape (N,), or None.
        order: Rows of x in the order of training, shape (samples,), int64; None for x as it lies.
        epoch_size: Samples an epoch: a batch ends where its epoch does.
        batch_size: Rows a step; the last step of an epoch may have fewer.
        learning_rates: One for each step.
        loss: A name from losses(): of the last layer's output and y, averaged over the outputs.
        update: A name from updates().
        options: The update rule's momentum, beta_1, beta_2, epsilon and weight_decay.
        steps_before: Steps that earlier calls have taken, for Adam: a number, or one int64.
        activations: A name from activations() for each layer.
        weights: Shape (units, in_features) each.
        biases: Shape (units,) each, or None.
        slots: For each slot of the update rule, what it remembers of weight and bias of each layer
            in turn, shaped like these.
        keep_predictions: Whether to return what came out, before each step, of the last layer.
        steps_done: Shape (1,), int64: counts the steps up while they are taken.

    Returns:
        The loss of each batch before its step, shape (steps,), and the outputs in order, shape
        (samples, units), or (0, units) if they were not to be kept.

    Raises:
        RuntimeError: A shape, dtype or device is none of these; nothing has changed then.
    """
    rates = to_device(torch.as_tensor(learning_rates, dtype=torch.float64), x.device)
    before = steps_before
    if not isinstance(before, Tensor):
        before = torch.full((), before, dtype=torch.int64, device=x.device)
    with _undisturbed(x.device.type):
        result = torch.ops.torchnn.train_(
            x,
            y,
            sample_weight,
            order,
            epoch_size,
            batch_size,
            rates,
            LOSSES.index(loss),
            UPDATES.index(update),
            torch.tensor([options[name] for name in OPTIONS], dtype=torch.float64),
            to_device(before, x.device),
            [PLACES[name] for name in activations],
            list(weights),
            _filled_in(biases, x),
            _filled_in([tensor for slot in slots for tensor in slot], x),
            keep_predictions,
            steps_done,
        )
    mark_changed(weights, biases, *slots)
    return result


def mark_changed(*tensors: Sequence[Tensor | None]) -> None:
    """Tells autograd, past which the kernels write, that what it may have saved has changed."""
    torch.autograd.graph.increment_version([t for ts in tensors for t in ts if t is not None])


def predict(
    x: Tensor,
    activations: Sequence[str],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
) -> Tensor:
    """Computes the output of a network of dense layers, in one native call, without gradients.

    Args:
        x: Features, shape (N, in_features), float32 or float64, on the CPU or on CUDA.
        activations: A name from activations() for each layer.
        weights: Shape (units, in_features) each.
        biases: Shape (units,) each, or None.

    Returns:
        Shape (N, units of the last layer).

    Raises:
        RuntimeError: A shape, dtype or device does not fit.
    """
    places = [PLACES[name] for name in activations]
    with _undisturbed(x.device.type):
        return torch.ops.torchnn.predict(x, places, list(weights), _filled_in(biases, x))


@contextmanager
def _undisturbed(device: str) -> Iterator[None]:
    """Keeps autograd and autocast off the library's products inside a native call."""
    if is_autocast_enabled(device):
        with torch.no_grad(), torch.autocast(device, enabled=False):
            yield
    else:
        with torch.no_grad():
            yield


def _filled_in(tensors: Sequence[Tensor | None], like: Tensor) -> list[Tensor]:
    """An operator's list holds tensors only: one without elements stands for None."""
    return [like.new_empty(0) if t is None else t for t in tensors]
