"""First values of weights: objects that fill a tensor of shape (units, in_features) in place.

Names, formulas and default numbers are Keras's. fan_in is in_features, fan_out is units; for a
bias both are its length. Called with a shape of Keras's, (in_features, units), they make a tensor:

    GlorotUniform(seed=1)(shape=(400, 25))

Any function that fills a tensor will do as well, `torch.nn.init`'s too, and so will Keras's kind,
def function(shape, dtype=None), which returns values: it has a first parameter `shape`, or one that
is called `dtype`.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import init

from torchnn import _checks
from torchnn._config import Configured, deserializer, serialize

__all__ = [
    "FUNCTIONS",
    "Constant",
    "Filler",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "constant",
    "deserialize",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity",
    "lecun_normal",
    "lecun_uniform",
    "ones",
    "orthogonal",
    "random_normal",
    "random_uniform",
    "serialize",
    "truncated_normal",
    "variance_scaling",
    "zeros",
]

Filler = Callable[[Tensor], Any]

MODES = ("fan_in", "fan_out", "fan_avg")
DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform")

# The standard deviation of a standard normal that is cut off at -2 and 2.
_TRUNCATED_STD = 0.87962566103423978


def _seed(value: Any) -> int | None:
    return None if value is None else _checks.integer("seed", value)


class Initializer(Configured, ABC):
    """What fills a tensor with first values.

    A call on a tensor fills it in place and returns it. A call with a shape makes a tensor, whose
    last axis are the units, as Keras has it. A call with settings makes another initializer, as the
    functions of Keras's short names do: `random_normal(stddev=0.01)`.

    One with a seed fills tensors of a shape with the same values at each call; without, they follow
    from PyTorch's seed.
    """

    seed: int | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        has_fill = not getattr(cls.fill, "__isabstractmethod__", False)
        if "__call__" in vars(cls) and not has_fill:  # as Keras has it, of a shape
            cls.fill = _fill_by_call  # type: ignore[method-assign]

    def __call__(
        self, *arguments: Any, shape: Any = None, dtype: Any = None, **settings: Any
    ) -> Any:
        if arguments and isinstance(arguments[0], Tensor):
            self.fill(arguments[0], self._generator(arguments[0].device))
            return arguments[0]
        if shape is None and arguments and isinstance(arguments[0], Sequence):
            shape, arguments = arguments[0], arguments[1:]
        if shape is None:
            return type(self)(*arguments, **settings)
        dtype = _checks.dtype("dtype", arguments[0] if arguments else dtype)
        made = torch.empty(_sizes(shape)[::-1], dtype=dtype)
        self.fill(made, self._generator(made.device))
        return _reversed(made).contiguous()

    @abstractmethod
    def fill(self, tensor: Tensor, generator: Generator | None) -> None:
        """Writes first values into a tensor.

        Args:
            tensor: Shape (units, in_features), or (units,) of a bias.
            generator: What to draw them with, or None for PyTorch's own.
        """

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({settings})"

    def _generator(self, device: torch.device) -> Generator | None:
        if self.seed is None or device.type == "meta":
            return None
        return Generator(device).manual_seed(self.seed)


class Zeros(Initializer):
    """All 0."""

    def fill(self, tensor: Tensor, generator: Generator | None) -> None:
        init.zeros_(tensor)


class Ones(Initializer):
    """All 1."""

    def fill(self, tensor: Tensor, generator: Generator | None) -> None:
        init.ones_(tensor)


class Constant(Initializer):
    """All the same number; or the numbers of an array, of shape (in_features, units) or less.

    Args:
        value: The number, or the array.
    """

    def __init__(self, value: Any = 0.0):
        self.value = value
        self._array()

    def fill(self, tensor: Tensor, generator: Generator | None) -> None:
        with torch.no_grad():
            _reversed(tensor).copy_(self._array())

    def _array(self) -> Tensor:
        return _checks.tensor("value", self.value)


class RandomUniform(Initializer):
    """U(minval, maxval).

    Args:
        minval: The least number.
        maxval: The greatest.
        seed: An integer, or None for PyTorch's.
    """

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None):
        self.minval, self.maxval = (
            _checks.number("minval", minval),
            _checks.number("maxval", maxval),
        )
        self.seed = _seed(seed)
        if self.minval > self.maxval:
            raise ValueError(f"maxval must be at least minval, {minval!r}, got {maxval!r}")

    def fill(self, tensor: Tensor, generator: Generator | None) -> None:
        init.uniform_(tensor, self.minval, self.maxval, generator)


class RandomNormal(Initializer):
    """Normal of a mean and a standard deviation.

    Args:
        mean: The mean.
        stddev: The standard deviation.
        seed: An integer, or None for PyTorch's.
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None):
        self.mean = _checks.number("mean", mean)
        self.stddev = _checks.non_negative_float("stddev", stddev)
        self.seed = _seed(seed)

    def fill(self, tensor: Tensor, generator: Generator | None) -> None:
        init.normal_(tensor, self.mean, self.stddev, generator)


