"""Layers that normalize and learn: batch by batch, or sample by sample."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import regularizers
from torchnn.layers import (
    BatchNormalization,
    Dense,
    Input,
    LayerNormalization,
    Normalization,
    PReLU,
)
from torchnn.sequential import Sequential

X = torch.tensor([[1.0, 10.0], [3.0, 10.0], [5.0, 40.0]], dtype=torch.float64)
MEAN, VARIANCE = torch.tensor([3.0, 20.0]).double(), torch.tensor([8 / 3, 200.0]).double()
LAYERS = [BatchNormalization, LayerNormalization, PReLU]


def test_in_training_the_batch_is_normalized_and_the_averages_follow(device):
    layer = BatchNormalization(momentum=0.75, epsilon=0.1).double().to(device)
    out = layer(X.to(device)).cpu()
    torch.testing.assert_close(out, (X - MEAN) / (VARIANCE + 0.1).sqrt())
    torch.testing.assert_close(layer.running_mean.cpu(), 0.25 * MEAN)
    torch.testing.assert_close(layer.running_var.cpu(), 0.75 + 0.25 * VARIANCE)
    layer(X.to(device))
    torch.testing.assert_close(layer.running_mean.cpu(), (0.25 + 0.75 * 0.25) * MEAN)


@pytest.mark.parametrize("freeze", [nn.Module.eval, lambda it: setattr(it, "trainable", False)])
def test_in_evaluation_and_frozen_it_goes_by_the_averages(freeze):
    layer = BatchNormalization().double()
    layer.build((None, 2))
    layer.set_weights([[2, 3], [1, -1], MEAN, VARIANCE])
    freeze(layer)
    wanted = torch.tensor([2, 3]) * (X - MEAN) / (VARIANCE + 1e-3).sqrt() + torch.tensor([1, -1])
    torch.testing.assert_close(layer(X), wanted)
    torch.testing.assert_close(layer.running_mean, MEAN)


def test_the_weights_are_kerass():
    layer = BatchNormalization()
    layer.build((None, 3))
    assert [w.name for w in layer.weights] == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert [w.tolist() for w in layer.get_weights()] == [[1] * 3, [0] * 3, [0] * 3, [1] * 3]
    assert [w.name for w in layer.trainable_weights] == ["gamma", "beta"]
    assert layer.count_params() == 12
    layer.gamma.assign([1, 2, 3])
    assert layer.weight.tolist() == layer.gamma.tolist() == [1, 2, 3]
    layer.moving_mean.assign([4, 5, 6])
    assert layer.running_mean.tolist() == [4, 5, 6]
    bare = BatchNormalization(center=False, scale=False)
    bare.build((None, 3))
    assert [w.name for w in bare.weights] == ["moving_mean", "moving_variance"]
    assert bare.gamma is bare.beta is None


def test_the_gradient_is_that_of_the_batchs_own_statistics():
    layer, twin = BatchNormalization().double(), nn.BatchNorm1d(2, eps=1e-3).double()
    x, y = X.clone().requires_grad_(), X.clone().requires_grad_()
    weights = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 4.0]]).double()
    (layer(x) * weights).sum().backward()
    (twin(y) * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(layer.weight.grad, twin.weight.grad)
    torch.testing.assert_close(layer.bias.grad, twin.bias.grad)


@pytest.mark.parametrize("axis", [1, -3])
def test_other_axes_can_be_the_features(axis):
    x = torch.randn(6, 4, 3, 5)
    layer, twin = BatchNormalization(axis), nn.BatchNorm2d(4, eps=1e-3)
    torch.testing.assert_close(layer(x), twin(x))
    assert layer.weight.shape == (4,)


def test_a_batch_of_one_is_normal():
    layer = BatchNormalization(beta_initializer="ones")
    assert layer(torch.full((1, 2), 7.0)).tolist() == [[1, 1]]


def test_halves_are_normalized_in_float32():
    x = torch.tensor([[1000.0], [1002.0]]).half()  # their squares are beyond a half
    layer = BatchNormalization(epsilon=1e-6).half()
    out = layer(x)
    assert out.dtype == torch.float16
    assert out.tolist() == [[-1], [1]]


def model(*layers):
    return Sequential([Input((3,)), Dense(4), *layers, Dense(1)])


def test_fit_moves_the_averages_and_evaluate_goes_by_them():
    x, y = np.random.default_rng(0).normal(size=(32, 3)), np.ones((32, 1))
    network = model(BatchNormalization(momentum=0.5)).double()
    dense, norm = network.layers[:2]
    network.compile("sgd", "mse")
    before = network.evaluate(x, y, verbose=0)
    assert norm.running_mean.tolist() == [0] * 4
    with torch.no_grad():
        z = dense(torch.tensor(x))
    network.train_on_batch(x, y)
    torch.testing.assert_close(norm.running_mean, 0.5 * z.mean(0))
    torch.testing.assert_close(norm.running_var, 0.5 + 0.5 * z.var(0, correction=0))
    history = network.fit(x, y, epochs=40, verbose=0, validation_data=(x, y)).history
    assert history["loss"][-1] < 0.1 * before
    assert history["val_loss"][-1] == pytest.approx(network.evaluate(x, y, verbose=0))
    averages = norm.running_mean.clone()
    network.predict(x, verbose=0)
    assert torch.equal(norm.running_mean, averages)


def test_penalties_and_constraints_are_on_gamma_and_beta():
    layer = BatchNormalization(
        gamma_regularizer=regularizers.L2(0.5), beta_constraint=lambda beta: beta * 0 + 7
    )
    network = model(layer)
    network.compile("sgd", "mse")
    assert sum(network.losses).item() == pytest.approx(0.5 * 4)
    network.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    assert layer.bias.tolist() == [7] * 4


# LayerNormalization


def test_each_sample_is_normalized_by_itself(device):
    layer = LayerNormalization(epsilon=0.1).double().to(device)
    wanted = nn.functional.layer_norm(X, (2,), eps=0.1)
    torch.testing.assert_close(layer(X.to(device)).cpu(), wanted)
    assert [w.name for w in layer.weights] == ["gamma", "beta"]
    assert LayerNormalization().epsilon == 1e-3


@pytest.mark.parametrize("axis", [[1, 2, 3], (-1, 1, 2)])
def test_several_axes_are_normalized_together(axis):
    x = torch.randn(2, 3, 4, 5)
    layer = LayerNormalization(axis, scale=False)
    torch.testing.assert_close(layer(x), nn.functional.layer_norm(x, (3, 4, 5), eps=1e-3))
    assert [tuple(w.shape) for w in layer.weights] == [(3, 4, 5)]


# What is built by the first input


def made(kind):
    return nn.Sequential(kind(), Dense(1))


@pytest.mark.parametrize("kind", LAYERS)
def test_the_first_input_builds_the_layer(kind, device):
    layer = kind().to(device)
    assert (layer.built, layer.get_weights()) == (False, [])
    parameters = list(layer.parameters())
    layer(torch.ones(2, 3, device=device))
    assert layer.built
    assert all(map(lambda one, other: one is other, layer.parameters(), parameters))
    assert {type(p) for p in layer.parameters()} == {nn.Parameter}
    assert {t.device.type for t in layer.state_dict().values()} == {device}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_layers_copy_and_pickle_built_or_not(kind, duplicate):
    for is_built in (False, True):
        layer = kind()
        if is_built:
            layer(torch.ones(2, 3))
        other = duplicate(layer)
        assert (other.built, repr(other)) == (is_built, repr(layer))
        assert other(torch.ones(2, 3)).shape == (2, 3)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_state_dict_builds_the_layer(kind):
    layer, other = kind(), kind()
    layer(torch.randn(5, 3))
    other.load_state_dict(layer.state_dict())
    x = torch.randn(5, 3)
    assert torch.equal(other.eval()(x), layer.eval()(x))
    unbuilt = kind()
    unbuilt.load_state_dict(kind().state_dict())
    assert not unbuilt.built


@pytest.mark.parametrize("kind", LAYERS)
def test_a_failed_rehearsal_leaves_the_layer_unbuilt(kind):
    layer = kind()
    network = Sequential([layer, nn.Linear(4, 1)])
    network.compile("sgd", "mse")
    with pytest.raises(RuntimeError):
        network.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    assert not layer.built
    network.fit(np.ones((4, 4)), np.ones((4, 1)), verbose=0)
    assert layer.built


@pytest.mark.parametrize("kind", LAYERS)
def test_a_frozen_layer_stays_frozen_when_it_is_built(kind):
    layer = kind(trainable=False)
    layer(torch.ones(2, 3))
    assert not layer.trainable
    assert layer.trainable_weights == []


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_compile_in_one_graph(kind):
    layer, x = kind(), torch.randn(5, 3)
    wanted = layer(x)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), wanted)


# PReLU


def test_a_slope_for_each_feature_is_learned():
    layer = PReLU(alpha_initializer=nn.init.ones_)
    x = torch.tensor([[-2.0, 3.0, -1.0]])
    assert layer(x).tolist() == [[-2, 3, -1]]
    layer(x).sum().backward()
    assert layer.alpha.grad.tolist() == [-2, 0, -1]
    assert PReLU()(x).tolist() == [[0, 3, 0]]


def test_slopes_may_be_shared_along_axes():
    layer = PReLU(shared_axes=[1])
    layer(torch.ones(2, 4, 3))
    assert layer.alpha.shape == (1, 3)
    assert layer(torch.ones(2, 9, 3)).shape == (2, 9, 3)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (BatchNormalization(name="n"), (2, 4), r"^layer 'n' expects 3 features, got 4$"),
        (LayerNormalization(name="n"), (2, 4), r"^layer 'n' expects 3 features, got 4$"),
        (PReLU(name="n"), (2, 4), r"^layer 'n' expects x for numbers of shape \(3,\), got shape"),
    ],
)
def test_other_shapes_are_an_error(layer, shape, message):
    layer(torch.ones(2, 3))
    with pytest.raises(ValueError, match=message):
        layer(torch.ones(shape))


@pytest.mark.parametrize("axis", [0, 2, -2, [1, -1]])
def test_axes_must_be_there_beside_the_samples(axis):
    with pytest.raises(ValueError, match=r"^layer 'n' expects x with the axis .* beside samples$"):
        LayerNormalization(axis, name="n")(torch.ones(2, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchNormalization(momentum=1.0), "^momentum must be a number in"),
        (lambda: BatchNormalization(epsilon=0), "^epsilon must be a positive number, got 0"),
        (lambda: BatchNormalization(axis=1.5), "^axis must be an integer, got 1.5"),
        (lambda: LayerNormalization(scale=1), "^scale must be True or False, got 1"),
        (lambda: LayerNormalization(gamma_initializer="on"), "^unknown initializer 'on'"),
        (lambda: PReLU(shared_axes=[0]), "^each shared axis must be a positive integer, got 0"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_names_of_pytorch_take_its_state_dicts():
    twin = nn.BatchNorm1d(3)
    layer = BatchNormalization()
    layer.load_state_dict(twin.state_dict(), strict=False)
    assert layer.running_var.tolist() == [1, 1, 1]


def test_a_normalization_without_statistics_has_no_weights():
    assert Normalization().weights == []
    assert len(Normalization(mean=[1.0], variance=[2.0]).weights) == 2
