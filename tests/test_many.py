"""fit_many: each model comes to what fit makes of it alone, whoever is trained beside it."""

import copy
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
import weakref

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from torchnn import Model, Sequential, callbacks, fit_many, layers, losses, metrics, optimizers
from torchnn._training import many
from torchnn.callbacks import Callback, InvalidLossWarning, LambdaCallback
from torchnn.layers import Dense, Dropout
from torchnn.optimizers import SGD, Adam, schedules
from torchnn.utils import set_random_seed

TOGETHER = "many models in one native call"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = (X[:, :1] > 0.3 * X[:, 1:2]).astype(float)
LABELS = X[:, :3].argmax(1)
WEIGHTS = RNG.uniform(0.1, 2, size=60)
FOLDS = [np.flatnonzero(np.arange(60) % 3 != i) for i in range(3)]
REST = [np.flatnonzero(np.arange(60) % 3 == i) for i in range(3)]


def made(*chain, optimizer=None, loss="bce", seed=0, dtype=torch.float64, **compiled):
    set_random_seed(seed)
    model = Sequential([layers.Input((4,)), *(make() for make in chain)]).to(dtype)
    model.compile(optimizer or SGD(0.1), loss, **compiled)
    set_random_seed(7)  # of the order
    return model


def network(
    optimizer=None, loss="bce", widths=(5,), activation="tanh", last="sigmoid", units=1, **more
):
    named = ("use_bias", "kernel_regularizer", "bias_regularizer")
    own = {name: more.pop(name) for name in named if name in more}
    hidden = [lambda width=width: Dense(width, activation, **own) for width in widths]
    return made(*hidden, lambda: Dense(units, last), optimizer=optimizer, loss=loss, **more)


def numbered(count, **arguments):
    """What makes so many networks, each with first weights of its own."""
    return [lambda i=i: network(seed=i, **arguments) for i in range(count)]


def state(model):
    """All that training changes, to the last bit."""
    slots = [t.tolist() for tensors in model.optimizer.slots.values() for t in tensors]
    counts = model.optimizer.iterations, model.optimizer.place
    return [p.tolist() for p in model.parameters()], slots, counts


def assert_close(model, history, other, expected):
    """Up to rounding."""
    assert history.epoch == expected.epoch
    assert list(history.history) == list(expected.history)
    for name, values in expected.history.items():
        np.testing.assert_allclose(history.history[name], values, 1e-10, 1e-10, err_msg=name)
    (weights, slots, counts), (others, other_slots, other_counts) = state(model), state(other)
    assert counts == other_counts
    for one, two in zip(weights + slots, others + other_slots, strict=True):
        np.testing.assert_allclose(one, two, 1e-10, 1e-10)
    assert model.training == other.training


def compared(makes, x=X, y=Y, alone=None, engine=TOGETHER, **arguments):
    """Trains models at once, and the same ones by fit, where alone(i) tells what is their own."""
    settings = {"epochs": 3, "batch_size": 8, "shuffle": True, "verbose": 0} | arguments
    models = [make() for make in makes]
    histories = fit_many(models, x, y, **settings)
    shared = {name: settings[name] for name in ("epochs", "batch_size", "shuffle", "verbose")}
    for i, make in enumerate(makes):
        own = {"x": x, "y": y, **shared, **({} if alone is None else alone(i))}
        other = make()
        assert_close(models[i], histories[i], other, other.fit(**own))
        assert models[i].history is histories[i]
        if engine is not None:
            assert histories[i].engine == engine
    return models, histories


# ---- the same as fit ----


def of_each(*choices):
    """The last weights differ, too."""
    return [
        lambda i=i, chosen=chosen: network(seed=i, **chosen) for i, chosen in enumerate(choices)
    ]


def dropping(rate, inner=0.0, seed=None):
    chain = [lambda: Dropout(rate), lambda: Dense(8, "relu"), lambda: Dropout(inner, seed=seed)]
    return lambda: made(*chain, lambda: Dense(1, "sigmoid"), optimizer=Adam(0.01))


def normalizing(scale):
    def layer():
        own = layers.Normalization()
        own.adapt(X * scale + scale)
        return own

    return lambda: made(layer, lambda: Dense(5, "relu"), lambda: Dense(1, "sigmoid"))


