"""torchnn.ops.dense against its definition: values, gradients, shapes, strides, dtypes, errors."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from torchnn import ops
from torchnn.ops import reference

ACTIVATIONS = [None, *ops.activations()]
# Tails and edges of the register tiles, and both sides of every crossover.
SHAPES = [  # rows, in_features, units
    (0, 5, 3),
    (1, 1, 1),
    (1, 4, 4),
    (3, 0, 2),
    (2, 7, 9),
    (5, 16, 17),
    (7, 33, 31),
    (32, 400, 25),
    (13, 65, 1),
    (1, 300, 260),
    (75, 300, 41),
    (80, 257, 270),
    (2, 600, 1030),
]


def layer(rows, in_features, units, dtype=torch.float32, device="cpu", bias=True):
    """Random arguments of dense, scaled so that no activation is saturated."""
    x = torch.randn(rows, in_features, dtype=torch.float64)
    weight = torch.randn(units, in_features, dtype=torch.float64) / max(in_features, 1) ** 0.5
    b = torch.randn(units, dtype=torch.float64) if bias else None
    return [t if t is None else t.to(device, dtype) for t in (x, weight, b)]


def poison(*shape, dtype=torch.float32, device="cpu"):
    """Fills memory that the next allocation of that size will likely get with NaN."""
    torch.full(shape, torch.nan, dtype=dtype, device=device)


def in_float64(x, weight, bias, activation):
    wide = [t if t is None else t.double() for t in (x, weight, bias)]
    return reference.dense(*wide, activation)


def error(value, exact):
    return (value.double() - exact).abs().max().item() if value.numel() else 0.0


def rounding(shape, dtype):
    """What the order of a sum may change, relative to the largest value or to 1."""
    return (8 + 2 * max(shape) ** 0.5) * torch.finfo(dtype).eps


def gradients(function, arguments, activation, grad_out):
    arguments = [None if t is None else t.detach().clone().requires_grad_() for t in arguments]
    wanted = [t for t in arguments if t is not None]
    return torch.autograd.grad(function(*arguments, activation), wanted, grad_out)


def assert_as_exact_as_eager(ours, eager, exact, slack):
    """No gradient or value may be more than twice as wrong as PyTorch's own, plus rounding."""
    for value, theirs, truth in zip(ours, eager, exact, strict=True):
        assert value.shape == truth.shape
        assert value.isfinite().all()
        scale = max(1.0, truth.abs().max().item()) if truth.numel() else 0.0
        assert error(value, truth) <= 2 * error(theirs, truth) + slack * scale


def test_reference_defines_every_activation():
    assert tuple(reference.ACTIVATIONS) == ops.activations()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_matches_reference(shape, activation, dtype, device):
    arguments = layer(*shape, dtype, device)
    poison(shape[0], shape[2], dtype=dtype, device=device)
    out = ops.dense(*arguments, activation)
    exact = in_float64(*arguments, activation)
    eager = reference.dense(*arguments, activation)
    assert out.dtype == dtype
    assert_as_exact_as_eager([out], [eager], [exact], rounding(shape, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_match_reference(shape, activation, bias, dtype, device):
    arguments = layer(*shape, dtype, device, bias)
    grad_out = torch.randn(shape[0], shape[2], dtype=dtype, device=device)
    wide = [t if t is None else t.double() for t in arguments]
    ours = gradients(ops.dense, arguments, activation, grad_out)
    eager = gradients(reference.dense, arguments, activation, grad_out)
    exact = gradients(reference.dense, wide, activation, grad_out.double())
    assert_as_exact_as_eager(ours, eager, exact, rounding(shape, dtype))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_gradcheck_and_gradgradcheck(activation, bias, device):
    arguments = layer(5, 9, 7, torch.float64, device, bias)
    inputs = [t.requires_grad_() for t in arguments if t is not None]

    def function(x, weight, b=None):
        return ops.dense(x, weight, b, activation)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_only_the_gradients_asked_for_are_given(wanted, device):
    arguments = layer(6, 5, 4, device=device)
    for i in wanted:
        arguments[i].requires_grad_()
    ops.dense(*arguments, "tanh").sum().backward()
    for i, t in enumerate(arguments):
        assert (t.grad is not None) == (i in wanted)
    exact = gradients(reference.dense, arguments, "tanh", torch.ones(6, 4, device=device))
    for i in wanted:
        torch.testing.assert_close(arguments[i].grad, exact[i])


@pytest.mark.parametrize("leading", [(), (1,), (3, 2), (2, 0, 3), (2, 3, 1)])
def test_any_leading_shape_is_kept(leading, device):
    x = torch.randn(*leading, 6, device=device, requires_grad=True)
    _, weight, bias = layer(1, 6, 5, device=device)
    out = ops.dense(x, weight, bias, "sigmoid")
    expected = reference.dense(x, weight, bias, "sigmoid")
    assert out.shape == (*leading, 5)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, x, grad), torch.autograd.grad(expected, x, grad)
    )


