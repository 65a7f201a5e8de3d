"""How every benchmark here measures: variants in turn, round after round, medians and ratios.

Machines are shared and their clocks drift. Interleaving puts every variant through the same
weather, so that the ratio of two medians from one run means something where a lone time does not.
"""

import datetime
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy
import torch
from rich.console import Console
from rich.table import Table

from torchnn import ops

RESULTS = Path(__file__).parent / "results"


@dataclass
class Timing:
    """Microseconds a call: the median over the rounds and the spread around it."""

    median: float
    p20: float
    p80: float


def measure(
    variants: dict[str, Callable[[], object]], rounds: int = 15, round_seconds: float = 0.02
) -> dict[str, Timing]:
    """Times the variants in turn, `rounds` times over.

    Args:
        variants: Functions of no arguments, by name.
        rounds: How many samples each variant gives.
        round_seconds: A sample repeats the call for about this long.

    Returns:
        A Timing for each name.
    """
    repeats = {name: _calls_in(function, round_seconds) for name, function in variants.items()}
    samples: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, function in variants.items():
            samples[name].append(_seconds(function, repeats[name]) / repeats[name] * 1e6)
    return {name: timing(values) for name, values in samples.items()}


def _seconds(function: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return time.perf_counter() - start


def _calls_in(function: Callable[[], object], seconds: float) -> int:
    """How many calls fill that time, found after a warm-up."""
    function()
    calls = 1
    while (taken := _seconds(function, calls)) < seconds / 4:
        calls *= 2
    return max(1, round(calls * seconds / taken))


def timing(values: list[float]) -> Timing:
    """The Timing of two or more samples."""
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return Timing(statistics.median(values), fifths[0], fifths[3])


def machine() -> dict[str, object]:
    """What a reader must know to read a number: processor, threads, versions, commit, date."""
    return {
        "processor": _processor(),
        "capability": ops.cpu_capability(),
        "cores": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
    }


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    name = fields.get("model name", platform.machine())
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name


@cache
def _commit() -> str:
    """The commit that is measured, as it is at first, or what COMMIT says that it is.

    Libraries that were built elsewhere, from sources whose history did not come along, say so.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True).stdout.strip()
        except OSError:  # no git
            return ""

    if named := os.environ.get("COMMIT"):
        return named
    head = git("rev-parse", "--short", "HEAD")
    return head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def save(name: str, rows: list[dict[str, object]], folder: Path = RESULTS, **facts: object) -> Path:
    """Writes rows, machine and more facts about it as folder/name.json; a Timing is a dict."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    document = {"machine": machine() | facts, "rows": rows}
    path.write_text(json.dumps(document, indent=1, default=asdict) + "\n")
    return path


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Prints a table: text to the left in the first column, numbers to the right in the others."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, 150)  # a file is as wide as the table needs
    console.print(table)
