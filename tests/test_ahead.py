"""Epochs that are trained ahead count one by one: whatever callbacks see and do, it is all as if
each had been trained only when the one before it had been told of."""

import functools
import re
import signal
import time

import numpy as np
import pytest
import torch

from torchnn import Sequential, callbacks, layers, metrics, models, optimizers
from torchnn._training import ahead
from torchnn._training.batches import ArrayFeed
from torchnn.callbacks import Callback

EPOCHS = 23


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch):
    """However slow the machine is, epochs are short enough to be trained ahead."""
    monkeypatch.setattr(ArrayFeed, "epochs_a_pause", property(lambda self: 1000))


@pytest.fixture
def alone(monkeypatch):
    """Trains every epoch alone from here on."""
    return lambda: monkeypatch.setattr(ahead.Depth, "next", lambda self: 0)


def data(dtype="float32"):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(37, 4)).astype(dtype)
    return x, (x[:, :1] > 0.3 * x[:, 1:2]).astype(dtype)


def network(optimizer="sgd", metrics=(), dropout=0.0, **dense):
    torch.manual_seed(3)
    hidden = layers.Dense(6, "tanh", **dense)
    inner = [layers.Dropout(dropout)] if dropout else []
    model = Sequential([layers.Input((4,)), hidden, *inner, layers.Dense(1, "sigmoid")])
    model.compile(optimizers.get(optimizer), "bce", metrics=list(metrics))
    return model


class Diary(Callback):
    """Writes down all that it is told of, and all that it finds then."""

    def __init__(self):
        self.told = []

    def write(self, hook, logs, *more):
        optimizer = self.model.optimizer
        state = [p.detach().clone() for p in self.model.parameters()]
        state += [t.clone() for tensors in optimizer.slots.values() for t in tensors]
        counts = optimizer.iterations, self.model.epochs_trained, len(self.model.history.epoch)
        self.told.append((hook, *more, dict(logs), counts, [t.tolist() for t in state]))

    def on_epoch_end(self, epoch, logs=None):
        self.write("epoch end", logs, epoch)

    def on_test_end(self, logs=None):
        self.write("test end", logs)

    def on_train_end(self, logs=None):
        self.write("train end", logs)


class At(Callback):
    """Does something after some epochs."""

    def __init__(self, action, *epochs):
        self.action, self.epochs = action, epochs

    def on_epoch_end(self, epoch, logs=None):
        if epoch in self.epochs:
            self.action(self.model)


def fitted(make, *more, x_y=None, **arguments):
    """What a fit comes to: the diary, the history, and the model."""
    x, y = data() if x_y is None else x_y
    model, diary = make(), Diary()
    named = {"epochs": EPOCHS, "batch_size": 8, "verbose": 0} | arguments
    history = model.fit(x, y, callbacks=[*more, diary], **named)
    return diary.told, history.epoch, history.history, model.stop_training, model.epochs_trained


def counts_trained(monkeypatch):
    """How many epochs are trained in each native call that is made from here on."""
    trained, train = [], ahead.Engine.ahead

    def counted(self, run, others):
        trained.append(run.epochs)
        return train(self, run, others)

    monkeypatch.setattr(ahead.Engine, "ahead", counted)
    return trained


