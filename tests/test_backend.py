"""Keras's backend functions: the default dtype, and constants."""

import gc
import math
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


def test_losses_and_metrics_of_older_programs():
    def f1(y_true, y_pred):
        hits = backend.sum(backend.round(backend.clip(y_true * y_pred, 0, 1)))
        found = backend.sum(backend.round(backend.clip(y_pred, 0, 1)))
        wanted = backend.sum(backend.cast(backend.greater(y_true, 0.5), "float32"))
        precision, recall = hits / (found + backend.epsilon()), hits / (wanted + backend.epsilon())
        return 2 * precision * recall / (precision + recall + backend.epsilon())

    def rmse(y_true, y_pred):
        return backend.sqrt(backend.mean(backend.square(y_pred - y_true)))

    y, p = torch.tensor([[1.0], [1.0], [0.0], [0.0]]), torch.tensor([[0.9], [0.2], [0.8], [0.1]])
    assert f1(y, p).item() == pytest.approx(0.5, rel=1e-5)
    assert rmse(y, p.requires_grad_()).item() == pytest.approx(math.sqrt(1.3 / 4), rel=1e-5)
    rmse(y, p).backward()
    assert p.grad is not None


@pytest.mark.parametrize("name", ["mean", "sum", "max", "min"])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_functions_over_axes_are_numpys(name, axis, keepdims):
    x = np.arange(24.0).reshape(2, 3, 4) % 7
    found = getattr(backend, name)(x, axis=axis, keepdims=keepdims)
    np.testing.assert_allclose(found, getattr(np, name)(x, axis=axis, keepdims=keepdims))


def test_functions_of_each_number_are_numpys():
    x, y = np.array([0.3, 1.6, 4.0]), np.array([1.0, 1.6, 2.0])
    for name in ("abs", "exp", "log", "round", "sqrt", "square"):
        np.testing.assert_allclose(getattr(backend, name)(x), getattr(np, name)(x))
    for name in ("maximum", "minimum", "equal", "greater", "less"):
        np.testing.assert_array_equal(getattr(backend, name)(x, y), getattr(np, name)(x, y))
    assert backend.flatten(np.ones((2, 3))).shape == (6,)
    with pytest.raises(AttributeError, match=r"has no attribute 'conv2d': PyTorch's functions"):
        _ = backend.conv2d
