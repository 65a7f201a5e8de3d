"""Four classes: the first layer draws lines between them, the second tells them apart by these."""

import numpy as np
import pytest

import torchnn as tn
from torchnn.tf import keras

datasets = pytest.importorskip("sklearn.datasets")
classes = 4


@pytest.fixture(scope="module")
def blobs():
    centers = [[-5, 2], [-2, -2], [1, 2], [5, -2]]
    return datasets.make_blobs(n_samples=100, centers=centers, cluster_std=1.0, random_state=30)


@pytest.fixture(scope="module")
def model(blobs):
    X_train, y_train = blobs
    tn.utils.set_random_seed(3)  # reproducible
    model = keras.Sequential(
        [
            keras.layers.Dense(2, activation="relu", name="L1"),
            keras.layers.Dense(4, activation="linear", name="L2"),
        ]
    )
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.Adam(0.01),
        metrics=["accuracy"],
    )
    model.fit(X_train, y_train, epochs=200, verbose=0)
    return model


def test_it_tells_the_classes_apart(model, blobs):
    X_train, y_train = blobs
    assert set(np.unique(y_train)) == set(range(classes))
    pred = model.predict(X_train).argmax(axis=1)
    accuracy = np.mean(pred == y_train)
    assert accuracy >= 0.93
    assert model.evaluate(X_train, y_train, verbose=0)[1] == pytest.approx(accuracy)


def test_the_layers_of_the_network_are_its_formulas(model, blobs):
    X_train, _ = blobs
    l1, l2 = model.get_layer("L1"), model.get_layer("L2")
    W1, b1 = l1.get_weights()
    W2, b2 = l2.get_weights()
    Xl1 = np.maximum(0, np.dot(X_train, W1) + b1)
    np.testing.assert_allclose(l1(X_train), Xl1, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(l2(Xl1), np.dot(Xl1, W2) + b2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.predict(X_train), l2(l1(X_train)), rtol=1e-4, atol=1e-5)


def test_each_unit_of_the_first_layer_is_on_for_some_classes_and_off_for_others(model, blobs):
    X_train, y_train = blobs
    is_on = model.get_layer("L1")(X_train) > 0
    shares = np.array([is_on[y_train == c].mean(axis=0) for c in range(classes)])
    assert np.all(shares.max(axis=0) > 0.9)
    assert np.all(shares.min(axis=0) < 0.1)
    patterns = {tuple(pattern) for pattern in (shares > 0.5).tolist()}
    assert len(patterns) >= 3  # two lines cut the plane into so many regions that matter


def test_the_output_unit_of_a_class_is_the_highest_at_its_center(model):
    centers = np.array([[-5, 2], [-2, -2], [1, 2], [5, -2]])
    np.testing.assert_array_equal(model.predict(centers).argmax(axis=1), range(classes))
