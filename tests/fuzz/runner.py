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

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 120  # seconds a case, also under sanitizers
FAILED, DIED = "FAILED", "DIED"


def work(module, seed, first, count):
    """The child's part: names each case on stdout before it runs it, and its outcome behind."""
    cases = importlib.import_module(f"tests.fuzz.{module}")
    for number in range(first, first + count):
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
    """Runs cases in a child; returns how many ended how, which of them went wrong, and all it said.

    Args:
        library: A folder with a torchnn to import instead of the checkout's.
    """
    code = f"from tests.fuzz.runner import work; work({module!r}, {seed}, {first}, {count})"
    # Fresh memory holds no zeros, so that a number that is read before it is written shows.
    environment = {"MALLOC_PERTURB_": "1", "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", **os.environ}
    cases = importlib.import_module(f"tests.fuzz.{module}")
    environment |= getattr(cases, "environment", dict)()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=library or ROOT,
        env=environment,
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


def campaign(module, seed, seconds, cases, first=0, library=None, share=2000):
    """Runs children one after the other until the time or the cases are over.

    A child that dies is followed by one that goes on behind the case.

    Returns:
        The numbers of the cases that went wrong; what there is to say of them has been printed.
    """
    begun, outcomes = time.monotonic(), {}
    while len(outcomes) < cases and time.monotonic() - begun < seconds:
        number = first + len(outcomes)
        found, said = run(module, seed, number, min(share, first + cases - number), library)
        outcomes |= found
        wrong = [number for number, how in found.items() if how in (FAILED, DIED)]
        for number in wrong:
            repeat = f"python -m tests.fuzz {module} --seed {seed} --first {number} --cases 1"
            print(f"case {number} of {module} {outcomes[number]}; to repeat it: {repeat}")
        print(said[-8000:] if wrong else "", end="", flush=True)
    counts = ", ".join(f"{n} {how}" for how, n in sorted(Counter(outcomes.values()).items()))
    seconds = time.monotonic() - begun
    print(f"{module}: {len(outcomes)} cases in {seconds:.0f} s, seed {seed}: {counts}", flush=True)
    return [number for number, how in outcomes.items() if how in (FAILED, DIED)]
