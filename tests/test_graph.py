"""Symbols, and the graphs that layers called on them make."""

import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import Input, Model, Sequential
from torchnn.layers import Activation, Add, Dense, Dropout, Lambda, Layer, Normalization
from torchnn.layers._graph import Graph
from torchnn.layers._symbols import latest

X = np.arange(12.0).reshape(4, 3) / 10


def test_a_layer_called_on_a_symbol_is_built_and_returns_one():
    inputs, layer = Input((3,)), Dense(4)
    symbol = layer(inputs)
    assert layer.in_features == 3
    assert symbol.shape == (None, 4)
    assert symbol.ndim == 2
    assert symbol.dtype == torch.float32
    assert repr(symbol) == "<symbol of shape (None, 4), from Dense>"


OPERATIONS = [
    (lambda x: x + 1, X + 1),
    (lambda x: 1 + x, X + 1),
    (lambda x: x - 1, X - 1),
    (lambda x: 1 - x, 1 - X),
    (lambda x: 2 * x * x, 2 * X * X),
    (lambda x: x / 2, X / 2),
    (lambda x: 1 / (x + 1), 1 / (X + 1)),
    (lambda x: -x, -X),
    (lambda x: abs(-x), X),
    (lambda x: x**2, X**2),
    (lambda x: x @ torch.ones(3, 2), X @ np.ones((3, 2))),
    (lambda x: x[:, 1:], X[:, 1:]),
    (torch.sin, np.sin(X)),
    (lambda x: torch.sin(x).mean(1, keepdim=True), np.sin(X).mean(1, keepdims=True)),
    (lambda x: torch.cat([x, x], dim=1), np.concatenate([X, X], 1)),
    (lambda x: torch.where(torch.gt(x, 0.5), x, -x), np.where(X > 0.5, X, -X)),
    (lambda x: nn.functional.normalize(x, dim=1), X / np.linalg.norm(X, axis=1, keepdims=True)),
    (lambda x: torch.max(x, 1)[0], X.max(1)),
]


@pytest.mark.parametrize(("function", "expected"), OPERATIONS)
def test_operators_and_pytorchs_functions_are_steps(function, expected):
    inputs = Input((3,))
    np.testing.assert_allclose(Model(inputs, function(inputs))(X), expected, rtol=1e-5)
    same = Lambda(lambda x: x)(inputs)
    np.testing.assert_allclose(Model(inputs, function(same))(X), expected, rtol=1e-5)


def test_a_graph_has_the_calls_that_lead_to_the_outputs_in_their_order():
    a, b = Input((3,)), Input((3,))
    shared, other = Dense(3), Dense(2)
    one, two = shared(a), shared(b)
    other(one)
    graph = Graph([b, a], [Add()([one, two]), one])
    assert [type(module) for module in graph.modules] == [Input, Input, Dense, Add]
    assert [step.module for step in graph.steps] == [2, 2, 3]
    assert graph.sources(3) == [2]
    assert graph.sources(2) == [1, 0]
    assert graph.shapes == [(3,)] * 5


def test_a_shared_layer_counts_once_and_computes_twice():
    a, b, shared = Input((3,)), Input((3,)), Dense(2)
    model = Model([a, b], shared(a) - shared(b))
    assert len(model.get_weights()) == 2
    np.testing.assert_allclose(model([X, X - 1]), np.ones((4, 3)) @ shared.get_weights()[0], 1e-4)


def test_models_are_layers_of_models():
    inner_in = Input((3,))
    inner = Model(inner_in, Dense(2)(inner_in))
    tower = Sequential([Dense(4, "relu"), Dense(2)])
    inputs = Input((3,))
    model = Model(inputs, Add()([inner(inputs), tower(inputs)]))
    np.testing.assert_allclose(model(X), inner(X) + tower(X), rtol=1e-6)
    assert len(model.get_weights()) == 6
    assert model.get_layer("sequential") is tower


def test_symbols_between_make_models_of_parts():
    inputs = Input((3,))
    hidden = Dense(4, "relu")(inputs)
    whole = Model(inputs, Dense(1)(hidden))
    first, last = Model(inputs, hidden), Model(hidden, whole.output)
    np.testing.assert_allclose(last(first(X)), whole(X), rtol=1e-6)
    assert first.layers[1] is whole.layers[1]


def test_a_layer_tells_the_symbols_of_its_last_call():
    inputs, hidden, unused = Input((3,)), Dense(4, "relu"), Dense(1)
    model = Model(inputs, Dense(1)(hidden(inputs)))
    before, after = latest(hidden)
    assert before is inputs
    part = Model(model.inputs, after)
    assert part(X).shape == (4, 4)
    assert latest(unused) is None
    del model, part, after
    assert latest(hidden) is None


