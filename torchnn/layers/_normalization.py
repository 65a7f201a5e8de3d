"""Layers that normalize what goes through them, and learn scales and offsets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchnn import _checks, initializers, regularizers
from torchnn.layers._lazy import LazyLayer
from torchnn.layers._variables import Variable

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from torchnn.layers._base import Options


class _Normalizing(LazyLayer):
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, of whatever mean and variance."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    axis: Any
    epsilon: float

    def _axes(self, ndim: int) -> list[int]:
        """The axes that have weights of their own, counted from the first."""
        given = self.axis if isinstance(self.axis, list) else [self.axis]
        axes = sorted({axis % ndim for axis in given if -ndim <= axis < ndim})
        if len(axes) != len(given) or 0 in axes:
            raise ValueError(f"{self._called()} expects x with the axis {self.axis} beside samples")
        return axes

    def _shape_of_weights(self, input_shape: tuple[int | None, ...]) -> tuple[int, ...]:
        axes = self._axes(len(input_shape))
        return tuple(_checks.positive_int("each size of x", input_shape[axis]) for axis in axes)

    def _normalized(self, x: Tensor, mean: Tensor, variance: Tensor, shape: list[int]) -> Tensor:
        """Does it, in a shape of the weights that goes with x."""
        out = (x - mean) * (variance + self.epsilon).rsqrt()
        if self.weight is not None:
            out = out * self.weight.reshape(shape)
        return out if self.bias is None else out + self.bias.reshape(shape)

    def _fitted(self, x: Tensor) -> tuple[list[int], list[int]]:
        """Builds the layer if need be; returns the axes of x with weights of their own, and the
        shape that weights have beside x."""
        if not self.built:
            self.build(tuple(x.shape))
        axes = self._axes(x.ndim)
        sizes = [x.shape[axis] for axis in axes]
        for tensor in self._tensors().values():
            if list(tensor.shape) != sizes:
                wanted, got = ("x".join(map(str, each)) for each in (tensor.shape, sizes))
                raise ValueError(f"{self._called()} expects {wanted} features, got {got}")
        return axes, [size if axis in axes else 1 for axis, size in enumerate(x.shape)]

    @property
    def gamma(self) -> Variable | None:
        """The scale, or None."""
        return self._variable("gamma")

    @property
    def beta(self) -> Variable | None:
        """The offset, or None."""
        return self._variable("beta")

    def _variable(self, name: str) -> Variable | None:
        return next((variable for variable in self.weights if variable.name == name), None)


class BatchNormalization(_Normalizing):
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, feature by feature.

    In training, mean and variance are those of the batch, and moving averages follow them:
    moving = momentum * moving + (1 - momentum) * batch. In evaluation, and where trainable is
    False, they are the moving averages. Both variances are sums over N, where `nn.BatchNorm1d` has
    one over N - 1 in its moving average.

    Args:
        axis: The axis of the features.
        momentum: In [0, 1); PyTorch calls 1 - momentum so.
        epsilon: A number above 0.
        center: Whether there is a beta.
        scale: Whether there is a gamma.
        beta_initializer: First values of beta; likewise of the others.
        gamma_initializer: See there.
        moving_mean_initializer: See there.
        moving_variance_initializer: See there.
        beta_regularizer: A penalty on beta; likewise on gamma.
        gamma_regularizer: See there.
        beta_constraint: What beta is made to obey after each step; likewise gamma.
        gamma_constraint: See there.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.

    Attributes:
        weight, bias: gamma and beta as parameters, shape (features,), or None.
        running_mean, running_var: The moving averages, buffers of the same shape.

    Source: Ioffe and Szegedy, Batch normalization: Accelerating deep network training by reducing
    internal covariate shift, 2015.
    """

    running_mean: Tensor
    running_var: Tensor
    _named = {  # noqa: RUF012 (as in Layer)
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: str | initializers.Filler | None = "zeros",
        gamma_initializer: str | initializers.Filler | None = "ones",
        moving_mean_initializer: str | initializers.Filler | None = "zeros",
        moving_variance_initializer: str | initializers.Filler | None = "ones",
        beta_regularizer: str | regularizers.Penalty | None = None,
        gamma_regularizer: str | regularizers.Penalty | None = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **options: "Unpack[Options]",
    ):
        settings = {
            "beta_initializer": beta_initializer,
            "gamma_initializer": gamma_initializer,
            "moving_mean_initializer": moving_mean_initializer,
            "moving_variance_initializer": moving_variance_initializer,
            "beta_regularizer": beta_regularizer,
            "gamma_regularizer": gamma_regularizer,
            "beta_constraint": beta_constraint,
            "gamma_constraint": gamma_constraint,
        }
        super().__init__(settings, options)
        self.axis = _checks.integer("axis", axis)
        self.momentum = _checks.fraction("momentum", momentum)
        self.epsilon = _checks.positive_float("epsilon", epsilon)
        self.center, self.scale = _checks.truth("center", center), _checks.truth("scale", scale)
        self._declare("weight", self.scale)
        self._declare("bias", self.center)
        # Empty until they are built; yet there, so that they move with the module.
        self.register_buffer("running_mean", torch.empty(0))
        self.register_buffer("running_var", torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        axes, shape = self._fitted(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # halves would overflow
        if self.training and self.trainable:
            others = [axis for axis in range(x.ndim) if axis not in axes]
            variance, mean = self._moments(wide, others)
            self._follow(mean.detach(), variance.detach())
        else:
            mean, variance = self.running_mean, self.running_var
        return self._normalized(wide, mean.reshape(shape), variance.reshape(shape), shape).to(x)

    def _moments(self, x: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
        """Variance and mean over these axes; processes that train together put theirs in its
        place, of all that they have of a batch."""
        return torch.var_mean(x, axes, correction=0)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Lets the moving averages follow those of a batch."""
        with torch.no_grad():
            for moving, new in ((self.running_mean, mean), (self.running_var, variance)):
                moving.lerp_(new.to(moving), 1 - self.momentum)

    @property
    def moving_mean(self) -> Variable | None:
        """The moving average of the mean, or None before it is built."""
        return self._variable("moving_mean")

    @property
    def moving_variance(self) -> Variable | None:
        """The moving average of the variance, or None before it is built."""
        return self._variable("moving_variance")

    def extra_repr(self) -> str:
        return self._repr(
            self.axis,
            momentum=self.momentum,
            epsilon=self.epsilon,
            center=None if self.center else False,
            scale=None if self.scale else False,
        )


class LayerNormalization(_Normalizing):
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, of each sample's own mean and variance.

    Args:
        axis: The axis, or axes, that they are of, and that gamma and beta have.
        epsilon: A number above 0.
        center: Whether there is a beta.
        scale: Whether there is a gamma.
        beta_initializer: First values of beta; likewise of gamma.
        gamma_initializer: See there.
        beta_regularizer: A penalty on beta; likewise on gamma.
        gamma_regularizer: See there.
        beta_constraint: What beta is made to obey after each step; likewise gamma.
        gamma_constraint: See there.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.

    Attributes:
        weight, bias: gamma and beta as parameters, or None.

    Source: Ba, Kiros and Hinton, Layer normalization, 2016.
    """

    _named = {"gamma": "weight", "beta": "bias"}  # noqa: RUF012 (as in Layer)

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: str | initializers.Filler | None = "zeros",
        gamma_initializer: str | initializers.Filler | None = "ones",
        beta_regularizer: str | regularizers.Penalty | None = None,
        gamma_regularizer: str | regularizers.Penalty | None = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **options: "Unpack[Options]",
    ):
        settings = {
            "beta_initializer": beta_initializer,
            "gamma_initializer": gamma_initializer,
            "beta_regularizer": beta_regularizer,
            "gamma_regularizer": gamma_regularizer,
            "beta_constraint": beta_constraint,
            "gamma_constraint": gamma_constraint,
        }
        super().__init__(settings, options)
        is_one = not isinstance(axis, (list, tuple))
        axes = [_checks.integer("axis", each) for each in ([axis] if is_one else axis)]  # type: ignore[union-attr]
        self.axis = axes[0] if is_one else axes
        self.epsilon = _checks.positive_float("epsilon", epsilon)
        self.center, self.scale = _checks.truth("center", center), _checks.truth("scale", scale)
        self._declare("weight", self.scale)
        self._declare("bias", self.center)

    def forward(self, x: Tensor) -> Tensor:
        axes, shape = self._fitted(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # halves would overflow
        variance, mean = torch.var_mean(wide, axes, correction=0, keepdim=True)
        return self._normalized(wide, mean, variance, shape).to(x)

    def extra_repr(self) -> str:
        return self._repr(
            self.axis,
            epsilon=self.epsilon,
            center=None if self.center else False,
            scale=None if self.scale else False,
        )
