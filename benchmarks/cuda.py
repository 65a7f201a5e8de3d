"""Measuring on a GPU: device events, variants in turn, operands rotated past the cache."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from benchmarks.harness import Timing, timing

Arguments = tuple[torch.Tensor, ...]


def require_gpu() -> None:
    """Ends the program with one line if there is no GPU."""
    if not torch.cuda.is_available():
        raise SystemExit(f"there is no GPU here that PyTorch {torch.__version__} can use")


def facts() -> dict[str, object]:
    """What a reader must know of the GPU to read a number."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "cache_bytes": properties.L2_cache_size,
        "cuda": torch.version.cuda,
    }


def rotated(make: Callable[[], Arguments]) -> list[Arguments]:
    """As many sets of operands as it takes for none to be in the cache when its turn comes."""
    first = make()
    size = sum(t.numel() * t.element_size() for t in first)
    count = math.ceil(2 * torch.cuda.get_device_properties(0).L2_cache_size / max(size, 1))
    return [first, *(make() for _ in range(min(max(count, 2), 64) - 1))]


class Sampler:
    """A function of operands, called on one set after the other."""

    def __init__(self, function: Callable[..., object], sets: Sequence[Arguments]) -> None:
        self._function, self._sets = function, itertools.cycle(sets)
        for _ in range(3):
            self.run(1)  # warm up: compilation, handles, memory
        self._calls = max(1, round(10_000 / self.run(3)))

    def run(self, calls: int) -> float:
        """Calls it and returns microseconds of the device a call."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            self._function(*next(self._sets))
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3 / calls

    def sample(self) -> float:
        """Microseconds a call, over some 10 ms of calls."""
        return self.run(min(self._calls, 2000))


class GraphSampler(Sampler):
    """The same from a CUDA graph of a call on every set: what remains without the launches."""

    def __init__(self, function: Callable[..., object], sets: Sequence[Arguments]) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                function(*sets[0])
        torch.cuda.current_stream().wait_stream(side)
        self._graph, self._size = torch.cuda.CUDAGraph(), len(sets)
        with torch.cuda.graph(self._graph):
            self._results = [function(*s) for s in sets]
        super().__init__(self._graph.replay, [()])

    def sample(self) -> float:
        return super().sample() / self._size


def measure(
    variants: dict[str, Callable[..., object]],
    sets: Sequence[Arguments],
    rounds: int = 9,
    graph: bool = False,
) -> dict[str, Timing]:
    """Times functions of the same operands in turn, round after round.

    Args:
        variants: Functions of the operands, by name.
        sets: The operands, as rotated gives them.
        rounds: How many samples each variant gives.
        graph: Whether to time a CUDA graph of the calls.

    Returns:
        A Timing for each name, in microseconds a call.
    """
    kind = GraphSampler if graph else Sampler
    samplers = {name: kind(function, sets) for name, function in variants.items()}
    samples: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, sampler in samplers.items():
            samples[name].append(sampler.sample())
    return {name: timing(values) for name, values in samples.items()}


class Floor(NamedTuple):
    """What this GPU does at best: bytes, and operations in one dtype, a microsecond."""

    bandwidth: float
    rate: float

    def microseconds(self, flop: float, size: float) -> float:
        """The least time for so many operations and bytes of memory."""
        return max(flop / self.rate, size / self.bandwidth)


def measure_floor(dtype: torch.dtype) -> Floor:
    """Measures a copy of a gigabyte, and a large product in the dtype, by PyTorch's library."""
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    copied = Sampler(target.copy_, [(source,)])
    bandwidth = max(2 * source.numel() * 4 / copied.sample() for _ in range(5))
    side = 8192
    square = torch.randn(side, side, device="cuda", dtype=dtype)
    multiplied = Sampler(torch.mm, [(square, square)])
    return Floor(bandwidth, max(2 * side**3 / multiplied.sample() for _ in range(5)))
