"""Sweeps on several processes: the same bits, and a lost worker's chunk is trained again."""

import os
import signal
import sys
import threading
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from torchnn import Sequential, Sweep
from torchnn.layers import Dense, Dropout, Input
from torchnn.sweeps import _workers
from torchnn.sweeps._chunks import Chunk, Data
from torchnn.sweeps._workers import RemoteError, Workers

joblib = pytest.importorskip("joblib")

RNG = np.random.default_rng(0)
X = RNG.random((60, 4)).astype("float32")
Y = (X[:, :1] > X[:, 1:2]).astype("float32")
OPTIONS = {"epochs": 2, "folds": 2, "chunk_size": 4, "verbose": 0}


def sweep_of(build):
    grid = {"units": [3, 5], "learning_rate": [0.01, 0.1], "seed": range(2)}
    return Sweep(build, grid, optimizer="adam", loss="binary_crossentropy")


def model(units):
    return Sequential([Input((4,)), Dense(units, "relu"), Dropout(0.2), Dense(1, "sigmoid")])


def once_killed(folder):
    """Returns a build that kills the first worker that calls it."""
    here, flag = os.getpid(), folder / "killed"

    def build(units):
        if os.getpid() != here and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return model(units)

    return build


def check_same(one, other):
    assert one.rows == other.rows
    for index in range(len(one)):
        pair = (each.model(index).state_dict() for each in (one, other))
        for a, b in zip(*(state.values() for state in pair), strict=True):
            assert torch.equal(a, b)


@pytest.fixture(scope="module")
def here():
    return sweep_of(model).fit(X, Y, **OPTIONS)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # loky's own
def test_processes_come_to_the_same_bits_though_one_is_killed(here, tmp_path):
    sweep = sweep_of(once_killed(tmp_path))
    with (
        joblib.parallel_config(backend="loky", n_jobs=2),
        warnings.catch_warnings(record=True) as told,
    ):
        warnings.simplefilter("always")
        found = sweep.fit(X, Y, backup=tmp_path / "backup", **OPTIONS)
        assert (tmp_path / "killed").exists()
        assert any(
            "of 4 chunks of the sweep are trained again" in str(each.message) for each in told
        )
        check_same(found, here)
        # An error of the work itself is told at once, as what it was.
        with pytest.raises(ZeroDivisionError) as error:
            sweep_of(fails_in_a_worker()).fit(X, Y, **OPTIONS)
    assert isinstance(error.value.__cause__, RemoteError)
    assert "in _train_far" in str(error.value.__cause__)
    check_same(sweep.fit(X, Y, backup=tmp_path / "backup", **OPTIONS), here)


def fails_in_a_worker():
    here = os.getpid()
    return lambda units: model(units) if os.getpid() == here else 1 / 0


def test_dask_comes_to_the_same_bits_though_a_worker_is_killed(here, tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dask's own, and ours of the worker that is lost
        with (
            distributed.LocalCluster(**options, silence_logs=50) as cluster,
            distributed.Client(cluster),
            joblib.parallel_config(backend="dask"),
        ):
            found = sweep_of(once_killed(tmp_path)).fit(X, Y, **OPTIONS)
    assert (tmp_path / "killed").exists()
    check_same(found, here)


def test_threads_come_to_the_same_bits(here):
    threads = torch.get_num_threads()
    with joblib.parallel_config(backend="threading", n_jobs=3):
        check_same(sweep_of(model).fit(X, Y, **OPTIONS), here)
    assert torch.get_num_threads() == threads


def test_chunks_that_are_always_lost_end_in_an_error(here, monkeypatch):
    calls = []

    def lost(*arguments):
        calls.append(1)
        yield from ()
        raise ConnectionError("gone\nfor ever")

    monkeypatch.setattr(Workers, "_round", lost)
    with (
        joblib.parallel_config(backend="threading", n_jobs=2),
        pytest.warns(
            UserWarning, match="4 of 4 chunks .* are trained again: ConnectionError: gone$"
        ),
        pytest.raises(RuntimeError, match="4 of 4 chunks of the sweep were lost 3 times in a row"),
    ):
        sweep_of(model).fit(X, Y, **OPTIONS)
    assert len(calls) == 3


def test_who_trains(monkeypatch):
    assert _workers.find(None) == Workers(0, None)
    assert _workers.find(1) == Workers(0, 1)
    assert _workers.find(2) == Workers(2, 2)
    with joblib.parallel_config(backend="loky", n_jobs=3):
        assert _workers.find(None) == Workers(3, None)
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ModuleNotFoundError, match="n_jobs needs joblib: pip install joblib"):
        _workers.find(2)
    monkeypatch.delitem(sys.modules, "joblib")
    assert _workers.find(None) == Workers(0, None)
    assert "joblib" not in sys.modules


def test_chunks_go_to_the_gpus_in_turn(monkeypatch):
    current, used = threading.local(), set()

    @contextmanager
    def device(index):
        current.index = index
        yield
        del current.index

    def train(maker, data, chunk):
        used.add((chunk.networks[0].number, getattr(current, "index", None)))
        return []

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(_workers, "train", train)
    sweep, data = sweep_of(model), Data(X, Y, None, None, [], None, [], True)
    chunks = [Chunk([n], [None], [1], False, 0) for n in sweep._networks(1, 32, 0).values()]
    with joblib.parallel_config(backend="threading", n_jobs=3):
        for use_gpus in (False, True):
            workers = Workers(3, None, use_gpus)
            assert len(list(workers.train(sweep._maker, data, chunks, 0))) == len(chunks)
    count = range(len(chunks))
    assert used == {(i, None) for i in count} | {(i, i % 2) for i in count}


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two GPUs")
def test_gpus_come_to_the_same_bits():
    def on_gpu(units):
        return model(units).to("cuda")

    alone = sweep_of(on_gpu).fit(X, Y, **OPTIONS)
    check_same(sweep_of(on_gpu).fit(X, Y, n_jobs=2, **OPTIONS), alone)


def test_networks_on_gpus_are_cut_into_a_chunk_each(monkeypatch):
    found = []
    monkeypatch.setattr(_workers.Workers, "cut", lambda self, *_: found.append(self) or [])
    for use_gpus in (False, True):
        monkeypatch.setattr(torch.nn.Parameter, "is_cuda", use_gpus, raising=False)
        sweep_of(model).fit(X, Y, n_jobs=2, **OPTIONS)
    assert found == [Workers(2, 2, False), Workers(2, 2, True)]


def test_chunks():
    assert list(map(len, Workers(0, None).cut(range(2500), None))) == [1024, 1024, 452]
    assert list(map(len, Workers(2, None).cut(range(100), None))) == [16] * 6 + [4]
    assert list(map(len, Workers(2, None, use_gpus=True).cut(range(100), None))) == [64, 36]
    assert list(map(len, Workers(8, None).cut(range(100_000), None)))[:1] == [1024]
    assert list(map(len, Workers(8, None).cut(range(10), 4))) == [4, 4, 2]
