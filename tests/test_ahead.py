"""Epochs that are trained ahead count one by one: whatever callbacks see and do, it is all as if each
epoch had been trained only when the one before it had been told of."""

import numpy as np
import pytest
import torch

from torchnn import Sequential, callbacks, layers, optimizers
from torchnn._training import ahead
from torchnn._training.batches import ArrayFeed
from torchnn.callbacks import Callback

EPOCHS = 23


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch):
    """However slow the machine is, epochs are short enough to be trained ahead."""
    monkeypatch.setattr(ArrayFeed, "epochs_a_pause", property(lambda self: 1000))


@pytest.fixture
def alone(monkeypatch):
    """Trains every epoch alone from here on."""
    return lambda: monkeypatch.setattr(ahead.Depth, "next", lambda self: 0)


def data(dtype="float32"):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(37, 4)).astype(dtype)
    return x, (x[:, :1] > 0.3 * x[:, 1:2]).astype(dtype)


def network(optimizer="sgd", metrics=(), dropout=0.0, **dense):
    torch.manual_seed(3)
    hidden = layers.Dense(6, "tanh", **dense)
    inner = [layers.Dropout(dropout)] if dropout else []
    model = Sequential([layers.Input((4,)), hidden, *inner, layers.Dense(1, "sigmoid")])
    model.compile(optimizers.get(optimizer), "bce", metrics=list(metrics))
    return model


class Diary(Callback):
    """Writes down all that it is told of, and all that it finds then."""

    def __init__(self):
        self.told = []

    def write(self, hook, logs, *more):
        optimizer = self.model.optimizer
        state = [p.detach().clone() for p in self.model.parameters()]
        state += [t.clone() for tensors in optimizer.slots.values() for t in tensors]
        counts = optimizer.iterations, self.model.epochs_trained, len(self.model.history.epoch)
        self.told.append((hook, *more, dict(logs), counts, [t.tolist() for t in state]))

    def on_epoch_end(self, epoch, logs=None):
        self.write("epoch end", logs, epoch)

    def on_test_end(self, logs=None):
        self.write("test end", logs)

    def on_train_end(self, logs=None):
        self.write("train end", logs)


class At(Callback):
    """Does something after some epochs."""

    def __init__(self, action, *epochs):
        self.action, self.epochs = action, epochs

    def on_epoch_end(self, epoch, logs=None):
        if epoch in self.epochs:
            self.action(self.model)


def fitted(make, *more, x_y=None, **arguments):
    """What a fit comes to: the diary, the history, and the model."""
    x, y = data() if x_y is None else x_y
    model, diary = make(), Diary()
    named = {"epochs": EPOCHS, "batch_size": 8, "verbose": 0} | arguments
    history = model.fit(x, y, callbacks=[*more, diary], **named)
    return diary.told, history.epoch, history.history, model.stop_training, model.epochs_trained


def counts_trained(monkeypatch):
    """How many epochs are trained in each native call that is made from here on."""
    trained, train = [], ahead.Engine.ahead

    def counted(self, run, *others):
        trained.append(run.epochs)
        return train(self, run, *others)

    monkeypatch.setattr(ahead.Engine, "ahead", counted)
    return trained


MODELS = {
    "descent": network,
    "adam": lambda: network("adam"),
    "momentum": lambda: network(optimizers.SGD(0.1, momentum=0.9)),
    "schedule": lambda: network(
        optimizers.SGD(optimizers.schedules.ExponentialDecay(0.5, decay_steps=7, decay_rate=0.9))
    ),
    "lambda": lambda: network(optimizers.SGD(lambda step: 0.5 / (1 + step))),
    "metrics": lambda: network(metrics=["accuracy", "AUC", "mae"]),
    "dropout": lambda: network(dropout=0.5),
    "penalties": lambda: network(kernel_regularizer="l2", bias_regularizer="l1"),
    "no bias": lambda: network(use_bias=False),
    "clipped": lambda: network(optimizers.Adam(0.01, clipnorm=0.1)),
}
VALIDATED = {
    "no validation": {},
    "validation": {"validation_data": data()},
    "every third": {"validation_data": data(), "validation_freq": 3},
    "some": {"validation_data": data(), "validation_freq": [2, 3, 17]},
    "a part": {"validation_split": 0.3},
    "in their order": {"shuffle": False, "validation_split": 0.2},
}


@pytest.mark.parametrize("validated", VALIDATED)
@pytest.mark.parametrize("model", MODELS)
def test_callbacks_are_told_the_same_and_find_the_same(model, validated, monkeypatch, alone):
    trained = counts_trained(monkeypatch)
    found = fitted(MODELS[model], **VALIDATED[validated])
    assert sum(trained) == EPOCHS  # and all of them ahead
    alone()
    assert found == fitted(MODELS[model], **VALIDATED[validated])
    assert sum(trained) == EPOCHS


def set_momentum(model):
    model.optimizer.momentum = 0.5


def assign_weight(model):
    model.layers[0].weight = torch.nn.Parameter(torch.ones(6, 4))


def write_past_pytorch(model):
    model.layers[0].weight.detach().numpy()[2, 3] += 1


def swap_data(model):
    model.layers[0].bias.data = torch.full((6,), 0.25)


def scale(model):
    model.set_weights([0.5 * each for each in model.get_weights()])


def forget_slots(model):
    for tensors in model.optimizer.slots.values():
        for tensor in tensors:
            tensor.zero_()


def replace_slots(model):
    slots = model.optimizer.slots
    for name, tensors in slots.items():
        slots[name] = [torch.zeros_like(t) for t in tensors]


def start_anew(model):
    model.optimizer.iterations = 0


def freeze(model):
    model.layers[0].trainable = False


def activate(model):
    model.layers[0].activation = "relu"


def hook(model):
    model.layers[0].register_forward_hook(lambda *arguments: None)


def train_more(model):
    model.train_on_batch(*data())


def add_penalty(model):
    model.layers[0].kernel_regularizer = layers.Dense(1, kernel_regularizer="l2").kernel_regularizer


def stop(model):
    model.stop_training = True


def set_rate(model):
    model.optimizer.learning_rate = 0.05


def look(model):
    model.predict(data()[0], verbose=0)
    model.evaluate(*data(), verbose=0)


def other_seed(model):
    torch.manual_seed(77)


def drop_more(model):
    model.layers[1].rate = 0.2


def penalise_more(model):
    model.layers[0].kernel_regularizer.l2 = 0.5


def smooth(model):
    model._recipe.loss.label_smoothing = 0.2


ACTIONS = {
    "descent": [set_rate, assign_weight, write_past_pytorch, swap_data, scale, freeze, activate],
    "momentum": [set_momentum, forget_slots, replace_slots, train_more, start_anew],
    "adam": [start_anew, replace_slots, scale, hook, add_penalty, stop, look, set_rate],
    "dropout": [drop_more, other_seed, train_more],
    "penalties": [penalise_more, scale],
    "schedule": [set_rate, start_anew, scale],
    "metrics": [scale, look],
}


@pytest.mark.parametrize("epochs", [(0,), (4,), (2, 9, 10), tuple(range(EPOCHS))], ids=len)
@pytest.mark.parametrize(
    ("model", "action"), [(m, a) for m, actions in ACTIONS.items() for a in actions]
)
def test_what_a_callback_changes_counts_from_then_on(model, action, epochs, alone):
    arguments = {"validation_data": data(), "shuffle": action is not other_seed}
    found = fitted(MODELS[model], At(action, *epochs), **arguments)
    alone()
    assert found == fitted(MODELS[model], At(action, *epochs), **arguments)