KINDS = {
    "widths": of_each({"widths": (9, 3)}, {"widths": (2, 7)}, {"widths": (5, 5)}),
    "depths": of_each({"widths": ()}, {"widths": (3,)}, {"widths": (3, 4, 5)}),
    "activations": of_each(
        *({"activation": name} for name in ("relu", "tanh", "sigmoid", "gelu", "elu", "softplus")),
        {"activation": layers.LeakyReLU(negative_slope=0.1)},
        {"activation": layers.LeakyReLU(negative_slope=0.3)},
    ),
    "losses": of_each(
        {"loss": losses.BinaryCrossentropy(label_smoothing=0.2)},
        {"loss": losses.BinaryCrossentropy()},
        {"loss": losses.BinaryCrossentropy(from_logits=True), "last": None},
        {"loss": "mse"},
        {"loss": losses.Huber(0.2)},
        {"loss": losses.Huber(0.5)},
        {"loss": "mae", "last": None},
    ),
    "rules": of_each(
        *(
            {"optimizer": SGD(0.1, momentum, nesterov)}
            for momentum, nesterov in [
                (0.0, False),
                (0.5, False),
                (0.9, False),
                (0.5, True),
                (0.9, True),
            ]
        ),
        *({"optimizer": Adam(rate, beta)} for rate, beta in [(0.01, 0.9), (0.1, 0.5)]),
        *({"optimizer": name} for name in ("rmsprop", "adagrad", "adamw")),
        {"optimizer": optimizers.RMSprop(0.01, momentum=0.5)},
    ),
    "weight decay": of_each({"optimizer": Adam(0.01, weight_decay=0.1)}, {"optimizer": Adam(0.01)}),
    "limits": of_each(
        {"optimizer": SGD(0.1)},
        {"optimizer": SGD(0.1, clipnorm=0.01)},
        {"optimizer": SGD(0.1, clipvalue=0.01)},
        {"optimizer": SGD(0.1, global_clipnorm=0.01)},
        {"optimizer": SGD(0.1, global_clipnorm=0.02)},
    ),
    "limits first": of_each({"optimizer": SGD(0.1, clipnorm=0.01)}, {"optimizer": SGD(0.1)}),
    "schedules": of_each(
        {"optimizer": SGD(schedules.ExponentialDecay(0.5, 7, 0.9))},
        {"optimizer": SGD(0.2)},
        {"optimizer": SGD(schedules.PiecewiseConstantDecay([5], [0.5, 0.2]))},
        {"optimizer": SGD(lambda step: 1 / (1 + step))},
    ),
    "penalties": of_each(
        {"kernel_regularizer": "l1"},
        {"kernel_regularizer": "l2", "bias_regularizer": "l1"},
        {},
        {"kernel_regularizer": "l1_l2"},
    ),
    "no bias": of_each({"use_bias": False}, {}, {"use_bias": False}),
    "dropout": [dropping(0.2), dropping(0.5, 0.3), dropping(0.0, 0.5, seed=3), dropping(0.0)],
    "normalizations": [normalizing(1), normalizing(3), normalizing(1)],
    "metrics": of_each(
        {"metrics": ["accuracy", "AUC", metrics.Precision(thresholds=0.3)]},
        {"metrics": ["accuracy", "AUC", metrics.Precision(thresholds=0.7)]},
        {"metrics": ["accuracy", metrics.AUC(num_thresholds=5), metrics.Precision()]},
        {"metrics": ["mae", "f1_score"]},
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_is_trained_as_by_fit(name):
    """With a validation, which has penalties, metrics and no dropout."""

    def copied(make):  # an optimizer is one model's
        return lambda: recompiled(make())

    part = X[:17], Y[:17]
    compared(
        [copied(make) for make in KINDS[name]],
        validation_data=part,
        alone=lambda i: {"validation_data": part},
    )


def recompiled(model):
    model.compile(copy.deepcopy(model.optimizer), model.loss, model.metrics)
    return model


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (lambda i: "sparse_categorical_crossentropy", LABELS),
        (lambda i: losses.SparseCategoricalCrossentropy(ignore_class=i), LABELS),
        (lambda i: losses.CategoricalCrossentropy(label_smoothing=i / 10), np.eye(3)[LABELS]),
    ],
    ids=["labels", "labels that do not count", "one-hot"],
)
def test_classes(loss, y):
    compared(
        [
            lambda i=i: network(
                None, loss(i), units=3, last="softmax", metrics=["accuracy"], seed=i
            )
            for i in range(3)
        ],
        y=y,
        validation_data=(X, y),
        alone=lambda i: {"validation_data": (X, y)},
    )


class Hits(metrics.Metric):
    """One of somebody's own, that keeps more than sums."""

    def __init__(self, name="hits"):
        super().__init__(name)
        self.hits = self.add_weight(name="hits")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.hits.assign_add((y_true == y_pred.round()).sum())

    def result(self):
        return self.hits


def test_metrics_of_ones_own():
    def error(y_true, y_pred):
        return (y_true - y_pred).abs().mean(-1)

    shared = Hits()
    compared(numbered(3, metrics=[shared, error]))
    assert float(shared.result()) == 0


@pytest.mark.parametrize("batch_size", [1, 59, 60, 61, 10**12])
def test_any_batch_size(batch_size):
    compared(numbered(2), batch_size=batch_size, epochs=2)


def test_each_has_its_batch_size_and_epochs():
    epochs, sizes = [0, 1, 4], np.array([7, 7, 60])
    compared(
        numbered(3),
        epochs=epochs,
        batch_size=sizes,
        alone=lambda i: {"epochs": epochs[i], "batch_size": int(sizes[i])},
    )


def test_numbers_may_be_arrays():
    models = [network(), network()]
    numbers = {"epochs": np.array(2), "batch_size": torch.tensor(30)}
    histories = fit_many(models, X, Y, **numbers, verbose=0)
    assert [history.epoch for history in histories] == [[0, 1]] * 2
    assert [model.optimizer.iterations for model in models] == [4, 4]


def test_rows_as_they_are():
    compared(numbered(3), shuffle=False)


def test_unbuilt_models_of_several_dtypes():
    def lazy(i):
        set_random_seed(i)
        model = Sequential([layers.Flatten(), Dense(3, "relu"), Dense(1, "sigmoid")])
        model.to(torch.float64).compile(Adam(0.01), "bce")
        set_random_seed(7)
        return model

    x = X.reshape(60, 2, 2)
    compared([lambda: lazy(0)], x, epochs=2)
    kinds = [torch.float32, torch.float64]
    models = [network(dtype=kinds[i % 2], seed=i) for i in range(4)]
    assert {h.engine for h in fit_many(models, X, Y, epochs=1, verbose=0)} == {TOGETHER}


def test_the_seed_of_a_models_order_is_its_own():
    models = numbered(3)
    one, other, third = (make() for make in models)
    one._order_seed, other._order_seed = 5, 6
    fit_many([one, other, third], X, Y, epochs=2, batch_size=8, verbose=0)
    for model, make in zip((one, other, third), models, strict=True):
        alone = make()
        alone._order_seed = model._order_seed
        alone.fit(X, Y, 8, 2, verbose=0)
        assert_close(model, model.history, alone, alone.history)


# ---- rows and weights ----


def test_folds():
    compared(
        numbered(3, metrics=["accuracy"]),
        rows=FOLDS,
        validation_rows=REST,
        sample_weight=WEIGHTS,
        alone=lambda i: {
            "x": X[FOLDS[i]],
            "y": Y[FOLDS[i]],
            "sample_weight": WEIGHTS[FOLDS[i]],
            "validation_data": (X[REST[i]], Y[REST[i]], WEIGHTS[REST[i]]),
        },
    )


def test_class_weights_count_in_training_alone():
    weights = [{0: 1.0, 1: 3.0}, None, {0: 0.5, 1: 1.0}]
    compared(
        numbered(3),
        class_weight=weights,
        validation_rows=REST,
        alone=lambda i: {
            "class_weight": weights[i],
            "validation_data": (X[REST[i]], Y[REST[i]]),
        },
    )


def test_bootstraps_masks_and_all_rows():
    drawn = RNG.integers(0, 60, 70)
    mask = X[:, 0] > 0
    rows = [drawn, mask, None, torch.arange(9), [5, 5, 3]]
    taken = [drawn, mask, slice(None), slice(9), [5, 5, 3]]
    compared(numbered(5), rows=rows, alone=lambda i: {"x": X[taken[i]], "y": Y[taken[i]]})


def test_each_has_data_of_its_own():
    xs, ys = [X[: 50 + i] * (1 + i) for i in range(3)], [Y[: 50 + i] for i in range(3)]
    weights = [WEIGHTS[: 50 + i] for i in range(3)]
    compared(
        numbered(3),
        xs,
        ys,
        sample_weight=weights,
        alone=lambda i: {"x": xs[i], "y": ys[i], "sample_weight": weights[i]},
    )


