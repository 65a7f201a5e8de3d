"""Activations that are layers, with settings of their own."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchnn import _checks, initializers, regularizers
from torchnn.activations import OPTIONS
from torchnn.layers._lazy import LazyLayer
from torchnn.layers._weightless import Activation

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from torchnn.layers._base import Options


class ReLU(Activation):
    """max(x, 0); or min(x, max_value) above threshold, and negative_slope (x - threshold) below.

    Args:
        max_value: A number of at least 0, or None.
        negative_slope: A number of at least 0.
        threshold: A number of at least 0.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.
    """

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **options: "Unpack[Options]",
    ):
        settings = {
            "negative_slope": _checks.non_negative_float("negative_slope", negative_slope),
            "threshold": _checks.non_negative_float("threshold", threshold),
        }
        if max_value is not None:
            settings["max_value"] = _checks.non_negative_float("max_value", max_value)
        is_plain = not any(settings.values()) and max_value is None
        super().__init__("relu" if is_plain else partial(OPTIONS["relu"], **settings), **options)
        self.max_value = settings.get("max_value")
        self.negative_slope, self.threshold = settings["negative_slope"], settings["threshold"]

    def extra_repr(self) -> str:
        return self._repr(
            max_value=self.max_value,
            negative_slope=self.negative_slope or None,
            threshold=self.threshold or None,
        )


class LeakyReLU(Activation):
    """x where x > 0, else negative_slope x.

    Args:
        negative_slope: A number of at least 0. Older programs call it alpha.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.
    """

    def __init__(self, negative_slope: float = 0.3, **options: "Unpack[Options]"):
        own: Any = options
        slope = _checks.non_negative_float("negative_slope", own.pop("alpha", negative_slope))
        super().__init__(partial(OPTIONS["leaky_relu"], negative_slope=slope), **options)
        self.negative_slope = slope

    def extra_repr(self) -> str:
        return self._repr(self.negative_slope)


class ELU(Activation):
    """x where x > 0, else alpha (e^x - 1).

    Args:
        alpha: The number.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.
    """

    def __init__(self, alpha: float = 1.0, **options: "Unpack[Options]"):
        alpha = _checks.number("alpha", alpha)
        super().__init__("elu" if alpha == 1 else partial(OPTIONS["elu"], alpha=alpha), **options)
        self.alpha = alpha

    def extra_repr(self) -> str:
        return self._repr(self.alpha)


class Softmax(Activation):
    """e^x / sum(e^x) over an axis.

    Args:
        axis: The axis.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.
    """

    def __init__(self, axis: int = -1, **options: "Unpack[Options]"):
        axis = _checks.integer("axis", axis)
        is_plain = axis == -1
        super().__init__(
            "softmax" if is_plain else partial(OPTIONS["softmax"], axis=axis), **options
        )
        self.axis = axis

    def extra_repr(self) -> str:
        return self._repr(self.axis)


class PReLU(LazyLayer):
    """x where x > 0, else alpha x, with a number alpha to learn for each feature.

    Args:
        alpha_initializer: First values of alpha.
        alpha_regularizer: A penalty on it.
        alpha_constraint: What it is made to obey.
        shared_axes: Axes of x along which alpha is the same; the samples count as axis 0.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.
    """

    _named = {"alpha": "alpha"}  # noqa: RUF012 (as in Layer)
    alpha: torch.nn.Parameter

    def __init__(
        self,
        alpha_initializer: str | initializers.Filler | None = "zeros",
        alpha_regularizer: str | regularizers.Penalty | None = None,
        alpha_constraint: Any = None,
        shared_axes: int | Sequence[int] | None = None,
        **options: "Unpack[Options]",
    ):
        settings = {
            "alpha_initializer": alpha_initializer,
            "alpha_regularizer": alpha_regularizer,
            "alpha_constraint": alpha_constraint,
        }
        super().__init__(settings, options)
        axes = shared_axes if isinstance(shared_axes, (list, tuple)) else [shared_axes]
        self.shared_axes = [
            _checks.positive_int("each shared axis", axis) for axis in axes if axis is not None
        ]
        self._declare("alpha")

    def forward(self, x: Tensor) -> Tensor:
        if not self.built:
            self.build(tuple(x.shape))
        wanted = self._shape_of_weights(tuple(x.shape))
        if self.alpha.shape != wanted:
            raise ValueError(
                f"{self._called()} expects x for numbers of shape {tuple(self.alpha.shape)}, "
                f"got shape {tuple(x.shape)}"
            )
        return x.clamp(min=0) + self.alpha * x.clamp(max=0)

    def _shape_of_weights(self, input_shape: tuple[int | None, ...]) -> tuple[int, ...]:
        return tuple(
            1 if axis in self.shared_axes else _checks.positive_int("each size of x", size)
            for axis, size in enumerate(input_shape)
        )[1:]

    def extra_repr(self) -> str:
        return self._repr(shared_axes=self.shared_axes or None)
