"""Sweeps: settings, seeds and folds, each network as if it were alone; tables, files, pictures."""

import io
import math
import sys

import numpy as np
import pytest
import torch

import torchnn
from torchnn import Sequential, Sweep, sweeps
from torchnn._files import storage
from torchnn.callbacks import Callback, CSVLogger, EarlyStopping
from torchnn.layers import BatchNormalization, Dense, Dropout, GaussianNoise, Input
from torchnn.optimizers import SGD, Adam
from torchnn.sweeps import Halving, SweepResult, integers, loguniform, uniform
from torchnn.sweeps._folds import folds

RNG = np.random.default_rng(0)
X = RNG.random((60, 4)).astype("float32")
Y = (X[:, :1] > X[:, 1:2]).astype("float32")
QUIET = {"epochs": 3, "verbose": 0}


def build(units=4, rate=0.0):
    return Sequential([Input((4,)), Dense(units, "relu"), Dropout(rate), Dense(1, "sigmoid")])


def compiled(units=4):
    model = build(units)
    model.compile("adam", "binary_crossentropy")
    return model


def sweep(grid, build=build, **options):
    options = {
        "optimizer": "adam",
        "loss": "binary_crossentropy",
        "metrics": ["accuracy"],
    } | options
    return Sweep(build, grid, **options)


def row_of(result, **wanted):
    """The index of the row with these values."""
    (index,) = [i for i, row in enumerate(result) if wanted.items() <= row.items()]
    return index


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.fixture(scope="module")
def result():
    grid = {"units": [2, 4], "learning_rate": [0.001, 0.1], "seed": range(2)}
    return sweep(grid).fit(X, Y, folds=2, **QUIET)


# Each network


@pytest.mark.parametrize("has_input", [True, False])
def test_a_trial_is_what_its_seed_its_build_and_its_fit_come_to(has_input):
    def build(units, rate):
        front = [Input((4,))] if has_input else []
        return Sequential([*front, Dense(units, "relu"), Dropout(rate), Dense(1, "sigmoid")])

    grid = {"units": [3, 5], "rate": [0.2], "learning_rate": [0.01, 0.1], "seed": [0, 7]}
    before = torch.get_rng_state()
    found = sweep(grid, build).fit(X, Y, validation_split=0.25, batch_size=8, **QUIET)
    assert torch.equal(torch.get_rng_state(), before)
    index = row_of(found, units=5, learning_rate=0.1, seed=7)
    torch.manual_seed(7)
    alone = build(5, 0.2)
    alone.compile(Adam(0.1), "binary_crossentropy", ["accuracy"])
    history = alone.fit(X, Y, validation_split=0.25, batch_size=8, **QUIET)
    assert found.history(index)["val_loss"] == pytest.approx(history.history["val_loss"], rel=1e-5)
    torch.testing.assert_close(weights(found.model(index)), weights(alone), rtol=1e-4, atol=1e-5)
    assert found[index]["epochs_trained"] == 3
    assert found[index]["val_loss"] == found.history(index)["val_loss"][-1]


def test_a_network_does_not_depend_on_what_else_is_in_the_sweep():
    many = sweep({"units": [3, 4], "seed": range(3)}).fit(X, Y, chunk_size=4, **QUIET)
    one = sweep({"units": [4], "seed": [2]}).fit(X, Y, **QUIET)
    index = row_of(many, units=4, seed=2)
    assert many.history(index) == one.history()
    assert torch.equal(weights(many.model(index)), weights(one.model()))


def noisy(units=4, rate=0.5):
    """What no kernel trains."""
    chain = [Dense(units, "relu"), BatchNormalization(), Dropout(rate), GaussianNoise(0.1)]
    return Sequential([Input((4,)), *chain, Dense(1, "sigmoid")])


BY_THEMSELVES = {
    "layers": (noisy, "adam"),
    "rule": (lambda: build(rate=0.5), "nadam"),
    "averages": (lambda: build(rate=0.5), Adam(use_ema=True)),
}


