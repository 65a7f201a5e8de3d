"""The examples run and are as good as they say."""

import importlib
import sys

import numpy as np
import pytest

# What the examples import beside torchnn; nothing else in the package needs it.
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


def run(name, *arguments, **options):
    return importlib.import_module(f"examples.{name}").main(*arguments, **options)


def test_digits_reads_99_percent_of_the_test_images_and_draws_them(tmp_path, capsys):
    from matplotlib.image import imread

    picture = tmp_path / "digits.png"
    accuracy = run("digits", picture)
    assert accuracy >= 0.99
    pixels = imread(picture)[..., :3]
    assert pixels.shape == (780, 1800, 3)
    # Both halves hold something: not all of their pixels are white.
    assert (pixels[:, :700].min(), pixels[:, 700:].min()) < (0.5, 0.5)
    printed = capsys.readouterr().out
    assert "Total parameters: 2,301" in printed  # 64 * 25 + 25 + 25 * 25 + 25 + 25 + 1
    assert "Epoch 30/30" in printed
    assert printed.count("probability of a one") == 3
    assert f"test accuracy {accuracy:.1%} on 144 images" in printed


def test_ten_digits_reads_97_percent_and_draws_the_others(tmp_path, capsys):
    from matplotlib.image import imread

    picture = tmp_path / "ten_digits.png"
    accuracy = run("ten_digits", picture)
    assert accuracy >= 0.97
    pixels = imread(picture)[..., :3]
    assert (pixels[:, :800].min(), pixels[:, 900:].min()) < (0.5, 0.5)
    printed = capsys.readouterr().out
    assert "fused (whole epochs in one native call)" in printed
    assert f"test accuracy {accuracy:.1%} on 540 images" in printed


def test_logistic_regression_tells_95_percent_of_the_tumours_apart(capsys):
    assert run("logistic_regression") >= 0.95
    assert "worst radius" in capsys.readouterr().out


def test_regression_comes_within_two_percent_of_exact_least_squares(capsys):
    errors = run("regression")
    exact = errors["least squares, solved exactly"]
    assert errors["gradient descent"] == pytest.approx(exact, rel=0.02)
    assert exact < 0.85 * errors["the mean of all patients"]
    assert np.isfinite(list(errors.values())).all()
    assert f"{exact:.1f}" in capsys.readouterr().out


def test_layers_in_pytorch_tell_the_moons_apart(capsys):
    assert run("layers_in_pytorch") >= 0.93
    assert "epoch 30: loss" in capsys.readouterr().out


def test_a_sweep_says_which_settings_are_best_and_draws_them(tmp_path, capsys):
    from matplotlib.image import imread

    picture = tmp_path / "sweep.png"
    sizes = {"rates": (0.001, 0.01), "widths": (8, 32), "seeds": 2, "folds": 2, "epochs": 10}
    one, together = run("sweep", picture, **sizes)
    assert 0.9 <= one <= together + 0.02
    pixels = imread(picture)[..., :3]
    assert (pixels[:500].min(), pixels[600:].min()) < (0.5, 0.5)
    printed = capsys.readouterr().out
    assert "Means and spreads, best val_accuracy first" in printed
    assert "best settings: {'learning_rate': 0.01, 'units': 32}" in printed
    assert "its 4 seeds and folds together" in printed


def test_optuna_finds_a_network_of_many_that_are_trained_at_once(capsys):
    pytest.importorskip("optuna")
    accuracy = run("optuna_sweep", 2, 6, 8)
    assert accuracy >= 0.9
    printed = capsys.readouterr().out
    assert "round 2: 6 networks in " in printed
    assert "learning rate: " in printed
    assert f"test accuracy {accuracy:.1%} on 360 images" in printed


def test_without_optuna_the_example_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "examples.optuna_sweep", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SystemExit, match="needs Optuna: pip install optuna"):
        run("optuna_sweep")
