"""Models and weights in files."""

import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from torchnn import Input, Model, Sequential, losses, metrics, optimizers, saving, utils
from torchnn._files import storage, tree
from torchnn.layers import (
    BatchNormalization,
    Concatenate,
    Dense,
    Dropout,
    GaussianNoise,
    Lambda,
    Layer,
    LeakyReLU,
)
from torchnn.models import load_model, save_model
from torchnn.optimizers.schedules import ExponentialDecay

ROWS = 40


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(ROWS, 5)).astype("float32")
    return x, (x[:, :1] > 0).astype("float32")


def doubled(x):
    return 2 * x


def own_loss(y_true, y_pred):
    return ((y_true - y_pred) ** 2).mean()


class Own(Layer):
    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], self.units))

    def call(self, x):
        return x @ self.kernel


class OwnModel(Model):
    def __init__(self, units=3):
        super().__init__()
        self.units = units
        self.hidden, self.out = Dense(units, "relu"), Dense(1, "sigmoid")

    def call(self, x):
        return self.out(self.hidden(x))


def graph():
    inputs = Input((5,))
    hidden = Dense(4, "relu")(inputs)
    both = Concatenate()([hidden, F.softplus(inputs)[:, 1:3] * torch.tensor([0.5, 2.0])])
    return Model(inputs, Dense(1, "sigmoid")(both.reshape(-1, 6)), name="graph")


MODELS = {
    "course": lambda: Sequential([Dense(25, "sigmoid"), Dense(1, "sigmoid")], name="mine"),
    "pieces": lambda: Sequential(
        [
            Input((5,)),
            Dense(6, kernel_regularizer="l2", kernel_constraint="non_neg"),
            LeakyReLU(0.1),
            Dropout(0.2, seed=3),
            Dense(1, "sigmoid", use_bias=False),
        ]
    ),
    "normalized": lambda: Sequential([Dense(4), BatchNormalization(), Dense(1, "sigmoid")]),
    "noise": lambda: Sequential([GaussianNoise(0.1, seed=1), Dense(1, "sigmoid")]),
    "PyTorch's": lambda: Sequential(
        [nn.Sequential(nn.Linear(5, 4), nn.ReLU()), nn.Linear(4, 1), nn.Sigmoid()]
    ),
    "nested": lambda: Sequential([Sequential([Dense(4, "relu")]), Dense(1, "sigmoid")]),
    "graph": graph,
    "double": lambda: Sequential([Dense(1, "sigmoid", in_features=5)]).double(),
    "own layer": lambda: Sequential([Own(3), Dense(1, "sigmoid")]),
    "own model": OwnModel,
    "function": lambda: Sequential([Lambda(doubled), Dense(1, "sigmoid")]),
}
OWN = {each.__name__: each for each in (Own, OwnModel, doubled, own_loss)}


def sames(one, other):
    return all(map(np.array_equal, one.get_weights(), other.get_weights()))


@pytest.mark.parametrize("engine", ["auto", "autograd"])
@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_is_the_same_and_trains_on_with_the_same_bits(name, engine, data, tmp_path):
    model = MODELS[name]()
    model.compile("adam", "bce", metrics=["accuracy"], engine=engine)
    model.fit(*data, epochs=2, batch_size=7, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras", OWN)
    assert type(loaded) is type(model)
    assert loaded.name == model.name
    assert loaded.epochs_trained == 2
    assert loaded.history.history == model.history.history
    assert loaded.get_compile_config() == model.get_compile_config()
    state, other = model.state_dict(), loaded.state_dict()
    assert list(state) == list(other)
    assert all(torch.equal(state[key], other[key]) for key in state)
    np.testing.assert_array_equal(loaded.predict(data[0]), model.predict(data[0]))
    more = partial(Model.fit, x=data[0], y=data[1], epochs=4, initial_epoch=2, verbose=0)
    random = torch.get_rng_state()
    expected = more(model).history
    torch.set_rng_state(random)
    assert more(loaded).history == expected
    assert sames(model, loaded)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: "sgd",
        lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True, clipnorm=1.0),
        lambda: optimizers.RMSprop(ExponentialDecay(0.1, 3, 0.5), centered=True),
        lambda: optimizers.Adam(0.01, amsgrad=True),
        lambda: torch.optim.AdamW,
        lambda: partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    ],
)
def test_every_kind_of_optimizer_goes_on(optimizer, data, tmp_path):
    model = Sequential([Dense(3, "tanh"), Dense(1, "sigmoid")])
    model.compile(optimizer(), "bce")
    model.fit(*data, epochs=2, verbose=0)
    model.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    for each in (model, loaded):
        each.fit(*data, epochs=3, verbose=0)
    assert sames(model, loaded)


