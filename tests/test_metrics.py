"""torchnn.metrics: values by hand, one per sample, and names."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import metrics


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_accuracy_of_one_output_has_its_threshold_at_a_half(shape, device):
    y_true = torch.tensor([0, 0, 1, 1], device=device)
    y_pred = torch.tensor([0.2, 0.6, 0.5, 0.51], device=device).reshape(shape)
    values = metrics.get("accuracy").values(y_true, y_pred)
    assert values.flatten().tolist() == [1, 0, 0, 1]  # 0.5 itself is no yes
    assert metrics.get("accuracy")(y_true, y_pred) == 0.5


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
    values = metrics.get("accuracy").values(torch.tensor(y_true, device=device), y_pred)
    assert values.tolist() == [1, 1, 0]


def test_binary_accuracy_is_the_share_of_right_outputs():
    y_true, y_pred = torch.tensor([[1, 0], [1, 1]]), torch.tensor([[0.8, 0.7], [0.9, 0.6]])
    assert metrics.BinaryAccuracy()(y_true, y_pred) == 0.75
    assert metrics.BinaryAccuracy(threshold=0.85)(y_true, y_pred) == 0.5


def test_errors_are_means_over_the_outputs(device):
    y_true = torch.tensor([[1, 2], [3, 4]], device=device)
    y_pred = torch.tensor([[1.0, 4.0], [0.0, 3.0]], device=device)
    assert metrics.MeanSquaredError()(y_true, y_pred) == 3.5
    assert metrics.MeanAbsoluteError()(y_true, y_pred) == 1.5


def test_half_precision_predictions_get_means_in_float32():
    y_true, y_pred = torch.zeros(1, 3), torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.bfloat16)
    assert metrics.MeanSquaredError()(y_true, y_pred) == 3


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
        ("acc", metrics.LossAccuracy),
        ("Accuracy", metrics.LossAccuracy),
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
        (lambda y_true, y_pred: 1.5, [1.5, 1.5]),
        (lambda y_true, y_pred: np.array([1.0, 2.0]), [1, 2]),
    ],
)
def test_a_function_becomes_a_metric(function, values):
    metric = metrics.get(function)
    assert metric.name == "<lambda>"
    assert metric(torch.tensor([1, 2]), torch.zeros(2, 1)) == sum(values) / 2


def test_a_module_gets_its_arguments_in_its_own_order():
    metric = metrics.get(nn.BCELoss())
    y_true, y_pred = torch.tensor([1.0, 0.0]), torch.tensor([[0.25], [0.5]])
    assert metric.name == "BCELoss"
    assert metric(y_true, y_pred).item() == pytest.approx(math.log(8) / 2)


def test_a_module_of_class_numbers_gets_them():
    z = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    expected = -z.log_softmax(1)[[0, 1], [1, 2]].mean()
    assert metrics.get(nn.CrossEntropyLoss())([1.0, 2.0], z) == pytest.approx(expected.item())


class Span:
    """The largest prediction less the smallest target: no mean over batches. Like torchmetrics."""

    def __init__(self):
        self.seen = []

    def reset(self):
        self.seen = []

    def update(self, preds, target):
        assert preds.shape == target.shape
        self.seen.append((preds.max(), target.min()))

    def compute(self):
        return max(p for p, _ in self.seen) - min(t for _, t in self.seen)


def test_an_object_that_accumulates_computes_of_all_it_has_seen():
    metric = metrics.get(Span())
    assert metric.name == "Span"
    for y_true, y_pred in (([1.0, 5.0], [[2.0], [9.0]]), ([3.0, 4.0], [[7.0], [8.0]])):
        metric.update_state(y_true, y_pred)
    assert metric.result() == 8.0
    assert metric.fresh().metric.seen == []
    assert metric([3.0], [[11.0]]) == 10.0
    metric.reset_state()
    assert metric.metric.seen == []


def test_two_objects_of_a_kind_can_have_names():
    metric = metrics.TorchAccumulator(Span(), name="span")
    assert repr(metrics.get(metric)) == "TorchAccumulator(name='span')"


class Kept(nn.Module):
    """Keeps what it gets."""

    def reset(self):
        self.preds = self.target = None

    def update(self, preds, target):
        self.preds, self.target = preds, target

    def compute(self):
        return torch.zeros(())


ForClasses = type("ForClasses", (Kept,), {"__module__": "some.classification.metric"})
OfThree = type("OfThree", (ForClasses,), {"num_classes": 3})
ONE_HOT = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("kind", "y_true", "outputs", "target"),
    [
        (Kept, [0.0, 1.0], 1, torch.tensor([0.0, 1.0])),
        (Kept, [[0.0], [1.0]], 1, torch.tensor([0.0, 1.0])),
        (Kept, ONE_HOT, 3, torch.tensor(ONE_HOT)),
        (Kept, [1.0, 2.0], 3, torch.tensor([1, 2])),
        (ForClasses, [[0.0], [1.0]], 1, torch.tensor([0, 1])),
        (ForClasses, [[1.0], [2.0]], 3, torch.tensor([1, 2])),
        (ForClasses, ONE_HOT, 3, torch.tensor(ONE_HOT).long()),
        (OfThree, ONE_HOT, 3, torch.tensor([1, 2])),
    ],
)
def test_targets_come_in_the_form_of_torchmetrics(kind, y_true, outputs, target, device):
    metric = metrics.get(kind())
    metric.update_state(torch.tensor(y_true, device=device), torch.rand(2, outputs, device=device))
    assert metric.metric.preds.shape == ((2,) if outputs == 1 else (2, outputs))
    assert metric.metric.target.dtype == target.dtype
    assert torch.equal(metric.metric.target.cpu(), target)


@pytest.mark.parametrize(
    ("y_true", "outputs", "message"),
    [
        ([0.3, 1.0], 1, "y must hold whole numbers"),
        ([1.9, 1.0], 3, "y must hold whole numbers"),
        ([[1.0, 0.0], [0.0, 1.0]], 3, "does not fit"),
    ],
)
def test_targets_that_have_no_such_form_are_an_error(y_true, outputs, message):
    with pytest.raises(ValueError, match=message):
        metrics.get(ForClasses()).update_state(torch.tensor(y_true), torch.rand(2, outputs))


@pytest.mark.parametrize(
    ("value", "got"),
    [(torch.zeros(2, 2), r"ndarray of shape \(2, 2\)"), ({"a": 1.0}, "dict"), (None, "NoneType")],
)
def test_what_is_not_one_number_is_found_out_in_the_rehearsal(value, got):
    metric = metrics.get(Kept())
    metric.metric.compute = lambda: value
    message = f"^metric Kept must compute a number or a row of them, got {got}$"
    with pytest.raises(TypeError, match=message):
        metric.rehearse(torch.zeros(1), torch.zeros(1, 1))


def test_a_metric_that_needs_more_samples_than_one_passes_the_rehearsal():
    class OfTwo(Kept):
        def compute(self):
            raise ValueError("needs at least two samples")

    metrics.get(OfTwo()).rehearse(torch.zeros(1), torch.zeros(1, 1))


@pytest.mark.parametrize(
    ("name", "options", "outputs"),
    [
        ("AUROC", {"task": "binary"}, 1),
        ("F1Score", {"task": "binary"}, 1),
        ("R2Score", {}, 1),
        ("MeanSquaredError", {}, 3),
        ("AUROC", {"task": "multiclass", "num_classes": 3}, 3),
        ("Accuracy", {"task": "multiclass", "num_classes": 3}, 3),
        ("F1Score", {"task": "multilabel", "num_labels": 3}, 3),
    ],
)
def test_metrics_of_torchmetrics_have_their_own_values(name, options, outputs, device):
    torchmetrics = pytest.importorskip("torchmetrics")
    theirs = getattr(torchmetrics, name)(**options)
    many = "num_classes" not in options and outputs > 1
    y_pred = torch.rand(40, outputs, device=device)
    y_true = torch.randint(0, 2 if many or outputs == 1 else 3, (40, outputs if many else 1))
    ours = metrics.get(copy.deepcopy(theirs))
    ours.rehearse(y_true[:1].float(), y_pred[:1])
    for rows in (slice(0, 15), slice(15, 40)):
        ours.update_state(y_true[rows].float().to(device), y_pred[rows])
    flat = (y_pred.cpu().squeeze(1), y_true.squeeze(1))
    assert ours.result() == pytest.approx(theirs(*flat).item(), rel=1e-6)


def test_an_unknown_name_is_an_error_with_the_list():
    message = "^unknown metric 'acuracy': did you mean 'accuracy'. Known: accuracy, acc, "
    with pytest.raises(ValueError, match=message):
        metrics.get("acuracy")


@pytest.mark.parametrize("home", ["torch.nn.functional", "torchmetrics.functional.regression"])
def test_a_function_of_predictions_and_targets_is_refused(home):
    scope = {"__name__": home}
    exec("def theirs(preds, target):\n    return preds - target", scope)
    message = r"^metric must be a function of \(y_true, y_pred\), .* pass the nn.Module of theirs"
    with pytest.raises(TypeError, match=message):
        metrics.get(scope["theirs"])


@pytest.mark.parametrize("kind", [metrics.BinaryAccuracy, metrics.MeanSquaredError])
def test_a_threshold_is_not_taken_for_a_name(kind):
    with pytest.raises(TypeError, match=r"^name must be a string, got 0\.6$"):
        kind(0.6)


@pytest.mark.parametrize("value", [None, 3, nn.L1Loss])
def test_what_is_no_metric_is_a_type_error(value):
    with pytest.raises(TypeError, match=r"^metric must be "):
        metrics.get(value)
