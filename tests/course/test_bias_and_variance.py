"""Bias and variance: a large network learns its examples by heart, and regularization stops it."""

import numpy as np
import pytest

import torchnn.tf as tf
from torchnn.activations import linear, relu
from torchnn.layers import Dense
from torchnn.losses import SparseCategoricalCrossentropy
from torchnn.models import Sequential

datasets = pytest.importorskip("sklearn.datasets")
train_test_split = pytest.importorskip("sklearn.model_selection").train_test_split
classes = 6


@pytest.fixture(scope="module")
def blobs():
    """Six clusters that overlap: 120 examples to learn from, and as many to validate with."""
    centers = [[-1, 0], [1, 0], [0, 1], [0, -1], [-2, 1], [-2, -1]]
    X, y = datasets.make_blobs(n_samples=240, centers=centers, cluster_std=0.5, random_state=2)
    return train_test_split(X, y, test_size=0.5, random_state=1)


def eval_cat_err(y, yhat):
    """The share of examples that are put into the wrong category."""
    m = len(y)
    incorrect = 0
    for i in range(m):
        if yhat[i] != y[i]:
            incorrect += 1
    cerr = incorrect / m
    return cerr


def complex_model(lambda_=None):
    regularizer = None if lambda_ is None else tf.keras.regularizers.l2(lambda_)
    tf.random.set_seed(1234)
    model = Sequential(
        [
            Dense(120, activation="relu", kernel_regularizer=regularizer),
            Dense(40, activation="relu", kernel_regularizer=regularizer),
            Dense(classes, activation="linear"),
        ]
    )
    return model


def simple_model():
    tf.random.set_seed(1234)
    return Sequential([Dense(6, activation="relu"), Dense(classes, activation="linear")])


def errors(model, blobs, epochs=300):
    """Trains a model; returns its errors on what it has learned from, and on what it has not."""
    X_train, X_cv, y_train, y_cv = blobs
    model.compile(
        loss=SparseCategoricalCrossentropy(from_logits=True),
        optimizer=tf.keras.optimizers.Adam(0.01),
    )
    model.fit(X_train, y_train, epochs=epochs, verbose=0)

    def model_predict(Xl):
        return np.argmax(tf.nn.softmax(model.predict(Xl)).numpy(), axis=1)

    return eval_cat_err(y_train, model_predict(X_train)), eval_cat_err(y_cv, model_predict(X_cv))


def size(model):
    """The sum of the squares of the kernels that regularization may lower."""
    return sum(np.sum(layer.get_weights()[0] ** 2) for layer in model.layers[:2])


def test_the_categorization_error_counts_what_is_wrong():
    y_hat = np.array([1, 2, 0])
    y_tmp = np.array([1, 2, 3])
    assert eval_cat_err(y_tmp, y_hat) == pytest.approx(1 / 3)


def test_the_regularized_model_is_the_one_that_was_asked_for():
    model_r = complex_model(0.1)
    model_r.build((None, 2))
    expected = [[120, relu, 0.1], [40, relu, 0.1], [classes, linear, None]]
    for layer, (units, activation, l2) in zip(model_r.layers, expected, strict=True):
        assert layer.units == units
        assert layer.activation == activation
        if l2 is None:
            assert layer.kernel_regularizer is None
        else:
            assert isinstance(layer.kernel_regularizer, tf.keras.regularizers.L2)
            assert np.isclose(layer.kernel_regularizer.l2, l2)


def test_a_complex_model_overfits_and_a_simple_one_does_less(blobs):
    training_cerr_complex, cv_cerr_complex = errors(complex_model(), blobs)
    training_cerr_simple, cv_cerr_simple = errors(simple_model(), blobs)
    assert training_cerr_complex < training_cerr_simple
    assert cv_cerr_complex - training_cerr_complex > cv_cerr_simple - training_cerr_simple


def test_regularization_lowers_the_weights_and_the_gap(blobs):
    lambdas = [0.0, 0.01, 0.03, 0.1]
    models = [None] * len(lambdas)
    training_cerr, cv_cerr = np.zeros(len(lambdas)), np.zeros(len(lambdas))
    for i in range(len(lambdas)):
        models[i] = complex_model(lambdas[i])
        training_cerr[i], cv_cerr[i] = errors(models[i], blobs)

    sizes = [size(model) for model in models]
    assert sizes == sorted(sizes, reverse=True)
    gaps = cv_cerr - training_cerr
    assert gaps[0] > 0.1  # learned by heart
    assert gaps[-1] < gaps[0] / 2
    assert training_cerr[-1] > training_cerr[0]
    assert cv_cerr[-1] < cv_cerr[0]


def test_too_much_regularization_underfits(blobs):
    training_cerr, _ = errors(complex_model(10.0), blobs)
    assert training_cerr > 0.3


def test_the_loss_that_is_reported_has_the_penalty_in_it(blobs):
    X_train, _, y_train, _ = blobs
    lambda_ = 0.05
    model = complex_model(lambda_)
    model.compile(loss=SparseCategoricalCrossentropy(from_logits=True))
    loss = model.evaluate(X_train, y_train, verbose=0)
    logits = model.predict(X_train)
    cost = np.mean(
        [np.log(np.sum(np.exp(z))) - z[label] for z, label in zip(logits, y_train, strict=True)]
    )
    penalty = lambda_ * sum(np.sum(layer.get_weights()[0] ** 2) for layer in model.layers[:2])
    assert loss == pytest.approx(cost + penalty, rel=1e-5)


def test_what_regularization_adds_is_trained_in_the_native_engine(capsys):
    model = complex_model(0.1)
    model.compile(loss=SparseCategoricalCrossentropy(from_logits=True), optimizer="adam")
    model.build((None, 2))
    model.summary()
    assert "Training engine: fused" in capsys.readouterr().out
