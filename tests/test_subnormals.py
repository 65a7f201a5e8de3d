"""Numbers below the smallest normal one are zeros in native calls, and nowhere else."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from torchnn import Sequential, ops
from torchnn.layers import Dense

TINY = 1e-40  # as float32: subnormal
SMALL = {torch.float32: 1e-40, torch.float64: 1e-310}


@pytest.fixture(params=[1, 2], ids=["1-thread", "2-threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def are_kept():
    """Whether this thread, and PyTorch's others, compute with subnormal numbers."""
    small = torch.full((1 << 20,), TINY)
    return bool((small * 1.0 != 0).all()) and np.float32(TINY) * np.float32(1) != 0


def network():
    return Sequential([Dense(25, "sigmoid", in_features=64), Dense(1, "sigmoid", in_features=25)])


def trained(epochs=30):
    torch.manual_seed(0)
    model = network()
    model.compile("sgd", "bce")
    x = np.random.default_rng(0).uniform(0, 255, (2000, 64)).astype("float32")
    model.fit(x, (x[:, :1] > 99).astype("float32"), epochs=epochs, verbose=0)
    return model, x


def test_the_modes_of_every_thread_are_put_back(threads):
    assert are_kept()
    model, x = trained()
    assert are_kept()
    model.predict(x, verbose=0)
    assert are_kept()
    inputs = [torch.randn(300, 400, requires_grad=True), torch.randn(200, 400, requires_grad=True)]
    torch.autograd.grad(ops.dense(*inputs, activation="sigmoid").sum(), inputs)
    assert are_kept()
    with pytest.raises(RuntimeError):  # the same where a call fails
        torch.ops.torchnn.dense_forward(inputs[0].detach(), torch.randn(3, 7), None, 0)
    assert are_kept()


FRESH = """
import torch, torchnn
from torchnn import ops
torch.set_num_threads(2)
{first}
small = torch.full((1 << 20,), 1e-40)
print(int((small * 1.0 == 0).sum()))
"""
FIRST = {  # with tensors so small that PyTorch has begun no thread for them
    "layer": "ops.dense(torch.ones(100, 300), torch.ones(100, 300))",
    "gradients": "x = torch.ones(100, 300, requires_grad=True); "
    "ops.dense(x, torch.ones(100, 300), None, 'sigmoid').sum().backward()",
    "training": "m = torchnn.Sequential([torchnn.layers.Dense(200, 'relu', in_features=30), "
    "torchnn.layers.Dense(1)]); m.compile('sgd', 'mse'); "
    "m.fit(torch.ones(999, 30), torch.ones(999, 1), epochs=9, batch_size=128, verbose=0)",
    "prediction": "m = torchnn.Sequential([torchnn.layers.Dense(200, 'relu', in_features=30)]); "
    "m.predict(torch.ones(1090, 30), batch_size=1090, verbose=0)",
}


@pytest.mark.parametrize(
    ("first", "how"),
    [*((first, "measured") for first in FIRST), ("training", "ours"), ("training", "library")],
)
def test_threads_that_begin_in_a_native_call_compute_with_subnormal_numbers(first, how):
    # A thread begins with the modes of whoever starts it: the first parallel work of a process.
    result = subprocess.run(
        [sys.executable, "-c", FRESH.format(first=FIRST[first])],
        capture_output=True,
        text=True,
        env={**os.environ, "TORCHNN_PRODUCTS": how, "OMP_NUM_THREADS": "2"},
    )
    assert result.stdout == "0\n", result.stderr


def test_who_flushes_goes_on_to(threads):
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU has no such mode")
    try:
        trained()
        assert (torch.full((16,), TINY) * 1.0 == 0).all()
    finally:
        torch.set_flush_denormal(False)
    assert are_kept()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [3, 600])
def test_they_are_zeros_in_a_layer(rows, dtype, threads):
    small = torch.full((rows, 70), SMALL[dtype], dtype=dtype)
    weight = torch.ones(40, 70, dtype=dtype)
    assert (small.sum(1) > 0).all()
    assert (ops.dense(small, weight) == 0).all()
    assert (ops.dense(weight, torch.full((40, 70), SMALL[dtype], dtype=dtype)) == 0).all()
    low = -1.25 if dtype == torch.float32 else -10.15  # e^-87.5, e^-710.5
    saturated = torch.full((rows, 70), low, dtype=dtype)
    out = ops.dense(saturated, weight, None, "sigmoid")
    assert (torch.exp(saturated.sum(1)) > 0).all()
    assert (out == 0).all()


def test_gradients_below_the_smallest_number_are_zeros(threads):
    x, weight = torch.ones(600, 70), torch.full((40, 70), 0.5)
    inputs = [x.requires_grad_(), weight.requires_grad_()]
    out = ops.dense(*inputs, activation="sigmoid")  # e^-35 from 1
    grads = torch.autograd.grad(out, inputs, torch.full((600, 40), 1e-36))
    assert all((grad == 0).all() for grad in grads)


def test_saturated_features_come_to_what_they_do_in_float64(threads):
    model, x = trained(epochs=2)
    expected = network()
    expected.set_weights(model.get_weights())
    expected.to(torch.float64)
    np.testing.assert_allclose(
        model.predict(x, verbose=0), expected.predict(x.astype("float64"), verbose=0), atol=1e-5
    )
