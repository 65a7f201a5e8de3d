"""graphs.Trainer gives what ops.train_ gives, while most steps are replays of something recorded.

Without a GPU, the recorder is a stand-in that, like a CUDA graph, does nothing when it records and
on each replay does the same again, with the same memory.
"""

from importlib import util
from types import SimpleNamespace

import pytest
import torch
from test_train_op import SLOTS, clone, job

from torchnn import Sequential, losses, ops, optimizers
from torchnn._engine import graphs
from torchnn._engine.run import Batches
from torchnn._training import batches
from torchnn.layers import Dense
from torchnn.optimizers import schedules
from torchnn.utils import set_random_seed

STATE = ("weights", "biases", "slots")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def flat(value):
    if isinstance(value, list):
        return [tensor for item in value for tensor in flat(item)]
    return [] if value is None else [value]


class Recorder:
    """Records functions that change the state of some arguments."""

    def __init__(self, arguments):
        self.state = flat([arguments[name] for name in STATE])
        self.recorded = self.replayed = 0

    def __call__(self, function):
        before = clone(self.state)
        results = function()
        for tensor, value in zip(self.state, before, strict=True):
            tensor.copy_(value)
        for result in results:
            result.fill_(torch.nan)  # nothing has been computed yet
        self.recorded += 1

        def replay():
            for result, value in zip(results, function(), strict=True):
                result.copy_(value)
            self.replayed += 1

        return replay, results


def whole(rows, batch_size, steps, epoch_size, update="adam"):
    """Arguments of some steps in epochs of any size."""
    made = job((6, 5, 2), rows, batch_size, update=update, steps=steps)
    samples = epochs_of(steps, epoch_size, batch_size)
    order = torch.randint(rows, (samples,), generator=torch.Generator().manual_seed(1))
    weight = torch.linspace(0, 2, rows, dtype=torch.float64)
    return made | {"order": order, "epoch_size": epoch_size, "sample_weight": weight}


def epochs_of(steps, epoch_size, batch_size):
    """So many steps of epochs, in samples."""
    epochs, rest = divmod(steps, -(-epoch_size // batch_size))
    return epochs * epoch_size + rest * batch_size


def own(arguments):
    return arguments | {k: clone(arguments[k]) for k in (*STATE, "steps_done")}


def run(function, arguments, times=2):
    """Trains on and on; returns all losses and predictions, and what is left."""
    results = []
    for _ in range(times):
        step = int(arguments["steps_done"])
        results += function(**(arguments | {"steps_before": step}))
        assert int(arguments["steps_done"]) == step + len(arguments["learning_rates"])
    return [*results, *flat([arguments[name] for name in STATE])]


@pytest.mark.parametrize("update", SLOTS)
@pytest.mark.parametrize(
    ("steps", "epoch_size", "batch_size"),
    [(300, 7, 3), (300, 20, 20), (301, 10**6, 4), (170, 340, 4), (340, 339, 4), (200, 128, 4)],
)
def test_replays_train_as_the_operator_does(steps, epoch_size, batch_size, update):
    arguments = whole(30, batch_size, steps, epoch_size, update)
    ours, expected = own(arguments), own(arguments)
    recorder = Recorder(ours)
    results = zip(
        run(graphs.Trainer(recorder).train_, ours), run(ops.train_, expected), strict=True
    )
    assert all(torch.equal(one, other) for one, other in results)
    assert recorder.replayed * graphs.STEPS > steps
    assert recorder.recorded <= graphs.STEPS.bit_length()


def test_parts_cover_a_run_and_keep_to_epochs_or_to_batches():
    for samples, epoch_size, batch_size in [
        (1000, 1000, 3),
        (1000, 10, 3),
        (1000, 7, 100),
        (995, 300, 2),
        (5, 9, 2),
        (64, 64, 2),
        (66, 66, 2),
    ]:
        parts = list(graphs.cut(samples, epoch_size, batch_size))
        assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
        assert parts[-1][1] == samples
        steps = [
            Batches(stop - start, min(epoch_size, stop - start), batch_size).count
            for start, stop in parts
        ]
        assert max(steps) <= graphs.STEPS
        assert sum(steps) == Batches(samples, epoch_size, batch_size).count


@pytest.mark.parametrize(("epoch_size", "batch_size"), [(10**6, 4), (4, 4), (12, 4), (10, 4)])
def test_few_graphs_make_up_runs_of_any_length(epoch_size, batch_size):
    kinds = set()
    for steps in range(3, 300, 3):
        samples = epochs_of(steps, epoch_size, batch_size)
        parts = [stop - start for start, stop in graphs.cut(samples, epoch_size, batch_size)]
        assert parts == sorted(parts, reverse=True)
        kinds.update(parts)
    assert len(kinds) <= graphs.STEPS.bit_length()


def test_what_a_graph_has_as_it_was_is_recorded_anew_when_it_changes():
    arguments = own(whole(30, 3, 200, 10**6))
    recorder = Recorder(arguments)
    trainer = graphs.Trainer(recorder)
    run(trainer.train_, arguments, times=1)
    run(trainer.train_, arguments, times=1)
    assert recorder.recorded == 1
    for change in (
        {"weights": clone(arguments["weights"])},
        {"x": arguments["x"].clone()},
        {"options": arguments["options"] | {"beta_1": 0.5}},
        {"keep_predictions": False},
    ):
        arguments = arguments | change
        recorder.state, recorder.recorded = flat([arguments[name] for name in STATE]), 0
        expected = own(arguments)
        results = zip(run(trainer.train_, arguments, 1), run(ops.train_, expected, 1), strict=True)
        assert all(torch.equal(one, other) for one, other in results)
        assert recorder.recorded == 1


def test_without_a_graph_it_says_so_once_and_trains_all_the_same():
    def refuse(function):
        raise RuntimeError("operation not permitted when stream is capturing")

    arguments = whole(30, 3, 200, 10**6)
    ours, expected = own(arguments), own(arguments)
    with pytest.warns(RuntimeWarning, match="without a CUDA graph.*: operation not") as warned:
        results = run(graphs.Trainer(refuse).train_, ours)
    assert len(warned) == 1
    assert all(map(torch.equal, results, run(ops.train_, expected)))


def test_replays_tell_autograd_that_the_weights_have_changed():
    arguments = own(whole(30, 3, 200, 10**6))
    version = arguments["weights"][0]._version
    trainer = graphs.Trainer(Recorder(arguments))
    trainer.train_(**arguments)
    assert arguments["weights"][0]._version > version + 200 // graphs.STEPS


def test_no_samples_are_no_steps():
    arguments = own(whole(30, 3, 1, 3)) | {"learning_rates": []}
    arguments["order"] = arguments["order"][:0]
    losses, predictions = graphs.Trainer(Recorder(arguments)).train_(**arguments)
    assert (len(losses), len(predictions)) == (0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"activations": ["gelu"]},
        {"regularization": [(0.0, 0.0, 0.0, 0.0, 0.5)]},
        {"options": {"clip_norm": 1.0}},
        {"input_dropout": 0.5},
    ],
)
def test_what_trains_layer_by_layer_alone_is_recorded_however_small(monkeypatch, changes):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    there = {"x": SimpleNamespace(is_cuda=True), "samples": 8, "weights": [torch.ones(1, 4)]}
    plain = {"activations": ["relu"], "regularization": (), "options": {}, "input_dropout": 0.0}
    job = plain | changes
    assert graphs.Trainer()._is_recorded(SimpleNamespace(**there, **job))


