"""Handwritten zeros and ones: a network of three layers reads them, and NumPy runs it as well."""

import numpy as np
import pytest

import torchnn as tn
from torchnn import Sequential
from torchnn.activations import linear, relu, sigmoid
from torchnn.layers import Dense

datasets = pytest.importorskip("sklearn.datasets")


@pytest.fixture(scope="module")
def data():
    """Images of 8 x 8 pixels as rows of 64, and what they show, as a column."""
    X, y = datasets.load_digits(n_class=2, return_X_y=True)
    return X / 16, y.reshape(-1, 1)


@pytest.fixture(scope="module")
def model(data):
    X, y = data
    tn.utils.set_random_seed(1234)
    model = Sequential(
        [
            tn.Input(shape=(64,)),
            Dense(units=25, activation="sigmoid", name="layer1"),
            Dense(units=15, activation="sigmoid", name="layer2"),
            Dense(units=1, activation="sigmoid", name="layer3"),
        ],
        name="my_model",
    )
    model.compile(
        loss=tn.losses.BinaryCrossentropy(),
        optimizer=tn.optimizers.Adam(0.01),
    )
    model.fit(X, y, epochs=20, verbose=0)
    return model


def test_the_layers_have_the_shapes_of_the_network(model):
    [layer1, layer2, layer3] = model.layers
    W1, b1 = layer1.get_weights()
    W2, b2 = layer2.get_weights()
    W3, b3 = layer3.get_weights()
    assert (W1.shape, W2.shape, W3.shape) == ((64, 25), (25, 15), (15, 1))
    assert (b1.shape, b2.shape, b3.shape) == ((25,), (15,), (1,))
    assert model.layers[2].weights[0].shape == (15, 1)


def test_it_reads_a_zero_and_a_one(model, data):
    X, y = data
    prediction = model.predict(X[0].reshape(1, 64))  # a zero
    assert (1 if prediction >= 0.5 else 0) == y[0, 0] == 0
    prediction = model.predict(X[1].reshape(1, 64))  # a one
    assert (1 if prediction >= 0.5 else 0) == y[1, 0] == 1


def test_few_of_the_images_are_misread(model, data):
    X, y = data
    Yhat = (model.predict(X) >= 0.5).astype(int)
    errors = np.where(y != Yhat)[0]
    assert len(errors) <= 2


def test_a_forward_pass_unit_by_unit_gives_the_same(model, data):
    def my_dense(a_in, W, b, g):
        units = W.shape[1]
        a_out = np.zeros(units)
        for j in range(units):
            z = np.dot(a_in, W[:, j]) + b[j]
            a_out[j] = g(z)
        return a_out

    X, _ = data
    a = X[7]
    for layer in model.layers:
        W, b = layer.get_weights()
        a = my_dense(a, W, b, layer.activation)
    np.testing.assert_allclose(a, model.predict(X[7:8])[0], rtol=1e-4)


def test_a_forward_pass_in_matrices_gives_the_same(model, data):
    def my_dense_v(A_in, W, b, g):
        return g(np.matmul(A_in, W) + b)

    X, _ = data
    W1, b1, W2, b2, W3, b3 = model.get_weights()
    A1 = my_dense_v(X, W1, b1, sigmoid)
    A2 = my_dense_v(A1, W2, b2, sigmoid)
    A3 = my_dense_v(A2, W3, b3, sigmoid)
    np.testing.assert_allclose(A3, model.predict(X), rtol=1e-4, atol=1e-6)


def test_the_layers_know_their_activations():
    model = Sequential([Dense(25, activation="relu"), Dense(15, sigmoid), Dense(1)])
    assert [layer.activation for layer in model.layers] == [relu, sigmoid, linear]
