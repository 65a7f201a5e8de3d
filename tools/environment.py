"""Prints a Python that has what a Make target needs, and makes one in .venv if there is none.

    python3 tools/environment.py EXTRA         the first Python that has it; else .venv
    python3 tools/environment.py --new EXTRA   .venv, whatever else this machine has

EXTRA is one of pyproject.toml's optional dependencies. The environment variable PYTHON names the
only Python to consider. A Python that has everything is used as it is, without a network.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV_PYTHON = ROOT / ".venv" / "bin" / "python"
PYTHON_MINIMUM = (3, 10)

# The PyTorch that a new environment gets. Always a version: a bare "torch" is a different one
# every few weeks, and what is written down about speed and accuracy was measured with this one.
# Where an index has several builds of it, name the index:
#   make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH = os.environ.get("TORCH", "torch==2.13.0")


def read_list(name: str) -> list[str]:
    """Reads a list of strings from pyproject.toml; tomllib came only with Python 3.11."""
    text = (ROOT / "pyproject.toml").read_text()
    found = re.search(rf"^{name} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit(f"pyproject.toml has no list named {name}")
    return re.findall(r'"([^"]+)"', found[1])


def requirements(extra: str) -> list[str]:
    """Everything needed to build torchnn and to run it with this extra."""
    found = [*read_list("dependencies"), *read_list("requires")]
    for requirement in read_list(extra):
        own = re.fullmatch(r"torchnn-fused\[(.+)\]", requirement)
        if own is None:
            found.append(requirement)
        else:
            found += [r for name in own[1].split(",") for r in requirements(name)]
    return list(dict.fromkeys(found))


def release(version: str) -> list[int]:
    """The numbers of a version: 2.13.0+cpu is [2, 13, 0]."""
    return [int(number) for number in re.match(r"[\d.]*\d", version)[0].split(".")]


def is_met(requirement: str) -> bool:
    """Whether this Python has the requirement: a name, name>=version or name==version."""
    name, relation, wanted = re.fullmatch(r"([\w-]+)(?:(>=|==)(.+))?", requirement).groups()
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    if relation == "==":
        return installed == wanted
    return relation is None or release(installed) >= release(wanted)


def check(extra: str) -> None:
    """Prints the Python that runs this if it has everything, else ends with what is missing."""
    if sys.version_info < PYTHON_MINIMUM:
        sys.exit("it is older than Python {}.{}".format(*PYTHON_MINIMUM))
    missing = [requirement for requirement in requirements(extra) if not is_met(requirement)]
    if missing:
        sys.exit(f"it lacks {', '.join(missing)}")
    import numpy  # noqa: F401
    import torch  # noqa: F401  one that does not load is as good as none

    print(sys.executable)


def ask(python: str | Path, extra: str) -> subprocess.CompletedProcess[str]:
    """Runs check in another Python."""
    command = [str(python), __file__, "--check", extra]
    try:
        return subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def succeeds(*command: str | Path) -> bool:
    """Whether a command is there and ends well; what it prints is not shown."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def run(*command: str | Path) -> None:
    """Runs a command in sight of the user; standard output is kept for the result."""
    print("+", shlex.join(map(str, command)), file=sys.stderr, flush=True)
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        sys.exit(
            f"{ROOT / '.venv'} could not be set up: the reason stands above. A Python that has "
            "everything can be named instead: make PYTHON=/path/to/python ..."
        )


def create() -> None:
    """Makes an empty .venv from the first Python that is new enough."""
    too_old = f"import sys; sys.exit(sys.version_info < {PYTHON_MINIMUM})"
    names = ["python3", *(f"python3.{minor}" for minor in range(14, 9, -1))]
    base = next((name for name in names if succeeds(name, "-c", too_old)), None)
    if base is None:
        sys.exit("torchnn needs Python {}.{} or newer".format(*PYTHON_MINIMUM))
    run(base, "-m", "venv", ROOT / ".venv")


def install(extra: str) -> None:
    """Installs what .venv lacks; a PyTorch that is there stays."""
    pip = [VENV_PYTHON, "-m", "pip", "install"]
    if not succeeds(VENV_PYTHON, "-c", "import torch"):
        run(*pip, *shlex.split(TORCH))
    run(*pip, *requirements(extra))


def find(extra: str) -> str | None:
    """The first Python that has everything, if there is one."""
    only = os.environ.get("PYTHON")
    for python in [only] if only else [VENV_PYTHON, "python3", "python"]:
        answer = ask(python, extra)
        if answer.returncode == 0:
            return answer.stdout.strip()
        if only:
            sys.exit(f"PYTHON={only} will not do: {answer.stderr.strip()}")
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extra")
    parser.add_argument("--new", action="store_true", help="use .venv, made if need be")
    parser.add_argument("--check", action="store_true", help="judge the Python that runs this")
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.extra)
        return
    python = None if arguments.new else find(arguments.extra)
    if python is None:
        if not VENV_PYTHON.exists():
            create()
        install(arguments.extra)
        answer = ask(VENV_PYTHON, arguments.extra)
        python = answer.stdout.strip() or sys.exit(f"{VENV_PYTHON}: {answer.stderr.strip()}")
    print(python)


if __name__ == "__main__":
    main()
