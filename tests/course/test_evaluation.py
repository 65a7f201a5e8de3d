"""Evaluating models: one set to learn from, a second to choose by, a third to report."""

import numpy as np
import pytest

import torchnn.tf as tf
from torchnn.layers import Dense
from torchnn.models import Sequential

datasets = pytest.importorskip("sklearn.datasets")
linear_model = pytest.importorskip("sklearn.linear_model")
preprocessing = pytest.importorskip("sklearn.preprocessing")
metrics = pytest.importorskip("sklearn.metrics")
train_test_split = pytest.importorskip("sklearn.model_selection").train_test_split


def split(x, y):
    """60 % to train, 20 % to cross-validate, 20 % to test."""
    x_train, x_, y_train, y_ = train_test_split(x, y, test_size=0.40, random_state=1)
    x_cv, x_test, y_cv, y_test = train_test_split(x_, y_, test_size=0.50, random_state=1)
    return x_train, y_train, x_cv, y_cv, x_test, y_test


@pytest.fixture(scope="module")
def curve():
    """A cubic curve with noise, as columns."""
    rng = np.random.default_rng(4)
    x = np.sort(rng.uniform(-3, 3, 100))
    y = x**3 - 4 * x + rng.normal(0, 2, 100)
    return split(x.reshape(-1, 1), y.reshape(-1, 1))


def unit(**options):
    """Linear regression: one linear unit."""
    model = Sequential([Dense(1, activation="linear", **options)])
    model.compile(loss="mse", optimizer=tf.keras.optimizers.Adam(0.1))
    return model


def half_mse(model, x, y):
    return metrics.mean_squared_error(y, model.predict(x)) / 2


def test_a_linear_unit_finds_what_linear_regression_finds(curve):
    x_train, y_train, *_ = curve
    scaler = preprocessing.StandardScaler()
    X_train_scaled = scaler.fit_transform(x_train)
    tf.random.set_seed(1)
    model = unit()
    model.fit(X_train_scaled, y_train, epochs=100, batch_size=60, verbose=0)
    exact = linear_model.LinearRegression().fit(X_train_scaled, y_train)
    np.testing.assert_allclose(
        model.predict(X_train_scaled), exact.predict(X_train_scaled), atol=0.05
    )
    assert half_mse(model, X_train_scaled, y_train) == pytest.approx(
        model.evaluate(X_train_scaled, y_train, verbose=0) / 2, rel=1e-5
    )


def test_cross_validation_finds_the_degree_of_the_curve(curve):
    x_train, y_train, x_cv, y_cv, x_test, y_test = curve
    train_mses, cv_mses, models, scalers, polys = [], [], [], [], []
    for degree in range(1, 6):
        poly = preprocessing.PolynomialFeatures(degree, include_bias=False)
        scaler_poly = preprocessing.StandardScaler()
        X_train_mapped_scaled = scaler_poly.fit_transform(poly.fit_transform(x_train))
        tf.random.set_seed(1)
        model = unit()
        model.fit(X_train_mapped_scaled, y_train, epochs=400, verbose=0)
        train_mses.append(half_mse(model, X_train_mapped_scaled, y_train))
        X_cv_mapped_scaled = scaler_poly.transform(poly.transform(x_cv))
        cv_mses.append(half_mse(model, X_cv_mapped_scaled, y_cv))
        models.append(model)
        scalers.append(scaler_poly)
        polys.append(poly)

    assert train_mses[0] > 2 * train_mses[2]  # a line cannot bend
    assert cv_mses[1] > 1.5 * cv_mses[2]  # a parabola bends once
    degree = np.argmin(cv_mses) + 1
    assert degree >= 3
    X_test_mapped_scaled = scalers[degree - 1].transform(polys[degree - 1].transform(x_test))
    test_mse = half_mse(models[degree - 1], X_test_mapped_scaled, y_test)
    assert test_mse < 1.5 * cv_mses[degree - 1] + 1


def build_models():
    tf.random.set_seed(20)
    model_1 = Sequential(
        [
            Dense(25, activation="relu"),
            Dense(15, activation="relu"),
            Dense(1, activation="linear"),
        ],
        name="model_1",
    )
    model_2 = Sequential(
        [
            Dense(20, activation="relu"),
            Dense(12, activation="relu"),
            Dense(12, activation="relu"),
            Dense(20, activation="relu"),
            Dense(1, activation="linear"),
        ],
        name="model_2",
    )
    model_3 = Sequential([Dense(1, activation="linear")], name="model_3")
    return [model_1, model_2, model_3]


def test_cross_validation_chooses_among_regression_networks(curve):
    x_train, y_train, x_cv, y_cv, x_test, y_test = curve
    scaler = preprocessing.StandardScaler()
    X_train_scaled = scaler.fit_transform(x_train)
    X_cv_scaled, X_test_scaled = scaler.transform(x_cv), scaler.transform(x_test)
    nn_models = build_models()
    cv_mses = []
    for model in nn_models:
        model.compile(loss="mse", optimizer=tf.keras.optimizers.Adam(learning_rate=0.02))
        model.fit(X_train_scaled, y_train, epochs=150, verbose=0)
        cv_mses.append(half_mse(model, X_cv_scaled, y_cv))
    chosen = nn_models[np.argmin(cv_mses)]
    assert chosen.name in ("model_1", "model_2")
    assert min(cv_mses) < 0.5 * cv_mses[2]
    assert half_mse(chosen, X_test_scaled, y_test) < half_mse(nn_models[2], X_test_scaled, y_test)


def test_cross_validation_chooses_among_classifiers():
    x, y = datasets.make_moons(n_samples=400, noise=0.15, random_state=0)
    x_train, y_train, x_cv, y_cv, x_test, y_test = split(x, y.reshape(-1, 1))
    threshold = 0.5

    def share_of_errors(model, x, y):
        yhat = tf.math.sigmoid(model.predict(x))
        yhat = np.where(yhat >= threshold, 1, 0)
        return np.mean(yhat != y)

    nn_models = build_models()
    for model in nn_models:
        model.compile(
            loss=tf.keras.losses.BinaryCrossentropy(from_logits=True),
            optimizer=tf.keras.optimizers.Adam(learning_rate=0.01),
            metrics=["accuracy"],
        )
        model.fit(x_train, y_train, epochs=60, verbose=0)
    cv_error = [share_of_errors(model, x_cv, y_cv) for model in nn_models]
    assert min(cv_error) < 0.5 * cv_error[2]  # the moons have no line between them

    chosen = nn_models[np.argmin(cv_error)]
    _, accuracy = chosen.evaluate(x_test, y_test, verbose=0)
    assert accuracy == pytest.approx(1 - share_of_errors(chosen, x_test, y_test))
    assert accuracy > 0.9
