"""torchnn.layers._base: the name and the repr that all layers share."""

import pytest

from torchnn.layers import Dropout
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
