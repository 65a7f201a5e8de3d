"""Draws what benchmarks.training or many has saved: results/NAME.json becomes docs/NAME.png.

    python -m benchmarks.plot training-cpu sweep-cpu many-cpu

A file of networks becomes bars, one panel a network: how many times as long as torchnn's fit each
implementation takes. A file of a sweep becomes lines: the time of a step against width and batch
size. Many models become lines, too: how many model-steps a second, against the number of models.
Only the file is read, so the machine that draws needs nothing but Matplotlib.
"""

import argparse
import json
import math
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

FOLDER = Path(__file__).parent
RESULTS, PICTURES = FOLDER / "results", FOLDER.parent / "docs"

INK, PALE, GRID = "#1f2933", "#7b8794", "#e4e7eb"
OURS, OTHERS, FASTER = "#d9480f", "#9fb3c8", "#486581"
LINES = {"torchnn": OURS, "jax": "#2f6690", "torch": "#81a4cd"}
# Of many models: color, dashes, and how thick.
MANY_LINES = {
    "fit_many": (OURS, "-", 2.2),
    "train_many_": (OURS, (0, (1, 1.2)), 1.5),
    "fit": ("#f0a37f", "-", 1.5),
    "jax": ("#2f6690", "-", 2.2),
    "jax-in-turn": ("#81a4cd", "-", 1.5),
    "torch.func": ("#6b8f3c", "-", 2.2),
}
STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": PALE,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.dpi": 160,
    "font.size": 9,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": PALE,
    "xtick.labelcolor": INK,
    "ytick.color": PALE,
    "ytick.labelcolor": INK,
}
PANELS_A_ROW = 3

Row = dict  # one of benchmarks.training's, or benchmarks.many's


def draw(document: dict) -> Figure:
    """Returns the picture of a saved file: bars, or lines if it is a sweep or of many models."""
    first = document["rows"][0]
    kind = _many if "models" in first else _lines if first["sweep"] else _bars
    with mpl.rc_context(STYLE):
        return kind(document["rows"], document["machine"])


