"""A fit that ends early, for whatever reason: its steps count, and the next one goes on."""

import copy
import pickle
import signal
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from torchnn import optimizers
from torchnn._engine.choice import Engine
from torchnn.callbacks import Callback, InvalidLossWarning, LambdaCallback
from torchnn.layers import Dense
from torchnn.sequential import Sequential
from torchnn.utils import set_random_seed

X = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.float32)
STEPS = 7  # of 8 rows, the last of 2

ENGINES = ["fused", "autograd"]


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


MEASURED = ["accuracy", "auc", "precision", "f1_score"]


def made(engine="fused", **options):
    set_random_seed(1)
    model = Sequential([Dense(5, "tanh", in_features=3), Dense(1, "sigmoid", in_features=5)])
    options = {"optimizer": optimizers.Adam(0.1), "metrics": MEASURED} | options
    model.compile(loss="bce", engine=engine, **options)
    return model


def fit(model, **options):
    return model.fit(X, Y, **{"batch_size": 8, "epochs": 6, "verbose": 0} | options)


def end(model):
    """What a fit comes to, to the last bit."""
    state = [w.tolist() for w in model.get_weights()], model.optimizer.state_dict()
    return repr(state), model.epochs_trained


@pytest.fixture
def whole(engine):
    """A fit of six epochs that nobody interrupted."""
    model = made(engine)
    return end_and_history(model, fit(model))


def end_and_history(model, *histories):
    joined = {}
    for each in histories:
        for name, values in each.history.items():
            joined.setdefault(name, []).extend(values)
    return end(model), joined


class CallbackError(Exception):
    pass


def failing(hook, at):
    """A callback that fails at the call of that number of a hook."""
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == at:
            raise CallbackError

    return LambdaCallback(**{hook: fail})


def press_ctrl_c(monkeypatch, at):
    """Presses it during the call of that number of an engine."""
    train, calls = Engine.train, []

    def interrupted(engine, *arguments):
        calls.append(arguments)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return train(engine, *arguments)

    monkeypatch.setattr(Engine, "train", interrupted)


@pytest.mark.parametrize(
    ("hook", "at", "batches", "epochs"),
    [
        ("on_epoch_begin", 3, 2 * STEPS, 2),
        ("on_epoch_end", 3, 3 * STEPS, 3),
        ("on_train_batch_begin", 10, 9, 1),
        ("on_train_batch_end", 10, 10, 1),
        ("on_train_batch_end", 2 * STEPS, 2 * STEPS, 2),
    ],
)
def test_a_failing_callback_loses_nothing(hook, at, batches, epochs, engine, whole):
    model, ended = made(engine), []
    callbacks = [failing(hook, at), LambdaCallback(on_train_end=lambda logs: ended.append(logs))]
    with pytest.raises(CallbackError):
        fit(model, callbacks=callbacks)
    first = model.history
    assert model.optimizer.iterations == batches
    assert (model.epochs_trained, first.epoch) == (epochs, list(range(epochs)))
    assert len(ended) == 1
    second = fit(model, epochs=6 - epochs)
    assert end_and_history(model, first, second) == whole


@pytest.mark.parametrize(
    ("at", "looks"), [(1, False), (2, False), (1, True), (2, True), (STEPS, True), (17, True)]
)
def test_ctrl_c_loses_nothing(at, looks, engine, whole, monkeypatch):
    model, ended = made(engine), []
    callbacks = [LambdaCallback(on_train_end=lambda logs: ended.append(logs))]
    if looks:
        callbacks.append(LambdaCallback(on_train_batch_end=lambda batch, logs: None))
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, at)
        with pytest.raises(KeyboardInterrupt):
            fit(model, callbacks=callbacks)
    first, place = model.history, model.optimizer.place
    assert model.optimizer.iterations == STEPS * place.epochs + place.batches > 0
    assert first.epoch == list(range(place.epochs))
    assert len(ended) == 1
    second = fit(model, initial_epoch=place.epochs)
    assert first.epoch + second.epoch == list(range(6))
    assert end_and_history(model, first, second) == whole


def cut_short(engine, batches=10):
    model = made(engine)
    with pytest.raises(CallbackError):
        fit(model, callbacks=failing("on_train_batch_end", batches))
    return model


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_a_copy_goes_on_as_well(duplicate, engine, whole):
    model = cut_short(engine)
    other = duplicate(model)
    assert end_and_history(other, model.history, fit(other, initial_epoch=1)) == whole


@pytest.mark.parametrize("seed", [1, 2])
def test_state_dicts_know_the_place_in_the_epoch(seed, engine, tmp_path):
    model = cut_short(engine)
    torch.save([model.state_dict(), model.optimizer.state_dict()], tmp_path / "state.pt")
    own, optimizer = torch.load(tmp_path / "state.pt", weights_only=True)
    other = made(engine)
    other.load_state_dict(own)
    other.optimizer.load_state_dict(optimizer)
    for each in (model, other):
        set_random_seed(seed)  # of the epochs to come; the one that was begun keeps its order
        fit(each, initial_epoch=1, epochs=2)
    assert end(other) == end(model)
    if seed == 1:
        alone = made(engine)
        fit(alone, epochs=2)
        assert end(alone) == end(model)


