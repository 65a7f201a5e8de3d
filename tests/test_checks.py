"""torchnn.checks: what passes, what it becomes, and the sentence for what does not."""

import numpy as np
import pytest
import torch

from torchnn import _checks, activations, initializers, losses, metrics, optimizers

NOT_INTEGERS = [2.5, 3.0, "3", True, None, np.float32(3), np.bool_(True), [3]]
NOT_NUMBERS = ["0.5", True, None, np.bool_(True), 1j, [0.5]]
NOT_FINITE = [float("nan"), float("inf"), float("-inf"), np.float32("nan")]
REALS = [
    _checks.number,
    _checks.positive_float,
    _checks.non_negative_float,
    _checks.fraction,
]


@pytest.mark.parametrize("value", [1, 25, np.int64(25), np.uint8(1)])
@pytest.mark.parametrize("check", [_checks.positive_int, _checks.non_negative_int])
def test_integers_come_back_as_int(check, value):
    assert check("units", value) == value
    assert type(check("units", value)) is int


@pytest.mark.parametrize("value", NOT_INTEGERS)
@pytest.mark.parametrize("check", [_checks.positive_int, _checks.non_negative_int])
def test_what_is_no_integer_is_a_type_error(check, value):
    with pytest.raises(TypeError, match=r"^units must be a .* integer, got "):
        check("units", value)


def test_integers_have_a_least_value():
    assert _checks.non_negative_int("epochs", 0) == 0
    with pytest.raises(ValueError, match=r"^units must be a positive integer, got 0$"):
        _checks.positive_int("units", 0)
    with pytest.raises(ValueError, match=r"^epochs must be a non-negative integer, got -1$"):
        _checks.non_negative_int("epochs", -1)


@pytest.mark.parametrize("value", [0, 9, -(10**30)])
def test_bounded_integers_have_a_least_and_a_greatest_value(value):
    assert _checks.bounded_int("blocks", 8, 1, 8) == 8
    with pytest.raises(ValueError, match=rf"^blocks must be an integer from 1 to 8, got {value}$"):
        _checks.bounded_int("blocks", value, 1, 8)
    with pytest.raises(TypeError, match=r"^blocks must be an integer from 1 to 8, got 2\.5$"):
        _checks.bounded_int("blocks", 2.5, 1, 8)


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
    assert _checks.non_negative_float("learning_rate", 1) == 1.0


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (_checks.positive_float, 0.0),
        (_checks.non_negative_float, -0.1),
        (_checks.fraction, 1.0),
        (_checks.fraction, -0.1),
    ],
)
def test_numbers_have_a_range(check, value):
    with pytest.raises(ValueError, match=rf"^rate must be a .*, got {value}$"):
        check("rate", value)


def test_choice_lists_the_options():
    assert _checks.choice("mode", "min", ("min", "max")) == "min"
    for value in ("mean", None, ["min"]):
        with pytest.raises(ValueError, match=r"^mode must be one of min, max, got "):
            _checks.choice("mode", value, ("min", "max"))


@pytest.mark.parametrize("value", [True, False, np.bool_(True), np.bool_(False)])
def test_truth_comes_back_as_bool(value):
    assert _checks.truth("use_bias", value) is bool(value)


@pytest.mark.parametrize("value", [1, 0, "False", None, np.array([True]), torch.tensor(True)])
def test_what_only_counts_as_true_or_false_is_a_type_error(value):
    with pytest.raises(TypeError, match=r"^use_bias must be True or False, got "):
        _checks.truth("use_bias", value)


@pytest.mark.parametrize("value", ["float64", torch.float64, np.float64, np.dtype("float64")])
def test_a_dtype_is_pytorchs_or_a_name(value):
    assert _checks.dtype("dtype", value) is torch.float64
    assert _checks.dtype("dtype", None) is None


@pytest.mark.parametrize("value", ["int32", torch.int64, "abs", 3, bool])
def test_what_is_no_floating_dtype_is_an_error(value):
    with pytest.raises(ValueError, match=r"^dtype must be a floating dtype such as 'float32', got"):
        _checks.dtype("dtype", value)


MASKED = np.ma.masked_equal([[1.0, 2.0], [3.0, 2.0]], 2)


@pytest.mark.parametrize(
    ("value", "count"), [(MASKED, 2), (list(MASKED), 2), ((1.0, np.ma.masked), 1)]
)
@pytest.mark.parametrize("check", [_checks.unmasked, _checks.tensor])
def test_masked_entries_are_refused(check, value, count):
    message = rf"^x of it must have no masked entries, got {count}: fill them, as in x.filled\(0\)"
    with pytest.raises(ValueError, match=message):
        check("x of it", value)


def test_a_masked_array_without_masked_entries_is_an_array():
    array = np.ma.masked_equal([1.0, 3.0], 2)
    assert _checks.unmasked("x", array) is array
    assert _checks.tensor("x", array).tolist() == [1, 3]
    assert _checks.unmasked("x", None) is None


