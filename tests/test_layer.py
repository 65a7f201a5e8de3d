"""torchnn.layers._base: the name and the repr that all layers share."""

import pytest
import torch

from torchnn.layers import Dense, Dropout
from torchnn.layers._base import Layer


class Scale(Layer):
    def __init__(self, factor, offset=None, name=None, **options):
        super().__init__(name, **options)
        self.factor, self.offset = factor, offset

    def extra_repr(self):
        return self._repr(self.factor, offset=self.offset)


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (Layer(), "Layer()"),
        (Layer("a"), "Layer()"),
        (Scale(2), "Scale(2)"),
        (Scale(None, offset="b", name="a"), "Scale(None, offset='b', name='a')"),
    ],
)
def test_repr_reads_like_the_call(layer, wanted):
    assert repr(layer) == wanted


@pytest.mark.parametrize("name", ["", 3, ["a"]])
def test_a_name_is_a_string(name):
    with pytest.raises(TypeError, match=r"^name must be a string with something in it, got "):
        Layer(name)


def test_messages_call_a_layer_by_its_name_or_its_kind():
    assert Scale(2, name="first")._called() == "layer 'first'"
    assert Scale(2)._called() == "this Scale layer"


def test_unknown_arguments_are_told_with_those_that_are_known():
    with pytest.raises(
        TypeError, match=r"^Scale got unknown seed; it takes factor, offset, name, tr"
    ):
        Scale(1, seed=3)
    message = r"^Dropout got unknown sed; it takes rate, .*name, trainable, input_shape, input_dim$"
    with pytest.raises(TypeError, match=message):
        Dropout(0.5, sed=1)


def test_attributes_are_set_as_on_any_module():
    layer = Dense(2, in_features=3)
    layer.register_buffer("seen", torch.zeros(1))
    layer.note, layer.bias, layer.seen = "mine", None, None
    assert vars(layer)["note"] == "mine"
    assert layer._parameters["bias"] is None
    assert layer._buffers["seen"] is None
    with pytest.raises(TypeError, match="cannot assign 'float' as parameter 'weight'"):
        layer.weight = 1.0


def test_a_class_behind_nn_module_is_told_of_attributes():
    class Logged:
        def __setattr__(self, name, value):
            vars(self).setdefault("log", []).append(name)
            super().__setattr__(name, value)

    class Both(Dense, Logged):
        pass

    layer = Both(2)
    layer.note = 1
    assert layer.log[-1] == "note"
    assert "units" in layer.log
    assert layer.note == 1


def test_another_base_class_is_told_of_attributes():
    class Watching(torch.nn.Module):
        def __setattr__(self, name, value):
            vars(self).setdefault("log", []).append(name)
            super().__setattr__(name, value)

    class Both(Layer, Watching):
        pass

    layer = Both("a")
    layer.note = 1
    assert layer.log[-1] == "note"
    assert "name" in layer.log
