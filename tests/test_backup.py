"""BackupAndRestore: fits that are killed, and go on in another process."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from torchnn import Input, Model, Sequential, optimizers, utils
from torchnn.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    ReduceLROnPlateau,
)
from torchnn.layers import Dense, Dropout, GaussianNoise

PROGRAM = """
import hashlib, sys
import numpy as np
import torch
from torchnn import Input, Sequential, optimizers, utils
from torchnn.callbacks import BackupAndRestore, EarlyStopping, ReduceLROnPlateau
from torchnn.layers import Dense, Dropout

engine, frequency, folder = sys.argv[1:]
torch.set_num_threads(1)
utils.set_random_seed(3)
x = np.random.randn(600, 8).astype("float32")
y = (x[:, :1] + x[:, 1:2] ** 2 > 1).astype("float32")
model = Sequential([Input((8,)), Dense(16, "relu"), Dropout(0.3), Dense(1, "sigmoid")])
model.compile(optimizers.Adam(0.01), "bce", ["accuracy"], engine=engine)
callbacks = [EarlyStopping(patience=8, restore_best_weights=True), ReduceLROnPlateau(patience=2)]
if folder:
    frequency = frequency if frequency == "epoch" else int(frequency)
    callbacks.insert(1, BackupAndRestore(folder, frequency))
print("begins", flush=True)
fit = dict(epochs=40, batch_size=8, validation_split=0.2, callbacks=callbacks, verbose=0)
history = model.fit(x, y, **fit)
print(hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest())
print(history.epoch, history.history, float(model.optimizer.learning_rate))
"""


def started(*arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begins\n"
    return process


@pytest.mark.parametrize(
    ("engine", "frequency"), [("fused", 7), ("autograd", 11), ("fused", "epoch")]
)
def test_a_fit_that_is_killed_ends_with_the_bits_of_one_that_is_not(engine, frequency, tmp_path):
    expected = started(engine, frequency, "").communicate()[0]
    folder, delays = tmp_path / "backup", random.Random()
    kills = 0
    for _ in range(4):
        process = started(engine, frequency, folder)
        try:
            process.wait(delays.uniform(0.02, 0.4))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    else:
        process = started(engine, frequency, folder)
    assert process.communicate()[0] == expected, f"after {kills} kills"
    assert not folder.exists()


class Killed(BaseException):
    """Stands for the end of the process: nothing of what follows may count."""


class Death(Callback):
    """Ends a fit after so many batches, or at an epoch's end."""

    def __init__(self, batch=None, epoch=None):
        self.batch, self.epoch, self.seen = batch, epoch, 0
        if batch is not None:
            self.on_train_batch_end = self._count

    def _count(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.batch:
            raise Killed

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed


def data(rows=50):
    generator = np.random.default_rng(1)
    x = generator.normal(size=(rows, 4)).astype("float32")
    return x, (x[:, :1] > 0).astype("float32")


def made(engine="auto", optimizer=lambda: "adam", metrics=("accuracy",), layers=list):
    utils.set_random_seed(5)
    model = Sequential([Input((4,)), Dense(6, "tanh"), *layers(), Dense(1, "sigmoid")])
    model.compile(optimizer(), "bce", metrics=list(metrics), engine=engine)
    return model


def fitted(model, callbacks, seed=6, **options):
    utils.set_random_seed(seed)
    options = {"epochs": 5, "batch_size": 8, "verbose": 0, **options}
    return model.fit(*data(), callbacks=callbacks, **options)


def assert_same(one, other):
    assert all(map(np.array_equal, one.get_weights(), other.get_weights()))
    assert one.history.epoch == other.history.epoch
    assert one.history.history == other.history.history
    assert one.optimizer.iterations == other.optimizer.iterations


@pytest.mark.parametrize(
    "at", [{"batch": 1}, {"batch": 9}, {"batch": 21}, {"epoch": 0}, {"epoch": 3}]
)
@pytest.mark.parametrize("frequency", ["epoch", 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"engine": "autograd", "layers": lambda: [Dropout(0.3), GaussianNoise(0.1, seed=2)]},
        {"optimizer": lambda: optimizers.SGD(0.1, momentum=0.9, use_ema=True)},
        {"optimizer": lambda: lambda p: torch.optim.Adam(p, lr=0.01)},
        {"metrics": ("accuracy", "auc")},
    ],
    ids=["fused", "autograd", "averages", "PyTorch's", "auc"],
)
def test_a_fit_goes_on_in_another_model(options, frequency, at, tmp_path):
    whole, cut = made(**options), made(**options)

    def others(where):
        return [ReduceLROnPlateau("val_loss", patience=1), CSVLogger(tmp_path / where)]

    fit = {"validation_data": data(9)}
    fitted(whole, [*others("whole"), BackupAndRestore(tmp_path / "w", frequency), Death()], **fit)
    backup = BackupAndRestore(tmp_path / "b", frequency)
    with pytest.raises(Killed):
        fitted(cut, [*others("cut"), backup, Death(**at)], **fit)
    has_one = (tmp_path / "b").exists()  # which has its own seed
    fit["seed"] = 99 if has_one else 6
    again = made(**options)
    fitted(again, [*others("cut"), BackupAndRestore(tmp_path / "b", frequency), Death()], **fit)
    assert_same(whole, again)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "cut").read_bytes()
    assert not (tmp_path / "b").exists()


