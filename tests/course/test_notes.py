"""The program of the course notes with torchnn for tensorflow.keras, and what learners do next."""

import numpy as np
import pytest
import torch

M = 200


@pytest.fixture
def digits():
    """Pictures of 20 x 20 pixels whose upper or lower half is brighter, and which half it is."""
    generator = np.random.default_rng(1)
    y = generator.integers(0, 2, size=(M, 1))
    halves = np.repeat(np.concatenate([y, 1 - y], axis=1), 200, axis=1)
    return 0.1 * generator.normal(size=(M, 400)) + 0.3 * halves, y


def run(program, **names):
    """Runs a program as it would be typed; returns its names."""
    exec(program, names)
    return names


PROGRAM = """
import torchnn as tn
from torchnn import Sequential
from torchnn.layers import Dense
from torchnn.losses import BinaryCrossentropy, MeanSquaredError

model = Sequential([
    Dense(units=25, activation='sigmoid'),
    Dense(units=25, activation='sigmoid'),
    Dense(units=1, activation='sigmoid'),
])
model.compile(loss=BinaryCrossentropy())
model.fit(X, y, epochs=100)
"""


def test_the_program_of_the_notes_runs_as_written(digits, capsys):
    x, y = digits
    torch.manual_seed(1)
    names = run(PROGRAM, X=x, y=y)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("optimizer: gradient descent, learning_rate=0.01 ")
    assert len(lines) == 100
    assert lines[0].startswith("Epoch   1/100  ")
    assert lines[-1].startswith("Epoch 100/100  ")
    history = names["model"].history.history["loss"]
    assert history[-1] < history[0]


def test_a_larger_rate_learns_it(digits):
    x, y = digits
    program = PROGRAM.replace(
        "loss=BinaryCrossentropy()",
        "loss=BinaryCrossentropy(), optimizer=tn.optimizers.Adam(learning_rate=0.01), "
        "metrics=['accuracy']",
    ).replace("epochs=100", "epochs=20, verbose=0")
    model = run("import torchnn as tn\ntn.utils.set_random_seed(1234)\n" + program, X=x, y=y)[
        "model"
    ]
    assert model.evaluate(x, y, verbose=0)[1] == 1.0


def test_losses_can_be_imported_from_layers():
    names = run("from torchnn.layers import BinaryCrossentropy, MeanSquaredError")
    assert names["BinaryCrossentropy"]().name == "binary_crossentropy"


def test_the_regression_of_the_notes():
    names = run(
        """
import numpy as np
from torchnn import Sequential
from torchnn.layers import Dense
from torchnn.losses import MeanSquaredError
x = np.linspace(-1, 1, 40).reshape(-1, 1)
y = 3 * x + 1
model = Sequential([Dense(units=8, activation='relu'), Dense(units=1, activation='linear')])
model.compile(loss=MeanSquaredError())
history = model.fit(x, y, epochs=60, verbose=0)
"""
    )
    loss = names["history"].history["loss"]
    assert loss[-1] < 0.2 * loss[0]


def test_the_logistic_regression_of_the_notes():
    names = run(
        """
import numpy as np
from torchnn import Sequential
from torchnn.layers import Dense
x = np.array([[0.0], [1], [2], [3], [4], [5]])
y = np.array([0, 0, 0, 1, 1, 1])
model = Sequential([Dense(units=1, activation='sigmoid')])
model.compile(loss='binary_crossentropy', optimizer='adam')
model.optimizer.learning_rate = 0.5
model.fit(x, y, epochs=100, verbose=0)
p = model.predict(x)
"""
    )
    assert ((names["p"] > 0.5).astype(int).ravel() == names["y"]).all()


LATER = """
import torchnn as tn
from torchnn import Sequential
from torchnn.layers import Dense, Input
from torchnn.losses import BinaryCrossentropy

tn.utils.set_random_seed(1234)
model = Sequential(
    [
        Input(shape=(400,)),
        Dense(units=25, activation="sigmoid", name="layer1"),
        Dense(units=15, activation="sigmoid", name="layer2"),
        Dense(units=1, activation="sigmoid", name="layer3"),
    ],
    name="my_model",
)
model.summary()
[layer1, layer2, layer3] = model.layers
W1, b1 = layer1.get_weights()
W2, b2 = layer2.get_weights()
W3, b3 = layer3.get_weights()
model.compile(loss=BinaryCrossentropy(), optimizer=tn.optimizers.Adam(0.001))
model.fit(X, y, epochs=2)
prediction = model.predict(X[0].reshape(1, 400))
if prediction >= 0.5:
    yhat = 1
else:
    yhat = 0
loss = model.evaluate(X, y)
same = model.get_layer("layer1") is layer1
"""


def test_what_learners_do_next(digits, capsys):
    x, y = digits
    names = run(LATER, X=x, y=y)
    shapes = [names[name].shape for name in ("W1", "b1", "W2", "b2", "W3", "b3")]
    assert shapes == [(400, 25), (25,), (25, 15), (15,), (15, 1), (1,)]
    assert names["prediction"].shape == (1, 1)
    assert names["yhat"] in (0, 1)
    assert isinstance(names["loss"], float)
    assert names["same"]
    out = capsys.readouterr().out
    assert 'Model: "my_model"' in out
    assert "layer2 (Dense)" in out
    assert "10,025" in out
    assert "Total parameters: 10,431" in out


def test_set_weights_takes_the_notes_own_matrices(digits):
    x, _ = digits
    names = run(LATER.split("model.compile")[0], X=x, y=None)
    layer = names["layer1"]
    kernel, bias = np.full((400, 25), 0.01), np.full(25, -1.0)
    layer.set_weights([kernel, bias])
    by_hand = 1 / (1 + np.exp(-(x[0] @ kernel + bias)))
    first = names["Sequential"]([layer]).predict(x[:1])
    np.testing.assert_allclose(first[0], by_hand, rtol=1e-4)


def test_the_same_seed_gives_the_same_program(digits):
    x, y = digits
    program = LATER.split("loss = model")[0].replace("epochs=2", "epochs=2, verbose=0")
    first, second = (run(program, X=x, y=y)["prediction"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
