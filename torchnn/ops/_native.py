"""The native library: loaded here, and asked what it knows and on which devices."""

import importlib.util
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

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
OPTIONS = tuple(torch.ops.torchnn.update_options().split())
CPU_DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
CUDA_DTYPES = (*CPU_DTYPES, torch.bfloat16, torch.float16)
HAS_CUDA = torch._C._dispatch_has_kernel_for_dispatch_key("torchnn::dense_forward", "CUDA")
if not HAS_CUDA:
    CUDA_DTYPES = ()


def activations() -> tuple[str, ...]:
    """Returns the names of the activations that the kernels fuse."""
    return ACTIVATIONS


def losses() -> tuple[str, ...]:
    """Returns the names of the losses that train_ knows."""
    return LOSSES


def updates() -> tuple[str, ...]:
    """Returns the names of the update rules that train_ knows."""
    return UPDATES


def update_options() -> tuple[str, ...]:
    """Returns the names of the numbers that update rules take, each those that it has use for."""
    return OPTIONS


def trains_on(device: torch.device) -> bool:
    """Returns whether train_ and predict have kernels for a device."""
    return device.type == "cpu" or (device.type == "cuda" and HAS_CUDA)


class Kernel(NamedTuple):
    """What a loss or an optimizer is to the kernels.

    Attributes:
        name: One of losses() or of updates().
        options: The numbers that it takes, by their names in update_options().
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
        widths: The number of features, then the units of each layer.
        dtype: float32 or float64.
        batch_size: Rows a step.
        shared_bytes: The most memory that a block may have.
        blocks: How many blocks may work together, 1 to 8.
    """
    found = torch.ops.torchnn.cuda_plan(
        list(widths), dtype.itemsize, batch_size, shared_bytes, blocks
    )
    return CudaPlan(*found)


def cuda_limits(device: torch.device) -> tuple[int, int]:
    """Returns the most memory that a block may have on a GPU, and how many may work together."""
    properties: Any = torch.cuda.get_device_properties(device)
    return properties.shared_memory_per_block_optin, 8 if properties.major >= 9 else 1


def cpu_capability() -> str:
    """Returns the instruction set of the CPU kernels: "avx512", "avx2" or "baseline".

    The environment variable TORCHNN_CPU_CAPABILITY, read once, forces one that the CPU has.
    """
    return torch.ops.torchnn.cpu_capability()
