"""ReLU: units switch on at places of their own, and their sum is a line with bends in it."""

import numpy as np
import pytest

import torchnn.tf as tf
from torchnn.layers import Dense
from torchnn.models import Sequential
from torchnn.tf import keras

X = np.linspace(0, 3, 121).reshape(-1, 1)
# From 2 down to 0 at x = 1, up to 1 at x = 2, and down again.
PIECES = np.interp(X, [0, 1, 2, 3], [2, 0, 1, -1])


def test_units_that_switch_on_one_by_one_make_the_pieces():
    model = Sequential(
        [
            tf.keras.Input(shape=(1,)),
            Dense(3, activation="relu", name="l1"),
            Dense(1, activation="linear", name="l2"),
        ]
    )
    # Unit 0 is on from 0 on, unit 1 from x = 1 on, unit 2 from x = 2 on: each changes the slope.
    model.get_layer("l1").set_weights([np.ones((1, 3)), np.array([0, -1, -2])])
    model.get_layer("l2").set_weights([np.array([[-2], [3], [-3]]), np.array([2])])
    np.testing.assert_allclose(model.predict(X), PIECES, atol=1e-5)


def test_a_unit_says_nothing_where_it_is_off():
    unit = Dense(1, activation="relu")
    unit(X)
    unit.set_weights([np.array([[1.0]]), np.array([-1.0])])
    a = unit(X)
    assert np.all(a[X <= 1] == 0)
    np.testing.assert_allclose(a[X > 1], X[X > 1] - 1, atol=1e-6)
    np.testing.assert_array_equal(tf.nn.relu(X - 1).numpy(), np.maximum(X - 1, 0))
    np.testing.assert_allclose(keras.activations.relu(X - 1), a, atol=1e-6)


@pytest.mark.parametrize(("activation", "fits"), [("relu", True), ("linear", False)])
def test_a_network_with_relu_learns_them_and_one_without_does_not(activation, fits):
    tf.random.set_seed(3)
    model = Sequential([Dense(32, activation=activation), Dense(1)])
    model.compile(loss=keras.losses.MeanSquaredError(), optimizer=keras.optimizers.Adam(0.01))
    centered = X - X.mean()  # biases begin at 0: so do the bends
    model.fit(centered, PIECES, epochs=100, verbose=0)
    straight = np.polyval(np.polyfit(X[:, 0], PIECES[:, 0], 1), X)
    best_of_lines = np.mean((straight - PIECES) ** 2)
    loss = model.evaluate(centered, PIECES, verbose=0)
    assert loss < 0.02 * best_of_lines if fits else loss > 0.9 * best_of_lines