@pytest.mark.parametrize("name", BY_THEMSELVES)
def test_what_goes_through_fit_follows_from_its_seed_alone(name):
    make, optimizer = BY_THEMSELVES[name]
    grid = {"learning_rate": [0.01, 0.1], "seed": range(2)}
    options = {"epochs": 4, "validation_split": 0.25, "verbose": 0}
    before = torch.get_rng_state()
    whole = sweep(grid, make, optimizer=optimizer).fit(X, Y, **options)
    assert torch.equal(torch.get_rng_state(), before)
    index = row_of(whole, learning_rate=0.1, seed=1)
    assert whole[index]["engine"].startswith("through fit")
    torch.manual_seed(5)
    one = sweep({"learning_rate": [0.1], "seed": [1]}, make, optimizer=optimizer)
    assert one.fit(X, Y, **options).history() == whole.history(index)
    torch.manual_seed(1)
    alone = make()
    alone.compile(one._maker.optimizer, "binary_crossentropy", ["accuracy"])
    alone.optimizer.learning_rate = 0.1
    assert alone.fit(X, Y, **options).history == whole.history(index)


@pytest.mark.parametrize("name", ["layers", "rule"])  # averages end each fit
def test_what_goes_through_fit_goes_on_as_if_there_had_been_no_pause(name, tmp_path):
    make, optimizer = BY_THEMSELVES[name]
    options = {"epochs": 4, "validation_split": 0.25, "verbose": 0}
    tried = sweep({"learning_rate": [0.01, 0.1], "seed": range(2)}, make, optimizer=optimizer)
    whole = tried.fit(X, Y, **options)
    halved = tried.fit(X, Y, halving=2, chunk_size=1, backup=tmp_path, **options)
    best = row_of(whole, trial=halved[0]["trial"])
    assert halved[0]["rung"] == 1
    assert halved.history() == whole.history(best)
    assert torch.equal(weights(halved.model()), weights(whole.model(best)))


def test_dropout_follows_from_the_seed_where_rows_have_no_order():
    def train(seed):
        torch.manual_seed(seed)
        tried = sweep({"rate": [0.5], "seed": [3]})
        return tried.fit(X, Y, shuffle=False, **QUIET).history()

    assert train(0) == train(1)


def test_settings_go_to_build_the_sweep_and_the_optimizer():
    grid = {"units": [3], "seed": [5], "batch_size": [60], "epochs": [2], "momentum": [0.5]}
    tried = sweep(grid | {"weight_decay": [0.1], "clipnorm": [1.0]}, optimizer=SGD(0.3))
    model = tried.build_model(tried.trials[0])
    assert model.layers[0].units == 3
    assert (model.optimizer.momentum, model.optimizer.weight_decay) == (0.5, 0.1)
    assert (model.optimizer.learning_rate, model.optimizer.clipnorm) == (0.3, 1.0)
    tried.fit(X, Y, verbose=0)
    model = tried.result_.model()
    assert model.epochs_trained == 2
    assert tried.fit(X, Y, verbose=0, callbacks=None)[0]["seed"] == 5


def test_models_are_seeded_without_a_search_for_devices(monkeypatch):
    expected = weights(sweep({"seed": [5]}).build_model({"seed": 5}))
    torch.manual_seed(5)
    assert torch.equal(weights(build()), expected)
    monkeypatch.setattr(torch, "manual_seed", None)
    assert torch.equal(weights(sweep({"seed": [5]}).build_model({"seed": 5})), expected)
    seeded = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    sweep({"seed": [5]}).build_model({"seed": 5})
    assert seeded == ([] if torch.cuda.is_initialized() else [5])


def test_settings_of_the_optimizer_make_its_slots():
    model = sweep({"amsgrad": [True]}).build_model({"amsgrad": True})
    assert "largest_variances" in model.optimizer.slots


