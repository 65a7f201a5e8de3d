"""The layers that have no weights to learn: they shape, scale or drop what goes into them."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from torchnn import _checks, activations
from torchnn.layers._base import Layer, Options, sample_shape
from torchnn.layers._symbols import Symbolic

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Activation(Layer):
    """activation(x), for an activation with a name or any function of a tensor.

    Args:
        activation: A name, a function or a module.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.
    """

    def __init__(self, activation: activations.Activation, **options: "Unpack[Options]"):
        super().__init__(**options)
        self.activation = activations.get(activation)

    def forward(self, x: Tensor) -> Tensor:
        return activations.apply(self.activation, x)

    def logits(self, x: Tensor) -> Tensor:
        """Returns x: forward without the activation."""
        return x

    def extra_repr(self) -> str:
        label = activations.label(self.activation)
        return self._repr(*([] if label is None else [label]))


class Input(Symbolic, Layer):
    """x itself, after a look at its shape.

    At the head of a Sequential it says what comes in, so that all layers are built at once. Layers
    that are called on it make a graph, of which Model(inputs, outputs) is the model.

    Args:
        shape: The shape of one sample: (400,), or 400, for x of shape (N, 400).
        batch_size: How many samples the program means to give; any other number will do, too.
        dtype: A floating one; x comes in whatever the layers behind are of.
        batch_shape: In place of the first two, both: (None, 400).
        name: What messages and summaries call the layer, and a dict of inputs its part.
    """

    batch_shape: None = None  # which is told by the two that it stands for

    def __init__(
        self,
        shape: Sequence[int] | int | None = None,
        batch_size: int | None = None,
        dtype: torch.dtype | str | None = None,
        *,
        batch_shape: Sequence[int | None] | None = None,
        name: str | None = None,
    ):
        Layer.__init__(self, name)
        if batch_shape is not None:
            batch_size, shape = _of_batch(batch_shape, shape, batch_size)
        self.sample_shape = sample_shape("shape", shape)
        self.batch_size = (
            None if batch_size is None else _checks.positive_int("batch_size", batch_size)
        )
        self.dtype = _checks.dtype("dtype", dtype) or torch.get_default_dtype()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.sample_shape:
            wanted = ", ".join(["N", *map(str, self.sample_shape)])
            raise ValueError(
                f"{self._called()} expects x of shape ({wanted}), got {tuple(x.shape)}"
            )
        return x

    def extra_repr(self) -> str:
        return self._repr(self.sample_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns the shape of a sample and the other arguments."""
        return {**super().get_config(), "shape": self.sample_shape}

    @property
    def input(self) -> "Input":
        """Itself: it is a symbol."""
        return self

    output = input


class InputLayer(Input):
    """An Input, as a layer of this name.

    Args:
        shape: The shape of one sample: (400,) for x of shape (N, 400).
        batch_size: As Input takes it.
        dtype: As Input takes it.
        input_shape: The same as shape, as older programs call it.
        batch_shape: As Input takes it.
        name: What messages and summaries call the layer.
    """

    def __init__(
        self,
        shape: Sequence[int] | int | None = None,
        batch_size: int | None = None,
        dtype: torch.dtype | str | None = None,
        *,
        input_shape: Sequence[int] | int | None = None,
        batch_shape: Sequence[int | None] | None = None,
        name: str | None = None,
    ):
        shape = input_shape if shape is None else shape
        super().__init__(shape, batch_size, dtype, batch_shape=batch_shape, name=name)


