"""torchnn.ops.dense under torch.func, torch.compile, torch.export and forward-mode AD."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.testing import assert_close

from torchnn import ops
from torchnn.ops import reference

ACTIVATIONS = ops.activations()


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()  # or the compiler counts the compilations of other tests, and gives up


def arguments(dtype=torch.float64, rows=4, device="cpu"):
    return (
        torch.randn(rows, 6, dtype=dtype, device=device),
        torch.randn(5, 6, dtype=dtype, device=device) / 3,
        torch.randn(5, dtype=dtype, device=device),
    )


def loss_of(function, activation):
    return lambda x, weight, bias: (function(x, weight, bias, activation) ** 3).sum()


TRANSFORMS = {
    "grad": lambda f, a: grad(f, argnums=(0, 1, 2))(*a),
    "grad of grad": lambda f, a: grad(lambda *b: grad(f, argnums=1)(*b).square().sum(), 1)(*a),
    "jvp": lambda f, a: jvp(f, a, tuple(torch.ones_like(t) for t in a)),
    "vjp": lambda f, a: vjp(f, *a)[1](torch.ones_like(a[0][0, 0])),
    "hessian": lambda f, a: hessian(f, argnums=1)(*a),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_func_transforms_match_reference(transform, activation, device):
    a = arguments(device=device)
    ours = TRANSFORMS[transform](loss_of(ops.dense, activation), a)
    expected = TRANSFORMS[transform](loss_of(reference.dense, activation), a)
    assert_close(ours, expected)


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
@pytest.mark.parametrize("argument", [0, 1, 2])
def test_jacobians_match_reference(jacobian, argument):
    a = arguments()
    ours = jacobian(lambda *b: ops.dense(*b, "tanh"), argnums=argument)(*a)
    assert_close(ours, jacobian(lambda *b: reference.dense(*b, "tanh"), argnums=argument)(*a))


@pytest.mark.parametrize("in_dims", [(0, None, None), (0, 0, 0), (None, 0, None), (1, 2, 1)])
def test_vmap_matches_reference(in_dims):
    sizes = ((4, 6), (5, 6), (5,))
    a = []
    for size, dim in zip(sizes, in_dims, strict=True):
        t = torch.randn(*size) if dim is None else torch.randn(3, *size).movedim(0, dim)
        a.append(t)
    ours = vmap(lambda *b: ops.dense(*b, "sigmoid"), in_dims)(*a)
    assert_close(ours, vmap(lambda *b: reference.dense(*b, "sigmoid"), in_dims)(*a))


def test_per_sample_gradients_match_a_loop():
    x, weight, bias = arguments()

    def loss(weight, row):
        return ops.dense(row, weight, bias, "sigmoid").sum()

    per_sample = vmap(grad(loss), (None, 0))(weight, x)
    assert_close(per_sample, torch.stack([grad(loss)(weight, row) for row in x]))


def test_forward_mode_tangents_match_reference():
    x, weight, bias = arguments()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        ours = forward_ad.unpack_dual(ops.dense(dual, weight, bias, "tanh")).tangent
        expected = forward_ad.unpack_dual(reference.dense(dual, weight, bias, "tanh")).tangent
    assert ours is not None
    assert_close(ours, expected)


def test_double_backward_matches_reference(device):
    def second(function):
        x, weight, bias = (t.clone().requires_grad_() for t in a)
        out = function(x, weight, bias, "sigmoid").square().sum()
        (first,) = torch.autograd.grad(out, weight, create_graph=True)
        return torch.autograd.grad(first.square().sum(), (x, weight, bias))

    a = arguments(device=device)
    assert_close(second(ops.dense), second(reference.dense))


def test_an_expanded_gradient_is_read_right(device):
    x, weight, bias = (t.requires_grad_() for t in arguments(device=device))
    ours = torch.autograd.grad(ops.dense(x, weight, bias, "tanh").sum(), (x, weight, bias))
    out = reference.dense(x, weight, bias, "tanh")
    assert_close(ours, torch.autograd.grad(out.sum(), (x, weight, bias)))


@pytest.mark.parametrize("name", ["dense", "dense_forward", "dense_backward"])
@pytest.mark.parametrize("needs_grad", [False, True])
def test_opcheck(name, needs_grad, device):
    x, weight, bias = arguments(torch.float32, device=device)
    operator = getattr(torch.ops.torchnn, name).default
    if name == "dense_backward":
        out = reference.dense(x, weight, bias, "sigmoid")
        for needs in [(True, True, True), (False, True, False)]:
            torch.library.opcheck(operator, (torch.ones_like(out), out, x, weight, 1, *needs))
        return
    if needs_grad and name == "dense":
        x, weight, bias = (t.requires_grad_() for t in (x, weight, bias))
    torch.library.opcheck(operator, (x, weight, bias, 1))
    torch.library.opcheck(operator, (x, weight, None, 2))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_compiles_without_a_graph_break(activation, device):
    @torch.compile(fullgraph=True, dynamic=True)
    def compiled(x, weight, bias):
        return ops.dense(x, weight, bias, activation).square().sum()

    for rows in (4, 7, 1):
        a = [t.requires_grad_() for t in arguments(torch.float32, rows, device)]
        b = [t.detach().clone().requires_grad_() for t in a]
        compiled(*a).backward()
        reference.dense(*b, activation).square().sum().backward()
        for ours, expected in zip(a, b, strict=True):
            assert_close(ours.grad, expected.grad, rtol=1e-4, atol=1e-5)


def test_compiles_under_autocast(device):
    @torch.compile(fullgraph=True)
    def compiled(x, weight, bias):
        with torch.autocast(device, torch.bfloat16):
            return ops.dense(x, weight, bias, "relu")

    a = arguments(torch.float32, device=device)
    with torch.autocast(device, torch.bfloat16):
        expected = ops.dense(*a, "relu")
    out = compiled(*a)
    assert out.dtype == expected.dtype == torch.bfloat16
    # The compiler leaves out roundings to bfloat16 that are widened again at once.
    assert_close(out, expected, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("strict", [False, True])
def test_exports_with_a_dynamic_batch(strict):
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            _, self.weight, self.bias = map(torch.nn.Parameter, arguments(torch.float32))

        def forward(self, x):
            return ops.dense(x, self.weight, self.bias, "sigmoid")

    model, x = Layer(), torch.randn(4, 6)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},), strict=strict)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "torchnn.dense.default" in called
    x = torch.randn(9, 6)
    assert_close(program.module()(x), model(x))


def test_the_private_names_of_pytorch_still_mean_what_we_take_them_for():
    x, weight, bias = arguments()
    assert_close(
        torch.ops.torchnn.dense_forward.default._op(x, weight, bias, 1),
        torch.ops.torchnn.dense_forward(x, weight, bias, 1),
    )
    active = torch._C._are_functorch_transforms_active
    seen = []
    assert active() is False
    grad(lambda x: seen.append(active()) or x.sum())(torch.ones(2))
    assert seen == [True]
    assert forward_ad._current_level == -1
    with forward_ad.dual_level():
        assert forward_ad._current_level >= 0
