"""Many models of one shape at once: torchnn.fit_many against JAX's vmap, torch.func's, and loops.

    python -m benchmarks.many [--networks notes digits] [--models 1 16 256] [--peers jax]
                              [--threads 1 2] [--rounds 5] [--epochs 20] [--seconds 2]
                              [--save many-cpu]

All models have the same shape and data, in the same order, and each its own first weights and its
own learning rate. Every implementation trains them in a process of its own, one for each number of
threads. First the losses of some models must agree with those of a float64 loop; then they take
turns. A turn is what a user calls; its time over models and steps is one sample. Time on the clock
counts, and that of the processor is kept beside it. Who would take too long for a number of models
is left out there; those that train one model after the other are timed with a few, and take as long
for each of more.
"""

import argparse
import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from benchmarks import harness
from benchmarks.gpu.training import spread
from benchmarks.harness import timing
from benchmarks.loops import NumpyLoop
from benchmarks.many_peers import IN_TURN, PEERS, WHOLE_CALLS, compared, environment
from benchmarks.networks import Network
from benchmarks.peers import Peer
from benchmarks.workers import PeerError, Worker

NETWORKS = {  # 20 steps an epoch
    "notes": Network((400, 25, 25, 1), batch_size=32, samples=640),
    "digits": Network((64, 25, 25, 1), batch_size=32, samples=640),
    "tiny": Network((8, 16, 1), batch_size=32, samples=640),
    "plane": Network((2, 16, 16, 1), batch_size=32, samples=640),
    "deep": Network((20, *[16] * 8, 1), batch_size=16, samples=320),
}
COUNTS = (1, 4, 16, 64, 256, 1024, 4096)
LARGEST = {"tiny": 10_000, "plane": 10_000}  # beside those
SUMMED_UP_AT = {"notes": 64}
ELSE_SUMMED_UP_AT = 256

TOLERANCE = 1e-5  # of a loss, relative to the float64 loop's
MOST_EPOCHS = 100  # a turn
LEAST_ROUNDS = 2
TURN_SECONDS = 0.05  # about, between these bounds
PAUSE = 0.02  # seconds between turns: after its work, a library's pool of threads spins for a while
MOST_IN_TURN = 4  # models of those who take as long for each of more


Key = tuple[str, int]  # a peer, and how many threads it has


@dataclass
class Contender:
    """A worker that has prepared the models.

    Attributes:
        threads: How many it has.
        models: How many it trains.
        epochs: How many a turn takes.
        loss_error: The largest relative difference from the float64 loop's losses.
        samples: Microseconds a model-step by the clock, one for each turn.
        processor: The same of all cores together.
    """

    worker: Worker
    threads: int
    network: Network
    models: int
    epochs: int
    loss_error: float
    samples: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    @property
    def model_steps(self) -> int:
        """Those of a turn."""
        return self.models * self.network.steps * self.epochs

    def is_due(self, rounds: int, seconds: float) -> bool:
        """Whether it has another turn, of so many and for so long all together."""
        done = len(self.samples)
        taken = sum(self.samples) * self.model_steps / 1e6
        return done < LEAST_ROUNDS or (done < rounds and taken * (done + 1) / done < seconds)

    def turn(self) -> None:
        time.sleep(PAUSE)
        fitted = self.worker.fit(self.epochs)
        self.samples.append(fitted.seconds / self.model_steps * 1e6)
        self.processor.append(fitted.processor / self.model_steps * 1e6)


