"""Callbacks that stop fit, steer it and keep its history."""

import copy
import functools
import linecache
import math
import re

import pytest
import torch

from torchnn import optimizers
from torchnn.callbacks import (
    Callback,
    EarlyStopping,
    History,
    LambdaCallback,
    LearningRateScheduler,
    TerminateOnNaN,
)
from torchnn.callbacks._base import CallbackList
from torchnn.layers import Dense
from torchnn.sequential import Sequential

VAL_ACCURACY = [EarlyStopping("val_accuracy")]
NOT_MEASURED = "is not in compile's metrics, and no callback before this one adds it"


class FakeModel(torch.nn.Linear):
    """A model that counts its epochs in its weight."""

    def __init__(self):
        super().__init__(1, 1)
        self.stop_training = False
        self.optimizer = optimizers.SGD(0.5)


def stopped_after(callback, values, name="val_loss"):
    """The number of epochs that a fit with these values has, and its model."""
    model = FakeModel()
    callback.set_model(model)
    callback.on_train_begin()
    epochs = 0
    for epoch, value in enumerate(values):
        epochs += 1
        with torch.no_grad():
            model.weight.fill_(epoch)
        callback.on_epoch_end(epoch, {name: value})
        if model.stop_training:
            break
    callback.on_train_end()
    return epochs, model


@pytest.mark.parametrize(
    ("values", "options", "epochs"),
    [
        ([3, 2, 1, 0], {}, 4),
        ([3, 2, 2, 1], {}, 3),
        ([3, 2, 2, 1], {"patience": 1}, 3),
        ([3, 2, 2, 1, 1, 1, 0], {"patience": 2}, 6),
        ([3, 2.6, 2.2, 1.8], {"min_delta": 0.5}, 2),
        ([3, 2.6, 2.2, 1.8], {"min_delta": 0.5, "patience": 2}, 4),
        ([3, 2.6, 2.2, 1.8], {"min_delta": -0.5}, 2),
        ([1, 2, 3], {"mode": "max"}, 3),
        ([3, 2, 1], {"mode": "max"}, 2),
        ([5, 5, 5, 4, 3], {"start_from_epoch": 2}, 5),
        ([5, 5, 5, 5, 4], {"start_from_epoch": 2}, 4),
        ([9, 8, 7, 6, 5, 5], {"baseline": 1, "patience": 3}, 6),
        ([9, 8, 7, 7, 5], {"baseline": 1, "patience": 3}, 4),
        ([9, 0.5, 7, 7, 7, 5], {"baseline": 1, "patience": 3}, 5),
        ([math.nan] * 4, {"patience": 3}, 3),
        ([2, math.nan, 1, math.nan, math.nan, 0], {"patience": 2}, 5),
    ],
)
def test_early_stopping_stops_after(values, options, epochs):
    assert stopped_after(EarlyStopping(**options), values)[0] == epochs


@pytest.mark.parametrize(
    "name", ["accuracy", "val_accuracy", "val_acc", "val_auc", "val_BinaryAUROC"]
)
def test_early_stopping_knows_what_should_rise(name):
    assert stopped_after(EarlyStopping(name), [0.5, 0.6, 0.7, 0.6], name)[0] == 4
    assert stopped_after(EarlyStopping(name), [0.5, 0.4, 0.3, 0.2], name)[0] == 2


def test_early_stopping_restores_the_best_weights():
    values = [3, 1, 2, 2, 0]
    callback = EarlyStopping(patience=2, restore_best_weights=True)
    epochs, model = stopped_after(callback, values)
    assert (epochs, callback.best_epoch, callback.stopped_epoch) == (4, 1, 3)
    assert model.weight.item() == 1
    _, model = stopped_after(EarlyStopping(patience=2), values)
    assert model.weight.item() == 3


def test_early_stopping_restores_also_after_the_last_epoch():
    _, model = stopped_after(EarlyStopping(patience=9, restore_best_weights=True), [3, 1, 2])
    assert model.weight.item() == 1


def test_early_stopping_restores_the_first_weights_if_all_is_nan():
    callback = EarlyStopping(patience=2, restore_best_weights=True)
    _, model = stopped_after(callback, [math.nan] * 3)
    assert model.weight.item() == 0


def test_early_stopping_keeps_the_parameters_where_they_are():
    callback = EarlyStopping(restore_best_weights=True)
    model = FakeModel()
    weight = model.weight
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_end(0, {"val_loss": 1})
    callback.on_train_end()
    assert model.weight is weight


