"""Cases in child processes, so that a crash is a finding and not the end."""

import faulthandler
import importlib
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.fuzz import sanitized

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 300  # seconds for fifty cases, also under sanitizers
FAILED, DIED = "FAILED", "DIED"


def work(module, seed, first, count):
    """The child's part: names each case on stdout before it runs it, and its outcome behind."""
    cases = importlib.import_module(f"tests.fuzz.{module}")
    for number in range(first, first + count):
        if number % 50 == 0 or number == first:
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
        os.write(1, b"%d " % number)
        os.write(1, f"{outcome(cases.check, f'{seed}/{number}')}\n".encode())
    faulthandler.cancel_dump_traceback_later()


def outcome(check, seed):
    """What check says of a case, or that it failed and, on stderr, how."""
    try:
        return check(seed)
    except Exception:
        traceback.print_exc()
        return FAILED


def run(module, seed, first, count, library=None):
    """Runs cases in a child, which imports torchnn from a folder if that is not the checkout.

    Returns:
        How each of them ended, by its number, and what the child said.
    """
    code = f"from tests.fuzz.runner import work; work({module!r}, {seed}, {first}, {count})"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=library or ROOT,
        env=os.environ | environment(module, library),
        capture_output=True,
        text=True,
        errors="replace",
    )
    ended = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    if done.returncode and not ended:
        raise RuntimeError(f"no case has begun: {done.stderr[-3000:]}")
    died = [*ended][-1:] if done.returncode else []
    outcomes = {int(number): DIED if number in died else how for number, how in ended.items()}
    return outcomes, done.stderr


def environment(module, library):
    """Of a child. Fresh memory holds no zeros: a number that is read before it is written shows."""
    own = {"MALLOC_PERTURB_": "1", "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    own |= {"PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
    cases = importlib.import_module(f"tests.fuzz.{module}")
    own |= getattr(cases, "environment", dict)()
    return own | (sanitized.environment() if library else {})


def campaign(module, seed, seconds, cases, first=0, is_sanitized=False, share=5000):
    """Runs children one after the other until the time or the cases are over.

    A child that dies is followed by one that goes on behind the case.

    Returns:
        The numbers of the cases that went wrong; what there is to say of them has been printed.
    """
    library = sanitized.build() if is_sanitized else None
    begun, outcomes = time.monotonic(), {}
    while len(outcomes) < cases and time.monotonic() - begun < seconds:
        number, left = first + len(outcomes), cases - len(outcomes)
        found, said = run(module, seed, number, min(share, left), library)
        outcomes |= found
        report(module, seed, found, said, is_sanitized)
    counts = ", ".join(f"{n} {how}" for how, n in sorted(Counter(outcomes.values()).items()))
    took = time.monotonic() - begun
    print(f"{module}: {len(outcomes)} cases in {took:.0f} s, seed {seed}: {counts}", flush=True)
    return [number for number, how in outcomes.items() if how in (FAILED, DIED)]


def report(module, seed, outcomes, said, is_sanitized):
    """Prints which cases went wrong, how to repeat them, and what was said of them."""
    flag = " --sanitized" if is_sanitized else ""
    wrong = [number for number, how in outcomes.items() if how in (FAILED, DIED)]
    for number in wrong:
        repeat = f"python -m tests.fuzz {module} --seed {seed} --first {number} --cases 1{flag}"
        print(f"case {number} of {module} {outcomes[number]}; to repeat it: {repeat}")
    print(said[-8000:] if wrong else "", end="", flush=True)
