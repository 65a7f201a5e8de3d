"""Rehearsal and building."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from torchnn import losses, metrics, optimizers
from torchnn._engine import building
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Samples
from torchnn.layers import Dense, Flatten

RECIPE = Recipe(optimizers.get("sgd"), losses.get("mse"), [metrics.get("mae")])


def samples(*y_shape):
    return Samples(torch.ones(5, 3), torch.ones(5, *y_shape))


def unbuilt(*layers):
    return nn.Sequential(Dense(4), nn.LazyLinear(2), *layers)


def test_built_means_that_all_shapes_are_known():
    model = unbuilt()
    assert not building.is_built(model)
    model(torch.ones(1, 3))
    assert building.is_built(model)
    assert building.is_built(nn.Sequential())


def test_form_is_that_of_the_first_layer():
    assert building.form(nn.Sequential(nn.Sequential(nn.Linear(3, 2)))).shape == (3,)
    assert building.form(unbuilt()).shape == ()
    assert building.form(nn.Sequential(Flatten(), nn.Linear(3, 2))).shape == ()
    assert building.form(unbuilt().double()).dtype == torch.float64
    assert building.form(nn.Sequential()).device.type == "cpu"
    exact = building.form(unbuilt(), (7, 3))
    assert (exact.shape, exact.exact) == ((7, 3), True)


def test_prepare_builds_for_the_first_samples():
    model = unbuilt()
    building.prepare(model, RECIPE, samples(2), samples(2))
    assert (model[0].in_features, model[1].in_features) == (3, 4)


def test_prepare_leaves_statistics_dropout_and_mode_alone():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = torch.get_rng_state()
    building.prepare(model, RECIPE, samples(2))
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert torch.equal(before, torch.get_rng_state())
    assert all(module.training for module in model.modules())


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Joined(nn.Module):
    def forward(self, x):
        return x.sum()


@pytest.mark.parametrize(
    ("layers", "y_shape", "error", "message"),
    [
        ([], (), ValueError, r"y has shape \(N,\), which does not fit .* shape \(N, 2\)"),
        ([], (3,), ValueError, r"y has shape \(N, 3\), which does not fit .* \(N, 2\)"),
        ([nn.Linear(5, 1)], (1,), RuntimeError, "cannot be multiplied"),
        ([Dense(1, in_features=5)], (1,), ValueError, "expects 5 features, got 2"),
        ([Pair()], (1,), TypeError, "the model must return a tensor, got [23]"),
        ([Joined()], (1,), ValueError, r"one row a sample, got shape \(\) for x of shape \(1, 3\)"),
    ],
)
def test_what_fails_the_rehearsal_leaves_the_model_unbuilt(layers, y_shape, error, message):
    model = unbuilt(*layers)
    before = torch.get_rng_state()
    with pytest.raises(error, match=message):
        building.prepare(model, RECIPE, samples(*y_shape))
    assert model[0].in_features is None
    assert torch.equal(before, torch.get_rng_state())


def test_samples_to_validate_on_are_rehearsed_before_anything_is_built():
    model = unbuilt()
    with pytest.raises(ValueError, match="does not fit the model's output"):
        building.prepare(model, RECIPE, samples(2), samples(1))
    assert not building.is_built(model)


def test_a_loss_of_another_shape_is_its_own_affair():
    class ByLabel(losses.Loss):
        takes_labels = True

        def per_sample(self, y_true, y_pred):
            return nn.functional.cross_entropy(y_pred, y_true.long(), reduction="none")

    building.prepare(unbuilt(), Recipe(optimizers.get("sgd"), ByLabel()), samples())


def test_a_loss_that_raises_for_reasons_of_its_own_is_heard():
    def moody(y_true, y_pred):
        raise ValueError("not today")

    for y_shape in ((2,), (1, 2)):
        with pytest.raises(ValueError, match=r"^not today$") as caught:
            building.prepare(
                nn.Sequential(nn.Linear(3, 2), nn.Unflatten(1, y_shape)),
                Recipe(optimizers.get("sgd"), losses.get(moody)),
                samples(*y_shape),
            )
        assert caught.traceback[-1].name == "moody"


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_an_error_of_a_loss_of_labels_is_not_taken_for_one_of_shapes(error):
    class ByLabel(losses.Loss):
        takes_labels = True

        def per_sample(self, y_true, y_pred):
            raise error("my own mistake")

    with pytest.raises(error, match=r"^my own mistake$") as caught:
        building.prepare(unbuilt(), Recipe(optimizers.get("sgd"), ByLabel()), samples())
    assert caught.value.__cause__ is None


def test_an_error_of_a_metric_is_not_taken_for_one_of_shapes():
    class ByLabel(metrics.MeanMetric):
        def values(self, y_true, y_pred):
            raise ValueError("my own mistake")

    recipe = Recipe(optimizers.get("sgd"), losses.get(nn.CrossEntropyLoss()), [ByLabel("mine")])
    with pytest.raises(ValueError, match=r"^my own mistake$"):
        building.prepare(unbuilt(), recipe, samples())


def test_labels_are_looked_at_before_anything_is_built():
    model, y = unbuilt(), torch.tensor([0.0, 1.0, 0.0, 2.0, 1.0])
    recipe = Recipe(optimizers.get("sgd"), losses.get(nn.CrossEntropyLoss()))
    good, bad = (Samples(torch.ones(5, 3), labels, None, " of it") for labels in (y.clip(max=1), y))
    message = "^y of it does not suit the loss: y must hold class numbers from 0 to 1, .* row 3$"
    with pytest.raises(ValueError, match=message):
        building.prepare(model, recipe, good, bad)
    assert not building.is_built(model)
    assert building.prepare(model, recipe, good) == (2,)


class Growing(nn.Module):
    """A module that makes its layer when it sees data, and counts what it has seen."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = None, {}

    def forward(self, x):
        self.layer = self.layer or nn.Linear(x.shape[1], 2)
        self.seen[tuple(x.shape)] = True
        return self.layer(x)


