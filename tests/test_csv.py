"""Files with a row for every epoch."""

import copy
import csv
import pickle

import numpy as np
import pytest
import torch

from torchnn import optimizers
from torchnn.callbacks import CSVLogger, EarlyStopping, LambdaCallback, ReduceLROnPlateau
from torchnn.layers import Dense
from torchnn.sequential import Sequential

X, Y = [[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 2.0, 3.0]


def written(path, *epochs, **options):
    """The lines of a file after a fit that logs these values."""
    logger = CSVLogger(path, **options)
    logger.on_train_begin()
    for epoch, logs in enumerate(epochs):
        logger.on_epoch_end(epoch, logs)
        assert len(lines(path)) >= epoch + 2  # also without an end
    logger.on_train_end()
    return lines(path)


def lines(path):
    return path.read_bytes().decode().split("\r\n")[:-1]


def fit(*callbacks, epochs=3, **options):
    model = Sequential([Dense(1)])
    model.compile(optimizers.SGD(0.0), "mse")
    return model.fit(X, Y, epochs=epochs, verbose=0, callbacks=callbacks, **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.csv"


@pytest.mark.parametrize(
    ("logs", "columns", "row"),
    [
        ({"loss": 0.5, "acc": 1}, "acc,loss,val_acc,val_loss", "1,0.5,NA,NA"),
        ({"loss": 1 / 3, "val_loss": 2.0}, "loss,val_loss", "0.3333333333333333,2.0"),
        ({"val_a": np.float64(0.25), "b": np.array(0.5)}, "b,val_a", "0.5,0.25"),
        ({"val_a": torch.tensor(0.5)}, "val_a", "0.5"),
        ({"val_a": np.array([1.0, 2.0]), "b": [3, 4]}, "b,val_a", '"""[3, 4]""","""[1.0, 2.0]"""'),
        ({"val_a": 'said "hi", and left'}, "val_a", '"said ""hi"", and left"'),
        ({"val_a": None}, "val_a", ""),
    ],
)
def test_a_row_is_written_as_in_keras(path, logs, columns, row):
    assert written(path, logs) == [f"epoch,{columns}", f"0,{row}"]


def test_what_is_missing_is_na(path):
    found = written(path, {"loss": 1.0}, {"loss": 2.0, "val_loss": 3.0}, {"val_loss": 4.0})
    assert found == ["epoch,loss,val_loss", "0,1.0,NA", "1,2.0,3.0", "2,NA,4.0"]


def test_what_has_no_column_is_told_once(path):
    rows = [{"val_a": 1}, {"val_a": 2, "b": 3}, {"val_a": 4, "b": 5}]
    with pytest.warns(UserWarning, match="has no column for 'b', which it goes without$") as caught:
        assert written(path, *rows) == ["epoch,val_a", "0,1", "1,2", "2,4"]
    assert len(caught) == 1


def test_nothing_logged_is_a_row_all_the_same(path):
    assert written(path, None, {}) == ["epoch", "0", "1"]


def test_columns_can_be_separated_otherwise(path):
    assert written(path, {"val_a": "x;y"}, separator=";") == ["epoch;val_a", '0;"x;y"']


def test_a_new_fit_begins_a_new_file(path):
    written(path, {"val_a": 1}, {"val_a": 2})
    assert written(path, {"val_b": 3}) == ["epoch,val_b", "0,3"]


def test_appending_goes_on_in_the_columns_that_are_there(path):
    written(path, {"loss": 1, "acc": 2}, append=True)
    with pytest.warns(UserWarning, match="has no column for 'more'"):
        found = written(path, {"loss": 3, "more": 4, "val_acc": 5}, append=True)
    assert found == ["epoch,acc,loss,val_acc,val_loss", "0,2,1,NA,NA", "0,NA,3,5,NA"]


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "epoch;loss\n0;1\n"])
def test_appending_needs_a_file_of_such_columns(path, text):
    path.write_text(text)
    message = r"^the columns of .*log.csv must begin with 'epoch', and have ',' between them, "
    with pytest.raises(ValueError, match=message):
        fit(CSVLogger(path, append=True))
    assert path.read_text() == text


