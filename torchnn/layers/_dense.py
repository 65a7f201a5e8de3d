"""The dense layer: what every network of this package is made of."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._jit_internal import is_scripting
from torch.nn.parameter import UninitializedParameter, is_lazy

from torchnn import _checks, activations, initializers, ops
from torchnn.layers._base import Layer

_FUSED = ops.activations()


class Dense(Layer, nn.Linear):
    """activation(x @ weight.T + bias), in one kernel if the activation is a fused one.

    In all but forward it is an `nn.Linear`, and what PyTorch's tools do to one, such as sharding or
    quantizing its weight, they do to a Dense.

    Until it is built, the layer does not know its in_features; the first input builds it, as in
    `nn.LazyLinear`, and so does a state dict, `nn.Linear`'s too.

    Args:
        units: The number of outputs.
        activation: A name, a function or a module; None is the identity.
        use_bias: Whether there is a bias.
        kernel_initializer: A name from torchnn.initializers, or a function that fills a tensor of
            shape (units, in_features) in place.
        bias_initializer: The same for the bias, of shape (units,).
        in_features: The number of inputs, to build the layer at once.
        name: What messages and summaries call the layer.
        device: Where the parameters are.
        dtype: Their dtype; the default dtype if None.

    Attributes:
        weight: Shape (units, in_features).
        bias: Shape (units,), or None.
        activation: The activation's name, or the function or module. It can be assigned whatever
            the argument may be.
        in_features: None until the layer is built.
        out_features: The number of outputs, as `nn.Linear` calls it.

    Raises:
        ValueError, TypeError: An argument is none of what is allowed.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None  # type: ignore[assignment]  # as nn.Linear has it, but does not say
    in_features: int | None  # type: ignore[assignment]
    activation: activations.Activation
    __jit_ignored_attributes__ = ("activation",)  # by TorchScript
    __jit_unused_properties__ = ("built", "trainable", "use_bias")
    if TYPE_CHECKING:  # which would read this, too
        _function: Callable[[Tensor], Tensor]
        _fused: str | None

    def __init__(
        self,
        units: int,
        activation: activations.Activation | None = None,
        use_bias: bool = True,
        kernel_initializer: str | initializers.Filler = "glorot_uniform",
        bias_initializer: str | initializers.Filler = "zeros",
        *,
        in_features: int | None = None,
        name: str | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(name)
        use_bias = _checks.truth("use_bias", use_bias)
        self.units = self.out_features = _checks.positive_int("units", units)
        self.activation = activation  # type: ignore[assignment]
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.in_features = None
        with torch.inference_mode(False):  # the parameters must be able to learn
            if in_features is None:
                self.weight = _unbuilt(device, dtype)
                self.register_parameter("bias", _unbuilt(device, dtype) if use_bias else None)
            else:
                place = torch.empty(0, device=device, dtype=dtype)
                weight, bias = self._first_values(in_features, use_bias, place)
                self.weight = nn.Parameter(weight)
                self.register_parameter("bias", None if bias is None else nn.Parameter(bias))
                self.in_features = weight.shape[1]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "activation":
            value = activations.get(value)
            self._modules.pop(name, None)
            named = isinstance(value, str)
            self.__dict__["_function"] = activations.FUNCTIONS[value] if named else value
            # A plain string: what traces forward knows no other.
            self.__dict__["_fused"] = str(value) if named and value in _FUSED else None
        elif name == "qconfig":
            raise TypeError(
                f"{self._called()} cannot be quantized by torch.ao.quantization, which knows "
                "nn.Linear itself alone: use torchao.quantization.quantize_"
            )
        super().__setattr__(name, value)

    @property
    def built(self) -> bool:
        """Whether the layer knows its in_features and has values in its parameters."""
        return self.in_features is not None

    @property
    def use_bias(self) -> bool:
        """Whether there is a bias."""
        return self.bias is not None

    def build(self, in_features: int | Sequence[int | None]) -> None:
        """Gives the parameters their shapes and first values.

        Args:
            in_features: The number of inputs, or the shape of a batch such as (None, 400).

        Raises:
            ValueError: The layer is built already, for another number of features.
        """
        if isinstance(in_features, Sequence) and not isinstance(in_features, str) and in_features:
            in_features = in_features[-1]  # type: ignore[assignment]
        in_features = _checks.positive_int("in_features", in_features)
        if self.built:
            self._check_features(in_features)
            return
        if torch.compiler.is_compiling():
            raise RuntimeError(f"{self._called()} must be built before torch.compile can trace it")
        weight, bias = self._first_values(in_features, self.bias is not None, self.weight)
        if self.bias is not None and bias is not None:
            self.bias.data = bias
            self.bias.__class__ = nn.Parameter
        self.weight.data = weight
        self.weight.__class__ = nn.Parameter
        self.in_features = in_features

    def _first_values(
        self, in_features: int, use_bias: bool, like: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """First values of weight and bias, of the dtype and on the device of a tensor."""
        in_features = _checks.positive_int("in_features", in_features)
        place: Any = {"device": like.device, "dtype": like.dtype}
        weight = _filled(self.kernel_initializer, shape=(self.units, in_features), **place)
        if not use_bias:
            return weight, None
        return weight, _filled(self.bias_initializer, shape=(self.units,), **place)

    def reset_parameters(self) -> None:
        """Draws new first values."""
        with torch.no_grad():
            self.weight.copy_(_filled(self.kernel_initializer, **_place(self.weight)))
            if self.bias is not None:
                self.bias.copy_(_filled(self.bias_initializer, **_place(self.bias)))

    def forward(self, x: Tensor) -> Tensor:
        """Returns activation(x @ weight.T + bias).

        Args:
            x: Shape (..., in_features).

        Returns:
            Shape (..., units).

        Raises:
            ValueError: x has another number of features.
        """
        if is_scripting():  # which looks up no names
            return self._function(nn.functional.linear(x, self.weight, self.bias))
        if self._fused is not None:
            return self._linear(x, self._fused)
        return self._function(self._linear(x))

    def logits(self, x: Tensor) -> Tensor:
        """Returns z = x @ weight.T + bias, shape (..., units): forward without the activation."""
        return self._linear(x)

    def _linear(self, x: Tensor, activation: Any = None) -> Tensor:
        if self.in_features is None:
            self._build_for(x)
        try:
            return ops.dense(x, self.weight, self.bias, activation)
        except ValueError:
            # After the fact, so that tracers see no look at a shape, and good calls pay for none.
            if x.ndim:
                self._check_features(x.shape[-1])
            raise

    def _build_for(self, x: Any) -> None:
        """Builds the layer by its first input."""
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}")
        self.build(tuple(x.shape[-1:]))

    def get_weights(self) -> list[Any]:
        """Returns copies as numpy arrays: the kernel, (in_features, units), and the bias; an empty
        list until the layer is built."""
        if not self.built:
            return []
        kernel = _array(self.weight.t())
        return [kernel] if self.bias is None else [kernel, _array(self.bias)]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Takes what get_weights gives; builds the layer if need be.

        Raises:
            ValueError: The number of arrays or a shape is wrong; nothing has changed then.
        """
        parameters = [self.weight] if self.bias is None else [self.weight, self.bias]
        values = [_checks.tensor("weights", value) for value in weights]
        if len(values) != len(parameters):
            raise ValueError(
                f"weights of {self._called()} must be {len(parameters)} arrays, got {len(values)}"
            )
        shapes = [tuple(value.shape) for value in values]
        in_features = self.in_features or (shapes[0][0] if shapes[0] else 0)
        wanted = [(in_features, self.units), (self.units,)][: len(parameters)]
        if shapes != wanted:
            raise ValueError(f"weights of {self._called()} must have shapes {wanted}, got {shapes}")
        self.build(in_features)
        with torch.no_grad():
            for parameter, value in zip(parameters, values, strict=True):
                parameter.copy_(value.t())

    def extra_repr(self) -> str:
        is_identity = self.activation == "identity"
        return self._repr(
            self.units,
            activation=None if is_identity else activations.label(self.activation),
            use_bias=False if self.bias is None else None,
            in_features=self.in_features,
        )

    def _check_features(self, in_features: int) -> None:
        if in_features != self.in_features:
            raise ValueError(
                f"{self._called()} expects {self.in_features} features, got {in_features}"
            ) from None

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # Parameters that are not built cannot be detached.
        super()._save_to_state_dict(destination, prefix, keep_vars or not self.built)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        weight = state_dict.get(prefix + "weight")
        is_given = not self.built and weight is not None and not is_lazy(weight)
        if is_given and weight.ndim == 2 and len(weight) == self.units:  # others PyTorch refuses
            self.build(weight.shape[1])
        super()._load_from_state_dict(state_dict, prefix, *args)


class _UnbuiltParameter(UninitializedParameter):
    """An UninitializedParameter that pickles with its device and dtype."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self), (self.requires_grad, self.device, self.dtype)


def _unbuilt(device: Any, dtype: torch.dtype | None) -> nn.Parameter:
    # torch's stub of UninitializedParameter is behind its source.
    return _UnbuiltParameter(device=device, dtype=dtype)  # type: ignore[call-arg, return-value]


def _filled(
    initializer: initializers.Filler,
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """First values, drawn on the CPU: a seed gives the same ones on every device."""
    # The first input may come in inference mode; the parameters must still be able to learn.
    with torch.inference_mode(False):
        values = torch.empty(shape, device="meta" if device.type == "meta" else "cpu", dtype=dtype)
        initializer(values)
        return values.to(device)


def _place(tensor: Tensor) -> dict[str, Any]:
    return {"shape": tuple(tensor.shape), "device": tensor.device, "dtype": tensor.dtype}


def _array(tensor: Tensor) -> Any:
    """A numpy array of its own; bfloat16, which numpy lacks, becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy().copy()
