"""The dense layer: what every network of this package is made of."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._jit_internal import is_scripting
from torch.nn.parameter import is_lazy

from torchnn import _checks, activations, constraints, initializers, ops, regularizers
from torchnn.layers._base import Layer, Options
from torchnn.layers._building import unbuilt as _unbuilt
from torchnn.layers._lazy import filled as _filled
from torchnn.layers._symbols import Shape
from torchnn.layers._variables import PROPERTIES, Variable, variables

if TYPE_CHECKING:
    from typing_extensions import Unpack

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
            shape (units, in_features) in place; None is the default.
        bias_initializer: The same for the bias, of shape (units,).
        kernel_regularizer: A penalty on the kernel, (in_features, units), that is part of the loss:
            a name from torchnn.regularizers, or a function from a tensor to one number.
        bias_regularizer: The same on the bias.
        activity_regularizer: The same on the output, divided by the number of samples.
        kernel_constraint: What the kernel is made to obey after each step: a name from
            torchnn.constraints, or a function from a tensor to what it is to become.
        bias_constraint: The same for the bias.
        in_features: The number of inputs, to build the layer at once.
        device: Where the parameters are.
        dtype: Their dtype; the default dtype if None.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.

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
    __jit_ignored_attributes__ = (  # by TorchScript
        *("activation", "kernel_initializer", "bias_initializer", "activity_regularizer"),
        *("kernel_regularizer", "bias_regularizer", "kernel_constraint", "bias_constraint"),
    )
    __jit_unused_properties__ = (*PROPERTIES, "built", "kernel", "use_bias")
    _named = {"kernel": "weight", "bias": "bias"}  # noqa: RUF012 (TorchScript reads annotations)
    if TYPE_CHECKING:  # which would read this, too
        _function: Callable[[Tensor], Tensor]
        _fused: str | None

    def __init__(
        self,
        units: int,
        activation: activations.Activation | None = None,
        use_bias: bool = True,
        kernel_initializer: str | initializers.Filler | None = "glorot_uniform",
        bias_initializer: str | initializers.Filler | None = "zeros",
        kernel_regularizer: str | regularizers.Penalty | None = None,
        bias_regularizer: str | regularizers.Penalty | None = None,
        activity_regularizer: str | regularizers.Penalty | None = None,
        kernel_constraint: str | Callable[[Tensor], Any] | None = None,
        bias_constraint: str | Callable[[Tensor], Any] | None = None,
        *,
        in_features: int | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | str | None = None,
        **options: "Unpack[Options]",
    ):
        super().__init__(**options)
        dtype = _checks.dtype("dtype", dtype)
        use_bias = _checks.truth("use_bias", use_bias)
        self.units = self.out_features = _checks.positive_int("units", units)
        self.activation = activation  # type: ignore[assignment]
        self.kernel_initializer = initializers.get(kernel_initializer, "glorot_uniform")
        self.bias_initializer = initializers.get(bias_initializer, "zeros")
        self.kernel_regularizer = regularizers.get(kernel_regularizer, "kernel_regularizer")
        self.bias_regularizer = regularizers.get(bias_regularizer, "bias_regularizer")
        self.activity_regularizer = regularizers.get(activity_regularizer, "activity_regularizer")
        self.kernel_constraint = constraints.get(kernel_constraint, "kernel_constraint")
        self.bias_constraint = constraints.get(bias_constraint, "bias_constraint")
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
        if not self._starts_trainable:
            self.trainable = False

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
    def built(self) -> bool:  # type: ignore[override]
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
        self._begin_with(*self._first_values(in_features, self.bias is not None, self.weight))

    def _begin_with(self, weight: Tensor, bias: Tensor | None) -> None:
        """Builds the layer with these values."""
        if self.bias is not None and bias is not None:
            self.bias.data = bias
            self.bias.__class__ = nn.Parameter
        self.weight.data = weight
        self.weight.__class__ = nn.Parameter
        self.in_features = weight.shape[1]

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
            output = self._linear(x, self._fused)
        else:
            # A module is looked up: of a view in evaluation mode, it is a view, too.
            has_module = "activation" in self._modules
            function: Any = self.activation if has_module else self._function
            output = function(self._linear(x))
        return output if self.activity_regularizer is None else self._observed(output)

    def logits(self, x: Tensor) -> Tensor:
        """Returns z = x @ weight.T + bias, shape (..., units): forward without the activation."""
        return self._linear(x)

    def _linear(self, x: Tensor, activation: Any = None) -> Tensor:
        if self.in_features is None:
            self._build_for(x)
        try:
            return ops.dense(x, self.weight, self.bias, activation)
        except (TypeError, ValueError):
            # After the fact, so that tracers see no look at a shape, and good calls pay for none.
            if isinstance(x, Tensor):
                self._check_input(x)
                if x.ndim:
                    self._check_features(x.shape[-1])
            raise

    def _build_for(self, x: Any) -> None:
        """Builds the layer by its first input."""
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}")
        if not torch.compiler.is_compiling():  # which build refuses
            self._check_input(x)
        self.build(tuple(x.shape[-1:]))

    def _check_input(self, x: Tensor) -> None:
        """Raises an error if x has another dtype or device than the layer."""
        dtype, device = self.weight.dtype, self.weight.device
        kind = x.device.type
        is_cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        if not x.is_floating_point() and not is_cast:
            raise TypeError(f"x must have a floating dtype, got {x.dtype}") from None
        if x.dtype != dtype and not is_cast:
            raise TypeError(
                f"x must have the dtype of {self._called()}, {dtype}, got {x.dtype}: "
                f"x.to({dtype}) has it"
            ) from None
        if x.device != device:
            raise ValueError(
                f"x must be on the device of {self._called()}, {device}, got {x.device}"
            ) from None

    @property
    def kernel(self) -> Variable | None:
        """The weight as Keras has it, shape (in_features, units); None until it is built."""
        return self.weights[0] if self.built else None

    def _weight_shapes(self, given: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        if self.built:
            return super()._weight_shapes(given)
        in_features = given[0][0] if given and given[0] else 0
        own = [(in_features, self.units), (self.units,)][: 1 + (self.bias is not None)]
        others = [child for name, child in self.named_children() if name == "activation"]
        return own + [tuple(v.shape) for child in others for v in variables(child)]

    def _build_by_weights(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self.build(shapes[0][0])

    def _known_shapes(self) -> tuple[Shape, Shape] | None:
        if self._shapes is None and self.built:
            return Shape((None, self.in_features)), Shape((None, self.units))
        return self._shapes

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


def _place(tensor: Tensor) -> dict[str, Any]:
    return {"shape": tuple(tensor.shape), "device": tensor.device, "dtype": tensor.dtype}
