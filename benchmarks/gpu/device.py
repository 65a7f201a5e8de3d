"""Measuring on a GPU: device events, variants in turn, operands rotated past the cache.

With "cpu" for the device, all of it runs on the CPU, to try the benchmarks out without a GPU.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch

from benchmarks.harness import Timing, timing

SAMPLE = 10_000  # microseconds
MOST_CALLS = 2000  # a sample
MOST_SETS = 64

Arguments = tuple[torch.Tensor, ...]
Result = TypeVar("Result")


def require_gpu() -> None:
    """Ends the program with one line if there is no GPU."""
    if not torch.cuda.is_available():
        raise SystemExit(f"there is no GPU here that PyTorch {torch.__version__} can use")


def facts(device: str = "cuda") -> dict[str, object]:
    """What a reader must know of the GPU to read a number."""
    if device == "cpu":
        return {"gpu": None}
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "cache_bytes": properties.L2_cache_size,
        "shared_bytes": properties.shared_memory_per_block_optin,
        "cuda": torch.version.cuda,
    }


def wait(device: str) -> None:
    """Waits until all that is queued is done."""
    if device != "cpu":
        torch.cuda.synchronize()


def elapsed(function: Callable[[], object], device: str) -> float:
    """Microseconds of the device, by its own events, for what a function queues."""
    if device == "cpu":
        begun = time.perf_counter()
        function()
        return (time.perf_counter() - begun) * 1e6
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3


def record(function: Callable[[], Result], device: str) -> Callable[[], Result]:
    """Returns what repeats a function's work from a CUDA graph, and returns the same result anew.

    The function is called before, on a stream of its own: that makes handles and memory.
    """
    if device == "cpu":
        return function
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()

    def replay() -> Result:
        graph.replay()
        return result

    return replay


def rotated(make: Callable[[], Arguments], device: str = "cuda") -> list[Arguments]:
    """As many sets of operands as it takes for none to be in the cache when its turn comes."""
    first = make()
    size = sum(t.numel() * t.element_size() for t in first)
    cache = 0 if device == "cpu" else torch.cuda.get_device_properties(0).L2_cache_size
    count = math.ceil(2 * cache / max(size, 1))
    return [first, *(make() for _ in range(min(max(count, 2), MOST_SETS) - 1))]


class Sampler:
    """A function of operands, called on one set after the other."""

    def __init__(
        self,
        function: Callable[..., object],
        sets: Sequence[Arguments] = ((),),
        device: str = "cuda",
        sample: float = SAMPLE,
    ) -> None:
        self._function, self._sets, self._device = function, itertools.cycle(sets), device
        for _ in range(3):
            self.run(1)  # warm up: compilation, handles, memory
        self._calls = min(max(1, round(sample / self.run(3))), MOST_CALLS)

    def run(self, calls: int) -> float:
        """Calls it and returns microseconds of the device a call."""

        def several() -> None:
            for _ in range(calls):
                self._function(*next(self._sets))

        return elapsed(several, self._device) / calls

    def sample(self) -> float:
        """Microseconds a call, over as many calls as fill a sample."""
        return self.run(self._calls)

    def timing(self, rounds: int) -> Timing:
        return timing([self.sample() for _ in range(rounds)])


class GraphSampler(Sampler):
    """The same from a CUDA graph of a call on every set: what remains without the launches."""

    def __init__(
        self,
        function: Callable[..., object],
        sets: Sequence[Arguments],
        device: str = "cuda",
        sample: float = SAMPLE,
    ) -> None:
        replay = record(lambda: [function(*s) for s in sets], device)
        self._size = len(sets)
        super().__init__(replay, device=device, sample=sample)

    def sample(self) -> float:
        return super().sample() / self._size


def measure(
    variants: dict[str, Callable[..., object]],
    sets: Sequence[Arguments],
    rounds: int = 9,
    graph: bool = False,
    device: str = "cuda",
    sample: float = SAMPLE,
) -> dict[str, Timing]:
    """Times functions of the same operands in turn, round after round.

    Args:
        variants: Functions of the operands, by name.
        sets: The operands, as rotated gives them.
        rounds: How many samples each variant gives.
        graph: Whether to time a CUDA graph of the calls.
        device: Where the operands are.
        sample: Microseconds of a sample, about.

    Returns:
        A Timing for each name, in microseconds a call.
    """
    kind = GraphSampler if graph else Sampler
    samplers = {name: kind(f, sets, device, sample) for name, f in variants.items()}
    samples: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, sampler in samplers.items():
            samples[name].append(sampler.sample())
    return {name: timing(values) for name, values in samples.items()}


class Floor(NamedTuple):
    """What this device does at best: bytes, and operations in one dtype, a microsecond."""

    bandwidth: float
    rate: float

    def microseconds(self, flop: float, size: float) -> float:
        """The least time for so many operations and bytes of memory."""
        return max(flop / self.rate, size / self.bandwidth)


def measure_floor(dtype: torch.dtype, device: str = "cuda") -> Floor:
    """Measures a copy of a gigabyte, and a large product in the dtype, by PyTorch's library."""
    numbers, side = (1 << 28, 8192) if device == "cuda" else (1 << 20, 256)
    source = torch.randn(numbers, device=device)
    target = torch.empty_like(source)
    copied = Sampler(target.copy_, [(source,)], device)
    bandwidth = max(2 * source.numel() * 4 / copied.sample() for _ in range(5))
    square = torch.randn(side, side, device=device, dtype=dtype)
    multiplied = Sampler(torch.mm, [(square, square)], device)
    return Floor(bandwidth, max(2 * side**3 / multiplied.sample() for _ in range(5)))