MODELS = {
    "descent": network,
    "adam": lambda: network("adam"),
    "momentum": lambda: network(optimizers.SGD(0.1, momentum=0.9)),
    "schedule": lambda: network(
        optimizers.SGD(optimizers.schedules.ExponentialDecay(0.5, decay_steps=7, decay_rate=0.9))
    ),
    "pieces": lambda: network(
        optimizers.SGD(optimizers.schedules.PiecewiseConstantDecay([5], [0.5, 0.2]))
    ),
    "metrics": lambda: network(metrics=["accuracy", "AUC", "mae", "log_cosh", "f1_score"]),
    "dropout": lambda: network(dropout=0.5),
    "penalties": lambda: network(kernel_regularizer="l2", bias_regularizer="l1"),
    "a penalty on no bias": lambda: network(use_bias=False, bias_regularizer="l1"),
    "no bias": lambda: network(use_bias=False),
    "clipped": lambda: network(optimizers.Adam(0.01, clipnorm=0.1)),
}
VALIDATED = {
    "no validation": {},
    "validation": {"validation_data": data()},
    "every third": {"validation_data": data(), "validation_freq": 3},
    "some": {"validation_data": data(), "validation_freq": [2, 3, 17]},
    "a part": {"validation_split": 0.3},
    "in their order": {"shuffle": False, "validation_split": 0.2},
}


@pytest.mark.parametrize("validated", VALIDATED)
@pytest.mark.parametrize("model", MODELS)
def test_callbacks_are_told_the_same_and_find_the_same(model, validated, monkeypatch, alone):
    trained = counts_trained(monkeypatch)
    found = fitted(MODELS[model], **VALIDATED[validated])
    assert sum(trained) == EPOCHS  # and all of them ahead
    alone()
    assert found == fitted(MODELS[model], **VALIDATED[validated])
    assert sum(trained) == EPOCHS


def test_a_schedule_of_ones_own_is_asked_once_a_step_in_order():
    asked = []
    model = network(optimizers.SGD(lambda step: asked.append(step) or 0.1 / len(asked)))
    model.fit(*data(), epochs=EPOCHS, batch_size=8, callbacks=[Diary()], verbose=0)
    assert asked == [*range(5 * EPOCHS)]


def set_momentum(model):
    model.optimizer.momentum = 0.5


def assign_weight(model):
    model.layers[0].weight = torch.nn.Parameter(torch.ones(6, 4))


def write_past_pytorch(model):
    model.layers[0].weight.detach().numpy()[2, 3] += 1


def swap_data(model):
    model.layers[0].bias.data = torch.full((6,), 0.25)


def scale(model):
    model.set_weights([0.5 * each for each in model.get_weights()])


def forget_slots(model):
    for tensors in model.optimizer.slots.values():
        for tensor in tensors:
            tensor.zero_()


def replace_slots(model):
    slots = model.optimizer.slots
    for name, tensors in slots.items():
        slots[name] = [torch.zeros_like(t) for t in tensors]


def start_anew(model):
    model.optimizer.iterations = 0


def count_other_epochs(model):
    model.epochs_trained = 100


def freeze(model):
    model.layers[0].trainable = False


def activate(model):
    model.layers[0].activation = "relu"


def hook(model):
    model.layers[0].register_forward_hook(lambda *arguments: None)


def train_more(model):
    model.train_on_batch(*data())


def add_penalty(model):
    model.layers[0].kernel_regularizer = layers.Dense(1, kernel_regularizer="l2").kernel_regularizer


def stop(model):
    model.stop_training = True


def set_rate(model):
    model.optimizer.learning_rate = 0.05


def look(model):
    model.predict(data()[0], verbose=0)
    model.evaluate(*data(), verbose=0)


def other_seed(model):
    torch.manual_seed(77)


def drop_more(model):
    model.layers[1].rate = 0.2


def penalise_more(model):
    model.layers[0].kernel_regularizer.l2 = 0.5


def smooth(model):
    model._recipe.loss.label_smoothing = 0.2


def bend_the_schedule(model):
    model.optimizer.learning_rate.values[1] = 0.01


ACTIONS = {
    "pieces": [bend_the_schedule, set_rate],
    "descent": [set_rate, assign_weight, write_past_pytorch, swap_data, scale, freeze, activate],
    "clipped": [count_other_epochs, set_rate],
    "momentum": [set_momentum, forget_slots, replace_slots, train_more, start_anew],
    "adam": [start_anew, replace_slots, scale, hook, add_penalty, stop, look, set_rate],
    "dropout": [drop_more, other_seed, train_more],
    "penalties": [penalise_more, scale],
    "schedule": [set_rate, start_anew, scale],
    "metrics": [scale, look],
}