def test_each_has_targets_of_its_own():
    ys = [Y, 1 - Y, Y * (X[:, 1:2] > 0)]
    weights = [WEIGHTS, WEIGHTS**2, WEIGHTS + 1]
    for y, x in ((ys, X), (Y, [X, X * 2, X - 1])):
        compared(
            numbered(3),
            x,
            y,
            sample_weight=weights,
            alone=lambda i, x=x, y=y: {
                "x": x[i] if isinstance(x, list) else x,
                "y": y[i] if isinstance(y, list) else y,
                "sample_weight": weights[i],
            },
        )


def test_each_is_measured_on_data_of_its_own():
    data = [(X[: 5 * i + 5], Y[: 5 * i + 5], WEIGHTS[: 5 * i + 5]) for i in range(3)]
    compared(numbered(3), validation_data=data, alone=lambda i: {"validation_data": data[i]})


# ---- to the last bit ----


def mixed(i):
    """One of many, in float32, where every difference in the order of sums would show."""
    return network(
        optimizer=Adam(0.01 * (1 + i % 9)),
        widths=(3 + i % 5, 2 + i % 3),
        seed=i,
        dtype=torch.float32,
        kernel_regularizer="l2" if i % 4 == 0 else None,
        metrics=["accuracy"] if i % 2 else None,
    )


def results(numbers):
    """What each of these comes to, with rows of its own."""
    models = [mixed(i) for i in numbers]
    rows = [np.arange(i % 7, 53 + i % 7) for i in numbers]
    histories = fit_many(
        models,
        *(X, Y),
        epochs=4,
        batch_size=7,
        verbose=0,
        rows=rows,
        validation_data=(X[:13], Y[:13]),
    )
    each = zip(numbers, models, histories, strict=True)
    return {i: (state(model), history.history) for i, model, history in each}


@pytest.fixture(scope="module")
def of_forty():
    return results(range(40))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "numbers", [[5], [8, 4, 0], range(39, -1, -1), range(1, 40, 2)], ids=lambda n: f"{len(n)}"
)
def test_neighbours_and_threads_do_not_matter(numbers, count, threads, of_forty):
    threads(count)
    for number, found in results(numbers).items():
        assert found == of_forty[number]


@pytest.mark.parametrize(
    ("pause", "pace"), [(1e-9, 1e-10), (1e9, 1e-10), (0.05, 1e-3), (1e-4, 1e-12)]
)
def test_how_the_work_is_cut_does_not_matter(pause, pace, monkeypatch, of_forty):
    monkeypatch.setattr(many, "PAUSE", pause)
    monkeypatch.setattr(many, "FIRST_PACE", pace)
    assert results(range(9)) == {i: of_forty[i] for i in range(9)}


def test_dropout_does_not_depend_on_neighbours():
    makes = [dropping(i % 3 / 5, i % 2 / 2) for i in range(20)]

    def weights(numbers):
        models = [makes[i]() for i in numbers]
        fit_many(models, X, Y, epochs=2, batch_size=8, verbose=0)
        return {i: state(model) for i, model in zip(numbers, models, strict=True)}

    every = weights(range(20))
    for numbers in ([3], range(19, -1, -1)):
        assert weights(numbers) == {i: every[i] for i in numbers}


def test_several_calls_at_once():
    sets = [[mixed(i) for i in range(10)] for _ in range(3)]
    beside = network()
    options = {"epochs": 10, "batch_size": 8, "verbose": 0}
    calls = [
        threading.Thread(target=fit_many, args=(models, X, Y), kwargs=options) for models in sets
    ]
    for call in calls:
        call.start()
    beside.fit(X, Y, epochs=10, verbose=0)
    for call in calls:
        call.join()
    one, *others = [[state(model) for model in models] for models in sets]
    assert others == [one, one]


# ---- callbacks ----


PART = {"validation_data": (X[:17], Y[:17])}


@pytest.mark.parametrize(
    ("callback", "rate"),
    [
        (callbacks.EarlyStopping("val_loss", patience=1), 0.8),
        (callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True), 0.8),
        (callbacks.ReduceLROnPlateau("val_loss", patience=1), 0.5),
        (callbacks.TerminateOnNaN(), 0.1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Callback) else "",
)
def test_each_model_has_callbacks_of_its_own(callback, rate):
    _, histories = compared(
        [lambda i=i: network(Adam(rate), seed=i) for i in range(4)],
        epochs=20,
        callbacks=callback,
        alone=lambda i: {"callbacks": copy.deepcopy(callback), **PART},
        **PART,
    )
    assert callback.model is None
    if isinstance(callback, callbacks.EarlyStopping):
        assert len({len(history.epoch) for history in histories}) > 1, "all stopped at once"


def stopper(**arguments):
    return lambda: callbacks.EarlyStopping(**{"monitor": "val_loss", "patience": 2} | arguments)


class Stopper(callbacks.EarlyStopping):
    """Somebody's own: fit_many must ask it."""

    model_access = "read"

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)


STOPPERS = {
    "of the loss": stopper(monitor="loss"),
    "restoring": stopper(restore_best_weights=True),
    "restoring, of the loss": stopper(monitor="loss", restore_best_weights=True),
    "at once": stopper(patience=0),
    "upwards": stopper(mode="max", restore_best_weights=True),
    "by steps": stopper(min_delta=0.03, restore_best_weights=True),
    "below a baseline": stopper(patience=3, baseline=0.3, restore_best_weights=True),
    "later": stopper(start_from_epoch=4, restore_best_weights=True),
    "never": stopper(patience=10**400, restore_best_weights=True),
    "of a metric": stopper(monitor="val_accuracy", restore_best_weights=True),
    "of one's own": lambda: Stopper("val_loss", patience=2, restore_best_weights=True),
}
OF_KERNELS = [name for name in STOPPERS if name not in ("of a metric", "of one's own")]
NAMES = ("best", "best_epoch", "wait", "stopped_epoch")


