"""The autograd engine: steps, their losses and predictions, and cross-entropy from z."""

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import Sequential, losses, metrics, optimizers
from torchnn._engine.autograd import AutogradEngine, logits
from torchnn._engine.recipe import Recipe
from torchnn._engine.run import Run, Samples
from torchnn.layers import Activation, Dense


def sigmoid_layer():
    return Dense(1, "sigmoid", in_features=3)


SIGMOID_ENDS = {
    "dense": lambda: [sigmoid_layer()],
    "dense function": lambda: [Dense(1, torch.sigmoid, in_features=3)],
    "activation": lambda: [Dense(1, in_features=3), Activation("sigmoid")],
    "nn.Sigmoid": lambda: [nn.Linear(3, 1), nn.Sigmoid()],
    "nested": lambda: [nn.Sequential(Dense(3, in_features=3), nn.Sequential(sigmoid_layer()))],
}


@pytest.fixture(params=SIGMOID_ENDS)
def sigmoid_model(request):
    return nn.Sequential(*SIGMOID_ENDS[request.param]())


def recipe(model, loss="bce", optimizer="sgd", names=()):
    result = Recipe(optimizers.get(optimizer), losses.get(loss), [metrics.get(n) for n in names])
    result.optimizer.build(model.parameters())
    return result


def all_of(*tensors):
    return Run(Samples(*tensors), 2, 0, len(tensors[0]))


class Half(Dense):
    def forward(self, x):
        return 0.5 * super().forward(x)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.logits = nn.Linear(4, 4), nn.Linear(4, 1)
        self.activation = nn.Sigmoid()

    def forward(self, x):
        return self.activation(self.logits(torch.relu(self.hidden(x))))


class Warm(nn.Sigmoid):
    def forward(self, x):
        return super().forward(x / 4)


def patched():
    layer = Dense(1, "sigmoid", in_features=4)
    layer.forward = lambda x: 0.5 * Dense.forward(layer, x)
    return layer


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [Half(1, "sigmoid", in_features=4)],
        lambda: [Head()],
        lambda: [nn.Linear(4, 1), Warm()],
        lambda: [patched()],
    ],
)
def test_whatever_the_head_the_loss_is_that_of_its_predictions(layers):
    model = Sequential(layers())
    model.compile(loss="bce")
    x, y = torch.randn(20, 4), torch.rand(20, 1).round()
    outputs = model.predict(x, verbose=0)
    expected = losses.BinaryCrossentropy()(y, outputs).item()
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(outputs, model(x).detach(), rtol=1e-5)
    before = [p.clone() for p in model.parameters()]
    model.fit(x, y, verbose=0)
    assert not any(map(torch.equal, before, model.parameters()))


def test_logits_is_the_model_up_to_the_sigmoid(sigmoid_model):
    x = torch.randn(4, 3)
    z = logits(sigmoid_model, "sigmoid")(x)
    torch.testing.assert_close(torch.sigmoid(z), sigmoid_model(x))


@pytest.mark.parametrize(
    "end",
    [
        Dense(1, "tanh", in_features=3),
        Dense(1, in_features=3),
        nn.Linear(3, 1),
        nn.Identity(),
        nn.Sequential(),
    ],
)
def test_without_a_sigmoid_there_are_no_logits(end):
    assert logits(nn.Sequential(nn.Sigmoid(), end), "sigmoid") is None
    assert logits(nn.Sequential(), "sigmoid") is None


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook"])
@pytest.mark.parametrize("place", ["model", "last layer"])
def test_what_a_hook_watches_is_computed_as_it_stands(kind, place):
    model = nn.Sequential(sigmoid_layer())
    seen = []
    watched = model if place == "model" else model[-1]
    getattr(watched, f"register_{kind}")(lambda *arguments: seen.append(1))
    assert logits(model, "sigmoid") is None
    AutogradEngine(model, recipe(model)).train(all_of(torch.ones(1, 3), torch.ones(1, 1)))
    assert seen == [1]


@pytest.mark.parametrize("kind", ["full_backward_hook", "full_backward_pre_hook"])
def test_backward_hooks_watch_too(kind):
    model = nn.Sequential(sigmoid_layer())
    getattr(model[0], f"register_{kind}")(lambda *arguments: None)
    assert logits(model, "sigmoid") is None


def test_a_forward_of_its_own_is_called():
    class Twice(nn.Sequential):
        def forward(self, x):
            return super().forward(super().forward(x).expand(-1, 3))

    assert logits(Twice(sigmoid_layer()), "sigmoid") is None


