"""The dense layer on a GPU: `python -m benchmarks.dense --device cuda` runs this.

Forward, and forward with backward, against eager PyTorch, with the matrix products alone and the
floor beside them; all cases come first, then torch.compile on a few of them, since it takes seconds
a case. Operands are rotated past the cache, but for shapes so small that 64 sets of them fit into
it. "graph" times a CUDA graph of the calls, the rest the calls themselves, with what PyTorch and
Python add to them.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F

from benchmarks.gpu import kit
from benchmarks.gpu.device import Arguments, Floor, measure, measure_floor, rotated, wait
from benchmarks.harness import show
from torchnn import ops
from torchnn.ops import reference

# How float32 is multiplied is PyTorch's setting: as it is, or as TensorFloat-32.
MODES = {
    "float32": (torch.float32, "highest"),
    "bfloat16": (torch.bfloat16, "highest"),
    "tf32": (torch.float32, "high"),
}
WIDTHS = (512, 1024, 4096, 256, 2048, 8192)  # in_features; the most telling first
SMALL = [(32, 400, 25), (1000, 400, 25), (128, 784, 128)]  # rows, in_features, units
SHAPES = [
    *SMALL,
    *((16, width, 4096) for width in WIDTHS),
    *((8192, width, 4096) for width in WIDTHS),
]
GRAPHED = {*SMALL, *((16, width, 4096) for width in WIDTHS), (8192, 512, 4096)}
# torch.compile is tried on these, for as long as there is time.
COMPILED = [((8192, 1024, 4096), "bfloat16"), ((32, 400, 25), "float32")]
COMPILED += [((8192, 1024, 4096), "tf32"), ((16, 1024, 4096), "bfloat16")]
ROUNDS, SAMPLE = 5, 2000  # microseconds a sample: a hundred cases take some 30 seconds
NAMES = ("eager", "compile", "torchnn", "gemm")

Function = Callable[..., object]


class Case(NamedTuple):
    """One line of the table."""

    shape: tuple[int, int, int]
    mode: str
    backward: bool
    graph: bool = False
    compiled: bool = False


def cases(where: str) -> Iterator[Case]:
    """All lines, the most telling first."""
    few = where == "cpu"
    for shape in [(8, 16, 4)] if few else SHAPES:
        for mode in ("float32",) if few else MODES:
            for backward in (False, True):
                yield Case(shape, mode, backward)
                if few or shape in GRAPHED:
                    yield Case(shape, mode, backward, graph=True)
    for shape, mode in [] if few else COMPILED:
        for backward in (False, True):
            yield Case(shape, mode, backward, compiled=True)


def operands(case: Case, where: str) -> Arguments:
    """x, weight, bias and grad_out of a case."""
    rows, in_features, units = case.shape
    dtype = MODES[case.mode][0]

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=where, dtype=dtype)

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


class WrongError(Exception):
    """A result that is farther from the exact one than it may be."""


def compiled(case: Case, activation: str) -> Function:
    torch._dynamo.reset()  # or it gives up after some cases, and goes on uncompiled
    return layer_of(torch.compile(eager, dynamic=False), activation, case.backward)


def time_case(case: Case, activation: str, where: str) -> kit.Row:
    """Times of everybody in microseconds, and ours over theirs."""
    torch.set_float32_matmul_precision(MODES[case.mode][1])
    sets = rotated(partial(operands, case, where), where)
    if error := find_error(case, activation, sets[0]):
        raise WrongError(f"{case} is {error}")
    floor = floor_of(case.mode, where)
    variants = {
        "eager": layer_of(eager, activation, case.backward),
        "torchnn": layer_of(ops.dense, activation, case.backward),
        "gemm": products(case.backward),
    }
    if case.compiled:
        variants = {"compile": compiled(case, activation), **variants}
    times = measure(variants, sets, ROUNDS, case.graph, where, SAMPLE)
    ours = times["torchnn"].median
    return {
        "floor": least_time(case, floor),
        **times,
        "ratio": times["eager"].median / ours,
        "over_gemm": ours / times["gemm"].median,
    }


@cache
def floor_of(mode: str, where: str) -> Floor:
    """What the device does at best in a mode, which must be set."""
    return measure_floor(MODES[mode][0], where)


def benchmark(rows: kit.Rows, activation: str, where: str) -> None:
    """Times all cases for which there is time.

    Args:
        rows: Gets a row for each; if ours is wrong, it has no times, but an error.
        activation: That of all layers.
        where: "cuda", or "cpu" to try this out on a small layer.
    """

    def work(activation: str, **case: object) -> kit.Row:
        found = time_case(Case(**case), activation, where)
        wait(where)
        return found

    rows.fill(({**case._asdict(), "activation": activation} for case in cases(where)), work)
    torch.set_float32_matmul_precision("highest")
    print_table(rows, activation)


def print_table(rows: list[kit.Row], activation: str) -> None:
    columns = ["rows x in x units", "dtype", "what", *(f"{name} us" for name in NAMES), "floor us"]
    lines = [
        [
            " x ".join(map(str, row["shape"])),
            row["mode"],
            "forward" + "+backward" * row["backward"] + ", graph" * row["graph"],
            *(f"{row[name].median:.1f}" if name in row else "-" for name in NAMES),
            f"{row['floor']:.1f}",
            f"{row['ratio']:.2f}x",
            f"{row['over_gemm']:.2f}",
        ]
        for row in rows
        if "ratio" in row
    ]
    show(f"dense with {activation}", [*columns, "faster", "/ gemm"], lines)


def main() -> None:
    made = kit.parser(__doc__)
    made.add_argument("--activation", choices=ops.activations(), default="sigmoid")
    options = kit.parse(made)
    rows = kit.Rows("dense-cuda", options)
    benchmark(rows, options.activation, options.device)
    raise SystemExit(rows.failed)


if __name__ == "__main__":
    main()