VIEWS = {
    "transposed": lambda t: t.t().contiguous().t(),
    "every other column": lambda t: t.repeat_interleave(2, dim=1)[:, ::2],
    "every other row": lambda t: t.repeat_interleave(2, dim=0)[::2],
    "a slice of wider rows": lambda t: F.pad(t, (3, 2))[:, 3:-2],
    "four bytes past alignment": lambda t: F.pad(t.reshape(-1), (1, 0))[1:].view_as(t),
    "one row expanded": lambda t: t[:1].expand_as(t),
    "one column expanded": lambda t: t[:, :1].expand_as(t),
}


def test_nothing_of_very_many_rows_takes_no_time():
    x = torch.ones(1, 3).expand(2**40, 3)
    assert ops.dense(x, torch.ones(0, 3)).shape == (2**40, 0)
    learning = torch.ones(0, 3, requires_grad=True), torch.ones(0, requires_grad=True)
    out = ops.dense(x, *learning, "tanh")
    grads = torch.autograd.grad(out.sum(), learning)
    assert [grad.shape for grad in grads] == [(0, 3), (0,)]


@pytest.mark.parametrize("which", ["x", "weight", "grad_out"])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shape", [(5, 9, 7), (40, 70, 30)])
def test_strides_change_nothing(shape, view, which, device):
    x, weight, bias = layer(*shape, device=device)
    grad_out = torch.randn(shape[0], shape[2], device=device)
    named = {"x": x, "weight": weight, "grad_out": grad_out}
    named[which] = VIEWS[view](named[which])
    plain = {name: t.contiguous().clone() for name, t in named.items()}

    def run(x, weight, grad_out):
        arguments = (x, weight, bias)
        return gradients_keeping_strides(arguments, grad_out)

    for ours, expected in zip(run(**named), run(**plain), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)


def gradients_keeping_strides(arguments, grad_out):
    inputs = [t.detach().requires_grad_() for t in arguments]
    out = ops.dense(*inputs, "sigmoid")
    return [out, *torch.autograd.grad(out, inputs, grad_out)]