def test_a_torch_optimizer_that_holds_the_parameters_goes_on(data, tmp_path):
    model = Sequential([nn.Linear(5, 1)])
    model.compile(torch.optim.Adam(model.parameters(), lr=0.05), nn.BCEWithLogitsLoss())
    model.fit(*data, epochs=2, verbose=0)
    model.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    for each in (model, loaded):
        each.fit(*data, epochs=3, verbose=0)
    assert sames(model, loaded)
    assert loaded.optimizer.learning_rate == 0.05


def test_a_learning_rate_that_was_changed_is_kept(data, tmp_path):
    model = MODELS["course"]()
    model.compile(optimizers.Adam(0.1), "bce")
    model.fit(*data, verbose=0)
    model.optimizer.learning_rate = 0.025
    model.save(tmp_path / "m")
    assert load_model(tmp_path / "m").optimizer.learning_rate == 0.025


def test_an_interrupted_epoch_goes_on_in_a_loaded_model(data, tmp_path):
    def stop(batch, logs):
        raise KeyboardInterrupt

    from torchnn.callbacks import LambdaCallback

    whole, cut = MODELS["course"](), MODELS["course"]()
    for each in (whole, cut):
        each.build((None, 5))
        each.compile("adam", "bce")
    cut.set_weights(whole.get_weights())
    whole.fit(*data, batch_size=8, epochs=2, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        cut.fit(*data, 8, 2, verbose=0, callbacks=LambdaCallback(on_train_batch_end=stop))
    cut.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.optimizer.place.batches == 1
    loaded.fit(*data, batch_size=8, epochs=2, verbose=0)
    assert sames(whole, loaded)


def test_several_inputs_and_outputs_with_a_loss_each(data, tmp_path):
    a, b = Input((5,), name="a"), Input((5,), name="b")
    shared = Dense(3, "relu")
    both = Concatenate()([shared(a), shared(b)])
    model = Model({"a": a, "b": b}, [Dense(1, "sigmoid", name="p")(both), Dense(2, name="q")(both)])
    model.compile("rmsprop", {"p": "bce", "q": "mse"}, {"p": ["accuracy"]}, loss_weights={"q": 0.5})
    x, y = {"a": data[0], "b": -data[0]}, [data[1], np.repeat(data[1], 2, 1)]
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.input_names == ["a", "b"]
    assert loaded.output_names == ["p", "q"]
    assert len(loaded.layers) == len(model.layers)  # the shared one is one
    for each in (model, loaded):
        each.fit(x, y, epochs=1, verbose=0)
    assert sames(model, loaded)


def test_a_graph_is_made_again_of_its_config():
    model = graph()
    clone = Model.from_config(model.get_config())
    clone.set_weights(model.get_weights())
    x = torch.randn(3, 5)
    torch.testing.assert_close(clone(x), model(x))


@pytest.mark.parametrize("name", ["own layer", "own model", "function"])
def test_what_is_ones_own_is_found_in_custom_objects_alone(name, data, tmp_path):
    model = MODELS[name]()
    model.compile("sgd", own_loss)
    model.fit(*data, verbose=0)
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match=r"nobody knows .*: pass custom_objects=\{"):
        load_model(tmp_path / "m")
    assert load_model(tmp_path / "m", OWN).loss is not None
    with utils.custom_object_scope(OWN):
        load_model(tmp_path / "m")


def test_keras_names_are_there_too():
    assert saving.load_model is load_model
    assert saving.register_keras_serializable is utils.register_keras_serializable


