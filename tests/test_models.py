"""torchnn.models: the names that programs import, clones, and models as text."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import torchnn
from torchnn.layers import (
    BatchNormalization,
    Dense,
    Dropout,
    Input,
    Layer,
    LayerNormalization,
    Normalization,
    PReLU,
)
from torchnn.models import Model, Sequential, clone_model, model_from_json


def network(**options):
    return Sequential(
        [
            Input((3,)),
            Normalization(mean=[1, 2, 3], variance=[1, 4, 9]),
            Dense(4, "relu", kernel_initializer="he_normal", name="hidden", **options),
            Sequential([Dropout(0.5), Dense(2, use_bias=False, **options)]),
        ],
        name="net",
    )


def test_names_are_those_of_the_package():
    assert Sequential is torchnn.Sequential
    assert issubclass(Sequential, Model)


def test_a_clone_has_the_settings_and_first_values_of_its_own():
    model = network(dtype=torch.float64)
    model.compile("sgd", "mse")
    model.get_layer("hidden").trainable = False
    clone = clone_model(model)
    assert clone.get_config() == model.get_config()
    assert (clone.name, repr(clone), clone.optimizer) == ("net", repr(model), None)
    assert [p.requires_grad for p in clone.parameters()] == [False, False, True]
    before, after = model.get_weights(), clone.get_weights()
    assert [w.shape for w in after] == [w.shape for w in before]
    assert not np.array_equal(after[2], before[2])
    clone.set_weights(before)
    x = np.ones((5, 3))
    np.testing.assert_array_equal(clone.predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_clone_is_built_only_if_the_model_is():
    model = Sequential([Dense(2), Dense(1)])
    assert not clone_model(model).layers[0].built
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 5, 3)), np.ones((4, 5, 1)), verbose=0)
    clone = clone_model(model)
    assert clone.layers[1].built
    assert clone.predict(np.ones((4, 7, 3)), verbose=0).shape == (4, 7, 1)


def test_automatic_names_stay_automatic_in_clones():
    model = Sequential([Dense(2)])
    joined = Sequential([clone_model(model), clone_model(model)])
    assert [layer.name for layer in joined.layers] == ["sequential", "sequential_1"]


def test_modules_of_pytorch_are_copied_and_drawn_anew():
    linear = nn.Linear(3, 2)
    model = Sequential([linear, nn.Sequential(nn.ReLU(), nn.BatchNorm1d(2)), nn.PReLU()])
    with torch.no_grad():
        model[2].weight.fill_(7)
    clone = clone_model(model)
    assert clone[0].weight.shape == linear.weight.shape
    assert not torch.equal(clone[0].weight, linear.weight)
    assert clone[2].weight.item() == 0.25
    assert model[2].weight.item() == 7


def test_a_module_that_draws_no_first_values_cannot_be_cloned():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

    with pytest.raises(TypeError, match="a Scale new first values: it needs a method reset_param"):
        clone_model(Sequential([Scale()]))
    clone = clone_model(Sequential([Scale()]), clone_function=lambda layer: nn.Identity())
    assert isinstance(clone[0], nn.Identity)


def test_clone_function_makes_the_layers():
    def wider(layer):
        if not isinstance(layer, Dense):
            return type(layer).from_config(layer.get_config())
        return Dense.from_config({**layer.get_config(), "units": 2 * layer.units})

    clone = clone_model(network(), clone_function=wider)
    assert [w.shape for w in clone.get_weights()[2:]] == [(3, 8), (8,), (8, 4)]


def test_classes_of_ones_own_are_cloned_by_their_config():
    class Twice(Layer):
        def __init__(self, units):
            super().__init__()
            self.units = units
            self.inner = Dense(units)

        def forward(self, x):
            return self.inner(self.inner(x))

    class Net(Sequential):
        def __init__(self, units, **options):
            super().__init__([Twice(units), Dense(1)], **options)
            self.units = units

    model = Net(3, name="mine")
    model.build((None, 3))
    clone = clone_model(model)
    assert (type(clone), clone.name, clone.units) == (Net, "mine", 3)
    assert [w.shape for w in clone.get_weights()] == [w.shape for w in model.get_weights()]


def test_a_model_of_layers_that_its_class_does_not_make_is_copied():
    class Net(Model):
        def forward(self, x):
            return self.last(x)

    model = Net()
    model.last = Dense(1, in_features=3)
    model.compile("adam", "mse")
    model.fit(np.ones((4, 3)), np.ones(4), verbose=0)
    clone = clone_model(model)
    assert (type(clone), clone.optimizer, clone.history) == (Net, None, None)
    assert not torch.equal(clone.last.weight, model.last.weight)
    with pytest.raises(ValueError, match="clone_function must be None for a Net"):
        clone_model(model, clone_function=lambda layer: layer)
    with pytest.raises(TypeError, match="this Net has layers that its class does not make"):
        model.get_config()


@pytest.mark.parametrize("model", [nn.Linear(1, 1), Dense(1), "net", Sequential])
def test_clone_model_takes_a_model(model):
    with pytest.raises(TypeError, match="model must be a torchnn Model, got"):
        clone_model(model)


def test_a_model_is_made_again_of_its_text():
    model = network()
    other = model_from_json(model.to_json(indent=2))
    assert other.to_json() == model.to_json()
    assert [w.shape for w in other.get_weights()] == [w.shape for w in model.get_weights()]
    assert json.loads(model.to_json())["class_name"] == "Sequential"


def test_text_names_classes_of_ones_own_by_custom_objects():
    class Local(Layer):
        pass

    text = Sequential([Local()]).to_json()
    with pytest.raises(ValueError, match="no class 'Local'"):
        model_from_json(text)
    assert isinstance(model_from_json(text, custom_objects={"Local": Local})[0], Local)


def test_what_has_no_name_is_no_text():
    with pytest.raises(TypeError, match="function is not JSON serializable"):
        Sequential([Dense(1, lambda z: z)]).to_json()


def test_a_clone_of_a_graph_draws_layers_with_weights_anew():
    inputs = Input((8,))
    hidden = PReLU()(LayerNormalization()(BatchNormalization()(Dense(4)(inputs))))
    model = Model(inputs, Dense(1)(hidden))
    model.layers[2].weight.data += 1
    clone = clone_model(model)
    assert clone.layers[2].weight.tolist() == [1.0] * 4
    assert clone.output_shape == (None, 1)


def test_outputs_of_layers_are_symbols_whatever_is_asked_for_first():
    base = Sequential([Input((8,)), Dense(4), BatchNormalization(), Dense(1)])
    features = base.layers[-2].output
    assert Model(base.inputs, Dense(3)(features)).output_shape == (None, 3)
