"""get_config and from_config: what a thing was made with, in Keras's words."""

import inspect
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import torchnn
from torchnn import (
    _config,
    activations,
    constraints,
    initializers,
    losses,
    metrics,
    optimizers,
    regularizers,
)
from torchnn.layers import Activation, Dense, Dropout, Layer, Normalization, Rescaling
from torchnn.losses import BinaryCrossentropy, FunctionLoss, TorchLoss
from torchnn.model import Model
from torchnn.optimizers import SGD, Adam, TorchOptimizer, schedules
from torchnn.sequential import Sequential

# Values of the arguments that have no default.
REQUIRED = {
    "activation": "tanh",
    "axes": 1,
    "boundaries": [10, 20],
    "decay_rate": 0.5,
    "decay_steps": 10,
    "fn": nn.functional.l1_loss,
    "function": nn.functional.l1_loss,
    "initial_learning_rate": 0.1,
    "loss": torchnn.losses.MeanSquaredError(),
    "optimizer": torch.optim.AdamW,
    "rate": 0.25,
    "scale": 2.0,
    "shape": (3,),
    "stddev": 0.5,
    "target_shape": (3,),
    "units": 3,
    "values": [0.1, 0.01, 0.001],
}
# It holds an object of another library, which tells no arguments.
WITHOUT = {"TorchAccumulator", "Loss"}  # and this one is no loss yet
MODULES = [*filter(inspect.ismodule, vars(torchnn).values()), schedules]
CLASSES = {
    cls
    for module in MODULES
    for cls in filter(inspect.isclass, vars(module).values())
    if hasattr(cls, "get_config") and not inspect.isabstract(cls) and cls.__name__ not in WITHOUT
}


def made(cls):
    parameters = inspect.signature(cls).parameters.values()
    own = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = [p.name for p in own if p.default is p.empty]
    needed += ["shape"] * (cls.__name__ in ("Input", "InputLayer"))  # which also have other ways
    return cls(**{name: REQUIRED[name] for name in needed})


@pytest.mark.parametrize("cls", sorted(CLASSES, key=lambda cls: (cls.__name__, cls.__module__)))
def test_every_class_is_made_again_of_its_config(cls):
    thing = made(cls)
    config = thing.get_config()
    other = cls.from_config(config)
    assert type(other) is cls
    assert other.get_config() == config
    assert set(REQUIRED) & set(inspect.signature(cls).parameters) <= set(config)


# What Keras calls them, with the values that were given.
KERAS = [
    (
        Dense(2, torch.relu, use_bias=False, name="head", kernel_initializer="he_normal"),
        {
            "name": "head",
            "trainable": True,
            "units": 2,
            "activation": "relu",
            "use_bias": False,
            "kernel_initializer": {
                "module": "torchnn.initializers",
                "class_name": "HeNormal",
                "config": {"seed": None},
            },
            "dtype": "float32",
        },
    ),
    (Dense(2, nn.Sigmoid(), dtype=torch.float64), {"activation": "sigmoid", "dtype": "float64"}),
    (Dense(2), {"activation": "linear", "use_bias": True}),
    (Activation("swish"), {"activation": "silu"}),
    (Dropout(0.5), {"rate": 0.5}),
    (Rescaling(np.array([2, 4])), {"scale": [2.0, 4.0], "offset": 0.0}),
    (Normalization(), {"axis": -1, "mean": None, "variance": None}),
    (Normalization((1, 2), [[1]], [[4]]), {"axis": (1, 2), "mean": [[1.0]], "variance": [[4.0]]}),
    (
        BinaryCrossentropy(from_logits=True, label_smoothing=np.float64(0.1)),
        {
            "from_logits": True,
            "label_smoothing": 0.1,
            "axis": -1,
            "reduction": "sum_over_batch_size",
            "name": "binary_crossentropy",
        },
    ),
    (
        Adam(beta_1=0.8),
        {"learning_rate": 0.001, "beta_1": 0.8, "beta_2": 0.999, "epsilon": 1e-7},
    ),
    (
        SGD(schedules.ExponentialDecay(0.1, 10, 0.9), nesterov=True, momentum=0.9),
        {
            "learning_rate": {
                "module": "torchnn.optimizers.schedules",
                "class_name": "ExponentialDecay",
                "config": {
                    "initial_learning_rate": 0.1,
                    "decay_steps": 10,
                    "decay_rate": 0.9,
                    "staircase": False,
                    "name": None,
                },
            },
            "momentum": 0.9,
            "nesterov": True,
        },
    ),
]


