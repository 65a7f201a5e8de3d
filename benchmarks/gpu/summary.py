"""Puts what run.sh and the short phases left in $PARTS into one file, $OUT/summary.json.

It imports no PyTorch, since run.sh calls it after each phase.
"""

import json
import os
import sys
from pathlib import Path


def lines(path: Path) -> list[dict[str, object]]:
    """The lines of JSON of a file, if there is one."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def document(parts: Path) -> dict[str, object]:
    """The machine, the verdicts, and the rows of the short phases."""

    def saved(name: str) -> dict[str, object]:
        path = parts / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    facts = saved("facts")
    return {
        "machine": facts.get("machine"),
        "facts": facts.get("rows"),
        "phases": lines(parts / "phases"),
        "smoke": saved("smoke").get("rows"),
        "many": saved("many").get("rows"),
        "probe": lines(parts / "probe"),
    }


def main() -> None:
    found = document(Path(os.environ["PARTS"]))
    path = Path(os.environ["OUT"]) / "summary.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    if "--show" in sys.argv:
        for row in found["phases"]:
            print(f"{row['phase']:12} {row['seconds']:4} s  {row['verdict']}")


if __name__ == "__main__":
    main()
