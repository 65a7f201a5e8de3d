"""Which engine trains a model, and what is said of the choice."""

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import Sequential, losses, optimizers
from torchnn._engine import choice
from torchnn._engine.autograd import AutogradEngine
from torchnn._engine.choice import choose, describe
from torchnn._engine.fused import FusedEngine
from torchnn._engine.recipe import settle
from torchnn.callbacks import LambdaCallback
from torchnn.layers import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    LeakyReLU,
    Normalization,
    ReLU,
    Rescaling,
)


def layer(units=1, activation="sigmoid", **options):
    return Dense(units, activation, in_features=3, **options)


FUSED = {
    "dense layers": lambda: [layer(3), layer()],
    "not built yet": lambda: [Dense(4, "relu"), Dense(1, "sigmoid")],
    "no bias": lambda: [layer(3, use_bias=False), layer()],
    "PyTorch's own": lambda: [nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1), nn.Sigmoid()],
    "an activation of its own": lambda: [layer(3, None), Activation("tanh"), layer()],
    "layers in front": lambda: [Flatten(), Rescaling(0.5), Normalization(), layer()],
    "linear": lambda: [layer(1, "linear")],
    "dropout": lambda: [
        layer(3),
        Dropout(0.5),
        layer(3, None),
        nn.ReLU(),
        nn.Dropout(0.1),
        layer(),
    ],
    "chains": lambda: [
        Sequential([layer(3), Dropout(0.5)]),
        nn.Sequential(nn.Linear(3, 3)),
        layer(),
    ],
    "an activation that keeps z": lambda: [layer(3, "gelu"), layer()],
    "slopes": lambda: [
        *(layer(3, LeakyReLU(0.3)), layer(3, None), nn.ELU(0.5), layer(3, None)),
        *(ReLU(negative_slope=0.1), layer()),
    ],
    "features dropped": lambda: [Rescaling(2.0), Dropout(0.5), nn.Flatten(), layer(3), layer()],
}


@pytest.mark.parametrize("layers", FUSED)
def test_these_models_are_fused(layers):
    model = Sequential(FUSED[layers]())
    recipe = settle("sgd", losses.BinaryCrossentropy(from_logits=layers == "linear"), None)
    assert isinstance(choose(model, recipe), FusedEngine)
    assert describe(model, recipe) == "fused (whole epochs in one native call)"


def frozen():
    model = layer()
    model.bias.requires_grad_(False)
    return [model]


def hooked():
    model = layer()
    model.register_forward_hook(lambda *_: None)
    return [model]


def shared():
    one, other = layer(3), layer(3)
    other.weight = one.weight
    return [one, other, layer()]


def watched():
    model = layer()
    model.weight.register_hook(lambda grad: grad)
    return [model]


def in_one_memory():
    layers = [layer(3), layer(3), layer()]
    layers[1].weight = nn.Parameter(layers[0].weight.data)
    return layers


NOT_FUSED = {
    "layer 1 is a Dropout, which": lambda: [nn.Dropout(1.0), layer()],
    "layer 2 is a Dropout, which the": lambda: [layer(3), nn.Dropout(1.0), layer()],
    "layer 2 is a Dropout, which": lambda: [Dropout(0.5), nn.Dropout(0.5), layer()],
    "layer 2 is a Rescaling, which the": lambda: [Dropout(0.5), Rescaling(2.0), layer()],
    "layer 2 is a LeakyReLU, which": lambda: [layer(3, None), nn.LeakyReLU(-0.5), layer()],
    "layer 2 is a ReLU with the activation a function": lambda: [
        *(layer(3, None), ReLU(1.0, 0.1)),
        layer(),
    ],
    "layer 3 is a Dropout, which": lambda: [layer(3), Dropout(0.5), nn.Dropout(0.1), layer()],
    "layer 3 is a ReLU, which": lambda: [layer(3, None), Dropout(0.5), nn.ReLU(), layer()],
    "layer 2 is a BatchNorm1d, which": lambda: [layer(3), nn.BatchNorm1d(3), layer()],
    "layer 1 is a Dense with the activation mish, which is not": lambda: [
        layer(3, "mish"),
        layer(),
    ],
    "layer 1 is a Dense with the activation a function": lambda: [layer(3, torch.exp), layer()],
    "layer 2 is a Rescaling, which": lambda: [layer(3), Rescaling(2.0), layer()],
    "a parameter is frozen": frozen,
    "layer 1 is a Dense with hooks": hooked,
    "a parameter has hooks": watched,
    "layers share parameters": shared,
    "layers share": in_one_memory,
    "a parameter is of torch.bfloat16": lambda: [layer(dtype=torch.bfloat16)],
    "a parameter is of torch.float64": lambda: [layer(3), layer(dtype=torch.float64)],
    "the model has no dense layer": lambda: [Flatten()],
}


@pytest.mark.parametrize("reason", NOT_FUSED)
def test_the_others_go_through_autograd_and_it_says_why(reason):
    model = Sequential(NOT_FUSED[reason]())
    recipe = settle("sgd", "mse", None)
    assert isinstance(choose(model, recipe), AutogradEngine)
    said = describe(model, recipe)
    assert said.startswith(f"autograd (PyTorch, one step after the other), since {reason}")
    with pytest.raises(ValueError, match=r'engine="fused" cannot train this model: '):
        model.compile(loss="mse", engine="fused")


