"""The benchmarks: every way to train a network trains the same one, and who does not stays out."""

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch

from benchmarks import dense, many, many_peers, training
from benchmarks.floor import Floor
from benchmarks.loops import NumpyLoop
from benchmarks.networks import ADAM, GROUPS, NETWORKS, ODD, SCALES, Network
from benchmarks.peers import PEERS
from benchmarks.workers import Fitted, PeerError, Worker

EPOCHS = 2
TINY = Network((6, 5, 4, 1), batch_size=4, samples=18, learning_rate=0.05, dtype="float64")
REGRESSION = replace(TINY, widths=(6, 5, 4, 3), activation="relu", loss="mse")
KINDS = {
    "sigmoid": TINY,
    "relu": replace(TINY, activation="relu"),
    "MSE": replace(TINY, loss="mse"),
    "relu MSE": REGRESSION,
    "one layer": replace(REGRESSION, widths=(2, 1)),
    "batches of one": replace(REGRESSION, batch_size=1),
    "deep": replace(REGRESSION, widths=(8,) * 17),
    "L2": replace(REGRESSION, l2=1e-2),
    "features 0 to 60": replace(TINY, highest=60.0, learning_rate=0.001),
    "Adam": replace(TINY, adam=True),
    "classes, relu, Adam": replace(TINY, widths=(6, 5, 3), activation="relu", adam=True),
}
TRAINERS = ("torchnn", "torchnn-engine", "torch", "jax", "keras-torch")
OF_KERAS = 1e-6  # it sums losses in float32
OF_TORCH_ADAM = 1e-4  # its epsilon counts in another place


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_trains_the_network_of_the_numpy_loop(name, kind, monkeypatch):
    peer, network = PEERS[name], KINDS[kind]
    for variable, value in peer.environment.items():
        monkeypatch.setenv(variable, value)
    for package in peer.packages:
        pytest.importorskip(package, reason=f"{package} comes with the extra bench")
    losses = [float(loss) for loss in peer.make(network).fit(EPOCHS)]
    within = OF_KERAS if name == "keras-torch" else 1e-12
    if name == "torch" and network.adam:
        within = OF_TORCH_ADAM
    assert losses == pytest.approx(NumpyLoop(network).fit(EPOCHS), rel=within)


@pytest.mark.parametrize("name", ["sklearn", "skorch", "torch-compile"])
@pytest.mark.parametrize("change", [{"activation": "relu"}, {"loss": "mse"}, {"adam": True}])
def test_who_trains_plain_networks_alone_says_so(name, change):
    for package in PEERS[name].packages:
        pytest.importorskip(package, reason=f"{package} comes with the extra bench")
    with pytest.raises(NotImplementedError, match="sigmoids, one output, and gradient descent"):
        PEERS[name].make(replace(TINY, **change))


def test_a_worker_is_told_all_of_a_network():
    network = replace(REGRESSION, highest=20.0)
    worker = Worker("numpy")
    try:
        worker.prepare(network)
        assert worker.fit(EPOCHS).losses == NumpyLoop(network).fit(EPOCHS)
    finally:
        worker.close()


def test_features_targets_and_names():
    x, y = replace(REGRESSION, highest=60.0, samples=1000).data()
    assert 0 <= x.min() < 1
    assert 59 < x.max() < 60
    assert y.shape == (1000, 3)
    assert y.std() == pytest.approx(1, rel=1e-6)
    assert y.mean() == pytest.approx(0, abs=0.1)
    zeros_and_ones = SCALES[-1].data()[1]
    assert 0.3 < zeros_and_ones.mean() < 0.7  # there is something to tell apart
    assert SCALES[2].layers == "400-25-25-1 features 0 to 60"
    assert ODD[3].layers == "50x4-20 relu MSE"
    assert replace(ADAM[1], highest=1.0).layers == "400-25-25-1 Adam features 0 to 1"


def test_saturated_sigmoids_are_no_warning():
    losses = NumpyLoop(replace(TINY, highest=1e5, dtype="float32")).fit(EPOCHS)
    assert np.isfinite(losses).all()


