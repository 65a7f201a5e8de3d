"""How a line of progress looks."""

import numpy as np
import pytest

from torchnn._console.lines import CYAN, DIM, GREEN, RESET, Look, decimal, duration, pairs, speed

BAR = ("━", "╸")
LOGS = {"loss": 0.4321, "accuracy": 0.9}
MANY = {"loss": 0.4321, "accuracy": 0.9, "val_loss": 0.5, "val_accuracy": 0.8}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.43214, "0.4321"),
        (12.5, "12.5000"),
        (0.001, "0.0010"),
        (0.000999, "9.9900e-04"),
        (-0.000123456, "-1.2346e-04"),
        (0.0, "0.0000"),
        (1, "1.0000"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (np.float32(0.5), "0.5000"),
        ("words", "words"),
        (np.eye(2), "[[1. 0.] [0. 1.]]"),
    ],
)
def test_values_have_four_decimals_or_are_scientific(number, text):
    assert decimal(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0.4 ms"),
        (0.0123, "12 ms"),
        (0.9996, "1.0 s"),
        (3.14, "3.1 s"),
        (59.96, "1:00"),
        (125, "2:05"),
        (3725, "1:02:05"),
    ],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_speeds_line_up():
    assert [speed(4321.9), speed(9.876)] == ["  4,322 steps/s", "   9.88 steps/s"]


def test_a_plain_line_has_no_bar():
    line = Look().finished("Epoch 1/5", 4321, "12 ms", LOGS)
    assert line == "Epoch 1/5    4,321 steps/s   12 ms  loss: 0.4321  accuracy: 0.9000"


def test_a_finished_line_has_a_full_bar():
    line = Look(BAR, columns=100).finished("Epoch 1/5", 4321, "12 ms", LOGS)
    assert line == "Epoch 1/5 ━━━━━━━━━   4,321 steps/s   12 ms  loss: 0.4321  accuracy: 0.9000"


def test_a_live_line_shows_how_far_it_is():
    line = Look(BAR, columns=100).live("Epoch 1/5", 25, 100, 50, "1.5 s left", LOGS)
    assert line == (
        "Epoch 1/5 ━━         25/100       50 steps/s  1.5 s left  loss: 0.4321  accuracy: 0.9000"
    )
    line = Look(BAR, columns=100).live("Epoch 1/5", 17, 100, 50, "1.5 s left", {})
    assert line == "Epoch 1/5 ━╸         17/100       50 steps/s  1.5 s left"


def test_without_a_number_of_steps_the_steps_are_counted():
    line = Look(BAR, columns=100).live("Epoch 1/5", 25, None, 50, "1.5 s", {})
    assert line == "Epoch 1/5           25       50 steps/s  1.5 s"


def test_colours_do_not_count_for_the_width():
    plain, coloured = Look(BAR, columns=80), Look(BAR, True, columns=80)
    live = coloured.live("Epoch 1/5", 25, 100, 50, "1.5 s left", LOGS)
    assert f" {CYAN}━━{RESET}{DIM}━━━━━━{RESET} " in live
    finished = coloured.finished("Epoch 1/5", 50, "1.5 s", LOGS)
    bare = finished.replace(GREEN, "").replace(RESET, "").replace(DIM, "")
    assert bare == plain.finished("Epoch 1/5", 50, "1.5 s", LOGS)


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("logs", [{}, LOGS, MANY, {f"metric_{i}": 0.5 for i in range(9)}])
def test_no_line_of_a_terminal_wraps(columns, logs):
    look = Look(BAR, columns=columns)
    live = look.live("Epoch 10/50", 25, 100, 50, "1.5 s left", logs)
    finished = look.finished("Epoch 10/50", 4321, "123 ms", logs)
    assert "\n" not in live
    assert max(map(len, [live, *finished.splitlines()])) < columns


def test_a_narrow_screen_drops_one_thing_after_the_other():
    fits = {}
    for columns in range(71, 130):
        line = Look(BAR, columns=columns).finished("Epoch 1/5", 4321, "12 ms", MANY)
        assert "accuracy: 0.9000" in line
        assert len(line.splitlines()) == 1
        parts = tuple(part for part in ("━", "steps/s", "val_", " ms") if part in line)
        fits.setdefault(parts, columns)
    assert list(fits) == [
        (),
        (" ms",),
        ("━", " ms"),
        ("val_", " ms"),
        ("━", "val_", " ms"),
        ("━", "steps/s", "val_", " ms"),
    ]


def test_eighty_columns_hold_a_loss_and_a_metric_with_validation():
    for bar in (BAR, None):
        line = Look(bar, columns=80).finished("Epoch 10/50", 4321, "123 ms", MANY)
        assert (
            line == "Epoch 10/50  123 ms  loss: 0.4321 (val 0.5000)  accuracy: 0.9000 (val 0.8000)"
        )


def test_what_fits_on_no_line_of_a_terminal_is_continued_on_the_next():
    logs = {f"metric_{i}": 0.5 for i in range(4)}
    assert Look(BAR, columns=40).finished("Epoch 1/5", 4321, "12 ms", logs).splitlines() == [
        "Epoch 1/5  metric_0: 0.5000",
        "  metric_1: 0.5000  metric_2: 0.5000",
        "  metric_3: 0.5000",
    ]
    assert "\n" not in Look(columns=40).finished("Epoch 1/5", 4321, "12 ms", logs)


def test_values_without_a_twin_stand_alone():
    assert pairs({"loss": 1, "val_loss": 2, "learning_rate": 3, "val_only": 4}) == [
        "loss: 1.0000 (val 2.0000)",
        "learning_rate: 3.0000",
        "val_only: 4.0000",
    ]


@pytest.mark.parametrize(
    ("look", "line"),
    [
        (Look(), "one two"),
        (Look(columns=3), "one two"),
        (Look(("=", "-"), columns=8), "one two"),
        (Look(("=", "-"), columns=7), "one\n  two"),
    ],
)
def test_what_is_told_fits_a_terminal(look, line):
    assert look.told(["one", "two"]) == line