class TruncatedNormal(RandomNormal):
    """Normal, cut off at two standard deviations from the mean, so that its own one is less.

    Args:
        mean: The mean.
        stddev: The standard deviation before the cut.
        seed: An integer, or None for PyTorch's.
    """

    def fill(self, tensor: Tensor, generator: Generator | None) -> None:
        if self.stddev:
            _truncated_normal(tensor, self.mean, self.stddev, generator)
        else:
            init.constant_(tensor, self.mean)


class VarianceScaling(Initializer):
    """Numbers of mean 0 and variance scale / fan.

    Args:
        scale: Above 0.
        mode: "fan_in", "fan_out" or "fan_avg", the mean of both.
        distribution: "truncated_normal", cut off at two standard deviations and of this variance
            after the cut; "untruncated_normal"; or "uniform".
        seed: An integer, or None for PyTorch's.
    """

    scale: float
    mode: str
    distribution: str

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ):
        self.scale = _checks.positive_float("scale", scale)
        self.mode = _checks.choice("mode", mode, MODES)
        self.distribution = _checks.choice(
            "distribution",
            "truncated_normal" if distribution == "normal" else distribution,
            DISTRIBUTIONS,
        )
        self.seed = _seed(seed)

    def fill(self, tensor: Tensor, generator: Generator | None) -> None:
        fan_in, fan_out = _fans(tensor)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        std = math.sqrt(self.scale / max(1, fan))
        if self.distribution == "uniform":
            limit = math.sqrt(3) * std
            init.uniform_(tensor, -limit, limit, generator)
        elif self.distribution == "truncated_normal":
            # Wider before the cut, so that the variance is right after it.
            _truncated_normal(tensor, 0.0, std / _TRUNCATED_STD, generator)
        else:
            init.normal_(tensor, 0.0, std, generator)


class _Scaled(VarianceScaling):
    """A variance scaling of which the seed alone can be chosen."""

    def __init__(self, seed: int | None = None):
        self.seed = _seed(seed)


class GlorotUniform(_Scaled):
    """U(-limit, limit) with limit = sqrt(6 / (fan_in + fan_out)).

    Args:
        seed: An integer, or None for PyTorch's.

    Source: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
    networks, 2010.
    """

    scale, mode, distribution = 1.0, "fan_avg", "uniform"


class GlorotNormal(_Scaled):
    """Normal of variance 2 / (fan_in + fan_out), cut off at two standard deviations.

    Args:
        seed: An integer, or None for PyTorch's.
    """

    scale, mode, distribution = 1.0, "fan_avg", "truncated_normal"


class HeUniform(_Scaled):
    """U(-limit, limit) with limit = sqrt(6 / fan_in).

    Args:
        seed: An integer, or None for PyTorch's.

    Source: He et al., Delving deep into rectifiers, 2015.
    """

    scale, mode, distribution = 2.0, "fan_in", "uniform"


class HeNormal(_Scaled):
    """Normal of variance 2 / fan_in, cut off at two standard deviations.

    Args:
        seed: An integer, or None for PyTorch's.
    """

    scale, mode, distribution = 2.0, "fan_in", "truncated_normal"


class LecunUniform(_Scaled):
    """U(-limit, limit) with limit = sqrt(3 / fan_in).

    Args:
        seed: An integer, or None for PyTorch's.

    Source: LeCun et al., Efficient backprop, 1998.
    """

    scale, mode, distribution = 1.0, "fan_in", "uniform"


class LecunNormal(_Scaled):
    """Normal of variance 1 / fan_in, cut off at two standard deviations.

    Args:
        seed: An integer, or None for PyTorch's.
    """

    scale, mode, distribution = 1.0, "fan_in", "truncated_normal"


