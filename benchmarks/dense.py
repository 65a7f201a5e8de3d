"""The fused dense layer against eager activation(F.linear(x, weight, bias)), forward and backward.

    python -m benchmarks.dense [--threads 1 2] [--activation sigmoid] [--save dense-cpu]
                               [--shapes 128x512x512 128x512x256-saturated] [--rounds 15]
    python -m benchmarks.dense --device cuda [--seconds 60] [--save dense-cuda]

Both compute the same thing, which is checked first. "forward" is inference, without gradients;
"forward+backward" gives the gradients of x, weight and bias. "saturated" are weights that nobody
has scaled: most sigmoids are 0 or 1, and some numbers subnormal. What is measured on a GPU is in
benchmarks/gpu/dense.py.
"""

import argparse
import math
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.gpu import dense as on_gpu
from benchmarks.gpu import kit
from benchmarks.gpu.device import require_gpu
from benchmarks.harness import RESULTS, machine, measure, save, show
from torchnn import ops
from torchnn.ops import reference

LARGE = 2**25  # multiply-adds and more: from here on the products rule


@dataclass(frozen=True)
class Shape:
    """What a layer is given, and how large its weights are."""

    rows: int
    in_features: int
    units: int
    saturated: bool = False

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """The shape that 128x512x256 or 128x512x256-saturated means."""
        size = "([1-9][0-9]*)"
        found = re.fullmatch(f"{size}x{size}x{size}(-saturated)?", text)
        if not found:
            raise argparse.ArgumentTypeError(f"{text} is no shape such as 128x512x256")
        *sizes, saturated = found.groups()
        return cls(*map(int, sizes), saturated=saturated is not None)

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.rows, self.in_features, self.units

    @property
    def products(self) -> int:
        """The multiply-adds of a forward pass."""
        return math.prod(self.sizes)

    def arguments(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x, weight and bias."""
        scale = 8 if self.saturated else self.in_features**-0.5
        return (
            torch.randn(self.rows, self.in_features),
            torch.randn(self.units, self.in_features) * scale,
            torch.randn(self.units),
        )


SHAPES = [
    Shape(1, 4, 4),
    Shape(32, 25, 25),
    Shape(32, 64, 25),
    Shape(32, 400, 25),
    Shape(32, 400, 1),
    Shape(1000, 400, 25),
    Shape(1000, 4, 64),
    Shape(128, 784, 128),
    Shape(128, 784, 512),
    Shape(128, 512, 512),
    Shape(512, 3000, 700),
    Shape(512, 128, 1024),
    Shape(128, 512, 256, saturated=True),
    Shape(1, 1024, 1024),
    Shape(512, 1024, 1024),
    Shape(1024, 4096, 4096),
]


def eager(x, weight, bias, activation):
    return reference.ACTIVATIONS[activation](F.linear(x, weight, bias))


def forward(function, arguments, grad_out, activation) -> Callable[[], torch.Tensor]:
    return lambda: function(*arguments, activation)  # no argument requires a gradient


def forward_and_backward(
    function, arguments, grad_out, activation
) -> Callable[[], tuple[torch.Tensor, ...]]:
    inputs = [t.clone().requires_grad_() for t in arguments]

    def run():
        return torch.autograd.grad(function(*inputs, activation), inputs, grad_out)

    return run


def check(arguments, grad_out, activation: str) -> None:
    """Ours may be no more than twice as far from the float64 results as eager is.

    These are the output and the gradients, each relative to its largest number where above 1.
    """

    def results(function, given, grad) -> list[torch.Tensor]:
        gradients = forward_and_backward(function, given, grad, activation)()
        return [forward(function, given, grad, activation)(), *gradients]

    exact = results(eager, [t.double() for t in arguments], grad_out.double())
    ours, theirs = (results(f, arguments, grad_out) for f in (ops.dense, eager))
    for of_ours, of_theirs, right in zip(ours, theirs, exact, strict=True):
        scale = max(right.abs().max(), 1)
        off, allowed = ((t.double() - right).abs().max() / scale for t in (of_ours, of_theirs))
        if not off <= 2 * allowed + 1e-6:
            raise SystemExit(f"wrong: off by {off:.1e}, eager by {allowed:.1e}")


def benchmark(
    shapes: list[Shape], threads: int, activation: str, rounds: int | None = None
) -> list[dict[str, object]]:
    """Times all shapes; without a number of rounds, it is fewer where they take long."""
    torch.set_num_threads(threads)
    rows: list[dict[str, object]] = []
    for shape in shapes:
        arguments, grad_out = shape.arguments(), torch.randn(shape.rows, shape.units)
        check(arguments, grad_out, activation)
        for what in (forward, forward_and_backward):
            times = measure(
                {
                    "eager": what(eager, arguments, grad_out, activation),
                    "torchnn": what(ops.dense, arguments, grad_out, activation),
                },
                rounds=rounds or (5 if shape.products > 1e9 else 15),
            )
            rows.append(
                {
                    "shape": shape.sizes,
                    "saturated": shape.saturated,
                    "threads": threads,
                    "what": what.__name__.replace("_and_", "+"),
                    **times,
                    "ratio": times["eager"].median / times["torchnn"].median,
                }
            )
    return rows


def print_table(rows: list[dict[str, object]], activation: str) -> None:
    facts = machine()
    columns = ["rows x in x units", "threads", "what", "eager us", "torchnn us", "p20", "p80"]
    lines = [
        [
            _name(row),
            str(row["threads"]),
            row["what"],
            *(f"{t:.1f}" for t in (row["eager"].median, row["torchnn"].median)),
            *(f"{t:.1f}" for t in (row["torchnn"].p20, row["torchnn"].p80)),
            f"{row['ratio']:.2f}x",
        ]
        for row in rows
    ]
    title = f"dense with {activation}, float32, {facts['processor']}, {facts['capability']}"
    show(title, [*columns, "faster"], lines)


def _name(row: dict[str, object]) -> str:
    return " x ".join(map(str, row["shape"])) + ", saturated" * row["saturated"]


def summary(rows: list[dict[str, object]]) -> str:
    """How the large shapes do in the mean, and the worst of all."""
    large = [row["ratio"] for row in rows if math.prod(row["shape"]) >= LARGE]
    mean = f"{statistics.geometric_mean(large):.3f}x" if large else "none"
    worst = min(rows, key=lambda row: row["ratio"])
    threads = "1 thread" if worst["threads"] == 1 else f"{worst['threads']} threads"
    return (
        f"geometric mean of large shapes, 2^25 multiply-adds and more: {mean}; smallest of all: "
        f"{worst['ratio']:.3f}x, {_name(worst)}, {worst['what']}, {threads}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--activation", choices=ops.activations(), default="sigmoid")
    parser.add_argument(
        "--shapes",
        type=Shape.parse,
        nargs="+",
        default=SHAPES,
        metavar="ROWSxINxUNITS[-saturated]",
        help="these instead of all",
    )
    parser.add_argument("--rounds", type=int, help="5 of the largest shapes, 15 of others")
    parser.add_argument("--seconds", type=float, default=60, help="on CUDA, at most")
    parser.add_argument("--save", metavar="NAME", help="write benchmarks/results/NAME.json")
    parser.add_argument(
        "--folder", type=Path, default=RESULTS, help="write NAME.json there instead"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.device == "cuda":
        require_gpu()
        table = kit.Rows(options.save, options)
        on_gpu.benchmark(table, options.activation, options.device)
        raise SystemExit(table.failed)
    how = options.activation, options.rounds
    rows = [row for n in options.threads for row in benchmark(options.shapes, n, *how)]
    print_table(rows, options.activation)
    print(summary(rows))
    if options.save:
        print("written:", save(options.save, rows, options.folder))


if __name__ == "__main__":
    main()