def test_a_strided_bias_is_read_right(device):
    x, weight, bias = layer(4, 3, 5, device=device)
    strided = bias.repeat_interleave(2)[::2]
    assert torch.equal(ops.dense(x, weight, strided), ops.dense(x, weight, bias))


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(0, 40),
    in_features=st.integers(1, 80),
    units=st.integers(1, 70),
    activation=st.sampled_from(ACTIVATIONS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    bias=st.booleans(),
    view=st.sampled_from([None, *VIEWS]),
)
def test_any_shape_stride_and_dtype(rows, in_features, units, activation, dtype, bias, view):
    x, weight, b = layer(rows, in_features, units, dtype, bias=bias)
    if view and rows:
        x = VIEWS[view](x)
    grad_out = torch.randn(rows, units, dtype=dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}
    torch.testing.assert_close(
        ops.dense(x, weight, b, activation), reference.dense(x, weight, b, activation), **tolerance
    )
    for ours, expected in zip(
        gradients(ops.dense, (x, weight, b), activation, grad_out),
        gradients(reference.dense, (x, weight, b), activation, grad_out),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected, **tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_half_types_are_as_exact_as_eager(activation, dtype, device):
    arguments = layer(33, 70, 20, dtype, device)
    grad_out = torch.randn(33, 20, dtype=dtype, device=device)
    wide = [t.double() for t in arguments]
    out = ops.dense(*arguments, activation)
    assert out.dtype == dtype
    ours = (out, *gradients(ops.dense, arguments, activation, grad_out))
    eager = (
        reference.dense(*arguments, activation),
        *gradients(reference.dense, arguments, activation, grad_out),
    )
    exact = (
        reference.dense(*wide, activation),
        *gradients(reference.dense, wide, activation, grad_out.double()),
    )
    assert_as_exact_as_eager(ours, eager, exact, torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_honoured_as_for_linear(dtype, device):
    arguments = [t.requires_grad_() for t in layer(8, 12, 5, device=device)]
    with torch.autocast(device, dtype):
        expected = F.linear(*arguments)
        out = ops.dense(*arguments)
    assert out.dtype == expected.dtype == dtype
    torch.testing.assert_close(out, expected)
    out.float().sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in arguments)


def test_double_precision_ignores_autocast(device):
    arguments = layer(3, 4, 2, torch.float64, device)
    with torch.autocast(device, torch.bfloat16):
        assert ops.dense(*arguments).dtype == F.linear(*arguments).dtype == torch.float64


def test_threads_change_no_bit():
    arguments = layer(200, 300, 150)
    grad_out = torch.randn(200, 150)

    def run(threads):
        torch.set_num_threads(threads)
        return (
            ops.dense(*arguments, "tanh"),
            *gradients(ops.dense, arguments, "tanh", grad_out),
        )

    before = torch.get_num_threads()
    try:
        one, many = run(1), run(4)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_and_infinity_pass_through(activation, device):
    z = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e38, -1e38, 1e-40, -1e-40])
    z, weight = z.repeat(5).reshape(-1, 1).to(device), torch.ones(1, 1, device=device)
    out = ops.dense(z, weight, None, activation)
    torch.testing.assert_close(out, reference.dense(z, weight, None, activation), equal_nan=True)


def ulp_errors(value, exact):
    """The distance of float32 values from exact ones, in units of the last place of the exact.

    0 is right where the exact one is below the smallest normal number, or as good as there.
    """
    smallest = torch.finfo(torch.float32).smallest_normal
    unit = torch.exp2(torch.floor(torch.log2(exact.abs().clamp_min(smallest))) - 23)
    errors = (value.double() - exact).abs() / unit
    return errors.where((value != 0) | (exact.abs() > smallest * (1 + 1e-6)), 0)


def sampled_floats():
    """Every 997th float32 there is, so that all exponents and both signs are seen."""
    bits = torch.arange(-(2**31), 2**31, 997, dtype=torch.int64).to(torch.int32)
    floats = bits.view(torch.float32)
    return floats[floats.isfinite()]


# PyTorch's own sigmoid reaches 2.47 ulp on the CPU. On CUDA, with division off by 2 ulp at most
# (-prec-div=false, divide_by_one_to_two): the exponential 2, one plus it 0.5, the division 2. For
# tanh: expm1 1, twice since it also goes into 2 + m, that 0.5, the division 2, rounded up.
ULP = {
    ("sigmoid", "cpu"): 2.5,
    ("tanh", "cpu"): 4.0,
    ("sigmoid", "cuda"): 4.5,
    ("tanh", "cuda"): 6.0,
}


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_activation_is_exact_to_a_few_ulp(activation, device):
    z = sampled_floats()
    x, weight = z[:, None].to(device), torch.ones(1, 1, device=device)
    out = ops.dense(x, weight, None, activation)[:, 0].cpu()
    exact = getattr(torch, activation)(z.double())
    assert ulp_errors(out, exact).max() <= ULP[activation, device]


