"""torchnn.metrics of counts: by hand, over several batches, with weights and thresholds."""

import math

import numpy as np
import pytest
import torch

from torchnn import metrics

Y, P = [0, 1, 1, 1, 0], [0.9, 0.2, 0.6, 0.8, 0.5]  # at 0.5: one FP, one FN, two TP, one TN
W = [1.0, 2.0, 3.0, 4.0, 5.0]


def of(metric, y, p, weight=None, at=2):
    """The result of two batches."""
    y, p = torch.tensor(y), torch.tensor(p)
    for rows in (slice(0, at), slice(at, None)):
        own = None if weight is None else torch.tensor(weight)[rows]
        metric.update_state(y[rows], p[rows], own)
    return metric.result()


@pytest.mark.parametrize(
    ("kind", "plain", "weighted"),
    [
        (metrics.TruePositives, 2, 7),
        (metrics.FalsePositives, 1, 1),
        (metrics.TrueNegatives, 1, 5),
        (metrics.FalseNegatives, 1, 2),
        (metrics.Precision, 2 / 3, 7 / 8),
        (metrics.Recall, 2 / 3, 7 / 9),
    ],
)
def test_counts_are_those_of_all_batches(kind, plain, weighted):
    assert float(of(kind(), Y, P)) == pytest.approx(plain)
    assert float(of(kind(), Y, P, W)) == pytest.approx(weighted)


def test_there_is_one_value_for_each_threshold_in_their_order():
    metric = metrics.Precision(thresholds=[0.7, 0.1, 0.5])
    assert of(metric, Y, P).tolist() == pytest.approx([1 / 2, 3 / 5, 2 / 3])
    assert metrics.Recall(thresholds=0)([1, 0], [[0.5], [-0.5]]).item() == 1


def test_nothing_found_is_no_division():
    assert float(metrics.Precision()([1, 1], [0.1, 0.2])) == 0
    assert float(metrics.Recall()([0, 0], [0.9, 0.2])) == 0
    assert float(metrics.AUC().result()) == 0


SCORES = [[0.1, 0.2, 0.7], [0.5, 0.4, 0.1], [0.3, 0.3, 0.3]]
CLASSES = [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("options", "precision", "recall"),
    [
        ({"top_k": 2}, 2 / 6, 2 / 3),  # of equal ones, the first
        ({"top_k": 1}, 1 / 3, 1 / 3),
        ({"class_id": 1, "thresholds": 0.15}, 1 / 3, 1),
        ({"class_id": 1, "top_k": 1}, 0, 0),
        ({"top_k": 2, "thresholds": 0.45}, 1 / 2, 1 / 3),
    ],
)
def test_some_of_the_outputs_count(options, precision, recall):
    assert float(of(metrics.Precision(**options), CLASSES, SCORES)) == pytest.approx(precision)
    assert float(of(metrics.Recall(**options), CLASSES, SCORES)) == pytest.approx(recall)


def test_roc_is_the_share_of_pairs_in_order():
    # Of 6 pairs of a positive and a negative, 4 are in order: 0.8 > 0.5, 0.6 > 0.5, and so on.
    y, p = [0, 0, 1, 1, 1], [0.3, 0.55, 0.5, 0.6, 0.1]
    assert float(of(metrics.AUC(), y, p)) == pytest.approx(3 / 6)
    weight = [1.0, 2.0, 1.0, 3.0, 1.0]
    in_order = 1 * 1 + (1 + 2) * 3  # 0.5 > 0.3; 0.6 > both
    assert float(of(metrics.AUC(), y, p, weight)) == pytest.approx(in_order / (3 * 5))


def test_the_area_of_three_thresholds_is_keras_s():
    # tp = [2, 1, 0], fp = [2, 0, 0]: the trapezium between recalls of 1 and 1/2.
    metric = metrics.AUC(num_thresholds=3)
    assert float(metric([0, 0, 1, 1], [0, 0.5, 0.3, 0.9])) == 0.75


@pytest.mark.parametrize(
    ("method", "expected"), [("interpolation", 0.75), ("minoring", 0.5), ("majoring", 1.0)]
)
def test_areas_have_bounds(method, expected):
    metric = metrics.AUC(num_thresholds=3, summation_method=method)
    assert float(metric([0, 0, 1, 1], [0, 0.5, 0.3, 0.9])) == expected


