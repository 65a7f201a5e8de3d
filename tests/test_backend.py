"""Keras's backend functions: the default dtype, and constants."""

import gc
import weakref

import numpy as np
import pytest
import torch

from torchnn import Input, Sequential, backend
from torchnn.layers import Dense


@pytest.fixture(autouse=True)
def default_dtype():
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("value", ["float64", torch.float64])
def test_layers_made_after_set_floatx_are_of_that_dtype(value):
    before = Dense(2, in_features=3)
    backend.set_floatx(value)
    model = Sequential([Input((3,)), Dense(2)])
    assert backend.floatx() == "float64"
    assert before.weight.dtype == torch.float32
    assert model.get_weights()[0].dtype == np.float64
    assert model.predict(np.ones((1, 3)), verbose=0).dtype == np.float64


def test_floatx_is_the_default_dtype_of_pytorch():
    torch.set_default_dtype(torch.bfloat16)
    assert backend.floatx() == "bfloat16"
    backend.set_floatx("float32")
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("value", ["float", "int32", torch.int64, 32, None])
def test_floatx_must_be_a_floating_dtype(value):
    with pytest.raises(ValueError, match="value must be one of float16, bfloat16, float32, float6"):
        backend.set_floatx(value)
    assert backend.floatx() == "float32"


def test_constants_are_those_of_keras():
    assert (backend.backend(), backend.epsilon()) == ("torch", 1e-7)


def test_clear_session_frees_what_refers_to_itself():
    model = Sequential([Dense(1)])
    model.itself = [model]
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        backend.clear_session(free_memory=False)
        assert gone() is not None
        backend.clear_session()
        assert gone() is None
    finally:
        gc.enable()
