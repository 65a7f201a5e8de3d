"""The dense layer on a GPU: `python -m benchmarks.dense --device cuda` runs this.

Forward, and forward with backward, against eager PyTorch and torch.compile, with the matrix
products alone and the floor beside them. Operands are rotated past the cache, but for shapes so
small that 64 sets of them fit into it. "graph" times a CUDA graph of the calls, the rest the
calls themselves, with what PyTorch and Python add to them.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F

from benchmarks.cuda import Arguments, Floor, measure, measure_floor, require_gpu, rotated
from benchmarks.harness import show
from torchnn import ops, reference

# How float32 is multiplied is PyTorch's setting: as it is, or as TensorFloat-32.
MODES = {
    "float32": (torch.float32, "highest"),
    "bfloat16": (torch.bfloat16, "highest"),
    "tf32": (torch.float32, "high"),
}
WIDTHS = (512, 1024, 4096, 256, 2048, 8192)  # in_features; the most telling first
SHAPES = [  # rows, in_features, units
    (32, 400, 25),
    *((8192, width, 4096) for width in WIDTHS),
    *((16, width, 4096) for width in WIDTHS),
    (1000, 400, 25),
    (128, 784, 128),
]
GRAPHED = {(32, 400, 25), (1000, 400, 25), (128, 784, 128)}
# Without the CUDA graphs of its own that max-autotune would add: they copy rotated operands.
COMPILED = {"compile": "default", "autotune": "max-autotune-no-cudagraphs"}
COMPILE_SECONDS = 12  # for each of them; the cases after that go without

Function = Callable[..., object]


class Case(NamedTuple):
    """One line of the table."""

    shape: tuple[int, int, int]
    mode: str
    backward: bool
    graph: bool


def cases() -> Iterator[Case]:
    """All lines, those first that must not miss their compiler."""
    for mode in MODES:
        for shape in SHAPES:
            for backward in (False, True):
                for graph in (False, True) if shape in GRAPHED else (False,):
                    yield Case(shape, mode, backward, graph)


def operands(case: Case) -> Arguments:
    """x, weight, bias and grad_out of a case."""
    rows, in_features, units = case.shape
    dtype = MODES[case.mode][0]

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device="cuda", dtype=dtype)

    x, weight, bias = random(rows, in_features), random(units, in_features), random(units)
    inputs = [x, weight / in_features**0.5, bias]
    return *(t.requires_grad_(case.backward) for t in inputs), random(rows, units)


def layer_of(function: Function, activation: str, backward: bool) -> Function:
    """The function of x, weight, bias and grad_out that is timed."""

    def forward(x, weight, bias, grad_out):
        return function(x, weight, bias, activation)

    def forward_and_backward(x, weight, bias, grad_out):
        out = function(x, weight, bias, activation)
        return torch.autograd.grad(out, (x, weight, bias), grad_out)

    return forward_and_backward if backward else forward


def eager(x, weight, bias, activation):
    return reference.ACTIVATIONS[activation](F.linear(x, weight, bias))


def products(backward: bool) -> Function:
    """The matrix products of the layer, and nothing else."""

    def run(x, weight, bias, grad_out):
        with torch.no_grad():
            z = torch.mm(x, weight.T)
            return (z, grad_out @ weight, grad_out.T @ x) if backward else z

    return run


def least_time(case: Case, floor: Floor) -> float:
    """The floor: every operand read once, every result written once, in microseconds."""
    rows, in_features, units = case.shape
    x, weight, out = rows * in_features, units * in_features, rows * units
    elements = x + weight + out
    if case.backward:  # grad_out and out are read, and x, weight and their gradients
        elements += 2 * out + 2 * x + 2 * weight
    flop = 2 * rows * in_features * units * (3 if case.backward else 1)
    return floor.microseconds(flop, elements * MODES[case.mode][0].itemsize)


class Compilers:
    """torch.compile in its modes, as long as their time lasts."""

    def __init__(self) -> None:
        self._left = dict.fromkeys(COMPILED, COMPILE_SECONDS)

    def variants(self, case: Case, activation: str, sets: list[Arguments]) -> dict[str, Function]:
        """What there is time for, compiled and run once."""
        found = {}
        for name, mode in COMPILED.items():
            if self._left[name] <= 0:
                continue
            start = time.monotonic()
            torch._dynamo.reset()
            compiled = layer_of(
                torch.compile(eager, mode=mode, dynamic=False), activation, case.backward
            )
            try:
                compiled(*sets[0])
                torch.cuda.synchronize()
            except Exception as error:  # whatever a compiler of somebody else may raise
                print(f"without torch.compile {mode}: {type(error).__name__}: {error}")
                self._left[name] = 0
                continue
            found[name] = compiled
            self._left[name] -= time.monotonic() - start
        return found


def find_error(case: Case, activation: str, arguments: Arguments) -> str | None:
    """Says so if a result of ours is more than twice as far from the float64 one as eager's."""
    wide = [t.detach().double().requires_grad_(t.requires_grad) for t in arguments]

    def results(function, of):
        result = layer_of(function, activation, case.backward)(*of)
        return [result] if isinstance(result, torch.Tensor) else result

    for ours, theirs, exact in zip(
        results(ops.dense, arguments), results(eager, arguments), results(eager, wide), strict=True
    ):
        scale = exact.abs().max()
        off, allowed = ((t.double() - exact).abs().max() / scale for t in (ours, theirs))
        if not off <= 2 * allowed + 1e-6:
            return f"off by {off:.1e} of the largest, eager by {allowed:.1e}"
    return None


