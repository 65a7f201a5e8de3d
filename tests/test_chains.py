"""torchnn._engine.chains: models that are built by shapes alone are those that a call builds."""

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import Sequential, models
from torchnn._engine import chains
from torchnn.layers import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    Input,
    Normalization,
    Rescaling,
)

SHAPES = {"rows": (6,), "pictures": (2, 3)}


def of_dense():
    return [Dense(4, "relu"), Dropout(0.5), Dense(3, use_bias=False), Activation("softmax")]


def of_pictures():
    return [Flatten(), Dense(4, "sigmoid", kernel_initializer="he_normal"), Dense(1, in_features=4)]


def of_sequences():
    return [Dense(4, "tanh"), Dense(2), Flatten(), Dense(1, dtype=None)]


def of_scales():
    scaled = Rescaling(np.full(6, 0.5), 1)
    return [Flatten(), scaled, Normalization(mean=np.ones(6), variance=np.ones(6)), Dense(2)]


def built(make, shape):
    torch.manual_seed(3)
    model = Sequential([Input(shape), *make()])
    return model, torch.rand(1)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("make", [of_scales, of_dense, of_pictures, of_sequences])
def test_it_is_what_a_call_would_build(make, shape, monkeypatch):
    model, after = built(make, shape)
    monkeypatch.setattr(chains, "build", lambda *_: False)
    called, after_call = built(make, shape)
    for name, value in called.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    assert torch.equal(after, after_call)  # as many random numbers have been drawn
    for one, other in zip((model, *model.layers), (called, *called.layers), strict=True):
        assert one.input_shape == other.input_shape
        assert one.output_shape == other.output_shape
        assert type(one.output_shape) is type(other.output_shape)
    x = torch.rand(5, *shape)
    assert torch.equal(model.eval()(x), called.eval()(x))


class Own(Dense):
    pass


def hooked():
    layer = Dense(2)
    layer.register_forward_pre_hook(lambda *_: None)
    return layer


class Halves(Sequential):
    def forward(self, x):
        return super().forward(x) / 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sequential([Own(2)]),
        lambda: Sequential([hooked()]),
        lambda: Sequential([Dense(2, torch.sin)]),
        lambda: Sequential([Dense(2, activity_regularizer="l2")]),
        lambda: Sequential([Dense(2), nn.ReLU()]),
        lambda: Sequential([Sequential([Dense(2)])]),
        lambda: Sequential([Dense(2), Dense(1, dtype=torch.float64)]),
        lambda: Halves([Dense(2)]),
    ],
)
def test_other_models_take_a_call(make):
    model = make()
    told = []
    assert not chains.build(model, (3,), told)
    assert not any(p.numel() for p in model.parameters() if not nn.parameter.is_lazy(p))
    assert not told


def fails(tensor):
    torch.rand(7)
    raise ZeroDivisionError


def test_after_an_error_nothing_has_changed():
    model = Sequential([Dense(3), Dense(1, kernel_initializer=fails)])
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    with pytest.raises(ZeroDivisionError):
        model.build((None, 2))
    assert torch.rand(1) == wanted
    assert not any(layer.built for layer in model.layers)
    assert model.input_shape is None
    assert model.layers[0].output_shape is None


def test_features_that_do_not_fit_are_found_before_any_layer_is_built():
    model = Sequential([Dense(3), Dense(1, in_features=4, name="last")])
    with pytest.raises(ValueError, match="layer 'last' expects 4 features, got 3"):
        model.build((None, 2))
    assert not model.layers[0].built


def test_a_normalization_may_adapt_when_the_model_is_made(tmp_path):
    x, norm = torch.rand(20, 3), Normalization()
    model = Sequential([Input((3,)), norm, Dense(4, "tanh"), Dense(1)])
    assert model.output_shape == (None, 1)
    model.compile("sgd", "mse")
    uses = {
        "fit": lambda: model.fit(x, x[:, :1], verbose=0),
        "train_on_batch": lambda: model.train_on_batch(x, x[:, :1]),
        "predict": lambda: model.predict(x),
        "call": lambda: model(x),
    }
    for use in uses.values():
        with pytest.raises(ValueError, match=r"^layer .* knows no mean yet: call adapt\(data\)"):
            use()
    model.save(tmp_path / "before.keras")
    loaded = models.load_model(tmp_path / "before.keras")
    for made in (loaded, model):
        made.layers[0].adapt(x)
        made.fit(x, x[:, :1], verbose=0, shuffle=False)
        made.save(tmp_path / "after.keras")
        other = models.load_model(tmp_path / "after.keras")
        np.testing.assert_array_equal(other.predict(x, verbose=0), made.predict(x, verbose=0))
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Normalization(axis=2), "expects x with the axes 2, got shape"),
        (Normalization(mean=[1.0, 2.0], variance=[1.0, 1.0]), "expects 2 features, got 3"),
        (Rescaling(np.ones(2)), r"expects x with the last axes \(2,\), got shape \(1, 3\)"),
    ],
)
def test_scales_that_do_not_fit_are_errors(layer, message):
    with pytest.raises(ValueError, match=message):
        Sequential([Input((3,)), layer, Dense(1)])


def test_weights_that_are_not_what_they_were_take_a_call():
    pruned = Dense(4, in_features=3)
    pruned.weight, pruned.bias = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2))
    model = Sequential([Input((3,)), pruned, Dense(5)])
    assert model.layers[1].in_features == 2
    double = Dense(2, in_features=3)
    double.bias.data = double.bias.data.double()
    with pytest.raises(TypeError, match="bias must have the dtype of x"):
        Sequential([Input((3,)), double])
