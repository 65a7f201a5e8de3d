"""torchnn.optimizers.schedules against Keras's formulas, worked out by hand."""

import copy
import pickle

import pytest

from torchnn.optimizers import schedules

EXPONENTIAL = schedules.ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5)
INVERSE = schedules.InverseTimeDecay(0.1, decay_steps=10, decay_rate=3.0)
PIECES = schedules.PiecewiseConstantDecay([10, 20], [1.0, 0.5, 0.1])
POLYNOMIAL = schedules.PolynomialDecay(0.9, decay_steps=10, end_learning_rate=0.1, power=2)
COSINE = schedules.CosineDecay(0.2, decay_steps=10, alpha=0.5)
WARM = schedules.CosineDecay(0.0, decay_steps=10, warmup_target=0.2, warmup_steps=4)


@pytest.mark.parametrize(
    ("schedule", "step", "rate"),
    [
        (EXPONENTIAL, 0, 0.1),
        (EXPONENTIAL, 5, 0.1 * 0.5**0.5),
        (EXPONENTIAL, 20, 0.025),
        (schedules.ExponentialDecay(0.1, 10, 0.5, staircase=True), 19, 0.05),
        (INVERSE, 0, 0.1),
        (INVERSE, 5, 0.04),
        (INVERSE, 10, 0.025),
        (schedules.InverseTimeDecay(0.1, 10, 3.0, staircase=True), 19, 0.025),
        (PIECES, 0, 1.0),
        (PIECES, 10, 1.0),
        (PIECES, 11, 0.5),
        (PIECES, 20, 0.5),
        (PIECES, 21, 0.1),
        (POLYNOMIAL, 0, 0.9),
        (POLYNOMIAL, 5, 0.3),
        (POLYNOMIAL, 10, 0.1),
        (POLYNOMIAL, 1000, 0.1),
        (schedules.PolynomialDecay(0.9, 10, 0.1, cycle=True), 0, 0.9),
        (schedules.PolynomialDecay(0.9, 10, 0.1, cycle=True), 10, 0.1),
        (schedules.PolynomialDecay(0.9, 10, 0.1, cycle=True), 15, 0.3),
        (COSINE, 0, 0.2),
        (COSINE, 5, 0.15),
        (COSINE, 10, 0.1),
        (COSINE, 1000, 0.1),
        (WARM, 0, 0.0),
        (WARM, 1, 0.05),
        (WARM, 4, 0.2),
        (WARM, 9, 0.1),
        (WARM, 14, 0.0),
    ],
)
def test_schedule_matches_its_formula(schedule, step, rate):
    assert schedule(step) == pytest.approx(rate, rel=1e-12, abs=1e-16)


@pytest.mark.parametrize("schedule", [EXPONENTIAL, INVERSE, PIECES, POLYNOMIAL, COSINE])
def test_schedules_copy_and_pickle(schedule):
    assert copy.deepcopy(schedule) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.ExponentialDecay(-1, 10, 0.5), "^initial_learning_rate must be "),
        (lambda: schedules.ExponentialDecay(0.1, 0, 0.5), "^decay_steps must be "),
        (lambda: schedules.InverseTimeDecay(0.1, 10, -0.5), "^decay_rate must be "),
        (lambda: schedules.PolynomialDecay(0.1, 10, power=0), "^power must be "),
        (lambda: schedules.CosineDecay(0.1, 10, warmup_target=-1), "^warmup_target must be "),
        (
            lambda: schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2]),
            "^values must be one more than boundaries, got 2 values and 2 boundaries",
        ),
        (
            lambda: schedules.PiecewiseConstantDecay([2, 1], [0.1, 0.2, 0.3]),
            "^boundaries must increase",
        ),
    ],
)
def test_bad_arguments_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: schedules.ExponentialDecay(0.1, 2, 0.5, "no"),
            "staircase must be True or False, got 'no'",
        ),
        (
            lambda: schedules.InverseTimeDecay(0.1, 2, 0.5, 1),
            "staircase must be True or False, got 1",
        ),
        (
            lambda: schedules.PolynomialDecay(0.1, 2, cycle=None),
            "cycle must be True or False, got None",
        ),
        (
            lambda: schedules.PiecewiseConstantDecay(["2"], [1.0, 0.5]),
            "boundaries must be a .* got '2'",
        ),
    ],
)
def test_arguments_of_another_kind_are_errors(make, message):
    with pytest.raises(TypeError, match=f"^{message}$"):
        make()
