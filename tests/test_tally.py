"""Means over the samples of an epoch."""

import pytest
import torch

from torchnn import metrics
from torchnn._engine.autograd import Result
from torchnn._engine.run import Run, Samples
from torchnn._training.tally import Figures, Tally

SAMPLES = Samples(torch.zeros(5, 1), torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0]))


def add(tally, run, losses, predictions):
    """Counts a run as fit does."""
    result = Result(torch.tensor(losses, dtype=torch.float64), predictions)
    for numbers in Figures(tally.metrics, run, result).wait():
        tally.add(*numbers)


def test_a_short_batch_counts_by_its_size():
    tally = Tally([])
    add(tally, Run(SAMPLES, 2, 0, 5), [1.0, 2.0, 6.0], None)
    assert tally.logs() == {"loss": (2 * 1.0 + 2 * 2.0 + 1 * 6.0) / 5}
    assert tally.steps == 3


def test_metrics_are_means_over_samples_of_all_runs():
    tally = Tally([metrics.get("accuracy"), metrics.get("mae")])
    add(tally, Run(SAMPLES, 2, 0, 4), [0.0, 0.0], torch.tensor([[0.9], [0.8], [0.7], [0.6]]))
    assert tally.logs()["accuracy"] == 3 / 4
    add(tally, Run(SAMPLES, 2, 4, 5), [0.0], torch.tensor([[0.9]]))
    assert tally.logs()["accuracy"] == 3 / 5
    assert tally.logs()["mae"] == pytest.approx((0.1 + 0.8 + 0.3 + 0.4 + 0.9) / 5)


def test_how_an_epoch_is_cut_into_runs_changes_nothing():
    losses = torch.rand(50).tolist()
    samples = Samples(torch.zeros(99, 1), torch.rand(99))
    predictions = torch.rand(99, 1)
    whole, parts = Tally([metrics.get("mse")]), Tally([metrics.get("mse")])
    add(whole, Run(samples, 2, 0, 99), losses, predictions)
    add(parts, Run(samples, 2, 0, 62), losses[:31], predictions[:62])
    add(parts, Run(samples, 2, 62, 99), losses[31:], predictions[62:])
    assert whole.logs() == parts.logs()


