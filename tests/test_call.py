"""Calls of layers and models on arrays, and in a mode."""

import copy
import operator
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from torchnn import Input, Sequential, _array
from torchnn._array import as_array
from torchnn.layers import Activation, Dense, Dropout, Flatten, Layer, Normalization, Rescaling
from torchnn.model import Model

X = np.arange(6.0).reshape(2, 3)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.fixture
def layer():
    layer = Dense(2, "sigmoid")
    layer.set_weights([np.array([[1.0, 0], [0, 1], [1, 1]]) / 4, np.array([0.5, -0.5])])
    return layer


CALLS = {
    "layer": lambda layer: layer,
    "model": lambda layer: Sequential([Input((3,)), layer]),
    "model in a model": lambda layer: Sequential([Sequential([layer])]),
}


@pytest.mark.parametrize("given", [X, X.tolist(), X.astype("float32"), X.astype(int)])
@pytest.mark.parametrize("called", CALLS)
def test_a_call_on_an_array_matches_the_formula(layer, called, given):
    out = CALLS[called](layer)(given)
    expected = sigmoid(X @ (np.array([[1.0, 0], [0, 1], [1, 1]]) / 4) + [0.5, -0.5])
    assert isinstance(out, np.ndarray)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_numpys_functions_work_on_what_comes_back(layer):
    out = layer(X)
    plain = out.numpy()
    assert type(plain) is np.ndarray
    assert np.max(out) == plain.max()
    assert np.argmax(out, axis=1).tolist() == [0, 0]
    np.testing.assert_array_equal(np.sum(out, axis=1, keepdims=True), plain.sum(1, keepdims=True))
    assert np.tile(out, (2, 1)).shape == (4, 2)
    np.testing.assert_array_equal(X[:, :2] - 2 * out, X[:, :2] - 2 * plain)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(out)), plain)


def test_pandas_and_plain_pytorch_modules_are_taken(layer):
    pandas = pytest.importorskip("pandas")
    model = Sequential([nn.Flatten(), layer])
    np.testing.assert_array_equal(model(pandas.DataFrame(X)), layer(X))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Normalization(mean=[1, 2, 3], variance=[1, 4, 4]), [[-1, -0.5, -0.5], [2, 1, 1]]),
        (Rescaling(2.0), 2 * X),
        (Activation("relu"), X),
        (Flatten(), X),
    ],
)
def test_layers_without_weights_take_arrays(layer, expected):
    np.testing.assert_allclose(layer(X), expected)


def test_an_array_builds_a_layer():
    layer = Dense(2, dtype=torch.float64)
    assert layer(X).dtype == np.float64
    assert layer.in_features == 3
    assert layer.weight.requires_grad


def test_arrays_go_to_the_layer_and_come_back(device):
    layer = Dense(2, in_features=3, device=device, dtype=torch.bfloat16)
    out = layer(X)
    assert out.dtype == np.float32
    assert_close(
        torch.from_numpy(out.numpy()), layer(torch.tensor(X).to(layer.weight)).cpu().float()
    )


def test_a_call_on_a_tensor_returns_one_with_a_gradient(layer):
    x = torch.ones(2, 3, requires_grad=True)
    for called in (layer, Sequential([layer])):
        out = called(x)
        assert type(out) is torch.Tensor
        assert out.requires_grad
    assert layer(x=x).requires_grad


def test_an_array_is_told_apart_from_a_tensor(layer):
    out = layer(X)
    with pytest.raises(AttributeError, match=r"^an array has no attribute 'backward', a tensor"):
        out.backward()
    with pytest.raises(AttributeError, match=r"^an array has no attribute 'nothing'$"):
        _ = out.nothing
    assert not hasattr(copy.copy(out), "grad_fn")


@pytest.mark.parametrize("given", ["text", None, {"a"}, 3.0, [], torch.nn.Identity()])
def test_what_is_neither_goes_on_as_it_is(given):
    layer = Dense(2)
    with pytest.raises(TypeError, match=r"^x must be a torch\.Tensor, got "):
        layer(given)
    assert not layer.built


@pytest.mark.parametrize("given", [np.array(["a"]), [[1.0], [1.0, 2.0]]])
def test_arrays_of_anything_but_numbers_are_refused(given):
    with pytest.raises((TypeError, ValueError), match=r"^x must h"):
        Dense(2)(given)


class Several(Model):
    """Takes and returns several."""

    def forward(self, x, scale=1.0, rest=()):
        sum_ = x["a"] + x["b"]
        return {"sum": sum_, "list": [sum_ * scale, *rest], "number": 3}


def test_arrays_are_found_in_lists_and_dicts():
    out = Several()({"a": X, "b": X}, scale=np.array(2.0), rest=[X])
    assert out["number"] == 3
    for got, expected in zip([out["sum"], *out["list"]], [2 * X, 4 * X, X], strict=True):
        assert isinstance(got, np.ndarray)
        np.testing.assert_array_equal(got, expected)
    mixed = Several()({"a": X, "b": torch.ones(2, 3, requires_grad=True)})
    assert mixed["sum"].requires_grad


@pytest.mark.parametrize("kind", [Dropout, lambda rate: Sequential([Dropout(rate)])])
def test_training_says_whether_dropout_drops(kind):
    called, ones = kind(0.5), torch.ones(1000)
    for x in (ones, ones.numpy()):
        assert (called(x, training=True) == 0).any()
        assert (called(x, training=False) == 1).all()
    assert (called(ones) == 0).any()  # a module is in training mode until it is told
    assert (called(ones, training=None) == 0).any()
    assert (called(ones.numpy()) == 1).all()
    assert (called(ones.numpy(), training=None) == 1).all()
    assert called.training


