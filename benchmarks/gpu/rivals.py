"""The others on this GPU, each with ours timed in turn beside it: JAX, torch.func, CUDA graphs.

One model: JAX's lax.scan, one CUDA graph of an epoch of plain PyTorch, eager PyTorch, and
torch.compile reduce-overhead. Many models with weights and learning rates of their own: JAX's vmap
of the scan, and torch.func's vmap in a CUDA graph. Before anything is timed, the losses of one
model are compared with those of PyTorch in float64 on the CPU, and those of many with ours.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from benchmarks.gpu import kit
from benchmarks.gpu.peers import RIVALS
from benchmarks.gpu.training import Ours, network_of
from benchmarks.harness import Timing, timing
from benchmarks.loops import TorchLoop

ROUNDS = 5
ROUND_SECONDS = 0.05
CHECKED_EPOCHS = 2
# TensorFloat-32 keeps 10 bits of a factor: off by 5e-4, and by less in a sum.
TOLERANCE = {"JAX": 1e-3}
EXACT = 1e-4

PLAN = [  # rival, network, models; the most telling first, and those that are slow to start late
    ("JAX", "notes", 1),
    ("JAX", "notes", 132),
    ("JAX", "notes", 1056),
    ("JAX", "digits", 1056),
    ("CUDA graph", "notes", 1),
    ("JAX", "classes", 1),
    ("CUDA graph", "classes", 1),
    ("torch.func", "notes", 132),
    ("torch.func", "notes", 1056),
    ("JAX", "notes", 4096),
    ("JAX exact", "notes", 1),
    ("JAX exact", "notes", 132),
    ("JAX exact", "notes", 1056),
    ("JAX", "tiny", 1056),
    ("JAX", "digits", 8192),
    ("JAX", "digits", 1),
    *(("CUDA graph", name, 1) for name in ("digits", "deep", "full-batch", "medium", "large")),
    ("eager", "notes", 1),
    ("torch.func", "digits", 1056),
    *(("JAX", name, 1) for name in ("full-batch", "medium", "large", "deep")),
    ("compile", "notes", 1),
    ("torch.func, compiled", "notes", 1056),
]
DRY_PLAN = [
    ("CUDA graph", "tiny", 1),
    ("eager", "tiny", 1),
    ("torch.func", "tiny", 3),
    ("JAX", "tiny", 1),
    ("JAX exact", "tiny", 3),
    ("CUDA graph", "classes", 1),
    ("JAX", "classes", 1),
    ("JAX exact", "classes", 3),
]


class WrongError(Exception):
    """A loss that is not what it must be."""


def losses(peer: object) -> np.ndarray:
    """The mean losses of the first epochs, shape (epochs, models)."""
    epochs = [peer.epoch() for _ in range(CHECKED_EPOCHS)]
    peer.wait()
    arrays = [np.asarray(e.cpu() if isinstance(e, torch.Tensor) else e) for e in epochs]
    return np.stack([array.astype(np.float64).reshape(-1) for array in arrays])


def check(name: str, found: np.ndarray, expected: np.ndarray) -> float:
    """The largest relative difference of losses; raises WrongError if that is too large."""
    off = float((abs(found - expected) / (1 + abs(expected))).max())
    if not off <= TOLERANCE.get(name, EXACT):
        raise WrongError(f"the losses of {name} are off by {off:.1e}: {found[:, -1].tolist()}")
    return off


def seconds(peer: object, epochs: int) -> float:
    """The time of so many epochs, to the end of the last."""
    peer.wait()
    begun = time.perf_counter()
    for _ in range(epochs):
        peer.epoch()
    peer.wait()
    return time.perf_counter() - begun


def measure(peers: dict[str, object], steps: int, round_seconds: float) -> dict[str, Timing]:
    """Microseconds a step of each, in turn, round after round."""
    epochs = {
        name: max(1, round(3 * round_seconds / max(seconds(peer, 3), 1e-6)))
        for name, peer in peers.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(ROUNDS):
        for name, peer in peers.items():
            taken = seconds(peer, epochs[name])
            samples[name].append(taken / epochs[name] / steps * 1e6)
    return {name: timing(values) for name, values in samples.items()}


def compare(rival: str, network: str, models: int, where: str) -> kit.Row:
    """Checks a rival and ourselves, then times both in turn."""
    net = network_of(network, where)
    begun = time.perf_counter()
    update = "adam" if net.adam else "gradient_descent"
    peer, ours = RIVALS[rival](net, models, where), Ours(net, models, where, update=update)
    found = losses(peer)
    ready = time.perf_counter() - begun
    expected = losses(ours)
    if models == 1:
        exact = TorchLoop(replace(net, dtype="float64")).fit(CHECKED_EPOCHS)
        exact = np.array(exact).reshape(-1, 1)
        check("torchnn", expected, exact)
        expected = exact
    off = check(rival, found, expected)
    round_seconds = ROUND_SECONDS if where == "cuda" else 0
    times = measure({"rival": peer, "ours": ours}, net.steps, round_seconds)
    return {
        "us_a_step": times["rival"],
        "ours": times["ours"],
        "ratio": times["rival"].median / times["ours"].median,
        "million_model_steps_a_second": models / times["rival"].median,
        "loss_off_by": off,
        "seconds_to_first": ready,
    }


def cases(where: str) -> Iterator[kit.Row]:
    for rival, network, models in DRY_PLAN if where == "cpu" else PLAN:
        yield {"rival": rival, "network": network, "models": models}


def main() -> None:
    options = kit.parse(kit.parser(__doc__, seconds=90))
    rows = kit.Rows("rivals-cuda", options)
    rows.fill(cases(options.device), partial(compare, where=options.device))
    # A rival that is not installed is none; any other error is one.
    missing = "ModuleNotFoundError"
    is_wrong = any(not str(row.get("error", missing)).startswith(missing) for row in rows)
    raise SystemExit(is_wrong or not any("ratio" in row for row in rows))


if __name__ == "__main__":
    main()
