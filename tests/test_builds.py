"""Layers and models of one's own with a build."""

import copy
import pickle

import numpy as np
import pytest
import torch

from torchnn import Input, Model, Sequential
from torchnn.layers import Dense, Layer

X = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
Y = X.sum(1)


class Linear(Layer):
    def __init__(self, units=3, **options):
        super().__init__(**options)
        self.units = units

    def build(self, input_shape):
        shape = (input_shape[-1], self.units)
        self.w = self.add_weight(shape=shape, initializer="random_normal", name="kernel")
        self.b = self.add_weight(shape=(self.units,), initializer="zeros")
        self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False)
        super().build(input_shape)

    def call(self, x):
        return x @ self.w + self.b


def changed(model, train):
    before = model.get_weights()
    train()
    return [(a != b).any() for a, b in zip(before, model.get_weights(), strict=True)]


def test_the_first_call_builds_a_layer_by_its_input():
    layer = Linear()
    assert not layer.built
    output = layer(X)
    assert layer.built
    assert list(layer.state_dict()) == ["w", "b", "seen"]
    assert [v.trainable for v in layer.weights] == [True, True, False]
    np.testing.assert_allclose(output, X @ layer.get_weights()[0], rtol=1e-4, atol=1e-6)
    assert not layer._forward_pre_hooks


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sequential([Linear(), Dense(1)]),
        lambda: Sequential([Input((4,)), Linear(), Dense(1)]),
        lambda: Model(x := Input((4,)), Dense(1)(Linear()(x))),
    ],
)
@pytest.mark.parametrize("method", ["fit", "train_on_batch"])
def test_weights_made_in_build_are_trained_from_the_first_step_on(make, method):
    model, other = make(), make()
    for each in (model, other):
        each.compile(loss="mse")
    getattr(model, method)(X, Y)
    assert model.built
    assert changed(model, lambda: getattr(model, method)(X, Y)) == [True, True, False, True, True]
    other.predict(X)
    assert changed(other, lambda: getattr(other, method)(X, Y)) == [True, True, False, True, True]


def test_a_model_may_make_its_layers_in_build():
    class Own(Model):
        def build(self, input_shape):
            self.hidden = [Linear(input_shape[-1])]
            self.out = Dense(1)
            self.built = True

        def call(self, x):
            return self.out(self.hidden[0](x))

    model = Own()
    assert not model.built
    model.compile(loss="mse")
    model.fit(X, Y, verbose=0)
    assert model.built
    again = changed(model, lambda: model.fit(X, Y, verbose=0))
    assert again == [True, True, False, True, True]


def test_what_fails_is_not_built():
    model = Sequential([Linear(), Dense(1)])
    model.compile(loss="mse")
    with pytest.raises(ValueError, match=r"^y has shape"):
        model.fit(X, np.ones((20, 2)), verbose=0)
    assert not model.built
    model.fit(X, Y, verbose=0)
    assert [w.shape for w in model.get_weights()] == [(4, 3), (3,), (), (3, 1), (1,)]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_built_by_themselves(copied):
    layer = Linear()
    other = copied(layer)
    other(X)
    assert other.built
    assert not layer.built
    np.testing.assert_array_equal(copied(other)(X), other(X))


def test_inference_mode_builds_what_can_learn():
    layer = Linear()
    with torch.inference_mode():
        layer(torch.from_numpy(X))
    layer(torch.from_numpy(X)).sum().backward()
    assert layer.w.grad is not None


def test_what_is_frozen_before_it_is_built_stays_frozen():
    one, other = Linear(trainable=False), Linear()
    other.trainable = False
    for layer in (one, other):
        layer(X)
        assert layer.trainable_weights == []


def test_weights_have_their_names_by_attribute_or_by_name():
    class Made(Layer):
        def __init__(self):
            super().__init__()
            self.first = self.add_weight((4, 2), "ones", name="kernel")
            self.add_weight((2,), "ones", name="second")
            self.add_weight(2, "ones")

    layer = Made()
    assert list(layer.state_dict()) == ["first", "second", "weight_0"]
    assert layer.built


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (0,)}, "^each size in shape must be a positive integer, got 0"),
        ({"initializer": "zeroes"}, "initializer"),
        ({"trainable": 3}, "^trainable must be"),
        ({"regularizer": "l2"}, "^add_weight got regularizer; it takes shape"),
    ],
)
def test_wrong_arguments_are_an_error(options, message):
    layer = Linear()
    with pytest.raises((ValueError, TypeError), match=message):
        layer.add_weight(**options)


def test_losses_cannot_be_added():
    with pytest.raises(NotImplementedError, match=r"^Linear cannot add a loss: .*activity_reg"):
        Linear().add_loss(1.0)
