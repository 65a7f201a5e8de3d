"""What being watched costs an epoch: callbacks and validation, against fits that nobody looks into.

python -m benchmarks.watched --save watched-cpu

The network is 64-25-25-1, in batches of 32 of 1,000 samples; validation is on 200 more. Ratios are
those of fits that follow each other.
"""

import argparse
import statistics
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks import harness
from torchnn import Sequential, ops
from torchnn.callbacks import Callback, EarlyStopping, LambdaCallback
from torchnn.layers import Dense, Input

WIDTHS, SAMPLES, BATCH_SIZE, VALIDATED = (64, 25, 25, 1), 1000, 32, 200


class Logs(Callback):
    """Says that the logs are all it needs."""

    model_access = "none"

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        pass


class Reader(Callback):
    """Says that it changes nothing."""

    model_access = "read"

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        pass


def ways() -> dict[str, dict[str, Any]]:
    """The arguments of fit, by what happens between epochs; nobody comes first."""
    rng = np.random.default_rng(1)
    x = rng.random((VALIDATED, WIDTHS[0]), np.float32)
    validated = {"validation_data": (x, (x[:, :1] > 0.5).astype(np.float32))}
    forever = 10**9
    return {
        "nobody": {},
        "a callback of the logs": {"callbacks": [Logs()]},
        "EarlyStopping": {"callbacks": [EarlyStopping("loss", patience=forever)]},
        "a callback that reads": {"callbacks": [Reader()]},
        "LambdaCallback(on_epoch_end)": {"callbacks": [LambdaCallback(on_epoch_end=_nothing)]},
        "LambdaCallback(on_epoch_begin)": {"callbacks": [LambdaCallback(on_epoch_begin=_nothing)]},
        "validation": validated,
        "validation and EarlyStopping": {
            **validated,
            "callbacks": [EarlyStopping(patience=forever)],
        },
    }


def _nothing(epoch: int, logs: Any) -> None:
    pass


def measure(epochs: int, rounds: int) -> list[dict[str, Any]]:
    """Fits in turns; microseconds an epoch and ratios, for each way."""
    rng = np.random.default_rng(0)
    x = rng.random((SAMPLES, WIDTHS[0]), np.float32)
    y = (x[:, :1] > 0.5).astype(np.float32)
    model = Sequential([Input(WIDTHS[:1]), *(Dense(units, "sigmoid") for units in WIDTHS[1:])])
    model.compile(loss="binary_crossentropy")
    found = ways()
    seconds: dict[str, list[float]] = {way: [] for way in found}
    for _ in range(rounds):
        for way, arguments in found.items():
            began = perf_counter()
            model.fit(x, y, epochs=epochs, batch_size=BATCH_SIZE, verbose=0, **arguments)
            seconds[way].append(perf_counter() - began)
    unwatched = seconds["nobody"]
    return [
        {
            "way": way,
            "epochs": epochs,
            "us": harness.timing([each / epochs * 1e6 for each in taken]),
            "ratio": statistics.median(a / b for a, b in zip(taken, unwatched, strict=True)),
        }
        for way, taken in seconds.items()
    ]


def arithmetic() -> float:
    """Microseconds that the kernels take to predict what is validated on, of many models a call."""
    models = 64
    weights = [torch.randn(models, o, i) for i, o in pairwise(WIDTHS)]
    biases = [torch.randn(models, o) for o in WIDTHS[1:]]
    x, activations = torch.rand(VALIDATED, WIDTHS[0]), ["sigmoid", "sigmoid", "identity"]
    timings = harness.measure({"": lambda: ops.predict(x, activations, weights, biases)})
    return timings[""].median / models


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--save", help="write benchmarks/results/NAME.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for epochs in options.epochs for row in measure(epochs, options.rounds)]
    predicting = arithmetic()
    lines = [
        [f"{row['epochs']:,}", row["way"], f"{row['us'].median:.0f}", f"{row['ratio']:.2f}"]
        for row in rows
    ]
    harness.show("microseconds an epoch", ["epochs a fit", "way", "median", "ratio"], lines)
    print(f"predicting the {VALIDATED} rows that are validated on: {predicting:.0f} us an epoch")
    if options.save:
        settings = {"widths": WIDTHS, "samples": SAMPLES, "batch_size": BATCH_SIZE}
        more = {"validated": VALIDATED, "us_predicting": predicting, "rounds": options.rounds}
        print(harness.save(options.save, rows, **settings, **more))


if __name__ == "__main__":
    main()