class Comparison:
    """The workers and what is found out about them.

    Args:
        names: Keys of PEERS.
        threads: The numbers of threads that each of them has in turn.
        rounds: How many turns each has, or fewer if they are long.
        epochs: Those of a call that does work of its own.
        seconds: The longest turn.
    """

    def __init__(
        self,
        names: list[str],
        threads: list[int],
        rounds: int,
        epochs: int,
        seconds: float,
        stack: ExitStack,
    ):
        self.rounds, self.epochs, self.seconds = rounds, epochs, seconds
        self.workers: dict[Key, Worker] = {}
        for name in names:
            for count in threads:
                worker = Worker(name, "benchmarks.many_peers", environment(count))
                stack.callback(worker.close)
                self.workers[name, count] = worker
        self.versions: dict[str, str] = {}
        self.ready: dict[Key, Contender] = {}

    def run(self, network: Network, counts: list[int]) -> list[dict[str, object]]:
        """Checks, then times everyone with so many models; returns a row for each, and number."""
        rows: list[dict[str, object]] = []
        # Of each that still takes part: numbers of models, and the seconds of an epoch of them.
        known: dict[Key, list[tuple[int, float]]] = {key: [] for key in self.workers}
        for models in sorted(counts):
            expected: dict[Key, float | None] = {}
            for (name, threads), points in known.items():
                epoch = _expected(points, _trained(name, models))
                if epoch and epoch * self.least_epochs(name) > self.seconds:
                    _leave_out(PEERS[name], threads, models, "a turn would take too long")
                else:
                    expected[name, threads] = epoch
            found = self.time(network, models, expected)
            steps = {(row["peer"], row["threads"]): row for row in found}
            known = {
                key: [*known[key], (row["trained"], _epoch_seconds(row, network))]
                for key, row in steps.items()
            }
            rows += found
        return rows

    def least_epochs(self, name: str) -> int:
        """The fewest of a turn."""
        return self.epochs if name in WHOLE_CALLS else 1

    def time(
        self, network: Network, models: int, expected: dict[Key, float | None]
    ) -> list[dict[str, object]]:
        """A row for each worker that can train so many models.

        Args:
            expected: The seconds that an epoch is expected to take, if anything is known of it.
        """
        prepared = [self.prepare(key, network, models, epoch) for key, epoch in expected.items()]
        contenders = [contender for contender in prepared if contender]
        order = random.Random(0)
        for _ in range(self.rounds):
            # Another order in every round, so that nobody always comes after the same one.
            for contender in order.sample(contenders, len(contenders)):
                if not contender.is_due(self.rounds, self.seconds):
                    continue
                try:
                    contender.turn()
                except PeerError as error:
                    _leave_out(contender.worker.peer, contender.threads, models, error)
                    contenders.remove(contender)
        return [
            {
                "layers": network.layers,
                "batch": network.batch,
                "samples": network.samples,
                "models": models,
                "trained": c.models,
                "threads": c.threads,
                "peer": c.worker.name,
                "label": c.worker.peer.label,
                "differs": c.worker.peer.differs,
                "epochs": c.epochs,
                "rounds": len(c.samples),
                "loss_error": c.loss_error,
                "model_step": timing(c.samples),
                "processor": timing(c.processor),
            }
            for c in contenders
        ]

    def prepare(
        self, key: Key, network: Network, models: int, epoch: float | None
    ) -> Contender | None:
        """Makes a worker ready and compares its losses, or says why it stays out."""
        (name, threads), worker = key, self.workers[key]
        trained, ready = _trained(name, models), self.ready.pop(key, None)
        if ready and (ready.network, ready.models) == (network, trained):
            self.ready[key] = replace(ready, samples=[], processor=[])
            return self.ready[key]
        try:
            self.versions |= worker.prepare(network, trained)
            losses = worker.fit(1).losses  # which also compiles what is compiled
            right = [_exact(network, trained, i) for i in compared(trained)]
            loss_error = float(np.max(np.abs(np.subtract(losses, right)) / right))
            if not loss_error < TOLERANCE:  # nor is NaN
                wrong = f"off by {loss_error:.1e}: losses {losses}, should be {right}"
                if worker.peer.label.startswith("torchnn"):
                    raise SystemExit(f"{worker.peer.label} is wrong, {wrong}")
                raise PeerError(wrong)
            epochs = self.least_epochs(name)
            if name not in WHOLE_CALLS:
                epoch = epoch or worker.fit(1).seconds
                epochs = min(max(round(TURN_SECONDS / epoch), epochs), MOST_EPOCHS)
        except PeerError as error:
            _leave_out(worker.peer, threads, models, error)
            return None
        self.ready[key] = Contender(worker, threads, network, trained, epochs, loss_error)
        return self.ready[key]


def _epoch_seconds(row: dict[str, object], network: Network) -> float:
    return row["model_step"].median / 1e6 * row["trained"] * network.steps


def _expected(points: list[tuple[int, float]], models: int) -> float | None:
    """The seconds of an epoch of so many models, on the line through the last two points.

    A vector of models takes as long as one, so what one takes tells nothing of many.
    """
    if len(points) < 2:
        return points[0][1] if points else None
    (fewer, less), (more, last) = points[-2:]
    slope = max(0.0, last - less) / (more - fewer) if more > fewer else 0.0
    return last + slope * (models - more)


def _trained(name: str, models: int) -> int:
    """How many models a peer trains to stand for so many."""
    return min(models, MOST_IN_TURN) if name in IN_TURN else models


