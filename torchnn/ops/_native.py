"""The native library: loaded here, and asked what it knows and on which devices."""

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from torchnn import _checks

try:
    import torchnn._C  # type: ignore[import-not-found]  # (registers the operators)

    if importlib.util.find_spec("torchnn._cuda"):  # built where nvcc is
        import torchnn._cuda  # type: ignore[import-not-found]  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"torchnn's native library did not load: {error}. Build it in the checkout: "
        "`python setup.py build_ext --inplace` if torchnn runs from there, or `pip install "
        "--force-reinstall --no-deps .` if it is installed."
    ) from error

ACTIVATIONS = tuple(torch.ops.torchnn.activations().split())
PLACES = {name: place for place, name in enumerate(ACTIVATIONS)}
LOSSES = tuple(torch.ops.torchnn.losses().split())
UPDATES = tuple(torch.ops.torchnn.updates().split())
OPTIONS = tuple(torch.ops.torchnn.train_options().split())
CPU_DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
CUDA_DTYPES = (*CPU_DTYPES, torch.bfloat16, torch.float16)
HAS_CUDA = torch._C._dispatch_has_kernel_for_dispatch_key("torchnn::dense_forward", "CUDA")
if not HAS_CUDA:
    CUDA_DTYPES = ()

# More than there are: the kernels refuse to count with them.
MOST_UNITS = 2**31 - 1
MOST_SHARED_BYTES = 2**20
MOST_BLOCKS = 8

# What PyTorch's checks put in front of a message: the C++ function, its file, and the line.
_PLACE = re.compile(r"^(?:\w+|operator\(\)), \S+:\d+, ")


def call(operator: Callable[..., Any], *arguments: Any) -> Any:
    """Calls an operator of the library; its errors say what is wrong, not where in C++ that is."""
    try:
        return operator(*arguments)
    except NotImplementedError as error:  # no such device; the rest is a page of them all
        raise NotImplementedError(str(error).partition(". ")[0]) from None
    except RuntimeError as error:
        message = _PLACE.sub("", str(error))
        if message == str(error):
            raise
        raise RuntimeError(message) from None


def activations() -> tuple[str, ...]:
    """Returns the names of the activations that the kernels fuse."""
    return ACTIVATIONS


def losses() -> tuple[str, ...]:
    """Returns the names of the losses that train_ knows."""
    return LOSSES


def updates() -> tuple[str, ...]:
    """Returns the names of the update rules that train_ knows."""
    return UPDATES


def train_options() -> tuple[str, ...]:
    """Returns the names of the numbers that update rules and losses take, each those that it has
    use for."""
    return OPTIONS


def trains_on(device: torch.device) -> bool:
    """Returns whether train_ and predict have kernels for a device."""
    return device.type == "cpu" or (device.type == "cuda" and HAS_CUDA)


class Kernel(NamedTuple):
    """What a loss or an optimizer is to the kernels.

    Attributes:
        name: One of losses() or of updates().
        options: The numbers that it takes, by their names in train_options().
    """

    name: str
    options: Mapping[str, float] = MappingProxyType({})


def kernel_of(thing: Any) -> Kernel | None:
    """Returns the kernel that a loss or an optimizer names, or None.

    Its own class must name it: one that inherits may compute something else.
    """
    return thing.kernel() if "kernel" in vars(type(thing)) else None


class CudaPlan(NamedTuple):
    """How train_ on CUDA fits a network into the memory that blocks of threads share.

    Attributes:
        rows: Of a batch, that go through at once; 0 if the network trains layer by layer.
        size: The bytes that each block takes, or would take at the least; 0 for more layers, or
            wider ones, than are ever counted.
        most_rows: The largest batch for which the network does not train layer by layer.
        blocks: How many train the network together.
    """

    rows: int
    size: int
    most_rows: int
    blocks: int


