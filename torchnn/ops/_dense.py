"""One dense layer, with gradients.

The fused kernels serve plain eager tensors on the CPU and on CUDA: through an autograd.Function
where a gradient is wanted, the cheapest way there, and else bare. In every other mode of PyTorch
(compiling, exporting, tracing, transforms, forward-mode AD, dispatch modes, meta tensors,
subclasses of Tensor), a dense layer is its definition, activation(F.linear(x, weight, bias)), which
PyTorch knows how to compile, differentiate, export, count and shard.
"""

from typing import Any

import torch
from torch import Tensor, is_autocast_enabled, is_grad_enabled, nn
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling
from torch.utils._device import DeviceContext

from torchnn.ops import reference
from torchnn.ops._native import ACTIVATIONS, CPU_DTYPES, CUDA_DTYPES, PLACES

# The operators as C++ sees them: OpOverload's Python half would cost a tenth of a small layer.
_forward = torch.ops.torchnn.dense_forward.default._op
_backward = torch.ops.torchnn.dense_backward.default._op

_IDENTITY = PLACES["identity"]
# Their derivative needs z: it takes a tensor of its own, and PyTorch's activation does as well.
_KEEP_Z = frozenset(PLACES[name] for name in reference.KEEP_Z)

_PLAIN = frozenset((Tensor, nn.Parameter))
_PLAIN_OR_NONE = _PLAIN | {type(None)}
_autocast_is_on = torch._C._is_any_autocast_enabled
_transforms_active = torch._C._are_functorch_transforms_active
_is_tracing = torch._C._is_tracing
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack


def dense(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None
) -> Tensor:
    """Computes activation(x @ weight.T + bias) in one kernel.

    float32 and float64 on the CPU and on CUDA run in the fused kernels; bfloat16 and float16 are
    computed in float32 and rounded once. Other devices, and any mode of PyTorch but eager, run the
    same formula in PyTorch's own kernels. Large layers on CUDA go through PyTorch's matrix product,
    and so honour its settings of precision. Autocast is honoured as in torch.nn.functional.linear.

    Args:
        x: Input, shape (..., in_features), a floating dtype.
        weight: Shape (units, in_features), same dtype and device as x.
        bias: Shape (units,), same dtype and device, or None for no bias.
        activation: A name from activations(), or None for the identity.

    Returns:
        Shape (..., units), the dtype of x. For the backward pass it keeps x if weight needs a
        gradient, weight if x does, and this output if there is an activation, or z in its place
        for silu and gelu.

    Raises:
        TypeError: An argument is no tensor, or the dtypes differ or are not floating.
        ValueError: The shapes or devices disagree, or the activation is not a fused one.
    """
    try:
        if (
            is_dynamo_compiling()
            or type(x) not in _PLAIN
            or type(weight) not in _PLAIN
            or type(bias) not in _PLAIN_OR_NONE
            or _is_special()
        ):
            return reference.dense(x, weight, bias, activation)
        if _autocast_is_on() or not _has_kernels(x):
            return _dense_elsewhere(x, weight, bias, activation)
        return _dense_fused(x, weight, bias, PLACES[activation or "identity"])
    except (RuntimeError, TypeError, KeyError, AttributeError) as error:
        # After the fact, so that good calls do not pay for it.
        are_arrays = all(_is_strided(t) for t in (x, weight, bias) if isinstance(t, Tensor))
        try:
            _check_activation(activation)
            if are_arrays:
                _check(x, weight, bias)
        except (TypeError, ValueError) as wrong:
            raise wrong from None
        # Where a product of PyTorch's has failed in ours, it says itself what is wrong.
        if are_arrays and "API call failed" not in str(error):
            raise
        return reference.dense(x, weight, bias, activation)


def _is_strided(tensor: Tensor) -> bool:
    """Whether a tensor is an array in memory: not sparse, nested or of another library's layout."""
    return tensor.layout == torch.strided and not tensor.is_nested


def _has_kernels(x: Tensor) -> bool:
    return x.dtype in (CPU_DTYPES if x.is_cpu else CUDA_DTYPES if x.is_cuda else ())


