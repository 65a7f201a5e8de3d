"""What a callback changes midway counts from the next step on, whichever engine takes it."""

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import Sequential, losses, optimizers
from torchnn._engine import choice
from torchnn._engine.fused import FusedEngine
from torchnn.callbacks import LambdaCallback
from torchnn.layers import Dense, Normalization, Rescaling
from torchnn.utils import set_random_seed

ENGINES = ("auto", "autograd")


def data():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(20, 3)), generator.uniform(size=(20, 2))
    return torch.tensor(x), torch.tensor(y)


def made(engine, optimizer=None, loss="mse"):
    set_random_seed(1)
    layers = [
        Normalization(mean=[0.1] * 3, variance=[2.0] * 3),
        Rescaling(0.5, offset=[0.0] * 3),
        Dense(2, "tanh", in_features=3),
        Dense(2, in_features=2),
        Dense(2, "sigmoid", in_features=2),
    ]
    model = Sequential(layers).double()
    model.compile(optimizer or optimizers.SGD(0.5), loss, engine=engine)
    return model


def once(change, model, x, y):
    """A function that makes the change when it is called for the second time."""
    calls = []

    def act(*_):
        calls.append(None)
        if len(calls) == 2:
            change(model, x, y)

    return act


def fitted(model, x, y, **options):
    options = {"epochs": 4, "batch_size": 5, "shuffle": False, "verbose": 0} | options
    return model.fit(x, y, **options).history["loss"]


def by_callback(hook):
    def run(model, change):
        x, y = data()
        return fitted(model, x, y, callbacks=LambdaCallback(**{hook: once(change, model, x, y)}))

    return run


def between_fits(model, change):
    x, y = data()
    before = fitted(model, x, y, epochs=2)
    change(model, x, y)
    return before + fitted(model, x, y, epochs=2)


WHEN = {
    "on_epoch_end": by_callback("on_epoch_end"),
    "on_train_batch_end": by_callback("on_train_batch_end"),
    "between two fits": between_fits,
}


def set_in(layer, name, value):
    return lambda model, x, y: setattr(model[layer], name, value)


def new_parameter(model, x, y):
    model[2].weight = nn.Parameter(model[2].weight.detach() * 0.5)


def new_memory(model, x, y):
    model[2].weight.data = model[2].weight.detach() * 0.5


def one_weight_for_two(model, x, y):
    model[4].weight = model[3].weight


def hook(model, x, y):
    model[2].register_forward_hook(lambda module, inputs, output: output * 0.5)


def own_forward(model, x, y):
    model[3].forward = lambda x: x * 2


def smooth(model, x, y):
    model.loss.label_smoothing = 0.4


def set_momentum(value):
    return lambda model, x, y: setattr(model.optimizer, "momentum", value)


def with_momentum():
    return {"optimizer": optimizers.SGD(0.5, momentum=0.9)}


def with_adam():
    return {"optimizer": optimizers.Adam(0.05)}


def with_entropy():
    return {"loss": losses.BinaryCrossentropy()}


CHANGES = {
    "a layer frozen": (set_in(2, "trainable", False), dict),
    "a layer frozen, Adam": (set_in(2, "trainable", False), with_adam),
    "another activation": (set_in(2, "activation", "relu"), dict),
    "an activation that is not fused": (set_in(2, "activation", "gelu"), dict),
    "another last activation, cross-entropy": (set_in(4, "activation", torch.erf), with_entropy),
    "a new parameter": (new_parameter, dict),
    "a new parameter, momentum": (new_parameter, with_momentum),
    "a new parameter, Adam": (new_parameter, with_adam),
    "a parameter in new memory": (new_memory, with_momentum),
    "no bias": (set_in(2, "bias", None), with_momentum),
    "a layer popped": (lambda model, x, y: model.pop(), dict),
    "a layer popped, cross-entropy": (
        lambda model, x, y: (model.pop(), setattr(model[3], "activation", "sigmoid")),
        with_entropy,
    ),
    "a layer added": (lambda model, x, y: model.add(Dense(2, dtype=x.dtype)), with_momentum),
    "a layer replaced": (
        lambda model, x, y: model.__setitem__(3, Dense(2, in_features=2, dtype=x.dtype)),
        with_adam,
    ),
    "one weight for two layers": (one_weight_for_two, with_momentum),
    "a hook": (hook, dict),
    "a forward of its own": (own_forward, dict),
    "x in place": (lambda model, x, y: x.mul_(2), dict),
    "y in place": (lambda model, x, y: y.mul_(0.5), dict),
    "y in place, smoothed": (
        lambda model, x, y: y.mul_(0.5),
        lambda: {"loss": losses.BinaryCrossentropy(label_smoothing=0.2)},
    ),
    "Normalization adapted": (lambda model, x, y: model[0].adapt(x * 3), dict),
    "Normalization in place": (lambda model, x, y: model[0].mean.add_(1), dict),
    "Rescaling in place": (lambda model, x, y: model[1].offset.add_(1), dict),
    "Rescaling.scale": (set_in(1, "scale", 2.0), dict),
    "a front layer popped": (lambda model, x, y: model.pop(1), dict),
    "label_smoothing": (smooth, with_entropy),
    "momentum from 0": (set_momentum(0.9), dict),
    "momentum to 0": (set_momentum(0.0), with_momentum),
    "gradients clipped": (lambda model, x, y: setattr(model.optimizer, "clipnorm", 0.01), dict),
    "other weights": (
        lambda model, x, y: model.set_weights([w * 0.5 for w in model.get_weights()]),
        with_momentum,
    ),
}


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("name", CHANGES)
def test_both_engines_train_what_a_change_has_made(name, when):
    change, options = CHANGES[name]
    run = WHEN[when]
    found = []
    for kind in ENGINES:
        model = made(kind, **options())
        found.append((run(model, change), [p.tolist() for p in model.parameters()]))
    (fused, weights), (autograd, other_weights) = found
    np.testing.assert_allclose(fused, autograd, rtol=1e-9)
    for one, other in zip(weights, other_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)
    unchanged = run(made("auto", **options()), lambda *_: None)
    assert not np.allclose(fused, unchanged, rtol=1e-6), "the change has changed nothing"