def test_a_metric_of_a_whole_batch_is_measured_batch_by_batch():
    samples = Samples(torch.zeros(7, 1), torch.arange(7.0))
    peak = metrics.get(lambda y_true, y_pred: (y_true - y_pred).abs().max())
    whole, parts = Tally([peak]), Tally([peak])
    add(whole, Run(samples, 2, 0, 7), [0.0] * 4, torch.zeros(7, 1))
    assert whole.logs()["<lambda>"] == (2 * 1 + 2 * 3 + 2 * 5 + 6) / 7
    for start, stop in ((0, 4), (4, 7)):
        losses = [0.0] * (-(-(stop - start) // 2))
        add(parts, Run(samples, 2, start, stop), losses, torch.zeros(stop - start, 1))
    assert parts.logs() == whole.logs()


def test_targets_without_a_column_do_not_broadcast():
    tally = Tally([metrics.get(lambda y_true, y_pred: (y_true == y_pred).float())])
    add(tally, Run(SAMPLES, 5, 0, 5), [0.0], SAMPLES.y.unsqueeze(1))
    assert tally.logs()["<lambda>"] == 1.0


class Widest(metrics.Metric):
    """The largest distance of all samples."""

    def reset_state(self):
        self.seen = []

    def update_state(self, y_true, y_pred, sample_weight=None):
        assert y_true.shape == y_pred.shape
        self.seen.append((y_true - y_pred).abs().max().item())

    def result(self):
        return max(self.seen)


def test_an_accumulator_sees_every_batch_and_is_asked_at_the_end():
    tally = Tally([metrics.get("mae"), widest := Widest("widest"), metrics.get("mse")])
    samples = Samples(torch.zeros(7, 1), torch.arange(7.0))
    add(tally, Run(samples, 2, 0, 4), [0.0] * 2, torch.ones(4, 1))
    assert tally.logs() == {"loss": 0, "mae": 1, "widest": 2, "mse": 1.5}
    assert tally.so_far() == {"loss": 0, "mae": 1, "mse": 1.5}
    add(tally, Run(samples, 2, 4, 7), [0.0] * 2, torch.ones(3, 1))
    assert tally.logs()["widest"] == 5
    assert tally.metrics[1].seen == [1, 2, 4, 5]
    assert not hasattr(widest, "seen")
    tally.reset()
    assert tally.metrics[1].seen == []


def test_an_accumulator_has_a_value_for_each_of_several_epochs():
    tally = Tally([Widest("widest")])
    order = torch.tensor([0, 1, 2, 2, 1, 0])
    samples = Samples(torch.zeros(3, 1), torch.zeros(3))
    run = Run(samples, 2, 0, 6, order, epochs=2)
    predictions = torch.tensor([[1.0], [3.0], [2.0], [4.0], [0.0], [5.0]])
    values = []
    for numbers in Figures(tally.metrics, run, Result(torch.zeros(4), predictions)).wait():
        tally.reset()
        tally.add(*numbers)
        values.append(tally.logs()["widest"])
    assert values == [3, 5]


def test_reset_begins_anew():
    tally = Tally([])
    add(tally, Run(SAMPLES, 5, 0, 5), [3.0], None)
    tally.reset()
    assert (tally.logs(), tally.steps, tally.seconds) == ({}, 0, 0.0)


@pytest.mark.parametrize("batch_size", [2, 3, 6, 8])
@pytest.mark.parametrize("kind", ["mse", lambda y_true, y_pred: (y_true - y_pred).abs().max()])
def test_the_figures_of_several_epochs_are_those_of_each(batch_size, kind):
    tally = Tally([metrics.get(kind), metrics.get("accuracy")])
    samples = Samples(torch.zeros(6, 1), torch.rand(6).round())
    order, predictions = torch.stack([torch.randperm(6) for _ in range(3)]), torch.rand(18, 1)
    run = Run(samples, batch_size, 0, 18, order.reshape(-1), epochs=3)
    losses = torch.rand(len(run))
    together = [*Figures(tally.metrics, run, Result(losses, predictions)).wait()]
    assert len(together) == 3
    for i, (part, values, total, *measured) in enumerate(together):
        own = Result(losses.view(3, -1)[i], predictions[6 * i : 6 * i + 6])
        ((_, *expected),) = Figures(tally.metrics, part, own).wait()
        assert [values, None, *measured] == expected
        tally.reset()
        tally.add(part, values, total, *measured)
        known = tally.logs()
        tally.reset()
        tally.add(part, *expected)
        assert tally.logs() == known  # to the last bit


@pytest.mark.parametrize("name", ["auc", "precision", "f1_score", "r2_score", "rmse"])
def test_the_sums_of_a_metric_can_be_gone_on_from(name):
    samples = Samples(torch.zeros(6, 1), torch.rand(6).round())
    predictions, metric = torch.rand(6, 1), metrics.get(name)
    whole, first, second = (Tally([metric]) for _ in range(3))
    add(whole, Run(samples, 2, 0, 6), [1.0] * 3, predictions)
    add(first, Run(samples, 2, 0, 4), [1.0] * 2, predictions[:4])
    sums = first.sums()
    assert all(type(each) in (float, int, list) for each in sums.values())
    second.restore(2, sums)
    assert second.logs() == first.logs()
    add(second, Run(samples, 2, 4, 6), [1.0], predictions[4:])
    assert second.logs() == whole.logs()
    assert second.so_far() == whole.logs()


def test_other_sums_are_not_gone_on_from():
    tally = Tally([metrics.get("mse")])
    tally.restore(2, Tally([metrics.get("mae")]).sums())
    assert (tally.steps, tally.logs()) == (2, {})
    assert Tally([Widest("widest")]).sums() is None


def test_weights_are_for_weighted_metrics_alone():
    plain, weighted, own = metrics.get("mae"), metrics.get("mae"), Widest("widest")
    weighted.is_weighted = True
    weighted.name = "weighted"
    samples = Samples(torch.zeros(2, 1), torch.tensor([1.0, 3.0]), torch.tensor([3.0, 1.0]))
    tally = Tally([plain, weighted, own])
    add(tally, Run(samples, 1, 0, 2), [0.0, 0.0], torch.zeros(2, 1))
    assert tally.logs() == {"loss": 0, "mae": 2, "weighted": 1.5, "widest": 3}