def _bars(rows: list[Row], machine: dict) -> Figure:
    rows = [row for row in rows if not row["peer"].startswith("torchnn-")]
    networks = [list(run) for _, run in groupby(rows, lambda row: (row["layers"], row["batch"]))]
    labels = _order(rows)
    height, width = -(-len(networks) // PANELS_A_ROW), min(len(networks), PANELS_A_ROW)
    size = 2.8 + 2.9 * width, 1.1 + height * (0.75 + 0.19 * len(labels))
    figure, axes = plt.subplots(
        height, width, figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, network in zip(axes.flat, networks, strict=False):
        _panel(ax, network, labels)
    for ax in axes.flat[len(networks) :]:
        ax.set_axis_off()
    title = "Time of a training step, as a multiple of torchnn's (log scale; shorter is faster)"
    return _finish(figure, title, machine, rows[0]["dtype"], spread="Black")


def _order(rows: list[Row]) -> list[str]:
    """The labels, torchnn first, then by the mean logarithm of their ratios."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        ratios.setdefault(row["label"], []).append(math.log(row["ratio"]))
    means = {label: sum(values) / len(values) for label, values in ratios.items()}
    ours = next(row["label"] for row in rows if row["peer"] == "torchnn")
    return sorted(means, key=lambda label: (label != ours, means[label]))


def _panel(ax: Axes, network: list[Row], labels: list[str]) -> None:
    """One network's bars: to the right of the line at 1 is slower than torchnn."""
    ours = next(row for row in network if row["peer"] == "torchnn")["step"]["median"]
    for row in network:
        _bar(ax, row, labels.index(row["label"]), ours)
    floor = network[0]["floor_one_core"] / ours
    ax.axvline(floor, color=PALE, linewidth=1, linestyle=(0, (2, 2)))
    ax.axvline(1, color=OURS, linewidth=1.2)
    ax.set_title(f"{network[0]['layers']}, {network[0]['batch']}")
    ax.set_xscale("log")
    least = min(0.3, floor / 1.5)
    most = max(row["step"]["p80"] for row in network) / ours
    ax.set_xlim(least, most * (most / least) ** 0.25)  # a quarter for the numbers
    ax.set_yticks(range(len(labels)), labels)
    for label in ax.get_yticklabels()[:1]:
        label.set(color=OURS, fontweight="bold")
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def _bar(ax: Axes, row: Row, place: int, ours: float) -> None:
    ratio, step = row["ratio"], row["step"]
    low, high = step["p20"] / ours, step["p80"] / ours
    text, ink = _number(ratio), INK
    if row["peer"] == "torchnn":
        text, ink = f"1 = {_number(ours)} µs", OURS
        ax.plot(1, place, "D", color=OURS, markersize=5, zorder=3)
    ax.barh(place, ratio - 1, left=1, height=0.72, color=OTHERS if ratio >= 1 else FASTER)
    ax.hlines(place, low, high, color=ink, linewidth=0.8)
    place_of_text = max(ratio, high, 1), place
    ax.annotate(
        text, place_of_text, (6, 0), textcoords="offset points", va="center", fontsize=8, color=ink
    )


def _number(value: float) -> str:
    """With two or three digits that count."""
    decimals = 2 if value < 1 else 1 if value < 10 else 0
    return f"{value:,.{decimals}f}"


def _lines(rows: list[Row], machine: dict) -> Figure:
    sweeps = {name: list(run) for name, run in groupby(rows, lambda row: row["sweep"])}
    figure, axes = plt.subplots(1, len(sweeps), figsize=(11, 4.6), layout="constrained")
    for ax, (name, network) in zip(axes, sweeps.items(), strict=True):
        _sweep(ax, name, network)
    axes[0].set_ylabel("µs a step")
    title = "Time of a training step (log scales)"
    return _finish(figure, title, machine, rows[0]["dtype"], spread="Shaded")


def _sweep(ax: Axes, name: str, rows: list[Row]) -> None:
    """Time against one size, a line for each implementation, and the floors under them."""
    by_width = name == "width"
    key = (lambda row: row["widths"][0]) if by_width else (lambda row: row["batch_size"])
    for peer, color in LINES.items():
        mine = [row for row in rows if row["peer"] == peer]
        if mine:
            _line(ax, [key(row) for row in mine], mine, color)
    ours = [row for row in rows if row["peer"] == "torchnn"]
    sizes = [key(row) for row in ours]
    for cores, dashes in (("one_core", (4, 2)), ("all_cores", (1, 2))):
        floors, label = [r[f"floor_{cores}"] for r in ours], f"floor, {cores.replace('_', ' ')}"
        ax.plot(sizes, floors, color=PALE, linewidth=1, linestyle=(0, dashes), label=label)
    layers = "width-width-width-1" if by_width else ours[0]["layers"]
    ax.set_title(f"{layers}, {ours[0]['batch']}" if by_width else layers)
    ax.set_xlabel(name)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.minorticks_off()
    ax.legend(frameon=False, labelcolor=INK)


def _line(ax: Axes, sizes: list[int], rows: list[Row], color: str) -> None:
    steps = [row["step"] for row in rows]
    ax.fill_between(
        sizes, [s["p20"] for s in steps], [s["p80"] for s in steps], color=color, alpha=0.2, lw=0
    )
    medians = [s["median"] for s in steps]
    ax.plot(sizes, medians, "o-", color=color, markersize=4, linewidth=2, label=rows[0]["label"])


def _many(rows: list[Row], machine: dict) -> Figure:
    """How many model-steps a second with the most threads, a panel for each network."""
    threads = max(row["threads"] for row in rows)
    rows = [row for row in rows if row["threads"] == threads]
    networks = [list(run) for _, run in groupby(rows, lambda row: (row["layers"], row["batch"]))]
    height, width = -(-(len(networks) + 1) // PANELS_A_ROW), min(len(networks) + 1, PANELS_A_ROW)
    size = 3.7 * width, 0.9 + 2.9 * height
    figure, axes = plt.subplots(height, width, figsize=size, squeeze=False, layout="constrained")
    for ax, network in zip(axes.flat, networks, strict=False):
        _crowd(ax, network)
    for ax in axes[:, 0]:
        ax.set_ylabel("model-steps a second")
    for ax in axes.flat[len(networks) :]:
        ax.set_axis_off()
    lines = {line.get_label(): line for ax in axes.flat for line in ax.get_lines()}
    axes.flat[len(networks)].legend(
        lines.values(), lines, loc="center left", frameon=False, labelcolor=INK, fontsize=10,
        handlelength=2.6, labelspacing=0.9,
    )  # fmt: skip
    cores = "one core" if threads == 1 else f"{threads} cores"
    title = f"Many models trained at once, on {cores} (log scales; higher is faster)"
    epochs = next((row["epochs"] for row in rows if row["peer"] == "fit_many"), None)
    more = f" torchnn's fit and fit_many: calls of {epochs} epochs." if epochs else ""
    return _finish(
        figure,
        title,
        machine,
        "float32",
        f"One after the other: timed with 4 at most.{more} Shaded",
    )


def _crowd(ax: Axes, rows: list[Row]) -> None:
    """One network's lines: model-steps a second against the number of models."""
    for peer, (color, dashes, thick) in MANY_LINES.items():
        mine = [row for row in rows if row["peer"] == peer]
        if not mine:
            continue
        counts = [row["models"] for row in mine]
        low, middle, high = (
            [1e6 / row["model_step"][name] for row in mine] for name in ("p80", "median", "p20")
        )
        ax.fill_between(counts, low, high, color=color, alpha=0.15, lw=0)
        marker = "o" if thick > 2 else ""
        ax.plot(
            counts, middle, color=color, linestyle=dashes, linewidth=thick, marker=marker,
            markersize=4, label=mine[0]["label"], zorder=3 if color == OURS else 2,
        )  # fmt: skip
    ax.set_title(f"{rows[0]['layers']}, {rows[0]['batch']}")
    ax.set_xlabel("models")
    ax.set_xscale("log")
    ax.set_yscale("log")
    counts = sorted({row["models"] for row in rows})
    places = [count for count in counts if count in (1, 4, 16, 64, 256, 1024, 4096)]
    ax.set_xticks(places or counts, [f"{count:,}" for count in places or counts])
    ax.yaxis.set_major_formatter(FuncFormatter(_rate))
    ax.minorticks_off()


def _rate(value: float, _: int) -> str:
    """A power of ten in words."""
    for unit, name in ((1e6, " million"), (1e3, ",000")):
        if value >= unit:
            return f"{value / unit:,g}{name}"
    return f"{value:g}"


def _finish(figure: Figure, title: str, machine: dict, dtype: str, spread: str) -> Figure:
    """Says above the panels what is drawn, and below them on which machine."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    versions = ", ".join(f"{name} {v}" for name, v in sorted(machine["versions"].items()))
    floors = ""
    if rates := machine.get("gflops"):
        floors = (
            f" Dashed: the arithmetic at this machine's {rates['one_core']:.0f} GFLOP/s a core."
        )
    facts = (
        f"{machine['processor']}, {machine['capability']}, {machine['cores']} cores, {dtype}, "
        f"{machine['date']}, commit {machine['commit']}.{floors}\n"
        f"{versions}. {spread}: 20th to 80th percentile."
    )
    figure.supxlabel(facts, x=0.01, ha="left", fontsize=7.5, color=PALE)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the files are")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="where the pictures go")
    options = parser.parse_args()
    for name in options.names:
        document = json.loads((options.results / f"{name}.json").read_text())
        path = options.pictures / f"{name}.png"
        draw(document).savefig(path)
        print("drawn:", path)


if __name__ == "__main__":
    main()