def test_settings_of_a_torch_optimizer():
    grid = {"learning_rate": [0.2], "weight_decay": [0.01]}
    tried = sweep(grid, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    found = tried.fit(X, Y, **QUIET)
    torch.manual_seed(0)
    alone = build()
    sgd = torch.optim.SGD(alone.parameters(), lr=0.2, weight_decay=0.01)
    alone.compile(sgd, "binary_crossentropy", ["accuracy"])
    alone.fit(X, Y, **QUIET)
    torch.testing.assert_close(weights(found.model()), weights(alone), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"unknown setting 'beta_1'.*optimizer has learning_rate"):
        sweep({"beta_1": [0.9]}, optimizer=torch.optim.SGD).fit(X, Y, **QUIET)


def test_names_of_build_win():
    seen = []

    def build(learning_rate, **others):
        seen.append((learning_rate, others))
        return compiled()

    Sweep(build, {"learning_rate": [5], "depth": [1], "seed": [3], "epochs": [1]}).fit(
        X, Y, verbose=0
    )
    assert set(map(str, seen)) == {"(5, {'depth': 1})"}
    assert Sweep(lambda seed: compiled(), {"seed": [3]}).fit(X, Y, **QUIET)[0]["seed"] == 3


def test_draws_are_the_same_each_time_and_go_with_the_whole_grid():
    random = {
        "learning_rate": loguniform(0.001, 0.1),
        "rate": uniform(0.1, 0.5),
        "units": integers(2, 5),
        "momentum": [0.0, 0.9],
    }
    tried = [sweep({"seed": [1, 2]}, random=random, trials=40, seed=seed) for seed in (3, 3, 4)]
    assert tried[0].trials == tried[1].trials != tried[2].trials
    assert len(tried[0]) == 80
    assert [each["seed"] for each in tried[0].trials[:4]] == [1, 2, 1, 2]
    drawn = {name: {each[name] for each in tried[0].trials} for name in random}
    assert drawn["units"] == {2, 3, 4, 5}
    assert drawn["momentum"] == {0.0, 0.9}
    assert 0.1 <= min(drawn["rate"]) < max(drawn["rate"]) <= 0.5
    assert 0.001 <= min(drawn["learning_rate"]) < 0.003 < 0.03 < max(drawn["learning_rate"]) <= 0.1


def test_distributions_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    random = {"learning_rate": stats.loguniform(0.01, 0.1), "units": stats.randint(2, 4)}
    for each in sweep(None, random=random, trials=5).trials:
        assert type(each["learning_rate"]) is float
        assert type(each["units"]) is int


def test_a_list_of_grids():
    tried = sweep([{"units": [2], "momentum": [0.0, 0.9]}, {"units": [3]}], optimizer="sgd")
    assert tried.trials == [{"units": 2, "momentum": m} for m in (0.0, 0.9)] + [{"units": 3}]
    found = tried.fit(X, Y, **QUIET)
    assert len(found.summary()) == 3
    assert "units" in repr(found)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({}, ValueError, "needs a grid, or random and trials"),
        ({"grid": 3}, TypeError, "grid must be a dict of lists"),
        ({"grid": {"units": 3}}, TypeError, r"grid\['units'\] must be a list.*write \[3\]"),
        ({"grid": {"units": []}}, ValueError, "at least one value"),
        ({"grid": {"seed": ["a"]}}, TypeError, "seed must be a non-negative integer"),
        ({"grid": {"seed": [0, 2**70]}}, ValueError, r"seed must be .*2\*\*64 - 1, got 1180591"),
        ({"grid": {"units": [3]}, "seed": 2**64}, ValueError, r"from 0 to 2\*\*64 - 1, got 184467"),
        ({"grid": {"epochs": [0]}}, ValueError, "epochs must be a positive integer"),
        ({"random": {"units": [1]}}, ValueError, "trials=20"),
        ({"grid": {"units": [1]}, "trials": 3}, ValueError, "trials is the number of draws"),
        (
            {"grid": {"units": [1]}, "random": {"units": [1]}, "trials": 3},
            ValueError,
            "'units' twice",
        ),
    ],
)
def test_bad_settings(arguments, kind, message):
    with pytest.raises(kind, match=message):
        Sweep(build, **arguments)


def test_bad_distributions():
    for make in (uniform, loguniform, integers):
        with pytest.raises(ValueError, match="high must be above low"):
            make(3, 3)
    with pytest.raises(ValueError, match="low must be a positive number"):
        loguniform(0, 1)


