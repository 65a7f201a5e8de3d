"""The operators: plain functions on tensors.

`train_` and `predict` run a whole network of dense layers. `dense` is one layer, with gradients; it
takes one of four routes, because no single one is both quick and right everywhere:

- under torch.compile and torch.export, the operator torchnn::dense with its registered gradient;
- under torch.func transforms and forward-mode AD, the definition in reference.py, whose parts know
  every transform;
- where a gradient is wanted, an autograd.Function around the bare kernels, the cheapest way there;
- else the bare kernel, which autograd never sees.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, is_autocast_enabled, is_grad_enabled
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from torchnn import reference
from torchnn.transfer import to_device

try:
    import torchnn._C  # type: ignore[import-not-found]  # (registers the operators)

    if importlib.util.find_spec("torchnn._cuda"):  # built where nvcc is
        import torchnn._cuda  # type: ignore[import-not-found]  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"torchnn's native library did not load: {error}. Build it with "
        "`python setup.py build_ext --inplace` in a checkout, or `pip install --force-reinstall "
        "--no-deps torchnn`."
    ) from error

_ACTIVATIONS = tuple(torch.ops.torchnn.activations().split())
_PLACES = {name: place for place, name in enumerate(_ACTIVATIONS)}
_LOSSES = tuple(torch.ops.torchnn.losses().split())
_UPDATES = tuple(torch.ops.torchnn.updates().split())
_OPTIONS = ("momentum", "beta_1", "beta_2", "epsilon", "weight_decay")
_CPU_DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
_CUDA_DTYPES = (*_CPU_DTYPES, torch.bfloat16, torch.float16)
_HAS_CUDA = torch._C._dispatch_has_kernel_for_dispatch_key("torchnn::dense", "CUDA")
if not _HAS_CUDA:
    _CUDA_DTYPES = ()

# The operators as C++ sees them: OpOverload's Python half would cost a tenth of a small layer.
_forward = torch.ops.torchnn.dense_forward.default._op
_backward = torch.ops.torchnn.dense_backward.default._op
_transforms_active = torch._C._are_functorch_transforms_active


def activations() -> tuple[str, ...]:
    """Returns the names of the activations that the kernels fuse."""
    return _ACTIVATIONS


def losses() -> tuple[str, ...]:
    """Returns the names of the losses that train_ knows."""
    return _LOSSES


def updates() -> tuple[str, ...]:
    """Returns the names of the update rules that train_ knows."""
    return _UPDATES


def trains_on(device: torch.device) -> bool:
    """Returns whether train_ and predict have kernels for a device."""
    return device.type == "cpu" or (device.type == "cuda" and _HAS_CUDA)


class CudaPlan(NamedTuple):
    """How train_ on CUDA fits a network into the memory that blocks of threads share.

    Attributes:
        rows: Of a batch, that go through at once; 0 if the network trains layer by layer.
        size: The bytes that each block takes, or would take at the least; 0 for more layers, or
            wider ones, than are ever counted.
        most_rows: The largest batch for which the network does not train layer by layer.
        blocks: How many train the network together.
    """

    rows: int
    size: int
    most_rows: int
    blocks: int


def cuda_plan(
    widths: Sequence[int], dtype: torch.dtype, batch_size: int, shared_bytes: int, blocks: int = 1
) -> CudaPlan:
    """Returns how train_ on CUDA trains a network by itself.

    Args:
        widths: The number of features, then the units of each layer.
        dtype: float32 or float64.
        batch_size: Rows a step.
        shared_bytes: The most memory that a block may have.
        blocks: How many blocks may work together, 1 to 8.
    """
    found = torch.ops.torchnn.cuda_plan(
        list(widths), dtype.itemsize, batch_size, shared_bytes, blocks
    )
    return CudaPlan(*found)


def cuda_limits(device: torch.device) -> tuple[int, int]:
    """Returns the most memory that a block may have on a GPU, and how many may work together."""
    properties: Any = torch.cuda.get_device_properties(device)
    return properties.shared_memory_per_block_optin, 8 if properties.major >= 9 else 1


def cpu_capability() -> str:
    """Returns the instruction set of the CPU kernels: "avx512", "avx2" or "baseline".

    The environment variable TORCHNN_CPU_CAPABILITY, read once, forces one that the CPU has.
    """
    return torch.ops.torchnn.cpu_capability()


def dense(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None
) -> Tensor:
    """Computes activation(x @ weight.T + bias) in one kernel.

    float32 and float64 on the CPU and on CUDA run in the fused kernels; bfloat16 and float16 are
    computed in float32 and rounded once. Other devices run the same formula in PyTorch's own
    kernels. Large layers on CUDA go through PyTorch's matrix product, and so honour its settings
    of precision. Autocast is honoured as in torch.nn.functional.linear.

    Args:
        x: Input, shape (..., in_features), a floating dtype.
        weight: Shape (units, in_features), same dtype and device as x.
        bias: Shape (units,), same dtype and device, or None for no bias.
        activation: A name from activations(), or None for the identity.

    Returns:
        Shape (..., units), the dtype of x. The backward pass keeps x, weight, bias and this output.

    Raises:
        TypeError: An argument is no tensor, or the dtypes differ or are not floating.
        ValueError: The shapes or devices disagree, or the activation is not a fused one.
    """
    try:
        if x.is_cpu:
            fused = x.dtype in _CPU_DTYPES and not is_autocast_enabled("cpu")
        else:
            fused = x.is_cuda and x.dtype in _CUDA_DTYPES and not is_autocast_enabled("cuda")
        if not fused:
            return _dense_elsewhere(x, weight, bias, activation)
        place = _PLACES[activation or "identity"]
        if is_compiling():
            return torch.ops.torchnn.dense(x, weight, bias, place)
        if _transforms_active() or forward_ad._current_level >= 0:
            return reference.dense(x, weight, bias, activation)
        if is_grad_enabled() and (
            x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
        ):
            return _apply(x, weight, bias, place)
        return _forward(x, weight, bias, place)
    except (RuntimeError, TypeError, KeyError, AttributeError):
        _check(x, weight, bias, activation)  # after the fact, so that good calls do not pay for it
        raise


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
            _LOSSES.index(loss),
            _UPDATES.index(update),
            torch.tensor([options[name] for name in _OPTIONS], dtype=torch.float64),
            to_device(before, x.device),
            [_PLACES[name] for name in activations],
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
    places = [_PLACES[name] for name in activations]
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


def _dense_elsewhere(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None
) -> Tensor:
    """dense where no fused kernel serves: another device, half types on the CPU, autocast."""
    device = x.device.type
    if is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return dense(
                _lowered(x, dtype), _lowered(weight, dtype), _lowered(bias, dtype), activation
            )
    _check(x, weight, bias, activation)
    if device != "cpu":
        return reference.dense(x, weight, bias, activation)
    bias = bias if bias is None else bias.float()
    return dense(x.float(), weight.float(), bias, activation).to(x.dtype)


def _lowered(tensor: Any, dtype: torch.dtype) -> Any:
    """What autocast makes of an argument of F.linear: all but float64 becomes `dtype`."""
    return tensor if tensor is None or tensor.dtype == torch.float64 else tensor.to(dtype)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
    """Raises the error that tells a user what is wrong with the arguments of dense, if anything."""
    if activation is not None and activation not in _PLACES:
        raise ValueError(
            f"activation must be None or one of {', '.join(_ACTIVATIONS)}, got {activation!r}"
        )
    for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        if tensor is None and name == "bias":
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must have a floating dtype, got {tensor.dtype}")
        if tensor.dtype != x.dtype:
            raise TypeError(f"{name} must have the dtype of x, {x.dtype}, got {tensor.dtype}")
        if tensor.device != x.device:
            raise ValueError(f"{name} must be on the device of x, {x.device}, got {tensor.device}")
    if weight.dim() != 2:
        raise ValueError(f"weight must have shape (units, in_features), got {tuple(weight.shape)}")
    if x.dim() == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"x must have shape (..., {weight.shape[1]}) to go with a weight of shape "
            f"{tuple(weight.shape)}, got {tuple(x.shape)}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}")


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, place: int) -> Tensor:
        out = _forward(x, weight, bias, place)
        ctx.place = place
        ctx.save_for_backward(x, weight, bias, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:
        return _gradients(ctx, grad_out)


# Function.apply less its Python half, which looks for the transforms that dense has excluded by
# then and takes longer than a small layer.
_apply = super(torch.autograd.Function, _Dense).apply


def _setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, weight, bias, ctx.place = inputs
    ctx.save_for_backward(x, weight, bias, output)


def _gradients(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients with respect to the inputs of dense, None for those that are not needed."""
    x, weight, bias, out = ctx.saved_tensors
    needs = ctx.needs_input_grad[:3]
    if is_grad_enabled():  # create_graph: these gradients will be differentiated in turn
        return (*_differentiable_gradients(x, weight, bias, ctx.place, needs, grad_out), None)
    if is_autocast_enabled(x.device.type):  # backward() was called under it
        with torch.autocast(x.device.type, enabled=False):
            gradients = _backward(grad_out, out, x, weight, ctx.place, *needs)
    else:
        gradients = _backward(grad_out, out, x, weight, ctx.place, *needs)
    return (*(g if need else None for g, need in zip(gradients, needs, strict=True)), None)


