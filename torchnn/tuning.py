"""Which way the products of large layers take on this machine: `python -m torchnn.tuning`.

A product of `torchnn.ops.dense`, or of its gradients, can be computed by torchnn's own blocks or by
the library behind `torch.mm`. Which is faster differs from processor to processor, and from size to
size. So the first product of a size is timed both ways, on a part of it that takes about a
millisecond or is a sixteenth, and the faster way is taken from then on. Sizes that differ by less
than half share a choice, which also depends on the dtype and the number of threads. Small products,
below 131,072 multiply-adds, are always torchnn's own.

What `fit` trains in its own engine is not timed: layers of 256 features and units and more, in
batches of 64 rows and more, with 2^25 multiply-adds and more (2^26 in float64), go to the library,
piece by piece, and all others do not.
So a fit comes to the same bits in every process, and on any number of threads.

The two ways sum in different orders, so results differ in their last bits, and a choice that falls
otherwise in the next process changes them. `set_products("ours")`, or the environment variable
`TORCHNN_PRODUCTS=ours`, fixes them: own products come to the same bits on any number of threads.
Then `fit` computes all products by itself, too.
"""

import argparse
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from torchnn import _checks, ops

__all__ = ["Choice", "choices", "get_products", "measure", "set_products"]

_HOW = ("measured", "ours", "library")  # as in csrc/torch/cpu_ways.cpp
_SHAPES = ("128x784x128", "128x784x512", "512x1024x1024", "128x512x512", "512x3000x700")


class Choice(NamedTuple):
    """What the clock said of products of a size.

    Attributes:
        product: "forward", "grad_x" or "grad_weight".
        shape: The first product of that size: rows, columns and depth, the length of its sums.
        dtype: torch.float32 or torch.float64.
        threads: How many there were.
        timed: The part that was timed: so many rows and columns.
        ours: Microseconds of that part, torchnn's own way.
        library: The same, the library's way.
        taken: "ours" or "library": the latter if it was at least 3 % faster, or, for 2^25
            multiply-adds and more, at most 15 % slower, since perhaps only a part was timed.
    """

    product: str
    shape: tuple[int, int, int]
    dtype: torch.dtype
    threads: int
    timed: tuple[int, int]
    ours: float
    library: float
    taken: str


def get_products() -> str:
    """Returns how products are chosen: "measured", "ours" or "library"."""
    return _told()[0]


def set_products(how: str) -> None:
    """Sets how the way of products is chosen, for all threads.

    The environment variable TORCHNN_PRODUCTS says how it is at first, and "measured" if it is not
    set.

        >>> from torchnn import tuning
        >>> tuning.set_products("ours")
        >>> tuning.get_products()
        'ours'
        >>> tuning.set_products("measured")

    Args:
        how: "measured" for whichever is faster; "ours", also in `fit`; or "library".

    Raises:
        ValueError: how is something else.
    """
    torch.ops.torchnn.choose_ways(_HOW.index(_checks.choice("how", how, _HOW)))


def choices() -> list[Choice]:
    """Returns what has been measured so far in this process."""
    return [_choice(*line.split()) for line in _told()[1:]]


def _told() -> list[str]:
    return torch.ops.torchnn.ways().splitlines()


def _choice(product: str, *told: str) -> Choice:
    *numbers, ours, library, taken = told
    rows, columns, depth, size, threads, *timed = map(int, numbers)
    return Choice(
        product,
        (rows, columns, depth),
        torch.float32 if size == torch.float32.itemsize else torch.float64,
        threads,
        (timed[0], timed[1]),
        float(ours),
        float(library),
        taken,
    )


def measure(rows: int, in_features: int, units: int, dtype: torch.dtype = torch.float32) -> None:
    """Chooses for a dense layer, unless that has been done: one forward and one backward.

    Args:
        rows: The batch size.
        in_features: The inputs of the layer.
        units: Its outputs.
        dtype: torch.float32 or torch.float64.

    Raises:
        TypeError: A number is no integer.
        ValueError: A number is not positive, or dtype is another one.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    rows = _checks.positive_int("rows", rows)
    in_features = _checks.positive_int("in_features", in_features)
    units = _checks.positive_int("units", units)
    x = torch.randn(rows, in_features, dtype=dtype, requires_grad=True)
    weight = torch.randn(units, in_features, dtype=dtype) / in_features**0.5
    out = ops.dense(x, weight.requires_grad_(), None, "sigmoid")
    torch.autograd.grad(out, (x, weight), torch.randn(rows, units, dtype=dtype))


def _shape(text: str) -> tuple[int, int, int]:
    try:
        rows, in_features, units = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be like 128x784x512, got {text}") from None
    if min(rows, in_features, units) < 1:
        raise argparse.ArgumentTypeError(f"must be of positive numbers, got {text}")
    return rows, in_features, units


def _thread_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text}")
    return int(text)


def show() -> None:
    """Prints what has been measured."""
    title = f"Products: {get_products()}. Kernels: {ops.cpu_capability()}."
    table = Table(title=title, caption="size: rows x columns x depth of the sums")
    table.add_column("product", no_wrap=True)
    for column in ("size", "dtype", "threads", "ours, us", "library, us"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("taken")
    for choice in choices():
        table.add_row(
            choice.product,
            "x".join(map(str, choice.shape)),
            str(choice.dtype).removeprefix("torch."),
            str(choice.threads),
            f"{choice.ours:.1f}",
            f"{choice.library:.1f}",
            choice.taken,
        )
    Console().print(table)


def main() -> None:
    """Chooses for some dense layers, and prints what came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m torchnn.tuning",
        description="Times the products of dense layers both ways, and prints which is taken.",
    )
    parser.add_argument(
        "shapes", nargs="*", type=_shape, metavar="ROWSxIN_FEATURESxUNITS", help="of layers"
    )
    here = [torch.get_num_threads()]
    parser.add_argument("--threads", type=_thread_count, nargs="+", default=here)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    options = parser.parse_args()
    for threads in options.threads:
        torch.set_num_threads(threads)
        for rows, in_features, units in options.shapes or map(_shape, _SHAPES):
            measure(rows, in_features, units, getattr(torch, options.dtype))
    show()


if __name__ == "__main__":
    main()
