"""One dense layer, with gradients.

It takes one of four routes, because no single one is both quick and right everywhere:

- under torch.compile and torch.export, the operator torchnn::dense with its registered gradient;
- under torch.func transforms and forward-mode AD, the definition in reference.py, whose parts know
  every transform;
- where a gradient is wanted, an autograd.Function around the bare kernels, the cheapest way there;
- else the bare kernel, which autograd never sees.
"""

from typing import Any

import torch
from torch import Tensor, is_autocast_enabled, is_grad_enabled
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from torchnn.ops import reference
from torchnn.ops._native import ACTIVATIONS, CPU_DTYPES, CUDA_DTYPES, PLACES

# The operators as C++ sees them: OpOverload's Python half would cost a tenth of a small layer.
_forward = torch.ops.torchnn.dense_forward.default._op
_backward = torch.ops.torchnn.dense_backward.default._op
_transforms_active = torch._C._are_functorch_transforms_active


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
            fused = x.dtype in CPU_DTYPES and not is_autocast_enabled("cpu")
        else:
            fused = x.is_cuda and x.dtype in CUDA_DTYPES and not is_autocast_enabled("cuda")
        if not fused:
            return _dense_elsewhere(x, weight, bias, activation)
        place = PLACES[activation or "identity"]
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
    if activation is not None and activation not in PLACES:
        raise ValueError(
            f"activation must be None or one of {', '.join(ACTIVATIONS)}, got {activation!r}"
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
    out = reference.dense(x, weight, bias, ACTIVATIONS[place])
    wanted = [t for t, need in zip(inputs, needs, strict=True) if need and t is not None]
    gradients = iter(torch.autograd.grad(out, wanted, grad_out, create_graph=True))
    return [next(gradients) if need else None for need in needs]


def _fake_forward(x: Tensor, weight: Tensor, bias: Tensor | None, place: int) -> Tensor:
    _check(x, weight, bias, ACTIVATIONS[place])
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