def benchmark(activation: str, seconds: float) -> Iterator[dict[str, object]]:
    """Times all cases, for so many seconds at most; those left over are named.

    Yields:
        A row for each case; if ours is wrong, it has no times, but says so under "wrong".
    """
    require_gpu()
    end, compilers, floors = time.monotonic() + seconds, Compilers(), {}
    for case in cases():
        if time.monotonic() > end:
            print("no time left for", case)
            continue
        torch.set_float32_matmul_precision(MODES[case.mode][1])
        if case.mode not in floors:
            floors[case.mode] = measure_floor(MODES[case.mode][0])
        sets = rotated(lambda case=case: operands(case))
        if error := find_error(case, activation, sets[0]):
            print(f"wrong: {case} is {error}")
            yield {**case._asdict(), "activation": activation, "wrong": error}
            continue
        variants = {
            "eager": layer_of(eager, activation, case.backward),
            "torchnn": layer_of(ops.dense, activation, case.backward),
            "gemm": products(case.backward),
            **compilers.variants(case, activation, sets),
        }
        times = measure(variants, sets, graph=case.graph)
        ours = times["torchnn"].median
        yield {
            **case._asdict(),
            "activation": activation,
            "floor": least_time(case, floors[case.mode]),
            **times,
            "ratio": times["eager"].median / ours,
            "over_gemm": ours / times["gemm"].median,
        }
    torch.set_float32_matmul_precision("highest")


def print_table(rows: list[dict[str, object]], activation: str) -> None:
    names = ["eager", *COMPILED, "torchnn", "gemm"]
    columns = ["rows x in x units", "dtype", "what", *(f"{name} us" for name in names), "floor us"]
    lines = [
        [
            " x ".join(map(str, row["shape"])),
            row["mode"],
            "forward" + "+backward" * row["backward"] + ", graph" * row["graph"],
            *(f"{row[name].median:.1f}" if name in row else "-" for name in names),
            f"{row['floor']:.1f}",
            f"{row['ratio']:.2f}x",
            f"{row['over_gemm']:.2f}",
        ]
        for row in rows
        if "wrong" not in row
    ]
    title = f"dense with {activation}, {torch.cuda.get_device_name()}"
    show(title, [*columns, "faster", "/ gemm"], lines)