@pytest.mark.parametrize("kind", ENGINES)
def test_compile_midway_is_for_the_next_fit(kind):
    run = WHEN["on_epoch_end"]
    expected = run(made(kind), lambda *_: None)
    assert run(made(kind), lambda model, x, y: model.compile("adam", "bce")) == expected


MISFITS = {
    "another dtype": (
        lambda model, x, y: model.float(),
        r"its parameters are torch.float32 on cpu, the samples torch.float64 on cpu",
    ),
    "another output": (
        lambda model, x, y: model.add(Dense(5, in_features=2, dtype=x.dtype)),
        r"y has shape \(N, 2\), which does not fit the model's output of shape \(N, 5\)",
    ),
    "another input": (
        lambda model, x, y: model.pop(2),
        r"expects 2 features, got 3",
    ),
    "a layer of another dtype": (
        lambda model, x, y: model.add(Dense(2, dtype=torch.float32)),
        r"x must have the dtype of layer .*, torch.float32, got torch.float64",
    ),
}


@pytest.mark.parametrize("when", ["on_epoch_end", "on_train_batch_end"])
@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("name", MISFITS)
def test_a_change_that_no_longer_fits_is_an_error_before_any_step(name, kind, when):
    change, said = MISFITS[name]
    model = made(kind, **with_momentum())
    left = []

    def remember(model, x, y):
        change(model, x, y)
        left.append([p.tolist() for p in model.parameters() if not nn.parameter.is_lazy(p)])
        left.append((model.optimizer.iterations, model.optimizer.velocities[0].tolist()))

    with pytest.raises(ValueError, match=f"the model has changed and no longer .*{said}"):
        WHEN[when](model, remember)
    weights, state = left
    assert [p.tolist() for p in model.parameters() if not nn.parameter.is_lazy(p)] == weights
    assert (model.optimizer.iterations, model.optimizer.velocities[0].tolist()) == state


@pytest.mark.parametrize("kind", ENGINES)
def test_nothing_left_to_train_is_an_error(kind):
    with pytest.raises(ValueError, match="the model has nothing to train"):
        WHEN["on_epoch_end"](made(kind), lambda model, x, y: setattr(model, "trainable", False))


def test_the_fused_engine_says_why_it_cannot_go_on():
    with pytest.raises(ValueError, match="cannot train this model: a parameter is frozen"):
        WHEN["on_train_batch_end"](made("fused"), CHANGES["a layer frozen"][0])


@pytest.fixture
def chosen(monkeypatch):
    """The classes of the engines, in the order in which they were chosen."""
    found = []
    choose = choice.choose

    def recorded(*arguments):
        found.append(choose(*arguments))
        return found[-1]

    monkeypatch.setattr(choice, "choose", recorded)
    return found


def test_while_nothing_changes_an_engine_is_chosen_once(chosen):
    model, (x, y) = made("auto", **with_entropy()), data()
    hooks = ("on_epoch_end", "on_train_batch_end", "on_test_batch_end")
    looks = LambdaCallback(**dict.fromkeys(hooks, lambda *_: None))
    fitted(model, x, y, validation_data=(x, y), callbacks=looks)
    assert [type(each) for each in chosen] == [FusedEngine]


def test_the_fused_engine_comes_back_when_the_reason_has_gone(chosen):
    model, (x, y) = made("auto"), data()
    steps = []

    def freeze(epoch, logs):
        model[2].trainable = epoch % 2 == 1
        steps.append(model.optimizer.iterations)

    fitted(model, x, y, callbacks=LambdaCallback(on_epoch_end=freeze))
    assert [isinstance(each, FusedEngine) for each in chosen] == [True, False, True, False]
    assert steps == [4, 8, 12, 16]


@pytest.mark.parametrize("hook", ["on_test_batch_end", "on_predict_batch_end"])
def test_evaluate_and_predict_go_by_the_change_too(hook):
    found = []
    for kind in ENGINES:
        model, (x, y) = made(kind), data()
        change = once(set_in(1, "scale", 5.0), model, x, y)
        options = {"batch_size": 5, "verbose": 0, "callbacks": LambdaCallback(**{hook: change})}
        is_test = hook == "on_test_batch_end"
        found.append(model.evaluate(x, y, **options) if is_test else model.predict(x, **options))
    np.testing.assert_allclose(*found, rtol=1e-9)
    assert not np.allclose(found[0], model.evaluate(x, y, verbose=0))


def test_a_change_before_the_first_step_counts():
    found = []
    for kind in ENGINES:
        model, (x, y) = made(kind), data()
        before = model[2].weight.tolist()
        freeze = LambdaCallback(
            on_train_begin=lambda logs, m=model: m[2].weight.requires_grad_(False)
        )
        found.append(fitted(model, x, y, callbacks=freeze))
        assert model[2].weight.tolist() == before
    np.testing.assert_allclose(*found, rtol=1e-9)


def test_a_change_during_validation_counts():
    found = []
    for kind in ENGINES:
        model, (x, y) = made(kind), data()
        change = once(new_parameter, model, x, y)
        callback = LambdaCallback(on_test_begin=change)
        found.append(fitted(model, x, y, validation_data=(x, y), callbacks=callback))
    np.testing.assert_allclose(*found, rtol=1e-9)
