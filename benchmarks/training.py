"""Whole training runs of small networks: torchnn against everyone.

    python -m benchmarks.training [--networks notes deep] [--peers jax numpy] [--rounds 15]
                                  [--dtype float64] [--save training-cpu]
    python -m benchmarks.training --sweep --save sweep-cpu
    python -m benchmarks.training --group scales|odd|adam [--folder FOLDER --save NAME]

Every implementation trains the same network on the same data, from the same weights, in the same
order, in a process of its own. First their losses must agree with those of a float64 loop; then
they take turns. A turn is what a user calls: one fit, or a hand-written loop, of up to 100 epochs,
fewer if they take long. Its time over its steps is one sample. Whoever is wrong or fails stays out,
and it is said why; if torchnn is wrong, that is the end.
"""

import argparse
import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks import floor, harness
from benchmarks.harness import timing
from benchmarks.loops import NumpyLoop
from benchmarks.networks import GROUPS, NETWORKS, SWEEPS, Network
from benchmarks.peers import IN_SWEEPS, OWN_ADAM, PEERS, Peer
from benchmarks.workers import PeerError, Worker

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}  # of a loss, relative to the float64 loop's
OF_LARGE_FEATURES = 100  # times that: a few sigmoids are not quite saturated
OF_OWN_ADAM = 1e-4  # in any dtype
CHECKED_STEPS = 64  # at least; and at least two epochs
MOST_EPOCHS, LEAST_EPOCHS = 100, 3  # a turn
TURN_SECONDS = 0.4  # about, between these bounds
PAUSE = 0.1  # seconds between turns: after its work, a library's pool of threads spins for a while


@dataclass
class Contender:
    """A worker that has prepared the network.

    Attributes:
        epochs: How many a turn takes.
        loss_error: The largest relative difference from the float64 loop's losses.
        samples: Microseconds a step, one for each turn.
    """

    worker: Worker
    epochs: int
    loss_error: float
    samples: list[float]

    def turn(self, steps: int) -> None:
        time.sleep(PAUSE)
        seconds = self.worker.fit(self.epochs).seconds
        self.samples.append(seconds / (self.epochs * steps) * 1e6)