def test_a_loader_goes_on_with_the_epoch_that_was_not_finished(tmp_path):
    x, y = map(torch.from_numpy, data())
    sets = torch.utils.data.TensorDataset(x, y)

    def fit(model, *callbacks):
        batches = torch.utils.data.DataLoader(sets, 8, shuffle=True)
        model.fit(batches, epochs=4, verbose=0, callbacks=callbacks)

    whole, cut = made(), made()
    utils.set_random_seed(8)
    fit(whole)
    utils.set_random_seed(8)
    with pytest.raises(Killed):
        fit(cut, BackupAndRestore(tmp_path / "b", 2), Death(batch=17))
    again = made()
    utils.set_random_seed(9)
    fit(again, BackupAndRestore(tmp_path / "b", 2), Death())
    assert_same(whole, again)


def test_batches_by_number_go_on_in_their_order(tmp_path):
    class Batches(utils.PyDataset):
        def __len__(self):
            return 7

        def __getitem__(self, index):
            x, y = data()
            return x[index::7], y[index::7]

    def fit(model, *callbacks, seed=8):
        utils.set_random_seed(seed)
        model.fit(Batches(), epochs=4, verbose=0, callbacks=callbacks)

    whole, cut, again = made(), made(), made()
    fit(whole)
    with pytest.raises(Killed):
        fit(cut, BackupAndRestore(tmp_path / "b"), Death(batch=17))
    fit(again, BackupAndRestore(tmp_path / "b"), Death(), seed=9)
    assert_same(whole, again)


def test_a_stop_is_remembered(tmp_path):
    def stop():
        return EarlyStopping("loss", min_delta=10, patience=2, restore_best_weights=True)

    def die(logs):
        raise Killed

    whole, cut, again = made(), made(), made()
    fitted(whole, [stop()])
    with pytest.raises(Killed):  # after the last epoch
        fitted(cut, [stop(), BackupAndRestore(tmp_path / "b"), LambdaCallback(on_train_end=die)])
    fitted(again, [stop(), BackupAndRestore(tmp_path / "b"), LambdaCallback()])
    assert_same(whole, again)