def _dense_fused(x: Tensor, weight: Tensor, bias: Tensor | None, place: int) -> Tensor:
    if is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        if place in _KEEP_Z:
            return reference.ACTIVATIONS[ACTIVATIONS[place]](_apply(x, weight, bias, _IDENTITY))
        return _apply(x, weight, bias, place)
    return _forward(x, weight, bias, place)


def _is_special() -> bool:
    """Whether PyTorch is doing something else with operators than to compute them."""
    return (
        _transforms_active()
        or forward_ad._current_level >= 0
        or _dispatch_modes() > 0
        or _is_tracing()
        or (_function_modes() > 0 and not _only_default_device())
    )


def _only_default_device() -> bool:
    """Whether nobody overrides functions but torch.set_default_device."""
    modes = map(torch._C._get_function_stack_at, range(_function_modes()))
    return all(type(mode) is DeviceContext for mode in modes)


def _dense_elsewhere(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None
) -> Tensor:
    """dense of plain tensors where no fused kernel serves, or autocast is on."""
    device = x.device.type
    if (
        _autocast_is_on()
        and torch.amp.is_autocast_available(device)
        and is_autocast_enabled(device)
    ):
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return dense(
                _lowered(x, dtype), _lowered(weight, dtype), _lowered(bias, dtype), activation
            )
    _check(x, weight, bias)
    if _has_kernels(x):
        return _dense_fused(x, weight, bias, PLACES[activation or "identity"])
    if device != "cpu":
        return reference.dense(x, weight, bias, activation)
    bias = bias if bias is None else bias.float()
    return dense(x.float(), weight.float(), bias, activation).to(x.dtype)


def _lowered(tensor: Any, dtype: torch.dtype) -> Any:
    """What autocast makes of an argument of F.linear: all but float64 becomes `dtype`."""
    return tensor if tensor is None or tensor.dtype == torch.float64 else tensor.to(dtype)


def _check_activation(activation: Any) -> None:
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(
            f"activation must be None or one of {', '.join(ACTIVATIONS)}, got {activation!r}"
        )


def _check(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raises the error that tells a user what is wrong with the arguments of dense, if anything."""
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
        x_needs_it, weight_needs_it = ctx.needs_input_grad[:2]
        ctx.save_for_backward(
            out if place else None,  # 0 is the identity
            x if weight_needs_it else None,
            weight if x_needs_it else None,
        )
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:
        """The gradients with respect to the inputs, None for those that are not needed."""
        out, x, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad[:3]
        device = grad_out.device.type
        if _autocast_is_on() and is_autocast_enabled(device):  # backward() was called under it
            with torch.autocast(device, enabled=False):
                return (*_gradients(grad_out, out, x, weight, ctx.place, needs), None)
        return (*_gradients(grad_out, out, x, weight, ctx.place, needs), None)


# Function.apply less its Python half, which looks for the transforms that dense has excluded by
# then and takes longer than a small layer.
_apply = super(torch.autograd.Function, _Dense).apply


def _gradients(
    grad_out: Tensor, out: Any, x: Any, weight: Any, place: int, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, ...]:
    if (
        is_dynamo_compiling()
        or is_grad_enabled()  # create_graph: these gradients will be differentiated in turn
        or type(grad_out) not in _PLAIN
        or _is_special()
    ):
        gradients = reference.dense_backward(grad_out, out, x, weight, ACTIVATIONS[place])
    else:
        gradients = _backward(grad_out, out, x, weight, place, *needs)
    return tuple(g if need else None for g, need in zip(gradients, needs, strict=True))


@torch.library.impl("torchnn::dense", "CompositeImplicitAutograd")
def _dense_by_place(x: Tensor, weight: Tensor, bias: Tensor | None, activation: int) -> Tensor:
    """torch.ops.torchnn.dense, for callers of operators: the activation is its place in
    activations()."""
    if not 0 <= activation < len(ACTIVATIONS):
        raise ValueError(f"activation must be from 0 to {len(ACTIVATIONS) - 1}, got {activation}")
    return dense(x, weight, bias, ACTIVATIONS[activation])