class Orthogonal(Initializer):
    """Orthonormal rows or columns, whichever are fewer, times gain.

    Args:
        gain: The factor.
        seed: An integer, or None for PyTorch's.

    Source: Saxe et al., Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks, 2013.
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None):
        self.gain, self.seed = _checks.number("gain", gain), _seed(seed)

    def fill(self, tensor: Tensor, generator: Generator | None) -> None:
        init.orthogonal_(tensor, self.gain, generator)


class Identity(Initializer):
    """gain on the diagonal, 0 elsewhere; for tensors of two axes.

    Args:
        gain: The number.
    """

    def __init__(self, gain: float = 1.0):
        self.gain = _checks.number("gain", gain)

    def fill(self, tensor: Tensor, generator: Generator | None) -> None:
        init.eye_(tensor)
        with torch.no_grad():
            tensor.mul_(self.gain)


constant = Constant()
glorot_normal = GlorotNormal()
glorot_uniform = GlorotUniform()
he_normal = HeNormal()
he_uniform = HeUniform()
identity = Identity()
lecun_normal = LecunNormal()
lecun_uniform = LecunUniform()
ones = Ones()
orthogonal = Orthogonal()
random_normal = RandomNormal()
random_uniform = RandomUniform()
truncated_normal = TruncatedNormal()
variance_scaling = VarianceScaling()
zeros = Zeros()

FUNCTIONS: dict[str, Filler] = {
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "he_uniform": he_uniform,
    "he_normal": he_normal,
    "lecun_uniform": lecun_uniform,
    "lecun_normal": lecun_normal,
    "random_uniform": random_uniform,
    "random_normal": random_normal,
    "truncated_normal": truncated_normal,
    "variance_scaling": variance_scaling,
    "orthogonal": orthogonal,
    "identity": identity,
    "constant": constant,
    "zeros": zeros,
    "ones": ones,
    # Keras's other names of them
    "uniform": random_uniform,
    "normal": random_normal,
    "zero": zeros,
    "one": ones,
}


def get(value: str | Filler | None, default: str | None = None) -> Filler:
    """Returns the initializer of this name, or the callable itself.

    A function of Keras's kind, of a shape, becomes one that fills a tensor.

    Args:
        value: What is wanted.
        default: The name that None stands for, or None if it is an error.
    """
    value = default if value is None and default is not None else value
    if isinstance(value, str):
        return FUNCTIONS[_checks.find("initializer", value, FUNCTIONS)]
    if isinstance(value, type) and issubclass(value, Initializer):
        value = value()
    initializer: Filler = _checks.admit("initializer", value, FUNCTIONS, accept=callable)
    return _OfShape(initializer) if _takes_shape(initializer) else initializer


class _OfShape:
    """Fills a tensor with what a function of Keras's kind makes of its shape."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, tensor: Tensor) -> Tensor:
        shape = tuple(reversed(tensor.shape))
        named = {"dtype": tensor.dtype} if "dtype" in _parameters(self.function) else {}
        made = _checks.tensor("an initializer's values", self.function(shape, **named))
        if made.shape != shape:
            raise ValueError(f"an initializer must return shape {shape}, got {tuple(made.shape)}")
        with torch.no_grad():
            return _reversed(_reversed(tensor).copy_(made))

    def __repr__(self) -> str:
        return repr(self.function)


def _fill_by_call(self: Any, tensor: Tensor, generator: Generator | None) -> None:
    """The fill of a class that says by its __call__ what values it makes of a shape."""
    _OfShape(self)(tensor)


def filled(initializer: Filler, tensor: Tensor) -> Tensor:
    """Returns a tensor that an initializer, as get returned it, has filled in place.

    Raises:
        TypeError: It has returned something else instead.
    """
    if isinstance(initializer, Initializer) or tensor.is_meta or not tensor.is_floating_point():
        initializer(tensor)
        return tensor
    tensor.fill_(math.nan)  # which tells whether it has been filled, whatever is returned
    made = initializer(tensor)
    if made is None or made is tensor or not tensor.isnan().any():
        return tensor
    shape = getattr(made, "shape", None)
    got = type(made).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")
    raise TypeError(
        "an initializer must fill the tensor that it is given in place, or take a `shape` and "
        f"return values of it; {initializer!r} took a tensor and returned {got}"
    )


def _takes_shape(function: Callable[..., Any]) -> bool:
    if isinstance(function, Initializer) and type(function).__call__ is Initializer.__call__:
        return False
    first, *others = _parameters(function) or [""]
    return first == "shape" or (first != "tensor" and "dtype" in others)  # which Keras passes


def _parameters(function: Callable[..., Any]) -> list[str]:
    """The names of a function's parameters that are still to be given; none where nobody knows."""
    bound = function.keywords if isinstance(function, partial) else {}
    try:
        return [name for name in inspect.signature(function).parameters if name not in bound]
    except (TypeError, ValueError):
        return []


def _sizes(shape: Any) -> tuple[int, ...]:
    return tuple(_checks.positive_int("each size in shape", size) for size in shape)


def _reversed(tensor: Tensor) -> Tensor:
    """A view with the axes the other way round: Keras's order, or ours."""
    return tensor.permute(*range(tensor.ndim - 1, -1, -1))


def _fans(tensor: Tensor) -> tuple[int, int]:
    """fan_in and fan_out; more axes than two are those of a convolution, which count to both."""
    if tensor.ndim < 2:
        return tensor.numel(), tensor.numel()
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _truncated_normal(tensor: Tensor, mean: float, std: float, generator: Generator | None) -> None:
    init.trunc_normal_(tensor, mean, std, mean - 2 * std, mean + 2 * std, generator)


deserialize = deserializer(get)
