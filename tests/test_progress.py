"""One line an epoch, in whatever stream there is."""

import io
import os
import pty
import re
import sys
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from test_screen import Terminal, open_terminal

from torchnn import Sequential
from torchnn._console import progress
from torchnn._console.progress import Progress, check_verbose
from torchnn._console.screen import LiveScreen, NotebookScreen, PlainScreen
from torchnn.callbacks import LambdaCallback
from torchnn.layers import Dense
from torchnn.optimizers import SGD

ENGINE = SimpleNamespace(steps_done=0)


def tally(steps=32, seconds=0.01, **logs):
    return SimpleNamespace(steps=steps, seconds=seconds, so_far=lambda: logs)


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets by hand."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "perf_counter", lambda: clock.now)
    return clock


def open_colour_terminal(monkeypatch):
    """A terminal of 100 columns in place of sys.stdout."""
    monkeypatch.delenv("NO_COLOR", raising=False)
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


def test_a_notebook_gets_a_display_and_no_escapes(monkeypatch):
    class OutStream(io.StringIO):
        __module__ = "ipykernel.iostream"

    monkeypatch.setattr(sys, "stdout", stream := OutStream())
    shown = Progress(ENGINE, tally(), 32)
    with shown:
        shown.begin("Epoch 1/1")
        shown.end({"loss": 0.5})
    assert isinstance(shown._screen, NotebookScreen)
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().startswith("Epoch 1/1 ━")


@pytest.mark.parametrize(("encoding", "bar"), [("UTF-8", "━"), ("latin-1", "="), (None, "━")])
def test_the_bar_is_made_of_what_the_terminal_can_show(monkeypatch, encoding, bar):
    terminal = open_colour_terminal(monkeypatch)
    monkeypatch.setattr(type(terminal), "encoding", encoding, raising=False)
    run()
    assert bar * 8 in terminal.getvalue()
    terminal.getvalue().encode(encoding or "utf-8")


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


def test_a_line_follows_the_width_of_its_window(clock, monkeypatch):
    open_colour_terminal(monkeypatch)
    shown = Progress(ENGINE, tally(loss=0.5), steps=32)
    shown.begin("Epoch 1/1")
    clock.now += 1.0
    assert "steps/s" in shown._live_line()
    monkeypatch.setenv("COLUMNS", "40")
    assert len(shown._live_line()) < 40


def test_a_young_line_is_not_drawn(clock):
    shown = Progress(ENGINE, tally(), 32)
    assert shown._live_line() is None
    shown.begin("Epoch 1/1")
    clock.now += progress.PATIENCE / 2
    assert shown._live_line() is None
    clock.now += progress.PATIENCE
    assert shown._live_line() is not None


def test_a_line_is_redrawn_between_runs_when_it_is_time(clock, monkeypatch):
    open_colour_terminal(monkeypatch)
    shown = Progress(ENGINE, tally(), 32)
    drawn = []
    monkeypatch.setattr(shown._screen, "draw", lambda: drawn.append(clock.now))
    with shown:
        shown.begin("Epoch 1/1")
        for seconds in shown.watched([0.0, 0.03, 0.03, 0.01]):
            clock.now += seconds
    assert drawn == pytest.approx([100.0, 100.06])


def test_a_line_without_an_end_disappears(clock, monkeypatch):
    terminal = open_colour_terminal(monkeypatch)
    shown = Progress(ENGINE, tally(), 32)
    with shown:
        shown.begin("Predict")
        for seconds in shown.watched([1.0]):
            clock.now += seconds
        assert terminal.shown()[0].startswith("Predict")
    assert terminal.shown() == [""]


def test_what_stands_in_for_standard_output_goes_with_the_progress(monkeypatch):
    terminal = open_colour_terminal(monkeypatch)
    shown = Progress(ENGINE, tally(), 32)
    shown.__enter__()
    assert sys.stdout is terminal  # Ctrl-C before the block would not be followed by an exit
    shown.begin("Epoch 1/1")
    assert sys.stdout is not terminal
    shown.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert sys.stdout is terminal


@pytest.mark.parametrize("verbose", ["yes", 3, -1, None, 1.5])
def test_verbose_is_checked(verbose):
    with pytest.raises(ValueError, match='verbose must be "auto", 0, 1 or 2, got'):
        check_verbose(verbose)


DEFAULT = (
    "optimizer: gradient descent, learning_rate=0.01",
    '(the default here; Keras takes RMSprop: compile("rmsprop", ...))',
)


