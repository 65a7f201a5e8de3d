"""Learning rates that fall when a value has stopped improving."""

import copy
import math
import pickle

import pytest
import torch

from torchnn import optimizers
from torchnn.callbacks import EarlyStopping, ReduceLROnPlateau
from torchnn.layers import Dense, Input
from torchnn.sequential import Sequential

X, Y = [[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 2.0, 3.0]


class FakeModel:
    def __init__(self, rate=1.0):
        self.optimizer = optimizers.SGD(rate)


def rates(callback, values, name="val_loss", rate=1.0):
    """The learning rate of each epoch of a fit with these values, and of the one after them."""
    callback.set_model(FakeModel(rate))
    callback.on_train_begin()
    return tell(callback, values, name)


def tell(callback, values, name="val_loss"):
    found = []
    for epoch, value in enumerate(values):
        logs = {name: value}
        callback.on_epoch_end(epoch, logs)
        found.append(logs["learning_rate"])
    return [*found, callback.model.optimizer.learning_rate]


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([3, 2, 1], {"patience": 1}, [1, 1, 1, 1]),
        ([1, 1, 1, 1, 1], {"patience": 2}, [1, 1, 1, 0.5, 0.5, 0.25]),
        ([1, 1, 1], {"patience": 0}, [1, 1, 0.5, 0.25]),
        ([1, 2, 0.5, 1, 1], {"patience": 2}, [1, 1, 1, 1, 1, 0.5]),
        ([1, 2, 3], {"patience": 1, "mode": "max"}, [1, 1, 1, 1]),
        ([3, 2, 1], {"patience": 1, "mode": "max"}, [1, 1, 0.5, 0.25]),
        ([1, 1 - 9e-5, 1 - 11e-5], {"patience": 1}, [1, 1, 0.5, 0.5]),  # min_delta is 1e-4
        ([3, 2.5, 2, 1], {"patience": 1, "min_delta": 0.5}, [1, 1, 0.5, 0.5, 0.5]),
        ([0.9, 0.6], {"patience": 1, "min_delta": -0.25}, [1, 1, 1]),
        ([1] * 7, {"patience": 1, "cooldown": 2}, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]),
        ([1] * 4, {"patience": 2, "cooldown": 1}, [1, 1, 1, 0.5, 0.5]),
        ([1, 1, 0, 1, 1], {"patience": 1, "cooldown": 2}, [1, 1, 0.5, 0.5, 0.25, 0.25]),
        ([1] * 5, {"patience": 1, "min_lr": 0.3}, [1, 1, 0.5, 0.3, 0.3, 0.3]),
        ([1] * 3, {"patience": 1, "factor": 0, "min_lr": 0.1}, [1, 1, 0.1, 0.1]),
        ([math.nan] * 3, {"patience": 1}, [1, 0.5, 0.25, 0.125]),
    ],
)
def test_the_rate_falls_as_in_keras(values, options, expected):
    callback = ReduceLROnPlateau(**{"factor": 0.5, **options})
    assert rates(callback, values) == pytest.approx(expected)


def test_a_rate_that_cannot_fall_begins_no_cooldown():
    callback = ReduceLROnPlateau(patience=1, cooldown=5, min_lr=1.0)
    rates(callback, [1, 1, 1])
    assert (callback.cooldown_counter, callback.wait, callback.best) == (0, 2, 1)
    assert not callback.in_cooldown()


def test_accuracies_are_to_rise():
    assert rates(ReduceLROnPlateau("acc", patience=1), [0.1, 0.2], "acc") == [1, 1, 1]


def test_every_fit_begins_anew():
    callback = ReduceLROnPlateau(factor=0.5, patience=2, cooldown=3)
    assert rates(callback, [1, 1, 1, 1])[-1] == 0.5
    assert rates(callback, [9, 8, 8, 7]) == [1] * 5


