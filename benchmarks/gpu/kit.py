"""What the modules of the kit share: their arguments, and rows that are on disk once they exist."""

import argparse
import json
import os
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, is_dataclass
from pathlib import Path

import torch

from benchmarks.gpu import device
from benchmarks.harness import save

FOLDER = Path(os.environ.get("OUT", "build/gpu/out"))

Row = dict[str, object]


def parser(document: str | None, seconds: float = 60) -> argparse.ArgumentParser:
    """The arguments that every module takes; `document` is its docstring."""
    made = argparse.ArgumentParser(description=(document or "").splitlines()[0])
    made.add_argument("--seconds", type=float, default=seconds, help="after these, no further row")
    made.add_argument("--folder", type=Path, default=FOLDER, help="where results go")
    made.add_argument("--cpu", action="store_true", help="try the kit out: few rows, tiny networks")
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, and `device`; ends the program if that is a GPU and there is none."""
    options = made.parse_args()
    options.device = "cpu" if options.cpu else "cuda"
    if not options.cpu:
        device.require_gpu()
    torch.manual_seed(0)
    return options


class Rows(list[Row]):
    """Rows that are printed and saved as they come, with the facts of the machine.

    Args:
        name: Of the file, without .json; None for no file.
        options: With folder, seconds and device, as parse returns them.
    """

    def __init__(self, name: str | None, options: argparse.Namespace) -> None:
        super().__init__()
        self._name, self._folder = name, options.folder
        self._end = time.monotonic() + options.seconds
        self._facts = device.facts(options.device)

    def add(self, **row: object) -> None:
        self.append(row)
        print(json.dumps(_short(row)), flush=True)
        if self._name:
            save(self._name, self, self._folder, **self._facts)

    def fill(self, cases: Iterable[Row], work: Callable[..., Row]) -> None:
        """Adds a row for each case: the case, and what work(**case) returns.

        An error becomes a row, since one case must not cost the others; so does a case for which
        there was no time left.
        """
        for case in cases:
            if time.monotonic() > self._end:
                self.add(**case, skipped="no time")
                continue
            try:
                found = work(**case)
            except Exception as error:
                traceback.print_exc(limit=-4)
                found = {"error": f"{type(error).__name__}: {error}"[:300]}
            self.add(**case, **found)

    @property
    def failed(self) -> bool:
        """Whether there is an error, or something that is not fine."""
        return any("error" in row or row.get("fine") is False for row in self)


def _short(value: object) -> object:
    """A value as one reads it: four digits of a number, the median of a Timing."""
    if is_dataclass(value) and not isinstance(value, type):
        return _short(asdict(value)["median"])
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
