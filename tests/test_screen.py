"""A plain stream, and a terminal whose last line is redrawn."""

import io
import os
import re
import sys
import threading

import pytest

from torchnn import screen
from torchnn.screen import LiveScreen, PlainScreen


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and shows what a terminal would."""

    def isatty(self):
        return True

    def shown(self):
        lines = []
        for line in self.getvalue().split("\n"):
            cells = []
            for part in re.split("(\r|\x1b\\[K)", line):
                if part == "\r":
                    column = 0
                elif part == "\x1b[K":
                    cells = cells[:column]
                else:
                    column = len(cells) if not cells else column
                    cells[column : column + len(part)] = part
                    column += len(part)
            lines.append("".join(cells).rstrip())
        return lines


def open_terminal(monkeypatch):
    """A terminal in place of sys.stdout. No fixture: pytest puts its own back before the test."""
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    return terminal


@pytest.fixture
def still(monkeypatch):
    """No drawing but those that a test asks for."""
    monkeypatch.setattr(screen, "INTERVAL", 1000)


def test_a_plain_stream_gets_lines_and_nothing_else():
    stream = io.StringIO()
    with PlainScreen(stream) as plain:
        plain.print("one")
        plain.print("two")
    assert stream.getvalue() == "one\ntwo\n"


def test_a_thread_draws_the_changing_line(monkeypatch):
    terminal = open_terminal(monkeypatch)
    monkeypatch.setattr(screen, "INTERVAL", 0.001)
    drawn = threading.Event()

    def current():
        drawn.set()
        return "half"

    with LiveScreen(terminal, current):
        assert drawn.wait(10)
    assert terminal.shown() == [""]
    assert terminal.getvalue().count("half") >= 1


@pytest.mark.usefixtures("still")
def test_finished_lines_come_out_at_the_latest_at_the_end(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with LiveScreen(terminal, lambda: None) as live:
        live.print("one")
        live.print("two")
        assert terminal.getvalue() == ""
    assert terminal.getvalue() == "one\ntwo\n"


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize("erase", ["\x1b[K", ""])
def test_a_finished_line_replaces_the_changing_one(monkeypatch, erase):
    terminal = open_terminal(monkeypatch)
    with LiveScreen(terminal, lambda: None, erase) as live:
        live._draw("a long changing line")
        live._draw("changed")
        assert terminal.shown() == ["changed"]
        live.print("finished")
        live._draw("next")
        assert terminal.shown() == ["finished", "next"]
    assert terminal.shown() == ["finished", ""]
    assert ("\x1b" in terminal.getvalue()) == bool(erase)


@pytest.mark.usefixtures("still")
def test_what_others_print_appears_above(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with LiveScreen(terminal, lambda: None) as live:
        live._draw("changing")
        print("hello")
        assert terminal.shown() == ["hello", ""]
        live.print("finished")
        print("again", file=sys.stdout)
        live._draw("changing")
    assert terminal.shown() == ["hello", "finished", "again", ""]


@pytest.mark.usefixtures("still")
def test_half_a_line_of_others_is_not_written_over(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with LiveScreen(terminal, lambda: None) as live:
        print("dots.", end="")
        live._draw("changing")
        print(".", end="")
        assert terminal.shown() == ["dots.."]
        live.print("finished")
        live._draw("changing")
    assert terminal.shown() == ["dots..", "finished", ""]


@pytest.mark.usefixtures("still")
def test_standard_error_of_a_terminal_goes_above_too(monkeypatch):
    terminal = open_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stderr", terminal)
    with LiveScreen(terminal, lambda: None) as live:
        live._draw("changing")
        print("a warning", file=sys.stderr)
    assert terminal.shown() == ["a warning", ""]
    assert sys.stderr is terminal


@pytest.mark.usefixtures("still")
def test_standard_error_of_a_file_is_left_alone(monkeypatch):
    terminal = open_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stderr", errors := io.StringIO())
    with LiveScreen(terminal, lambda: None):
        assert sys.stderr is errors


@pytest.mark.usefixtures("still")
def test_an_error_leaves_the_changing_line_standing(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with pytest.raises(KeyboardInterrupt), LiveScreen(terminal, lambda: "half done"):
        raise KeyboardInterrupt
    assert terminal.shown() == ["half done", ""]
    assert sys.stdout is terminal


@pytest.mark.usefixtures("still")
def test_screens_may_be_nested_and_closed_in_any_order(monkeypatch):
    terminal = open_terminal(monkeypatch)
    outer = LiveScreen(terminal, lambda: None)
    outer.__enter__()
    inner = LiveScreen(sys.stdout, lambda: None)
    inner.__enter__()
    inner._draw("inner changing")
    outer._draw("outer changing")
    outer.__exit__(None, None, None)
    inner.print("inner finished")
    inner.__exit__(None, None, None)
    assert sys.stdout is terminal
    assert terminal.shown() == ["inner finished", ""]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.usefixtures("still")
def test_a_forked_worker_prints_without_the_lock(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with LiveScreen(terminal, lambda: None) as live:
        live._draw("changing")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        print("from a worker")
        assert terminal.getvalue() == "changingfrom a worker\n"
        monkeypatch.undo()


@pytest.mark.usefixtures("still")
def test_other_attributes_are_the_terminals(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with LiveScreen(terminal, lambda: None):
        assert sys.stdout is not terminal
        assert sys.stdout.isatty()
        assert sys.stdout.encoding == terminal.encoding