def test_layers_that_return_several_have_a_symbol_for_each():
    class Split(Layer):
        def forward(self, x):
            return {"first": x[:, :1], "rest": [x[:, 1:], 7]}

    inputs = Input((3,))
    parts = Split()(inputs)
    assert parts["rest"][1] == 7
    model = Model(inputs, [parts["rest"][0], parts["first"]])
    rest, first = model(X)
    np.testing.assert_allclose(first, X[:, :1])
    np.testing.assert_allclose(rest, X[:, 1:])


def test_a_deep_graph_is_no_deeper_to_python():
    inputs = outputs = Input((1,))
    for _ in range(2000):
        outputs = outputs + 1
    model = Model(inputs, outputs)
    assert model(np.zeros((1, 1))) == 2000


def test_training_is_kept_where_a_call_asked_for_it():
    inputs, dropout = Input((1000,)), Dropout(0.5)
    on, auto = dropout(inputs, training=True), dropout(inputs)
    on, auto = Model(inputs, [on, auto])(np.ones((1, 1000)))
    assert (on == 0).any()
    assert (auto == 1).all()


def test_a_symbol_takes_the_dtype_of_the_layer():
    inputs = Input((3,))
    symbol = Dense(2, dtype=torch.float64)(Activation("relu")(inputs))
    assert symbol.dtype == torch.float64
    assert Model(inputs, symbol)(X).dtype == np.float64


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: nn.Linear(3, 4)(x), TypeError, r"as in Lambda\(nn.Linear\(3, 4\)\)\(x\)$"),
        (lambda x: Lambda(torch.sum)(x), ValueError, "^Lambda must return one row a sample to"),
        (lambda x: Lambda(lambda x: 3)(x), TypeError, "^Lambda must return tensors, got int$"),
        (lambda x: Dense(1)(x).nothing, AttributeError, "^a symbol has no attribute 'nothing'$"),
        (lambda x: bool(Dense(1)(x)), TypeError, "^a symbol has no value yet"),
        (lambda x: list(Dense(1)(x)), TypeError, "not iterable"),
        (lambda x: Dense(2, in_features=4)(x), ValueError, "expects 4 features, got 3$"),
        (lambda x: Normalization()(x), ValueError, r"call adapt\(data\) first"),
        (lambda x: Model(x, Input((2,))), ValueError, "^outputs depend on Input"),
        (lambda x: Model([x, x], x + 1), ValueError, "^inputs must differ from each other"),
        (lambda x: Model(x, 3), TypeError, "^outputs must be an Input or what layers return"),
        (lambda x: Model([], x), TypeError, "^inputs must be an Input or"),
        (lambda x: Model(Dense(3), x), TypeError, "^inputs must be an Input or"),
        (lambda x: Model(x), ValueError, "^outputs must be given too"),
        (lambda x: Model(outputs=x), ValueError, "^inputs must be given too"),
        (
            lambda x: Model(x, Dense(1, name="a")(Dense(3, name="a")(x))),
            ValueError,
            "^layer names must differ, got 'a' 2 times$",
        ),
    ],
)
def test_what_makes_no_graph_is_an_error(make, error, message):
    with pytest.raises(error, match=message):
        make(Input((3,)))


def test_parts_of_a_sequential_make_models():
    model = Sequential([Input((4,)), Dense(3, "relu"), Dropout(0.5), Dense(2)])
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    features = Model(model.inputs, model.layers[0].output)
    np.testing.assert_array_equal(features(x), model.layers[0](x))
    each = Model(model.layers[0].input, [layer.output for layer in model.layers])(x)
    np.testing.assert_array_equal(each[-1], model(x))
    assert model.layers[1].output.shape.as_list() == [None, 3]
    assert Model(model.input, Dense(5)(model.output))(x).shape == (3, 5)
    model.add(Dense(7))
    assert Model(model.inputs, model.outputs)(x).shape == (3, 7)
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(Model(copied.inputs, copied.layers[0].output)(x), features(x))


def test_a_sequential_whose_symbols_were_asked_for_is_freed():
    model = Sequential([Input((4,)), Dense(3)])
    assert model.layers[0].output.shape == (None, 3)
    watched = weakref.ref(model)
    del model
    gc.collect()
    assert watched() is None


def test_an_input_is_its_own_output():
    x = Input((4,))
    model = Model(x, Dense(3)(x))
    every = Model(model.inputs, [layer.output for layer in model.layers])
    assert [part.shape for part in every(np.ones((2, 4), np.float32))] == [(2, 4), (2, 3)]