class Untrained(Callback):
    """Fails the test if anything is trained."""

    def on_train_begin(self, logs=None):
        raise AssertionError


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ({"width": [3]}, {}, "unknown setting 'width': build takes units, rate; the optimizer has"),
        ({"units": [3, 4, -1]}, {}, "units must be a positive integer, got -1"),
        ({"units": [*range(1, 200), 0]}, {}, "units must be a positive integer, got 0"),
        ({"units": [3, None, 4]}, {}, "units must be a positive integer, got None"),
        ({"units": [3, 4], "learning_rate": [0.1, -1.0]}, {}, "learning_rate must be .* got -1.0"),
        ({"units": [3]}, {"epochs": None}, "epochs must be given"),
        ({"units": [3]}, {"folds": 1}, "folds must be an integer from 2 to 60"),
        (
            {"units": [3]},
            {"folds": "a"},
            r"folds must be how many .* numbers, got 'a'",
        ),
        ({"units": [3]}, {"folds": 2.5}, r"folds must be how many .* numbers, got 2.5"),
        ({"units": [3]}, {"folds": [1, 2]}, "folds must give pairs of row numbers"),
        ({"units": [3]}, {"folds": 2, "y": None}, "y must be given, got None"),
        ({"units": [3]}, {"folds": 2, "validation_split": 0.1}, "folds and validation_split"),
        ({"units": [3]}, {"folds": [([0], [60])]}, "rows from 0 to 59, got 60"),
        ({"units": [3]}, {"validation_split": 0.99}, "leaves 0 to train on and 60 to"),
        ({"units": [3]}, {"groups": [1] * 60, "folds": 2}, "groups are for a splitter"),
        ({"units": [3]}, {"groups": [1] * 60}, "groups are for a splitter"),
        ({"units": [3]}, {"monitor": "val_loss"}, "monitor must be one of loss, accuracy, got"),
        ({"units": [3]}, {"monitor": "foo"}, "monitor must be one of loss, accuracy, got 'foo'"),
        ({"units": [3]}, {"monitor": 3}, "monitor must be a string, got 3"),
        ({"units": [3, 4]}, {"halving": 3}, "one of 3 settings, and there are 2"),
        ({"units": [3, 4], "epochs": [2, 3]}, {"halving": 2}, "halving needs epochs as an arg"),
        ({"units": [3]}, {"chunk_size": 0}, "chunk_size must be a positive integer"),
        ({"units": [3]}, {"n_jobs": 0}, "n_jobs must be a number of processes, or -1 for one a"),
        ({"units": [3]}, {"n_jobs": "all"}, "n_jobs must be an integer, got 'all'"),
    ],
)
def test_bad_input_is_told_before_any_work(grid, options, message, tmp_path):
    watch = [] if "monitor" in options else [Untrained()]
    options = QUIET | {"callbacks": watch, "backup": tmp_path / "kept"} | options
    with pytest.raises((TypeError, ValueError), match=message):
        sweep(grid).fit(**{"x": X, "y": Y} | options)
    assert not (tmp_path / "kept").exists()


def test_of_many_numbers_some_are_rehearsed():
    made = []

    def counted(units, width=None):
        made.append((units, width))
        return build(3)

    random = {"learning_rate": loguniform(0.001, 0.1), "units": integers(1, 10**6)}
    tried = sweep({"width": [None, 2]}, counted, random=random, trials=300)
    tried._rehearse(X)
    units = [each["units"] for each in tried.trials]
    assert {min(units), max(units)} <= {own for own, _ in made}
    assert {width for _, width in made} == {None, 2}
    assert 32 <= len(made) <= 70


def test_bad_builds():
    with pytest.raises(TypeError, match="build must be a function"):
        Sweep(3, {"units": [3]})
    with pytest.raises(TypeError, match="build must return a torchnn model, got int"):
        Sweep(lambda units: units, {"units": [3]}).fit(X, Y, **QUIET)
    with pytest.raises(ValueError, match="not compiled"):
        Sweep(build, {"units": [3]}).fit(X, Y, **QUIET)
    with pytest.raises(TypeError, match=r"settings must be a dict from names to .*got None"):
        sweep({"units": [3]}).build_model(None)
    with pytest.raises(ValueError, match="give Sweep no optimizer, loss or metrics"):
        sweep({"units": [3]}, compiled).fit(X, Y, **QUIET)


# Folds


