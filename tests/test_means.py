"""torchnn.metrics of one value per sample: by hand, weighted and not."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import losses, metrics

Y, P, W = [[1.0, 2.0], [3.0, 5.0]], [[2.0, 2.0], [1.0, 8.0]], [1.0, 3.0]
LABELS, SCORES = [2, 0, 1], [[0.1, 0.2, 0.7], [0.2, 0.5, 0.3], [0.5, 0.3, 0.2]]
ONE_HOT = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
LOG_COSH = [math.log(math.cosh(each)) for each in (1, 0, 2, 3)]
COSINES = [6 / math.sqrt(5 * 8), 43 / math.sqrt(34 * 65)]


@pytest.mark.parametrize(
    ("kind", "of_samples"),
    [
        (metrics.MeanSquaredError, [1 / 2, 13 / 2]),
        (metrics.MeanAbsoluteError, [1 / 2, 5 / 2]),
        (metrics.MeanAbsolutePercentageError, [50, 100 * (2 / 3 + 3 / 5) / 2]),
        (
            metrics.MeanSquaredLogarithmicError,
            [math.log(3 / 2) ** 2 / 2, (math.log(4 / 2) ** 2 + math.log(9 / 6) ** 2) / 2],
        ),
        (metrics.LogCoshError, [sum(LOG_COSH[:2]) / 2, sum(LOG_COSH[2:]) / 2]),
        (metrics.CosineSimilarity, COSINES),
    ],
)
def test_a_mean_is_weighted_by_the_samples(kind, of_samples, device):
    one, other = of_samples
    metric = kind()
    y, p = torch.tensor(Y, device=device), torch.tensor(P, device=device)
    assert float(metric(y, p)) == pytest.approx((one + other) / 2)
    metric.reset_state()
    assert float(metric(y, p, sample_weight=W)) == pytest.approx((one + 3 * other) / 4)


def test_the_root_is_taken_of_the_mean_over_all_batches():
    metric = metrics.RootMeanSquaredError()
    for rows in (slice(0, 1), slice(1, 2)):
        metric.update_state(Y[rows], P[rows])
    assert float(metric.result()) == pytest.approx(math.sqrt(3.5))
    metric.reset_state()
    assert float(metric(Y, P, W)) == pytest.approx(math.sqrt((0.5 + 3 * 6.5) / 4))


def test_weights_of_time_steps_count_each():
    y, p = torch.zeros(2, 2, 1), torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    weight = [[1.0, 0.0], [0.5, 0.5]]
    expected = (1 * 1 + 9 * 0.5 + 16 * 0.5) / 2
    assert float(metrics.MeanSquaredError()(y, p, weight)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "y_true", "hits"),
    [
        (metrics.CategoricalAccuracy(), ONE_HOT, [1, 0, 0]),
        (metrics.CategoricalAccuracy(), LABELS, [1, 0, 0]),
        (metrics.SparseCategoricalAccuracy(), LABELS, [1, 0, 0]),
        (metrics.SparseCategoricalAccuracy(), [[2], [0], [1]], [1, 0, 0]),
        (metrics.TopKCategoricalAccuracy(k=2), ONE_HOT, [1, 0, 1]),
        (metrics.SparseTopKCategoricalAccuracy(k=2), LABELS, [1, 0, 1]),
        (metrics.SparseTopKCategoricalAccuracy(), LABELS, [1, 1, 1]),
        (metrics.Accuracy(), SCORES, [1, 1, 1]),
    ],
)
def test_hits_are_counted(metric, y_true, hits):
    metric = metric.fresh()
    assert float(metric(y_true, SCORES)) == pytest.approx(sum(hits) / 3)
    metric.reset()
    weights = [1.0, 2.0, 5.0]
    assert float(metric(y_true, SCORES, weights)) == pytest.approx(np.dot(hits, weights) / 8)


@pytest.mark.parametrize(
    "kind", [metrics.SparseCategoricalAccuracy, metrics.SparseTopKCategoricalAccuracy]
)
def test_class_numbers_are_no_rows(kind):
    with pytest.raises(ValueError, match="holds no class numbers for"):
        kind()(ONE_HOT, SCORES)


def test_a_class_that_there_is_none_of_is_never_hit():
    assert float(metrics.SparseTopKCategoricalAccuracy(k=3)([7, -1, 0], SCORES)) == pytest.approx(
        1 / 3
    )


def test_crossentropies_are_logarithms_of_the_class_s_probability():
    expected = -sum(math.log(p) for p in (0.7, 0.2, 0.3)) / 3
    logits = torch.tensor(SCORES).log() + 1
    for metric, y in (
        (metrics.CategoricalCrossentropy, ONE_HOT),
        (metrics.SparseCategoricalCrossentropy, LABELS),
    ):
        assert float(metric()(y, SCORES)) == pytest.approx(expected)
        assert float(metric(from_logits=True)(y, logits)) == pytest.approx(expected)
    binary = metrics.BinaryCrossentropy()
    assert float(binary([1, 0], [[0.8], [0.4]])) == pytest.approx(-math.log(0.8 * 0.6) / 2)


R2_Y, R2_P = [[1.0, 0.0], [4.0, 2.0], [3.0, 4.0]], [[2.0, 1.0], [4.0, 2.0], [4.0, 2.0]]
R2 = [1 - 2 / (14 / 3), 1 - 5 / 8]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, sum(R2) / 2),
        ({"class_aggregation": None}, R2),
        (
            {"class_aggregation": "variance_weighted_average"},
            (R2[0] * 14 / 3 + R2[1] * 8) / (14 / 3 + 8),
        ),
        ({"num_regressors": 1}, 1 - (1 - sum(R2) / 2) * 2 / 1),
        ({"num_regressors": 2}, sum(R2) / 2),
    ],
)
def test_r2_is_that_of_all_batches_together(options, expected, device):
    metric = metrics.R2Score(**options)
    y, p = torch.tensor(R2_Y, device=device), torch.tensor(R2_P, device=device)
    metric.update_state(y[:2], p[:2])
    metric.update_state(y[2:], p[2:])
    assert metric.result().tolist() == pytest.approx(expected)


def test_r2_of_weights_is_that_of_so_many_samples():
    twice = [0, 1, 1, 2, 2, 2]
    expected = metrics.R2Score()(np.array(R2_Y)[twice], np.array(R2_P)[twice])
    assert float(metrics.R2Score()(R2_Y, R2_P, [1.0, 2.0, 3.0])) == pytest.approx(float(expected))


LOGITS, YES = [[-0.2, 0.3], [0.2, -3.0], [0.7, 2.0]], [[0, 1], [1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("loss", "y_true", "y_pred", "expected"),
    [
        (losses.BinaryCrossentropy(), YES, LOGITS, 3 / 6),
        (losses.BinaryCrossentropy(from_logits=True), YES, LOGITS, 5 / 6),
        (nn.BCEWithLogitsLoss(), YES, LOGITS, 5 / 6),
        (nn.BCELoss(), YES, LOGITS, 3 / 6),
        (losses.CategoricalCrossentropy(), ONE_HOT, SCORES, 1 / 3),
        (losses.CategoricalCrossentropy(axis=1), ONE_HOT, SCORES, 1 / 3),
        (nn.CrossEntropyLoss(), LABELS, SCORES, 1 / 3),
        (nn.NLLLoss(), LABELS, SCORES, 1 / 3),
        (losses.MeanSquaredError(), ONE_HOT, SCORES, 1 / 3),
        (losses.MeanSquaredError(), [1, 0, 1], [[0.7], [0.6], [0.9]], 2 / 3),
    ],
)
def test_accuracy_is_what_goes_with_the_loss(loss, y_true, y_pred, expected):
    metric = metrics.get("accuracy", losses.get(loss))
    assert float(metric(y_true, y_pred)) == pytest.approx(expected)


def test_accuracy_of_pytorch_s_losses_has_the_classes_behind_the_samples():
    z = torch.tensor([[[0.1, 0.9], [0.8, 0.3], [0.2, 0.1]]])  # (1, 3 classes, 2 places)
    metric = metrics.get("acc", losses.get(nn.CrossEntropyLoss()))
    assert float(metric([[1, 2]], z)) == 0.5


def test_accuracy_follows_what_the_loss_becomes():
    loss = losses.BinaryCrossentropy()
    metric = metrics.get("accuracy", loss).fresh()
    loss.from_logits = True
    assert float(metric([1, 1], [[0.3], [-0.3]])) == 0.5


@pytest.mark.parametrize(
    ("loss", "y_true", "y_pred", "kind"),
    [
        (losses.BinaryCrossentropy(from_logits=True), YES, LOGITS, "binary_crossentropy"),
        (losses.CategoricalCrossentropy(), ONE_HOT, SCORES, "categorical_crossentropy"),
        (nn.CrossEntropyLoss(), LABELS, SCORES, "sparse_categorical_crossentropy"),
    ],
)
def test_crossentropy_is_of_the_kind_of_the_loss(loss, y_true, y_pred, kind):
    loss = losses.get(loss)
    same = metrics.get(kind)
    same.from_logits = loss.from_logits
    if kind == "binary_crossentropy":
        same = metrics.get(loss)
    assert metrics.get("ce", loss)(y_true, y_pred) == same(y_true, y_pred)


def test_a_loss_is_a_metric():
    metric = metrics.get(losses.MeanSquaredError())
    assert metric.name == "mean_squared_error"
    assert float(metric(Y, P, W)) == pytest.approx((0.5 + 3 * 6.5) / 4)


def test_a_function_has_its_further_arguments():
    metric = metrics.MeanMetricWrapper(lambda y, p, power: (y - p) ** power, name="cubes", power=3)
    assert float(metric([[1.0]], [[3.0]])) == -8
    assert metric.name == "cubes"


def test_a_function_gets_class_numbers_as_they_are():
    def hits(y_true, y_pred):
        return y_true == y_pred.argmax(-1)

    assert float(metrics.get(hits)(LABELS, SCORES)) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("name", "y_true", "y_pred", "expected"),
    [
        ("mean_squared_error", Y, P, [0.5, 6.5]),
        ("mean_absolute_error", [1.0, 2.0], [2.0, 5.0], 2),
        ("mean_absolute_percentage_error", [[2.0]], [[3.0]], [50]),
        ("mean_squared_logarithmic_error", [[0.0]], [[math.e - 1]], [1]),
        ("binary_accuracy", [[1, 0]], [[0.7, 0.6]], [[1, 0]]),
        ("categorical_accuracy", ONE_HOT, SCORES, [1, 0, 0]),
        ("sparse_categorical_accuracy", LABELS, SCORES, [1, 0, 0]),
        ("top_k_categorical_accuracy", ONE_HOT, SCORES, [1, 1, 1]),
        ("sparse_top_k_categorical_accuracy", LABELS, SCORES, [1, 1, 1]),
    ],
)
def test_what_classes_measure_functions_return(name, y_true, y_pred, expected):
    function = getattr(metrics, name)
    np.testing.assert_allclose(function(y_true, y_pred), expected, rtol=1e-5)
    metric = metrics.get(function)
    assert type(metric) is type(metrics.get(name))
    assert metric.name == name