def test_a_backup_of_another_fit_is_refused_and_nothing_changes(tmp_path):
    def cut(model, *more, **options):
        with pytest.raises(Killed):
            fitted(model, [BackupAndRestore(tmp_path / "b"), *more, Death(epoch=1)], **options)

    cut(made())
    other = Sequential([Input((4,)), Dense(1, "sigmoid")])
    other.compile("adam", "bce")
    before = other.get_weights()
    with pytest.raises(ValueError, match=r"the backup is of a model with the weights .*: each fit"):
        fitted(other, [BackupAndRestore(tmp_path / "b"), Death()])
    assert all(map(np.array_equal, before, other.get_weights()))
    other = made(optimizer=lambda: "sgd")
    before = other.get_weights()
    with pytest.raises(ValueError, match="of a model trained by Adam, not SGD"):
        fitted(other, [BackupAndRestore(tmp_path / "b"), Death()])
    assert all(map(np.array_equal, before, other.get_weights()))
    later = made()
    fitted(later, [], epochs=2)
    with pytest.raises(ValueError, match="a fit that began after 0 epochs, not 2"):
        fitted(later, [BackupAndRestore(tmp_path / "b"), Death()])
    (tmp_path / "b" / "fit.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged"):
        fitted(made(), [BackupAndRestore(tmp_path / "b"), Death()])


def test_a_model_that_was_stopped_goes_on_in_the_same_process_without_what_stopped_it(tmp_path):
    whole, cut = made(), made()
    expected = fitted(whole, [EarlyStopping("loss", patience=50)])
    backup = BackupAndRestore(tmp_path / "b")
    stops = lambda: EarlyStopping("loss", patience=50)  # noqa: E731
    for epoch in (1, 3):  # twice, so that a backup of what went on is gone on from
        with pytest.raises(Killed):
            fitted(cut, [backup, Death(epoch=epoch), stops()])
    found = fitted(cut, [stops(), backup])  # in another order
    assert found.history == expected.history
    assert_same(whole, cut)


def test_the_backup_stays_if_it_is_to_or_the_fit_fails(tmp_path):
    fitted(made(), [BackupAndRestore(tmp_path / "kept", delete_checkpoint=False)])
    assert os.listdir(tmp_path / "kept") == ["fit.safetensors"]

    def interrupt(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(
            made(),
            [BackupAndRestore(tmp_path / "b"), LambdaCallback(on_epoch_end=interrupt)],
        )
    assert (tmp_path / "b" / "fit.safetensors").exists()


def test_native_training_still_takes_many_epochs_at_once(tmp_path, monkeypatch):
    from torchnn._training.fit import Fit

    runs, train = [], Fit.train

    def counted(self, run, *more, **options):
        runs.append(run)
        train(self, run, *more, **options)

    monkeypatch.setattr(Fit, "train", counted)
    fitted(made(), [BackupAndRestore(tmp_path / "b", save_freq=1000)], epochs=200)
    assert len(runs) < 100


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"backup_dir": ""}, ValueError, "backup_dir must not be empty"),
        ({"backup_dir": 3}, TypeError, "backup_dir must be a string or a path, got 3"),
        ({"save_freq": 0}, ValueError, "save_freq must be a positive integer, got 0"),
        ({"save_freq": "batch"}, ValueError, "save_freq must be one of epoch, got 'batch'"),
        ({"delete_checkpoint": "x"}, TypeError, "delete_checkpoint must be"),
    ],
)
def test_bad_arguments_are_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        BackupAndRestore(**{"backup_dir": "b", **arguments})


def test_a_model_of_several_inputs_goes_on(tmp_path):
    def graph():
        utils.set_random_seed(2)
        a, b = Input((4,)), Input((4,))
        model = Model([a, b], Dense(1, "sigmoid")(Dense(3)(a) + Dense(3)(b)))
        model.compile("adam", "bce")
        return model

    x, y = data()
    whole, cut, again = graph(), graph(), graph()
    fit = {"epochs": 4, "batch_size": 8, "verbose": 0}
    whole.fit([x, -x], y, **fit)
    with pytest.raises(Killed):
        cut.fit([x, -x], y, callbacks=[BackupAndRestore(tmp_path / "b", 2), Death(batch=17)], **fit)
    again.fit([x, -x], y, callbacks=[BackupAndRestore(tmp_path / "b", 2), Death()], **fit)
    assert_same(whole, again)
