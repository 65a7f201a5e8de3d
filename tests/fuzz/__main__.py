"""python -m tests.fuzz [MODULE ...]: runs random cases; ends with 1 if one of them went wrong."""

import argparse
import random
import sys

from tests.fuzz import runner

MODULES = ("operators", "programs", "many", "watched", "interrupts", "faults", "files")


def main():
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("modules", nargs="*", default=MODULES, metavar="|".join(MODULES))
    parser.add_argument("--seconds", type=float, default=3600, help="for each module")
    parser.add_argument("--cases", type=int, default=10**12, help="of each module")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--sanitized", action="store_true", help="all but faults under sanitizers")
    options = parser.parse_args()
    failures = []
    for module in options.modules:
        failures += runner.campaign(
            module,
            options.seed,
            options.seconds,
            options.cases,
            options.first,
            options.sanitized and module != "faults",  # which replaces the same functions
        )
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
