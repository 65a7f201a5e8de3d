"""Models with several inputs and outputs: compile, fit, evaluate and predict."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from torchnn import Input, Model, Sequential, models
from torchnn.layers import Concatenate, Dense, Dot, concatenate
from torchnn.optimizers import SGD, Adam

random = np.random.RandomState(0)
X, Z = random.randn(50, 3).astype("float32"), random.randn(50, 2).astype("float32")
P = (X.sum(1, keepdims=True) > 0).astype("float32")
Q = random.randn(50, 2).astype("float32")
WEIGHT = random.rand(50).astype("float32")
SETTINGS = {"batch_size": 8, "shuffle": False, "verbose": 0}


def weights_of(model):
    """Numbers to begin with, in the shapes of the model's weights."""
    fixed = np.random.RandomState(1)
    return [fixed.randn(*w.shape).astype("float32") / 2 for w in model.get_weights()]


def heads(structure=lambda p, q: {"p": p, "q": q}, **options):
    """Two inputs, a trunk, and two heads."""
    a, b = Input(shape=(3,), name="a"), Input(shape=(2,), name="b")
    trunk = concatenate([Dense(4, activation="tanh")(a), b])
    p, q = Dense(1, activation="sigmoid", name="p")(trunk), Dense(2, name="q")(trunk)
    model = Model([a, b], structure(p, q))
    model.set_weights(weights_of(model))
    given = {"loss": {"p": "binary_crossentropy", "q": "mse"}, **options}
    model.compile(given.pop("optimizer", "sgd"), **given)
    return model


X_FORMS = [[X, Z], (X, torch.tensor(Z)), {"b": Z, "a": X.astype("float64")}]
Y_FORMS = [[P, Q], (P, Q), {"q": Q, "p": P[:, 0]}]


@pytest.mark.parametrize("x", X_FORMS)
@pytest.mark.parametrize("y", Y_FORMS)
def test_evaluate_matches_the_formulas(x, y):
    options = {"loss_weights": [2.0, 0.5], "metrics": [["accuracy"], "mae"]}
    model = heads(lambda p, q: [p, q], **options)
    p, q = model.predict([X, Z], verbose=0)
    losses = -np.mean(P * np.log(p) + (1 - P) * np.log(1 - p)), np.mean((Q - q) ** 2)
    expected = {
        "loss": 2 * losses[0] + losses[1] / 2,
        "p_loss": losses[0],
        "q_loss": losses[1],
        "p_accuracy": np.mean((p > 0.5) == P),
        "q_mae": np.mean(abs(Q - q)),
    }
    for logs in (
        model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True),
        model.test_on_batch(x, y, return_dict=True),
        model.train_on_batch(x, y, return_dict=True),
    ):
        assert list(logs) == list(expected)
        assert list(logs.values()) == pytest.approx(list(expected.values()), rel=1e-4)


def test_training_matches_keras():
    model = heads(
        optimizer=Adam(0.01),
        loss_weights={"p": 2.0, "q": 0.5},
        metrics={"p": ["accuracy"], "q": ["mae"]},
    )
    x, y = {"a": X, "b": Z}, {"p": P, "q": Q}
    history = model.fit(x, y, epochs=2, validation_split=0.2, **SETTINGS).history
    expected = {
        "loss": [1.98094, 1.82799],
        "p_loss": [0.62493, 0.57935],
        "q_loss": [1.46216, 1.33859],
        "p_accuracy": [0.7, 0.725],
        "q_mae": [0.97648, 0.92628],
        "val_loss": [2.17283, 2.07778],
        "val_p_loss": [0.75561, 0.7193],
        "val_q_loss": [1.3232, 1.27837],
        "val_p_accuracy": [0.5, 0.6],
        "val_q_mae": [0.91078, 0.90559],
    }
    assert list(history) == list(expected)
    for name, values in expected.items():
        assert history[name] == pytest.approx(values, abs=1e-5), name
    weights = {"p": WEIGHT, "q": np.ones(50)}
    weighted = model.fit(x, y, sample_weight=weights, validation_split=0.2, **SETTINGS).history
    losses = [weighted[name][0] for name in ("loss", "p_loss", "q_loss", "val_loss")]
    assert losses == pytest.approx([1.18495, 0.28285, 1.23851, 1.32548], abs=1e-5)


