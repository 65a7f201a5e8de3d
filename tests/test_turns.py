"""One fit of a model at a time."""

import gc
import threading
import weakref

import pytest
from torch import nn

from torchnn._training.turns import check_free, fitting


def in_another_thread(function, *arguments):
    """Returns what the function raises there, or None."""
    raised = []

    def run():
        try:
            function(*arguments)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


def fit(model):
    with fitting(model):
        pass


def test_a_second_fit_is_refused_until_the_first_is_over():
    model, other = nn.Identity(), nn.Identity()
    with fitting(model):
        with pytest.raises(RuntimeError, match=r"^fit is at work on this model already"):
            fit(model)
        with pytest.raises(RuntimeError):  # the refused one has not set it free
            fit(model)
        assert isinstance(in_another_thread(fit, model), RuntimeError)
        fit(other)
    fit(model)


def test_a_fit_that_fails_is_over():
    model = nn.Identity()
    with pytest.raises(ZeroDivisionError), fitting(model):
        raise ZeroDivisionError
    fit(model)


def test_other_threads_than_that_of_the_fit_find_the_model_taken():
    model = nn.Identity()
    check_free(model)
    with fitting(model):
        check_free(model)
        raised = in_another_thread(check_free, model)
        assert str(raised).startswith("fit is at work on this model in another thread")
    assert in_another_thread(check_free, model) is None


def test_a_model_that_was_fitted_is_not_kept():
    model = nn.Identity()
    fit(model)
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()
