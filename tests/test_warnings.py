"""torchnn._warnings: where warnings point."""

import linecache
import warnings

import pytest
from torch import nn

from torchnn import _warnings


def as_package(function):
    """The function, as if the package had defined it."""
    scope = {"__name__": "torchnn.somewhere", "inner": function}
    exec("def outer(*arguments):\n    return inner(*arguments)", scope)
    return scope["outer"]


@pytest.mark.parametrize("wrap", [lambda f: f, as_package, lambda f: as_package(as_package(f))])
def test_a_warning_points_at_the_line_that_called_the_package(wrap):
    warn = wrap(_warnings.warn)
    with pytest.warns(UserWarning, match="^look here$") as caught:
        warn("look here")  # the user's CALL
    assert "CALL\n" in linecache.getline(caught[0].filename, caught[0].lineno)


def test_the_frames_of_pytorch_are_not_the_users():
    scope = {"__name__": "torchnn.layers.mine", "warn": _warnings.warn, "Module": nn.Module}
    exec("class Mine(Module):\n    def forward(self, x):\n        warn('from forward')", scope)
    layer = nn.Sequential(scope["Mine"]())
    with pytest.warns(UserWarning, match="^from forward$") as caught:
        layer(1)  # the user's CALL
    assert "CALL\n" in linecache.getline(caught[0].filename, caught[0].lineno)


def test_a_line_is_warned_of_once_by_default():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            _warnings.warn("look here")
    assert len(caught) == 1
