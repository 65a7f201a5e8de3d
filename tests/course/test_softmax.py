"""Softmax: in the output layer or in the loss, the same network; in the loss, better numbers."""

import numpy as np
import pytest

import torchnn.tf as tf
from torchnn.activations import softmax
from torchnn.layers import Dense
from torchnn.losses import SparseCategoricalCrossentropy
from torchnn.models import Sequential
from torchnn.optimizers import Adam

datasets = pytest.importorskip("sklearn.datasets")
CENTERS = [[-5, 2], [-2, -2], [1, 2], [5, -2]]


@pytest.fixture(scope="module")
def blobs():
    return datasets.make_blobs(n_samples=400, centers=CENTERS, cluster_std=1.0, random_state=30)


def trained(blobs, activation, loss):
    X_train, y_train = blobs
    tf.random.set_seed(1234)
    model = Sequential(
        [
            Dense(25, activation="relu"),
            Dense(15, activation="relu"),
            Dense(4, activation=activation),
        ]
    )
    model.compile(loss=loss, optimizer=Adam(0.005))
    history = model.fit(X_train, y_train, epochs=10, verbose=0)
    return model, history.history["loss"]


@pytest.fixture(scope="module")
def obvious(blobs):
    return trained(blobs, "softmax", SparseCategoricalCrossentropy())


@pytest.fixture(scope="module")
def preferred(blobs):
    return trained(blobs, "linear", SparseCategoricalCrossentropy(from_logits=True))


def my_softmax(z):
    ez = np.exp(z)
    sm = ez / np.sum(ez)
    return sm


def test_softmax_is_the_formula():
    z = np.array([1.0, 2, 3, 4])
    for sm in (softmax(z), tf.nn.softmax(z), tf.keras.activations.softmax(z)):
        np.testing.assert_allclose(sm, my_softmax(z), rtol=1e-6)
        assert np.sum(sm) == pytest.approx(1)


def test_outputs_of_a_softmax_are_probabilities(obvious, blobs):
    model, _ = obvious
    p_nonpreferred = model.predict(blobs[0])
    assert np.min(p_nonpreferred) >= 0
    assert np.max(p_nonpreferred) <= 1
    np.testing.assert_allclose(p_nonpreferred.sum(axis=1), 1, rtol=1e-5)


def test_outputs_of_a_linear_layer_are_none_until_softmax_makes_them_some(preferred, blobs):
    model, _ = preferred
    p_preferred = model.predict(blobs[0])
    assert np.max(p_preferred) > 1
    assert np.min(p_preferred) < 0
    sm_preferred = tf.nn.softmax(p_preferred).numpy()
    np.testing.assert_allclose(sm_preferred.sum(axis=1), 1, rtol=1e-5)
    for i in range(5):
        assert np.argmax(p_preferred[i]) == np.argmax(sm_preferred[i])


def test_both_learn_the_same(obvious, preferred, blobs):
    X_train, y_train = blobs
    np.testing.assert_allclose(obvious[1], preferred[1], rtol=1e-3)
    logits = preferred[0].predict(X_train)
    np.testing.assert_allclose(
        obvious[0].predict(X_train), tf.nn.softmax(logits).numpy(), atol=1e-3
    )
    assert np.mean(logits.argmax(axis=1) == y_train) > 0.97


@pytest.mark.parametrize("margin", [50.0, 200.0])
def test_a_probability_rounds_to_nothing_where_a_logit_still_tells(margin):
    z = np.array([[margin, 0.0]], dtype=np.float32)
    y = np.array([1])  # the class that the output is sure it is not
    exact = margin  # log(e^margin + 1) - 0, but for e^-margin
    from_logits = SparseCategoricalCrossentropy(from_logits=True)(y, z)
    of_rounded = SparseCategoricalCrossentropy()(y, tf.nn.softmax(z))
    assert float(from_logits) == pytest.approx(exact, rel=1e-6)
    assert float(of_rounded) == pytest.approx(-np.log(1e-7), rel=1e-3)  # as far as it can tell


def test_class_numbers_and_one_hot_targets_mean_the_same(preferred, blobs):
    X_train, y_train = blobs
    logits = preferred[0].predict(X_train)
    sparse = SparseCategoricalCrossentropy(from_logits=True)
    categorical = tf.keras.losses.CategoricalCrossentropy(from_logits=True)
    one_hot = tf.one_hot(y_train, 4)
    assert float(categorical(one_hot, logits)) == pytest.approx(float(sparse(y_train, logits)))