def fit(verbose=1, callbacks=None):
    """Trains the same model each time; returns its history."""
    torch.manual_seed(1)
    x = torch.rand(64, 4)
    model = Sequential([Dense(8, activation="relu"), Dense(1)])
    model.compile(loss="mean_squared_error", metrics=["accuracy"])
    return model.fit(
        x, x.sum(1), epochs=3, verbose=verbose, callbacks=callbacks, validation_split=0.25
    ).history


class Stubborn(io.StringIO):
    """A user's own stream, which is out of order."""

    def write(self, text):
        raise RuntimeError("no paper")


def open_pipe_without_reader():
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


def open_vanished_terminal():
    ours, theirs = pty.openpty()
    os.close(ours)
    return os.fdopen(theirs, "w")


def open_full_disk():
    return os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")


def open_closed_file():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("verbose", [1, 2])
@pytest.mark.parametrize(
    "open_stream",
    [
        open_pipe_without_reader,
        open_vanished_terminal,
        open_closed_file,
        open_full_disk,
        Stubborn,
    ],
)
def test_training_goes_on_without_its_display(monkeypatch, open_stream, verbose):
    expected = fit(verbose=0)
    monkeypatch.setattr(sys, "stdout", stream := open_stream())
    with pytest.warns(RuntimeWarning, match="progress has ended, the work goes on") as warned:
        assert fit(verbose) == expected
    assert len(warned) == 1
    with suppress(OSError):  # what it could not write is still in its buffer
        stream.close()


def open_pty(monkeypatch):
    """A real terminal of 80 columns in place of sys.stdout, redrawn after every run."""
    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setattr(progress, "INTERVAL", 0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    ours, theirs = pty.openpty()
    monkeypatch.setattr(sys, "stdout", stream := os.fdopen(theirs, "w", encoding="utf-8"))
    return ours, stream


def test_a_terminal_that_vanishes_ends_the_display_alone(monkeypatch):
    expected = fit(verbose=0)
    ours, stream = open_pty(monkeypatch)
    vanish = LambdaCallback(on_epoch_end=lambda epoch, logs: epoch or os.close(ours))
    with pytest.warns(RuntimeWarning, match="progress has ended, the work goes on") as warned:
        assert fit(callbacks=vanish) == expected
    assert len(warned) == 1
    assert sys.stdout is stream
    with suppress(OSError):
        stream.close()


def test_a_terminal_of_80_columns_shows_whole_lines(monkeypatch):
    ours, stream = open_pty(monkeypatch)
    threads = []

    def tell(batch, logs):
        threads.append(threading.active_count())
        print("batch", batch)

    before = threading.active_count()
    fit(callbacks=LambdaCallback(on_train_batch_end=tell))
    assert sys.stdout is stream
    print("the end", flush=True)
    sent = b""
    while b"the end" not in sent:
        sent += os.read(ours, 2**16)
    os.close(ours)
    stream.close()
    text = sent.decode().replace("\r\n", "\n")
    (screen := Terminal()).write(text)
    shown = screen.shown()
    assert shown[:2] == [DEFAULT[0], f"  {DEFAULT[1]}"]
    assert [re.sub(r"^(Epoch ./3).*", r"\1", line) for line in shown[2:]] == [
        line for epoch in (1, 2, 3) for line in ("batch 0", "batch 1", f"Epoch {epoch}/3")
    ] + ["the end", ""]
    assert max(map(len, shown)) < 80
    assert "1/2" in text  # the line that changed
    assert set(threads) == {before}


def fitted(model, capsys, **options):
    """What fit writes into a file."""
    model.fit(torch.rand(8, 2), torch.rand(8), **options)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("verbose", [1, 2, "auto"])
def test_fit_says_once_which_optimizer_nobody_chose(verbose, capsys):
    model = Sequential([Dense(1)])
    model.compile(loss="mse")
    assert fitted(model, capsys, verbose=0) == []
    assert fitted(model, capsys, verbose=verbose, epochs=0) == []
    line, epoch = fitted(model, capsys, verbose=verbose)
    assert line == " ".join(DEFAULT)
    assert epoch.startswith("Epoch 1/1 ")
    assert len(fitted(model, capsys, verbose=verbose)) == 1
    model.compile(loss="mse")
    model.optimizer.learning_rate = 0.5
    assert "descent, learning_rate=0.5 (the" in fitted(model, capsys, verbose=verbose)[0]


def test_fit_says_nothing_of_an_optimizer_that_was_chosen(capsys):
    for optimizer in ("sgd", SGD()):
        model = Sequential([Dense(1)])
        model.compile(optimizer, "mse")
        assert len(fitted(model, capsys)) == 1
        model.evaluate(torch.rand(8, 2), torch.rand(8), verbose=0)