def test_two_towers_and_their_product_match_keras():
    a, b = Input((3,)), Input((2,))
    model = Model([a, b], Dot(axes=1)([Dense(3)(a), Dense(3)(b)]))
    fixed = np.random.RandomState(1)
    fixed.randn(3 * 4 + 4 + 6 + 1 + 12 + 2)  # those of the model above, in Keras too
    model.set_weights([fixed.randn(*w.shape).astype("float32") / 2 for w in model.get_weights()])
    model.compile(SGD(0.01), "mse")
    history = model.fit([X, Z], Q[:, :1], epochs=2, validation_split=0.2, **SETTINGS).history
    assert history["loss"] == pytest.approx([2.116993, 1.572021], abs=1e-5)
    assert history["val_loss"] == pytest.approx([2.973544, 2.440035], abs=1e-5)
    assert model.predict([X, Z], verbose=0)[:2, 0] == pytest.approx(
        [-0.377361, 0.0901308], abs=1e-5
    )


def test_a_weight_of_samples_counts_for_every_output():
    model = heads()
    both = model.evaluate([X, Z], [P, Q], sample_weight=WEIGHT, verbose=0)
    each = model.evaluate([X, Z], [P, Q], sample_weight=[WEIGHT, WEIGHT], verbose=0)
    assert both == each
    assert both[0] == pytest.approx(both[1] + both[2])


@pytest.mark.parametrize("structure", [list, dict])
def test_predictions_are_what_the_model_returns(structure):
    build = {list: lambda p, q: [p, q], dict: lambda p, q: {"first": p, "second": q}}[structure]
    loss = {list: {"p": "mse", "q": "mse"}, dict: {"first": "mse", "second": "mse"}}[structure]
    model = heads(build, loss=loss)
    outputs = model([X, Z])
    for predicted in (
        model.predict([X, Z], batch_size=7, verbose=0),
        model.predict_on_batch([X, Z]),
        model.predict(DataLoader(list(zip(X, Z, strict=True)), collate_fn=_in_a_dict), verbose=0),
    ):
        assert type(predicted) is type(outputs) is structure
        keys = predicted if structure is dict else range(2)
        for key in keys:
            np.testing.assert_allclose(predicted[key], outputs[key], rtol=1e-5, atol=1e-6)


def _in_a_dict(rows):
    return {
        "a": torch.tensor([list(a) for a, _ in rows]),
        "b": torch.tensor([list(b) for _, b in rows]),
    }


def test_a_loader_gives_several_of_both():
    rows = list(zip(X, Z, P, Q, strict=True))

    def batch(rows):
        x, z, p, q = map(torch.tensor, map(np.stack, zip(*rows, strict=True)))
        return (x, z), {"q": q, "p": p}

    loader = DataLoader(rows, batch_size=8, collate_fn=batch)
    one, other = heads(), heads()
    history = one.fit(loader, epochs=2, validation_data=([X, Z], [P, Q]), verbose=0).history
    expected = other.fit([X, Z], [P, Q], epochs=2, validation_data=loader, **SETTINGS).history
    for name, values in expected.items():
        assert history[name] == pytest.approx(values, rel=1e-5), name


def test_one_loss_serves_all_outputs():
    model = heads(loss="mse")
    losses = model.evaluate([X, Z], [P, Q], verbose=0)
    assert losses[0] == pytest.approx(sum(losses[1:]))