def test_drawn_folds_part_the_rows_and_give_each_its_share_of_a_label():
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    pairs = folds(5, None, labels, None, seed=1)
    for train, held in pairs:
        assert sorted([*train, *held]) == list(range(60))
        assert np.bincount(labels[held]).tolist() == [6, 4, 2]
    assert sorted(row for _, held in pairs for row in held) == list(range(60))
    again, other = (folds(5, None, labels, None, seed) for seed in (1, 2))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(pairs, again, strict=True))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(pairs, other, strict=True))
    sizes = [len(held) for _, held in folds(7, None, torch.randn(60, 2), None, 0)]
    assert sorted(sizes) == [8, 8, 8, 9, 9, 9, 9]


def test_splitters_of_scikit_learn_and_pairs_of_rows():
    selection = pytest.importorskip("sklearn.model_selection")
    groups = np.arange(60) % 3
    splitter = selection.GroupKFold(3)
    pairs = list(splitter.split(X, Y, groups))
    for given, options in ((splitter, {"groups": groups}), (pairs, {})):
        found = sweep({"units": [3]}).fit(X, Y, folds=given, **options, **QUIET)
        assert sorted(row["fold"] for row in found) == [0, 1, 2]
        for index, row in enumerate(found):
            held = pairs[row["fold"]][1]
            evaluated = found.model(index).evaluate(X[held], Y[held], verbose=0)
            assert evaluated == pytest.approx([row["val_loss"], row["val_accuracy"]], rel=1e-5)


# Callbacks and halving


def test_restored_weights_are_those_that_the_row_tells_of():
    stops = EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    tried = sweep({"learning_rate": [0.5, 1.0], "seed": range(2)})
    found = tried.fit(
        X, Y, epochs=12, validation_split=0.3, batch_size=6, callbacks=stops, verbose=0
    )
    for index, row in enumerate(found):
        evaluated = found.model(index).evaluate(X[42:], Y[42:], verbose=0)
        assert evaluated == pytest.approx([row["val_loss"], row["val_accuracy"]], rel=1e-5)
        assert row["val_loss"] == row["best_val_loss"] == min(found.history(index)["val_loss"])
    assert min(row["epochs_trained"] for row in found) < 12


def test_halving_trains_the_best_settings_further_as_if_at_once():
    grid = {"learning_rate": [1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.1], "seed": [0, 1]}
    options = {"epochs": 9, "validation_split": 0.3, "verbose": 0}
    found = sweep(grid).fit(X, Y, halving=3, **options)
    whole = sweep(grid).fit(X, Y, **options)
    assert [row["rung"] for row in found] == [2] * 2 + [1] * 2 + [0] * 8
    assert [row["epochs_trained"] for row in found] == [9] * 2 + [3] * 2 + [1] * 8
    assert found[0]["learning_rate"] == found[1]["learning_rate"]
    assert found.best_settings == {"learning_rate": found[0]["learning_rate"]}
    for index, row in enumerate(found):
        same = row_of(whole, trial=row["trial"])
        count = row["epochs_trained"]
        first = whole.history(same)["val_loss"][:count]
        assert found.history(index)["val_loss"] == pytest.approx(first, rel=1e-5)
    best = weights(whole.model(row_of(whole, trial=found[0]["trial"])))
    torch.testing.assert_close(weights(found.model()), best, rtol=1e-4, atol=1e-5)


