"""The layers that have no weights to learn: they shape, scale or drop what goes into them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchnn import _checks, activations
from torchnn.layers._base import Layer


class Activation(Layer):
    """activation(x), for an activation with a name or any function of a tensor.

    Args:
        activation: A name, a function or a module.
        name: What messages and summaries call the layer.
    """

    def __init__(self, activation: activations.Activation, *, name: str | None = None):
        super().__init__(name)
        self.activation = activations.get(activation)

    def forward(self, x: Tensor) -> Tensor:
        return activations.apply(self.activation, x)

    def logits(self, x: Tensor) -> Tensor:
        """Returns x: forward without the activation."""
        return x

    def extra_repr(self) -> str:
        label = activations.label(self.activation)
        return self._repr(*([] if label is None else [label]))


class Input(Layer):
    """x itself, after a look at its shape.

    At the head of a Sequential it says what comes in, so that all layers are built at once.

    Args:
        shape: The shape of one sample: (400,) for x of shape (N, 400).
        name: What messages and summaries call the layer.
    """

    def __init__(self, shape: Sequence[int], *, name: str | None = None):
        super().__init__(name)
        if not isinstance(shape, Sequence) or isinstance(shape, str):
            raise TypeError(f"shape must be a tuple of integers such as (400,), got {shape!r}")
        self.shape = tuple(_checks.positive_int("each size in shape", size) for size in shape)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.shape:
            wanted = ", ".join(["N", *map(str, self.shape)])
            raise ValueError(
                f"{self._called()} expects x of shape ({wanted}), got {tuple(x.shape)}"
            )
        return x

    def extra_repr(self) -> str:
        return self._repr(self.shape)


class Flatten(Layer):
    """Each sample in one row: (N, ...) becomes (N, features)."""

    def __init__(self, *, name: str | None = None):
        super().__init__(name)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)

    def extra_repr(self) -> str:
        return self._repr()


class Rescaling(Layer):
    """x * scale + offset; `Rescaling(1 / 255)` takes 8-bit images to [0, 1].

    Args:
        scale: The factor.
        offset: What is added after it.
        name: What messages and summaries call the layer.
    """

    def __init__(self, scale: float, offset: float = 0.0, *, name: str | None = None):
        super().__init__(name)
        self.scale = _checks.number("scale", scale)
        self.offset = _checks.number("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.offset

    def extra_repr(self) -> str:
        return self._repr(self.scale, offset=self.offset or None)


class Normalization(Layer):
    """(x - mean) / max(sqrt(variance), 1e-7), feature by feature.

    Mean and variance are given, or learned from data by adapt; they are buffers, not parameters.

    Args:
        axis: The axis whose entries each have a mean and a variance of their own, or None for one
            mean and one variance of everything.
        mean: A number, or one for each feature.
        variance: Likewise.
        name: What messages and summaries call the layer.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        axis: int | None = -1,
        mean: Any = None,
        variance: Any = None,
        *,
        name: str | None = None,
    ):
        super().__init__(name)
        if (mean is None) != (variance is None):
            raise ValueError("mean and variance must be given both or neither")
        self.axis = axis
        # Empty until adapt; yet there, so that they move with the module.
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("variance", torch.empty(0))
        if mean is not None:
            self._set(_checks.tensor("mean", mean), _checks.tensor("variance", variance))

    def adapt(self, data: Any) -> None:
        """Takes mean and variance from data.

        Args:
            data: Samples, shape (N, ...); an array or a tensor.

        Raises:
            ValueError: data is empty, has no such axis, or holds NaN or infinities.
        """
        data = _checks.tensor("data", data).double()
        axes = list(range(data.ndim))
        if self.axis is not None:
            if not -data.ndim < self.axis < data.ndim or self.axis == 0:
                raise ValueError(
                    f"data of shape {tuple(data.shape)} has no axis {self.axis} beside the samples"
                )
            axes.pop(self.axis)
        if data.numel() == 0 or not data.isfinite().all():
            raise ValueError("data must have samples, all of them finite")
        self._set(data.mean(axes), data.var(axes, correction=0))

    def forward(self, x: Tensor) -> Tensor:
        if self.mean.numel() == 0:
            raise ValueError(f"{self._called()} knows no mean yet: call adapt(data) first")
        mean, variance = self._fitted(self.mean, x), self._fitted(self.variance, x)
        return (x - mean) / variance.sqrt().clamp(min=1e-7)

    def _set(self, mean: Tensor, variance: Tensor) -> None:
        if mean.shape != variance.shape or mean.ndim > (self.axis is not None):
            raise ValueError(
                f"mean and variance must be numbers or one number per feature, "
                f"got shapes {tuple(mean.shape)} and {tuple(variance.shape)}"
            )
        if (variance < 0).any():
            raise ValueError("variance must not be negative")
        self.mean, self.variance = mean.to(self.mean), variance.to(self.variance)

    def _fitted(self, statistic: Tensor, x: Tensor) -> Tensor:
        """A statistic of shape (features,) or () in a shape that goes with x."""
        if self.axis is None or statistic.ndim == 0:
            return statistic
        if x.shape[self.axis] != len(statistic):
            raise ValueError(
                f"{self._called()} expects {len(statistic)} features, got {x.shape[self.axis]}"
            )
        return statistic.reshape(-1, *[1] * (x.ndim - 1 - self.axis % x.ndim))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for name, buffer in list(self._buffers.items()):
            if buffer is not None and prefix + name in state_dict:
                self._buffers[name] = buffer.new_empty(state_dict[prefix + name].shape)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return self._repr(self.axis)


class Dropout(Layer):
    """In training, zeroes each entry with probability rate and divides the others by 1 - rate.

    In evaluation mode it is the identity.

    Args:
        rate: The probability, in [0, 1).
        name: What messages and summaries call the layer.

    Source: Srivastava et al., Dropout: A simple way to prevent neural networks from overfitting,
    2014.
    """

    def __init__(self, rate: float, *, name: str | None = None):
        super().__init__(name)
        self.rate = _checks.fraction("rate", rate)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.rate, self.training)

    def extra_repr(self) -> str:
        return self._repr(self.rate)