def test_class_numbers_are_checked_by_output():
    model = heads(loss=["mse", nn.CrossEntropyLoss()])
    labels = (Q[:, 0] > 0).astype(int)
    assert len(model.evaluate([X, Z], [P, labels], verbose=0)) == 3
    with pytest.raises(ValueError, match="class numbers from 0 to 1"):
        model.fit([X, Z], [P, labels + 1], verbose=0)


def test_dicts_of_one_name_their_one():
    a = Input((3,), name="a")
    model = Model(a, Dense(1, name="rating")(a))
    model.compile(loss={"rating": "mse"}, metrics={"rating": ["mae"]})
    y = X[:, 0]
    logs = model.evaluate({"a": X}, {"rating": y}, verbose=0, return_dict=True)
    assert list(logs) == ["loss", "mae"]
    assert list(logs.values()) == model.evaluate([X], y, verbose=0)


class Own(Model):
    """Takes and returns several by a forward of its own."""

    def __init__(self):
        super().__init__()
        self.trunk, self.p, self.q = Dense(4, "relu"), Dense(1), Dense(2)
        self.join = Concatenate()

    def call(self, inputs):
        if isinstance(inputs, dict):
            inputs = [inputs["a"], inputs["b"]]
        trunk = self.trunk(self.join(inputs))
        return {"p": self.p(trunk), "q": self.q(trunk)}


@pytest.mark.parametrize("x", [[X, Z], {"a": X, "b": Z}])
def test_a_class_of_ones_own_takes_and_returns_several(x):
    model = Own()
    model.compile("adam", loss={"p": "mse", "q": "mae"}, metrics={"q": ["mse"]})
    history = model.fit(x, {"p": P, "q": Q}, epochs=3, verbose=0).history
    assert list(history) == ["loss", "p_loss", "q_loss", "q_mse"]
    assert history["loss"][-1] < history["loss"][0]
    assert model.predict(x, verbose=0)["q"].shape == (50, 2)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, [P, Q], "^x must be a list with one item, or a dict .* the inputs a, b; got ndarray"),
        ([X], [P, Q], "^x must be a list with one item, .* got 1 items$"),
        ({"a": X}, [P, Q], "^x must be a dict of the inputs a, b, got a$"),
        ({"a": X, "c": Z}, [P, Q], "^x must be a dict of the inputs a, b, got a, c$"),
        ([Z, X], [P, Q], r"^x\['a'\] must have 3 features, .* got shape \(50, 2\)$"),
        ([X, Z[:7]], [P, Q], "^x must have as many rows of each input, got a: 50, b: 7$"),
        ([X, Z * np.nan], [P, Q], r"^x\['b'\] must be finite"),
        ([X, Z], P, "^y must be a list with one item, .* the outputs p, q; got ndarray$"),
        ([X, Z], {"p": P}, "^y must be a dict of the outputs p, q, got p$"),
        ([X, Z], [P, Q[:7]], r"^y\['q'\] must have as many rows as x, 50, got 7 rows$"),
        ([X, Z], [P, P], "^y of the output 'q' does not fit it: y_true of shape"),
        ([X, Z], [P + 1, Q], "^y does not suit the loss: the output 'p': .* needs y in"),
    ],
)
def test_data_that_does_not_fit_is_an_error_before_any_work(x, y, message):
    model = heads()
    before = model.get_weights()
    for function in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=message):
            function(x, y, verbose=0)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"loss": ["mse"]},
            "^loss must be a list with one item, .* the outputs p, q; got 1 items$",
        ),
        ({"loss": {"p": "mse"}}, "^loss must be a dict of the outputs p, q, got p$"),
        ({"loss": {"p": "mse", "z": "mse"}}, "^loss must be a dict of the outputs p, q, got p, z$"),
        ({"loss": "mse", "metrics": ["mae"]}, "^metrics must be a list with one item, "),
        ({"loss": "mse", "metrics": {"z": "mae"}}, "^metrics must be a dict of the outputs p, q"),
        ({"loss": "mse", "loss_weights": [1]}, "^loss_weights must be a list with one item, "),
        ({"loss": "msee"}, "^unknown loss 'msee'"),
        ({"loss": ["mse", None]}, "^loss must be given"),
        (
            {"loss": "mse", "engine": "fused"},
            'engine="fused" cannot train this model: its graph',
        ),
    ],
)
def test_compile_names_what_does_not_go_with_the_outputs(options, message):
    with pytest.raises(ValueError, match=message):
        heads().compile(**options)