@pytest.mark.parametrize("epochs", [(0,), (4,), (2, 9, 10), tuple(range(EPOCHS))], ids=len)
@pytest.mark.parametrize(
    ("model", "action"), [(m, a) for m, actions in ACTIONS.items() for a in actions]
)
def test_what_a_callback_changes_counts_from_then_on(model, action, epochs, alone):
    arguments = {"validation_data": data(), "shuffle": action is not other_seed}
    found = fitted(MODELS[model], At(action, *epochs), **arguments)
    alone()
    assert found == fitted(MODELS[model], At(action, *epochs), **arguments)


def write_samples(model):
    SAMPLES[0][3:9] *= -1


def write_validation(model):
    SAMPLES[2][1:] += 0.5


def swap_rows(model):
    SAMPLES[0][[3, 8]] = SAMPLES[0][[8, 3]]


SAMPLES = []


def write_targets(model):
    SAMPLES[1][5:] = 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("metrics", [[], ["mae"]])
@pytest.mark.parametrize("action", [write_samples, write_targets, write_validation, swap_rows])
def test_samples_written_to_count_from_then_on(action, metrics, dtype, alone):
    def found():
        SAMPLES[:] = [*data(dtype), *data(dtype)]
        x, y, *validation = SAMPLES
        make = functools.partial(network, metrics=metrics)
        return fitted(make, At(action, 3, 4, 12), x_y=(x, y), validation_data=tuple(validation))

    trained = found()
    alone()
    assert trained == found()


class Fails(Callback):
    def __init__(self, hook, error, epoch):
        setattr(self, hook, self.fail)
        self.error, self.left = error, epoch

    def fail(self, *_):
        self.left -= 1
        if self.left < 0:
            raise self.error


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("hook", ["on_epoch_end", "on_test_end"])
@pytest.mark.parametrize("access", callbacks._base.ACCESS)
@pytest.mark.parametrize("epoch", [0, 1, 7, 8, 14])
def test_an_error_leaves_what_was_trained_by_then(epoch, access, hook, error, alone):
    def left():
        x, y = data()
        model = network("adam", metrics=["mae"])

        class Own(Callback):
            model_access = access

        kind = type("Own", (Own,), {"model_access": access, hook: Fails(hook, error, epoch).fail})
        with pytest.raises(error):
            model.fit(*(x, y), epochs=EPOCHS, validation_data=(x, y), callbacks=[kind()], verbose=0)
        slots = model.optimizer.slots.values()
        state = [t.tolist() for each in (model.parameters(), *slots) for t in each]
        first = state, model.optimizer.iterations, model.epochs_trained, model.history.history
        model.fit(x, y, epochs=EPOCHS, initial_epoch=model.epochs_trained, verbose=0)
        return first, model.history.history, model.history.epoch

    found = left()
    alone()
    assert found == left()


def test_ctrl_c_in_the_middle_counts_the_epochs_told_of(monkeypatch):
    """Python gets to it between two epochs, however many the native call has trained."""
    x, y = data()
    model = network()
    train = ahead.Engine.ahead

    def interrupted(self, run, others):
        result = train(self, run, others)
        signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(ahead.Engine, "ahead", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=EPOCHS, callbacks=[Diary()], verbose=0)
    assert model.epochs_trained == len(model.history.epoch) == 1
    other = network()
    other.fit(x, y, epochs=1, verbose=0)
    assert torch.equal(model.layers[0].weight, other.layers[0].weight)


