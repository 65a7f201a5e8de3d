"""What a type checker makes of a user's program."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each line that a checker must refuse is marked.
PROGRAM = """# mypy: warn-return-any, disallow-untyped-calls, disallow-untyped-decorators
import numpy as np
import torchnn as tn
from torch import nn
from torchnn import Sequential
from torchnn.callbacks import Callback, EarlyStopping, History, LambdaCallback
from torchnn.layers import Dense, Normalization

x, y = np.zeros((8, 3)), np.zeros(8)
model = Sequential([tn.Input((3,)), Normalization(), Dense(4, activation="relu"), Dense(1)])
model.compile(tn.optimizers.Adam(1e-3), loss="mse", metrics=["accuracy"])


class Mine(Callback):
    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.model.optimizer.learning_rate *= 0.9


ends = LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs))
history: History = model.fit(x, y, epochs=2, callbacks=[EarlyStopping(), Mine(), ends])
last: float = history.history["loss"][-1]
best: float = min(model.history.history["val_loss"])
model.optimizer.learning_rate = 0.1
model.optimizer.momentum = 0.9
rate: float = model.optimizer.current_learning_rate()
print(model.loss, model.loss.name, model.layers[-1].activation, model.get_layer("dense").units)
for layer in model.layers:
    layer.trainable = False
    print(layer.name, layer.get_weights())
kernel, bias = model.layers[0].get_weights()
model.layers[0].set_weights([kernel, bias])
first, second, third = model.layers
weights: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = model.get_weights()
loss, accuracy = model.evaluate(x, y)
print(model.evaluate(x, y, return_dict=True)["loss"] + loss)
predicted = model.predict(x)
print((predicted > 0.5).astype(int), predicted[0, 0] + 1.0, np.argmax(predicted, axis=1))
other = Sequential([*model.layers[:1], nn.ReLU(), Dense(1)], name="other")
decay = tn.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
other.compile(tn.optimizers.SGD(learning_rate=decay), tn.losses.BinaryCrossentropy())

model.compile(los="mse")  # refused
model.compile("sgd", "mse", mode="max-autotune")  # refused
model.fit(x, y, epoch=3)  # refused
model.fit(x, y, callbacks=[3])  # refused
Dense(1, activaton="relu")  # refused
Sequential(["dense"])  # refused
tn.optimizers.Adam("0.1")  # refused
history.histroy  # refused
"""


def test_mypy_passes_what_is_right_and_refuses_what_is_not(tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    # The settings and so the cache of `make lint`, since to read PyTorch takes half a minute; what
    # they leave out of --strict, the program asks for.
    options = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache"]
    report, problems, _ = api.run([*map(str, options), str(program)])
    assert problems == ""
    refused = {int(line) for line in re.findall(r"program\.py:(\d+): error", report)}
    lines = enumerate(PROGRAM.splitlines(), start=1)
    assert refused == {number for number, line in lines if line.endswith("# refused")}, report