def test_groups_are_what_they_are_called():
    assert [network.highest for network in SCALES] == [1, 20, 60, 120, 255]
    assert {replace(network, highest=None) for network in SCALES} == {NETWORKS["notes"]}
    assert [network.adam for network in ADAM] == [False, True]
    assert len({network.layers + network.batch for network in ODD}) == len(ODD) == 11
    for network in ODD:
        assert (network.activation, network.loss, network.is_plain) == ("relu", "mse", False)
        assert 10 <= network.steps <= 40
        assert network.learning_rate <= 1e-3


@pytest.mark.parametrize("network", ODD[:6], ids=lambda network: f"{network.layers}")
def test_losses_of_odd_networks_stay_finite_and_fall(network):
    losses = NumpyLoop(replace(network, samples=min(network.samples, 4096))).fit(3)
    assert losses[2] < losses[1] < losses[0]


class FakeWorker:
    """A worker that is as good as the NumPy loop, or as bad as it is told."""

    wrong_by: ClassVar[dict[str, float]] = {}
    fails_at: ClassVar[dict[str, int]] = {}  # the number of a fit

    def __init__(self, name):
        self.name, self.peer, self.fits = name, PEERS[name], 0

    def prepare(self, network):
        self.trainer = NumpyLoop(network)
        return {"numpy": np.__version__}

    def fit(self, epochs):
        self.fits += 1
        if self.fits == self.fails_at.get(self.name):
            raise PeerError("out of memory")
        losses = [loss * (1 + self.wrong_by.get(self.name, 0)) for loss in self.trainer.fit(epochs)]
        return Fitted(1e-3, 1e-3, losses)

    def close(self):
        pass


@pytest.fixture
def fake(monkeypatch):
    """The class of all workers, which may be told to be wrong, or to fail."""
    monkeypatch.setattr(training, "Worker", FakeWorker)
    monkeypatch.setattr(training, "PAUSE", 0)
    monkeypatch.setattr(training.floor, "measure", lambda *_: Floor(1, 2, "not at all"))
    monkeypatch.setattr(FakeWorker, "wrong_by", {})
    monkeypatch.setattr(FakeWorker, "fails_at", {})
    return FakeWorker


def compare(network=TINY, names=("torchnn", "jax", "torch"), dtype="float32"):
    with ExitStack() as stack:
        rows = training.Comparison(list(names), dtype, 2, stack).run(network)
    return [row["peer"] for row in rows]


def test_a_peer_that_is_wrong_stays_out(fake, capsys):
    fake.wrong_by["torch"] = 2e-5
    fake.wrong_by["jax"] = 5e-6  # which is not
    assert compare() == ["torchnn", "jax"]
    assert "PyTorch eager, all threads is left out: off by 2.0e-05" in capsys.readouterr().out
    fake.wrong_by["jax"] = float("nan")
    assert compare() == ["torchnn"]


def test_torchnn_that_is_wrong_ends_the_run(fake):
    for name in ("torchnn", "torchnn-engine"):
        fake.wrong_by.clear()
        fake.wrong_by[name] = 2e-5
        with pytest.raises(SystemExit, match="is wrong"):
            compare(names=("torchnn", "torchnn-engine"))


# The first fit is checked, the next three tell how long one takes, then turns come.
@pytest.mark.parametrize("number", [1, 3, 5, 6])
def test_a_peer_that_fails_stays_out_whenever_that_is(fake, capsys, number):
    fake.fails_at["torch"] = number
    assert compare() == ["torchnn", "jax"]
    assert "PyTorch eager, all threads is left out: out of memory" in capsys.readouterr().out


def test_tolerances_are_those_of_the_network_and_the_peer(fake):
    with ExitStack() as stack:
        tolerance = training.Comparison(["torchnn"], "float32", 2, stack).tolerance
    assert [tolerance(name, TINY) for name in ("torchnn", "torch", "jax")] == [1e-5, 1e-5, 1e-5]
    adam = replace(TINY, adam=True)
    assert [tolerance(name, adam) for name in ("torchnn", "torch", "jax")] == [1e-5, 1e-4, 1e-5]
    for highest, expected in ((1.0, 1e-5), (20.0, 1e-3)):
        assert tolerance("torchnn", replace(TINY, highest=highest)) == pytest.approx(expected)


