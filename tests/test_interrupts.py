"""Ctrl-C between two steps, never inside one."""

import os
import signal
import threading

import pytest

from torchnn._engine.interrupts import HeldInterrupt


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def three_steps(done, presses=0, releases=False, error=None):
    """Notes in done which steps are over; Ctrl-C is pressed during step 1."""
    with HeldInterrupt() as interrupt:
        for step in range(3):
            for _ in range(presses if step == 1 else 0):
                press_ctrl_c()
            if error and step == 1:
                raise error
            done.append(step)
            if releases:
                interrupt.release()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"presses": 1, "releases": True}, [0, 1]),  # the step is finished
        ({"presses": 1}, [0, 1, 2]),  # at the end at the latest
        ({"presses": 2}, [0]),  # a second one is not held
    ],
)
def test_ctrl_c_takes_effect_between_steps(options, expected):
    done = []
    with pytest.raises(KeyboardInterrupt):
        three_steps(done, **options)
    assert done == expected


def test_an_error_is_not_hidden_by_a_held_ctrl_c():
    with pytest.raises(ZeroDivisionError):
        three_steps([], presses=1, error=ZeroDivisionError())


def test_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    with HeldInterrupt() as interrupt:
        assert signal.getsignal(signal.SIGINT) != before
        interrupt.release()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_users_own_handler_is_called():
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with HeldInterrupt():
            press_ctrl_c()
            assert seen == []
        assert seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_handlers_of_the_system_stay(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        with HeldInterrupt():
            assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_do_without():
    errors = []

    def work():
        try:
            with HeldInterrupt() as interrupt:
                interrupt.release()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