def test_new_rates_are_printed(capsys):
    rates(ReduceLROnPlateau(patience=1, verbose=1), [1, 1, 0], rate=0.5)
    said = "Epoch 2: ReduceLROnPlateau reducing learning rate to 0.05\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("optimizer", "engine"), [("sgd", "fused"), ("sgd", "autograd"), (torch.optim.Adam, "auto")]
)
def test_fit_trains_at_the_rates_and_keeps_them(optimizer, engine):
    model = Sequential([Input((1,)), Dense(1)])
    model.compile(optimizer, "mse", engine=engine)
    model.fit(X, Y, verbose=0)
    model.optimizer.learning_rate = 0.5
    callback = ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=1e9)
    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=[callback])
    assert history.history["learning_rate"] == pytest.approx([0.5, 0.5, 0.05])
    assert model.optimizer.learning_rate == pytest.approx(0.005)


def test_a_value_that_is_not_there_is_told_once():
    callback = ReduceLROnPlateau(patience=0)
    message = (
        "^ReduceLROnPlateau cannot see 'val_loss' and so never reduces the learning rate: pass"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        assert rates(callback, [1, 1], "loss") == [1, 1, 1]
    assert len(caught) == 1


@pytest.mark.parametrize("kind", [EarlyStopping, ReduceLROnPlateau])
def test_a_value_that_is_there_only_now_and_then_is_waited_for(kind):
    model = Sequential([Dense(1)])
    model.compile(optimizers.SGD(0.0), "mse")
    callback = kind(patience=2)
    model.fit(
        X, Y, epochs=5, verbose=0, callbacks=[callback], validation_data=(X, Y), validation_freq=2
    )
    assert callback.wait == 1  # the first of two values was the best


def test_a_schedule_is_not_replaced():
    model = Sequential([Dense(1)])
    schedule = optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    model.compile(optimizers.SGD(schedule), "mse")
    message = "^ReduceLROnPlateau needs an optimizer whose learning_rate is a number, got the sched"
    with pytest.raises(TypeError, match=message):
        model.fit(X, Y, verbose=0, callbacks=[ReduceLROnPlateau("loss")])
    assert (model.optimizer.learning_rate, model.optimizer.iterations) == (schedule, 0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"factor": 1.0}, ValueError, r"factor must be a number in \[0, 1\), got 1.0"),
        ({"factor": "half"}, TypeError, r"factor must be a number in \[0, 1\), got 'half'"),
        ({"patience": 2.5}, TypeError, "patience must be a non-negative integer, got 2.5"),
        ({"cooldown": -1}, ValueError, "cooldown must be a non-negative integer, got -1"),
        ({"min_lr": -1}, ValueError, "min_lr must be a non-negative number, got -1"),
        ({"min_delta": None}, TypeError, "min_delta must be a finite number, got None"),
        ({"mode": "up"}, ValueError, "mode must be one of auto, min, max, got 'up'"),
        ({"monitor": "val_f1"}, ValueError, "mode must be .* for monitor='val_f1', .*"),
        ({"epsilon": 0.1}, TypeError, "ReduceLROnPlateau takes no epsilon: it is min_delta"),
        ({"min_rate": 0.1}, TypeError, "ReduceLROnPlateau takes no min_rate"),
    ],
)
def test_arguments_are_checked(options, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        ReduceLROnPlateau(**options)


VALUES = [3, 2, 2.5, 2.5, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("after", range(len(VALUES)))
def test_a_state_dict_lets_another_one_go_on(after):
    def made():
        return ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1)

    whole, first, second = made(), made(), made()
    expected = rates(whole, VALUES)
    *_, rate = rates(first, VALUES[:after])
    rates(second, [], rate=rate)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert tell(second, VALUES[after:]) == expected[after:]
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_go_on_by_themselves(copied):
    first = ReduceLROnPlateau(factor=0.5, patience=2)
    second = copied(first)
    assert rates(second, [1, 1, 1]) == [1, 1, 1, 0.5]
    assert (first.best, first.wait, second.best) == (None, 0, 1)