@pytest.mark.parametrize(("thing", "expected"), KERAS, ids=lambda each: type(each).__name__)
def test_a_config_has_the_names_and_values_of_keras(thing, expected):
    config = thing.get_config()
    assert {name: config[name] for name in expected} == expected
    text = json.loads(json.dumps(config))
    assert json.loads(json.dumps(type(thing).from_config(text).get_config())) == text


def test_a_config_tells_what_was_assigned_since():
    optimizer, dense = SGD(), Dense(2, in_features=3)
    optimizer.learning_rate, optimizer.momentum = 0.5, 0.9
    dense.activation, dense.trainable = "tanh", False
    assert SGD.from_config(optimizer.get_config()).momentum == 0.9
    assert optimizer.get_config()["learning_rate"] == 0.5
    other = Dense.from_config(dense.get_config())
    assert (other.activation, other.trainable, other.built) == ("tanh", False, False)


def test_a_layer_that_learns_in_part_is_trainable():
    dense = Dense(2, in_features=3)
    dense.bias.requires_grad = False
    assert dense.get_config()["trainable"] is True


def test_a_layer_made_of_a_config_draws_its_own_first_values():
    dense = Dense(4, in_features=3)
    other = Dense.from_config(dense.get_config())
    other.build(3)
    assert not torch.equal(other.weight, dense.weight)


class Scaled(Dense):
    """Passes what it does not know on, as layers for Keras do."""

    def __init__(self, units, factor=2.0, inner=None, **others):
        super().__init__(units, **others)
        self.factor, self.inner = factor, inner


def test_arguments_of_a_subclass_are_told_with_those_that_it_passes_on():
    layer = Scaled(3, factor=5.0, activation="relu", inner=Dense(2), name="mine")
    config = layer.get_config()
    assert (config["factor"], config["activation"], config["name"]) == (5.0, "relu", "mine")
    other = Scaled.from_config(json.loads(json.dumps(config)))
    assert (other.units, other.factor, other.inner.units) == (3, 5.0, 2)


def test_a_config_that_a_subclass_extends_itself_is_followed():
    class Mine(Layer):
        def __init__(self, rank, **others):
            super().__init__(**others)
            self.size = rank

        def get_config(self):
            return {"name": self.name, "rank": self.size}

    other = Mine.from_config(Mine(3, name="mine").get_config())
    assert (other.size, other.name) == (3, "mine")


def test_an_argument_that_is_not_kept_is_told():
    class Forgetful(Layer):
        def __init__(self, rank):
            super().__init__()

    with pytest.raises(TypeError, match=r"Forgetful keeps no attribute 'rank'.*set self\.rank"):
        Forgetful(3).get_config()


def test_functions_and_modules_of_ones_own_stay_what_they_are():
    def double(z):
        return 2 * z

    for activation in (double, nn.functional.hardtanh):
        config = Dense(2, activation).get_config()
        assert config["activation"] is activation
        assert Dense.from_config(config).activation is activation
    loss = FunctionLoss.from_config(FunctionLoss(double, name="twice").get_config())
    assert (loss.function, loss.name) == (double, "twice")