@cache
def _exact(network: Network, models: int, i: int) -> list[float]:
    """The loss of model i's first epoch in float64."""
    scale, rate = (float(factors[i]) for factors in spread(models))
    rate *= network.learning_rate
    loop = NumpyLoop(replace(network, learning_rate=rate, dtype="float64"))
    loop.weights = [(kernel * scale, bias * scale) for kernel, bias in loop.weights]
    return loop.fit(1)


def _threads(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"


def _leave_out(peer: Peer, threads: int, models: int, why: object) -> None:
    print(f"{peer.label}, {_threads(threads)}, is left out from {models:,} models on: {why}")


def print_table(rows: list[dict[str, object]]) -> None:
    """All of a network: a line for each peer, a column for each number of models."""
    counts = sorted({row["models"] for row in rows})
    for threads in sorted({row["threads"] for row in rows}):
        first = rows[0]
        title = (
            f"{first['layers']}, {first['batch']}, {_threads(threads)}: microseconds a model-step, "
            f"by number of models (~ of {MOST_IN_TURN} models)"
        )
        found: dict[str, dict[int, str]] = {}
        for row in rows:
            if row["threads"] == threads:
                text = (
                    f"{'~' if row['trained'] < row['models'] else ''}{row['model_step'].median:.3g}"
                )
                found.setdefault(row["label"], {})[row["models"]] = text
        lines = [
            [label, *(own.get(count, "-") for count in counts)] for label, own in found.items()
        ]
        harness.show(title, ["", *(f"{count:,}" for count in counts)], lines)


def summary(rows: list[dict[str, object]], at: int, measure: str) -> list[list[str]]:
    """For each number of threads: ours in microseconds, and each peer's time as a multiple of it.

    Args:
        rows: Those of a network.
        at: The number of models.
        measure: "model_step" or "processor".
    """
    lines = []
    for threads in sorted({row["threads"] for row in rows}):
        times = {
            row["peer"]: row[measure].median
            for row in rows
            if (row["threads"], row["models"]) == (threads, at)
        }
        ours = times.get("fit_many")
        others = [times.get(name) for name in PEERS if name != "fit_many"]
        lines.append(
            [
                f"{rows[0]['layers']}, {at:,} models, {_threads(threads)}",
                f"{ours:.3g}" if ours else "-",
                *(f"{other / ours:.2f}x" if ours and other else "-" for other in others),
            ]
        )
    return lines


def print_summary(found: dict[str, list[dict[str, object]]]) -> None:
    """How many times as long as fit_many everyone takes, for one number of models a network."""
    others = [name for name in PEERS if name != "fit_many"]
    for measure, words in (("model_step", "by the clock"), ("processor", "processor time")):
        lines = []
        for name, rows in found.items():
            at = SUMMED_UP_AT.get(name, ELSE_SUMMED_UP_AT)
            counts = [row["models"] for row in rows if row["models"] <= at]
            lines += summary(rows, max(counts), measure) if counts else []
        title = f"Time of a model-step as a multiple of fit_many's, {words}"
        harness.show(title, ["", "fit_many, us", *others], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--models", nargs="+", type=int, help="how many, smallest first")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument(
        "--threads", nargs="+", type=int, default=sorted({1, torch.get_num_threads()})
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20, help="of a call of fit or fit_many")
    parser.add_argument("--seconds", type=float, default=2.0, help="the longest turn")
    parser.add_argument("--save", metavar="NAME", help="write benchmarks/results/NAME.json")
    parser.add_argument(
        "--folder", type=Path, default=harness.RESULTS, help="write NAME.json there instead"
    )
    options = parser.parse_args()
    found: dict[str, list[dict[str, object]]] = {}
    with ExitStack() as stack:
        names = list(dict.fromkeys(["fit_many", *options.peers]))
        comparison = Comparison(
            names, options.threads, options.rounds, options.epochs, options.seconds, stack
        )
        for name in options.networks:
            largest = [LARGEST[name]] if name in LARGEST else []
            counts = options.models or [*COUNTS, *largest]
            found[name] = comparison.run(NETWORKS[name], sorted(set(counts)))
            print_table(found[name])
    print_summary(found)
    rows = [row for own in found.values() for row in own]
    for note in dict.fromkeys(f"{r['label']}: {r['differs']}." for r in rows if r["differs"]):
        print(note)
    if options.save:
        facts = {"versions": comparison.versions, "dtype": "float32"}
        print("written:", harness.save(options.save, rows, options.folder, **facts))


if __name__ == "__main__":
    main()