@pytest.mark.parametrize("stops", [True, False])
def test_a_loss_that_is_no_number_is_told_where_it_came(stops, alone):
    def found():
        model = Sequential([layers.Input((4,)), layers.Dense(1, "linear")])
        model.set_weights([np.ones((4, 1)), np.zeros(1)])
        model.compile(optimizers.SGD(2.0), "mse")
        x, y = data()
        more = [callbacks.TerminateOnNaN()] if stops else [Diary()]
        with pytest.warns(callbacks.InvalidLossWarning) as warned:
            model.fit(x, y, epochs=99, validation_data=(x, y), callbacks=more, verbose=0)
        return repr(model.history.history), model.history.epoch, str(warned[0].message)

    trained = found()
    alone()
    assert trained == found()
    assert 8 < len(trained[1]) < 99 or not stops


@pytest.mark.parametrize("access", callbacks._base.ACCESS)
def test_after_an_infinite_loss_it_is_validated_by_the_weights_of_that_epoch(access, alone):
    def found():
        model = Sequential([layers.Input((4,)), layers.Dense(1)])
        model.set_weights([np.ones((4, 1)), np.zeros(1)])
        model.compile(optimizers.SGD(1e-30), "mse", metrics=["mae"])
        x, y = data()
        hook = {"on_invalid_loss": lambda self, *_: None, "model_access": access}
        own = type("Own", (Callback,), hook)()
        with pytest.warns(callbacks.InvalidLossWarning):
            model.fit(*(x, y * 1e30), epochs=9, validation_data=(x, y), callbacks=[own], verbose=0)
        return model.history.history["val_mae"]

    trained = found()
    alone()
    assert trained == found()
    assert len(set(trained)) == 9


@pytest.mark.parametrize("restore", [True, False])
def test_early_stopping_ends_where_it_would(restore, alone, monkeypatch):
    trained = counts_trained(monkeypatch)

    def found():
        x, y = data()
        model = network(optimizers.Adam(0.1))
        stop = callbacks.EarlyStopping(patience=3, restore_best_weights=restore)
        model.fit(x, y, epochs=200, validation_data=(x[::-1] * 1.5, y), callbacks=[stop], verbose=0)
        weights = [each.tolist() for each in model.get_weights()]
        return weights, model.optimizer.iterations, model.history.history, stop.stopped_epoch

    first = found()
    assert trained
    alone()
    assert first == found()
    assert 3 < len(first[2]["loss"]) < 200


def test_files_of_callbacks_are_the_same(tmp_path, alone):
    def found(folder):
        x, y = data()
        model = network("adam")
        model.fit(
            *(x, y),
            epochs=EPOCHS,
            validation_data=(x, y),
            callbacks=[
                callbacks.CSVLogger(folder / "log.csv"),
                callbacks.ReduceLROnPlateau("loss", min_delta=0.005, patience=2),
                callbacks.ModelCheckpoint(folder / "{epoch:02d}-{val_loss:.9f}.keras"),
            ],
            verbose=0,
        )
        states = {path.name: models.load_model(path) for path in folder.glob("*.keras")}
        weights = {name: [w.tolist() for w in m.get_weights()] for name, m in states.items()}
        steps = {name: m.optimizer.iterations for name, m in states.items()}
        return (folder / "log.csv").read_text(), weights, steps

    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    trained = found(tmp_path / "a")
    alone()
    assert trained == found(tmp_path / "b")
    assert len(trained[1]) == EPOCHS


@pytest.mark.parametrize(
    "hook",
    [
        *("on_epoch_begin", "on_train_batch_end", "on_batch_begin"),
        *("on_test_begin", "on_test_batch_end"),
    ],
)
def test_whoever_comes_before_what_follows_is_not_trained_ahead_of(hook, monkeypatch):
    trained = counts_trained(monkeypatch)
    own = type("Own", (Callback,), {hook: lambda *arguments, **named: None})()
    network().fit(*data(), epochs=5, callbacks=[own], verbose=0)
    assert not trained


