"""A model as a table: its layers, their output shapes and parameters, and what will train it."""

import copy
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from torchnn._engine.building import is_built, mode
from torchnn._engine.run import Form
from torchnn.layers import Normalization
from torchnn.layers._variables import variables

Row = tuple[str, ...]


def show(
    title: str,
    rows: Iterable[Row],
    notes: Iterable[str],
    print_fn: Callable[[str], Any] | None = None,
    width: int | None = None,
) -> None:
    """Prints the table and the notes below it.

    Args:
        title: What stands above.
        rows: Layer, output shape and parameters, as rows() returns them; and what the layer is
            called on, where that is not the one before it.
        notes: The lines below.
        print_fn: Gets the text, as one string, in place of the terminal.
        width: In characters; that of the terminal if None.
    """
    from rich.console import Console, Group  # 50 ms to import: not before someone looks
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, "bold"), title_justify="left")
    table.add_column("Layer (type)")
    table.add_column("Output shape")
    table.add_column("Parameters", justify="right")
    rows = list(rows)
    if any(len(row) > 3 for row in rows):
        table.add_column("Called on")
    for row in rows:
        table.add_row(*map(Text, row))  # a name is no markup
    console = Console(file=io.StringIO() if print_fn else None, width=width)
    console.print(Group(table, *map(Text, notes)))
    if print_fn:
        print_fn(console.file.getvalue())  # type: ignore[attr-defined]


def rows(layers: Sequence[nn.Module], names: Sequence[str], form: Form) -> list[Row]:
    """Returns name and type, output shape and number of parameters of each layer."""
    counts = [f"{_count(layer):,}" if is_built(layer) else "?" for layer in layers]
    kinds = [f"{name} ({type(layer).__name__})" for name, layer in zip(names, layers, strict=True)]
    return list(zip(kinds, output_shapes(layers, form), counts, strict=True))


def output_shapes(layers: Sequence[nn.Module], form: Form) -> list[str]:
    """Returns each layer's output shape, such as "(None, 25)", or "?" where nobody knows."""
    if not form.shape:
        return ["?"] * len(layers)
    shapes = []
    model = copy.deepcopy(nn.Sequential(*layers))  # looking at a model does not build it
    x = torch.zeros(1, *form.shape, device=form.device, dtype=form.dtype)
    with mode(model, training=False), torch.random.fork_rng(), torch.no_grad():
        for layer in model:
            if not _waits_for_adapt(layer):
                x = layer(x)
            shapes.append(f"({', '.join(['None', *map(str, x.shape[1:])])})")
    return shapes


def _waits_for_adapt(layer: nn.Module) -> bool:
    """Whether it cannot be called yet; it keeps the shape."""
    return isinstance(layer, Normalization) and not layer.mean.numel()


def totals(model: nn.Module) -> list[str]:
    """Returns lines on the number of parameters, and how many of them learn."""
    if not is_built(model):
        return ["Total parameters: ? (data, or an Input layer in front, will tell)"]
    total, size = _count(model), sum(v.nbytes for v in variables(model))
    trainable = sum(v.numel() for v in variables(model) if v.trainable)
    return [
        f"Total parameters: {total:,} ({size / 1024:,.1f} KB)",
        f"Trainable: {trainable:,}. Not trainable: {total - trainable:,}",
    ]


def _count(module: nn.Module) -> int:
    return sum(variable.numel() for variable in variables(module))