def test_a_network_that_a_callback_has_stopped_is_trained_no_further():
    class Stop(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    tried = sweep({"learning_rate": [0.001, 0.01]})
    result = tried.fit(X, Y, epochs=8, halving=2, callbacks=Stop(), verbose=0)
    assert [row["epochs_trained"] for row in result] == [2, 2]
    assert [row["rung"] for row in result] == [1, 0]


@pytest.mark.parametrize(
    ("rule", "settings", "epochs", "ends"),
    [
        (Halving(3), 27, 27, [1, 3, 9, 27]),
        (Halving(3), 27, 5, [1, 2, 5]),
        (Halving(2), 3, 100, [25, 50, 100]),
        (Halving(4, min_epochs=10), 1000, 100, [25, 100]),
    ],
)
def test_rounds_of_halving(rule, settings, epochs, ends):
    assert rule.ends(settings, epochs) == ends


def test_bad_halving():
    with pytest.raises(ValueError, match="factor must be at least 2, got 1"):
        Halving(1)
    with pytest.raises(TypeError, match="factor must be a positive integer"):
        Halving("3")


# The result


def test_rows_come_best_first(result):
    assert len(result) == 16
    losses = [row["val_loss"] for row in result]
    assert losses == sorted(losses)
    assert set(result.columns) == set(result[0])
    for index, row in enumerate(result):
        curve = result.history(index)["val_loss"]
        assert row["best_val_loss"] == min(curve) == curve[row["best_epoch"] - 1]
    risen = sweep({"seed": range(3)}).fit(X, Y, folds=2, monitor="val_accuracy", **QUIET)
    accuracies = [row["val_accuracy"] for row in risen]
    assert accuracies == sorted(accuracies, reverse=True)


def test_a_loss_that_is_no_number_comes_last():
    class Score(Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = math.nan if self.model.optimizer.learning_rate > 0.1 else 1.0

    found = sweep({"learning_rate": [0.5, 1e-6]}).fit(
        X, Y, callbacks=Score(), monitor="score", **QUIET
    )
    assert [row["learning_rate"] for row in found] == [1e-6, 0.5]
    assert math.isnan(found[1]["score"])
    assert found.best_settings == {"learning_rate": 1e-6}


def test_a_summary_has_means_and_spreads(result):
    for by in (None, "units", ["units", "learning_rate"]):
        summary = result.summary(by)
        means = [row["val_loss"] for row in summary]
        assert means == sorted(means)
        names = ["units"] if by == "units" else ["units", "learning_rate"]
        for row in summary:
            own = [r["val_loss"] for r in result if all(r[n] == row[n] for n in names)]
            assert row["networks"] == len(own)
            assert row["val_loss"] == pytest.approx(np.mean(own))
            assert row["val_loss_spread"] == pytest.approx(np.std(own, ddof=1))
    assert "±" in repr(summary)
    with pytest.raises(ValueError, match="by must name settings, got 'loss'"):
        result.summary("loss")
    for by in (3, [3]):
        with pytest.raises(TypeError, match="by must be the name of a setting, or a list of some"):
            result.summary(by)


def test_settings_that_are_named_as_other_columns_have_their_own(tmp_path):
    def build_with(loss, fold, engine):
        model = build()
        model.compile("adam", loss)
        return model

    grid = {"loss": ["mse", "binary_crossentropy"], "fold": [0, 1], "engine": ["a"]}
    tried = Sweep(build_with, grid)
    found = tried.fit(X, Y, **QUIET)
    assert found.settings == ["loss", "fold"]
    for index, row in enumerate(found):
        settings = tried.trials[row["trial"]]
        assert {name: row[f"setting_{name}"] for name in grid} == settings
        assert row["loss"] == found.history(index)["loss"][-1]
        assert row["engine"] == "many models in one native call"
    assert len(set(found.columns)) == len(found.columns)
    assert found.best_settings == {"loss": "mse", "fold": 0, "engine": "a"}
    for by in ("loss", "setting_loss"):
        assert [row["setting_loss"] for row in found.summary(by)] == grid["loss"]
    assert len(found.ensemble()) == 1
    found.plot(tmp_path / "sweep.png")
    found.save(tmp_path / "sweep.torchnn")
    assert SweepResult.load(tmp_path / "sweep.torchnn").rows == found.rows


def test_infinite_losses_have_a_mean_and_no_spread():
    class Score(Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = math.inf

    found = sweep({"seed": [0, 1]}).fit(X, Y, callbacks=Score(), monitor="score", **QUIET)
    (row,) = found.summary()
    assert row["score"] == math.inf
    assert math.isnan(row["score_spread"])
    assert "inf" in repr(found.summary())


def test_the_best_network_is_one_of_the_best_settings(result, tmp_path):
    best = result.best()
    top = {name: result.summary()[0][name] for name in ("units", "learning_rate")}
    assert result.best_settings == top
    (index,) = [i for i, row in enumerate(result) if top.items() <= row.items()][:1]
    assert torch.equal(weights(best), weights(result.model(index)))
    assert best.history.history == result.history(index)
    best.save(tmp_path / "model.keras")
    again = torchnn.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(again.predict(X, verbose=0), best.predict(X, verbose=0))
    assert best.epochs_trained == 3
    best.fit(X, Y, initial_epoch=3, epochs=5, verbose=0)
    assert best.epochs_trained == 5


def test_an_ensemble_predicts_mean_and_spread(result):
    for ensemble, count in ((result.ensemble(), 4), (result.ensemble(7), 7)):
        outputs = np.stack([model.predict(X, verbose=0) for model in ensemble.models])
        assert len(ensemble) == len(outputs) == count
        mean, spread = ensemble.predict(X)
        assert mean == pytest.approx(outputs.mean(axis=0), abs=1e-6)
        assert spread == pytest.approx(outputs.std(axis=0), abs=1e-6)
    with pytest.raises(ValueError, match="count must be an integer from 1 to 16"):
        result.ensemble(17)


def test_the_text_shows_ten_rows_as_wide_as_the_terminal(result, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = repr(result).splitlines()
    assert max(map(len, text)) <= 60
    assert text[0] == "16 networks, best val_loss first"
    assert text[-1] == "... and 6 more"
    monkeypatch.setenv("COLUMNS", "300")
    assert "val_accuracy" in repr(result)


@pytest.mark.parametrize(("encoding", "sign"), [("ascii", "+-"), ("cp1252", "\u00b1")])
def test_the_text_has_letters_that_can_be_printed(encoding, sign, result, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    print(result)
    print(result.summary())
    sys.stdout.seek(0)
    text = sys.stdout.read()
    assert f" {sign} " in text
    assert "| units |" in text
    words = sweeps.Table([{"a": "\u2713"}], ["a"], ["a"], "title")
    assert "| \\u2713 |" in repr(words)


def test_pandas(result, monkeypatch):
    pandas = pytest.importorskip("pandas")
    frame = result.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == result.columns
    assert frame["val_loss"].tolist() == [row["val_loss"] for row in result]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="to_pandas needs pandas: pip install pandas"):
        result.to_pandas()


def test_a_plot_draws_curves_and_scores(result, tmp_path):
    pytest.importorskip("matplotlib")
    figure = result.plot(tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
    curves, units, rates = figure.axes
    assert len(curves.lines) == 4
    assert curves.get_legend().get_texts()[0].get_text().startswith("units ")
    assert (units.get_xlabel(), units.get_xscale()) == ("units", "linear")
    assert (rates.get_xlabel(), rates.get_xscale()) == ("learning_rate", "log")
    assert [each.get_text() for each in rates.get_xticklabels()] == ["0.001", "0.1"]
    words = sweep({"kernel": ["a", "b"]}, lambda kernel: build()).fit(X, Y, **QUIET)
    assert [t.get_text() for t in words.plot().axes[1].get_xticklabels()] == ["a", "b"]
    assert len(sweep({"seed": [1, 2]}).fit(X, Y, **QUIET).plot().axes) == 1


# Files


def test_a_result_comes_back_from_its_file(result, tmp_path):
    path = tmp_path / "result.safetensors"
    result.save(path)
    table = SweepResult.load(path)
    assert table.rows == result.rows
    assert table.columns == result.columns
    assert table.history(3) == result.history(3)
    with pytest.raises(ValueError, match="a file holds no code"):
        table.best()
    same = sweep({"units": [2, 4], "learning_rate": [0.001, 0.1], "seed": range(2)})
    loaded = SweepResult.load(path, same)
    assert np.array_equal(loaded.best().predict(X, verbose=0), result.best().predict(X, verbose=0))
    with pytest.raises(TypeError, match=r"sweep must be the Sweep that the result is of.*got 3"):
        SweepResult.load(path, 3)
    other = sweep({"units": [2, 5], "learning_rate": [0.001, 0.1], "seed": range(2)})
    with pytest.raises(ValueError, match="of another sweep: trial 4 differs"):
        SweepResult.load(path, other)
    build().save_weights(path)
    with pytest.raises(ValueError, match="holds no sweep"):
        SweepResult.load(path)


def test_settings_that_are_objects_are_saved_by_their_names(tmp_path):
    def build(activation):
        return Sequential([Input((4,)), Dense(3, activation), Dense(1, "sigmoid")])

    tried = sweep({"activation": [torch.tanh, torch.relu]}, build)
    tried.fit(X, Y, **QUIET).save(tmp_path / "result")
    assert {row["activation"] for row in SweepResult.load(tmp_path / "result")} == {"tanh", "relu"}
    loaded = SweepResult.load(tmp_path / "result", tried)
    assert torch.equal(weights(loaded.model()), weights(tried.result_.model()))


class Interrupted(Callback):
    """Ctrl-C when the models of a sweep have begun so many fits in all."""

    left = 0

    def on_train_begin(self, logs=None):
        Interrupted.left -= 1
        if Interrupted.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("halving", [None, 2])
def test_an_interrupted_sweep_keeps_what_is_finished_and_goes_on(tmp_path, halving):
    grid = {"learning_rate": [0.001, 0.01, 0.1], "seed": range(2)}
    options = {"callbacks": Interrupted(), "halving": halving, "epochs": 4, "verbose": 0}
    tried = sweep(grid)
    Interrupted.left = 100
    whole = sweep(grid).fit(X, Y, **options)
    trained = 100 - Interrupted.left
    Interrupted.left = 5
    with pytest.raises(KeyboardInterrupt):
        tried.fit(X, Y, chunk_size=2, backup=tmp_path / "kept", **options)
    assert len(tried.result_) == 4
    assert tried.result_.best().predict(X, verbose=0).shape == (60, 1)
    Interrupted.left = 100
    found = sweep(grid).fit(X, Y, chunk_size=3, backup=tmp_path / "kept", **options)
    assert 100 - Interrupted.left == trained - 4
    assert found.rows == whole.rows
    Interrupted.left = 0
    assert sweep(grid).fit(X, Y, backup=tmp_path / "kept", **options).rows == whole.rows


def test_a_fit_that_fails_at_once_leaves_the_result_of_an_earlier_one():
    tried = sweep({"units": [2, 3]})
    with pytest.raises(ValueError, match="y must have as many rows"):
        tried.fit(X, Y[:5], **QUIET)
    assert tried.result_ is None
    found = tried.fit(X, Y, **QUIET)
    with pytest.raises(ValueError, match="y must have as many rows"):
        tried.fit(X, Y[:5], **QUIET)
    assert tried.result_ is found


def test_a_folder_is_for_one_sweep(tmp_path):
    options = QUIET | {"backup": tmp_path}
    sweep({"units": [2, 3]}).fit(X, Y, **options)
    with pytest.raises(ValueError, match="of another sweep: settings differs"):
        sweep({"units": [2, 4]}).fit(X, Y, **options)
    with pytest.raises(ValueError, match="of another sweep: epochs differs"):
        sweep({"units": [2, 3]}).fit(X, Y, **options | {"epochs": 4})
    with pytest.raises(ValueError, match="of another sweep: data differs"):
        sweep({"units": [2, 3]}).fit(X + 1, Y, **options)
    with pytest.raises(ValueError, match="of another sweep: compile differs"):
        sweep({"units": [2, 3]}, optimizer="sgd").fit(X, Y, **options)


def test_weights_are_files_of_their_own(result, tmp_path):
    (tmp_path / "one").write_bytes(result._outcomes[0].weights)
    model = sweep({"units": [4]}).build_model({"units": result[0]["units"]})
    model.load_weights(tmp_path / "one")
    assert torch.equal(weights(model), weights(result.model()))
    tensors, _ = storage.unpack(result._outcomes[0].weights, "weights")
    assert list(tensors) == ["0.bias", "0.weight", "2.bias", "2.weight"]


def test_progress_tells_of_chunks(capsys):
    sweep({"seed": range(4)}).fit(X, Y, chunk_size=3, epochs=1, verbose=1)
    told = capsys.readouterr().out
    assert "3 of 4 networks, best loss 0." in told
    assert "4 of 4 networks" in told


def test_it_is_imported_when_it_is_asked_for():
    assert torchnn.Sweep is sweeps.Sweep
    assert set(sweeps.__all__) <= set(dir(sweeps))


def test_callbacks_whose_copies_would_share_a_file_are_refused(tmp_path):
    own = CSVLogger(tmp_path / "log.csv")
    with pytest.raises(ValueError, match="a CSVLogger, whose copies would write into one file"):
        sweep({"units": [3, 4]}).fit(X, Y, callbacks=own, **QUIET)
    assert not (tmp_path / "log.csv").exists()
