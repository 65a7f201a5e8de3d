"""Whatever decides how a model is trained is watched, and nothing else."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from torchnn import Model, Sequential, layers, losses, optimizers, regularizers
from torchnn._engine.watch import Watch


def network():
    model = Sequential(
        [
            layers.Input((4,)),
            layers.Normalization(mean=[0.0] * 4, variance=[1.0] * 4),
            layers.Dense(6, "tanh", kernel_regularizer="l2"),
            layers.Dropout(0.5),
            nn.Linear(6, 3),
            nn.LeakyReLU(0.3),
            layers.Dense(1),
        ]
    )
    model.compile(optimizers.Adam(), losses.Huber())
    return model


def swap(model):
    model.layers[1].weight = nn.Parameter(torch.ones(6, 4))


def other_class(model):
    model.layers[1].__class__ = type("Other", (layers.Dense,), {})


def own_forward(model):
    model.layers[1].forward = lambda x: x


def forward_of_the_model(model):
    model.forward = lambda x: x


def write_into_a_buffer(model):
    model.layers[0].mean.add_(1)


CHANGES = {
    "a parameter": swap,
    "its memory": lambda m: setattr(m.layers[1].weight, "data", torch.ones(4, 6).t()),
    "its dtype": lambda m: m.double(),
    "a frozen one": lambda m: m.layers[1].weight.requires_grad_(False),
    "trainable": lambda m: setattr(m.layers[3], "trainable", False),
    "a hook": lambda m: m.layers[1].register_forward_hook(lambda *_: None),
    "a hook of the model": lambda m: m.register_forward_hook(lambda *_: None),
    "a parameter's hook": lambda m: m.layers[1].weight.register_hook(lambda g: g),
    "another's": lambda m: m.layers[1].weight.register_post_accumulate_grad_hook(print),
    "an activation": lambda m: setattr(m.layers[1], "activation", "relu"),
    "a slope": lambda m: setattr(m.layers[4], "negative_slope", 0.2),
    "a rate": lambda m: setattr(m.layers[2], "rate", 0.25),
    "a regularizer": lambda m: setattr(m.layers[1], "kernel_regularizer", regularizers.L1()),
    "no bias": lambda m: m.layers[3].register_parameter("bias", None),
    "a layer": lambda m: m.append(layers.Dense(1)),
    "a layer of PyTorch": lambda m: setattr(m, "3", nn.Linear(6, 3)),
    "a forward": own_forward,
    "a forward of the model": forward_of_the_model,
    "a class": other_class,
    "a buffer": write_into_a_buffer,
    "a setting of the loss": lambda m: setattr(m._recipe.loss, "delta", 2.0),
    "averages": lambda m: setattr(m.optimizer, "use_ema", True),
    "an attribute that is deleted": lambda m: delattr(m.layers[1], "kernel_regularizer"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change):
    model = network()
    watch = Watch(model, model._recipe)
    assert watch.is_untouched()
    CHANGES[change](model)
    assert not watch.is_untouched()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: None,
        lambda m: m.eval(),
        lambda m: m.layers[1].weight.data.add_(1),
        lambda m: m.layers[1].set_weights([w + 1 for w in m.layers[1].get_weights()]),
        lambda m: setattr(m.optimizer, "learning_rate", 0.5),
        lambda m: setattr(m, "remark", "its own"),
        lambda m: m.fit(torch.zeros(8, 4), torch.zeros(8), verbose=0),
        lambda m: m.predict(torch.zeros(8, 4), verbose=0),
        lambda m: setattr(m.layers[2], "rate", float("0.5")),  # equal, and another object
    ],
)
def test_what_changes_nothing_is_not_seen(change):
    model = network()
    watch = Watch(model, model._recipe)
    change(model)
    assert watch.is_untouched()


def test_the_rest_is_left_to_those_who_look_at_it():
    model = network()
    watch = Watch(model, model._recipe)
    model.layers[1].weight.data = torch.ones(4, 6).t()
    assert watch.is_untouched(but_rest=True)
    assert not watch.is_untouched()


def test_a_model_that_only_predicts_has_no_recipe():
    model = network()
    watch = Watch(model, None)
    model._recipe.loss.delta = 3.0
    assert watch.is_untouched()
    swap(model)
    assert not watch.is_untouched()


def test_what_is_watched_is_not_kept_alive():
    model = network()
    watch, alive = Watch(model, model._recipe), weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
    assert isinstance(watch, Watch)


class Own(Model):
    def __init__(self):
        super().__init__()
        self.dense, self.scale = layers.Dense(2), 1.0

    def forward(self, x):
        return self.scale * self.dense(x)


def test_what_a_layer_of_ones_own_uses_itself_is_its_own_affair():
    model = Own()
    model(torch.zeros(1, 3))
    model.compile("sgd", "mse")
    watch = Watch(model, model._recipe)
    model.scale = 2.0
    assert watch.is_untouched()
    model.dense = copy.deepcopy(model.dense)
    assert not watch.is_untouched()
