"""Coffee roasting: a small network learns a triangle of good roasts, in TensorFlow and in NumPy."""

import numpy as np
import pytest

import torchnn.tf as tf
from torchnn import Sequential
from torchnn.layers import Dense
from torchnn.tf import keras


def load_coffee_data():
    """Temperatures, durations, and whether they made good coffee: neither under- nor overdone."""
    rng = np.random.default_rng(2)
    X = rng.random((200, 2)) * [110, 3.5] + [150, 11.5]
    temperature, duration = X.T
    least = -3 / (260 - 175) * temperature + 21
    good = (temperature > 175) & (temperature < 260) & (duration > 12) & (duration < least)
    return X, good.astype(float).reshape(-1, 1)


@pytest.fixture(scope="module")
def trained():
    """The normalization and the network of the lab, and what each epoch came to."""
    X, Y = load_coffee_data()
    norm_l = tf.keras.layers.Normalization(axis=-1)
    norm_l.adapt(X)  # learns mean, variance
    Xn = norm_l(X)
    Xt = np.tile(Xn, (100, 1))
    Yt = np.tile(Y, (100, 1))

    tf.random.set_seed(1234)
    model = Sequential(
        [
            tf.keras.Input(shape=(2,)),
            Dense(3, activation="sigmoid", name="layer1"),
            Dense(1, activation="sigmoid", name="layer2"),
        ]
    )
    model.compile(
        loss=tf.keras.losses.BinaryCrossentropy(),
        optimizer=tf.keras.optimizers.Adam(learning_rate=0.02),
    )
    history = model.fit(Xt, Yt, epochs=20, verbose=0)
    return norm_l, model, history


def test_normalization_brings_every_feature_to_mean_0_and_deviation_1():
    X, _ = load_coffee_data()
    norm_l = keras.layers.Normalization(axis=-1)
    norm_l.adapt(X)
    Xn = norm_l(X)
    assert 1.5 < np.max(Xn[:, 0]) < 2  # the temperatures are spread evenly
    assert -2 < np.min(Xn[:, 0]) < -1.5
    np.testing.assert_allclose(np.mean(Xn, axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(Xn, axis=0), 1, rtol=1e-5)
    assert np.tile(Xn, (100, 1)).shape == (20_000, 2)


def test_the_layers_have_as_many_parameters_as_the_lab_counts(trained, capsys):
    _, model, _ = trained
    L1_num_params = 2 * 3 + 3  # W1 parameters + b1 parameters
    L2_num_params = 3 * 1 + 1
    model.summary()
    assert f"Total parameters: {L1_num_params + L2_num_params}" in capsys.readouterr().out
    assert model.count_params() == L1_num_params + L2_num_params
    W1, b1 = model.get_layer("layer1").get_weights()
    W2, b2 = model.get_layer("layer2").get_weights()
    assert [each.shape for each in (W1, b1, W2, b2)] == [(2, 3), (3,), (3, 1), (1,)]


def test_the_network_learns_which_roasts_are_good(trained):
    norm_l, model, history = trained
    X, Y = load_coffee_data()
    assert history.history["loss"][-1] < 0.2 * history.history["loss"][0]
    yhat = (model.predict(norm_l(X)) >= 0.5).astype(int)
    assert np.mean(yhat == Y) > 0.95


def test_decisions_of_new_roasts(trained):
    norm_l, model, _ = trained
    X_test = np.array(
        [
            [200, 13.9],  # positive example
            [200, 17],  # negative example
        ]
    )
    X_testn = norm_l(X_test)
    predictions = model.predict(X_testn)

    yhat = np.zeros_like(predictions)
    for i in range(len(predictions)):
        if predictions[i] >= 0.5:
            yhat[i] = 1
        else:
            yhat[i] = 0
    np.testing.assert_array_equal(yhat, [[1], [0]])
    np.testing.assert_array_equal((predictions >= 0.5).astype(int), yhat)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def my_dense(a_in, W, b):
    """One layer for one example, unit by unit."""
    units = W.shape[1]
    a_out = np.zeros(units)
    for j in range(units):
        w = W[:, j]
        z = np.dot(w, a_in) + b[j]
        a_out[j] = sigmoid(z)
    return a_out


def my_sequential(x, W1, b1, W2, b2):
    a1 = my_dense(x, W1, b1)
    a2 = my_dense(a1, W2, b2)
    return a2


def my_predict(X, W1, b1, W2, b2):
    m = X.shape[0]
    p = np.zeros((m, 1))
    for i in range(m):
        p[i, 0] = my_sequential(X[i], W1, b1, W2, b2)[0]
    return p


def test_the_forward_pass_in_numpy_predicts_the_same(trained):
    norm_l, model, _ = trained
    X_tst = np.array([[200, 13.9], [200, 17], [180, 12.5]])
    X_tstn = norm_l(X_tst)  # remember to normalize
    predictions = my_predict(X_tstn, *model.get_weights())
    np.testing.assert_allclose(model.predict(X_tstn), predictions, rtol=1e-4)


def test_the_weights_of_the_notes_make_the_decisions_of_the_notes():
    W1_tmp = np.array([[-8.93, 0.29, 12.9], [-0.1, -7.32, 10.81]])
    b1_tmp = np.array([-9.82, -9.28, 0.96])
    W2_tmp = np.array([[-31.18], [-27.59], [-32.56]])
    b2_tmp = np.array([15.41])
    model = Sequential([Dense(3, input_shape=(2,), activation="sigmoid"), Dense(1, "sigmoid")])
    model.set_weights([W1_tmp, b1_tmp, W2_tmp, b2_tmp])

    X_tstn = np.array([[-0.47, 0.42], [-0.47, 3.16]])  # normalized
    predictions = model.predict(X_tstn)
    np.testing.assert_allclose(
        predictions, my_predict(X_tstn, W1_tmp, b1_tmp, W2_tmp, b2_tmp), rtol=1e-3
    )
    np.testing.assert_array_equal(predictions >= 0.5, [[True], [False]])