def _differentiable_gradients(
    x: Tensor, weight: Tensor, bias: Tensor | None, place: int, needs: Any, grad_out: Tensor
) -> list[Tensor | None]:
    inputs = (x, weight, bias)
    out = reference.dense(x, weight, bias, _ACTIVATIONS[place])
    wanted = [t for t, need in zip(inputs, needs, strict=True) if need and t is not None]
    gradients = iter(torch.autograd.grad(out, wanted, grad_out, create_graph=True))
    return [next(gradients) if need else None for need in needs]


def _fake_forward(x: Tensor, weight: Tensor, bias: Tensor | None, place: int) -> Tensor:
    _check(x, weight, bias, _ACTIVATIONS[place])
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _fake_backward(
    grad_out: Tensor,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    place: int,
    need_x: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape if need_x else (0,)),
        x.new_empty((weight.shape[0] if need_weight else 0, weight.shape[1])),
        x.new_empty((weight.shape[0] if need_bias else 0,)),
    )


torch.library.register_fake("torchnn::dense", _fake_forward)
torch.library.register_fake("torchnn::dense_forward", _fake_forward)
torch.library.register_fake("torchnn::dense_backward", _fake_backward)
torch.library.register_autograd("torchnn::dense", _gradients, setup_context=_setup_context)
