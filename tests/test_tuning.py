"""Which way the products of large layers take, and that both come to the same."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from torchnn import ops, tuning

HOW = ("measured", "ours", "library")
SHAPES = [  # rows, in_features, units
    (64, 64, 64),
    (1, 700, 300),
    (300, 1, 700),
    (700, 300, 1),
    (129, 257, 65),
    (1000, 4, 64),
    (5, 999, 101),
]


@pytest.fixture(autouse=True)
def as_before():
    before = tuning.get_products()
    yield
    tuning.set_products(before)


def layer(shape, dtype=torch.float32, has_bias=True):
    torch.manual_seed(1)
    rows, in_features, units = shape
    x = torch.randn(rows, in_features, dtype=dtype)
    weight = torch.randn(units, in_features, dtype=dtype) / in_features**0.5
    bias = torch.randn(units, dtype=dtype) if has_bias else None
    return x, weight, bias


def gradient(out):
    return torch.rand(out.shape, generator=torch.Generator().manual_seed(2))


def results(x, weight, bias, activation="sigmoid"):
    inputs = [t.clone().requires_grad_() for t in (x, weight, bias) if t is not None]
    out = ops.dense(*inputs, activation=activation)
    return [out.detach(), *torch.autograd.grad(out, inputs, gradient(out).to(x.dtype))]


def exact(x, weight, bias):
    inputs = [t.double().requires_grad_() for t in (x, weight, bias) if t is not None]
    out = torch.sigmoid(F.linear(*inputs))
    return [out.detach(), *torch.autograd.grad(out, inputs, gradient(out).double())]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize("how", HOW)
def test_every_way_comes_to_the_same(how, shape, dtype, has_bias, threads):
    arguments = layer(shape, dtype, has_bias)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    tuning.set_products(how)
    try:
        found = results(*arguments)
    finally:
        torch.set_num_threads(before)
    for one, other in zip(found, exact(*arguments), strict=True):
        scale = other.abs().max()
        assert (one - other).abs().max() <= (1e-13 if dtype == torch.float64 else 3e-6) * scale


@pytest.mark.parametrize("how", HOW)
def test_inputs_may_lie_anywhere(how):
    tuning.set_products(how)
    x, weight, bias = layer((120, 200, 150))
    expected = exact(x, weight, bias)
    wide = torch.full((120, 333), torch.nan)
    wide[:, 17:217] = x
    for one in (wide[:, 17:217], x.T.contiguous().T, x.reshape(4, 30, 200)):
        found = results(one, weight.T.contiguous().T, bias)
        shaped = [found[0].reshape(120, 150), found[1].reshape(120, 200), *found[2:]]
        for a, b in zip(shaped, expected, strict=True):
            assert (a - b).abs().max() <= 3e-6 * b.abs().max()
    repeated = x[:1].expand(120, 200)
    again = ops.dense(repeated, weight, bias, "sigmoid")
    assert torch.allclose(again, ops.dense(repeated.contiguous(), weight, bias, "sigmoid"))


def test_the_first_product_of_a_size_is_timed_and_the_choice_is_kept():
    tuning.set_products("measured")
    arguments = layer((96, 1500, 88), torch.float64)
    first = [t.clone() for t in results(*arguments)]
    mine = [c for c in tuning.choices() if c.dtype == torch.float64 and 1500 in c.shape]
    assert {(c.product, c.shape) for c in mine} == {
        ("forward", (96, 88, 1500)),
        ("grad_x", (96, 1500, 88)),
        ("grad_weight", (88, 1500, 96)),
    }
    for choice in mine:
        assert choice.ours > 0
        assert choice.library > 0
        assert choice.taken == ("library" if choice.library < 0.97 * choice.ours else "ours")
        assert choice.threads == torch.get_num_threads()
        wholes = zip(choice.timed, choice.shape[:2], strict=True)
        assert all(0 < part <= whole for part, whole in wholes)
    count = len(tuning.choices())
    for near in (arguments, layer((100, 1400, 90), torch.float64)):  # of the same size
        results(*near)
    assert len(tuning.choices()) == count
    assert all(map(torch.equal, first, results(*arguments)))


def test_what_is_forced_is_taken_and_measures_nothing():
    arguments = layer((110, 1700, 77))
    count = len(tuning.choices())
    tuning.set_products("library")
    x, weight, _ = arguments
    by_library = ops.dense(x, weight)
    assert torch.equal(by_library, torch.mm(x, weight.T))
    tuning.set_products("ours")
    ours = results(*arguments)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = results(*arguments)
    torch.set_num_threads(before)
    assert all(map(torch.equal, ours, alone))
    assert len(tuning.choices()) == count


def test_small_products_are_not_timed():
    tuning.set_products("measured")
    count = len(tuning.choices())
    results(*layer((32, 150, 25)))
    assert len(tuning.choices()) == count


def test_another_way_is_an_error_and_changes_nothing():
    tuning.set_products("ours")
    with pytest.raises(ValueError, match="how must be"):
        tuning.set_products("blas")
    with pytest.raises(ValueError, match="how must be"):
        tuning.set_products(3)
    with pytest.raises(RuntimeError, match="how must be from 0 to 2, got 3"):
        torch.ops.torchnn.choose_ways(3)
    assert tuning.get_products() == "ours"


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((0, 2, 3), ValueError, "rows must be a positive integer"),
        ((1, 2.5, 3), TypeError, "in_features must be a positive integer"),
        ((1, 2, 3, torch.float16), ValueError, "dtype must be torch.float32 or torch.float64"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, kind, message):
    with pytest.raises(kind, match=message):
        tuning.measure(*arguments)


def run(*arguments, products=None):
    environment = {k: v for k, v in os.environ.items() if k != "TORCHNN_PRODUCTS"}
    if products is not None:
        environment["TORCHNN_PRODUCTS"] = products
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("how", ["ours", "library", "measured", ""])
def test_the_environment_says_how_at_first(how):
    code = "from torchnn import tuning; print(tuning.get_products())"
    assert run("-c", code, products=how).stdout.strip() == (how or "measured")


def test_an_unknown_way_in_the_environment_is_told_at_the_first_product():
    code = "import torch, torchnn; torchnn.ops.dense(torch.ones(99, 99), torch.ones(99, 99))"
    failed = run("-c", code, products="fastest")
    assert "TORCHNN_PRODUCTS must be measured, ours or library, got fastest" in failed.stderr


def test_the_table():
    shown = run("-m", "torchnn.tuning", "100x200x50", "--threads", "1", "--dtype", "float64")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert "Products: measured." in lines[0]
    for product in ("forward 100x50x200", "grad_x 100x200x50", "grad_weight 50x200x100"):
        words = [*product.split(), "float64"]
        assert any(all(word in line for word in words) for line in lines), product
    for wrong, message in ((["0x2x3"], "of positive numbers"), (["--threads", "0"], "a positive")):
        refused = run("-m", "torchnn.tuning", *wrong)
        assert refused.returncode == 2
        assert f"must be {message}" in refused.stderr
    wrong = run("-m", "torchnn.tuning", "100x200")
    assert wrong.returncode == 2
    assert "must be like 128x784x512" in wrong.stderr