def test_what_is_trained_in_vain_is_little(monkeypatch):
    trained = counts_trained(monkeypatch)
    halve = At(lambda model: setattr(model.optimizer, "learning_rate", 0.1), *range(300))
    network().fit(*data(), epochs=300, callbacks=[halve], verbose=0)
    assert sum(trained) < 30
    trained.clear()
    network().fit(*data(), epochs=300, callbacks=[Diary()], verbose=0)
    assert len(trained) < 10


def test_large_states_are_not_kept_many_times(monkeypatch):
    monkeypatch.setattr("torchnn._engine.fused.MOST_BYTES", 5 * (6 * 4 + 6 + 6 + 1 + 37) * 4)
    trained = counts_trained(monkeypatch)
    network().fit(*data(), epochs=30, callbacks=[Diary()], verbose=0)
    assert set(trained) == {5}


def test_large_samples_are_looked_through_for_nobody_who_only_reads(monkeypatch):
    monkeypatch.setattr("torchnn._engine.fused.MOST_SHARED", 37 * 5 * 4 - 1)
    trained = counts_trained(monkeypatch)
    network().fit(*data(), epochs=10, callbacks=[Diary()], verbose=0)
    assert not trained
    network().fit(*data(), epochs=10, callbacks=[callbacks.EarlyStopping("loss")], verbose=0)
    assert trained


@pytest.mark.parametrize(
    ("kind", "access"),
    [
        (Callback, "none"),  # it is told nothing
        (type("Late", (Callback,), {"on_train_end": print}), "none"),
        (Diary, "write"),
        (callbacks.CSVLogger, "none"),
        (callbacks.ModelCheckpoint, "read"),
        (type("Sub", (callbacks.CSVLogger,), {}), "write"),
        (type("Own", (Diary,), {"model_access": "read"}), "read"),
    ],
)
def test_what_a_callback_does_with_the_model_its_class_says(kind, access, tmp_path):
    own = kind(tmp_path / "a") if issubclass(kind, callbacks.CSVLogger) else None
    own = own or (kind("a.keras") if kind is callbacks.ModelCheckpoint else kind())
    assert callbacks._base.CallbackList([own]).model_access == access
    own.on_epoch_end = print
    assert callbacks._base.CallbackList([own]).model_access == "write"
    stops = [callbacks.EarlyStopping(), callbacks.EarlyStopping(restore_best_weights=True)]
    assert [callbacks._base.CallbackList(each).model_access for each in stops] == ["none", "read"]


def test_an_unknown_access_is_an_error():
    own = type("Own", (Diary,), {"model_access": "all"})()
    with pytest.raises(ValueError, match="model_access must be"):
        network().fit(*data(), callbacks=[own], verbose=0)


def test_a_line_shows_the_time_of_its_own_epoch(capsys, monkeypatch):
    train = ahead.Engine.ahead

    def slow(self, run, others):
        time.sleep(0.1 * run.epochs)
        return train(self, run, others)

    monkeypatch.setattr(ahead.Engine, "ahead", slow)
    network().fit(*data(), epochs=8, callbacks=[Diary()], verbose=2)
    shown = re.findall(r"Epoch +\d/8 +(\S+ m?s)", capsys.readouterr().out)
    assert len(shown) == 8
    assert len(set(shown)) == 1  # its share, and not that of all for the first and none for others


def rate(y_true, y_pred):
    return RATE[0].current_learning_rate()


RATE = []


class Norm(metrics.MeanMetric):
    """Of the weights, which is none of the predictions' affair."""

    def values(self, y_true, y_pred):
        return RATE[1].layers[0].weight.detach().norm().expand(len(y_pred))