@pytest.mark.parametrize("pause", [0.05, 1e-9, 1e9])
@pytest.mark.parametrize("measured", [None, ["accuracy"]])
@pytest.mark.parametrize("name", STOPPERS)
def test_models_end_early_as_by_fit(name, measured, pause, monkeypatch):
    """In the kernels, if they can; in epochs of several calls, none can."""
    if name == "of a metric" and measured is None:
        pytest.skip("there is no metric")
    monkeypatch.setattr(many, "PAUSE", pause)
    makes = [lambda i=i: network(Adam(0.2 * (1 + i)), seed=i, metrics=measured) for i in range(5)]
    own, others = [[STOPPERS[name]() for _ in makes] for _ in range(2)]
    asked = []
    if name in OF_KERNELS:
        hook = callbacks.EarlyStopping.on_epoch_end

        def on_epoch_end(self, epoch, logs=None):
            asked.append(self)
            hook(self, epoch, logs)

        monkeypatch.setattr(callbacks.EarlyStopping, "on_epoch_end", on_epoch_end)
    _, histories = compared(
        makes,
        epochs=12,
        callbacks=[[each] for each in own],
        alone=lambda i: {"callbacks": others[i], **PART},
        **PART,
    )
    epochs = [len(history.epoch) for history in histories]
    assert max(epochs) < 12 if name == "upwards" else len(set(epochs)) > (name != "never")
    if name in OF_KERNELS and pause != 1e-9:
        assert not set(asked) & set(own)
    for one, other in zip(own, others, strict=True):
        values = [[getattr(each, n) for n in NAMES] for each in (one, other)]
        assert values[0] == pytest.approx(values[1], rel=1e-9)
        assert one.model.stop_training == other.model.stop_training
        assert (one.best_weights is None) == (other.best_weights is None)
        for tensor in (one.best_weights or {}).items():
            np.testing.assert_allclose(tensor[1], other.best_weights[tensor[0]], 1e-9, 1e-9)


def test_some_end_early_and_others_do_not():
    own = [
        [callbacks.EarlyStopping("val_loss", restore_best_weights=True)],
        [],
        [callbacks.EarlyStopping("loss", patience=1), callbacks.TerminateOnNaN()],
        [callbacks.EarlyStopping("loss", patience=1)],
    ]
    for some in ([0, 1, 3], [0, 1, 2, 3]):  # the third must be asked, and so are all
        compared(
            [lambda i=i: network(Adam(0.8), seed=i) for i in some],
            epochs=9,
            callbacks=[copy.deepcopy(own[i]) for i in some],
            alone=lambda place, some=some: {"callbacks": copy.deepcopy(own[some[place]]), **PART},
            **PART,
        )