LAZY = {
    "Dense": lambda: Dense(2),
    "LazyLinear": lambda: nn.LazyLinear(2),
    "LazyBatchNorm1d": nn.LazyBatchNorm1d,
    "without parameters": lambda: nn.LazyBatchNorm1d(affine=False),
    "nested": lambda: nn.Sequential(nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2)),
    "made in forward": Growing,
}


def look(model):
    """All that building changes, in a form that can be compared."""
    modules = [(type(m), dict(vars(m)), *map(len, m._parameters)) for m in model.modules()]
    hooks = [
        list(m._forward_pre_hooks) + list(m._load_state_dict_pre_hooks) for m in model.modules()
    ]
    tensors = [(type(t), t.device, t.dtype) for t in (*model.parameters(), *model.buffers())]
    return repr((model, modules, hooks, tensors, torch.get_rng_state().tolist()))


@pytest.mark.parametrize("name", LAZY)
def test_a_lazy_layer_is_built_or_left_as_it_was(name):
    model = nn.Sequential(Dense(3), LAZY[name](), Dense(2))
    before = look(model)
    with pytest.raises(ValueError, match="does not fit the model's output"):
        building.prepare(model, RECIPE, samples(2), samples(1))
    assert look(model) == before
    building.prepare(model, RECIPE, samples(2))
    assert building.is_built(model)
    assert model.train()(torch.ones(5, 3)).shape == (5, 2)


def test_a_pruned_layer_may_stand_before_one_that_is_not_built():
    model = nn.Sequential(prune.l1_unstructured(nn.Linear(3, 4), "weight", 0.5), Dense(2))
    building.prepare(model, RECIPE, samples(2))
    assert building.is_built(model)


