"""Models of graphs, and of classes with a forward of their own."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from torchnn import Input, Model, Sequential
from torchnn.layers import Add, Concatenate, Dense, Dropout, Layer, concatenate
from torchnn.losses import BinaryCrossentropy

X = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
Z = np.random.default_rng(1).normal(size=(20, 2)).astype("float32")
Y = (X.sum(1) > 0).astype("float32")


@pytest.fixture
def two():
    """A model of two inputs, and what it computes."""
    x, z = Input((3,), name="x"), Input((2,), name="z")
    hidden = Dense(4, "tanh", name="hidden")(x)
    return Model([x, z], Dense(1, name="out")(concatenate([hidden, z])), name="two")


def formula(model, x=X, z=Z):
    kernel, bias, out_kernel, out_bias = model.get_weights()
    return np.concatenate([np.tanh(x @ kernel + bias), z], 1) @ out_kernel + out_bias


def chain():
    inputs = Input((3,))
    hidden = Dense(4, "relu")(inputs)
    return Model(inputs, Dense(1, "sigmoid")(hidden))


def same(layers):
    """A Sequential of layers like these."""
    return Sequential([copy.deepcopy(layer) for layer in layers])


def test_a_graph_matches_the_formula(two):
    np.testing.assert_allclose(two([X, Z]), formula(two), rtol=1e-5)


@pytest.mark.parametrize("inputs", [[X, Z], (X, Z), {"z": Z, "x": X}])
def test_inputs_come_in_a_list_or_a_dict(two, inputs):
    np.testing.assert_allclose(two(inputs), formula(two), rtol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (X, "^x must be a list of 2 inputs, got Tensor$"),
        ([X], "^x must be a list of 2 inputs, got 1$"),
        ({"x": X}, "^x must hold the inputs x, z, got x$"),
        ({"x": X, "q": Z}, "^x must hold the inputs x, z, got x, q$"),
        ([Z, X], r"^layer 'x' expects x of shape \(N, 3\), got \(20, 2\)$"),
    ],
)
def test_other_inputs_are_an_error(two, inputs, message):
    with pytest.raises(ValueError, match=message):
        two(inputs)


def test_a_graph_tells_what_goes_in_and_out(two):
    assert two.input_names == ["x", "z"]
    assert two.output_names == ["out"]
    assert two.input_shape == [(None, 3), (None, 2)]
    assert two.output_shape == (None, 1)
    assert [layer.name for layer in two.layers] == ["x", "z", "hidden", "concatenate", "out"]
    assert two.inputs == two.layers[:2] == two.input
    assert two.outputs == [two.output]
    assert two.get_layer("hidden") is two.layers[2] is two.get_layer(index=2)
    assert two.count_params() == 4 * 4 + 7


def test_dicts_name_inputs_and_outputs():
    x, z = Input((3,)), Input((2,), name="other")
    dense = Dense(1)
    model = Model({"a": x, "b": z}, {"p": dense(x), "q": [dense(x), Dense(2)(z)]})
    assert model.input_names == ["a", "b"]
    assert model.output_names == ["p", "q"]
    assert model.input_shape == {"a": (None, 3), "b": (None, 2)}
    assert model.output_shape == {"p": (None, 1), "q": [(None, 1), (None, 2)]}
    out = model({"b": Z, "a": X})
    np.testing.assert_array_equal(out["p"], out["q"][0])
    assert Model(x, [dense(x), dense(x)]).output_names == ["dense", "dense_1"]


def test_a_class_with_a_forward_has_layers_but_no_inputs():
    class Own(Model):
        def __init__(self):
            super().__init__(name="own")
            self.hidden, self.out = Dense(4, "relu"), Dense(1)

        def forward(self, x):
            return self.out(self.hidden(x))

    model = Own()
    model.compile(loss="mse")
    model.fit(X, Y, verbose=0)
    assert model.layers == [model.hidden, model.out]
    assert [w.shape for w in model.get_weights()] == [(3, 4), (4,), (4, 1), (1,)]
    assert model.get_layer("dense_1") is model.out
    assert model._chain is model._head is None
    assert model.input_shape is model.input is None
    assert model.inputs == model.outputs == []
    lines = []
    model.summary(print_fn=lines.append)
    assert "Total parameters: 21" in lines[0]


def test_keras_call_is_a_forward_that_knows_the_mode():
    class Noisy(Layer):
        def call(self, inputs, training=None):
            return inputs + 1 if training else inputs

    class Own(Model):
        def __init__(self):
            super().__init__()
            self.noisy, self.out = Noisy(), Dense(1, in_features=3)

        def call(self, inputs):
            return self.out(self.noisy(inputs))

    class Extended(Own):
        def call(self, inputs):
            return super().call(inputs) + 1

    model, x = Own(), torch.tensor(X)
    shift = model.out.weight.sum()
    assert_close(model(x, training=True), model(x, training=False) + shift)
    assert_close(model(x), model(x, training=True))
    np.testing.assert_allclose(model(X), model.predict(X, verbose=0))
    assert_close(Noisy()(x, training=False), x)
    assert_close(Noisy().eval()(x), x)
    extended = Extended()
    np.testing.assert_allclose(extended(X), Own.call(extended.eval(), x).detach() + 1)
    assert_close(torch.compile(Noisy(), backend="eager")(x), x + 1)


def test_a_class_without_a_forward_says_so():
    with pytest.raises(NotImplementedError, match=r"^Model has no forward: write one, or make"):
        Model()(torch.ones(1))


def test_a_chain_trains_in_the_kernels_like_a_sequential():
    model = chain()
    twin = same(model._chain)
    histories = []
    for each in (model, twin):
        torch.manual_seed(1)
        each.compile(loss=BinaryCrossentropy(), metrics=["accuracy"], engine="fused")
        histories.append(each.fit(X, Y, epochs=3, batch_size=4, verbose=0).history)
    assert histories[0] == histories[1]
    np.testing.assert_array_equal(model.predict(X, verbose=0), twin.predict(X, verbose=0))
    assert list(model.state_dict()) == ["1.weight", "1.bias", "2.weight", "2.bias"]


@pytest.mark.parametrize("end", ["sigmoid", "relu"])
def test_autograd_computes_cross_entropy_of_what_goes_into_the_last_sigmoid(end):
    inputs = Input((1,))
    model = Model(inputs, Dense(1, end, kernel_initializer="ones")(inputs * 1.0))
    model.compile(loss=BinaryCrossentropy())
    loss = model.evaluate(np.full((1, 1), 50.0), np.zeros(1), verbose=0)
    # Of the probability, which float32 rounds to 1, it is log(1e7), about 16.
    assert loss == pytest.approx(50.0 if end == "sigmoid" else 16, rel=0.02)


NO_CHAINS = {
    "two inputs": lambda x: Model([x, b := Input((3,))], Add()([x, b])),
    "two outputs": lambda x: Model(x, [h := Dense(3)(x), Dense(3)(h)]),
    "a layer twice": lambda x: Model(x, (layer := Dense(3))(layer(x))),
    "a branch": lambda x: Model(x, Add()([Dense(3)(x), x])),
    "what lies before the end": lambda x: Model(x, (h := Dense(3)(x), Dense(1)(h))[1] + h),
    "a call in a mode": lambda x: Model(x, Dropout(0.5)(x, training=True)),
}


@pytest.mark.parametrize("kind", NO_CHAINS)
def test_what_is_no_chain_trains_through_autograd(kind):
    model = NO_CHAINS[kind](Input((3,)))
    assert model._chain is None
    model.compile(loss="mse")
    lines = []
    model.summary(print_fn=lines.append)
    assert "autograd" in lines[0]


def test_the_summary_says_what_a_layer_is_called_on(two):
    texts = []
    for model in (two, chain()):
        model.summary(print_fn=texts.append)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in texts[0].splitlines()]
    assert ["x (Input)", "(None, 3)", "0", ""] in rows
    assert ["hidden (Dense)", "(None, 4)", "16", "x"] in rows
    assert ["concatenate (Concatenate)", "(None, 6)", "0", "hidden, z"] in rows
    assert "Called on" not in texts[1]


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": lambda model: _saved(model),
}


def _saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("kind", COPIES)
def test_copies_compute_the_same_and_have_symbols_of_their_own(two, kind):
    other = COPIES[kind](two)
    np.testing.assert_array_equal(other([X, Z]), two([X, Z]))
    assert other.input == other.layers[:2]
    part = Model(other.inputs, other.output * 2)
    np.testing.assert_allclose(part([X, Z]), 2 * two([X, Z]))
    assert part.get_layer("hidden") is other.get_layer("hidden") is not two.get_layer("hidden")


def test_state_dicts_move_between_graphs_and_to_dtypes(two):
    other = copy.deepcopy(two)
    other.set_weights([w * 0 for w in other.get_weights()])
    other.load_state_dict(two.state_dict())
    np.testing.assert_array_equal(other([X, Z]), two([X, Z]))
    assert other.double()([X, Z]).dtype == np.float64


def test_pytorchs_compilers_take_a_graph(two):
    x, z = torch.tensor(X), torch.tensor(Z)
    expected = two([x, z])
    compiled = torch.compile(two, backend="eager", fullgraph=True)
    assert_close(compiled([x, z]), expected)
    assert_close(compiled({"x": x, "z": z}), expected)
    assert_close(torch.jit.trace(two, ([x, z],))([x, z]), expected)
    assert_close(torch.fx.symbolic_trace(chain())(x).shape, torch.Size([20, 1]))
    exported = torch.export.export(two, ([x, z],))
    assert_close(exported.module()([x, z]), expected)
    parameters = dict(two.named_parameters())
    assert_close(torch.func.functional_call(two, parameters, ([x, z],)), expected)


def test_a_graph_is_freed_with_the_last_name_for_it(two):
    import gc
    import weakref

    gc.collect()
    gc.disable()
    try:
        model = Model(two.inputs, Concatenate()([two.output, two.output]))
        known = weakref.ref(model), weakref.ref(model.layers[-1])
        del model
        assert known[0]() is known[1]() is None
    finally:
        gc.enable()


class Block(nn.Module):
    """With names that models of graphs have use for, too."""

    def __init__(self):
        super().__init__()
        self.chain, self.head = nn.Sequential(nn.Linear(3, 3)), Dense(1, "sigmoid")

    def forward(self, x):
        return self.head(2 * self.chain(x))


class Own(Model):
    def __init__(self):
        super().__init__()
        self.chain, self.head = nn.Sequential(nn.Linear(3, 3)), Dense(1, "sigmoid")

    def forward(self, x):
        return self.head(2 * self.chain(x))


@pytest.mark.parametrize("make", [lambda: Sequential([Block()]), Own, lambda: Sequential([Own()])])
def test_parts_of_a_module_may_have_any_name(make):
    model = make()
    x, y = np.ones((4, 3), np.float32), np.ones((4, 1), np.float32)
    model.compile(loss="binary_crossentropy")
    model.predict(x, verbose=0)
    before = model(torch.tensor(x)).detach()
    model.fit(x, y, verbose=0)
    assert (model(torch.tensor(x)) > before).all()
    lines = []
    model.summary(print_fn=lines.append)
    assert "autograd" in lines[0]


@pytest.mark.parametrize("name", ["layers", "input", "output", "weights", "losses"])
def test_what_a_model_tells_of_itself_is_no_name_for_a_part(name):
    class Taken(Model):
        def __init__(self):
            super().__init__()
            setattr(self, name, nn.ModuleList([Dense(1)]))

    with pytest.raises(AttributeError, match=f"^{name} is what a Taken tells of itself"):
        Taken()


def test_layers_of_a_class_of_ones_own_have_the_names_that_the_summary_shows():
    class Own(Model):
        def __init__(self):
            super().__init__()
            self.first, self.rest = Dense(3), [Dense(2), Dense(1, name="out")]

    model, lines = Own(), []
    assert [layer.name for layer in model.layers] == ["dense", "dense_1", "out"]
    model.more = Dense(2)
    model.summary(lines.append, line_length=60, expand_nested=True, show_trainable=True)
    assert [layer.name for layer in model.layers] == ["dense", "dense_1", "out", "dense_2"]
    assert all(f"{layer.name} (Dense)" in lines[0] for layer in model.layers)


@pytest.mark.parametrize("width", [40, 90])
def test_a_summary_is_as_wide_as_it_is_told(width):
    lines = []
    chain().summary(lines.append, line_length=width)
    assert max(map(len, lines[0].splitlines())) <= width


def test_a_model_tells_whether_it_is_built():
    model = Sequential([Dense(2)])
    assert not model.built
    model.predict(X)
    assert model.built
    assert chain().built