def test_what_was_nan_from_the_beginning_is_restored():
    def model(seed):
        made = network(seed=seed)
        with torch.no_grad():
            next(made.parameters())[0, 0] = np.nan
        return made

    stopping = callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
    other, alone = model(0), copy.copy(stopping)
    models = [model(0), model(1)]
    with pytest.warns(InvalidLossWarning):
        histories = fit_many(models, X, Y, epochs=9, verbose=0, callbacks=[[stopping], []])
    assert [len(history.epoch) for history in histories] == [2, 9]
    assert (stopping.best, stopping.best_epoch) == (None, 0)
    with pytest.warns(InvalidLossWarning):
        other.fit(X, Y, epochs=9, verbose=0, callbacks=alone)
    assert (alone.best_epoch, other.history.epoch) == (0, [0, 1])
    for one, two in zip(models[0].get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("at", [2, 5])
def test_ctrl_c_restores_what_was_best(at, monkeypatch):
    monkeypatch.setattr(many, "PAUSE", 1e-5)
    stopping = callbacks.EarlyStopping("loss", patience=50, restore_best_weights=True)
    model = network(SGD(0.1))
    pressed(monkeypatch, at)
    with pytest.raises(KeyboardInterrupt):
        fit_many([model], X, Y, epochs=50, verbose=0, callbacks=[[stopping]])
    assert 0 < len(model.history.epoch) < 50
    assert stopping.best == min(model.history.history["loss"])
    for name, value in model.state_dict().items():
        assert torch.equal(value, stopping.best_weights[name])


def test_files_of_each(tmp_path):
    def written(i, folder):
        (tmp_path / folder).mkdir(exist_ok=True)
        best = {"monitor": "loss", "save_best_only": True}
        checkpoint = callbacks.ModelCheckpoint(tmp_path / folder / f"{i}.keras", **best)
        return [callbacks.CSVLogger(tmp_path / folder / f"{i}.csv"), checkpoint]

    compared(
        numbered(2),
        callbacks=[written(i, "many") for i in range(2)],
        alone=lambda i: {"callbacks": written(i, "fit")},
    )
    assert len(list((tmp_path / "many").iterdir())) == 4
    for i in range(2):
        one, other = (
            np.genfromtxt(tmp_path / folder / f"{i}.csv", delimiter=",", names=True)["loss"]
            for folder in ("many", "fit")
        )
        np.testing.assert_allclose(one, other, 1e-9)


class Diary(Callback):
    """Writes down what it is told, and what it finds then."""

    model_access = "read"

    def __init__(self):
        self.told = []

    def write(self, hook, logs, *more):
        model, rounded = self.model, {name: round(value, 9) for name, value in logs.items()}
        counts = model.optimizer.iterations, model.epochs_trained, len(model.history.epoch)
        weight = round(model.layers[0].weight.sum().item(), 9)
        self.told.append((hook, *more, rounded, self.params, model.training, counts, weight))

    def on_train_begin(self, logs=None):
        self.write("train begin", logs)

    def on_train_end(self, logs=None):
        self.write("train end", logs)

    def on_epoch_begin(self, epoch, logs=None):
        self.write("epoch begin", logs, epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.write("epoch end", logs, epoch)
        logs["mine"] = epoch
        self.model.stop_training = epoch == 2


def test_callbacks_are_told_what_fit_tells_them():
    diaries, others = [Diary() for _ in range(3)], [Diary() for _ in range(3)]
    _, histories = compared(
        numbered(3, metrics=["accuracy"]),
        epochs=9,
        callbacks=[[diary] for diary in diaries],
        alone=lambda i: {"callbacks": others[i], **PART},
        **PART,
    )
    assert [diary.told for diary in diaries] == [other.told for other in others]
    assert histories[0].history["mine"] == [0, 1, 2]


def test_a_callback_is_copied_without_the_model_of_an_earlier_fit(monkeypatch):
    stopping, earlier = callbacks.EarlyStopping("loss"), network()
    earlier.fit(X, Y, epochs=1, verbose=0, callbacks=stopping)
    models = [make() for make in numbered(3)]
    monkeypatch.setattr(Sequential, "__deepcopy__", None, raising=False)  # an error if called
    fit_many(models, X, Y, epochs=1, verbose=0, callbacks=stopping)
    assert stopping.model is earlier


def test_a_schedule_by_a_callback():
    schedule = callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9)
    _, histories = compared(
        numbered(2),
        callbacks=schedule,
        alone=lambda i: {"callbacks": copy.deepcopy(schedule)},
    )
    assert histories[0].history["learning_rate"] == pytest.approx([0.09, 0.081, 0.0729])


# ---- through fit ----


class Own(Model):
    def __init__(self):
        super().__init__()
        self.dense = Dense(1, "sigmoid", in_features=4)

    def forward(self, x):
        return self.dense(x)


class OwnDense(Dense):
    pass


def own_model():
    set_random_seed(1)
    model = Own().double()
    model.compile(SGD(0.1), "bce")
    set_random_seed(7)
    return model


def frozen():
    model = network()
    model.layers[0].trainable = False
    return model


BY_THEMSELVES = {
    "autograd": (lambda: network(engine="autograd"), "compile asked for autograd"),
    "a forward": (own_model, "Own has a forward of its own"),
    "a layer": (lambda: made(lambda: OwnDense(1, "sigmoid")), "layer 1 is a OwnDense, which"),
    "frozen": (frozen, "a parameter is frozen"),
    "a loss": (lambda: network(loss=lambda y, p: (y - p).abs().mean(-1)), ""),
    "amsgrad": (lambda: network(Adam(amsgrad=True)), ""),
    "averages": (lambda: network(Adam(use_ema=True, ema_overwrite_frequency=2)), ""),
}


@pytest.mark.parametrize("name", BY_THEMSELVES)
def test_what_the_kernels_cannot_train_goes_through_fit(name):
    make, reason = BY_THEMSELVES[name]
    models, histories = compared(
        [make, network],
        rows=FOLDS[:2],
        validation_rows=REST[:2],
        engine=None,
        alone=lambda i: {
            "x": X[FOLDS[i]],
            "y": Y[FOLDS[i]],
            "validation_data": (X[REST[i]], Y[REST[i]]),
        },
    )
    assert histories[0].engine.startswith(f"through fit, since {reason}")
    assert histories[1].engine == TOGETHER
    alone = make()
    alone.fit(X[FOLDS[0]], Y[FOLDS[0]], 8, 3, verbose=0)
    assert state(alone) == state(models[0])


def drawing(seed, rate=0.5, has_input=True):
    """What draws from PyTorch's generator."""
    set_random_seed(seed)
    front = [layers.Input((4,))] if has_input else []
    chain = [Dense(6, "relu"), Dropout(rate), layers.GaussianNoise(0.1), Dense(1, "sigmoid")]
    model = Sequential([*front, *chain]).double()
    model.compile(SGD(0.1), "bce", engine="autograd")
    set_random_seed(7)
    return model


def test_what_draws_does_not_depend_on_neighbours():
    arguments = {"epochs": 3, "batch_size": 8, "verbose": 0}
    models = [network(), drawing(0), drawing(1, has_input=False), drawing(2)]
    before = torch.get_rng_state()
    fit_many([network(), drawing(0), drawing(2)], X, Y, **arguments)
    assert torch.equal(torch.get_rng_state(), before)
    fit_many(models, X, Y, **arguments)
    for seed, has_input in ((0, True), (1, False), (2, True)):
        alone = drawing(seed, has_input=has_input)
        alone.fit(X, Y, 8, 3, verbose=0)
        assert state(alone) == state(models[seed + 1])


def test_what_draws_goes_on_where_it_paused():
    arguments = {"batch_size": 8, "verbose": 0}
    paused, other = drawing(0), drawing(1)
    for epochs in (1, 2):
        torch.rand(3)
        fit_many([other, copy.deepcopy(other), paused][-epochs:], X, Y, epochs=epochs, **arguments)
    whole = drawing(0)
    torch.rand(3)
    fit_many([whole], X, Y, epochs=3, **arguments)
    assert state(paused) == state(whole)


def test_an_error_in_what_draws_leaves_the_generator_and_loses_no_noise():
    models, before = [drawing(0), drawing(0)], torch.get_rng_state()
    failing = LambdaCallback(on_epoch_end=lambda epoch, logs: 1 / (1 - epoch))
    arguments = {"batch_size": 8, "verbose": 0}
    with pytest.raises(ZeroDivisionError):
        fit_many(models[:1], X, Y, epochs=5, callbacks=failing, **arguments)
    assert torch.equal(torch.get_rng_state(), before)
    fit_many(models[:1], X, Y, epochs=3, **arguments)
    fit_many(models[1:], X, Y, epochs=5, **arguments)
    assert models[0].epochs_trained == 5
    assert state(models[0]) == state(models[1])


def test_what_draws_goes_on_by_a_seed_of_its_own():
    def train(seed):
        model = drawing(0)
        model._order_seed = 4
        model.fit(X, Y, 8, 1, verbose=0)
        torch.manual_seed(0)
        model.epochs_trained = 1
        torch.manual_seed(seed)
        fit_many([model], X, Y, epochs=2, batch_size=8, verbose=0)
        return state(model)

    assert train(1) == train(2)


def test_several_threads_draw_by_turns():
    def train(models):
        fit_many(models, X, Y, epochs=20, batch_size=4, verbose=0)

    expected, found = ([drawing(i) for i in range(4)] for _ in range(2))
    for i, model in enumerate([*expected, *found]):
        model._order_seed = i % 4  # as a sweep gives it
    train(expected)
    threads = [threading.Thread(target=train, args=([each],)) for each in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(map(state, found)) == list(map(state, expected))


HEARD = {
    "on_epoch_end": "the callback LambdaCallback may change the model",
    "on_train_begin": "the callback LambdaCallback may change the model",
    "on_train_batch_end": "the callback LambdaCallback comes between the steps of an epoch",
}


@pytest.mark.parametrize("hook", HEARD)
def test_callbacks_that_may_change_the_model_go_through_fit(hook):
    def halving(model):
        def halve(*arguments):
            with torch.no_grad():
                model.layers[0].weight *= 0.5
            model.optimizer.momentum = 0.9
            model.layers[-1].weight.requires_grad_(False)

        return [LambdaCallback(**{hook: halve})]

    models = [make() for make in numbered(2)]
    lists = [halving(models[0]), []]
    histories = fit_many(models, X, Y, epochs=2, batch_size=8, callbacks=lists, verbose=0)
    assert histories[0].engine.startswith(f"through fit, since {HEARD[hook]}")
    assert histories[1].engine == TOGETHER
    alone = network()
    alone.fit(X, Y, 8, 2, verbose=0, callbacks=halving(alone))
    assert state(alone) == state(models[0])


# ---- fits before and after ----


@pytest.mark.parametrize("order", ["fit, fit_many", "fit_many, fit", "fit_many, fit_many"])
def test_fits_go_on_from_each_other(order):
    makes = [lambda i=i: network(Adam(0.05), seed=i) for i in range(3)]
    models = [make() for make in makes]
    histories = [[] for _ in models]
    for method in order.split(", "):
        if method == "fit_many":
            found = fit_many(models, X, Y, epochs=2, batch_size=8, verbose=0)
        else:
            found = [model.fit(X, Y, 8, 2, verbose=0) for model in models]
        for own, history in zip(histories, found, strict=True):
            own += history.history["loss"]
    for model, make, history in zip(models, makes, histories, strict=True):
        alone = make()
        np.testing.assert_allclose(alone.fit(X, Y, 8, 4, verbose=0).history["loss"], history, 1e-9)
        assert model.epochs_trained == 4
        for one, other in zip(model.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, 1e-9, 1e-12)


class CallbackError(Exception):
    pass


class Failing(Callback):
    """Fails in a hook, if it is the model's of that number."""

    model_access = "none"

    def __init__(self, number, hook):
        self.fails = hook if number == 1 else None

    def fail(self, hook, at=2):
        if hook == self.fails and at == 2:
            raise CallbackError

    def on_epoch_begin(self, epoch, logs=None):
        self.fail("on_epoch_begin", epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.fail("on_epoch_end", epoch)

    def on_train_end(self, logs=None):
        self.fail("on_train_end")


@pytest.mark.parametrize(
    ("hook", "epochs"), [("on_epoch_begin", 2), ("on_epoch_end", 3), ("on_train_end", 5)]
)
def test_a_failing_callback_leaves_all_models_whole(hook, epochs):
    makes = numbered(3)
    models, ended = [make() for make in makes], []
    lists = [
        [Failing(i, hook), LambdaCallback(on_train_end=lambda logs, i=i: ended.append(i))]
        for i in range(3)
    ]
    with pytest.raises(CallbackError):
        fit_many(models, X, Y, epochs=5, batch_size=8, callbacks=lists, verbose=0)
    assert sorted(ended) == [0, 2] if hook == "on_train_end" else [0, 1, 2]
    assert_counted(makes, models, epochs)


def assert_counted(makes, models, epochs):
    """So many epochs have been trained, and the next fit goes on there."""
    for model, make in zip(models, makes, strict=True):
        assert model.epochs_trained == epochs == len(model.history.epoch)
        assert model.optimizer.iterations == 8 * epochs
        assert len(model.history.history["loss"]) == epochs
        model.fit(X, Y, 8, 1, verbose=0)
        alone = make()
        alone.fit(X, Y, 8, epochs + 1, verbose=0)
        for one, other in zip(model.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, 1e-9, 1e-12)


def test_a_failing_metric_loses_no_epochs():
    calls = []

    def failing(y_true, y_pred):
        calls.append(1)
        if len(calls) == 30:
            raise CallbackError
        return y_pred

    models = [network(seed=i, metrics=[failing]) for i in range(3)]
    with pytest.raises(CallbackError):
        fit_many(models, X, Y, epochs=50, batch_size=8, verbose=0)
    assert models[0].epochs_trained > 0
    assert_counted(
        numbered(3, metrics=[lambda y_true, y_pred: y_pred]), models, models[0].epochs_trained
    )


# ---- Ctrl-C ----


def pressed(monkeypatch, at):
    """Presses Ctrl-C during the native call of that number."""
    train, calls = many.ops.train_many_, []

    def interrupted(job):
        calls.append(job)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return train(job)

    monkeypatch.setattr(many.ops, "train_many_", interrupted)


@pytest.mark.parametrize("measured", [None, ["accuracy", "mae"]])
@pytest.mark.parametrize("at", [1, 5, 8, 9, 20])
def test_ctrl_c_in_the_middle_of_an_epoch_loses_nothing(at, measured, monkeypatch):
    makes = numbered(3, metrics=measured)
    models = [make() for make in makes]
    with monkeypatch.context() as patch:
        patch.setattr(many, "PAUSE", 1e-9)  # a call a batch
        pressed(patch, at)
        with pytest.raises(KeyboardInterrupt):
            fit_many(models, X, Y, epochs=5, batch_size=8, verbose=0)
    steps = models[0].optimizer.iterations
    assert 0 < steps <= at
    for model, make in zip(models, makes, strict=True):
        place, first = model.optimizer.place, model.history
        assert model.optimizer.iterations == 8 * place.epochs + place.batches == steps
        assert first.epoch == list(range(place.epochs))
        second = model.fit(X, Y, 8, 2, verbose=0)
        alone = make()
        expected = alone.fit(X, Y, 8, model.epochs_trained, verbose=0)
        for name, values in expected.history.items():
            found = first.history.get(name, []) + second.history[name]
            np.testing.assert_allclose(found, values, 1e-9, err_msg=name)
        for one, other in zip(model.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, 1e-9, 1e-12)


def test_an_interrupted_epoch_comes_first(monkeypatch):
    makes = numbered(3)
    models = [make() for make in makes]
    with monkeypatch.context() as patch:
        patch.setattr(many, "PAUSE", 1e-9)
        pressed(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            fit_many(models, X, Y, epochs=5, batch_size=8, verbose=0)
    histories = fit_many(models, X, Y, epochs=2, batch_size=8, verbose=0)
    reason = "through fit, since an epoch that was interrupted comes first"
    assert [history.engine for history in histories] == [reason] * 3
    for model, make in zip(models, makes, strict=True):
        alone = make()
        alone.fit(X, Y, 8, 2, verbose=0)
        assert model.epochs_trained == 2
        for one, other in zip(model.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, 1e-9, 1e-12)


def test_a_real_ctrl_c():
    models = [network(Adam(0.01), widths=(16, 16), seed=i) for i in range(9)]
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        fit_many(models, X, Y, epochs=10**6, batch_size=8, verbose=0)
    timer.join()
    for model in models:
        place = model.optimizer.place
        assert model.optimizer.iterations == 8 * place.epochs + place.batches
        assert model.history.epoch == list(range(place.epochs))
        assert np.isfinite(model.fit(X, Y, 8, 1, verbose=0).history["loss"]).all()


# ---- losses that are no numbers ----


def test_nan_in_one_model_is_told_once_and_stays_there():
    def descending(i):
        rate = 1e200 if i in (1, 3) else 0.1
        return network(SGD(rate), "mse", last=None, seed=i, dtype=torch.float32)

    models = [descending(i) for i in range(5)]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        histories = fit_many(models, X, Y, epochs=4, batch_size=8, verbose=0)
    (warning,) = found
    assert warning.category is InvalidLossWarning
    assert warning.filename == __file__
    said = r"the losses of models became NaN or infinite, of 2 in 5: that of models\[1\] became"
    assert re.match(said, str(warning.message))
    assert not np.isfinite(histories[1].history["loss"]).all()
    for i in (0, 2, 4):
        alone = descending(i)
        fit_many([alone], X, Y, epochs=4, batch_size=8, verbose=0)
        assert state(alone) == state(models[i])


def test_a_warning_that_is_made_an_error_loses_no_epochs():
    models = [network(SGD(rate), "mse", last=None) for rate in (1e200, 0.1)]
    with pytest.raises(InvalidLossWarning):  # as pytest makes all of them
        fit_many(models, X, Y, epochs=4, batch_size=8, verbose=0)
    assert [model.epochs_trained for model in models] == [4, 4]


def test_terminate_on_nan_stops_that_model_alone():
    models = [network(SGD(rate), "mse", last=None) for rate in (1e200, 0.1)]
    with pytest.warns(InvalidLossWarning):
        fit_many(
            *(models, X, Y),
            epochs=4,
            batch_size=8,
            verbose=0,
            callbacks=callbacks.TerminateOnNaN(),
        )
    assert [model.epochs_trained for model in models] == [1, 4]


# ---- what is wrong is told before any work ----


def shared_optimizer():
    models, optimizer = [make() for make in numbered(2)], SGD(0.1)
    for model in models:
        model.compile(optimizer, "bce")
    return {"models": models}


def shared_parameter():
    one, other, third = (make() for make in numbered(3))
    third.layers[0].weight = one.layers[0].weight
    return {"models": [one, other, third]}


def same_model():
    model = network()
    return {"models": [model, network(), model]}


def same_callback():
    stopping = callbacks.EarlyStopping("loss")
    return {"callbacks": [[stopping], [], [stopping]]}


def same_file():
    names = ("a.csv", "b.csv", os.path.abspath("a.csv"))
    return {"callbacks": [[callbacks.CSVLogger(name)] for name in names]}


@pytest.mark.parametrize(
    "make",
    [
        callbacks.CSVLogger,
        callbacks.ModelCheckpoint,
        callbacks.TensorBoard,
        callbacks.BackupAndRestore,
    ],
)
def test_models_do_not_overwrite_each_others_files(make, tmp_path):
    def lists(*names):
        return [[make(tmp_path / name)] for name in names]

    models = [network(), network(seed=1)]
    arguments = {"epochs": 1, "verbose": 0}
    with pytest.raises(ValueError, match=f"would write into one file.*{make.__name__} a name"):
        fit_many(models, X, Y, callbacks=lists("a.keras", "a.keras"), **arguments)
    assert not any(tmp_path.iterdir())
    if make is not callbacks.TensorBoard:  # which needs its package
        fit_many(models, X, Y, callbacks=lists("a.keras", "b.keras"), **arguments)


WRONG = {
    "one model": (lambda: {"models": network()}, TypeError, "models must be a list of models"),
    "no model": (lambda: {"models": [network(), 3]}, TypeError, r"models\[1\] must be a torchnn"),
    "not compiled": (
        lambda: {"models": [Sequential([Dense(1)])]},
        ValueError,
        "needs a compiled model",
    ),
    "same model": (same_model, ValueError, r"models\[0\] and models\[2\] are the same model"),
    "same optimizer": (shared_optimizer, ValueError, r"models\[0\] and models\[1\] have the same"),
    "parameter": (shared_parameter, ValueError, r"models\[0\] and models\[2\] share a parameter"),
    "epochs": (lambda: {"epochs": -1}, ValueError, "epochs must be a non-negative integer"),
    "epochs of some": (lambda: {"epochs": [1, 2]}, ValueError, "epochs must be one for all or one"),
    "batch_size": (lambda: {"batch_size": 0}, ValueError, "batch_size must be a positive integer"),
    "a batch_size": (lambda: {"batch_size": [1, 2, "3"]}, TypeError, "batch_size must be"),
    "x of some": (lambda: {"x": [X, X]}, ValueError, "x must be one array, or a list of one for"),
    "a loader": (lambda: {"x": DataLoader([1])}, TypeError, "x must be an array, got DataLoader"),
    "x too wide": (lambda: {"x": X[:, :3]}, ValueError, "x must have 4 features"),
    "y of some": (lambda: {"y": [Y, Y]}, ValueError, "y must be one array, or a list of one for"),
    "no y": (lambda: {"y": None}, ValueError, "y must be given for .*, got None$"),
    "no y of one": (
        lambda: {"y": [Y, None, Y]},
        ValueError,
        r"y must be given for models\[1\], got None$",
    ),
    "y too short": (lambda: {"y": [Y, Y, Y[:5]]}, ValueError, "y must have as many rows as x"),
    "y too wide": (lambda: {"y": np.ones((60, 2))}, ValueError, r"y has shape \(N, 2\), which"),
    "rows of some": (lambda: {"rows": FOLDS[:2]}, ValueError, "rows must hold row numbers for"),
    "rows": (lambda: {"rows": [[0, 60]] * 3}, ValueError, r"rows\[0\] must be from 0 to 59"),
    "negative rows": (lambda: {"rows": [[0], [-1], [1]]}, ValueError, r"rows\[1\] must be from 0"),
    "no rows": (
        lambda: {"rows": [np.zeros(60, bool)] * 3},
        ValueError,
        r"rows\[0\] must hold at least one",
    ),
    "empty rows": (
        lambda: {"rows": [[0], [], [0]]},
        ValueError,
        r"rows\[1\] must hold at least one row",
    ),
    "a short mask": (
        lambda: {"rows": [np.ones(59, bool)] * 3},
        ValueError,
        r"rows\[0\] must have as many",
    ),
    "no numbers": (lambda: {"rows": [[0.5]] * 3}, ValueError, r"rows\[0\] must be row numbers"),
    "two validations": (
        lambda: {"validation_rows": REST, "validation_data": (X, Y)},
        *(ValueError, "validation_rows and validation_data were both given"),
    ),
    "validation_rows": (
        lambda: {"validation_rows": [[60]] * 3},
        ValueError,
        r"validation_rows\[0\] must be from",
    ),
    "validation_data": (lambda: {"validation_data": X}, ValueError, "validation_data must be"),
    "validation_data of some": (
        lambda: {"validation_data": [(X, Y)] * 2},
        ValueError,
        "validation_data must be one tuple",
    ),
    "validation_data of one": (
        lambda: {"validation_data": [(X, Y), None, (X, Y)]},
        ValueError,
        r"validation_data\[1\] must be \(x, y\) or \(x, y, sample_weight\), got None$",
    ),
    "parts of validation_data": (
        lambda: {"validation_data": (X, Y, None, None)},
        ValueError,
        "validation_data must be .*, got 4 of them$",
    ),
    "validation too wide": (
        lambda: {"validation_data": (X[:, :2], Y)},
        ValueError,
        "x of validation_data must have 4",
    ),
    "sample_weight": (
        lambda: {"sample_weight": WEIGHTS[:5]},
        ValueError,
        "sample_weight must have as many",
    ),
    "class_weight": (
        lambda: {"class_weight": [{0: 1}] * 2},
        ValueError,
        "class_weight must be one for all",
    ),
    "callbacks": (lambda: {"callbacks": "x"}, TypeError, "callbacks must hold torchnn.callbacks"),
    "a number": (
        lambda: {"callbacks": [3]},
        TypeError,
        "callbacks must hold torchnn.callbacks.Callback, got 3",
    ),
    "a class": (lambda: {"callbacks": Diary}, TypeError, "callbacks must hold instances"),
    "callbacks of some": (
        lambda: {"callbacks": [[], []]},
        ValueError,
        "callbacks must be those of all models",
    ),
    "same callback": (same_callback, ValueError, r"callbacks\[0\] and callbacks\[2\] hold the"),
    "one file": (
        lambda: {"callbacks": callbacks.CSVLogger("a.csv")},
        ValueError,
        "would write into one file",
    ),
    "one file of two": (
        same_file,
        ValueError,
        r"callbacks\[0\] and callbacks\[2\] would write.*a.csv",
    ),
    "shuffle": (lambda: {"shuffle": "yes"}, TypeError, "shuffle must be True or False"),
    "verbose": (lambda: {"verbose": 7}, ValueError, "verbose must be"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_before_any_work(name):
    wrong, error, said = WRONG[name]
    good = {"models": [make() for make in numbered(3)], "x": X, "y": Y, "epochs": 1, "verbose": 0}
    arguments = good | wrong()
    models = arguments["models"]
    compiled = [m for m in models if getattr(m, "optimizer", None)] if type(models) is list else []
    before = [[p.tolist() for p in model.parameters()] for model in compiled]
    with pytest.raises(error, match=said):
        fit_many(**arguments)
    assert [[p.tolist() for p in model.parameters()] for model in compiled] == before
    assert all(model.epochs_trained == 0 and model.history is None for model in compiled)


def test_labels_that_no_output_has_are_told_before_any_work():
    makes = numbered(2, loss="sparse_categorical_crossentropy", units=3, last="softmax")
    with pytest.raises(ValueError, match="y must hold class numbers from 0 to 2, got 3 at row 0"):
        fit_many([make() for make in makes], X, np.full(60, 3), epochs=1)


@pytest.mark.parametrize("engine", ["auto", "autograd"])
def test_a_model_that_another_thread_fits(engine):
    busy, others = network(engine=engine), [network(), network(engine="autograd")]
    begun, may_end = threading.Event(), threading.Event()

    def wait(epoch, logs):
        begun.set()
        may_end.wait(10)

    fit = threading.Thread(
        target=lambda: busy.fit(X, Y, verbose=0, callbacks=LambdaCallback(on_epoch_begin=wait))
    )
    fit.start()
    begun.wait(10)
    try:
        with pytest.raises(RuntimeError, match="fit is at work on this model"):
            fit_many([*others, busy], X, Y, epochs=1, verbose=0)
    finally:
        may_end.set()
        fit.join()
    assert [model.epochs_trained for model in others] == [0, 0]


# ---- what is shown and kept ----


@pytest.mark.parametrize("verbose", [1, 2, "auto"])
def test_a_line_tells_how_many_and_the_best(verbose, capsys):
    models = [make() for make in numbered(3)] + [network(engine="autograd")]
    histories = fit_many(models, X, Y, epochs=2, batch_size=8, verbose=verbose)
    (line,) = capsys.readouterr().out.splitlines()
    best = min(min(history.history["loss"]) for history in histories[:3])
    assert re.match(r"Models 4/4 +[\d,]+ steps/s .* best loss: ([\d.]+)$", line)
    assert float(line.rpartition(" ")[2]) == pytest.approx(best, abs=1e-4)


def test_nothing_is_shown(capsys):
    assert fit_many([], X, Y, epochs=3, verbose=0) == []
    fit_many([network()], X, Y, epochs=2, verbose=0)
    assert capsys.readouterr().out == ""


def test_samples_are_prepared_once_and_not_kept(monkeypatch):
    found, prepare = [], many.Many.prepared

    def watched(self, member, rows):
        samples = prepare(self, member, rows)
        found.append(weakref.ref(samples))
        assert samples is found[0]()
        return samples

    monkeypatch.setattr(many.Many, "prepared", watched)
    models = [network(widths=(2,), seed=i) for i in range(50)]
    fit_many(models, X, Y, epochs=1, verbose=0)
    gc.collect()
    assert len(found) == 50
    assert found[0]() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_models_train_in_a_process_that_is_forked_off_while_others_draw():
    script = """
import os, signal, threading, numpy as np
from torchnn import Sequential, fit_many
from torchnn.layers import Dense, GaussianNoise, Input
from torchnn.callbacks import LambdaCallback

x, y = np.ones((8, 3), np.float32), np.ones((8, 1), np.float32)

def train(*callbacks):
    model = Sequential([Input((3,)), GaussianNoise(0.1), Dense(1)])
    model.compile("adam", "mse")
    model._order_seed = 3  # as a sweep gives it
    fit_many([model], x, y, epochs=1, verbose=0, callbacks=[list(callbacks)])

begun, stop = threading.Event(), threading.Event()
wait = LambdaCallback(on_epoch_end=lambda *_: (begun.set(), stop.wait(60)))
thread = threading.Thread(target=train, args=(wait,))
thread.start()
begun.wait(60)
child = os.fork()
if child == 0:
    signal.alarm(30)
    train()
    os._exit(0)
print(os.waitpid(child, 0)[1])
stop.set()
thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr
