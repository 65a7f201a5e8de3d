"""Files in the form that Keras 3 gives them, written here by hand."""

import io
import json
import zipfile

import numpy as np
import pytest

from torchnn import Input, Model, Sequential
from torchnn.layers import BatchNormalization, Dense, LeakyReLU
from torchnn.models import load_model

h5py = pytest.importorskip("h5py")

POLICY = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}}


def described(cls, kind="layers", **config):
    named = {"name": config.pop("name", cls.lower())} if kind == "layers" else {}
    if kind == "layers":
        named |= {"trainable": config.pop("trainable", True), "dtype": POLICY}
    return {
        "module": f"keras.{kind}",
        "class_name": cls,
        "config": {**named, **config},
        "registered_name": None,
    }


def dense(units, activation="linear", **options):
    kernel = described("GlorotUniform", "initializers", seed=None, input_axes=None)
    return described(
        "Dense",
        units=units,
        activation=activation,
        use_bias=True,
        kernel_initializer=kernel,
        bias_initializer=described("Zeros", "initializers"),
        kernel_regularizer=options.pop("kernel_regularizer", None),
        quantization_config=None,
        **options,
    )


def entrance(name="input_layer", shape=(4,)):
    entry = described("InputLayer", batch_shape=[None, *shape], sparse=False, name=name)
    del entry["config"]["trainable"]
    return entry


def put_arrays(file, arrays):
    for place, values in arrays.items():
        group = file.create_group(f"{place}/vars")
        for number, value in enumerate(values):
            group[str(number)] = value


def archive(path, config, arrays):
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("config.json", json.dumps(config))
        zipped.writestr("metadata.json", "{}")
        written = io.BytesIO()
        with h5py.File(written, "w") as content:
            put_arrays(content, arrays)
        zipped.writestr("model.weights.h5", written.getvalue())


def numbers(*shapes):
    generator = np.random.default_rng(sum(map(len, shapes)))
    return [generator.normal(size=shape).astype("float32") for shape in shapes]


def chain(path, **compiled):
    """A chain and the arrays of its layers."""
    layers = [
        entrance(),
        dense(3, kernel_regularizer=described("L2", "regularizers", l2=0.01), name="first"),
        described("LeakyReLU", negative_slope=0.1),
        described("BatchNormalization", axis=-1, momentum=0.9, epsilon=0.01, renorm_momentum=0.99),
        dense(2, "softmax", name="second", trainable=False),
    ]
    config = {"name": "mine", "trainable": True, "dtype": POLICY, "layers": layers}
    first, second = numbers((4, 3), (3,)), numbers((3, 2), (2,))
    normal = [*numbers((3,), (3,), (3,)), np.array([0.5, 1.0, 2.0], "float32")]
    arrays = {
        "layers/dense": first,
        "layers/batch_normalization": normal,
        "layers/dense_1": second,
        "layers/leaky_re_lu": [],
        "optimizer": numbers((3,), (2,)),
    }
    written = {"module": "keras", "class_name": "Sequential", "config": config}
    archive(path, {**written, "build_config": {"input_shape": [None, 4]}, **compiled}, arrays)
    return first, normal, second


def test_a_chain_computes_what_its_arrays_say(tmp_path):
    (w1, b1), (gamma, beta, mean, variance), (w2, b2) = chain(tmp_path / "m.keras")
    model = load_model(tmp_path / "m.keras")
    x = numbers((5, 4))[0]
    z = x @ w1 + b1
    a = np.where(z > 0, z, 0.1 * z)
    a = (a - mean) / np.sqrt(variance + 0.01) * gamma + beta
    e = np.exp(a @ w2 + b2)
    np.testing.assert_allclose(model.predict(x, verbose=0), e / e.sum(1, keepdims=True), rtol=1e-4)
    assert model.name == "mine"
    assert [layer.name for layer in model.layers][::3] == ["first", "second"]
    assert model.layers[0].kernel_regularizer.l2 == 0.01
    assert not model.layers[3].trainable
    assert model.optimizer is None


def test_it_is_compiled_as_it_was(tmp_path):
    adam = described("Adam", "src.backend.torch.optimizers.torch_adam", learning_rate=0.02)
    adam["config"] |= {"use_ema": False, "ema_momentum": 0.99, "loss_scale_factor": None}
    loss = described("CategoricalCrossentropy", "losses", label_smoothing=0.1, axis=-1)
    auc = described("AUC", "metrics", name="area", dtype="float32", num_labels=None)
    compiled = {"optimizer": adam, "loss": loss, "metrics": ["accuracy", auc]}
    compiled |= {"loss_weights": None, "run_eagerly": False, "jit_compile": False}
    chain(tmp_path / "m.keras", compile_config=compiled)
    model = load_model(tmp_path / "m.keras")
    assert model.optimizer.learning_rate == 0.02
    assert model.loss.label_smoothing == 0.1
    assert model.metrics_names == ["loss", "accuracy", "area"]
    model.fit(numbers((8, 4))[0], np.eye(2)[[0, 1] * 4], verbose=0)
    assert load_model(tmp_path / "m.keras", compile=False).optimizer is None


