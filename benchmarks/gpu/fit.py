"""fit beside the engine alone, and what the host does for a call of a network that is trained layer
by layer: microseconds a step, or a call. Some 25 s.
"""

import time
from collections.abc import Callable
from functools import partial

from benchmarks.gpu import device, kit
from benchmarks.gpu.training import arguments, network_of, time_fit, time_steps
from torchnn import ops
from torchnn._engine import graphs

ENGINE = ("notes", "digits", "full-batch", "large")
FITS = [  # network, epochs, verbose
    ("notes", 100, 0),
    ("notes", 100, 1),
    ("notes", 1000, 0),
    ("notes", 1000, 1),
    ("digits", 100, 0),
    ("digits", 1000, 0),
    ("full-batch", 3000, 0),
    ("large", 200, 0),
]
CALLS = ("full-batch", "medium", "large")
REPETITIONS = 5


def time_host(network: str, replayed: bool, where: str) -> kit.Row:
    """Microseconds until a call of one step has been queued, not until it is done."""
    net = network_of(network, where)
    found = arguments(net, where=where)
    step = found | {
        "order": found["order"][: net.batch_size],
        "epoch_size": net.batch_size,
        "learning_rates": found["learning_rates"][:1],
    }
    train_: Callable[..., object] = graphs.Trainer().train_ if replayed else ops.train_
    call = partial(train_, **step)
    calls = 20  # few enough for the queue to hold
    best = float("inf")
    for _ in range(REPETITIONS):
        device.wait(where)
        begun = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, (time.perf_counter() - begun) * 1e6 / calls)
    device.wait(where)
    return {"host_us_a_call": best}


def time_fits(network: str, epochs: int, verbose: int, where: str) -> kit.Row:
    """Microseconds a step of fit, repeated as the machine has other work too."""
    runs = [time_fit(network, where, where, epochs, verbose) for _ in range(REPETITIONS)]
    times = sorted(float(str(run["us_a_step"])) for run in runs)
    return {"us_a_step": times[len(times) // 2], "best": times[0], "fine": runs[-1]["fine"]}


def main() -> None:
    options = kit.parse(kit.parser(__doc__, seconds=35))
    where = options.device
    rows = kit.Rows("fit-cuda", options)
    engine = ("tiny",) if options.cpu else ENGINE
    fits = [("tiny", 3, 0), ("tiny", 3, 1)] if options.cpu else FITS
    calls = ("tiny",) if options.cpu else CALLS
    rows.fill(
        ({"network": n, "models": 1, "update": "gradient_descent"} for n in engine),
        partial(time_steps, where=where),
    )
    rows.fill(
        ({"network": n, "epochs": e, "verbose": v} for n, e, v in fits),
        partial(time_fits, where=where),
    )
    rows.fill(
        ({"network": n, "replayed": r} for n in calls for r in (False, True)),
        partial(time_host, where=where),
    )
    raise SystemExit(rows.failed)


if __name__ == "__main__":
    main()
