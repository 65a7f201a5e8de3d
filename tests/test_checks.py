"""torchnn.checks: what passes, what it becomes, and the sentence for what does not."""

import numpy as np
import pytest
import torch

from torchnn import checks

NOT_INTEGERS = [2.5, 3.0, "3", True, None, np.float32(3), np.bool_(True), [3]]
NOT_NUMBERS = ["0.5", True, None, np.bool_(True), 1j, [0.5]]
NOT_FINITE = [float("nan"), float("inf"), float("-inf"), np.float32("nan")]
REALS = [
    checks.number,
    checks.positive_float,
    checks.non_negative_float,
    checks.fraction,
]


@pytest.mark.parametrize("value", [1, 25, np.int64(25), np.uint8(1)])
@pytest.mark.parametrize("check", [checks.positive_int, checks.non_negative_int])
def test_integers_come_back_as_int(check, value):
    assert check("units", value) == value
    assert type(check("units", value)) is int


@pytest.mark.parametrize("value", NOT_INTEGERS)
@pytest.mark.parametrize("check", [checks.positive_int, checks.non_negative_int])
def test_what_is_no_integer_is_a_type_error(check, value):
    with pytest.raises(TypeError, match=r"^units must be a .* integer, got "):
        check("units", value)


def test_integers_have_a_least_value():
    assert checks.non_negative_int("epochs", 0) == 0
    with pytest.raises(ValueError, match=r"^units must be a positive integer, got 0$"):
        checks.positive_int("units", 0)
    with pytest.raises(ValueError, match=r"^epochs must be a non-negative integer, got -1$"):
        checks.non_negative_int("epochs", -1)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5)])
@pytest.mark.parametrize("check", REALS)
def test_numbers_come_back_as_float(check, value):
    assert check("rate", value) == 0.5
    assert type(check("rate", value)) is float


@pytest.mark.parametrize("value", NOT_NUMBERS)
@pytest.mark.parametrize("check", REALS)
def test_what_is_no_number_is_a_type_error(check, value):
    with pytest.raises(TypeError, match=r"^rate must be a "):
        check("rate", value)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("check", REALS)
def test_numbers_must_be_finite(check, value):
    with pytest.raises(ValueError, match=r"^rate must be a "):
        check("rate", value)


def test_an_int_is_a_number():
    assert checks.non_negative_float("learning_rate", 1) == 1.0


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (checks.positive_float, 0.0),
        (checks.non_negative_float, -0.1),
        (checks.fraction, 1.0),
        (checks.fraction, -0.1),
    ],
)
def test_numbers_have_a_range(check, value):
    with pytest.raises(ValueError, match=rf"^rate must be a .*, got {value}$"):
        check("rate", value)


def test_choice_lists_the_options():
    assert checks.choice("mode", "min", ("min", "max")) == "min"
    for value in ("mean", None, ["min"]):
        with pytest.raises(ValueError, match=r"^mode must be one of min, max, got "):
            checks.choice("mode", value, ("min", "max"))


def test_tensor_leaves_a_tensor_alone():
    x = torch.zeros(2)
    assert checks.tensor("x", x) is x


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2], [3, 4]],
        np.array([[1.0, 2.0], [3.0, 4.0]]),
        np.array([[3, 4], [1, 2]])[::-1],
        np.array([[1, 2], [3, 4]], dtype=">i4"),
        [np.array([1, 2]), np.array([3, 4])],
    ],
)
def test_tensor_takes_arrays_and_lists(value):
    assert checks.tensor("x", value).tolist() == [[1, 2], [3, 4]]


def test_tensor_copies_a_read_only_array():
    array = np.arange(3.0)
    array.flags.writeable = False
    checks.tensor("x", array).zero_()
    assert array.tolist() == [0, 1, 2]


@pytest.mark.parametrize("value", ["abc", ["a", "b"], [None], object(), np.array([1, "b"], object)])
def test_tensor_refuses_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"^x must hold numbers, got dtype "):
        checks.tensor("x", value)


def test_tensor_refuses_ragged_lists():
    with pytest.raises(ValueError, match=r"^x must have rows of equal length"):
        checks.tensor("x", [[1, 2], [3]])


def test_matched_gives_targets_the_predictions_shape_and_dtype(device):
    y_pred = torch.zeros(3, 1, dtype=torch.float64, device=device)
    y_true = checks.matched(torch.tensor([1, 0, 1]), y_pred)
    assert y_true.shape == (3, 1)
    assert y_true.dtype == torch.float64
    assert y_true.device == y_pred.device


@pytest.mark.parametrize(
    ("y_true", "y_pred"), [((3,), (3, 2)), ((3, 1), (3,)), ((1,), (3, 1)), ((3, 1), (3, 2))]
)
def test_matched_never_broadcasts(y_true, y_pred):
    with pytest.raises(ValueError, match=r"^y_true of shape .* does not fit y_pred of shape"):
        checks.matched(torch.zeros(y_true), torch.zeros(y_pred))