def symbol(name, node=0):
    return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, node, 0]}}


def test_a_graph_with_a_shared_layer_computes_what_its_arrays_say(tmp_path):
    def calls(layer, *arguments):
        nodes = [{"args": [argument], "kwargs": {"mask": None}} for argument in arguments]
        return {**layer, "name": layer["config"]["name"], "inbound_nodes": nodes}

    layers = [
        calls(entrance("a")),
        calls(dense(1, "sigmoid", name="end"), symbol("both")),  # the order does not matter
        calls(entrance("b")),
        calls(
            described("Concatenate", name="both", axis=-1), [symbol("shared"), symbol("shared", 1)]
        ),
        calls(dense(2, "relu", name="shared"), symbol("a"), symbol("b")),
    ]
    ends = {"input_layers": [["a", 0, 0], ["b", 0, 0]], "output_layers": ["end", 0, 0]}
    config = {"name": "graph", "trainable": True, "layers": layers, **ends}
    (w, b), (v, c) = numbers((4, 2), (2,)), numbers((4, 1), (1,))
    arrays = {"layers/dense": [w, b], "layers/dense_1": [v, c]}  # from the inputs to the outputs
    written = {"module": "keras.src.models.functional", "class_name": "Functional"}
    archive(tmp_path / "m.keras", {**written, "config": config}, arrays)
    model = load_model(tmp_path / "m.keras")
    x, y = numbers((5, 4), (5, 4))
    hidden = np.concatenate([np.maximum(each @ w + b, 0) for each in (x, y)], 1)
    expected = 1 / (1 + np.exp(-(hidden @ v + c)))
    np.testing.assert_allclose(model.predict([x, y], verbose=0), expected, rtol=1e-5)


class Own(Model):
    def __init__(self):
        super().__init__()
        self.out, self.first = Dense(1), Dense(2)

    def call(self, x):
        return self.out(self.first(x))


def test_weights_of_a_class_of_ones_own_go_by_its_attributes(tmp_path):
    first, out = numbers((4, 2), (2,)), numbers((2, 1), (1,))
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        # "first" comes before "layers", which has the others: the first Dense there is `out`.
        put_arrays(file, {"first": first, "layers/dense": out})
    model = Own()
    model.load_weights(tmp_path / "w.weights.h5")
    x = numbers((3, 4))[0]
    expected = (x @ first[0] + first[1]) @ out[0] + out[1]
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5)


def weights(path, arrays):
    with h5py.File(path, "w") as file:
        put_arrays(file, arrays)
    return path


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    model = Sequential([Input((4,)), Dense(3), BatchNormalization(), LeakyReLU(), Dense(2)])
    before = model.get_weights()
    fits = {
        "layers/dense": numbers((4, 3), (3,)),
        "layers/batch_normalization": numbers(*[(3,)] * 4),
    }
    path = weights(tmp_path / "w.weights.h5", {**fits, "layers/dense_1": numbers((3, 1), (1,))})
    with pytest.raises(ValueError, match=r"layer 'dense_1' wants \[\(3, 2\), \(2,\)\]"):
        model.load_weights(path)
    assert all(map(np.array_equal, before, model.get_weights()))
    with pytest.warns(UserWarning, match="weights are left out: layer 'dense_1' wants"):
        model.load_weights(path, skip_mismatch=True)
    np.testing.assert_array_equal(model.get_weights()[0], fits["layers/dense"][0])
    np.testing.assert_array_equal(model.get_weights()[6], before[6])
    weights(path, {**fits, "layers/dense_1": numbers((3, 2), (2,)), "layers/other": numbers((1,))})
    with pytest.raises(ValueError, match="the model has no place for layers/other"):
        model.load_weights(path)