def test_large_features_are_checked_at_a_rate_that_lets_losses_be_compared():
    # In the whole of SCALES, float32 is then as near to float64 as for other networks.
    for network in map(training.checked, SCALES):
        exact = NumpyLoop(replace(network, dtype="float64")).fit(EPOCHS)
        assert NumpyLoop(network).fit(EPOCHS) == pytest.approx(exact, rel=1e-5)
        assert exact[1] < 0.99 * exact[0]  # and yet it learns
    assert training.checked(SCALES[0]) == SCALES[0]
    assert training.checked(NETWORKS["regularized"]).dropout == 0


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["--group", "adam"], 2),
        (["--group", "scales"], 5),
        (["--networks", "digits", "notes"], 2),
    ],
)
def test_training_writes_where_it_is_told(fake, monkeypatch, tmp_path, capsys, arguments, count):
    also = ["--peers", "numpy", "--rounds", "2", "--folder", str(tmp_path / "new"), "--save", "r"]
    monkeypatch.setattr(sys, "argv", ["training", *arguments, *also])
    monkeypatch.setattr(training, "MOST_EPOCHS", 3)
    training.main()
    rows = json.loads((tmp_path / "new" / "r.json").read_text())["rows"]
    assert [row["peer"] for row in rows] == ["torchnn", "numpy"] * count
    assert len({row["layers"] for row in rows}) == count
    assert all(row["sweep"] is None and row["ratio"] > 0 for row in rows)


@pytest.mark.parametrize("argument", [["--sweep"], ["--group", "sweep"], ["--group", "odd"]])
def test_groups_have_their_names_on_the_command_line(fake, monkeypatch, argument):
    asked = []
    monkeypatch.setattr(sys, "argv", ["training", *argument])
    monkeypatch.setattr(
        training.Comparison, "run", lambda self, network: asked.append(network) or []
    )
    training.main()
    expected = GROUPS.get(argument[-1]) or [n for run in training.SWEEPS.values() for n in run]
    assert asked == expected


def test_shapes_are_read_as_they_are_written():
    assert dense.Shape.parse("128x512x256") == dense.Shape(128, 512, 256)
    assert dense.Shape.parse("128x512x256-saturated") == dense.Shape(128, 512, 256, saturated=True)
    for wrong in ("128x512", "128x512x0", "128x512x256-wild", "1x2x3x4", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="is no shape"):
            dense.Shape.parse(wrong)


def test_saturated_shapes_saturate_sigmoids():
    def share(shape):
        x, weight, bias = shape.arguments()
        out = torch.sigmoid(x @ weight.T + bias)
        return ((out < 1e-6) | (out > 1 - 1e-6)).double().mean()

    [saturated] = [shape for shape in dense.SHAPES if shape.saturated]
    assert saturated.sizes == (128, 512, 256)
    assert share(saturated) > 0.9
    assert share(replace(saturated, saturated=False)) == 0


def test_dense_times_the_shapes_it_is_asked_for(monkeypatch, tmp_path, capsys, one_thread):
    asked = ["--shapes", "4x3x2", "8x16x4-saturated", "--rounds", "2", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["dense", *asked, "--folder", str(tmp_path), "--save", "d"])
    dense.main()
    rows = json.loads((tmp_path / "d.json").read_text())["rows"]
    assert [(row["shape"], row["saturated"], row["what"]) for row in rows] == [
        ([4, 3, 2], False, "forward"),
        ([4, 3, 2], False, "forward+backward"),
        ([8, 16, 4], True, "forward"),
        ([8, 16, 4], True, "forward+backward"),
    ]
    said = capsys.readouterr().out
    assert "8 x 16 x 4, saturated" in said
    assert f"smallest of all: {min(row['ratio'] for row in rows):.3f}x" in said