@pytest.mark.parametrize(
    ("optimizer", "loss", "reason"),
    [
        (torch.optim.RMSprop, "mse", "the optimizer TorchOptimizer"),
        (type("Mine", (optimizers.SGD,), {})(), "mse", "the optimizer Mine"),
        ("sgd", lambda y, p: (y - p).abs(), "the loss <lambda>"),
        ("sgd", losses.MeanSquaredError(reduction="sum"), "the loss has the reduction sum"),
        ("sgd", losses.BinaryCrossentropy(), "BinaryCrossentropy needs a sigmoid output"),
    ],
)
def test_a_loss_or_optimizer_without_a_kernel_goes_through_autograd(optimizer, loss, reason):
    recipe = settle(optimizer, loss, None)
    assert reason in describe(Sequential([layer(activation="tanh")]), recipe)


def test_a_softmax_is_fused_where_it_goes_into_the_loss_and_nowhere_else():
    def said(*layers, loss="categorical_crossentropy"):
        return describe(Sequential(list(layers)), settle("sgd", loss, None))

    classes = layer(3, "softmax")
    assert said(layer(3), classes) == "fused (whole epochs in one native call)"
    assert said(layer(3), layer(3, None), Activation("softmax")).startswith("fused")
    assert "since layer 1 has the activation softmax" in said(layer(3, "softmax"), classes)
    assert "CategoricalCrossentropy needs a softmax output" in said(layer(3), layer(3))
    assert "with the activation softmax, which is not a fused one" in said(classes, loss="mse")
    assert "softmax, which is not a fused one" in said(
        classes, loss=losses.CategoricalCrossentropy(from_logits=True)
    )


def test_a_forward_of_its_own_is_not_fused():
    class Twice(Sequential):
        def forward(self, x):
            return super().forward(x) * 2

    assert "Twice has a forward of its own" in describe(
        Twice([layer()]), settle("sgd", "mse", None)
    )


def test_compile_chooses_the_engine():
    model = Sequential([layer()])
    model.compile(loss="bce", engine="autograd")
    assert isinstance(choose(model, model._recipe), AutogradEngine)
    assert describe(model, model._recipe).endswith("as compile asked for")
    model.compile(loss="bce", engine="fused")
    assert isinstance(choose(model, model._recipe), FusedEngine)
    with pytest.raises(ValueError, match="engine must be one of auto, fused, autograd, got 'fast'"):
        model.compile(loss="bce", engine="fast")
    assert describe(model, None) == "none before compile"


class Doubling(Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


def hooked(model):
    model.layers[0].register_forward_hook(lambda layer, inputs, output: output * 2)


def dropping_the_last(model):
    model.pop()
    model.add(layer(2, "softmax"))


CHANGES = {
    "none": lambda model: None,
    "numbers": lambda model: model.set_weights([w + 1 for w in model.get_weights()]),
    "data": lambda model: setattr(model.layers[0].weight, "data", torch.ones(3, 3)),
    "parameter": lambda model: setattr(model.layers[0], "weight", nn.Parameter(torch.ones(3, 3))),
    "activation": lambda model: setattr(model.layers[0], "activation", torch.relu),
    "layer": lambda model: model.add(Dense(2)),
    "last layer": dropping_the_last,
    "hook": hooked,
    "forward": lambda model: setattr(model.layers[0], "forward", lambda x: x - 1),
    "class": lambda model: setattr(model, "__class__", Doubling),
    "dtype": lambda model: model.double(),
    "frozen": lambda model: setattr(model, "trainable", False),
    "loss": lambda model: model.compile(loss="mse"),
    "engine": lambda model: model.compile(loss="mse", engine="autograd"),
    "another shape": lambda model: model.predict(np.ones((2, 5, 3)), verbose=0),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["predict", "predict_on_batch"])
def test_what_is_known_of_a_model_holds_until_it_changes(name, change):
    model = Sequential([layer(3, "tanh"), layer(1)])
    model.compile(loss="binary_crossentropy")
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    for _ in range(2):
        getattr(model, name)(x)
    CHANGES[change](model)
    with torch.no_grad():
        expected = model(torch.from_numpy(x).to(model.layers[0].weight.dtype))
    for _ in range(2):
        np.testing.assert_allclose(getattr(model, name)(x), expected, rtol=1e-6)
        assert model.sample_shape == (3,)


def test_a_model_is_rehearsed_again_only_if_it_changes(monkeypatch):
    calls, counts = [], []
    monkeypatch.setattr(Dense, "forward", lambda self, x: calls.append(self) or x)
    model = Sequential([layer(3), layer(3)])
    for change in ("none", "none", "activation", "none"):
        CHANGES[change](model)
        model.predict([[1, 2, 3]], verbose=0)
        counts.append(len(calls))
    first, again, changed, last = counts
    assert first == again < changed == last


def predicted():
    model = Sequential([layer(3), layer()])
    model.compile(optimizers.SGD(lambda step: 0.1 * len(model.layers)), "mse")
    model.predict([[1, 2, 3]], verbose=0)
    return model


def test_what_has_predicted_is_freed():
    freed = weakref.ref(predicted())
    gc.collect()
    assert freed() is None


def test_a_model_is_looked_at_only_after_a_callback_has_been_called(monkeypatch):
    looks = []
    monkeypatch.setattr(choice.Watch, "is_untouched", lambda *_, **__: looks.append(1) or True)
    model = Sequential([layer(3), layer()])
    model.compile(loss="mse")
    x, y = torch.ones(8, 3), torch.ones(8)
    validated = {"validation_data": (x, y), "epochs": 5, "batch_size": 2, "verbose": 0}
    model.fit(x, y, callbacks=[LambdaCallback(on_epoch_begin=print)], **validated)
    assert len(looks) == 5
    model.fit(x, y, callbacks=[LambdaCallback(on_train_end=print)], **validated)
    assert len(looks) == 5 + 1  # after set_model
