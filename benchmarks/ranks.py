"""Two processes of one thread against one process of two threads, on one machine.

    python -m benchmarks.ranks [--rounds 9] [--save ranks-cpu]

All train the same networks with the same global batches. They take turns: a turn is a fit of some
epochs, and its time over its steps is one sample.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import timedelta

import numpy as np
import torch

from benchmarks import harness
from benchmarks.harness import timing

# Widths, batch size, steps an epoch.
NETWORKS = [
    ((400, 25, 25, 1), 32, 30),
    ((784, 128, 64, 10), 128, 16),
    ((784, 512, 512, 10), 128, 8),
    ((784, 1024, 1024, 10), 512, 4),
    ((784, 1024, 1024, 10), 2048, 2),
]
TURN_SECONDS = 0.3  # about
VARIANTS = {"fused, 2 threads": ("auto", 2, 1), "autograd, 2 threads": ("autograd", 2, 1)}
VARIANTS["2 processes of 1 thread"] = ("auto", 1, 2)


class Workers:
    """The processes of a variant, which wait for a network and a number of epochs each turn."""

    def __init__(self, engine: str, threads: int, count: int, folder: str):
        command = [sys.executable, "-m", "benchmarks.ranks", "--worker", engine, str(threads)]
        settings = {"WORLD_SIZE": str(count), "OMP_WAIT_POLICY": "PASSIVE", "FOLDER": folder}
        self.processes = [
            subprocess.Popen(
                command,
                env=os.environ | settings | {"RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(count)
        ]

    def turn(self, network: int, epochs: int) -> float:
        """Returns the seconds of a fit, those of the slowest."""
        for process in self.processes:
            print(network, epochs, file=process.stdin, flush=True)
        return max(float(process.stdout.readline()) for process in self.processes)

    def close(self) -> None:
        for process in self.processes:
            process.stdin.close()
            process.wait()


def worker(engine: str, threads: int) -> None:
    """Fits as it is told on its standard input, and prints the seconds."""
    import torchnn as tn

    torch.set_num_threads(threads)
    if os.environ["WORLD_SIZE"] != "1":
        store = f"file://{os.environ['FOLDER']}/store"
        ranks = {name.lower(): int(os.environ[name]) for name in ("RANK", "WORLD_SIZE")}
        torch.distributed.init_process_group(
            "gloo", init_method=store, timeout=timedelta(minutes=5), **ranks
        )
    models = {}
    for line in sys.stdin:
        number, epochs = map(int, line.split())
        widths, batch_size, steps = NETWORKS[number]
        if number not in models:
            torch.manual_seed(0)
            *hidden, last = widths[1:]
            layers = [tn.layers.Dense(units, "relu") for units in hidden]
            layers.append(tn.layers.Dense(last, "sigmoid" if last == 1 else "softmax"))
            model = models[number] = tn.Sequential(layers)
            loss = "binary_crossentropy" if last == 1 else "sparse_categorical_crossentropy"
            model.compile(tn.optimizers.SGD(0.01), loss=loss, engine=engine)
        rng = np.random.default_rng(0)
        x = rng.random((batch_size * steps, widths[0]), dtype=np.float32)
        y = rng.integers(max(widths[-1], 2), size=len(x))
        start = time.perf_counter()
        models[number].fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0)
        print(time.perf_counter() - start, flush=True)


def compare(number: int, workers: dict[str, Workers], rounds: int) -> list[dict[str, object]]:
    """Returns a row for each variant on a network."""
    widths, batch_size, steps = NETWORKS[number]
    epochs = {}
    for name, each in workers.items():
        each.turn(number, 1)
        seconds = each.turn(number, 3) / 3
        epochs[name] = max(1, round(TURN_SECONDS / seconds))
    samples: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, each in workers.items():
            seconds = each.turn(number, epochs[name])
            samples[name].append(seconds / epochs[name] / steps * 1e6)
    layers = "-".join(map(str, widths))
    return [
        {"network": layers, "batch_size": batch_size, "variant": name, "step": timing(values)}
        for name, values in samples.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--save", help="write benchmarks/results/NAME.json")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        engine, threads = options.worker
        worker(engine, int(threads))
        return
    with tempfile.TemporaryDirectory() as folder:
        workers = {name: Workers(*each, folder) for name, each in VARIANTS.items()}
        found = [compare(i, workers, options.rounds) for i in range(len(NETWORKS))]
        for each in workers.values():
            each.close()
    table = []
    for network in found:
        times = [row["step"].median for row in network]
        best = min(times[:-1])
        label = f"{network[0]['network']}, batch {network[0]['batch_size']}"
        table.append([label, *[f"{time:,.0f}" for time in times], f"{best / times[-1]:.2f}"])
    harness.show("Microseconds a step", ["network", *VARIANTS, "gain"], table)
    if options.save:
        rows = [row for network in found for row in network]
        print(harness.save(options.save, rows))


if __name__ == "__main__":
    main()