def test_sigmoid_does_not_saturate_before_float32_does(device):
    # On the CPU, as in PyTorch's own, it ends at the smallest normal number, 1.2e-38.
    z = torch.tensor([[-103.0], [-100.0], [-88.0], [16.0]])
    z[:3] += torch.tensor(16.0 if device == "cpu" else 0.0)
    out = ops.dense(z.to(device), torch.ones(1, 1, device=device), None, "sigmoid").cpu()
    exact = torch.sigmoid(z.double())
    ulp = ULP["sigmoid", device] / 2.5
    assert (out[:3] > 0).all()
    assert out[3] < 1
    assert ((out.double() - exact).abs() <= ulp * (1.5e-45 + 1e-7 * exact)).all()


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (([[1.0]], torch.ones(1, 1)), TypeError, "x must be a torch.Tensor, got list"),
        ((torch.ones(1, 1), None), TypeError, "weight must be a torch.Tensor, got NoneType"),
        ((torch.ones(2, 3), torch.ones(4, 2)), ValueError, r"x must have shape \(\.\.\., 2\)"),
        ((torch.ones(2, 3), torch.ones(3)), ValueError, r"weight must have shape \(units, in_fe"),
        ((torch.tensor(1.0), torch.ones(1, 1)), ValueError, r"x must have shape \(\.\.\., 1\)"),
        (
            (torch.ones(2, 3), torch.ones(4, 3), torch.ones(3)),
            ValueError,
            r"bias must have shape \(4,\), got \(3,\)",
        ),
        (
            (torch.ones(2, 3), torch.ones(4, 3).double()),
            TypeError,
            "weight must have the dtype of x, torch.float32, got torch.float64",
        ),
        (
            (torch.ones(2, 3).int(), torch.ones(4, 3).int()),
            TypeError,
            "x must have a floating dtype, got torch.int32",
        ),
        (
            (torch.ones(2, 3), torch.ones(4, 3, device="meta")),
            ValueError,
            "weight must be on the device of x, cpu, got meta",
        ),
        (
            (torch.ones(2, 3), torch.ones(4, 3), None, "sigmod"),
            ValueError,
            f"activation must be None or one of {', '.join(ops.activations())}, got 'sigmod'",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, kind, message):
    with pytest.raises(kind, match=message):
        ops.dense(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.ones(2, 3), torch.ones(4, 2), None, 0),
        (torch.ones(2, 3), torch.ones(4, 3), torch.ones(3), 0),
        (torch.ones(2, 3), torch.ones(4, 3).double(), None, 0),
        (torch.ones(2, 3).half(), torch.ones(4, 3).half(), None, 0),
        (torch.ones(2, 3), torch.ones(4, 3), None, 99),
        (torch.ones(2, 3), torch.ones(4, 3), None, -1),
        (torch.tensor(1.0), torch.ones(1, 1), None, 0),
    ],
)
def test_a_direct_call_is_refused_and_not_obeyed(arguments):
    with pytest.raises(RuntimeError):
        torch.ops.torchnn.dense_forward(*arguments)


def test_a_direct_backward_call_is_refused_and_not_obeyed():
    x, weight, out = torch.ones(5, 3), torch.ones(4, 3), torch.ones(5, 4)
    for grad_out, a in [(out[:4], out), (out, out[:, :3]), (out.double(), out), (out, out[0])]:
        with pytest.raises(RuntimeError):
            torch.ops.torchnn.dense_backward(grad_out, a, x, weight, 1, True, True, True)