class Reshape(Layer):
    """Each sample in another shape: (N, ...) becomes (N, *target_shape).

    Args:
        target_shape: The sizes; one of them may be -1, for what is left.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.
    """

    def __init__(self, target_shape: Sequence[int], **options: "Unpack[Options]"):
        super().__init__(**options)
        if not isinstance(target_shape, Sequence) or isinstance(target_shape, str):
            raise TypeError(f"target_shape must be a tuple of integers, got {target_shape!r}")
        self.target_shape = tuple(
            size if size == -1 else _checks.positive_int("each size in target_shape", size)
            for size in target_shape
        )
        if self.target_shape.count(-1) > 1:
            raise ValueError(f"target_shape must have -1 once at most, got {self.target_shape}")

    def forward(self, x: Tensor) -> Tensor:
        wanted, held = math.prod(self.target_shape), math.prod(x.shape[1:])
        if wanted != held and (wanted > 0 or held % wanted):
            raise ValueError(
                f"{self._called()} makes samples of shape {self.target_shape}, "
                f"got {tuple(x.shape[1:])}"
            )
        sizes = [held // -wanted if size == -1 else size for size in self.target_shape]
        return x.reshape(len(x), *sizes)

    def extra_repr(self) -> str:
        return self._repr(self.target_shape)


class Flatten(Layer):
    """Each sample in one row: (N, ...) becomes (N, features).

    Args:
        data_format: None or "channels_last": what comes in is taken as it is.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.
    """

    def __init__(self, data_format: str | None = None, **options: "Unpack[Options]"):
        super().__init__(**options)
        if data_format is not None:
            _checks.choice("data_format", data_format, ("channels_last",))
        self.data_format = data_format

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)

    def extra_repr(self) -> str:
        return self._repr()


