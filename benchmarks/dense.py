"""The fused dense layer against eager activation(F.linear(x, weight, bias)), forward and backward.

    python -m benchmarks.dense [--threads 1 2] [--activation sigmoid] [--save dense-cpu]
    python -m benchmarks.dense --device cuda [--seconds 60] [--save dense-cuda]

Both compute the same thing, which is checked first. "forward" is inference, without gradients;
"forward+backward" gives the gradients of x, weight and bias. What is measured on a GPU is in
benchmarks/gpu/dense.py.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.gpu import dense as on_gpu
from benchmarks.gpu import kit
from benchmarks.gpu.device import require_gpu
from benchmarks.harness import RESULTS, machine, measure, save, show
from torchnn import ops
from torchnn.ops import reference

SHAPES = [  # rows, in_features, units
    (1, 4, 4),
    (32, 25, 25),
    (32, 64, 25),
    (32, 400, 25),
    (32, 400, 1),
    (1000, 400, 25),
    (1000, 4, 64),
    (128, 784, 128),
    (128, 784, 512),
    (1, 1024, 1024),
    (512, 1024, 1024),
    (1024, 4096, 4096),
]


def eager(x, weight, bias, activation):
    return reference.ACTIVATIONS[activation](F.linear(x, weight, bias))


def forward(function, arguments, activation) -> Callable[[], object]:
    return lambda: function(*arguments, activation)  # no argument requires a gradient


def forward_and_backward(function, arguments, activation) -> Callable[[], object]:
    inputs = [t.clone().requires_grad_() for t in arguments]
    grad_out = torch.randn(len(inputs[0]), len(inputs[1]))

    def run():
        return torch.autograd.grad(function(*inputs, activation), inputs, grad_out)

    return run


def check(arguments, activation: str) -> None:
    """Ours may be no more than twice as far from the float64 result as eager is."""
    exact = eager(*(t.double() for t in arguments), activation)
    ours, theirs = (
        (f(*arguments, activation).double() - exact).abs().max() for f in (ops.dense, eager)
    )
    if ours > 2 * theirs + 1e-6:
        raise SystemExit(f"wrong: off by {ours:.1e}, eager by {theirs:.1e}")


def benchmark(threads: int, activation: str) -> list[dict[str, object]]:
    torch.set_num_threads(threads)
    rows: list[dict[str, object]] = []
    for shape in SHAPES:
        batch, in_features, units = shape
        arguments = (
            torch.randn(batch, in_features),
            torch.randn(units, in_features) / in_features**0.5,
            torch.randn(units),
        )
        check(arguments, activation)
        for what in (forward, forward_and_backward):
            times = measure(
                {
                    "eager": what(eager, arguments, activation),
                    "torchnn": what(ops.dense, arguments, activation),
                },
                rounds=5 if batch * in_features * units > 1e9 else 15,
            )
            rows.append(
                {
                    "shape": shape,
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
            " x ".join(map(str, row["shape"])),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--activation", choices=ops.activations(), default="sigmoid")
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
    rows = [row for threads in options.threads for row in benchmark(threads, options.activation)]
    print_table(rows, options.activation)
    if options.save:
        print("written:", save(options.save, rows, options.folder))


if __name__ == "__main__":
    main()