class Comparison:
    """The workers and what is found out about them.

    Args:
        names: Keys of PEERS.
    """

    def __init__(self, names: list[str], dtype: str, rounds: int, stack: ExitStack):
        self.dtype, self.rounds = dtype, rounds
        self.workers = {name: Worker(name) for name in names}
        for worker in self.workers.values():
            stack.callback(worker.close)
        self.versions: dict[str, str] = {}
        self.floor = floor.measure(dtype, torch.get_num_threads())

    def tolerance(self, name: str, network: Network) -> float:
        """How far the losses of a peer may be from the float64 loop's."""
        factor = OF_LARGE_FEATURES if _is_large(network) else 1
        least = OF_OWN_ADAM if network.adam and name in OWN_ADAM else 0
        return max(factor * TOLERANCE[self.dtype], least)

    def run(self, network: Network) -> list[dict[str, object]]:
        """Checks, then times everyone on this network; returns a row for each."""
        network = replace(network, dtype=self.dtype)
        epochs = max(2, -(-CHECKED_STEPS // network.steps))
        exact = NumpyLoop(replace(checked(network), dtype="float64")).fit(epochs)
        prepared = [self.prepare(worker, network, exact) for worker in self.workers.values()]
        contenders = [contender for contender in prepared if contender]
        order = random.Random(0)
        for _ in range(self.rounds):
            # Another order in every round, so that nobody always comes after the same one.
            for contender in order.sample(contenders, len(contenders)):
                try:
                    contender.turn(network.steps)
                except PeerError as error:
                    _leave_out(contender.worker.peer, error)
                    contenders.remove(contender)
        return self.rows(network, contenders)

    def prepare(self, worker: Worker, network: Network, exact: list[float]) -> Contender | None:
        """Makes a worker ready and compares its losses, or says why it stays out."""
        try:
            self.versions |= worker.prepare(checked(network))
            losses = worker.fit(len(exact)).losses
            loss_error = float(np.max(np.abs(np.subtract(losses, exact)) / exact))
            if not loss_error < self.tolerance(worker.name, network):  # nor is NaN
                wrong = f"off by {loss_error:.1e}: losses {losses}, should be {exact}"
                if worker.name.startswith("torchnn"):
                    raise SystemExit(f"{worker.peer.label} is wrong, {wrong}")
                raise PeerError(wrong)
            if network != checked(network):
                worker.prepare(network)
            return Contender(worker, _epochs_in_a_turn(worker), loss_error, [])
        except PeerError as error:
            _leave_out(worker.peer, error)
            return None

    def rows(self, network: Network, contenders: list[Contender]) -> list[dict[str, object]]:
        """What was found out about each, with its ratio to torchnn and to the floor."""
        times = {c.worker.name: timing(c.samples) for c in contenders}
        together = floor.measure(self.dtype, torch.get_num_threads()).together
        ours = times["torchnn"].median if "torchnn" in times else None
        floors = self.floor.microseconds(network.flop)
        return [
            {
                "layers": network.layers,
                "widths": network.widths,
                "batch": network.batch,
                "batch_size": network.batch_size,
                "samples": network.samples,
                "dtype": self.dtype,
                "flop": network.flop,
                "floor_one_core": floors[0],
                "floor_all_cores": floors[1],
                "cores_together": together,
                "peer": c.worker.name,
                "label": c.worker.peer.label,
                "differs": c.worker.peer.differs,
                "epochs": c.epochs,
                "loss_error": c.loss_error,
                "step": times[c.worker.name],
                "ratio": ours and times[c.worker.name].median / ours,
            }
            for c in contenders
        ]


def checked(network: Network) -> Network:
    """The network that stands for this one where losses are compared.

    What is dropped is everybody's own affair, so nothing is. And full steps from sigmoids that are
    nearly saturated make rounding errors a hundred thousand times as large: a tenth does not.
    """
    rate = network.learning_rate / 10 if _is_large(network) else network.learning_rate
    return replace(network, dropout=0.0, learning_rate=rate)


def _is_large(network: Network) -> bool:
    """Whether its features are, so that sigmoids are saturated."""
    return network.highest is not None and network.highest > 1


def _leave_out(peer: Peer, error: PeerError) -> None:
    print(f"{peer.label} is left out: {error}")


def _epochs_in_a_turn(worker: Worker) -> int:
    """How many epochs fill a turn; the fits that are timed for it also end the warming up.

    A call's own work is most of a short one: what fits is found out with as many epochs as fit.
    """
    epochs = LEAST_EPOCHS
    for _ in range(3):
        fitting = round(epochs * TURN_SECONDS / worker.fit(epochs).seconds)
        epochs = min(max(fitting, LEAST_EPOCHS), MOST_EPOCHS)
    return epochs


def print_table(rows: list[dict[str, object]], cores: int) -> None:
    first = rows[0]
    floors = first["floor_one_core"], first["floor_all_cores"]
    title = (
        f"{first['layers']}, {first['batch']}, {first['samples']:,} samples, {first['dtype']}: "
        f"{first['flop'] / 1e6:.2f} MFLOP a step; floor {floors[0]:.1f} us on one core, "
        f"{floors[1]:.1f} us on {cores}, which were {first['cores_together']:.2f} times as fast as "
        "one when it was over"
    )
    columns = ["", "us a step", "p20", "p80", "torchnn = 1", "floor = 1", f"{cores} cores"]
    lines = [
        [
            row["label"],
            *(f"{t:.1f}" for t in (row["step"].median, row["step"].p20, row["step"].p80)),
            f"{row['ratio']:.2f}" if row["ratio"] else "-",
            *(f"{row['step'].median / us:.1f}x" for us in floors),
            f"{row['loss_error']:.0e}",
            str(row["epochs"]),
        ]
        for row in sorted(rows, key=lambda row: row["step"].median)
    ]
    harness.show(title, [*columns, "loss off by", "epochs"], lines)


def print_notes(rows: list[dict[str, object]]) -> None:
    """What is not the same work."""
    for note in dict.fromkeys(f"{r['label']}: {r['differs']}." for r in rows if r["differs"]):
        print(note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    which.add_argument("--group", choices=["sweep", *GROUPS], help="these networks instead")
    which.add_argument("--sweep", dest="group", action="store_const", const="sweep")
    parser.add_argument("--peers", nargs="+", choices=PEERS, help="beside torchnn")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    parser.add_argument("--save", metavar="NAME", help="write benchmarks/results/NAME.json")
    parser.add_argument(
        "--folder", type=Path, default=harness.RESULTS, help="write NAME.json there instead"
    )
    options = parser.parse_args()
    names = options.peers or (IN_SWEEPS if options.group == "sweep" else PEERS)
    rows: list[dict[str, object]] = []
    with ExitStack() as stack:
        names = list(dict.fromkeys(["torchnn", *names]))
        comparison = Comparison(names, options.dtype, options.rounds, stack)
        for sweep, networks in plan(options):
            for network in networks:
                found = [{"sweep": sweep, **row} for row in comparison.run(network)]
                if found:
                    print_table(found, torch.get_num_threads())
                rows += found
    print_notes(rows)
    if options.save:
        facts = {"versions": comparison.versions, "gflops": comparison.floor._asdict()}
        print("written:", harness.save(options.save, rows, options.folder, **facts))


def plan(options: argparse.Namespace) -> list[tuple[str | None, list[Network]]]:
    """The networks to train, under the name of their sweep."""
    if options.group == "sweep":
        return list(SWEEPS.items())
    if options.group:
        return [(None, GROUPS[options.group])]
    return [(None, [NETWORKS[name] for name in options.networks])]


if __name__ == "__main__":
    main()
