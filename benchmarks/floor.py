"""How fast this machine multiplies and adds: the arithmetic floor under every time."""

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

# Independent sums, enough to keep two FMA units of latency 4 busy, and few enough for registers.
SOURCE = r"""
#if defined(__AVX512F__)
constexpr int bytes = 64, sums = 24;
#elif defined(__AVX__)
constexpr int bytes = 32, sums = 12;
#elif defined(__aarch64__)
constexpr int bytes = 16, sums = 24;
#else
constexpr int bytes = 16, sums = 12;
#endif
typedef SCALAR Register __attribute__((vector_size(bytes)));

extern "C" double flop(long rounds, SCALAR *out) {
  Register sum[sums] = {}, scale = {}, shift = {};
  scale += out[0], shift += out[1];
  for (int i = 0; i < sums; ++i) sum[i] += out[i];  // different, or they become one
  for (long round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < sums; ++i) sum[i] = sum[i] * scale + shift;
  }
  for (int i = 0; i < sums; ++i) out[i] = sum[i][0];
  return 2.0 * rounds * sums * bytes / sizeof(SCALAR);
}
"""
SCALARS = {"float32": "float", "float64": "double"}
MATMUL = 1024  # rows and columns, where there is no compiler


class Floor(NamedTuple):
    """Floating-point operations a second, in units of 1e9, and how they were measured."""

    one_core: float
    all_cores: float
    measured: str

    @property
    def together(self) -> float:
        """How many times as fast as one core all are: 1 for two threads of one core, which a
        shared machine may give for two cores, for seconds or hours."""
        return self.all_cores / self.one_core

    def microseconds(self, flop: float) -> tuple[float, float]:
        """The least time for this many operations, on one core and on all."""
        return flop / self.one_core / 1e3, flop / self.all_cores / 1e3


def measure(dtype: str, cores: int, seconds: float = 0.5) -> Floor:
    """Returns the machine's best rate of fused multiply-adds in a dtype.

    Source: a loop without memory traffic, compiled here; without a compiler, torch.mm.
    """
    run = _loop(dtype)
    if run is None:
        return _measure_matmul(dtype, cores)
    return Floor(_rate(run, 1, seconds), _rate(run, cores, seconds), "a loop of FMAs")


@cache
def _loop(dtype: str) -> Callable[[int], float] | None:
    """Compiles the loop for this machine; returns it as a function of the number of rounds, or None
    without a compiler."""
    compiler = shutil.which("c++")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "floor.cpp", Path(folder) / "floor.so"
        source.write_text(SOURCE)
        options = ["-O3", "-march=native", "-shared", "-fPIC", f"-DSCALAR={SCALARS[dtype]}"]
        subprocess.run([compiler, *options, "-o", library, source], check=True)
        function = ctypes.CDLL(str(library)).flop  # stays when the file is gone
    function.argtypes, function.restype = [ctypes.c_long, ctypes.c_void_p], ctypes.c_double

    def run(rounds: int) -> float:
        out = torch.linspace(0.5, 1, 24, dtype=getattr(torch, dtype))
        start = time.perf_counter()
        flop = function(rounds, out.data_ptr())  # ctypes releases the GIL
        return flop / (time.perf_counter() - start) / 1e9

    return run


def _rate(run, cores: int, seconds: float, rounds: int = 500_000) -> float:
    """The best sum of rates over several tries: neighbours can only slow it down."""
    best, end = 0.0, time.perf_counter() + seconds
    with ThreadPoolExecutor(cores) as pool:
        while time.perf_counter() < end:
            best = max(best, sum(pool.map(run, [rounds] * cores)))
    return best


def _measure_matmul(dtype: str, cores: int) -> Floor:
    """torch.mm's best rate, which lies a little below the machine's."""
    a = torch.rand(MATMUL, MATMUL, dtype=getattr(torch, dtype))
    rates, before = [], torch.get_num_threads()
    for threads in (1, cores):
        torch.set_num_threads(threads)
        rates.append(max(_matmul_rate(a) for _ in range(20)))
    torch.set_num_threads(before)
    return Floor(*rates, "torch.mm, as there is no compiler")


def _matmul_rate(a: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.mm(a, a)
    return 2 * MATMUL**3 / (time.perf_counter() - start) / 1e9