def test_fit_writes_what_its_history_has(path):
    plateau = ReduceLROnPlateau("loss", patience=1, factor=0.5)
    history = fit(plateau, CSVLogger(path), validation_split=0.5, validation_freq=2)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [float(row["loss"]) for row in rows] == history.history["loss"]
    assert [row["val_loss"] for row in rows] == ["NA", str(history.history["val_loss"][0]), "NA"]
    assert [float(row["learning_rate"]) for row in rows] == history.history["learning_rate"]


def test_a_fit_that_is_stopped_has_all_its_rows(path):
    fit(EarlyStopping("loss"), CSVLogger(path), epochs=9)
    assert [line[:2] for line in lines(path)[1:]] == ["0,", "1,"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_fit_that_fails_closes_the_file(path, error):
    def fail(epoch, logs):
        raise error

    logger = CSVLogger(path)
    with pytest.raises(error):
        fit(logger, LambdaCallback(on_epoch_end=fail))
    assert len(lines(path)) == 2
    assert logger._file is None


def test_a_fit_that_never_begins_keeps_the_file(path):
    def fail(logs):
        raise RuntimeError("no")

    written(path, {"val_a": 1})
    logger = CSVLogger(path)
    with pytest.raises(RuntimeError, match="no"):
        fit(logger, LambdaCallback(on_train_begin=fail))
    assert (lines(path), logger._file) == (["epoch,val_a", "0,1"], None)


def test_a_folder_that_is_not_there_is_told_before_training(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing.log\.csv"):
        fit(CSVLogger(tmp_path / "missing" / "log.csv"))


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("kept", range(3))
@pytest.mark.parametrize("lost", range(3))
def test_a_state_dict_lets_another_process_go_on(path, append, kept, lost):
    """The first one kept its state after some rows, and wrote others before it was killed."""
    path.write_bytes(b"epoch,val_a\r\n7,0\r\n")
    first, second = (CSVLogger(path, append=append) for _ in range(2))
    first.on_train_begin()
    state = first.state_dict()
    for epoch in range(kept + lost):
        first.on_epoch_end(epoch, {"val_a": epoch})
        if epoch + 1 == kept:
            state = copy.deepcopy(first.state_dict())
    first.on_train_end()
    second.on_train_begin()
    second.load_state_dict(state)
    for epoch in range(kept, 5):
        second.on_epoch_end(epoch, {"val_a": epoch})
    second.on_train_end()
    before = ["7,0"] if append else []
    assert lines(path) == ["epoch,val_a", *before, *(f"{i},{i}" for i in range(5))]


def test_a_state_dict_goes_on_where_the_file_is_gone(path):
    first, second = CSVLogger(path), CSVLogger(path)
    first.on_train_begin()
    first.on_epoch_end(0, {"val_a": 0})
    first.on_train_end()
    path.unlink()
    second.on_train_begin()
    second.load_state_dict(first.state_dict())
    second.on_epoch_end(1, {"val_a": 1})
    second.on_train_end()
    assert lines(path) == ["epoch,val_a", "1,1"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_an_open_logger_can_be_copied(path, copied):
    logger = CSVLogger(path)
    logger.on_train_begin()
    logger.on_epoch_end(0, {"val_a": 0})
    other = copied(logger)
    other.on_epoch_end(1, {"val_a": 1})
    other.on_train_end()
    logger.on_train_end()
    assert lines(path) == ["epoch,val_a", "0,0", "1,1"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3,), TypeError, "filename must be a path, got 3"),
        (("log.csv", 3), TypeError, "separator must be a string, got 3"),
        (("log.csv", ", "), ValueError, "separator must be one character, no quote, got ', '"),
        (("log.csv", ",", "yes"), TypeError, "append must be True or False, got 'yes'"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        CSVLogger(*arguments)
