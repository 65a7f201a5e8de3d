"""Ten handwritten digits: three layers, a number for each digit, and softmax in the loss."""

import numpy as np
import pytest

import torchnn.tf as tf
from torchnn.activations import linear, relu
from torchnn.layers import Dense
from torchnn.models import Sequential

datasets = pytest.importorskip("sklearn.datasets")
selection = pytest.importorskip("sklearn.model_selection")


@pytest.fixture(scope="module")
def data():
    """Images to learn from and to test with, 8 x 8 pixels each, and their digits as columns."""
    X, y = datasets.load_digits(return_X_y=True)
    return selection.train_test_split(X / 16, y.reshape(-1, 1), test_size=0.3, random_state=1)


@pytest.fixture(scope="module")
def model(data):
    X, _, y, _ = data
    tf.random.set_seed(1234)  # for consistent results
    model = Sequential(
        [
            tf.keras.Input(shape=(64,)),
            Dense(25, activation="relu", name="L1"),
            Dense(15, activation="relu", name="L2"),
            Dense(10, activation="linear", name="L3"),
        ],
        name="my_model",
    )
    model.compile(
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=tf.keras.optimizers.Adam(learning_rate=0.005),
    )
    model.fit(X, y, epochs=40, verbose=0)
    return model


def test_the_model_is_the_one_that_was_asked_for(model):
    assert len(model.layers) == 3
    assert model.input.shape.as_list() == [None, 64]
    expected = [
        [Dense, [None, 25], relu],
        [Dense, [None, 15], relu],
        [Dense, [None, 10], linear],
    ]
    for layer, (kind, shape, activation) in zip(model.layers, expected, strict=True):
        assert type(layer) is kind
        assert layer.output.shape.as_list() == shape
        assert layer.activation == activation


def test_the_weights_have_the_shapes_of_the_lab(model):
    [layer1, layer2, layer3] = model.layers
    W1, b1 = layer1.get_weights()
    W2, b2 = layer2.get_weights()
    W3, b3 = layer3.get_weights()
    assert (W1.shape, b1.shape) == ((64, 25), (25,))
    assert (W2.shape, b2.shape) == ((25, 15), (15,))
    assert (W3.shape, b3.shape) == ((15, 10), (10,))


def test_the_loss_falls(model):
    loss = model.history.history["loss"]
    assert len(loss) == 40
    assert loss[0] > 1
    assert loss[-1] < 0.1


def test_the_largest_output_is_the_digit(model, data):
    X, _, y, _ = data
    image_of_two = X[y[:, 0] == 2][0]
    prediction = model.predict(image_of_two.reshape(1, 64))
    assert prediction.shape == (1, 10)
    assert np.argmax(prediction) == 2
    prediction_p = tf.nn.softmax(prediction)
    assert np.sum(prediction_p) == pytest.approx(1)
    assert np.argmax(prediction_p) == 2


def test_most_unseen_digits_are_read_right(model, data):
    _, X_test, _, y_test = data
    yhat = np.argmax(model.predict(X_test), axis=1)
    assert np.mean(yhat == y_test[:, 0]) > 0.93
