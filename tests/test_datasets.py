"""Data sets: files that are there, and what is said of those that are not."""

import gzip
import os
import struct
import subprocess
import sys

import numpy as np
import pytest

import torchnn
from torchnn.datasets import boston_housing, california_housing, digits, fashion_mnist, mnist

IDX = {
    "train-images-idx3-ubyte.gz": np.arange(12).reshape(3, 2, 2),
    "train-labels-idx1-ubyte.gz": np.array([2, 0, 1]),
    "t10k-images-idx3-ubyte.gz": np.arange(100, 104).reshape(1, 2, 2),
    "t10k-labels-idx1-ubyte.gz": np.array([9]),
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No data set of the machine's own is in sight."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("TORCHNN_DATASETS", raising=False)
    (tmp_path / "keras" / "datasets").mkdir(parents=True)
    return tmp_path


def save_mnist(path):
    x = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    y = np.array([1, 0, 2], np.uint8)
    np.savez(path, x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    return (x, y), (x[:1], y[:1])


def save_idx(folder, arrays=IDX):
    folder.mkdir()
    for name, array in arrays.items():
        head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        (folder / name).write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def save_housing(path, rows=10):
    np.savez(path, x=np.arange(rows * 2.0).reshape(rows, 2), y=np.arange(rows * 1.0))


def assert_same(found, expected):
    for got, wanted in zip(sum(found, ()), sum(expected, ()), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)


def test_a_file_is_found_where_keras_keeps_it(home, monkeypatch):
    expected = save_mnist(home / "keras" / "datasets" / "mnist.npz")
    assert_same(mnist.load_data(), expected)
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(home))
    (home / "keras").rename(home / ".keras")
    assert_same(torchnn.datasets.mnist.load_data(), expected)


def test_a_file_is_found_by_its_path_and_by_the_environment_variable(home, monkeypatch):
    folder = home / "elsewhere"
    folder.mkdir()
    expected = save_mnist(folder / "mine.npz")
    assert_same(mnist.load_data(folder / "mine.npz"), expected)
    assert_same(mnist.load_data(path="elsewhere/mine.npz"), expected)
    monkeypatch.setenv("TORCHNN_DATASETS", str(folder))
    assert_same(mnist.load_data("mine.npz"), expected)


@pytest.mark.parametrize(
    ("load_data", "name"),
    [
        (mnist.load_data, "mnist.npz"),
        (fashion_mnist.load_data, "train-images-idx3-ubyte.gz"),
        (boston_housing.load_data, "boston_housing.npz"),
        (california_housing.load_data, "california_housing.npz"),
    ],
)
def test_a_missing_file_is_told_with_its_places_and_its_address(home, monkeypatch, load_data, name):
    monkeypatch.setenv("TORCHNN_DATASETS", str(home / "mine"))
    with pytest.raises(FileNotFoundError) as caught:
        load_data()
    message = str(caught.value)
    folders = [home, home / "mine", home / "keras" / "datasets"]
    assert all(str(folder) in message for folder in folders)
    assert f"https://storage.googleapis.com/tensorflow/tf-keras-datasets/{name}" in message
    assert "\n" not in message


def test_fashion_mnist_reads_four_idx_files(home):
    save_idx(home / "keras" / "datasets" / "fashion-mnist")
    found = fashion_mnist.load_data()
    arrays = [array.astype(np.uint8) for array in IDX.values()]
    assert_same(found, (tuple(arrays[:2]), tuple(arrays[2:])))
    assert all(array.flags.writeable for array in sum(found, ()))


def test_fashion_mnist_reads_an_npz_file(home):
    expected = save_mnist(home / "fashion_mnist.npz")
    assert_same(fashion_mnist.load_data("fashion_mnist.npz"), expected)
    with pytest.raises(FileNotFoundError, match=r"absent\.npz$"):
        fashion_mnist.load_data("absent.npz")


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08", b"\0\0\x0d\x01\0\0\0\0", b"\0\0\x08\1\0\0\0\2a"]
)
def test_a_broken_idx_file_is_refused(home, content):
    folder = home / "fashion-mnist"
    save_idx(folder)
    broken = folder / "t10k-labels-idx1-ubyte.gz"
    broken.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte\.gz is no whole IDX file"):
        fashion_mnist.load_data(folder)


def test_a_file_of_something_else_is_refused(home):
    (home / "mnist.npz").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"mnist\.npz is no \.npz file"):
        mnist.load_data()
    save_housing(home / "mnist.npz")
    with pytest.raises(ValueError, match="must hold x_train, y_train, x_test, y_test, got x, y"):
        mnist.load_data()


@pytest.mark.parametrize("name", ["boston_housing", "california_housing"])
def test_housing_is_split_in_the_order_of_keras(home, name):
    save_housing(home / f"{name}.npz")
    (x_train, y_train), (x_test, y_test) = getattr(torchnn.datasets, name).load_data()
    # What numpy.random.RandomState(113).shuffle makes of 0 to 9.
    assert y_train.tolist() == [9, 3, 6, 1, 0, 7, 4, 8]
    assert y_test.tolist() == [2, 5]
    np.testing.assert_array_equal(x_train[:, 0], 2 * y_train)
    np.testing.assert_array_equal(x_test[:, 1], 2 * y_test + 1)


def test_housing_splits_as_asked(home):
    save_housing(home / "california_housing.npz", rows=1000)
    (x, _), (x_test, _) = california_housing.load_data("small", test_split=0.5)
    assert (len(x), len(x_test)) == (300, 300)
    assert max(x[:, 0].max(), x_test[:, 0].max()) == 2 * 599
    first, other = (california_housing.load_data(seed=seed)[0][1] for seed in (0, 1))
    assert first.tolist() != other.tolist()
    (x, _), (x_test, _) = california_housing.load_data(test_split=0)
    assert (len(x), len(x_test)) == (1000, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_split": 1.0}, "test_split must be a number in"),
        ({"seed": -1}, "seed must be a non-negative integer"),
        ({"version": "tiny"}, "version must be one of small, large"),
    ],
)
def test_options_are_checked(home, options, message):
    save_housing(home / "california_housing.npz")
    with pytest.raises(ValueError, match=message):
        california_housing.load_data(**options)


def test_digits_come_with_scikit_learn():
    pytest.importorskip("sklearn")
    (x_train, y_train), (x_test, y_test) = digits.load_data()
    assert (x_train.shape, x_test.shape) == ((1437, 8, 8), (360, 8, 8))
    assert (x_train.dtype, y_train.dtype, x_train.max()) == (np.uint8, np.uint8, 16)
    assert np.unique(y_test).tolist() == list(range(10))
    np.testing.assert_array_equal(digits.load_data()[1][1], y_test)


def test_digits_without_scikit_learn_are_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        digits.load_data()


def test_torchnn_imports_data_sets_when_they_are_asked_for():
    program = (
        "import sys, torchnn; assert 'torchnn.datasets' not in sys.modules;"
        "torchnn.datasets.mnist; assert 'torchnn.datasets' in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=os.path.dirname(__file__) + "/.."
    )