def test_models_within_have_groups_of_their_own(tmp_path):
    inner, outer = numbers((4, 3), (3,)), numbers((3, 1), (1,))
    arrays = {"layers/sequential/layers/dense": inner, "layers/dense": outer}
    model = Sequential([Sequential([Dense(3)]), Dense(1)])
    model.load_weights(weights(tmp_path / "w.weights.h5", arrays))
    for found, expected in zip(model.get_weights(), [*inner, *outer], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_dict_of_outputs_is_in_the_order_of_its_keys(tmp_path):
    inputs = Input((4,))
    late, early = Dense(2, name="late"), Dense(2, name="early")
    model = Model(inputs, {"b": late(inputs), "a": early(inputs)})
    of_early, of_late = numbers((4, 2), (2,)), [1 + each for each in numbers((4, 2), (2,))]
    arrays = {"layers/dense": of_early, "layers/dense_1": of_late}
    model.load_weights(weights(tmp_path / "w.weights.h5", arrays))
    np.testing.assert_array_equal(early.get_weights()[0], of_early[0])
    np.testing.assert_array_equal(late.get_weights()[0], of_late[0])


def test_statistics_of_a_normalization_come_from_either_place(tmp_path):
    adapted = described("Normalization", axis=-1, mean=None, variance=None, name="n")
    adapted["build_config"] = {"input_shape": [None, 4]}
    config = {"name": "m", "layers": [entrance(), adapted, dense(1)]}
    statistics = [np.arange(4.0, dtype="float32"), np.full(4, 2.0, "float32"), np.array(7)]
    arrays = {"layers/normalization": statistics, "layers/dense": numbers((4, 1), (1,))}
    archive(tmp_path / "m", {"class_name": "Sequential", "config": config}, arrays)
    model = load_model(tmp_path / "m")
    np.testing.assert_array_equal(model.layers[0].mean, statistics[0])
    adapted["config"] |= {"mean": [3.0] * 4, "variance": [4.0] * 4}
    archive(
        tmp_path / "m",
        {"class_name": "Sequential", "config": config},
        {"layers/normalization": [], "layers/dense": arrays["layers/dense"]},
    )
    np.testing.assert_array_equal(load_model(tmp_path / "m").layers[0].mean, [3.0] * 4)


def test_schedules_flatten_and_what_is_not_built(tmp_path):
    schedule = described(
        "ExponentialDecay",
        "optimizers.schedules",
        initial_learning_rate=0.1,
        decay_steps=10,
        decay_rate=0.9,
        staircase=False,
        name="ExponentialDecay",
    )
    adam = described("Adam", "optimizers", learning_rate=schedule)
    layers = [entrance(), described("Flatten", data_format="channels_last"), dense(1)]
    written = {"class_name": "Sequential", "config": {"name": "m", "layers": layers}}
    compiled = {"compile_config": {"optimizer": adam, "loss": "mse"}}
    arrays = {"layers/dense": numbers((4, 1), (1,)), "layers/flatten": []}
    archive(tmp_path / "m", {**written, **compiled}, arrays)
    assert load_model(tmp_path / "m").optimizer.learning_rate.decay_rate == 0.9
    written["config"]["layers"] = [dense(3, name="first"), dense(1)]
    archive(tmp_path / "m", written, {"layers/dense": [], "layers/dense_1": []})
    assert not load_model(tmp_path / "m").built


def test_weights_are_read_from_an_archive_too(tmp_path):
    (first, *_), *_ = chain(tmp_path / "m.keras")
    model = load_model(tmp_path / "m.keras")
    model.set_weights([0 * each for each in model.get_weights()])
    model.load_weights(tmp_path / "m.keras")
    np.testing.assert_array_equal(model.get_weights()[0], first)


def test_what_is_not_here_is_a_clear_error(tmp_path):
    config = {"name": "m", "layers": [entrance(), described("Conv2D", filters=3)]}
    archive(tmp_path / "m", {"class_name": "Sequential", "config": config}, {})
    with pytest.raises(ValueError, match="m' cannot be loaded: nobody knows 'Conv2D'"):
        load_model(tmp_path / "m")
    config = {"name": "m", "layers": [entrance(), dense(3, charm=1)]}
    archive(tmp_path / "m", {"class_name": "Sequential", "config": config}, {})
    with pytest.raises(ValueError, match="Dense got unknown charm"):
        load_model(tmp_path / "m")
    config = {"name": "m", "layers": [entrance(), dense(10**12)]}
    archive(tmp_path / "m", {"class_name": "Sequential", "config": config}, {})
    with pytest.raises(ValueError, match="of a much larger model than its weights"):
        load_model(tmp_path / "m")
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.create_group("model_weights")
    with pytest.raises(ValueError, match=r"load_model reads \.keras archives"):
        load_model(tmp_path / "old.h5")
    with pytest.raises(ValueError, match="it is of Keras 2's kind"):
        Sequential([Dense(1)]).load_weights(tmp_path / "old.h5")
