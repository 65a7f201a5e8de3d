"""ModelCheckpoint: files of a model while it learns."""

import os

import numpy as np
import pytest

from torchnn import Input, Sequential, optimizers
from torchnn.callbacks import Callback, ModelCheckpoint
from torchnn.layers import Dense
from torchnn.models import load_model


@pytest.fixture
def model():
    made = Sequential([Input((3,)), Dense(1)])
    made.compile("sgd", "mse", metrics=["mae"])
    return made


def data():
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    return x, x @ np.ones((3, 1), "float32")


def fitted(model, *callbacks, **options):
    options = {"epochs": 3, "batch_size": 8, "verbose": 0, **options}
    return model.fit(*data(), callbacks=callbacks, **options)


class Values(Callback):
    """Logs other values than those that were measured."""

    def __init__(self, *values, name="val_loss"):
        self.values, self.name = values, name

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.values[epoch]


def test_every_epoch_is_a_file_with_what_was_logged_in_its_name(model, tmp_path):
    name = str(tmp_path / "deep" / "w{epoch:02d}-{loss:.2f}.weights.h5")
    history = fitted(model, ModelCheckpoint(name, save_weights_only=True)).history
    expected = [f"w{i + 1:02d}-{loss:.2f}.weights.h5" for i, loss in enumerate(history["loss"])]
    assert sorted(os.listdir(tmp_path / "deep")) == expected
    last = Sequential([Dense(1)])
    last.load_weights(tmp_path / "deep" / expected[-1])
    assert all(map(np.array_equal, last.get_weights(), model.get_weights()))


@pytest.mark.parametrize(
    ("values", "options", "saved"),
    [
        ((3.0, 2.0, 2.5), {}, [1, 2]),
        ((0.3, 0.2, 0.5), {"monitor": "val_accuracy"}, [1, 3]),
        ((0.3, 0.2, 0.5), {"mode": "max"}, [1, 3]),
        ((float("nan"), 2.0, 1.0), {}, [2, 3]),
        ((3.0, 2.0, 1.0), {"initial_value_threshold": 2.5}, [2, 3]),
        ((3.0, 3.0, 3.0), {"initial_value_threshold": 1.0}, []),
    ],
)
def test_only_the_best_is_saved(values, options, saved, model, tmp_path):
    keep = ModelCheckpoint(tmp_path / "{epoch}", save_best_only=True, **options)
    fitted(model, Values(*values, name=options.get("monitor", "val_loss")), keep)
    assert sorted(os.listdir(tmp_path)) == [str(number) for number in saved]
    assert keep.best == (values[saved[-1] - 1] if saved else 1.0)


def test_the_best_of_earlier_fits_counts(model, tmp_path):
    keep = ModelCheckpoint(tmp_path / "best", save_best_only=True)
    fitted(model, Values(2.0, 1.0, 3.0), keep)
    first = (tmp_path / "best").read_bytes()
    fitted(model, Values(2.0, 1.5, 3.0), keep)
    assert (tmp_path / "best").read_bytes() == first
    state = keep.state_dict()
    other = ModelCheckpoint(tmp_path / "best", save_best_only=True)
    other.load_state_dict(state)
    assert other.best == 1.0


def test_the_best_model_trains_on_from_its_file(model, tmp_path):
    model.compile(optimizers.Adam(0.1), "mse")
    fitted(model, ModelCheckpoint(tmp_path / "m.keras", "loss", save_best_only=True))
    loaded = load_model(tmp_path / "m.keras")
    assert loaded.epochs_trained == 3
    fitted(loaded)
    fitted(model)
    assert all(map(np.array_equal, loaded.get_weights(), model.get_weights()))


def test_batches_are_counted_on_from_epoch_to_epoch(model, tmp_path):
    fitted(model, ModelCheckpoint(tmp_path / "{epoch}-{batch}", save_freq=2))  # 3 an epoch
    assert sorted(os.listdir(tmp_path)) == ["1-2", "2-1", "2-3", "3-2"]


def test_what_it_says(model, tmp_path, capsys):
    keep = ModelCheckpoint(tmp_path / "m", save_best_only=True, verbose=1)
    fitted(model, Values(2.0, 2.5, 1.0), keep)
    fitted(model, ModelCheckpoint(tmp_path / "{epoch}", verbose=1), epochs=1)
    assert capsys.readouterr().out.splitlines() == [
        f"Epoch 1: val_loss is 2.00000, saving model to {tmp_path / 'm'}",
        "Epoch 2: val_loss did not improve from 2.00000",
        f"Epoch 3: val_loss improved from 2.00000 to 1.00000, saving model to {tmp_path / 'm'}",
        f"Epoch 1: saving model to {tmp_path / '1'}",
    ]


def test_a_value_that_is_not_logged_is_told(model, tmp_path):
    with pytest.warns(UserWarning, match="ModelCheckpoint cannot see 'val_loss' and so saves noth"):
        fitted(model, ModelCheckpoint(tmp_path / "m", save_best_only=True))
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="names val_acc; there are epoch, loss, mae"):
        fitted(model, ModelCheckpoint(tmp_path / "{val_acc}"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"filepath": ""}, ValueError, "filepath must not be empty"),
        ({"filepath": 3}, TypeError, "filepath must be a string or a path, got 3"),
        ({"mode": "up"}, ValueError, "mode must be one of auto, min, max, got 'up'"),
        ({"monitor": "beauty", "save_best_only": True}, ValueError, 'mode must be "min" or "max"'),
        ({"save_freq": -1}, ValueError, "save_freq must be a positive integer, got -1"),
        ({"save_best_only": 2}, TypeError, "save_best_only must be"),
        ({"initial_value_threshold": "a"}, TypeError, "initial_value_threshold must be"),
    ],
)
def test_bad_arguments_are_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        ModelCheckpoint(**{"filepath": "m", **arguments})