def test_the_summary_is_of_large_shapes_and_of_the_worst():
    def row(shape, ratio, saturated=False):
        what = {"saturated": saturated, "threads": 2, "what": "forward"}
        return {"shape": shape, "ratio": ratio, **what}

    rows = [row((128, 512, 512), 0.5), row((512, 128, 1024), 2.0), row((128, 512, 256), 0.4, True)]
    found = dense.summary(rows)
    assert "more: 1.000x" in found
    assert found.endswith("smallest of all: 0.400x, 128 x 512 x 256, saturated, forward, 2 threads")
    assert "more: none" in dense.summary(rows[2:])


@pytest.mark.parametrize("broken", ["output", "gradient"])
def test_dense_is_checked_with_its_gradients(monkeypatch, broken):
    def wrong(x, weight, bias, activation):
        out = dense.eager(x, weight, bias, activation)
        return out + 1e-3 if broken == "output" else out + (weight - weight.detach()).sum() * 1e-2

    arguments, grad_out = dense.Shape(8, 16, 4).arguments(), torch.ones(8, 4)
    dense.check(arguments, grad_out, "sigmoid")
    monkeypatch.setattr(dense.ops, "dense", wrong)
    with pytest.raises(SystemExit, match="wrong: off by"):
        dense.check(arguments, grad_out, "sigmoid")


@pytest.mark.parametrize("adam", [False, True], ids=["gradient descent", "Adam"])
def test_jax_under_vmap_trains_each_model_as_it_would_alone(adam):
    pytest.importorskip("jax", reason="jax comes with the extra bench")
    from benchmarks.gpu.peers import Jax
    from benchmarks.gpu.training import spread

    widths = (6, 5, 3) if adam else (6, 5, 1)
    network = replace(TINY, widths=widths, adam=adam, dtype="float32")
    together = Jax(network, 3, "cpu", "highest")
    found = np.stack([np.asarray(together.epoch()) for _ in range(EPOCHS)])
    for i, (scale, rate) in enumerate(zip(*spread(3), strict=True)):
        alone = NumpyLoop(replace(network, learning_rate=network.learning_rate * rate))
        alone.weights = [
            tuple((w * scale).astype(np.float32) for w in pair) for pair in alone.weights
        ]
        assert found[:, i] == pytest.approx(alone.fit(EPOCHS), rel=1e-5)


def test_every_trainer_of_many_models_trains_those_of_the_numpy_loop(monkeypatch):
    network = Network((6, 5, 4, 1), batch_size=4, samples=18, learning_rate=0.05)
    monkeypatch.setattr(many_peers, "MOST_COMPARED", 3)
    found = {}
    for name, peer in many_peers.PEERS.items():
        if name.startswith("jax"):
            continue  # below
        found[name] = peer.make(network, 7).fit(1)
    assert set(found) == {"fit_many", "train_many_", "fit", "torch.func"}
    exact = [many._exact(network, 7, i) for i in (0, 3, 6)]
    for losses in found.values():
        np.testing.assert_allclose(losses, exact, rtol=many.TOLERANCE)


@pytest.mark.parametrize("name", ["jax", "jax-in-turn"])
def test_jax_trains_many_models_as_the_numpy_loop(name):
    pytest.importorskip("jax", reason="jax comes with the extra bench")
    losses = many_peers.PEERS[name].make(replace(TINY, dtype="float32"), 3).fit(1)
    exact = [many._exact(TINY, 3, i) for i in range(3)]
    np.testing.assert_allclose(losses, exact, rtol=many.TOLERANCE)


@pytest.mark.parametrize("name", ["fit_many", "train_many_"])
def test_many_models_are_trained_on_by_each_fit(name):
    network = replace(TINY, dtype="float32")
    at_once = many_peers.PEERS[name].make(network, 3).fit(EPOCHS)
    trainer = many_peers.PEERS[name].make(network, 3)
    one_by_one = np.hstack([trainer.fit(1) for _ in range(EPOCHS)])
    np.testing.assert_allclose(at_once, one_by_one, rtol=1e-6)


