"""Neurons and layers: a unit is the formula of linear or logistic regression."""

import numpy as np
import pytest

import torchnn.tf as tf
from torchnn import Sequential
from torchnn.activations import sigmoid
from torchnn.layers import Dense

X_train = np.array([[1.0], [2.0]], dtype=np.float32)  # size in 1000 square feet
Y_train = np.array([[300.0], [500.0]], dtype=np.float32)  # price in 1000s of dollars


@pytest.fixture
def pass_or_fail():
    x = np.array([0.0, 1, 2, 3, 4, 5], dtype=np.float32).reshape(-1, 1)
    return x, np.array([0, 0, 0, 1, 1, 1], dtype=np.float32).reshape(-1, 1)


def test_a_linear_unit_is_the_formula():
    linear_layer = tf.keras.layers.Dense(units=1, activation="linear")
    assert linear_layer.get_weights() == []  # there are none before it has seen data

    a1 = linear_layer(X_train[0].reshape(1, 1))
    w, b = linear_layer.get_weights()
    assert w.shape == (1, 1)
    assert b == 0
    np.testing.assert_allclose(a1, np.dot(X_train[0].reshape(1, 1), w) + b, rtol=1e-6)


def test_a_linear_unit_with_the_right_weights_gives_the_prices():
    linear_layer = tf.keras.layers.Dense(units=1, activation="linear")
    linear_layer(X_train)
    set_w = np.array([[200]])
    set_b = np.array([100])

    linear_layer.set_weights([set_w, set_b])

    w, b = linear_layer.get_weights()
    np.testing.assert_array_equal(w, set_w)
    np.testing.assert_array_equal(b, set_b)
    prediction_tf = linear_layer(X_train)
    prediction_np = np.dot(X_train, set_w) + set_b
    np.testing.assert_array_equal(prediction_tf, prediction_np)
    np.testing.assert_array_equal(prediction_tf, Y_train)


def test_a_logistic_unit_is_the_formula(pass_or_fail):
    X, _ = pass_or_fail
    model = Sequential([tf.keras.layers.Dense(1, input_dim=1, activation="sigmoid", name="L1")])
    logistic_layer = model.get_layer("L1")
    w, b = logistic_layer.get_weights()
    assert (w.shape, b.shape) == ((1, 1), (1,))

    set_w = np.array([[2]])
    set_b = np.array([-4.5])
    logistic_layer.set_weights([set_w, set_b])

    a1 = model.predict(X[0].reshape(1, 1))
    by_hand = 1 / (1 + np.exp(-(np.dot(X, set_w) + set_b)))
    np.testing.assert_allclose(a1[0], by_hand[0], rtol=1e-5)
    np.testing.assert_allclose(model.predict(X), by_hand, rtol=1e-5)
    np.testing.assert_allclose(sigmoid(np.dot(X, set_w) + set_b), by_hand, rtol=1e-5)


def test_the_logistic_unit_of_the_notes_decides_right(pass_or_fail):
    X, Y = pass_or_fail
    logistic_layer = Dense(1, activation="sigmoid")
    logistic_layer(X)
    logistic_layer.set_weights([np.array([[2.0]]), np.array([-4.5])])
    predictions = logistic_layer(X)
    positive = predictions >= 0.5
    np.testing.assert_array_equal(positive[:, 0], X[:, 0] > 2.25)  # where 2 x - 4.5 = 0
    np.testing.assert_array_equal(positive, Y == 1)


def test_layers_stack_into_a_forward_pass():
    x = np.array([[200.0, 17.0]])
    layer_1 = Dense(units=3, activation="sigmoid")
    a1 = layer_1(x)
    layer_2 = Dense(units=1, activation="sigmoid")
    a2 = layer_2(a1)
    assert (a1.shape, a2.shape) == ((1, 3), (1, 1))

    W1, b1 = layer_1.get_weights()
    W2, b2 = layer_2.get_weights()
    a1_by_hand = 1 / (1 + np.exp(-(x @ W1 + b1)))
    a2_by_hand = 1 / (1 + np.exp(-(a1_by_hand @ W2 + b2)))
    np.testing.assert_allclose(a2, a2_by_hand, rtol=1e-4)
    np.testing.assert_allclose(Sequential([layer_1, layer_2]).predict(x), a2, rtol=1e-6)