def test_building_is_one_forward_pass():
    model, calls = unbuilt(), []
    model[0].register_forward_hook(lambda *_: calls.append(torch.is_inference_mode_enabled()))
    with torch.inference_mode():
        building.prepare(model, RECIPE, samples(2))
    assert calls == [False]
    assert not any(p.is_inference() for p in model.parameters())


def tupled(y_true, y_pred):
    return (y_true - y_pred).mean(), (y_true - y_pred).mean()


def doubled(y_true, y_pred):
    return torch.cat([y_true - y_pred] * 2)


def counted(y_true, y_pred):
    return (y_true > y_pred).long()


NO_LOSSES = [
    (lambda y_true, y_pred: None, "loss <lambda> must return a tensor, got NoneType"),
    (lambda y_true, y_pred: 0.5, "loss <lambda> must return a tensor, got float"),
    (lambda y_true, y_pred: "mse", "loss <lambda> must return a tensor, got str"),
    (tupled, "loss tupled must return a tensor, got tuple of 2"),
    (counted, "loss counted must return a floating point tensor, .* got torch.int64"),
]


@pytest.mark.parametrize(("function", "message"), NO_LOSSES)
def test_a_loss_that_returns_something_else_is_named_at_the_rehearsal(function, message):
    model = unbuilt()
    with pytest.raises(TypeError, match=message):
        building.prepare(model, Recipe(optimizers.get("sgd"), losses.get(function)), samples(2))
    assert not building.is_built(model)


def test_a_loss_of_too_many_values_is_named_where_weights_cannot_go_with_them():
    recipe, given = Recipe(optimizers.get("sgd"), losses.get(doubled)), samples(2)
    weighted = Samples(given.x, given.y, torch.ones(5))
    with pytest.raises(ValueError, match=r"losses of shape \(2, 2\), which doubled returned: one"):
        building.prepare(unbuilt(), recipe, weighted)


NO_METRICS = [
    (lambda y_true, y_pred: None, TypeError, "an array or a number, got NoneType"),
    (lambda y_true, y_pred: "mse", TypeError, "an array or a number, got str"),
    (lambda y_true, y_pred: np.array(["mse"]), TypeError, "an array or a number, got ndarray"),
    (tupled, TypeError, "metric tupled must return .* or a number, got tuple of 2"),
    (doubled, ValueError, r"metric doubled must return one value per .*, got shape \(2, 2\)"),
    (
        lambda y_true, y_pred: (y_true - y_pred).mean(0),
        ValueError,
        r"metric <lambda> must return one value per sample, .*, got shape \(2,\)",
    ),
]


@pytest.mark.parametrize(("function", "error", "message"), NO_METRICS)
def test_a_metric_that_returns_something_else_is_named_at_the_rehearsal(function, error, message):
    model = unbuilt()
    recipe = Recipe(optimizers.get("sgd"), losses.get("mse"), [metrics.get(function)])
    with pytest.raises(error, match=message):
        building.prepare(model, recipe, samples(2))
    assert not building.is_built(model)


def test_a_metric_may_return_one_value_in_any_form():
    y = torch.zeros(5, 1), torch.ones(5, 1)
    for value in (3.0, np.float32(3), np.full((1, 1), 3.0), torch.full((1,), 3), torch.tensor(3)):
        metric = metrics.MeanMetricWrapper(lambda y_true, y_pred, value=value: value)
        metric.update_state(*y)
        assert metric.result() == 3


def test_a_metric_that_does_not_fit_is_named_where_the_loss_fits():
    recipe = Recipe(
        optimizers.get("sgd"),
        losses.get("sparse_categorical_crossentropy"),
        [metrics.get("accuracy"), metrics.get("AUC")],
    )
    given = Samples(torch.ones(5, 3), torch.ones(5, dtype=torch.int64), None, " of m")
    message = r"^metric AUC does not take y of m of shape \(N,\) with an output of shape \(N, 2\)"
    with pytest.raises(ValueError, match=message):
        building.prepare(unbuilt(), recipe, given)