def test_what_is_registered_is_found(data, tmp_path, monkeypatch):
    from torchnn import _config

    monkeypatch.setattr(_config, "registered", {})
    register = utils.register_keras_serializable(package="mine")
    model = MODELS["own model"]()
    model.compile("sgd", own_loss)
    model.fit(*data, verbose=0)
    model.save(tmp_path / "m")
    assert register(OwnModel) is OwnModel
    register(own_loss)
    assert utils.get_custom_objects().pop("mine>OwnModel") is OwnModel
    assert utils.get_custom_objects().pop("mine>own_loss") is own_loss
    assert sames(load_model(tmp_path / "m"), model)
    assert utils.get_custom_objects() == {"OwnModel": OwnModel, "own_loss": own_loss}


def test_what_no_name_tells_is_said_when_it_is_saved(tmp_path):
    model = Sequential([Input((5,)), Dense(1)])
    model.compile("sgd", lambda y_true, y_pred: ((y_true - y_pred) ** 2).mean())
    with pytest.warns(UserWarning, match="how to train the model.*'loss'.* is a lambda"):
        model.save(tmp_path / "m")
    assert load_model(tmp_path / "m").optimizer is None
    with pytest.raises(TypeError, match="is a lambda, which has no name"):
        Sequential([Lambda(lambda x: x), Dense(1)]).save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_metric_that_no_name_tells_is_left_out_alone(data, tmp_path):
    model = MODELS["course"]()
    model.compile("adam", "bce", metrics=["accuracy", lambda y, a: (y - a).abs().mean()])
    model.fit(*data, verbose=0)
    with pytest.warns(UserWarning, match="the file will lack a metric: metrics is a lambda"):
        model.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.metrics_names == ["loss", "accuracy"]
    assert loaded.epochs_trained == 1


def test_tensors_among_the_settings_of_pytorchs_losses_come_back(data, tmp_path):
    model = Sequential([Input((5,)), Dense(1)])
    model.compile("sgd", nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0])))
    model.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.loss.function.pos_weight.tolist() == [3.0]
    loaded.fit(*data, verbose=0)


def test_an_optimizer_of_pytorchs_that_has_taken_no_step_can_be_saved(data, tmp_path):
    model = Sequential([Input((5,)), Dense(1, "sigmoid")])
    model.compile(torch.optim.Adam, "bce")
    model.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    for each in (model, loaded):
        each.fit(*data, shuffle=False, verbose=0)
    assert sames(model, loaded)


def test_frozen_and_tied_parameters_stay_so(tmp_path):
    model = Sequential([Input((5,)), Dense(5), Dense(5), Dense(1)])
    model.layers[1].weight = model.layers[0].weight
    model.layers[2].trainable = False
    model.layers[0].bias.requires_grad = False
    model.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.layers[1].weight is loaded.layers[0].weight
    frozen = [name for name, each in loaded.named_parameters() if not each.requires_grad]
    assert frozen == ["0.bias", "2.weight", "2.bias"]


def test_a_model_that_is_not_built_or_not_compiled_can_be_saved(tmp_path):
    Sequential([Dense(3), Dense(1)]).save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert not loaded.built
    assert loaded.optimizer is None
    with pytest.raises(ValueError, match="the model has no weights yet"):
        loaded.save_weights(tmp_path / "w")


def test_compile_and_the_optimizer_can_be_left_out(data, tmp_path):
    model = MODELS["course"]()
    model.compile("adam", "bce")
    model.fit(*data, verbose=0)
    model.save(tmp_path / "m")
    assert load_model(tmp_path / "m", compile=False).optimizer is None
    save_model(model, tmp_path / "m", include_optimizer=False)
    assert load_model(tmp_path / "m").optimizer is None