def test_a_saturated_sigmoid_still_learns(sigmoid_model, device):
    sigmoid_model.to(device)
    x = torch.full((1, 3), 1.0, device=device)
    with torch.no_grad():
        for parameter in sigmoid_model.parameters():
            parameter.fill_(200.0)
    before = [parameter.clone() for parameter in sigmoid_model.parameters()]
    trained = AutogradEngine(sigmoid_model, recipe(sigmoid_model))
    result = trained.train(all_of(x, torch.zeros(1, 1, device=device)))
    # The loss of a certain mistake is z itself, and its gradient is 1.
    assert result.losses.item() == pytest.approx(
        logits(sigmoid_model, "sigmoid")(x).item(), rel=0.1
    )
    assert result.losses.item() > 100
    assert all(
        not torch.equal(a, b) for a, b in zip(before, sigmoid_model.parameters(), strict=True)
    )


def test_predictions_are_probabilities(sigmoid_model):
    x, y = torch.randn(5, 3), torch.ones(5, 1)
    trained = AutogradEngine(sigmoid_model, recipe(sigmoid_model, names=["accuracy"]))
    expected = sigmoid_model(x)
    tested = trained.test(all_of(x, y))
    torch.testing.assert_close(tested.predictions, expected)
    torch.testing.assert_close(trained.predict(all_of(x)), expected)


def test_predictions_are_those_before_each_step():
    model = nn.Sequential(Dense(1, in_features=1, kernel_initializer="zeros"))
    trained = AutogradEngine(model, recipe(model, "mse", optimizers.SGD(0.5), names=["mae"]))
    x, y = torch.ones(3, 1), torch.ones(3, 1)
    result = trained.train(Run(Samples(x, y), 1, 0, 3))
    # The error halves in kernel and bias alike: 0, then 2 * 0.5 * 2 * 1 = 2, then 0 again.
    assert result.predictions.flatten().tolist() == [0.0, 2.0, 0.0]
    assert result.losses.tolist() == [1.0, 1.0, 1.0]


def test_without_metrics_no_predictions_are_kept():
    model = nn.Sequential(sigmoid_layer())
    run = all_of(torch.ones(1, 3), torch.ones(1, 1))
    assert AutogradEngine(model, recipe(model)).train(run).predictions is None


def test_testing_changes_nothing():
    model = nn.Sequential(sigmoid_layer())
    before = [parameter.clone() for parameter in model.parameters()]
    result = AutogradEngine(model, recipe(model)).test(all_of(torch.ones(5, 3), torch.ones(5, 1)))
    assert result.losses.shape == (3,)
    assert all(map(torch.equal, before, model.parameters()))
    assert not result.losses.requires_grad


def test_steps_are_counted():
    model = nn.Sequential(sigmoid_layer())
    trained = AutogradEngine(model, recipe(model))
    run = all_of(torch.ones(5, 3), torch.ones(5, 1))
    trained.train(run)
    trained.test(run)
    trained.predict(run)
    assert trained.steps_done == 9


def test_training_works_where_gradients_are_off():
    model = nn.Sequential(sigmoid_layer())
    before = model[0].weight.clone()
    with torch.no_grad():
        AutogradEngine(model, recipe(model)).train(all_of(torch.ones(1, 3), torch.zeros(1, 1)))
    assert not torch.equal(before, model[0].weight)


def test_sample_weights_reach_the_loss():
    model = nn.Sequential(Dense(1, in_features=1, kernel_initializer="zeros"))
    run = all_of(torch.ones(2, 1), torch.ones(2, 1), torch.tensor([3.0, 0.0]))
    assert AutogradEngine(model, recipe(model, "mse")).test(run).losses.tolist() == [1.5]


def test_a_softmax_over_another_axis_than_the_loss_does_not_go_into_it():
    x = torch.randn(4, 5, 3)
    y = torch.zeros(4, 5, 3)
    y[:, 0] = 1
    model = Sequential([Dense(3, "softmax", in_features=3)])
    loss = losses.CategoricalCrossentropy(axis=1)
    model.compile(loss=loss)
    expected = loss(y, model(x)).item()
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)


class Detached(nn.Module):
    def forward(self, x):
        return x.detach()


@pytest.mark.parametrize(
    ("layers", "loss"),
    [
        ([], lambda y_true, y_pred: (y_true - y_pred).square().detach()),
        ([Detached()], "mse"),
    ],
)
def test_a_loss_without_a_gradient_is_an_error_before_the_step(layers, loss):
    model = Sequential([Dense(1, in_features=3), *layers])
    model.compile("sgd", loss)
    x, y = torch.ones(4, 3), torch.zeros(4, 1)
    for train in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match=r"^the loss has no gradient, so nothing would be"):
            train(x, y)
    assert model.optimizer.iterations == 0
    assert model.evaluate(x, y, verbose=0) > 0  # which needs none
    model.trainable = False
    model.compile("sgd", loss)
    with pytest.warns(UserWarning, match="nothing to train"):
        model.train_on_batch(x, y)
