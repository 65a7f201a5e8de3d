"""One line an epoch, in whatever stream there is."""

import io
import sys
from types import SimpleNamespace

import pytest
from test_screen import open_terminal

from torchnn import progress
from torchnn.progress import Progress, check_verbose
from torchnn.screen import LiveScreen, PlainScreen

ENGINE = SimpleNamespace(steps_done=0)


def tally(steps=32, seconds=0.01, **logs):
    return SimpleNamespace(steps=steps, seconds=seconds, logs=lambda: logs)


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets by hand."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "perf_counter", lambda: clock.now)
    return clock


def open_colour_terminal(monkeypatch):
    """A terminal of 100 columns in place of sys.stdout."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return open_terminal(monkeypatch)


def run(epochs=2, **options):
    """Two epochs of one step."""
    shown = Progress(ENGINE, tally(), steps=32, epochs=epochs, **options)
    with shown:
        for epoch in range(epochs):
            shown.on_epoch_begin(epoch)
            shown.on_epoch_end(epoch, {"loss": 0.5 / (epoch + 1)})


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("verbose", [1, 2, "auto", True])
def test_a_file_gets_plain_lines(capsys, verbose):
    run(verbose=verbose)
    assert capsys.readouterr().out == (
        "Epoch 1/2    3,200 steps/s   10 ms  loss: 0.5000\n"
        "Epoch 2/2    3,200 steps/s   10 ms  loss: 0.2500\n"
    )


def test_a_file_gets_no_control_characters_even_if_colours_are_forced(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    run()
    assert "\x1b" not in capsys.readouterr().out


def test_verbose_0_shows_nothing(capsys):
    run(verbose=0)
    assert capsys.readouterr().out == ""
    assert not Progress(ENGINE, tally(), 1, verbose=0).is_visible


def test_no_standard_output_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    run()


@pytest.mark.usefixtures("clock")
def test_epochs_line_up(capsys):
    run(epochs=10)
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0][:11], lines[9][:11]) == ("Epoch  1/10", "Epoch 10/10")


def test_a_terminal_gets_a_bar_in_colour(monkeypatch):
    terminal = open_colour_terminal(monkeypatch)
    run()
    (first, second) = terminal.getvalue().splitlines()
    assert first.startswith("Epoch 1/2 \x1b[32m━━━━━━━━━\x1b[0m")
    assert second.endswith("loss: 0.2500")


def test_no_colour_means_no_colour(monkeypatch):
    terminal = open_colour_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    run()
    assert terminal.getvalue().startswith("Epoch 1/2 ━━━━━━━━━   3,200")


@pytest.mark.parametrize(
    ("verbose", "term", "kind"),
    [(1, "xterm", LiveScreen), (2, "xterm", PlainScreen), (1, "dumb", PlainScreen)],
)
def test_the_stream_decides_what_is_drawn(monkeypatch, verbose, term, kind):
    open_colour_terminal(monkeypatch)
    monkeypatch.setenv("TERM", term)
    assert isinstance(Progress(ENGINE, tally(), 1, verbose=verbose)._screen, kind)


def test_a_notebook_is_redrawn_without_escapes(monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(sys, "stdout", stream := io.StringIO())
    shown = Progress(ENGINE, tally(), 32)
    with shown:
        shown.begin("Epoch 1/1")
        shown._screen._draw("changing")
        shown.end({"loss": 0.5})
    assert isinstance(shown._screen, LiveScreen)
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().startswith("changing\r        \rEpoch 1/1 ━")


def test_a_live_line_reads_the_engines_counter(clock, monkeypatch):
    open_colour_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    engine = SimpleNamespace(steps_done=1000)
    shown = Progress(engine, tally(loss=0.5), steps=100)
    shown.begin("Epoch 1/1")
    clock.now += 2.0
    engine.steps_done += 40
    assert shown._live_line() == (
        "Epoch 1/1 ━━━╸       40/100       20 steps/s  3.0 s left  loss: 0.5000"
    )
    engine.steps_done += 1000  # the steps of a validation
    assert shown._live_line() == (
        "Epoch 1/1 ━━━━━━━━━ 100/100      520 steps/s  2.0 s  loss: 0.5000"
    )


def test_a_young_line_is_not_drawn(clock):
    shown = Progress(ENGINE, tally(), 32)
    assert shown._live_line() is None
    shown.begin("Epoch 1/1")
    clock.now += progress.PATIENCE / 2
    assert shown._live_line() is None
    clock.now += progress.PATIENCE
    assert shown._live_line() is not None


def test_a_line_without_an_end_disappears(monkeypatch):
    terminal = open_colour_terminal(monkeypatch)
    shown = Progress(ENGINE, tally(), 32)
    with shown:
        shown.begin("Predict")
        shown._screen._draw("Predict ━━━")
    assert terminal.shown() == [""]


@pytest.mark.parametrize("verbose", ["yes", 3, -1, None, 1.5])
def test_verbose_is_checked(verbose):
    with pytest.raises(ValueError, match='verbose must be "auto", 0, 1 or 2, got'):
        check_verbose(verbose)
