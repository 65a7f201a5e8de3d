"""What compile settles."""

import pytest
from torch import nn

from torchnn import losses, metrics, optimizers
from torchnn._engine import recipe


def test_names_become_objects():
    settled = recipe.settle("adam", "mse", ["accuracy", "acc"])
    assert isinstance(settled.optimizer, optimizers.Adam)
    assert isinstance(settled.loss, losses.MeanSquaredError)
    assert [metric.name for metric in settled.metrics] == ["accuracy", "acc"]


def test_objects_are_taken_as_they_are():
    optimizer, loss, metric = optimizers.SGD(), losses.MeanSquaredError(), metrics.BinaryAccuracy()
    settled = recipe.settle(optimizer, loss, (metric,))
    assert (settled.optimizer, settled.loss, settled.metrics) == (optimizer, loss, [metric])


@pytest.mark.parametrize("value", ["mae", metrics.get("mae"), lambda y_true, y_pred: y_pred])
def test_one_metric_needs_no_list(value):
    assert len(recipe.settle("sgd", nn.HuberLoss(), value).metrics) == 1


@pytest.mark.parametrize("value", [None, [], ()])
def test_no_metrics_are_none(value):
    assert recipe.settle("sgd", "bce", value).metrics == []


def test_a_metric_may_not_be_called_loss():
    with pytest.raises(ValueError, match="metrics must have different names, not 'loss'"):
        recipe.settle("sgd", "bce", [metrics.MeanAbsoluteError(name="loss")])


def names(*arguments):
    return [metric.name for metric in recipe.settle("sgd", "bce", *arguments).metrics]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([metrics.AUC], ["auc"]),
        (["AUC", "MSE"], ["AUC", "MSE"]),
        (
            [metrics.Precision(class_id=0), metrics.Precision(class_id=1)],
            ["precision", "precision_1"],
        ),
        ([metrics.MeanSquaredError(), "mse"], ["mean_squared_error", "mse"]),
        ([metrics.TruePositives(name="tp")], ["tp"]),
        ([nn.L1Loss(), losses.MeanSquaredError()], ["L1Loss", "mean_squared_error"]),
    ],
)
def test_metrics_are_called_as_they_were_given(given, expected):
    assert names(given) == expected


def test_weighted_metrics_have_names_of_their_own():
    settled = recipe.settle("sgd", "bce", ["mse", "auc"], "auto", ["mse", "acc"])
    assert [metric.name for metric in settled.metrics] == ["mse", "auc", "weighted_mse", "acc"]
    assert [metric.is_weighted for metric in settled.metrics] == [False, False, True, True]


def test_a_metric_that_stays_as_it_is_may_be_weighted_elsewhere():
    metric = metrics.AUC()
    recipe.settle("sgd", "bce", [metric], "auto", [metric])
    assert (metric.name, metric.is_weighted) == ("auc", False)


def test_what_takes_no_weights_is_no_weighted_metric():
    class Theirs(nn.Module):
        update = compute = reset = print

    with pytest.raises(TypeError, match=r"^Theirs takes no weights: give it among metrics$"):
        recipe.settle("sgd", "bce", [], "auto", [Theirs()])


def test_keras_s_accuracy_is_warned_of():
    with pytest.warns(UserWarning, match=r"^Accuracy\(\) counts .* goes by the loss$"):
        recipe.settle("sgd", "bce", [metrics.Accuracy()])


def test_accuracy_knows_the_loss():
    settled = recipe.settle("sgd", "bce", ["accuracy"])
    assert settled.metrics[0].loss is settled.loss


@pytest.mark.parametrize("kind", [metrics.Mean, metrics.Sum])
def test_a_mean_of_values_is_no_metric_of_predictions(kind):
    with pytest.raises(TypeError, match=r"is of values that you give it, not of predictions$"):
        recipe.settle("sgd", "bce", [kind()])
