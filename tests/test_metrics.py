"""torchnn.metrics: values by hand, one per sample, and names."""

import pytest
import torch

from torchnn import metrics


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_accuracy_of_one_output_has_its_threshold_at_a_half(shape, device):
    y_true = torch.tensor([0, 0, 1, 1], device=device)
    y_pred = torch.tensor([0.2, 0.6, 0.5, 0.51], device=device).reshape(shape)
    values = metrics.Accuracy().per_sample(y_true, y_pred)
    assert values.tolist() == [1, 0, 0, 1]  # 0.5 itself is no yes
    assert metrics.Accuracy()(y_true, y_pred).item() == 0.5


@pytest.mark.parametrize(
    "y_true",
    [
        [2, 0, 0],
        [[2], [0], [0]],
        [[0, 0, 1], [1, 0, 0], [1, 0, 0]],
        [[0.1, 0.1, 0.8], [0.6, 0.4, 0.0], [0.5, 0.3, 0.2]],
    ],
)
def test_accuracy_of_several_outputs_compares_the_largest(y_true, device):
    y_pred = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], device=device)
    values = metrics.Accuracy().per_sample(torch.tensor(y_true, device=device), y_pred)
    assert values.tolist() == [1, 1, 0]


def test_binary_accuracy_is_the_share_of_right_outputs():
    y_true, y_pred = torch.tensor([[1, 0], [1, 1]]), torch.tensor([[0.8, 0.7], [0.9, 0.6]])
    assert metrics.BinaryAccuracy().per_sample(y_true, y_pred).tolist() == [0.5, 1]
    strict = metrics.BinaryAccuracy(threshold=0.85)
    assert strict.per_sample(y_true, y_pred).tolist() == [0.5, 0.5]


def test_errors_are_means_over_the_outputs(device):
    y_true = torch.tensor([[1, 2], [3, 4]], device=device)
    y_pred = torch.tensor([[1.0, 4.0], [0.0, 3.0]], device=device)
    assert metrics.MeanSquaredError().per_sample(y_true, y_pred).tolist() == [2, 5]
    assert metrics.MeanAbsoluteError().per_sample(y_true, y_pred).tolist() == [1, 2]
    assert metrics.MeanSquaredError()(y_true, y_pred).item() == 3.5


def test_every_sample_has_one_value_whatever_the_axes():
    y_true, y_pred = torch.zeros(4, 3, 2), torch.ones(4, 3, 2)
    for name in metrics.NAMES:
        assert metrics.get(name).per_sample(y_true, y_pred).shape == (4,)


def test_half_precision_predictions_get_means_in_float32():
    y_true, y_pred = torch.zeros(1, 3), torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.bfloat16)
    values = metrics.MeanSquaredError().per_sample(y_true, y_pred)
    assert values.dtype == torch.float32
    assert values.tolist() == [3]


def test_arrays_and_lists_will_do():
    assert metrics.MeanAbsoluteError()([1, 2], [[1.5], [1.5]]).item() == 0.5


@pytest.mark.parametrize("name", ["binary_accuracy", "mse", "mae", "accuracy"])
def test_other_shapes_are_never_broadcast(name):
    with pytest.raises(ValueError, match="does not fit"):
        metrics.get(name)([1.0, 2.0], [[1.0, 2.0, 3.0]])


@pytest.mark.parametrize("name", metrics.NAMES)
def test_a_metric_by_name_is_called_as_it_was_asked_for(name):
    assert metrics.get(name).name == name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("acc", metrics.Accuracy),
        ("Accuracy", metrics.Accuracy),
        ("BinaryAccuracy", metrics.BinaryAccuracy),
        ("mse", metrics.MeanSquaredError),
        ("mae", metrics.MeanAbsoluteError),
    ],
)
def test_names_are_resolved(name, kind):
    assert type(metrics.get(name)) is kind


def test_a_metric_is_returned_as_it_is():
    metric = metrics.BinaryAccuracy()
    assert metrics.get(metric) is metric
    assert repr(metric) == "BinaryAccuracy(name='binary_accuracy')"


@pytest.mark.parametrize(
    ("function", "values"),
    [
        (lambda y_true, y_pred: (y_true - y_pred).abs(), [1, 2]),
        (lambda y_true, y_pred: (y_true - y_pred).abs().flatten(), [1, 2]),
        (lambda y_true, y_pred: (y_true - y_pred).abs().mean(), [1.5, 1.5]),
        (lambda y_true, y_pred: y_true > 1, [0, 1]),
    ],
)
def test_a_function_becomes_a_metric(function, values):
    metric = metrics.get(function)
    assert metric.name == "<lambda>"
    assert metric.per_sample(torch.tensor([1, 2]), torch.zeros(2, 1)).tolist() == values


def test_an_unknown_name_is_an_error_with_the_list():
    message = "^unknown metric 'acuracy': did you mean 'accuracy'. Known: accuracy, acc, "
    with pytest.raises(ValueError, match=message):
        metrics.get("acuracy")


@pytest.mark.parametrize("value", [None, 3, metrics.Accuracy])
def test_what_is_no_metric_is_a_type_error(value):
    with pytest.raises(TypeError, match=r"^metric must be "):
        metrics.get(value)