def test_tensor_leaves_a_tensor_alone():
    x = torch.zeros(2)
    assert _checks.tensor("x", x) is x


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
    assert _checks.tensor("x", value).tolist() == [[1, 2], [3, 4]]


def test_tensor_copies_a_read_only_array():
    array = np.arange(3.0)
    array.flags.writeable = False
    _checks.tensor("x", array).zero_()
    assert array.tolist() == [0, 1, 2]


@pytest.mark.parametrize("value", ["abc", ["a", "b"], [None], object(), np.array([1, "b"], object)])
def test_tensor_refuses_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"^x must hold numbers, got dtype "):
        _checks.tensor("x", value)


def test_tensor_refuses_ragged_lists():
    with pytest.raises(ValueError, match=r"^x must have rows of equal length"):
        _checks.tensor("x", [[1, 2], [3]])


def test_matched_gives_targets_the_predictions_shape_and_dtype(device):
    y_pred = torch.zeros(3, 1, dtype=torch.float64, device=device)
    y_true = _checks.matched(torch.tensor([1, 0, 1]), y_pred)
    assert y_true.shape == (3, 1)
    assert y_true.dtype == torch.float64
    assert y_true.device == y_pred.device


@pytest.mark.parametrize(
    ("y_true", "y_pred"), [((3,), (3, 2)), ((3, 1), (3,)), ((1,), (3, 1)), ((3, 1), (3, 2))]
)
def test_matched_never_broadcasts(y_true, y_pred):
    with pytest.raises(ValueError, match=r"^y_true of shape .* does not fit y_pred of shape"):
        _checks.matched(torch.zeros(y_true), torch.zeros(y_pred))


class Square:
    pass


TABLE = {"square": Square, "big_circle": list}


def resolve(value):
    return _checks.resolve("shape", value, TABLE, accept=lambda v: isinstance(v, Square))


@pytest.mark.parametrize("name", ["square", "Square", "SQUARE"])
def test_a_name_makes_a_new_object_each_time(name):
    assert isinstance(resolve(name), Square)
    assert resolve(name) is not resolve(name)


@pytest.mark.parametrize("name", ["big_circle", "BigCircle", "bigcircle"])
def test_names_ignore_capitals_and_underscores(name):
    assert _checks.find("shape", name, TABLE) == "big_circle"


def test_an_object_is_returned_as_it_is():
    square = Square()
    assert resolve(square) is square


def test_an_unknown_name_gets_a_suggestion_and_the_list():
    message = r"^unknown shape 'sqare': did you mean 'square'\? Known: square, big_circle$"
    with pytest.raises(ValueError, match=message):
        resolve("sqare")


def test_a_name_like_no_other_gets_the_list_alone():
    with pytest.raises(ValueError, match=r"^unknown shape 'xyz'\. Known: square, big_circle$"):
        resolve("xyz")


@pytest.mark.parametrize(
    ("kind", "slip", "meant"),
    [
        (losses, "mes", "mse"),
        (losses, "mean_square_error", "mean_squared_error"),
        (losses, "catagorical_crossentropi", "categorical_crossentropy"),
        (optimizers, "adm", "adam"),
        (optimizers, "rms_porp", "rmsprop"),
        (activations, "sigmiod", "sigmoid"),
        (activations, "lekyrelu", "leaky_relu"),
        (initializers, "zeroes", "zeros"),
        (initializers, "glorot", "glorot_uniform"),
        (losses, "categorical", "categorical_crossentropy"),
        (metrics, "acuracy", "accuracy"),
    ],
)
def test_a_slip_gets_the_name_that_was_meant(kind, slip, meant):
    with pytest.raises(ValueError, match=f"{slip}': did you mean '{meant}'"):
        kind.get(slip)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *[(losses, name) for name in (
            "categorical_focal_crossentropy", "dice", "tversky", "circle", "ctc", "crossentropy",
        )],
        *[(optimizers, name) for name in (
            "adafactor", "lamb", "muon", "rprop", "asgd",
        )],
        *[(activations, name) for name in (
            "celu", "glu", "prelu", "log_sigmoid", "hard_silu", "hard_tanh", "tanh_shrink",
            "soft_shrink", "squareplus", "sparse_plus", "sparsemax", "softmin", "threshold",
        )],
        *[(initializers, name) for name in ("dirac", "xavier_uniform", "sparse", "eye")],
        *[(metrics, name) for name in (
            "specificity", "iou", "mean_io_u", "kappa", "matthews", "dice", "brier", "spearman",
        )],
    ],
)  # fmt: skip
def test_the_name_of_something_else_is_no_slip(kind, name):
    with pytest.raises(ValueError, match=r"^unknown .*'\. Known: "):
        kind.get(name)


def test_a_class_is_told_to_be_instantiated():
    message = r"^shape must be an instance, got the class Square: write Square\(\)$"
    with pytest.raises(TypeError, match=message):
        resolve(Square)


@pytest.mark.parametrize("value", [None, 3, ["square"]])
def test_other_objects_are_refused(value):
    with pytest.raises(TypeError, match=r"^shape must be an object or one of square, big_circle; "):
        resolve(value)
