"""What a machine does to a program: no memory, Ctrl-C, a full disk, an output that is closed.

Memory that runs out is an error that says so, and nothing has changed that was not trained; Ctrl-C
comes between two steps; an output that breaks does not keep anyone from training.
"""

import contextlib
import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch

from torchnn import Sequential, callbacks, ops, optimizers
from torchnn.layers import Dense

COMPILER = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")


def environment():
    """Of the child: where there is a compiler, a library by which memory can be made to fail."""
    if COMPILER is None or sys.platform != "linux" or os.environ.get("LD_PRELOAD"):
        return {}
    library = Path(tempfile.mkdtemp()) / "failing_memory.so"
    source = Path(__file__).with_suffix("").parent / "failing_memory.c"
    subprocess.run([COMPILER, "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


# ---- memory ----


def job(rng):
    """Arguments of train_ that take one of the engine's ways, and are long enough for helpers."""
    widths, rows, batch_size, models = rng.choice(
        [
            ((64, 25, 1), 4000, 4000, None),  # shares of a large batch
            ((200, 25, 25, 1), 900, 32, None),  # replicas
            ((300, 230, 1), 640, 300, None),  # rows and tiles shared
            ((20, 16, 1), 1200, 32, 5),  # models
            ((20, 16, 1), 2100, 900, 4),
        ]
    )
    lead = () if models is None else (models,)
    weights = [torch.randn(*lead, o, i) / i**0.5 for i, o in pairwise(widths)]
    biases = [torch.zeros(*lead, o) for o in widths[1:]]
    slots = [torch.zeros_like(p) for pair in zip(weights, biases, strict=True) for p in pair]
    return ops.Training(
        x=torch.randn(rows, widths[0]),
        y=torch.rand(rows, 1),
        sample_weight=None,
        order=None,
        epoch_size=rows,
        batch_size=batch_size,
        learning_rates=torch.full((-(-rows // batch_size),), 0.01, dtype=torch.float64),
        loss="mean_squared_error",
        update="momentum",
        options={"momentum": 0.9},
        steps_before=0,
        activations=["tanh"] * len(biases),
        weights=weights,
        biases=biases,
        slots=[slots],
        keep_predictions=True,
        steps_done=torch.zeros(1, dtype=torch.int64),
    )


def training(rng):
    """Returns a function that trains from the same start each time, and what it trained."""
    own = job(rng)
    state = [*own.weights, *own.biases, *own.slots[0], own.steps_done]
    start = [t.clone() for t in state]

    def run():
        for now, then in zip(state, start, strict=True):
            now.copy_(then)
        return [*ops.train_(**vars(own)), *[t.clone() for t in state]]

    return run, lambda: all(map(torch.equal, state, start))


def prediction(rng):
    own = job(rng)
    weights, biases = (
        [p if p.dim() == n else p[0] for p in ps] for n, ps in ((2, own.weights), (1, own.biases))
    )
    x = torch.randn(rng.choice([10, 5000]), own.x.shape[1])
    return lambda: [ops.predict(x, own.activations, weights, biases)], lambda: True


def layer(rng):
    x, weight = (torch.randn(n, 300, requires_grad=rng.random() < 0.5) for n in (900, 200))

    def run():
        out = ops.dense(x, weight, None, "tanh")
        wanted = [t for t in (x, weight) if t.requires_grad]
        return [out, *torch.autograd.grad(out.sum(), wanted)] if wanted else [out]

    return run, lambda: True


def memory(rng):
    torch.manual_seed(rng.randrange(2**31))
    kind = rng.choice([training, training, prediction, layer])
    run, is_unchanged = kind(rng)
    # PyTorch's product of a large layer sums in another order if it gets less memory.
    are_same = partial(torch.allclose, rtol=1e-5, atol=1e-4) if kind is layer else torch.equal
    expected, errors = run(), []
    failing, number, spares = ctypes.CDLL(None), rng.randint(1, 8), rng.random() < 0.5

    def work():
        """In a thread that has no memory yet, nor have its helpers."""
        try:
            failing.fail_at(number, spares)
            try:
                found = run()
            finally:
                failing.fail_at(0, 0)
        except (MemoryError, RuntimeError) as error:
            if "bytes" not in str(error) and "aten::" not in str(error):  # a product of PyTorch's
                errors.append(f"an error without a size: {error!r}")
            if isinstance(error, MemoryError) and not is_unchanged():
                errors.append(f"half changed: {error!r}")
            found = expected
        except Exception as error:
            errors.append(repr(error))
            return
        for name, values in (("in spite of it", found), ("afterwards", run())):
            if not all(map(are_same, values, expected)):
                errors.append(f"other numbers {name}")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors, errors
    return "memory"


# ---- Ctrl-C ----


def network(seed):
    torch.manual_seed(seed)
    model = Sequential([Dense(8, "tanh", in_features=6), Dense(1, in_features=8)])
    model.compile(optimizers.SGD(0.01), "mse", engine="fused")
    return model, torch.randn(90, 6), torch.randn(90, 1)


def steps_of(model, x, y, count):
    """The weights after so many steps of ten rows, in one native call."""
    parameters = [p.detach().clone() for p in model.parameters()]
    ops.train_(
        x,
        y,
        None,
        torch.arange(90).repeat(-(-count // 9))[: 10 * count],
        epoch_size=90,
        batch_size=10,
        learning_rates=[0.01] * count,
        loss="mean_squared_error",
        update="gradient_descent",
        options={},
        steps_before=0,
        activations=["tanh", "identity"],
        weights=parameters[::2],
        biases=parameters[1::2],
        slots=[],
        keep_predictions=False,
        steps_done=torch.zeros(1, dtype=torch.int64),
    )
    return parameters


def signals(rng):
    """One Ctrl-C at any time falls between two steps; a storm of them may end one, no more."""
    seed, presses = rng.randrange(2**31), rng.choice([1, 1, 20])
    model, x, y = network(seed)
    is_armed = False

    def interrupt(*_):
        """Raises once each time, so that none comes outside fit."""
        nonlocal is_armed
        if is_armed:
            is_armed = False
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    delays = [rng.random() * 0.2 if presses == 1 else rng.random() * 0.01 for _ in range(presses)]

    def press():
        for delay in delays:
            time.sleep(delay)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    while thread.is_alive():
        with contextlib.suppress(KeyboardInterrupt):
            is_armed = True
            model.fit(x, y, batch_size=10, epochs=300, shuffle=False, verbose=0)
            is_armed = False
    signal.signal(signal.SIGINT, before)
    if presses == 1:
        expected = steps_of(network(seed)[0], x, y, model.optimizer.iterations)
        for p, other in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(p.detach(), other)
    history = model.fit(x, y, epochs=1, verbose=0).history
    assert all(torch.tensor(values).isfinite().all() for values in history.values())
    return "signals"


# ---- outputs ----


class Broken:
    """Writes now and then."""

    def __init__(self, rng, error):
        self._rng, self._error = rng, error

    def write(self, text):
        if self._rng.random() < 0.3:
            raise self._error
        return len(text)

    def flush(self):
        self.write("")

    def isatty(self):
        return self._rng.random() < 0.5


def closed():
    with open(os.devnull, "w") as file:
        return file


def pipe_without_reader():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", buffering=1)


def full_disk():
    return os.fdopen(os.open("/dev/full", os.O_WRONLY), "w", buffering=1)


def outputs(rng):
    """What is trained does not depend on where the progress goes."""
    kinds = [
        lambda: None,
        closed,
        pipe_without_reader,
        lambda: Broken(rng, OSError("broken")),
        lambda: Broken(rng, ValueError("closed")),
    ]
    if os.path.exists("/dev/full"):
        kinds.append(full_disk)
    output, seed = rng.choice(kinds)(), rng.randrange(2**31)
    weights = []
    for verbose in (rng.choice([1, 2, "auto"]), 0):
        model, x, y = network(seed)
        stop = callbacks.EarlyStopping(monitor="loss", patience=1)
        stdout, sys.stdout = sys.stdout, output if verbose else sys.stdout
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(x, y, epochs=5, verbose=verbose, validation_split=0.2, callbacks=[stop])
                model.evaluate(x, y, verbose=verbose)
        finally:
            sys.stdout = stdout
        weights.append([p.detach() for p in model.parameters()])
    assert all(map(torch.equal, *weights))
    with contextlib.suppress(OSError, AttributeError):
        output.close()
    return "outputs"


def check(seed):
    rng = random.Random(seed)
    can_fail = "failing_memory" in os.environ.get("LD_PRELOAD", "")
    return rng.choice([*([memory] * 3 if can_fail else []), signals, outputs, outputs])(rng)