def test_early_stopping_forgets_between_fits():
    callback = EarlyStopping()
    assert stopped_after(callback, [1, 2])[0] == 2
    assert stopped_after(callback, [9, 8, 7])[0] == 3


@pytest.mark.parametrize("after", range(5))
def test_early_stopping_goes_on_from_a_state_dict(after):
    values = [3, 1, 2, 2, 0]
    first, second = (EarlyStopping(patience=2, restore_best_weights=True) for _ in range(2))
    stopped_after(first, values[:after])
    model = FakeModel()
    second.set_model(model)
    second.on_train_begin()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for epoch, value in enumerate(values[after:4], after):
        with torch.no_grad():
            model.weight.fill_(epoch)
        second.on_epoch_end(epoch, {"val_loss": value})
    second.on_train_end()
    assert (second.best, second.best_epoch, second.wait, second.stopped_epoch) == (1, 1, 2, 3)
    assert model.weight.item() == 1


def test_early_stopping_says_when_it_stopped(capsys):
    stopped_after(EarlyStopping(verbose=1, restore_best_weights=True), [1, 2])
    assert capsys.readouterr().out == (
        "Epoch 2: early stopping\nRestoring the weights of the best epoch: 1\n"
    )


def test_early_stopping_warns_once_of_a_value_that_is_not_there():
    with pytest.warns(UserWarning, match="cannot see 'val_loss'.*validation_data") as caught:
        epochs, _ = stopped_after(EarlyStopping(), [3, 3, 3], name="loss")
    assert epochs == 3
    assert len(caught) == 1
    assert str(caught[0].message).endswith("Available: loss")


@pytest.mark.parametrize(
    ("monitor", "logs", "message"),
    [
        ("val_loss", {"loss": 3}, ": pass validation_data to fit. Available: loss"),
        (
            "val_accuracy",
            {"loss": 3, "val_loss": 3},
            f": accuracy {NOT_MEASURED}. Available: loss, val_loss",
        ),
        ("accuracy", {"loss": 3}, f": accuracy {NOT_MEASURED}. Available: loss"),
        ("val_accuracy", {"accuracy": 1, "val_loss": 3}, ". Available: accuracy, val_loss"),
    ],
)
def test_early_stopping_says_why_it_cannot_see_a_value(monitor, logs, message):
    callback = EarlyStopping(monitor)
    message = f"^EarlyStopping cannot see '{monitor}' and so never stops{re.escape(message)}$"
    with pytest.warns(UserWarning, match=message):
        callback.on_epoch_end(0, logs)


def test_early_stopping_warns_at_the_users_line():
    model = Sequential([Dense(1)])
    model.compile(loss="mse")
    with pytest.warns(UserWarning, match="accuracy is not in compile's metrics") as caught:
        model.fit([[1.0]] * 4, [1.0] * 4, validation_split=0.5, verbose=0, callbacks=VAL_ACCURACY)
    assert "model.fit(" in linecache.getline(caught[0].filename, caught[0].lineno)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping(3), "monitor must be a name such as 'val_loss', got 3"),
        (lambda: EarlyStopping(verbose="yes"), "verbose must be a non-negative integer, got 'yes'"),
        (lambda: EarlyStopping(start_from_epoch=1.5), "start_from_epoch must be a .*, got 1.5"),
        (
            lambda: EarlyStopping(restore_best_weights="no"),
            "restore_best_weights must be True or False, got 'no'",
        ),
        (lambda: LearningRateScheduler(abs, verbose=None), "verbose must be .*, got None"),
    ],
)
def test_what_a_callback_cannot_go_by_is_a_type_error(make, message):
    with pytest.raises(TypeError, match=f"^{message}$"):
        make()


def test_history_keeps_python_floats():
    history = History()
    history.on_epoch_end(4, {"loss": torch.tensor(0.5), "note": "x"})
    history.on_epoch_end(5, {"loss": 1, "note": "y"})
    assert history.epoch == [4, 5]
    assert history.history == {"loss": [0.5, 1.0], "note": ["x", "y"]}
    assert all(type(value) is float for value in history.history["loss"])
    assert repr(history) == "History(2 epochs of loss, note)"