@pytest.mark.parametrize(
    ("options", "steps"),
    [({"batch_size": 10}, 5), ({"shuffle": False}, STEPS), ({"validation_split": 0.5}, 4)],
)
def test_an_epoch_of_other_batches_begins_anew(options, steps, engine):
    model = cut_short(engine)
    fit(model, epochs=1, **options)
    assert model.optimizer.iterations == 10 + steps
    assert model.epochs_trained == 2


def test_a_later_initial_epoch_begins_there(engine):
    model = cut_short(engine)
    fit(model, initial_epoch=4, epochs=5)
    assert (model.optimizer.iterations, model.epochs_trained) == (10 + STEPS, 5)


def test_setting_epochs_trained_begins_an_epoch(engine):
    model = cut_short(engine)
    model.epochs_trained = 1
    fit(model, epochs=1)
    assert (model.optimizer.iterations, model.epochs_trained) == (10 + STEPS, 2)


def test_compiling_again_keeps_the_count_of_epochs(engine):
    model = made(engine)
    assert model.epochs_trained == 0
    fit(model, epochs=2)
    model.compile(loss="bce", engine=engine)
    assert model.epochs_trained == 2
    with pytest.raises(ValueError, match="needs a compiled model"):
        Sequential([Dense(1)]).epochs_trained = 3


def test_a_loader_in_order_goes_on_where_it_was(engine, whole):
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    loader = DataLoader(data, batch_size=8)
    alone, model = made(engine), made(engine)
    expected = end_and_history(alone, alone.fit(loader, epochs=3, verbose=0))
    with pytest.raises(CallbackError):
        model.fit(loader, epochs=3, verbose=0, callbacks=failing("on_train_batch_end", 10))
    first, second = model.history, model.fit(loader, initial_epoch=1, epochs=3, verbose=0)
    assert end_and_history(model, first, second) == expected


def test_who_handles_ctrl_c_may_let_the_fit_go_on(engine, whole, monkeypatch):
    model, pressed = made(engine), []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(model.optimizer.iterations))
    try:
        press_ctrl_c(monkeypatch, at=2)
        assert end_and_history(model, fit(model)) == whole
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(pressed) == 1


def test_ctrl_c_in_a_callback_need_not_wait(engine):
    model = made(engine)

    def press(epoch, logs):
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("went on")

    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=LambdaCallback(on_epoch_end=press))
    assert (model.epochs_trained, model.history.epoch) == (1, [0])


def test_an_interrupted_validation_leaves_the_epoch_in_the_history(engine):
    model = made(engine, metrics=["accuracy"])
    with pytest.raises(CallbackError):
        fit(model, validation_split=0.2, callbacks=failing("on_test_begin", 2))
    assert model.history.epoch == [0, 1]
    assert {k: len(v) for k, v in model.history.history.items()} == {
        "loss": 2,
        "accuracy": 2,
        "val_loss": 1,
        "val_accuracy": 1,
    }


def test_a_warning_that_is_made_an_error_loses_no_epochs(engine):
    model = Sequential([Dense(1, in_features=3)])
    model.compile(optimizers.SGD(1e10), loss="mse", engine=engine)
    with pytest.raises(InvalidLossWarning):  # as pytest makes all of them
        fit(model, epochs=60)
    assert model.optimizer.iterations == STEPS * model.epochs_trained
    assert model.history.epoch == list(range(model.epochs_trained))


def test_a_failure_before_the_first_step_changes_nothing(engine):
    class Early(Callback):
        def on_train_begin(self, logs=None):
            raise CallbackError

        def on_train_end(self, logs=None):
            raise AssertionError("nothing had begun")

    model = made(engine)
    before = end(model)
    with pytest.raises(CallbackError):
        fit(model, callbacks=Early())
    assert end(model)[1] == before[1] == 0
    assert model.optimizer.iterations == 0
    assert model.training


def test_a_second_fit_is_refused_at_once(engine):
    model, refused = made(engine), []

    def again(*arguments):
        with pytest.raises(RuntimeError, match=r"^fit is at work on this model already"):
            fit(model)
        refused.append(1)

    def in_another_thread(epoch, logs):
        again()
        thread = threading.Thread(target=again)
        thread.start()
        thread.join()
        raised = []
        other = threading.Thread(target=lambda: raised.append(error_of_a_step(model)))
        other.start()
        other.join()
        assert isinstance(raised[0], RuntimeError)
        model.train_on_batch(X[:4], Y[:4])  # by whoever fits, between two of its steps

    fit(model, epochs=1, callbacks=LambdaCallback(on_epoch_end=in_another_thread))
    assert refused == [1, 1]
    fit(model, epochs=1)


def error_of_a_step(model):
    try:
        model.train_on_batch(X[:4], Y[:4])
    except RuntimeError as error:
        return error


def test_predictions_during_a_fit_leave_it_as_it_is(engine):
    alone, model = made(engine), made(engine)
    looking = LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    fit(alone, callbacks=looking)

    def look(batch, logs):
        model.predict(X, verbose=0)
        model.evaluate(X, Y, verbose=0)
        assert model.training

    fit(model, callbacks=LambdaCallback(on_train_batch_end=look))
    assert end(model) == end(alone)