class Scale:
    """What knows nothing of torchnn but how to tell and to take a config."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, weight):
        return weight.mul_(self.factor)

    def get_config(self):
        return {"factor": self.factor}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def test_what_tells_a_config_of_its_own_is_made_again_of_it():
    config = json.loads(json.dumps(Dense(2, kernel_initializer=Scale(3)).get_config()))
    initializer = Dense.from_config(config).kernel_initializer
    assert (type(initializer), initializer.factor) == (Scale, 3)


def test_a_layer_that_takes_trainable_gets_it():
    class Mine(Layer):
        def __init__(self, trainable=True, **others):
            super().__init__(**others)
            self.given = trainable

    assert Mine.from_config({"trainable": False}).given is False
    assert Dense.from_config({"units": 1, "trainable": False}).trainable is False


def test_a_module_of_pytorch_tells_its_arguments_too():
    config = _config.plain(nn.Linear(3, 2, bias=False, dtype=torch.float64))
    assert config["config"] == {
        "in_features": 3,
        "out_features": 2,
        "bias": False,
        "dtype": "float64",
    }
    module = _config.found(json.loads(json.dumps(config)))
    assert (module.in_features, module.bias, module.weight.dtype) == (3, None, torch.float64)
    loss = TorchLoss.from_config(TorchLoss(nn.MSELoss(reduction="sum")).get_config())
    assert loss.function.reduction == "sum"  # size_average and reduce are left out
    activation = Dense.from_config(Dense(2, nn.PReLU(4)).get_config()).activation
    assert isinstance(activation, nn.PReLU)
    assert activation.num_parameters == 4


def test_custom_objects_name_classes_that_their_modules_do_not():
    class Local(Layer):
        def forward(self, x):
            return x

    config = Sequential([Sequential([Local()])]).get_config()
    with pytest.raises(ValueError, match=r"has no class 'Local'.*pass custom_objects=\{'Local':"):
        Sequential.from_config(config)
    model = Sequential.from_config(config, custom_objects={"Local": Local})
    assert isinstance(model[0][0], Local)
    with pytest.raises(ValueError, match="has no class 'Local'"):
        Sequential.from_config(config)  # they are forgotten again


@pytest.mark.parametrize(
    "named",
    [{"module": "os", "class_name": "system"}, {"module": "subprocess", "class_name": "Popen"}],
)
def test_a_config_makes_layers_and_the_like_alone(named):
    with pytest.raises(ValueError, match=f"{named['module']} has no class"):
        Dense.from_config({"units": {**named, "config": {}}})


def test_a_torch_optimizer_is_told_by_what_makes_it():
    optimizer = TorchOptimizer(torch.optim.AdamW)
    assert TorchOptimizer.from_config(optimizer.get_config())._factory is torch.optim.AdamW
    held = TorchOptimizer(torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.5))
    made = held.get_config()["optimizer"]([torch.zeros(2)])
    assert (made.defaults["lr"], made.defaults["momentum"]) == (0.1, 0.5)

    class Mine(torch.optim.SGD):
        pass

    with pytest.raises(TypeError, match="has no config: give compile a function"):
        TorchOptimizer(Mine([torch.zeros(1)], lr=0.1)).get_config()


def test_a_model_of_ones_own_tells_its_arguments():
    class Mine(Model):
        def __init__(self, units=4):
            super().__init__()
            self.units = units

    assert Mine.from_config(Mine(7).get_config()).units == 7


def test_plain_values_are_plain_all_the_way():
    value = {"a": (np.int64(1), [np.float32(0.5)]), "b": torch.float16, "c": torch.ones(2)}
    assert _config.plain(value) == {"a": (1, [0.5]), "b": "float16", "c": [1.0, 1.0]}
    kept = SimpleNamespace()
    assert _config.plain(kept) is kept
    assert _config.plain(Dense) is Dense


SERIALIZED = [
    (activations, activations.relu, "relu"),
    (activations, activations.get(None), "linear"),
    (losses, losses.Huber(0.3), losses.Huber),
    (optimizers, optimizers.Adam(0.1), optimizers.Adam),
    (initializers, initializers.HeNormal(seed=3), initializers.HeNormal),
    (regularizers, regularizers.L2(0.1), regularizers.L2),
    (constraints, constraints.MaxNorm(3), constraints.MaxNorm),
    (metrics, metrics.AUC(num_thresholds=50), metrics.AUC),
]


@pytest.mark.parametrize(("module", "thing", "expected"), SERIALIZED, ids=range(len(SERIALIZED)))
def test_what_is_serialized_is_made_again(module, thing, expected):
    told = json.loads(json.dumps(module.serialize(thing)))
    made = module.deserialize(told)
    if isinstance(expected, str):
        assert (told, made) == (expected, thing)
    else:
        assert type(made) is expected
        assert module.serialize(made) == module.serialize(thing)


def test_a_name_and_a_function_of_ones_own_are_deserialized_too():
    def doubled(x):
        return 2 * x

    assert type(optimizers.deserialize("adam")) is optimizers.Adam
    assert activations.deserialize("doubled", {"doubled": doubled})(torch.ones(1)) == 2
    with pytest.raises(ValueError, match="unknown activation 'doubled'"):
        activations.deserialize("doubled")


@pytest.mark.parametrize("module", [{}, {"module": None}, {"module": "keras.optimizers"}])
def test_a_config_as_keras_writes_it_is_of_the_module_that_is_asked(module):
    config = {"class_name": "Adam", "config": {"learning_rate": 0.25}} | module
    assert optimizers.deserialize(config).learning_rate == 0.25
    with pytest.raises(ValueError, match=r"torchnn\.optimizers has no class 'Eve'"):
        optimizers.deserialize(config | {"class_name": "Eve"})
    with pytest.raises(
        ValueError, match="config must have the keys 'class_name' and 'config', got"
    ):
        optimizers.deserialize({"class_name": "Adam"} | module)
