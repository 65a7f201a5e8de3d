"""Processes that train when they are told, one for each peer.

Threads, Keras's backend and half a dozen libraries' start-up code stay apart, and the processes
live on, so that they can take turns. Both ends speak lines of JSON:

    {"prepare": [{network}, ...]}  ->  {"versions": {package: version}}
    {"fit": epochs}                ->  {"seconds": s, "processor": s, "losses": [...]}

or {"error": "..."} for an answer. `python -m benchmarks.workers MODULE NAME` is the far end, for
a key of the module's PEERS; it has a terminal for its standard output, as a user's program does,
and answers through the pipe.
"""

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from benchmarks.networks import Network
from benchmarks.peers import Trainer

ROOT = Path(__file__).parent.parent


class PeerError(Exception):
    """What a worker could not do, and why."""


class Fitted(NamedTuple):
    """What a fit took and came to.

    Attributes:
        seconds: By the clock.
        processor: Seconds of all cores together.
        losses: The mean loss of every epoch; of many models, those of each.
    """

    seconds: float
    processor: float
    losses: list


class Worker:
    """The near end of a process for one peer.

    Args:
        name: A key of the module's PEERS.
        module: The module.
        environment: More variables, beside the peer's.
    """

    def __init__(
        self,
        name: str,
        module: str = "benchmarks.peers",
        environment: Mapping[str, str] = MappingProxyType({}),
    ):
        self.name, self.peer, self.said = name, import_module(module).PEERS[name], b""
        master, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.workers", module, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "100", **self.peer.environment, **environment},
        )
        os.close(terminal)
        threading.Thread(target=self._read, args=(master,), daemon=True).start()

    def prepare(self, network: Network, *more: object) -> dict[str, str]:
        """Makes the network, or what the peer makes of it and of more arguments; returns the
        versions of the packages at work."""
        return self._ask(prepare=[asdict(network), *more])["versions"]

    def fit(self, epochs: int) -> Fitted:
        """Trains on."""
        return Fitted(**self._ask(fit=epochs))

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

    def __init__(self, module: str, name: str):
        self.peer = import_module(module).PEERS[name]
        self.trainer: Trainer | None = None

    def prepare(self, arguments: list) -> dict[str, object]:
        self.trainer = None  # the memory of the network before goes first
        network, *more = arguments
        network["widths"] = tuple(network["widths"])
        self.trainer = self.peer.make(Network(**network), *more)
        return {"versions": {name: import_module(name).__version__ for name in self.peer.packages}}

    def fit(self, epochs: int) -> dict[str, object]:
        start, processor = time.perf_counter(), time.process_time()
        losses = self.trainer.fit(epochs)
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
        losses = np.asarray(losses, dtype=float).tolist()
        return {"seconds": seconds, "processor": processor, "losses": losses}

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
    serving = Serving(*sys.argv[1:])
    for line in sys.stdin:
        print(json.dumps(serving.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
