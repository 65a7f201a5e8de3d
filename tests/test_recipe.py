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