def test_on_the_cpu_nothing_is_recorded():
    arguments = own(whole(30, 3, 200, 10**6))
    assert not graphs.Trainer()._is_recorded(ops.Training(**arguments))


def compiled(rate, device="cpu", widths=(8, 4)):
    set_random_seed(3)
    model = Sequential([*(Dense(width, "tanh") for width in widths), Dense(1, "sigmoid")])
    model.to(device, torch.float64)
    model.compile(optimizers.Adam(rate), losses.BinaryCrossentropy(), ["accuracy"], engine="fused")
    return model


def fitted(model, rows, batch_size, features=6):
    """What some 300 steps of fit give: losses, accuracies, predictions."""
    x = torch.randn(rows, features, generator=torch.Generator().manual_seed(0)).double()
    y = (x[:, :1] > 0).double()
    epochs = -(-300 // -(-rows // batch_size))
    history = model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0).history
    outputs = model.predict(x, verbose=0)
    return [*map(torch.tensor, (history["loss"], history["accuracy"])), torch.from_numpy(outputs)]


RUNS = [(4, 1000), (100, 310), (300, 300)]  # batch size, rows


@pytest.mark.parametrize("rate", [0.1, schedules.ExponentialDecay(0.1, 100, 0.5)])
@pytest.mark.parametrize(("batch_size", "rows"), RUNS)
def test_fit_with_replays_is_fit_without(batch_size, rows, rate, monkeypatch):
    expected = fitted(compiled(rate), rows, batch_size)
    model = compiled(rate)
    recorder = Recorder({name: [] for name in STATE})

    def record(function):
        slots = [list(slot) for slot in model.optimizer.slots.values()]
        recorder.state = flat([[p.data for p in model.parameters()], slots])
        return recorder(function)

    monkeypatch.setattr(batches, "PAUSE", 60)  # seconds: a busy machine makes runs no shorter
    monkeypatch.setattr(graphs.Trainer, "_is_recorded", lambda *_: True)
    monkeypatch.setattr(graphs, "record", record)
    assert all(map(torch.equal, fitted(model, rows, batch_size), expected))
    assert recorder.replayed


@gpu
@pytest.mark.skipif(util.find_spec("torchnn._cuda") is None, reason="built without CUDA kernels")
@pytest.mark.filterwarnings("error")  # small steps: large ones make a rounding error grow
@pytest.mark.parametrize("rate", [0.001, schedules.ExponentialDecay(0.001, 100, 0.5)])
@pytest.mark.parametrize(("batch_size", "rows"), RUNS)
def test_fit_on_cuda_layer_by_layer_is_fit_on_the_cpu(batch_size, rows, rate, monkeypatch):
    recorded, record = [], graphs.record
    monkeypatch.setattr(graphs, "record", lambda f: recorded.append(f) or record(f))
    found = [
        fitted(compiled(rate, device, (300, 200)), rows, batch_size, features=200)
        for device in ("cpu", "cuda")
    ]
    assert recorded
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