class Counting:
    """As torchmetrics' do, it keeps a state of its own."""

    def __init__(self):
        self.seen = 0.0

    def update(self, y_pred, y_true):
        self.seen += float(RATE[1].layers[0].bias.detach().sum())

    def compute(self):
        return torch.tensor(self.seen)

    def reset(self):
        self.seen = 0.0


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("metric", [rate, Norm(), Counting()], ids=["rate", "norm", "counting"])
def test_a_metric_of_ones_own_finds_the_model_as_it_was_then(metric, watched, monkeypatch):
    """It is called when an epoch has been trained, and before the next one is."""
    schedule = optimizers.schedules.ExponentialDecay(0.5, decay_steps=7, decay_rate=0.9)
    model = network(optimizers.SGD(schedule), metrics=[metric])
    RATE[:] = model.optimizer, model
    norms, biases = [], []
    own = At(lambda m: norms.append(m.layers[0].weight.norm().item()), *range(9))
    also = At(lambda m: biases.append(m.layers[0].bias.detach().sum().item()), *range(9))
    trained = counts_trained(monkeypatch)
    history = model.fit(
        *data(), 37, epochs=9, callbacks=[own, also] if watched else None, verbose=0
    ).history
    assert not trained
    found = history[[*history][-1]]
    assert len(set(found)) == 9
    if metric is rate:
        assert found == pytest.approx([schedule(epoch + 1) for epoch in range(9)])
    elif watched:
        assert found == pytest.approx(norms if isinstance(metric, Norm) else biases, rel=1e-5)


def test_what_is_never_told_does_not_fail(alone):
    """A metric sees no epoch behind the one that a callback has stopped at."""

    def strict(y_true, y_pred):
        if not torch.isfinite(y_pred).all():
            raise ValueError("no number")
        return (y_true - y_pred).abs()

    model = Sequential([layers.Input((4,)), layers.Dense(8), layers.Dense(1)])
    model.compile(optimizers.SGD(2.0), "mse", metrics=[strict])
    last = At(stop, 2)
    history = model.fit(*data(), 37, epochs=60, callbacks=[last], verbose=0)
    assert history.epoch == [0, 1, 2]


def test_a_setting_of_a_metric_counts_from_then_on(alone):
    def found():
        accuracy = metrics.BinaryAccuracy(threshold=0.5)
        change = At(lambda model: setattr(accuracy, "threshold", 0.99), 4)
        return fitted(
            functools.partial(network, metrics=[accuracy]), change, validation_data=data()
        )

    trained = found()
    alone()
    assert trained == found()


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: callbacks.ModelCheckpoint(folder / "{epoch}.keras"),
        lambda folder: callbacks.CSVLogger(folder / "log.csv"),
        lambda folder: callbacks.EarlyStopping("loss", restore_best_weights=True, patience=99),
        lambda folder: callbacks.ReduceLROnPlateau("loss", patience=99),
        lambda folder: callbacks.TerminateOnNaN(),
    ],
)
def test_torchnns_own_are_trained_ahead_of(make, tmp_path, monkeypatch):
    trained = counts_trained(monkeypatch)
    network().fit(*data(), epochs=20, callbacks=[make(tmp_path)], validation_data=data(), verbose=0)
    assert sum(trained) == 20


def test_tensorboard_is_trained_ahead_of(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    trained = counts_trained(monkeypatch)
    board = callbacks.TensorBoard(tmp_path, histogram_freq=1)
    network().fit(*data(), epochs=20, callbacks=[board], verbose=0)
    assert sum(trained) == 20


def test_a_metric_that_fails_leaves_the_first_epoch_trained(alone):
    def left():
        calls = []

        def failing(y_true, y_pred):
            calls.append(len(y_pred))
            if len(calls) > 1:  # after the rehearsal
                raise ZeroDivisionError
            return (y_true - y_pred).abs()

        model = network("adam", metrics=[failing])
        with pytest.raises(ZeroDivisionError):
            model.fit(*data(), epochs=9, callbacks=[Diary()], verbose=0)
        weights = [each.tolist() for each in model.get_weights()]
        return weights, model.optimizer.iterations, model.epochs_trained, model.history.history

    found = left()
    alone()
    assert found == left()