def test_weights_are_a_state_dict_for_any_program(data, tmp_path):
    model = MODELS["course"]()
    model.build((None, 5))
    model.save_weights(tmp_path / "w.weights.h5")
    for name, tensor in load_file(tmp_path / "w.weights.h5").items():
        assert torch.equal(tensor, model.state_dict()[name])
    other = MODELS["course"]()
    other.load_weights(tmp_path / "w.weights.h5")  # builds it
    assert sames(model, other)
    plain = nn.Sequential(nn.Linear(5, 25), nn.Linear(25, 1))
    save_file(plain.state_dict(), tmp_path / "plain")
    other.load_weights(tmp_path / "plain")
    assert torch.equal(other.layers[0].weight, plain[0].weight)
    model.compile("adam", "bce")
    model.fit(*data, verbose=0)
    model.save(tmp_path / "m")
    other.load_weights(tmp_path / "m")
    assert sames(model, other)


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    Sequential([Input((5,)), Dense(4), Dense(2)]).save_weights(tmp_path / "w")
    model = Sequential([Input((5,)), Dense(4), Dense(3), Dense(1)])
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"it lacks 2.weight, 2.bias; 1.weight has shape \(2, 4\)"):
        model.load_weights(tmp_path / "w")
    assert all(map(np.array_equal, before, model.get_weights()))
    with pytest.warns(UserWarning, match="weights are left out: it lacks 2.weight"):
        model.load_weights(tmp_path / "w", skip_mismatch=True)
    assert torch.equal(model[0].weight, load_file(tmp_path / "w")["0.weight"])
    assert np.array_equal(model.get_weights()[2], before[2])
    model.save_weights(tmp_path / "w")
    smaller = Sequential([Input((5,)), Dense(4), Dense(3)])
    with pytest.raises(ValueError, match=r"it has 2\.bias, 2\.weight, which the model lacks"):
        smaller.load_weights(tmp_path / "w")


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (3, TypeError, "path must be a string or a path, got 3"),
        ("", ValueError, "path must not be empty"),
        ("missing/m", FileNotFoundError, "in a folder that is not there"),
        (".", IsADirectoryError, "path must be a file, got the folder"),
    ],
)
def test_a_bad_path_is_an_error(path, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = Sequential([Input((2,)), Dense(1)])
    for save in (model.save, model.save_weights):
        with pytest.raises(error, match=message):
            save(path)
    assert os.listdir(tmp_path) == []
    with pytest.raises((error, IsADirectoryError)):
        load_model(path)


def test_a_file_that_is_there_is_replaced_only_if_it_may_be(tmp_path):
    model = Sequential([Input((2,)), Dense(1)])
    (tmp_path / "m").write_text("mine")
    with pytest.raises(FileExistsError, match="there already, and overwrite is False"):
        model.save(tmp_path / "m", overwrite=False)
    assert (tmp_path / "m").read_text() == "mine"
    os.symlink(tmp_path / "m", tmp_path / "link")
    model.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert sames(load_model(tmp_path / "m"), model)


def test_a_file_keeps_its_permissions(tmp_path):
    model = Sequential([Input((2,)), Dense(1)])
    model.save(tmp_path / "m")
    os.chmod(tmp_path / "m", 0o600)
    model.save(tmp_path / "m")
    assert os.stat(tmp_path / "m").st_mode & 0o777 == 0o600


def test_threads_may_write_one_file(tmp_path):
    models = [Sequential([Input((3,)), Dense(units)]) for units in (4, 4000)]
    errors = []

    def write(model):
        try:
            for _ in range(40):
                model.save(tmp_path / "m")
        except Exception as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(model,)) for model in models * 2]
    models[0].save(tmp_path / "m")
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert load_model(tmp_path / "m").layers[0].units in (4, 4000)
    assert errors == []
    assert os.listdir(tmp_path) == ["m"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    model = Sequential([Input((200,)), Dense(100)])
    model.save(tmp_path / "m")
    old = (tmp_path / "m").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            model.save(tmp_path / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert error.value.filename == str(tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == old
    assert os.listdir(tmp_path) == ["m"]


WRITER = """
import sys, torch
from torchnn._files import storage
number = 0
print("ready", flush=True)
while True:
    number += 1
    storage.write(sys.argv[1], {"w": torch.full((200_000,), float(number))}, number)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path, seen = tmp_path / "m", set()
    for delay in (0.01, 0.05, 0.1):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
        writer.stdout.readline()
        while not path.exists():
            pass
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(delay)
        writer.kill()
        writer.communicate()
        tensors, number = storage.read(path)
        assert tensors["w"].unique().tolist() == [number]
        seen.add(number)
    assert seen
    storage.remove(path)
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a file."""
    model = Sequential([Input((3,)), Dense(2, "relu"), Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((4, 3)), np.ones(4), verbose=0)
    path = tmp_path_factory.mktemp("whole") / "m"
    model.save(path)
    return path.read_bytes()


def rewritten(whole, change):
    """The bytes of a file whose text has been changed."""
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])
    text = json.loads(header["__metadata__"]["torchnn"])
    text = change(text) or text
    header["__metadata__"]["torchnn"] = json.dumps(text)
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + whole[8 + size :]


def layers(text):
    return text["model"]["config"]["layers"]


def named(text, place, **changes):
    layers(text)[0][place] = changes


HOSTILE = {
    "another class": (
        lambda t: layers(t)[0].update(module="subprocess", class_name="Popen"),
        "nobody knows the class 'Popen' of subprocess",
    ),
    "a function": (
        lambda t: layers(t)[0]["config"].update(activation={"$": "function", "name": "system"}),
        "nobody knows 'system'",
    ),
    "a function of PyTorch that reads files": (
        lambda t: layers(t)[0]["config"].update(
            activation={"$": "function", "module": "torch", "name": "load"}
        ),
        "nobody knows 'load'",
    ),
    "a huge layer": (lambda t: layers(t)[1]["config"].update(units=10**12), "much larger model"),
    "a huge sample": (lambda t: t["shapes"].update(input=[10**12]), "for samples of shape"),
    "many layers": (lambda t: layers(t).extend([layers(t)[0]] * 200), "layer names must differ"),
    "other units": (lambda t: layers(t)[1]["config"].update(units=3), r"has shape \(1, 2\)"),
    "a wrong unit": (lambda t: layers(t)[1]["config"].update(units="x"), "units must be"),
    "a string for a list": (
        lambda t: t["model"]["config"].update(layers="abc"),
        "cannot be loaded",
    ),
    "no model": (
        lambda t: t.update(
            model={"module": "torchnn.layers", "class_name": "Dense", "config": {"units": 1}}
        ),
        "which is no model",
    ),
    "nothing": (lambda t: ["nothing"], "was not written by save"),
    "a later format": (lambda t: t.update(format=2), "its format is 2"),
    "no shapes": (lambda t: t.pop("shapes") and None, "KeyError"),
    "a deep value": (
        lambda t: t.update(model=eval("[" * 90 + "]" * 90)),
        "which is no model",
    ),
    "a missing tensor": (
        lambda t: t["history"].update(epoch={"$": "tensor", "key": "none"}),
        "KeyError",
    ),
    "a negative step": (lambda t: t["optimizer"].update(iterations=-1), "iterations must be"),
    "an unknown kind": (lambda t: t.update(extra={"$": "spell"}), "unknown kind 'spell'"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_a_clear_error(name, whole, tmp_path):
    change, message = HOSTILE[name]
    (tmp_path / "m").write_bytes(rewritten(whole, change))
    with pytest.raises(ValueError, match=f"m' .*{message}"):
        load_model(tmp_path / "m")


def test_a_deep_text_is_a_clear_error(whole, tmp_path):
    header = {"__metadata__": {"torchnn": "[" * 100_000}}
    head = json.dumps(header).encode()
    (tmp_path / "m").write_bytes(struct.pack("<Q", len(head)) + head)
    with pytest.raises(ValueError, match="is damaged"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_a_clear_error(size, whole, tmp_path):
    (tmp_path / "m").write_bytes(whole[:size])
    for read in (load_model, Sequential([Dense(2)]).load_weights):
        with pytest.raises(ValueError, match="m' is damaged, or was not written by save"):
            read(tmp_path / "m")


def test_weights_alone_are_no_model(tmp_path):
    Sequential([Input((2,)), Dense(1)]).save_weights(tmp_path / "w")
    with pytest.raises(ValueError, match="holds weights alone: make the model"):
        load_model(tmp_path / "w")
    torch.save({"w": torch.ones(1)}, tmp_path / "t.pt")
    with pytest.raises(ValueError, match=r"none of Keras 3's \(torch.load reads PyTorch's\)"):
        load_model(tmp_path / "t.pt")


VALUES = [
    *(None, True, 3, 0.1, "text", [1, [2]], (1, (2,)), {"a": 1}, {1: "a", (2, 3): [4]}),
    *({"$": 1}, {}, math.inf, np.float64(0.5), np.int64(3), slice(1, None, 2), ..., torch.float64),
    *(torch.relu, F.gelu, torch.Tensor.reshape, torch.optim.SGD),
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_values_come_back_as_they_were(value):
    text = json.loads(json.dumps(tree.encode(value, {}, "/v"), allow_nan=False))
    found = tree.decode(text, {}, {})
    assert found == value
    assert type(found) is type(value) or isinstance(value, np.generic)


def test_tensors_arrays_and_functions_come_back():
    value = {"t": torch.arange(3), "a": np.ones(2), "p": partial(own_loss, y_true=1), "n": math.nan}
    tensors: dict = {}
    found = tree.decode(tree.encode(value, tensors, "/v"), tensors, {"own_loss": own_loss})
    assert torch.equal(found["t"], value["t"])
    assert np.array_equal(found["a"], value["a"])
    assert (found["p"].func, found["p"].keywords) == (own_loss, {"y_true": 1})
    assert math.isnan(found["n"])
    with pytest.raises(TypeError, match=r"v\['x'\]\[1\] is an object, which a file cannot hold"):
        tree.encode({"x": [1, object()]}, {}, "/v")


SERVER = """
import sys
sys.modules["torchnn"] = None  # whoever serves has it not
import numpy as np, torch
from safetensors.torch import load_file
from torch import nn
x = torch.from_numpy(np.load("x.npy"))
plain = nn.Sequential(nn.Linear(5, 25), nn.Linear(25, 1))
weights = load_file("m.keras")
plain.load_state_dict({name: each for name, each in weights.items() if name[0] != "/"})
exported = torch.export.load("m.pt2").module()
with torch.no_grad():
    np.save("plain.npy", torch.sigmoid(plain[1](torch.sigmoid(plain[0](x)))))
    np.save("exported.npy", exported(x))
"""


def test_a_model_serves_where_torchnn_is_not(data, tmp_path):
    model = MODELS["course"]()
    model.compile("adam", "bce")
    model.fit(*data, verbose=0)
    model.save(tmp_path / "m.keras")
    model.export(tmp_path / "m.pt2")
    np.save(tmp_path / "x.npy", data[0])
    ran = subprocess.run(
        [sys.executable, "-c", SERVER], cwd=tmp_path, text=True, capture_output=True
    )
    assert ran.returncode == 0, ran.stderr
    for name in ("plain", "exported"):
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), model.predict(data[0]), 1e-5)


def test_onnx_computes_the_same(data, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    for name in ("course", "graph"):
        model = MODELS[name]()
        model.compile("adam", "bce")
        model.fit(*data, verbose=0)
        model.export(tmp_path / "m.onnx")
        session = runtime.InferenceSession(tmp_path / "m.onnx")
        for rows in (1, ROWS):
            x = data[0][:rows]
            (found,) = session.run(None, {session.get_inputs()[0].name: x})
            np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


def test_bad_exports_are_errors(tmp_path):
    model = Sequential([Dense(1)])
    with pytest.raises(ValueError, match="the model has no weights yet"):
        model.export(tmp_path / "m.pt2")
    model.build((None, 2))
    with pytest.raises(ValueError, match="format must be one of onnx, pt2, got 'tf_saved_model'"):
        model.export(tmp_path / "m", format="tf_saved_model")


def test_losses_and_metrics_keep_their_settings(data, tmp_path):
    model = MODELS["course"]()
    model.compile(
        "adam",
        losses.BinaryCrossentropy(label_smoothing=0.1),
        [metrics.AUC(num_thresholds=50, name="area")],
        weighted_metrics=["accuracy"],
    )
    model.fit(*data, verbose=0)
    model.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.loss.label_smoothing == 0.1
    assert loaded.metrics_names == ["loss", "area", "accuracy"]
    assert loaded.evaluate(*data, verbose=0) == model.evaluate(*data, verbose=0)
