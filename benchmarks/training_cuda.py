"""Whole trainings on a GPU: `python -m benchmarks.training_cuda`.

First one network after the other: torchnn on the GPU and on the CPU, PyTorch eager, torch.compile
reduce-overhead, a CUDA graph of a whole epoch, JAX's lax.scan if it sees the GPU. Then the notes'
network many times over, 1 to 264 models in one launch. Everybody's losses are compared with those
of PyTorch on the CPU in float64 before anything is timed.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.cuda import facts, require_gpu
from benchmarks.harness import RESULTS, Timing, save, show, timing
from benchmarks.loops import JaxLoop, TorchLoop, torch_model
from benchmarks.networks import NETWORKS, Network
from torchnn import graphs, ops

NAMES = ("notes", "digits", "deep", "full-batch", "medium", "large")  # the most telling first
MODELS = (1, 8, 64, 132, 264)
SLOW_TO_START = ("compile", "JAX")  # their turn comes when all others have had theirs
ROUNDS = 7
ROUND_SECONDS = 0.05
CHECKED_EPOCHS = 3


class Engine:
    """What fit calls once an epoch, for one network or for many copies side by side."""

    def __init__(self, network: Network, device: str, models: int = 0) -> None:
        def own(t: torch.Tensor) -> torch.Tensor:
            t = t.to(device)
            return t.expand(models, *t.shape).contiguous() if models else t.contiguous()

        x, y = (torch.from_numpy(array).to(device) for array in network.data())
        pairs = [(torch.from_numpy(k), torch.from_numpy(b)) for k, b in network.weights()]
        sizes = [network.batch_size] * network.steps
        sizes[-1] = network.samples - sum(sizes[:-1])
        self.sizes = torch.tensor(sizes, dtype=torch.float64, device=device)
        self.train_ = ops.train_ if models else graphs.Trainer().train_
        self.arguments = {
            "x": x,
            "y": y,
            "sample_weight": None,
            "order": torch.arange(network.samples, device=device),
            "epoch_size": network.samples,
            "batch_size": network.batch_size,
            "learning_rates": torch.full(
                (network.steps,), network.learning_rate, dtype=torch.float64, device=device
            ),
            "loss": "binary_crossentropy_from_logits",
            "update": "gradient_descent",
            "options": dict.fromkeys(
                ("momentum", "beta_1", "beta_2", "epsilon", "weight_decay"), 0.0
            ),
            "steps_before": 0,
            "activations": ["sigmoid"] * (len(pairs) - 1) + ["identity"],
            "weights": [own(kernel.T) for kernel, _ in pairs],
            "biases": [own(bias) for _, bias in pairs],
            "slots": [],
            "keep_predictions": False,
            "steps_done": torch.zeros(1, dtype=torch.int64),
        }

    def epoch(self) -> torch.Tensor:
        """Queues an epoch; returns its mean loss, or that of each model."""
        losses, _ = self.train_(**self.arguments)
        return losses.double() @ self.sizes / self.sizes.sum()


class TorchCuda(TorchLoop):
    """The eager loop of benchmarks.loops on the GPU, which waits for nothing within an epoch."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.x, self.y = self.x.cuda(), self.y.cuda()
        self.model = torch_model(network).cuda()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=network.learning_rate)
        self.total = torch.zeros((), device="cuda", dtype=self.x.dtype)

    def epoch(self) -> torch.Tensor:
        self.total.zero_()
        for x, y in self:
            self.total += self.step(x, y).detach() * len(x)
        return self.total / len(self.x)


class TorchReduceOverhead(TorchCuda):
    """Forward and backward by torch.compile reduce-overhead, whose CUDA graphs are a step each."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        torch._dynamo.reset()  # or it gives up after some networks, and goes on uncompiled
        self.model = torch.compile(self.model, mode="reduce-overhead", dynamic=False)

    def step(self, x, y):
        torch.compiler.cudagraph_mark_step_begin()
        return super().step(x, y)


class TorchGraph(TorchCuda):
    """One CUDA graph of a whole epoch, made by hand: PyTorch without the launches."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        start = [p.detach().clone() for p in self.model.parameters()]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            super().epoch()  # warm up: handles, memory
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self.graph):
            self.mean = super().epoch()
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), start, strict=True):
                parameter.copy_(value)

    def epoch(self) -> torch.Tensor:
        self.graph.replay()
        return self.mean.clone()


class JaxCuda(JaxLoop):
    """The jitted epoch of benchmarks.loops on the GPU."""

    def __init__(self, network: Network) -> None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch is here too
        import jax

        if jax.default_backend() != "gpu":
            raise ImportError("JAX sees no GPU")
        jax.config.update("jax_default_matmul_precision", "highest")  # not TensorFloat-32
        super().__init__(network)
        self.jitted, self.epoch = self.epoch, self.one_epoch

    def one_epoch(self):
        """Queues an epoch; returns its mean loss, or what will be it."""
        self.weights, loss = self.jitted(self.weights, self.full, self.rest)
        return loss

    def wait(self) -> None:
        import jax

        jax.block_until_ready(self.weights)


