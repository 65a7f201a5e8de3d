"""Processes that train when they are told, one for each peer.

Threads, Keras's backend and half a dozen libraries' start-up code stay apart, and the processes
live on, so that they can take turns. Both ends speak lines of JSON:

    {"prepare": {network}}  ->  {"versions": {package: version}}
    {"fit": epochs}         ->  {"seconds": s, "losses": [...]}

or {"error": "..."} for an answer. `python -m benchmarks.workers NAME` is the far end; it has a
terminal for its standard output, as a user's program does, and answers through the pipe.
"""

import json
import os
import pty
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from benchmarks.networks import Network
from benchmarks.peers import PEERS, Trainer

ROOT = Path(__file__).parent.parent


class PeerError(Exception):
    """What a worker could not do, and why."""


class Worker:
    """The near end of a process for one peer.

    Args:
        name: A key of PEERS.
    """

    def __init__(self, name: str):
        self.name, self.peer, self.said = name, PEERS[name], b""
        master, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.workers", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "100", **self.peer.environment},
        )
        os.close(terminal)
        threading.Thread(target=self._read, args=(master,), daemon=True).start()

    def prepare(self, network: Network) -> dict[str, str]:
        """Makes the network and returns the versions of the packages at work."""
        return self._ask(prepare=asdict(network))["versions"]

    def fit(self, epochs: int) -> tuple[float, list[float]]:
        """Trains on; returns the seconds it took and the mean loss of every epoch."""
        answer = self._ask(fit=epochs)
        return answer["seconds"], answer["losses"]

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _ask(self, **request):
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            answer = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            said = self.said.decode(errors="replace").strip()
            raise PeerError(f"its process ended; last it said: {said}") from None
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def _read(self, master: int) -> None:
        """Reads what the process prints, as a terminal does, and keeps the end of it."""
        try:
            while part := os.read(master, 65536):
                self.said = (self.said + part)[-2000:]
        except OSError:  # how Linux reports that the other side has closed
            pass
        os.close(master)


class Serving:
    """The far end."""

    def __init__(self, name: str):
        self.peer = PEERS[name]
        self.trainer: Trainer | None = None

    def prepare(self, network: dict) -> dict[str, object]:
        self.trainer = None  # the memory of the network before goes first
        network["widths"] = tuple(network["widths"])
        self.trainer = self.peer.make(Network(**network))
        return {"versions": {name: import_module(name).__version__ for name in self.peer.packages}}

    def fit(self, epochs: int) -> dict[str, object]:
        start = time.perf_counter()
        losses = self.trainer.fit(epochs)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "losses": [float(loss) for loss in losses]}

    def answer(self, request: dict) -> dict[str, object]:
        ((name, argument),) = request.items()
        try:
            return getattr(self, name)(argument)
        except ModuleNotFoundError as error:
            return {"error": f"{error.name} is not installed"}
        except Exception as error:  # whatever it is, it belongs into the answer
            return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the terminal, not between the answers
    serving = Serving(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(serving.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
