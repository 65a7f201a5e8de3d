"""Copies that nobody waits for, and the fit that tells of a run while the next one is at work.

Without a GPU, the CPU stands in for one: a result that the host looks at before it has waited for
it is an error then.
"""

import signal

import pytest
import torch

from torchnn._engine import fused
from torchnn._training import batches, tally
from torchnn.callbacks import InvalidLossWarning, LambdaCallback, TerminateOnNaN
from torchnn.layers import Dense
from torchnn.ops import _transfer as transfer
from torchnn.optimizers import SGD, Adam
from torchnn.optimizers.schedules import ExponentialDecay
from torchnn.sequential import Sequential
from torchnn.utils import set_random_seed


def test_a_copy_arrives(device):
    device = torch.device(device)
    sent = transfer.to_device(torch.arange(5), device)
    assert sent.device.type == device.type
    wait = transfer.to_host([sent, sent.double() / 2])
    numbers, halves = wait()
    assert numbers.tolist() == [0, 1, 2, 3, 4]
    assert halves.tolist() == [0, 0.5, 1, 1.5, 2]
    assert numbers.is_pinned() == transfer.is_queued(device)


# What makes the host wait for a CUDA tensor.
LOOKS = ("item", "tolist", "numpy", "cpu", "equal", "nonzero", "__bool__", "__float__", "__int__")


class Unfinished(torch.Tensor):
    """A tensor that a device is still working on, and all that is computed of it."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), keywords=None):
        assert function.__name__ not in LOOKS, f"{function.__name__} waits for the device"
        return super().__torch_function__(function, types, arguments, keywords or {})


@pytest.fixture
def queue(monkeypatch):
    """Makes the CPU a device with a queue; lists what happens to the runs of fit, by number."""
    events = []
    train = fused.FusedEngine.train

    def queued(engine, run, *says_stop):
        result = train(engine, run, *says_stop)
        events.append(("queued", sum(kind == "queued" for kind, _ in events)))
        return type(result)(*(None if t is None else t.as_subclass(Unfinished) for t in result))

    def to_host(tensors):
        if not isinstance(tensors[0], Unfinished):  # of a validation
            return transfer.to_host(tensors)
        number = events[-1][1]

        def wait():
            events.append(("waited for", number))
            return [t.as_subclass(torch.Tensor) for t in tensors]

        return wait

    monkeypatch.setattr(fused.FusedEngine, "train", queued)
    monkeypatch.setattr(tally, "to_host", to_host)
    for module in (batches, fused):
        monkeypatch.setattr(module, "is_queued", lambda device: True)
    return events


def compiled(rate=0.1):
    set_random_seed(3)
    model = Sequential([Dense(8, "tanh", in_features=6), Dense(1, "sigmoid", in_features=8)])
    model.compile(Adam(rate), "bce", METRICS, engine="fused")
    return model


METRICS = []


@pytest.fixture(params=["torchnn's", "one's own"], autouse=True)
def measured(request):
    """One's own is called when its epoch has been trained; without it, several go in one run."""
    METRICS[:] = ["accuracy"] if request.param == "torchnn's" else ["accuracy", all_right]


def all_right(y_true, y_pred):
    """A metric of a whole batch."""
    return (y_true == y_pred.round()).all().float()


def data(rows):
    x = torch.randn(rows, 6, generator=torch.Generator().manual_seed(0))
    return x, (x.sum(1) > 0).float()


def fitted(model, rows, **options):
    x, y = data(rows)
    history = model.fit(x, y, **{"batch_size": 8, "epochs": 300, "verbose": 0} | options)
    return history.epoch, history.history, [w.tolist() for w in model.get_weights()]


@pytest.mark.parametrize("rate", [0.01, ExponentialDecay(0.01, 100, 0.5)])
@pytest.mark.parametrize("rows", [5, 50, 3000])
def test_fit_tells_of_a_run_once_the_next_one_is_queued(rows, rate, request):
    epochs = {"epochs": 4 if rows > 1000 else 300}
    plain = compiled(rate)
    expected = fitted(plain, rows, **epochs)
    events = request.getfixturevalue("queue")
    model = compiled(rate)
    assert fitted(model, rows, **epochs) == expected
    assert model.epochs_trained == plain.epochs_trained
    runs = len(events) // 2
    assert runs > 2
    late = [pair for i in range(1, runs) for pair in (("queued", i), ("waited for", i - 1))]
    assert events == [("queued", 0), *late, ("waited for", runs - 1)]


def test_epochs_that_are_told_late_are_shown_one_by_one(queue, capsys):
    fitted(compiled(), 50, epochs=30, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("/")[0].split()[-1] for line in lines] == [str(i) for i in range(1, 31)]
    assert all("loss: " in line for line in lines)


def at_once(events):
    runs = len(events) // 2
    return events == [(kind, i) for i in range(runs) for kind in ("queued", "waited for")]


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end", "on_train_batch_end"])
def test_whoever_looks_in_between_is_told_at_once(hook, queue):
    seen = []
    model = compiled()
    watch = LambdaCallback(**{hook: lambda *_: seen.append(model.optimizer.iterations)})
    fitted(model, 50, epochs=3, callbacks=watch)
    steps = {"on_epoch_begin": [0, 7, 14], "on_epoch_end": [7, 14, 21]}
    assert seen == steps.get(hook, list(range(1, 22)))
    assert at_once(queue)


@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_batch_end"])
def test_no_step_is_taken_after_a_stop(hook, queue):
    model = compiled()

    def stop(number, logs):
        model.stop_training = number == 2

    fitted(model, 50, epochs=9, callbacks=LambdaCallback(**{hook: stop}))
    assert model.optimizer.iterations == {"on_epoch_end": 21, "on_train_batch_end": 3}[hook]


@pytest.mark.parametrize(("callbacks", "epochs"), [([], 20), ([TerminateOnNaN()], 1)])
def test_a_loss_that_is_no_number_stops_the_fit_only_if_asked(callbacks, epochs, queue):
    model = Sequential([Dense(1, in_features=6)])
    model.compile(SGD(1e30), "mse", engine="fused")
    with pytest.warns(InvalidLossWarning, match="at epoch 1, batch 2") as caught:
        found, _, _ = fitted(model, 40, epochs=20, callbacks=callbacks)
    assert len(caught) == 1
    assert found == list(range(epochs))
    assert model.optimizer.iterations == 5 * epochs
    assert at_once(queue) == bool(callbacks)


def test_validation_sees_the_weights_of_its_epoch(request):
    x, y = data(20)
    expected = fitted(compiled(), 50, epochs=5, validation_data=(x, y))
    request.getfixturevalue("queue")
    assert fitted(compiled(), 50, epochs=5, validation_data=(x, y)) == expected


@pytest.mark.parametrize("at", [0, 1])
def test_an_interrupted_fit_counts_the_epochs_whose_steps_are_queued(at, queue, monkeypatch):
    train = fused.FusedEngine.train

    def interrupted(engine, run, *says_stop):
        if queue.count(("queued", at)) == 0 and sum(kind == "queued" for kind, _ in queue) == at:
            signal.raise_signal(signal.SIGINT)
        return train(engine, run, *says_stop)

    monkeypatch.setattr(fused.FusedEngine, "train", interrupted)
    model = compiled()
    with pytest.raises(KeyboardInterrupt):
        fitted(model, 50)
    assert ("queued", at) in queue
    assert ("queued", at + 1) not in queue
    trained = model.optimizer.place
    assert model.optimizer.iterations == trained.epochs * 7 + trained.batches
    assert model.history.epoch == list(range(trained.epochs))