def test_few_models_are_compared():
    assert many_peers.compared(1) == [0]
    assert many_peers.compared(3) == [0, 1, 2]
    assert many_peers.compared(10_000) == [0, 2500, 5000, 7499, 9999]


class FakeManyWorker(FakeWorker):
    """One whose models train as the NumPy loop's, and whose clock is told."""

    seconds: ClassVar[dict[str, float]] = {}  # of a model and epoch

    def __init__(self, name, module, environment):
        self.name, self.peer = name, many_peers.PEERS[name]
        self.threads = environment["OMP_NUM_THREADS"]

    def prepare(self, network, models):
        self.network, self.models = network, models
        return {"numpy": np.__version__}

    def fit(self, epochs):
        right = [many._exact(self.network, self.models, i) for i in many.compared(self.models)]
        losses = np.multiply(right, 1 + self.wrong_by.get(self.name, 0)).tolist()
        seconds = self.seconds.get(self.name, 1e-6) * self.models * epochs
        return Fitted(seconds, 2 * seconds, losses)


@pytest.fixture
def fake_many(monkeypatch):
    monkeypatch.setattr(many, "Worker", FakeManyWorker)
    monkeypatch.setattr(many, "PAUSE", 0)
    monkeypatch.setattr(many, "NETWORKS", {"notes": replace(TINY, dtype="float32")})
    monkeypatch.setattr(FakeManyWorker, "wrong_by", {})
    monkeypatch.setattr(FakeManyWorker, "seconds", {})
    return FakeManyWorker


def run_many(monkeypatch, folder, *arguments):
    also = ["--models", "1", "4", "64", "256", "--threads", "1", "2", "--rounds", "3"]
    saved = ["--folder", str(folder), "--save", "m"]
    monkeypatch.setattr(sys, "argv", ["many", *also, *arguments, *saved])
    many.main()
    return json.loads((folder / "m.json").read_text())


def test_many_leaves_out_who_is_wrong_or_slow(fake_many, monkeypatch, tmp_path, capsys):
    fake_many.wrong_by["torch.func"] = 2e-5
    fake_many.seconds["jax"] = 0.01  # 2.56 for an epoch of 256 models
    fake_many.seconds["jax-in-turn"] = 0.3  # 1.2 for one of 4, which stand for all
    document = run_many(monkeypatch, tmp_path)
    counts = {}
    for row in document["rows"]:
        counts.setdefault((row["peer"], row["threads"]), []).append(row["models"])
    for threads in (1, 2):
        assert ("torch.func", threads) not in counts
        assert counts["jax", threads] == [1, 4, 64]
        for name in ("fit_many", "train_many_", "fit", "jax-in-turn"):
            assert counts[name, threads] == [1, 4, 64, 256]
    for row in document["rows"]:
        in_turn = row["peer"] in many.IN_TURN
        assert row["trained"] == (min(row["models"], 4) if in_turn else row["models"])
        assert row["processor"]["median"] == pytest.approx(2 * row["model_step"]["median"])
    said = capsys.readouterr().out
    assert "torch.func vmap, 2 threads, is left out from 1 models on: off by 2.0e-05" in said
    assert "JAX vmap + scan, 1 thread, is left out from 256 models on" in said
    assert "6-5-4-1, 64 models, 2 threads" in said
    assert "10000.00x" in said  # JAX, of fit_many


def test_fit_many_that_is_wrong_ends_the_run(fake_many, monkeypatch, tmp_path):
    fake_many.wrong_by["train_many_"] = 2e-5
    with pytest.raises(SystemExit, match="is wrong"):
        run_many(monkeypatch, tmp_path)


def test_many_models_are_drawn(fake_many, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib comes with the extra bench")
    from benchmarks import plot

    document = run_many(monkeypatch, tmp_path, "--peers", "jax")
    axes = plot.draw(document).axes
    assert axes[0].get_title(loc="left") == "6-5-4-1, batch 4"
    assert [line.get_label() for line in axes[0].get_lines()] == [
        "torchnn fit_many",
        "JAX vmap + scan",
    ]