def cuda_plan(
    widths: Sequence[int], dtype: torch.dtype, batch_size: int, shared_bytes: int, blocks: int = 1
) -> CudaPlan:
    """Returns how train_ on CUDA trains a network by itself.

    Args:
        widths: The number of features, then the units of each layer, below 2**31.
        dtype: float32 or float64.
        batch_size: Rows a step.
        shared_bytes: The most memory that a block may have, up to a megabyte.
        blocks: How many blocks may work together, 1 to 8.

    Raises:
        TypeError: A number is no integer.
        ValueError: One of these is not as it should be.
        RuntimeError: The library was built without CUDA kernels.
    """
    if len(widths) < 2:
        raise ValueError(f"widths must be two or more, got {list(widths)}")
    if dtype not in CPU_DTYPES:
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    if not HAS_CUDA:
        raise RuntimeError("cuda_plan needs the CUDA kernels, and this build has none")
    found = torch.ops.torchnn.cuda_plan(
        [_checks.bounded_int("each width", width, 1, MOST_UNITS) for width in widths],
        dtype.itemsize,
        min(_checks.positive_int("batch_size", batch_size), 2**63 - 1),
        _checks.bounded_int("shared_bytes", shared_bytes, 0, MOST_SHARED_BYTES),
        _checks.bounded_int("blocks", blocks, 1, MOST_BLOCKS),
    )
    return CudaPlan(*found)


class CudaTrialPlan(NamedTuple):
    """How train_many_ on CUDA fits a model into the memory of a block of threads.

    Attributes:
        rows: Of a batch, that go through at once; 0 if there is no room for the model.
        size: The bytes that the block takes; 0 if there is no room.
        blocks: How many such blocks a multiprocessor has at once.
    """

    rows: int
    size: int
    blocks: int


def cuda_trial_plan(
    widths: Sequence[int],
    dtype: torch.dtype,
    batch_size: int,
    shared_bytes: int,
    *,
    loss: str = LOSSES[0],
    update: str = UPDATES[0],
    activations: Sequence[str] | None = None,
    dropped: Sequence[bool] | None = None,
) -> CudaTrialPlan:
    """Returns how train_many_ on CUDA trains a model.

    Args:
        widths: The number of features, then the units of each layer, below 2**31.
        dtype: float32 or float64.
        batch_size: Rows a step.
        shared_bytes: The most memory that a block may have, up to a megabyte.
        loss: A key of reference.LOSSES.
        update: A key of reference.UPDATES.
        activations: A key of reference.ACTIVATIONS for each layer; None for identities.
        dropped: Whether outputs are dropped, for each layer; None if none are.

    Raises:
        TypeError: A number is no integer.
        ValueError: One of these is not as it should be.
        RuntimeError: The library was built without CUDA kernels.
    """
    layers = len(widths) - 1
    if layers < 1:
        raise ValueError(f"widths must be two or more, got {list(widths)}")
    if dtype not in CPU_DTYPES:
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    names = ["identity"] * layers if activations is None else activations
    arguments = (
        [_checks.bounded_int("each width", width, 1, MOST_UNITS) for width in widths],
        [PLACES[_checks.choice("each activation", name, ACTIVATIONS)] for name in names],
        [False] * layers if dropped is None else [bool(each) for each in dropped],
        LOSSES.index(_checks.choice("loss", loss, LOSSES)),
        UPDATES.index(_checks.choice("update", update, UPDATES)),
        dtype.itemsize,
        min(_checks.positive_int("batch_size", batch_size), 2**63 - 1),
        _checks.bounded_int("shared_bytes", shared_bytes, 0, MOST_SHARED_BYTES),
    )
    if not HAS_CUDA:
        raise RuntimeError("cuda_trial_plan needs the CUDA kernels, and this build has none")
    return CudaTrialPlan(*call(torch.ops.torchnn.cuda_trial_plan, *arguments))


def cuda_limits(device: torch.device) -> tuple[int, int]:
    """Returns the most memory that a block may have on a GPU, and how many may work together."""
    properties: Any = torch.cuda.get_device_properties(device)
    return properties.shared_memory_per_block_optin, MOST_BLOCKS if properties.major >= 9 else 1


def cpu_capability() -> str:
    """Returns the instruction set of the CPU kernels: "avx512", "avx2" or "baseline".

    The environment variable TORCHNN_CPU_CAPABILITY, read once, forces one that the CPU has.
    """
    return torch.ops.torchnn.cpu_capability()