def test_lambda_callback_calls_its_functions():
    seen = []
    callbacks = CallbackList(
        LambdaCallback(
            on_epoch_begin=lambda epoch, logs: seen.append(epoch),
            on_train_batch_end=lambda batch, logs: seen.append(logs),
            on_train_end=None,
        )
    )
    callbacks("on_epoch_begin", 1, {})
    callbacks("on_train_batch_end", 0, {"loss": 2.0})
    assert seen == [1, {"loss": 2.0}]
    assert not callbacks.listens("on_train_end")


def test_terminate_on_nan_stops():
    callback = TerminateOnNaN()
    callback.set_model(FakeModel())
    CallbackList(callback)("on_invalid_loss", 0, 3, {"loss": math.nan})
    assert callback.model.stop_training


def test_learning_rate_scheduler_sets_every_epochs_rate(capsys):
    callback = LearningRateScheduler(lambda epoch, rate: rate / (epoch + 1), verbose=1)
    callback.set_model(FakeModel())
    logs = {}
    for epoch in range(3):
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, logs)
    assert logs == {"learning_rate": pytest.approx(0.5 / 6)}
    assert capsys.readouterr().out.splitlines()[1] == "Epoch 2: learning rate 0.25"


def halved(epoch):
    return 0.1 / 2**epoch


def with_default(epoch, rate=7.0):
    return rate / 2


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (lambda epoch, rate: rate / 2, [0.25, 0.125]),
        (lambda epoch: 0.1 / (1 + epoch), [0.1, 0.05]),
        (halved, [0.1, 0.05]),
        (functools.partial(lambda by, epoch: by**epoch, 0.5), [1.0, 0.5]),
        (optimizers.schedules.ExponentialDecay(1.0, 1, 0.5), [1.0, 0.5]),
        (with_default, [0.25, 0.125]),
        (max, [0.5, 1.0]),  # the signature of which nobody knows
    ],
)
def test_a_schedule_is_called_by_its_signature(schedule, rates):
    callback = LearningRateScheduler(schedule)
    callback.set_model(FakeModel())
    found = []
    for epoch in range(2):
        callback.on_epoch_begin(epoch)
        found.append(callback.model.optimizer.learning_rate)
    assert found == rates


def test_a_type_error_of_the_schedules_own_is_heard():
    def schedule(epoch, rate):
        return rate + "1"

    callback = LearningRateScheduler(schedule)
    callback.set_model(FakeModel())
    with pytest.raises(TypeError, match="unsupported operand"):
        callback.on_epoch_begin(0)


@pytest.mark.parametrize("schedule", [0.1, None, lambda: 0.1, lambda epoch, rate, more: rate])
def test_a_scheduler_needs_a_function_of_the_epoch(schedule):
    message = r"^schedule must be a function \(epoch, learning_rate\), got "
    with pytest.raises(TypeError, match=message):
        LearningRateScheduler(schedule)


def test_a_scheduler_does_not_replace_the_optimizers_own_schedule():
    model = Sequential([Dense(1)])
    rate = optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    model.compile(optimizers.SGD(rate), "mse")
    message = "needs an optimizer whose learning_rate is a number, got the schedule Exponential"
    with pytest.raises(TypeError, match=message):
        model.fit([[1.0]], [1.0], verbose=0, callbacks=[LearningRateScheduler(halved)])
    assert (model.optimizer.learning_rate, model.optimizer.iterations) == (rate, 0)


def test_callback_can_be_imported_from_here():
    assert issubclass(History, Callback)


@pytest.mark.parametrize(
    ("names", "mode"),
    [
        ("precision recall_1 auc_2 f1_score r2_score true_positives cosine_similarity", "max"),
        ("root_mean_squared_error mape false_negatives logcosh binary_crossentropy", "min"),
    ],
)
def test_early_stopping_knows_the_direction_of_metrics(names, mode):
    assert {EarlyStopping(f"val_{name}").mode for name in names.split()} == {mode}


def test_early_stopping_asks_for_the_direction_of_what_it_does_not_know():
    with pytest.raises(ValueError, match='mode must be "min" or "max" for monitor=\'val_f1\''):
        EarlyStopping("val_f1")
    assert EarlyStopping("val_f1", mode="max").mode == "max"


def test_a_schedule_that_returns_nothing_is_named():
    def forgets(epoch):
        pass

    callback = LearningRateScheduler(forgets)
    callback.set_model(FakeModel())
    with pytest.raises(TypeError, match=r"must return a learning rate, and .*forgets.* returned"):
        callback.on_epoch_begin(0)
