"""The container: its layers, their weights, and copies of it."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import Model
from torchnn.layers import Dense, Dropout, Flatten, Input, Layer, Normalization
from torchnn.sequential import Sequential

X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
Y = (X.sum(axis=1) > 0).astype(np.float32)


def fitted():
    model = Sequential([Dense(4, "tanh"), Dense(1, "sigmoid")], name="mine")
    model.compile(optimizer="adam", loss="bce", metrics=["accuracy"])
    model.fit(X, Y, epochs=2, verbose=0)
    return model


def test_layers_may_come_in_a_list_or_one_after_the_other():
    a, b = Dense(2), nn.Linear(2, 1)
    for model in (Sequential([a, b]), Sequential(a, b), Sequential(layers=(a, b))):
        assert model.layers == [a, b]
    assert Sequential().layers == []


def test_its_name_is_a_string():
    with pytest.raises(TypeError, match=r"^name must be a string, got 3$"):
        Sequential([Dense(1)], name=3)


def test_it_is_an_nn_sequential():
    model = Sequential([Dense(2), nn.ReLU(), Dense(1)])
    assert isinstance(model, nn.Sequential)
    assert isinstance(model[0], Dense)
    assert [type(layer) for layer in model[1:]] == [nn.ReLU, Dense]
    assert type(model[:2]) is Sequential
    assert list(model[1:].state_dict()) == ["1.weight", "1.bias"]
    assert len(model) == 3


def test_its_state_dict_is_that_of_linear_layers():
    model = Sequential([Input((3,)), Dense(4), Dense(1)])
    twin = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin(torch.tensor(X)), model(torch.tensor(X)))
    unbuilt = Sequential([Dense(4), Dense(1)])
    unbuilt.load_state_dict(twin.state_dict())
    torch.testing.assert_close(twin(torch.tensor(X)), unbuilt(torch.tensor(X)))


def test_input_builds_and_is_no_layer():
    model = Sequential([Input((3,)), Dense(4), Dense(1)])
    assert [layer.in_features for layer in model.layers] == [3, 4]
    assert model.count_params() == 3 * 4 + 4 + 4 + 1


def test_build_takes_the_shape_of_a_batch():
    model = Sequential([Dense(4), Dense(1)])
    model.build((None, 3))
    assert [layer.in_features for layer in model.layers] == [3, 4]
    with pytest.raises(ValueError, match=r"such as \(None, 400\), got \(3,\)"):
        model.build((3,))


def test_build_that_fails_changes_nothing():
    model = Sequential([Dense(4), Dense(1, in_features=9)])
    with pytest.raises(ValueError, match="expects 9 features, got 4"):
        model.build((None, 3))
    assert model[0].in_features is None
    assert model._form().shape == ()


def test_add_and_pop_are_kerass():
    model = Sequential()
    model.add(Input((3,)))
    model.add(Dense(4))
    assert model[0].in_features == 3
    model.add(Dense(1))
    assert model[1].in_features == 4
    last = model[1]
    assert model.pop() is last
    assert len(model) == 1
    assert model.pop(0).units == 4
    with pytest.raises(ValueError, match="no layers"):
        model.pop()


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        ("dense", TypeError, r"layers must be torch\.nn\.Module instances, got 'dense'"),
        (None, TypeError, r"layers must be torch\.nn\.Module instances, got None"),
        (Dense, TypeError, r"got the class Dense: write Dense\(\)"),
        (Dense(1, name="first"), ValueError, "layer names must differ, got 'first' 2 times"),
        (Dense(1, in_features=7), ValueError, "expects 7 features, got 4"),
        (Input((3,)), ValueError, "Input must be the first layer"),
    ],
)
def test_a_layer_that_does_not_fit_is_not_added(layer, error, message):
    model = Sequential([Input((3,)), Dense(4, name="first")])
    with pytest.raises(error, match=message):
        model.add(layer)
    assert len(model) == 1
    assert model(torch.ones(1, 3)).shape == (1, 4)


def test_an_input_that_does_not_fit_is_not_taken():
    with pytest.raises(ValueError, match="expects x with the axes 2, got shape"):
        Sequential([Input((3,)), Normalization(axis=2), Dense(4)])


def test_layers_are_found_by_name_and_index():
    model = Sequential([Dense(4), nn.ReLU(), Dense(1, name="last")])
    assert model.get_layer("dense") is model[0]
    assert model.get_layer("re_lu") is model[1]
    assert model.get_layer(name="last") is model.get_layer(index=2) is model.get_layer(index=-1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "dense_1"}, "no layer is named 'dense_1'. Layers: dense, last"),
        ({"index": 2}, "index must be below 2, the number of layers, got 2"),
        ({}, "takes a name or an index"),
        ({"name": "last", "index": 1}, "takes a name or an index"),
    ],
)
def test_a_layer_that_is_not_there_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        Sequential([Dense(4), Dense(1, name="last")]).get_layer(**options)


def test_weights_go_out_and_in():
    model, other = fitted(), fitted()
    kernel, bias, *_ = model.get_weights()
    assert (kernel.shape, bias.shape) == ((3, 4), (4,))
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(model.predict(X), other.predict(X))


CLONES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": lambda model: _loaded(model),
}


def _loaded(model):
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


@pytest.mark.parametrize("clone", CLONES.values(), ids=CLONES)
def test_a_copy_trains_on_by_itself_as_the_original_would(clone):
    model = fitted()
    twin = clone(model)
    before = model.get_weights()
    theirs = twin.fit(X, Y, epochs=2, verbose=0).history
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert twin.optimizer.iterations == model.optimizer.iterations + 2
    assert model.fit(X, Y, epochs=2, verbose=0).history == theirs
    assert twin.name == "mine"


@pytest.mark.parametrize("clone", CLONES.values(), ids=CLONES)
def test_a_model_that_is_not_built_can_be_copied(clone):
    model = Sequential([Dense(4), Dropout(0.5), Dense(1)])
    model.compile(loss="mse")
    twin = clone(model)
    assert twin.fit(X, Y, verbose=0).epoch == [0]
    assert not model[0].built


def test_a_state_dict_can_be_saved_and_loaded():
    model = fitted()
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    stream.seek(0)
    fresh = Sequential([Dense(4, "tanh"), Dense(1, "sigmoid")])
    fresh.load_state_dict(torch.load(stream))
    np.testing.assert_array_equal(fresh.predict(X), model.predict(X))


def test_a_fitted_model_works_in_a_plain_pytorch_loop(device):
    model = fitted().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.tensor(X, device=device), torch.tensor(Y, device=device)
    before = nn.functional.binary_cross_entropy(model(x).squeeze(1), y)
    before.backward()
    optimizer.step()
    assert nn.functional.binary_cross_entropy(model(x).squeeze(1), y) < before


def test_any_module_may_be_a_layer():
    class Twice(nn.Module):
        def forward(self, x):
            return torch.cat([x, x], dim=1)

    model = Sequential([Twice(), nn.Linear(6, 4), nn.LayerNorm(4), nn.LazyLinear(1), nn.Flatten(0)])
    model.compile(loss="mse", metrics=["mae"])
    history = model.fit(X, Y, epochs=3, validation_split=0.2, verbose=0).history
    assert history["loss"][2] < history["loss"][0]
    assert model.predict(X).shape == (20,)
    assert model.get_layer("linear_1") is model[3]


def test_layers_added_after_compile_are_trained():
    model = Sequential([Dense(4, "tanh")])
    model.compile(loss="mse")
    model.add(Dense(1))
    model.fit(X, Y, verbose=0)
    assert len(model.optimizer.parameters) == 4


def test_a_fitted_model_compiles_to_torchscript():
    model = Sequential([Dense(4, "relu"), Dense(1, "sigmoid")])
    model.compile(loss="bce")
    x = torch.rand(8, 3)
    model.fit(x, x[:, 0].round(), verbose=0)
    torch.testing.assert_close(torch.jit.script(model)(x), model(x))


def nested():
    body = Sequential([Input((3,)), Dense(4, "tanh"), Dropout(0.0)], name="body")
    return Sequential([body, Sequential([Dense(2, "relu"), Dense(1, "sigmoid")])])


def test_a_model_in_a_model_is_one_layer():
    model = nested()
    assert [layer.name for layer in model.layers] == ["body", "sequential"]
    assert [w.shape for w in model.get_weights()] == [(3, 4), (4,), (4, 2), (2,), (2, 1), (1,)]
    text = io.StringIO()
    model.summary(print_fn=text.write)
    assert [f"{name} (Sequential)" in text.getvalue() for name in ("body", "sequential")] == [
        True
    ] * 2
    assert "Total parameters: 29" in text.getvalue()


def test_a_model_in_front_tells_the_shape():
    model = nested()
    assert model.layers[1][1].in_features == 2
    model.pop()
    model.add(Dense(5))
    assert model.layers[1].in_features == 4
    with pytest.raises(ValueError, match="Input must be the first layer"):
        model.add(Input((3,)))


def test_a_nested_model_trains_as_the_flat_one():
    model = nested()
    flat = Sequential([*model.layers[0], *model.layers[1]])
    flat = copy.deepcopy(flat)
    for each in (model, flat):
        each.compile("adam", "bce", engine="autograd")
        torch.manual_seed(0)
        each.fit(X, Y, epochs=3, verbose=0)
    for one, other in zip(model.get_weights(), flat.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    inner = model.layers[0].predict(X, verbose=0)
    np.testing.assert_allclose(
        model.layers[1].predict(inner, verbose=0), model.predict(X, verbose=0), rtol=1e-6
    )


def test_a_build_that_fails_tells_no_layer_a_shape():
    model = Sequential([Flatten(), Dense(1, in_features=6)])
    model.build((None, 2, 3))
    with pytest.raises(ValueError, match="expects 6 features, got 8"):
        model.build((None, 2, 4))
    assert model.layers[0].input_shape == (None, 2, 3) == model.input_shape


def flat(_, inputs):
    return (inputs[0].flatten(1),)


def test_what_a_hook_does_is_part_of_what_layers_are_built_for():
    inner = nn.Sequential(nn.Identity())
    inner.register_forward_pre_hook(flat)
    model = Sequential([Input((2, 3)), inner, Dense(4)])
    assert model.layers[-1].in_features == 6
    assert model.output_shape == (None, 4)
    outer = Sequential([Dense(4)])
    outer.register_forward_pre_hook(flat)
    outer.build((None, 2, 3))
    assert outer.layers[0].in_features == 6


def test_a_call_of_ones_own_is_part_of_it_too():
    class Flat(Sequential):
        def __call__(self, x):
            return super().__call__(x.flatten(1))

    model = Sequential([Input((2, 3)), Flat([Dense(4)])])
    assert model.layers[0].layers[0].in_features == 6


def test_a_layer_may_give_the_next_one_several_things():
    class Both(Layer):
        def forward(self, x):
            return x, x

    class Sums(Layer):
        def forward(self, pair):
            return pair[0] + pair[1]

    model = Sequential([Input((3,)), Both(), Sums(), Dense(1)])
    assert model.output_shape == (None, 1)
    with pytest.raises(TypeError, match="the model must return a tensor, got tuple"):
        Sequential([Input((3,)), Dense(2), Both(), Both()])


def test_its_symbols_are_its_own_also_when_it_is_part_of_another_model():
    base = Sequential([Input((4,)), Dense(8, name="d1"), Dense(2)])
    inputs = Input((4,))
    Model(inputs, Dense(1)(base(inputs)))
    features = Model(base.inputs, base.get_layer("d1").output)
    x = torch.rand(3, 4)
    assert torch.equal(features(x), base.layers[0](x))
    assert torch.equal(Model(base.input, base.output)(x), base(x))


def test_append_and_extend_build_as_add_does():
    model = Sequential([Input((3,))]).append(Dense(4)).extend([Dense(2), Dense(1)])
    assert [layer.name for layer in model.layers] == ["dense", "dense_1", "dense_2"]
    assert model.output_shape == (None, 1)
    with pytest.raises(ValueError, match="expects 9 features, got 5"):
        model.extend([Dense(5), Dense(1, in_features=9)])
    assert len(model) == 3


def test_a_shape_that_is_none_is_named():
    with pytest.raises(TypeError, match=r"input_shape must be a batch's, such as .* got None"):
        Sequential([Dense(1)]).build(None)