def test_what_is_for_one_output_is_refused():
    with pytest.raises(ValueError, match=r"^class_weight is for models with one output"):
        heads().fit([X, Z], [P, Q], class_weight={0: 2.0}, verbose=0)
    single = Sequential([Dense(1)])
    with pytest.raises(ValueError, match=r"^loss_weights of a model with one output must be 1"):
        single.compile(loss="mse", loss_weights=[2.0])
    model = Own()
    model.compile(loss="mse")
    with pytest.raises(TypeError, match=r"^the model must return a tensor, got 2: for several"):
        model.fit([X, Z], P, verbose=0)


def test_targets_of_several_outputs_need_a_loss_of_each():
    class Two(Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = Dense(1), Dense(1)

        def forward(self, x):
            return self.a(x), self.b(x)

    model, x, y = Two(), np.ones((9, 3), "float32"), np.ones(9, "float32")
    model.compile(loss="mse")
    message = r"got 2 rows\. For 2 outputs, compile needs a loss of each, loss=\[\.\.\., \.\.\.\]$"
    with pytest.raises(ValueError, match=message):
        model.fit(x, (y, y))
    model.compile(loss=["mse", "mse"])
    model.fit(x, (y, y), verbose=0)


def chain():
    return Sequential([Input((3,)), Dense(2), Dense(1, name="out")])


def graph():
    return Model(a := Input((3,)), Dense(1, name="out")(a))


@pytest.mark.parametrize("make", [chain, graph, Sequential])
@pytest.mark.parametrize(
    "options",
    [
        {"loss": ["mse"], "metrics": ["mae"]},
        {"loss": {"out": "mse"}, "metrics": [["mae"]], "loss_weights": [1.0]},
        {"loss": "mse", "metrics": {"out": ["mae"]}, "loss_weights": {"out": 1}},
        {"loss": ("mse",), "metrics": {"out": "mae"}},
        {"loss": "mse", "weighted_metrics": [["mae"]], "metrics": {}},
        {"loss": "mse", "weighted_metrics": {"out": ["mae"]}, "metrics": None},
    ],
)
def test_lists_and_dicts_of_one_output_are_those_of_the_only_one(make, options, tmp_path):
    model = make()
    model.compile("sgd", **options)
    if make is Sequential:
        model.add(Dense(1, name="out"))
    model.fit(X, P, verbose=0)
    assert model.metrics_names == ["loss", "mae"]
    model.save(tmp_path / "one.keras")
    other = models.load_model(tmp_path / "one.keras")
    assert other.evaluate(X, P, verbose=0) == model.evaluate(X, P, verbose=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": ["mse", "mse"]}, "^loss must be a list with one item, .* out; got 2 items$"),
        ({"loss": {"p": "mse"}}, "^loss must be a dict of the outputs out, got p$"),
        ({"loss": "mse", "metrics": {"p": "mae"}}, "^metrics must be a dict of the outputs out"),
        ({"loss": "mse", "metrics": [["mae"], "mse"]}, "^metrics must be a list with one item"),
        ({"loss": "mse", "loss_weights": {"p": 1}}, "^loss_weights must be a dict of the outputs"),
    ],
)
def test_lists_and_dicts_of_others_are_refused(options, message):
    for make in (chain, graph):
        with pytest.raises(ValueError, match=message):
            make().compile(**options)