class Rescaling(Layer):
    """x * scale + offset; `Rescaling(1 / 255)` takes 8-bit images to [0, 1].

    Args:
        scale: The factor: a number, or an array of the last axes of x, such as one number for each
            feature, which becomes a buffer.
        offset: What is added after it; likewise.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.
    """

    scale: Any
    offset: Any

    def __init__(self, scale: Any, offset: Any = 0.0, **options: "Unpack[Options]"):
        super().__init__(**options)
        self._keep("scale", scale)
        self._keep("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        self._check(self.scale, x)
        self._check(self.offset, x)
        return x * self.scale + self.offset

    def extra_repr(self) -> str:
        values = self.scale, self.offset
        scale, offset = (v.tolist() if isinstance(v, Tensor) else v for v in values)
        return self._repr(scale, offset=offset or None)

    def _keep(self, name: str, value: Any) -> None:
        """Takes in a number as it is, and an array as a buffer."""
        if isinstance(value, (Tensor, np.ndarray, list, tuple)):
            tensor = _checks.tensor(name, value)
            if tensor.ndim:
                _check_finite(name, tensor)
                self.register_buffer(name, tensor.to(torch.empty(0)))
                return
            value = tensor.item()
        setattr(self, name, _checks.number(name, value))

    def _check_axes(self, shape: Sequence[int]) -> None:
        """Raises ValueError if samples of a shape do not fit."""
        x = torch.empty(1, *shape, device="meta")
        self._check(self.scale, x)
        self._check(self.offset, x)

    def _check(self, value: Any, x: Tensor) -> None:
        """Raises ValueError if an array would stretch x."""
        if not isinstance(value, Tensor):
            return
        axes = zip(reversed(value.shape), reversed(x.shape), strict=False)
        if value.ndim > x.ndim or any(n not in (1, wanted) for n, wanted in axes):
            raise ValueError(
                f"{self._called()} expects x with the last axes {tuple(value.shape)}, "
                f"got shape {tuple(x.shape)}"
            )


class Normalization(Layer):
    """(x - mean) / max(sqrt(variance), 1e-7), feature by feature.

    Mean and variance are given, or learned from data by adapt; they are buffers, not parameters.

    Args:
        axis: The axis whose entries each have a mean and a variance of their own; several axes, in
            a tuple, if each combination of their entries has; or None for one mean and one variance
            of everything.
        mean: A number, or one for each feature; for several axes, an array of their shape.
        variance: Likewise.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        axis: int | Sequence[int] | None = -1,
        mean: Any = None,
        variance: Any = None,
        **options: "Unpack[Options]",
    ):
        super().__init__(**options)
        if (mean is None) != (variance is None):
            raise ValueError("mean and variance must be given both or neither")
        self.axis = _axis(axis)
        # Empty until adapt; yet there, so that they move with the module.
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("variance", torch.empty(0))
        if mean is not None:
            self._set(_checks.tensor("mean", mean), _checks.tensor("variance", variance))

    def adapt(self, data: Any) -> None:
        """Takes mean and variance from data.

        Args:
            data: Samples, shape (N, ...): an array or a tensor; or batches of them, in a
                DataLoader, any other iterable, or a list if their sizes differ. Of batches (x, y),
                x counts.

        Raises:
            ValueError: data is empty, has no such axis, or holds NaN or infinities.
        """
        moments = None
        for batch in _batches(data):
            found = self._moments(_checks.tensor("data", batch).double())
            moments = found if moments is None else moments.joined(found)
        if moments is None:
            raise ValueError("data must have samples, all of them finite")
        self._set(moments.mean, moments.variance)

    def forward(self, x: Tensor) -> Tensor:
        if self.mean.numel() == 0:
            raise ValueError(f"{self._called()} knows no mean yet: call adapt(data) first")
        mean, variance = self._fitted(self.mean, x), self._fitted(self.variance, x)
        return (x - mean) / variance.sqrt().clamp(min=1e-7)

    def _check_axes(self, shape: Sequence[int]) -> None:
        """Raises ValueError if samples of a shape do not fit, also before adapt."""
        x = torch.empty(1, *shape, device="meta")
        if self.mean.numel() == 0:
            self._kept(x)
        else:
            self._fitted(self.mean, x)

    @property
    def _axes(self) -> tuple[int, ...]:
        """Those with statistics of their own, as they were given."""
        if self.axis is None:
            return ()
        return self.axis if isinstance(self.axis, tuple) else (self.axis,)

    def _kept(self, x: Tensor) -> list[int]:
        """Those axes of x that have statistics of their own, in order, counted from the first."""
        kept = sorted({axis % x.ndim for axis in self._axes if -x.ndim <= axis < x.ndim})
        if len(kept) != len(self._axes):
            raise ValueError(
                f"{self._called()} expects x with the axes {self.axis}, got shape {tuple(x.shape)}"
            )
        return kept

    def _moments(self, data: Tensor) -> "_Moments":
        """Those of a batch."""
        for axis in self._axes:
            if not -data.ndim < axis < data.ndim or axis == 0:
                raise ValueError(
                    f"data of shape {tuple(data.shape)} has no axis {axis} beside the samples"
                )
        kept = self._kept(data)
        if data.numel() == 0 or not data.isfinite().all():
            raise ValueError("data must have samples, all of them finite")
        others = [axis for axis in range(data.ndim) if axis not in kept]
        mean, variance = data.mean(others).cpu(), data.var(others, correction=0).cpu()
        return _Moments(data.numel() // mean.numel(), mean, variance)

    def _set(self, mean: Tensor, variance: Tensor) -> None:
        if mean.shape != variance.shape or mean.ndim not in (0, len(self._axes)):
            raise ValueError(
                f"mean and variance must be numbers or one number per feature, "
                f"got shapes {tuple(mean.shape)} and {tuple(variance.shape)}"
            )
        _check_finite("mean", mean)
        _check_finite("variance", variance)
        if (variance < 0).any():
            raise ValueError("variance must not be negative")
        self.mean, self.variance = mean.to(self.mean), variance.to(self.variance)

    def _fitted(self, statistic: Tensor, x: Tensor) -> Tensor:
        """A statistic in a shape that goes with x."""
        if statistic.ndim == 0:
            return statistic
        kept = self._kept(x)
        found = [x.shape[axis] for axis in kept]
        if found != list(statistic.shape):
            wanted, got = ("x".join(map(str, sizes)) for sizes in (statistic.shape, found))
            raise ValueError(f"{self._called()} expects {wanted} features, got {got}")
        return statistic.reshape([n if d in kept else 1 for d, n in enumerate(x.shape)])

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return config if self.mean.numel() else {**config, "mean": None, "variance": None}

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for name, buffer in list(self._buffers.items()):
            if buffer is not None and prefix + name in state_dict:
                self._buffers[name] = buffer.new_empty(state_dict[prefix + name].shape)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return self._repr(self.axis)


class _Moments(NamedTuple):
    """Mean and variance of so many numbers each, in float64."""

    size: int
    mean: Tensor
    variance: Tensor

    def joined(self, other: "_Moments") -> "_Moments":
        """Returns those of both together, without squares of the numbers, which would cancel."""
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                "all batches of data must have the same features, got shapes "
                f"{tuple(self.mean.shape)} and {tuple(other.mean.shape)}"
            )
        size = self.size + other.size
        share = other.size / size
        step = other.mean - self.mean
        within = self.variance + (other.variance - self.variance) * share
        return _Moments(
            size, self.mean + step * share, within + step.square() * (share * (1 - share))
        )


def _of_batch(batch_shape: Any, shape: Any, batch_size: Any) -> tuple[Any, tuple[Any, ...]]:
    """The number of samples and the shape of one, by the shape of a batch."""
    if shape is not None or batch_size is not None:
        raise ValueError("batch_shape must be given alone, without shape and batch_size")
    if not isinstance(batch_shape, (list, tuple)) or not batch_shape:
        raise TypeError(f"batch_shape must be a tuple such as (None, 400), got {batch_shape!r}")
    return batch_shape[0], tuple(batch_shape[1:])


def _axis(value: Any) -> int | tuple[int, ...] | None:
    """Returns an axis or a tuple of axes, checked."""
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return tuple(_checks.integer("each axis", each) for each in value)
    return _checks.integer("axis", value)


def _batches(data: Any) -> Iterator[Any]:
    """Yields the arrays that data is made of; of an array, itself."""
    if isinstance(data, Dataset):
        raise TypeError("data is a Dataset: wrap it in a torch.utils.data.DataLoader")
    is_one = _is_array(data) or not isinstance(data, Iterable)
    if is_one or (isinstance(data, Sequence) and not _is_uneven(data)):
        yield data
        return
    for batch in data:
        has_targets = isinstance(batch, (list, tuple)) and len(batch) and _is_array(batch[0])
        yield batch[0] if has_targets else batch


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__")  # of NumPy, PyTorch and pandas


def _is_uneven(values: Sequence[Any]) -> bool:
    """Whether these are batches of several sizes, which cannot be one array."""
    return all(_is_array(v) and v.ndim > 1 for v in values) and len({v.shape for v in values}) > 1


def _check_finite(name: str, tensor: Tensor) -> None:
    if not tensor.isfinite().all():
        raise ValueError(f"{name} must be finite, got {tensor.tolist()}")


class Dropout(Layer):
    """In training, zeroes each entry with probability rate and divides the others by 1 - rate.

    In evaluation mode it is the identity. Which entries that are follows from torch's seed; in
    native training from a seed, the step, the row of the batch and the unit alone.

    Args:
        rate: The probability, in [0, 1).
        seed: For native training, one of its own in place of torch's.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.

    Source: Srivastava et al., Dropout: A simple way to prevent neural networks from overfitting,
    2014.
    """

    def __init__(self, rate: float, *, seed: int | None = None, **options: "Unpack[Options]"):
        super().__init__(**options)
        self.rate = _checks.fraction("rate", rate)
        self.seed = None if seed is None else _checks.integer("seed", seed)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.rate, self.training)

    def extra_repr(self) -> str:
        return self._repr(self.rate, seed=self.seed)


class GaussianNoise(Layer):
    """In training, x plus normal noise of mean 0; in evaluation mode, x.

    Args:
        stddev: The noise's standard deviation, at least 0.
        seed: The same noise in each run with this integer; None for PyTorch's seed.
        options: name, trainable, input_shape and input_dim, as any Layer takes them.
    """

    def __init__(self, stddev: float, seed: int | None = None, **options: "Unpack[Options]"):
        super().__init__(**options)
        self.stddev = _checks.non_negative_float("stddev", stddev)
        self.seed = None if seed is None else _checks.non_negative_int("seed", seed)
        self._calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        noise = torch.empty_like(x).normal_(generator=self._generator(x.device))
        return x + self.stddev * noise

    def _generator(self, device: torch.device) -> torch.Generator | None:
        """One that goes on from call to call, or None for PyTorch's own."""
        if self.seed is None:
            return None
        self._calls += 1
        return torch.Generator(device).manual_seed(((self.seed << 32) + self._calls) % 2**63)

    def extra_repr(self) -> str:
        return self._repr(self.stddev, seed=self.seed)


def draws(model: nn.Module) -> dict[str, int]:
    """Returns how often each layer with a seed of its own has drawn from it."""
    noisy = ((n, each) for n, each in model.named_modules() if isinstance(each, GaussianNoise))
    return {name: layer._calls for name, layer in noisy if layer.seed is not None}


def set_draws(model: nn.Module, counts: Mapping[str, int]) -> None:
    """Lets these layers go on after so many draws."""
    for name, count in counts.items():
        setattr(model.get_submodule(name), "_calls", count)  # noqa: B010 (any module's attribute)