Maker = Callable[[Network], object]
PEERS: dict[str, Maker] = {
    "torchnn": lambda network: Engine(network, "cuda"),
    "torchnn CPU": lambda network: Engine(network, "cpu"),
    "CUDA graph": TorchGraph,
    "eager": TorchCuda,
    "compile": TorchReduceOverhead,
    "JAX": JaxCuda,
}


def exact_losses(network: Network) -> list[float]:
    """The mean losses of the first epochs, by PyTorch in float64 on the CPU."""
    exact = TorchLoop(Network(**(vars(network) | {"dtype": "float64"})))
    return exact.fit(CHECKED_EPOCHS)


class WrongError(Exception):
    """A loss that is not what it must be."""


def check(peer: object, exact: list[float]) -> None:
    """Raises WrongError if a peer's first epochs do not have the losses they must have."""
    for epoch, expected in enumerate(exact):
        loss = peer.epoch()
        loss = loss.double().cpu() if isinstance(loss, torch.Tensor) else torch.tensor(float(loss))
        if not ((loss - expected).abs() <= 1e-4 * (1 + abs(expected))).all():
            raise WrongError(f"the loss of epoch {epoch + 1} is {loss}, not {expected}")


def seconds(peer: object, epochs: int) -> float:
    """The time of so many epochs, to the end of the last."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(epochs):
        peer.epoch()
    getattr(peer, "wait", torch.cuda.synchronize)()
    return time.perf_counter() - start


def measure(peers: dict[str, object], steps: int) -> dict[str, Timing]:
    """Microseconds a step of each, in turn, round after round."""
    epochs = {
        name: max(1, round(3 * ROUND_SECONDS / max(seconds(peer, 3), 1e-6)))
        for name, peer in peers.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(ROUNDS):
        for name, peer in peers.items():
            taken = seconds(peer, epochs[name])
            samples[name].append(taken / epochs[name] / steps * 1e6)
    return {name: timing(values) for name, values in samples.items()}


def compare(network: Network, peers: dict[str, Maker]) -> dict[str, Timing]:
    """Times a network by everybody who can train it, and says who cannot and why."""
    able = {}
    exact = exact_losses(network)
    for label, make in peers.items():
        try:
            peer = make(network)
            check(peer, exact)
        except Exception as reason:  # one of them must not cost us the numbers of the others
            print(f"{network.layers}: no {label}: {type(reason).__name__}: {reason}")
            continue
        able[label] = peer
    try:
        return measure(able, network.steps)
    except RuntimeError as reason:
        print(f"{network.layers}: no times: {reason}")
        return {}


def print_tables(rows: list[dict[str, object]], many: list[dict[str, object]]) -> None:
    lines = [
        [
            NETWORKS[row["network"]].layers,
            NETWORKS[row["network"]].batch,
            *(f"{row[name].median:.1f}" if name in row else "-" for name in PEERS),
            min(ours, key=lambda n: row[n].median) if ours else "-",
        ]
        for row in rows
        for ours in [[name for name in ("torchnn", "torchnn CPU") if name in row]]
    ]
    title = f"us a step, {torch.cuda.get_device_name()}"
    show(title, ["network", "batch", *PEERS, "ours to pick"], lines)
    times = {row["models"]: row["torchnn"].median for row in many if "torchnn" in row}
    one = times.get(1, float("nan"))
    lines = [
        [
            str(models),
            f"{time:.2f}",
            f"{time / one:.2f}",
            f"{time / models:.3f}",
        ]
        for models, time in times.items()
    ]
    show("the notes' network, many at once", ["models", "us a step", "of one", "a model"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=100, help="after these, no further line")
    parser.add_argument("--save", metavar="NAME", help="write FOLDER/NAME.json")
    parser.add_argument("--folder", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    require_gpu()
    end = time.monotonic() + arguments.seconds
    rows = [{"network": name, "steps": NETWORKS[name].steps} for name in NAMES]
    many = [{"models": count} for count in MODELS]

    def add(row: dict[str, object], network: Network, peers: dict[str, Maker]) -> None:
        if time.monotonic() > end:
            print("no time left for", ", ".join(peers), "on", network.layers)
            return
        row.update(compare(network, peers))
        if arguments.save:  # after each: who knows how long we have got
            save(arguments.save, [*rows, *many], arguments.folder, **facts())

    for row in many:
        add(
            row,
            NETWORKS["notes"],
            {"torchnn": partial(Engine, device="cuda", models=row["models"])},
        )
    for are_slow in (False, True):
        peers = {name: make for name, make in PEERS.items() if (name in SLOW_TO_START) == are_slow}
        for row in rows:
            add(row, NETWORKS[row["network"]], peers)
    print_tables(rows, many)
    raise SystemExit(not all("torchnn" in row for row in [*rows, *many]))


if __name__ == "__main__":
    main()
