"""TensorFlow's random numbers, drawn by PyTorch."""

from typing import Any

import torch

from torchnn import _checks
from torchnn.tf._missing import said_of
from torchnn.tf._tensor import Tensor, as_dtype, as_generator, as_shape, as_tensor

__all__ = [
    "categorical",
    "normal",
    "set_seed",
    "shuffle",
    "truncated_normal",
    "uniform",
]
__getattr__ = said_of(__name__)


def set_seed(seed: int) -> None:
    """Seeds PyTorch, which first weights, the order of batches and dropout follow from."""
    torch.manual_seed(_checks.integer("seed", seed))


def normal(
    shape: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = torch.float32,
    seed: int | None = None,
) -> Any:
    """Numbers from the normal distribution of this mean and standard deviation.

    Args:
        shape: The shape of what is drawn.
        mean: A number, or one for each entry.
        stddev: Likewise.
        dtype: The dtype of what is drawn.
        seed: What the numbers follow from; the seed that set_seed was given if None.
    """
    drawn = torch.randn(as_shape(shape), generator=as_generator(seed), dtype=as_dtype(dtype))
    return drawn.as_subclass(Tensor) * stddev + mean


def truncated_normal(
    shape: Any,
    mean: Any = 0.0,
    stddev: Any = 1.0,
    dtype: Any = torch.float32,
    seed: int | None = None,
) -> Any:
    """Numbers like those of normal, none further than two standard deviations from the mean."""
    drawn = torch.empty(as_shape(shape), dtype=as_dtype(dtype))
    torch.nn.init.trunc_normal_(drawn, a=-2.0, b=2.0, generator=as_generator(seed))
    return drawn.as_subclass(Tensor) * stddev + mean


def uniform(
    shape: Any,
    minval: Any = 0,
    maxval: Any = None,
    dtype: Any = torch.float32,
    seed: int | None = None,
) -> Any:
    """Numbers from the uniform distribution, from minval on and below maxval.

    Args:
        shape: The shape of what is drawn.
        minval: The smallest number.
        maxval: What all are less than; 1 if None, for floats.
        dtype: The dtype of what is drawn.
        seed: What the numbers follow from; the seed that set_seed was given if None.
    """
    kind, sizes, generator = as_dtype(dtype), as_shape(shape), as_generator(seed)
    if kind.is_floating_point:
        floats = torch.rand(sizes, generator=generator, dtype=kind).as_subclass(Tensor)
        return floats * ((1 if maxval is None else maxval) - minval) + minval
    if maxval is None:
        raise ValueError("maxval must be given for integers")
    drawn = torch.randint(int(minval), int(maxval), sizes, generator=generator, dtype=kind)
    return drawn.as_subclass(Tensor)


def categorical(
    logits: Any, num_samples: int, dtype: Any = torch.int64, seed: int | None = None
) -> Any:
    """Class numbers drawn with the probabilities softmax(logits), some for each row.

    Args:
        logits: Shape (N, classes).
        num_samples: How many are drawn for each row.
        dtype: The dtype of what is drawn.
        seed: What the numbers follow from; the seed that set_seed was given if None.

    Returns:
        Shape (N, num_samples).
    """
    z = as_tensor(logits)
    if z.ndim != 2:
        raise ValueError(f"logits must have shape (N, classes), got {tuple(z.shape)}")
    count = _checks.positive_int("num_samples", num_samples)
    p = torch.softmax(z.detach(), -1)
    return torch.multinomial(p, count, replacement=True, generator=as_generator(seed)).to(
        as_dtype(dtype)
    )


def shuffle(value: Any, seed: int | None = None) -> Any:
    """Returns value with its first axis in another order."""
    value = as_tensor(value)
    return value[torch.randperm(len(value), generator=as_generator(seed))]