def test_precision_is_interpolated_by_its_counts():
    # Thresholds -e, 0.5, 1 + e: tp = [2, 1, 0], said to be positive [4, 1, 0].
    slope, intercept = 1 / 3, 1 - 1 / 3
    expected = (slope * (1 + intercept * math.log(4 / 1)) + 1 * 1) / 2
    metric = metrics.AUC(num_thresholds=3, curve="PR")
    assert float(metric([0, 0, 1, 1], [0, 0.5, 0.3, 0.9])) == pytest.approx(expected)


def test_thresholds_of_ones_own_lie_between_the_ends():
    own = metrics.AUC(thresholds=[0.5])
    assert own.thresholds == [-1e-7, 0.5, 1 + 1e-7]
    assert float(own([0, 0, 1, 1], [0, 0.5, 0.3, 0.9])) == 0.75


def test_labels_have_areas_of_their_own():
    y, p = [[0, 1], [1, 0], [1, 1]], [[0.1, 0.2], [0.9, 0.8], [0.7, 0.4]]
    assert float(of(metrics.AUC(multi_label=True), y, p)) == pytest.approx((1 + 0) / 2)
    weighted = metrics.AUC(multi_label=True, label_weights=[3, 1])
    assert float(of(weighted, y, p)) == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match=r"multi_label=True needs predictions of shape \(N, 3\)"):
        of(metrics.AUC(multi_label=True, num_labels=3), y, p)


def test_logits_are_made_probabilities():
    y, z = [0, 1, 1, 0], [[-3.0], [4.0], [0.1], [0.0]]
    assert float(of(metrics.AUC(from_logits=True), y, z)) == 1


@pytest.mark.parametrize("kind", [metrics.AUC, metrics.Precision])
def test_what_is_no_number_is_no_positive(kind):
    metric = kind()
    metric([1, 0, 1], [math.nan, 0.2, math.inf])
    assert metric.counts(metric.totals).tp[-1 if kind is metrics.Precision else 1] == 1


F_Y = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
F_P = [[0.7, 0.2, 0.1], [0.6, 0.4, 0.0], [0.1, 0.2, 0.7], [0.2, 0.1, 0.7]]
F1 = [2 / 3, 0, 1]  # of class 0, a precision of 1/2 and a recall of 1


@pytest.mark.parametrize(
    ("average", "expected"),
    [
        (None, F1),
        ("macro", 5 / 9),
        ("micro", 3 / 4),
        ("weighted", (2 / 3 + 0 + 2) / 4),
    ],
)
def test_f1_is_of_each_class(average, expected):
    assert of(metrics.F1Score(average), F_Y, F_P).tolist() == pytest.approx(expected, abs=1e-6)


def test_f_beta_weighs_recall():
    expected = 5 * 0.5 * 1 / (4 * 0.5 + 1)
    assert float(of(metrics.FBetaScore(beta=2.0), F_Y, F_P)[0]) == pytest.approx(expected)


def test_f1_of_one_output_has_its_threshold_at_a_half():
    assert float(of(metrics.F1Score(), Y, P)) == pytest.approx(2 / 3)
    assert float(of(metrics.F1Score(threshold=0.1), Y, P)) == pytest.approx(6 / 8)
    assert float(of(metrics.F1Score(), Y, P, W)) == pytest.approx(2 * 7 / (2 * 7 + 1 + 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.Precision(thresholds=1.5), r"thresholds must lie in \[0, 1\], got 1.5"),
        (lambda: metrics.Recall(top_k=0), "top_k must be a positive integer, got 0"),
        (lambda: metrics.AUC(num_thresholds=1), "num_thresholds must be an integer from 2"),
        (lambda: metrics.AUC(curve="ROCK"), "curve must be one of ROC, PR, got 'ROCK'"),
        (lambda: metrics.F1Score(average="mean"), "average must be one of micro, macro, weighted"),
        (lambda: metrics.Recall(class_id=3)(CLASSES, SCORES), "class_id must be below 3"),
    ],
)
def test_what_cannot_be_is_said(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


@pytest.mark.parametrize("name", ["auc", "precision", "f1_score", "recall"])
def test_class_numbers_do_not_fit_several_outputs(name):
    with pytest.raises(ValueError, match="does not fit"):
        metrics.get(name)([0, 1, 2], np.array(SCORES))
