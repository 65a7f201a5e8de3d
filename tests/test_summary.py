"""A model as a table."""

import pytest
import torch
from torch import nn

from torchnn.layers import Dense, Flatten, Input, Normalization
from torchnn.sequential import Sequential


def summary_of(model):
    texts = []
    model.summary(print_fn=texts.append)
    (text,) = texts
    return text


@pytest.fixture
def model():
    return Sequential(
        [Input((20, 20)), Flatten(), Dense(25, name="hidden"), nn.ReLU(), Dense(1, "sigmoid")],
        name="digits",
    )


def row_of(text, name):
    (line,) = [line for line in text.splitlines() if name in line]
    return [cell.strip() for cell in line.strip("│|").replace("|", "│").split("│")]


def test_a_row_is_layer_shape_and_parameters(model):
    text = summary_of(model)
    assert text.splitlines()[0].strip() == 'Model: "digits"'
    assert row_of(text, "flatten") == ["flatten (Flatten)", "(None, 400)", "0"]
    assert row_of(text, "hidden") == ["hidden (Dense)", "(None, 25)", "10,025"]
    assert row_of(text, "re_lu") == ["re_lu (ReLU)", "(None, 25)", "0"]
    assert row_of(text, "dense (") == ["dense (Dense)", "(None, 1)", "26"]


def test_totals_tell_what_is_trained(model):
    assert "Total parameters: 10,051 (39.3 KB)" in summary_of(model)
    model.get_layer("hidden").requires_grad_(False)
    assert "Trainable: 26. Not trainable: 10,025" in summary_of(model)
    assert "10,051 (78.5 KB)" in summary_of(model.double())


def test_it_says_which_engine_trains_the_model(model):
    assert "Training engine: none before compile" in summary_of(model)
    model.compile(loss="bce")
    assert "Training engine: fused" in summary_of(model)


def test_before_it_is_built_a_model_has_question_marks():
    model = Sequential([Dense(25), Dense(1)])
    text = summary_of(model)
    assert row_of(text, "dense (") == ["dense (Dense)", "?", "?"]
    assert "Total parameters: ?" in text
    model(torch.ones(1, 3))
    assert row_of(summary_of(model), "dense (") == ["dense (Dense)", "(None, 25)", "100"]


def test_a_fitted_model_remembers_the_shape_of_its_samples():
    model = Sequential([Flatten(), Dense(1)])
    model.compile(loss="mse")
    assert row_of(summary_of(model), "flatten")[1] == "?"
    model.fit(torch.ones(3, 2, 2), torch.ones(3), verbose=0)
    assert row_of(summary_of(model), "flatten")[1] == "(None, 4)"


def test_looking_at_a_model_does_not_build_it():
    model = Sequential([Dense(25, in_features=3), Dense(1)])
    before = torch.get_rng_state()
    text = summary_of(model)
    assert row_of(text, "dense_1") == ["dense_1 (Dense)", "(None, 1)", "?"]
    assert not model[1].built
    assert torch.equal(before, torch.get_rng_state())


def test_without_print_fn_it_prints_plain_text(model, capsys):
    model.summary()
    out = capsys.readouterr().out
    assert "hidden (Dense)" in out
    assert "\x1b" not in out


def test_brackets_in_names_are_no_markup():
    assert "[bold]" in summary_of(Sequential([Dense(1, name="[bold]")]))


def test_a_model_without_layers_has_a_summary():
    assert "Total parameters: 0" in summary_of(Sequential())


def test_a_normalization_that_waits_for_adapt_is_shown(capsys):
    Sequential([Input((4,)), Normalization(), Dense(2)]).summary(line_length=80)
    shown = capsys.readouterr().out
    assert "(None, 4)" in shown
    assert "(None, 2)" in shown