def test_training_reaches_every_module_and_keeps_gradients():
    model = Sequential([Dense(4, in_features=3), nn.BatchNorm1d(4)])
    x = torch.randn(8, 3)
    model.eval()
    out = model(x, training=True)
    assert_close(out.mean(0), torch.zeros(4), atol=1e-6, rtol=0)
    assert model[1].num_batches_tracked == 1
    assert out.requires_grad
    assert model(x, training=False).requires_grad
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("training", [1, "yes"])
def test_training_must_be_a_truth_value(training):
    with pytest.raises(TypeError, match=r"^training must be True or False, got "):
        Dropout(0.5)(torch.ones(2), training=training)


class Asking(Layer):
    """Has training among its arguments, as Keras's layers have."""

    def forward(self, x, training=None):
        assert training in (None, self.training)
        return x if training is None else x * 0 + training


@pytest.mark.parametrize(("training", "expected"), [(True, 1), (False, 0), (None, 2)])
def test_a_forward_with_an_argument_training_is_given_it(training, expected):
    layer = Asking()
    for x in (torch.full((1,), 2.0), np.full(1, 2.0)):
        assert layer(x, training=training) == expected


def test_other_threads_may_train_a_model_that_is_called():
    model, modes = Sequential([Dropout(0.5)]), []
    model[0].register_forward_hook(lambda *_: modes.append(model[0].training))
    model(X)
    assert modes == [True]  # what is called is a view of it, in evaluation mode


def test_a_recorder_makes_tensors_of_what_would_be_arrays(layer):
    token = _array.recorder.set(torch.Tensor.double)
    try:
        output = layer(X)
    finally:
        _array.recorder.reset(token)
    assert output.dtype == torch.float64
    assert output.requires_grad
    assert_close(output.detach().numpy(), layer(X).astype(float))


def test_a_compiled_layer_is_no_other_for_arrays(layer):
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    x = torch.tensor(X, dtype=torch.float32)
    assert_close(compiled(x), layer(x))
    dropout = torch.compile(Sequential([Dropout(0.5)]), backend="eager")
    assert (dropout(torch.ones(1000), training=True) == 0).any()


def test_torch_fx_sees_a_layer_as_one(layer):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x) + self.layer(x)

    class Leaves(torch.fx.Tracer):
        def is_leaf_module(self, module, name):
            return isinstance(module, Dense)

    nodes = [node.op for node in Leaves().trace(Two()).nodes]
    assert nodes.count("call_module") == 2


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "pow", "matmul"])
def test_operators_of_an_array_and_a_tensor_make_a_tensor(name):
    function, in_place = getattr(operator, name), getattr(operator, f"i{name}")
    array = np.array([[1.0, 2.0], [3.0, 4.0]])
    tensor = torch.tensor([[2.0, 3.0], [1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    own = as_array(torch.tensor(array))
    expected = function(array, tensor.detach().numpy())
    for found in (function(own, tensor), in_place(as_array(torch.tensor(array)), tensor)):
        torch.testing.assert_close(found.detach(), torch.tensor(expected))
        assert found.requires_grad
    swapped = function(tensor, own)
    torch.testing.assert_close(swapped, function(tensor, torch.tensor(array)))
    np.testing.assert_array_equal(function(own, array), function(array, array))


class MonteCarlo(Dropout):
    def call(self, inputs):
        return super().call(inputs, training=True)


class Steady(Dropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=False)


class Shifted(Dense):
    def call(self, inputs):
        return super().call(inputs) + 1


class Twice(Shifted):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs)


class Around(Shifted):
    def forward(self, x):
        return -self.call(x)


class OfAll(Sequential):
    def call(self, inputs, training=None):
        return super().call(inputs, training=training) + 1


def test_super_call_is_the_forward_of_the_class_that_is_extended():
    x = torch.arange(6.0).reshape(2, 3)
    wanted = Dense.forward(shifted := Shifted(2, in_features=3), x)
    assert_close(shifted(x), wanted + 1)
    for kind, factor in ((Twice, 2), (Around, -1)):
        layer = kind(2, in_features=3)
        layer.load_state_dict(shifted.state_dict())
        assert_close(layer(x), factor * (wanted + 1))
    assert_close(shifted.call(x), wanted + 1)
    assert_close(Dense.call(shifted, x), wanted)
    unbuilt = Shifted(2)
    assert unbuilt(X).shape == (2, 2)


def test_super_call_is_in_the_mode_that_it_asks_for():
    x = torch.ones(4, 500)
    random, steady, usual = MonteCarlo(0.5), Steady(0.5), Dropout(0.5)
    model = Sequential([random])
    for called in (random, random.eval(), model, model.eval(), lambda x: model.predict(x)):
        assert set(np.unique(called(x))) == {0, 2}
    assert not random.training
    assert_close(steady(x), x)
    assert steady.training
    assert set(usual.call(x).unique().tolist()) == {0, 2}
    assert_close(usual.call(x, training=False), x)
    with pytest.raises(TypeError, match=r"^training must be True or False, got 1$"):
        usual.call(x, training=1)


def test_super_call_of_models_goes_on_training_and_is_evaluated():
    model = OfAll([Dropout(0.5), Dense(1, in_features=3)])
    x = torch.ones(8, 3)
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], verbose=0)
    assert model.training
    expected = model[1](x) + 1
    assert_close(torch.tensor(model.predict(x, verbose=0)), expected.detach())
    assert_close(model(x, training=False), expected)
    assert not torch.equal(model(x), expected)
