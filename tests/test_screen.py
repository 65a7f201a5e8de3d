"""A plain stream, a terminal whose last line changes, and a notebook."""

import io
import re
import sys
from types import SimpleNamespace

import pytest

from torchnn._console import screen
from torchnn._console.screen import (
    LiveScreen,
    NotebookScreen,
    PlainScreen,
    is_notebook,
    is_terminal,
)


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


class Broken(io.StringIO):
    """A stream whose writes fail, once they do."""

    error = OSError(28, "No space left on device")

    def write(self, text):
        if self.error:
            raise self.error
        return super().write(text)


class Changing:
    """A screen of some kind for a stream, and the line that changes on it."""

    def __init__(self, kind, stream):
        self.line = None
        self.screen = kind(stream, lambda: self.line)

    def __enter__(self):
        self.screen.__enter__().open()
        return self

    def __exit__(self, *exception):
        self.screen.__exit__(*exception)

    def draw(self, line):
        self.line = line
        self.screen.draw()


def test_a_plain_stream_gets_lines_and_nothing_else():
    stream = io.StringIO()
    with PlainScreen(stream) as plain:
        plain.open()
        plain.draw()
        plain.print("one")
        plain.print("two")
    assert stream.getvalue() == "one\ntwo\n"


def test_a_finished_line_replaces_the_changing_one(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with Changing(LiveScreen, terminal) as live:
        live.draw("a long changing line")
        live.draw("changed")
        assert terminal.shown() == ["changed"]
        live.screen.print("finished")
        live.draw("next")
        assert terminal.shown() == ["finished", "next"]
    assert terminal.shown() == ["finished", ""]


def test_finished_lines_alone_take_no_control_characters(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with Changing(LiveScreen, terminal) as live:
        live.draw(None)
        live.screen.print("one")
        print("two")
    assert terminal.getvalue() == "one\ntwo\n"


def test_lines_that_finish_one_after_the_other_are_written_together(monkeypatch):
    terminal, clock = open_terminal(monkeypatch), SimpleNamespace(now=100.0)
    monkeypatch.setattr(screen, "perf_counter", lambda: clock.now)
    with Changing(LiveScreen, terminal) as live:
        live.screen.print("one")
        live.screen.print("two")
        assert terminal.shown() == ["one", ""]
        print("printed")
        assert terminal.shown() == ["one", "two", "printed", ""]
        live.screen.print("three")
        clock.now += 2 * screen.INTERVAL
        live.screen.print("four")
        assert terminal.shown()[3:] == ["three", "four", ""]
        live.screen.print("five")
    assert terminal.shown()[5:] == ["five", ""]


def test_what_others_print_appears_above(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with Changing(LiveScreen, terminal) as live:
        live.draw("changing")
        print("hello")
        assert terminal.shown() == ["hello", ""]
        live.screen.print("finished")
        live.draw("changing")
        sys.stdout.writelines(["again\n", "and again\n"])
        live.draw("changing")
    assert terminal.shown() == ["hello", "finished", "again", "and again", ""]


def test_half_a_line_of_others_is_not_written_over(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with Changing(LiveScreen, terminal) as live:
        print("dots.", end="")
        live.draw("changing")
        print(".", end="")
        assert terminal.shown() == ["dots.."]
        live.screen.print("finished")
        live.draw("changing")
    assert terminal.shown() == ["dots..", "finished", ""]


def test_standard_error_of_a_terminal_goes_above_too(monkeypatch):
    terminal = open_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stderr", terminal)
    with Changing(LiveScreen, terminal) as live:
        live.draw("changing")
        print("a warning", file=sys.stderr)
    assert terminal.shown() == ["a warning", ""]
    assert sys.stderr is terminal


def test_standard_error_of_a_file_is_left_alone(monkeypatch):
    terminal = open_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stderr", errors := io.StringIO())
    with Changing(LiveScreen, terminal):
        assert sys.stderr is errors


def test_an_error_leaves_the_changing_line_standing(monkeypatch):
    terminal = open_terminal(monkeypatch)
    live = Changing(LiveScreen, terminal).__enter__()
    live.draw("half")
    live.line = "half done"
    live.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert terminal.shown() == ["half done", ""]
    assert sys.stdout is terminal


def test_what_the_user_put_in_place_of_standard_output_stays(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with Changing(LiveScreen, terminal):
        sys.stdout = own = io.StringIO()
    assert sys.stdout is own


@pytest.mark.parametrize("after", [0, 1])
def test_ctrl_c_while_a_screen_opens_gives_the_streams_back(monkeypatch, after):
    """Ctrl-C comes after so many looks at whether a stream is a terminal."""
    looks = iter([True] * after)

    class Interrupted(Terminal):
        def isatty(self):
            if next(looks, None) is None:
                raise KeyboardInterrupt
            return True

    monkeypatch.setattr(sys, "stdout", out := Interrupted())
    monkeypatch.setattr(sys, "stderr", errors := Interrupted())
    with pytest.raises(KeyboardInterrupt), LiveScreen(Terminal(), lambda: None) as live:
        live.open()
    assert (sys.stdout, sys.stderr) == (out, errors)


def test_screens_may_be_nested_and_closed_in_any_order(monkeypatch):
    terminal = open_terminal(monkeypatch)
    outer = Changing(LiveScreen, terminal).__enter__()
    inner = Changing(LiveScreen, sys.stdout).__enter__()
    inner.draw("inner changing")
    outer.draw("outer changing")
    outer.__exit__(None, None, None)
    inner.screen.print("inner finished")
    inner.__exit__(None, None, None)
    assert sys.stdout is terminal
    assert terminal.shown() == ["inner finished", ""]


def test_an_inner_screen_leaves_the_line_to_the_outer_one(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with Changing(LiveScreen, terminal) as outer:
        with Changing(LiveScreen, sys.stdout) as inner:
            inner.draw("inner changing")
        outer.draw("outer changing")
        assert terminal.shown() == ["outer changing"]


def test_other_attributes_are_the_terminals(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with Changing(LiveScreen, terminal):
        assert sys.stdout is not terminal
        assert sys.stdout.isatty()
        assert sys.stdout.encoding == terminal.encoding


@pytest.mark.parametrize("kind", [PlainScreen, LiveScreen, NotebookScreen])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("closed")])
def test_a_screen_that_fails_says_so_once_and_ends_nothing(kind, error):
    stream = Broken()
    stream.error = error
    shown = kind(stream) if kind is PlainScreen else kind(stream, lambda: "changing")
    with shown:
        shown.open()
        with pytest.warns(RuntimeWarning, match="progress has ended, the work goes on") as warned:
            shown.print("one")
        shown.draw()
        stream.error = None
        shown.print("two")
    assert [str(error) in str(warning.message) for warning in warned] == [True]
    assert stream.getvalue() == ""


def test_a_print_that_fails_is_the_users_affair(monkeypatch):
    stream = Broken()
    monkeypatch.setattr(sys, "stdout", stream)
    with Changing(LiveScreen, stream), pytest.raises(OSError, match="No space left"):
        print("hello")
    assert sys.stdout is stream


@pytest.fixture
def displays(monkeypatch):
    """The displays of a notebook: what each showed, one after the other."""
    displays = []

    def display(text, raw, display_id):
        assert raw
        assert display_id
        displays.append(shown := [text["text/plain"]])
        return SimpleNamespace(update=lambda text, raw: shown.append(text["text/plain"]))

    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return displays


def test_a_changing_line_is_one_display_of_a_notebook(displays):
    stream = io.StringIO()
    with Changing(NotebookScreen, stream) as notebook:
        notebook.draw("half")
        notebook.draw("nearly")
        notebook.screen.print("finished")
        notebook.screen.print("too quick to change")
        notebook.draw("half")
        notebook.screen.print("finished, too")
    assert displays == [["half", "nearly", "finished"], ["half", "finished, too"]]
    assert stream.getvalue() == "too quick to change\n"


def test_a_changing_line_without_an_end_leaves_the_notebook(displays):
    with Changing(NotebookScreen, io.StringIO()) as notebook:
        notebook.draw("half")
    assert displays == [["half", ""]]
    notebook = Changing(NotebookScreen, io.StringIO()).__enter__()
    notebook.draw("half")
    notebook.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert displays[1] == ["half"]


def test_streams_are_told_apart():
    class OutStream(io.StringIO):
        __module__ = "ipykernel.iostream"

    closed = io.StringIO()
    closed.close()
    assert is_terminal(Terminal())
    assert not any(map(is_terminal, [io.StringIO(), closed, None, object()]))
    assert is_notebook(OutStream())
    assert not is_notebook(io.StringIO())
