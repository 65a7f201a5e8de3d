"""torchnn.ops.dense in every mode of PyTorch: transformed, compiled, exported, traced, fake."""

import io

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.autograd.functional import jacobian
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.fx import symbolic_trace
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from torchnn import ops
from torchnn.layers import Dense
from torchnn.ops import reference

# One of each kind: without a derivative to compute, from the output, with a kink, from z.
ACTIVATIONS = ("identity", "sigmoid", "relu", "tanh", "gelu")


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


@pytest.mark.parametrize("needs_grad", [False, True])
def test_opcheck(needs_grad, device):
    x, weight, bias = (
        t.requires_grad_(needs_grad) for t in arguments(torch.float32, device=device)
    )
    torch.library.opcheck(torch.ops.torchnn.dense.default, (x, weight, bias, 1))
    torch.library.opcheck(torch.ops.torchnn.dense.default, (x, weight, None, 2))


@pytest.mark.parametrize("place", [-1, len(ops.activations())])
def test_the_operator_refuses_an_unknown_activation(place):
    last = len(ops.activations()) - 1
    with pytest.raises(ValueError, match=f"activation must be from 0 to {last}, got {place}$"):
        torch.ops.torchnn.dense(*arguments(), place)


def test_the_operator_knows_every_transform():
    def by_place(x, weight, bias, activation):
        return torch.ops.torchnn.dense(x, weight, bias, ops.activations().index(activation))

    a = arguments()
    for transform in TRANSFORMS.values():
        ours = transform(loss_of(by_place, "tanh"), a)
        assert_close(ours, transform(loss_of(reference.dense, "tanh"), a))


def test_bare_kernels_refuse_meta_tensors():
    grad_out, meta = torch.ones(64, 8), torch.ones(8, 8, device="meta")
    needs = True, False, False
    with pytest.raises(NotImplementedError):
        torch.ops.torchnn.dense_backward(grad_out, grad_out, grad_out, meta, 0, *needs)
    with pytest.raises(NotImplementedError):
        torch.ops.torchnn.dense_forward(grad_out, meta, None, 0)


def test_batched_gradients_match_reference(recwarn):
    x, weight, bias = arguments()
    ours = jacobian(lambda w: ops.dense(x, w, bias, "tanh"), weight, vectorize=True)
    assert_close(ours, jacobian(lambda w: reference.dense(x, w, bias, "tanh"), weight))
    assert not recwarn.list  # of a loop in place of a batch


def test_forward_over_reverse_matches_reference():
    def tangent(function):
        x, weight, bias = a
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(weight.clone().requires_grad_(), torch.ones_like(weight))
            out = function(x, dual, bias, "tanh").square().sum()
            (gradient,) = torch.autograd.grad(out, dual, create_graph=True)
            return forward_ad.unpack_dual(gradient).tangent

    a = arguments()
    assert_close(tangent(ops.dense), tangent(reference.dense))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("transform", [*TRANSFORMS, "vmap of grad", "jacfwd"])
def test_compiled_transforms_match_reference(transform, activation):
    if transform == "vmap of grad":
        run = lambda f, a: vmap(grad(f, 1), (0, None, None))(*a)  # noqa: E731
    elif transform == "jacfwd":
        run = lambda f, a: jacfwd(f, 1)(*a)  # noqa: E731
    else:
        run = TRANSFORMS[transform]
    a = arguments()
    compiled = torch.compile(
        lambda *b: run(loss_of(ops.dense, activation), b), backend="eager", fullgraph=True
    )
    assert_close(compiled(*a), run(loss_of(reference.dense, activation), a))


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
    assert targets(program.graph) == ["aten.linear.default", "aten.sigmoid.default"]
    x = torch.randn(9, 6)
    assert_close(program.module()(x), model(x))


# Whatever records operators or stands in for tensors sees PyTorch's own


def targets(graph):
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


@pytest.fixture
def layer():
    return Dense(2, "sigmoid", in_features=4)


def formula(layer, x):
    return torch.sigmoid(nn.functional.linear(x, layer.weight, layer.bias))


def test_symbolic_tracing(layer):
    traced, x = symbolic_trace(nn.Sequential(layer)), torch.randn(3, 4)
    assert_close(traced(x), layer(x))
    assert len(targets(traced.graph)) == 2


def test_make_fx_records_operators_of_pytorch(layer):
    assert not [t for t in targets(make_fx(layer)(torch.randn(3, 4)).graph) if "torchnn" in t]


@pytest.mark.parametrize("needs_grad", [False, True])
@pytest.mark.parametrize("compile", ["trace", "script"])
@pytest.mark.parametrize("activation", [*ACTIVATIONS, "softmax", "mish", torch.sin])
def test_torchscript_runs_without_torchnn(compile, activation, needs_grad):
    layer, x = Dense(2, activation, in_features=4), torch.randn(3, 4)
    with torch.set_grad_enabled(needs_grad):
        made = torch.jit.trace(layer, x) if compile == "trace" else torch.jit.script(layer)
        file = io.BytesIO()
        torch.jit.save(made, file)
        file.seek(0)
        loaded = torch.jit.load(file)
        assert "torchnn::" not in str(loaded.inlined_graph)
        assert_close(loaded(x), layer(x))
        x = torch.randn(9, 4)
        assert_close(loaded(x), layer(x))


def test_flops_are_counted(layer):
    with FlopCounterMode(display=False) as counter:
        layer(torch.randn(5, 4)).sum().backward()
    assert counter.get_total_flops() == 2 * (2 * 5 * 4 * 2)  # forward, and the weight's gradient


@pytest.mark.parametrize("autocast", [False, True])
def test_meta_tensors_have_shapes(layer, autocast):
    with torch.autocast("cpu", enabled=autocast):
        out = layer.to("meta")(torch.ones(3, 4, device="meta"))
    assert (out.shape, out.device.type) == ((3, 2), "meta")


def test_fake_tensors_are_followed_through_backward():
    with FakeTensorMode():
        layer = Dense(2, "relu", in_features=4)
        layer(torch.ones(3, 4)).sum().backward()
    assert layer.weight.grad.shape == (2, 4)


class Tagged(torch.Tensor):
    """A subclass that computes as any tensor does, and stays what it is."""


def test_subclasses_of_tensor_come_through(layer):
    x = torch.randn(3, 4)
    assert type(layer(x.as_subclass(Tagged))) is Tagged
    assert_close(layer(x.as_subclass(Tagged)).as_subclass(torch.Tensor), layer(x))
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Tagged))
    assert_close(layer(x).as_subclass(torch.Tensor), formula(layer, x).as_subclass(torch.Tensor))


def test_jagged_rows_of_different_lengths_learn(layer):
    rows = [torch.randn(2, 4), torch.randn(3, 4)]
    layer(torch.nested.nested_tensor(rows, layout=torch.jagged)).values().sum().backward()
    ours = layer.weight.grad.clone()
    layer.zero_grad()
    layer(torch.cat(rows)).sum().backward()
    assert_close(ours, layer.weight.grad)


@pytest.mark.filterwarnings("ignore:(Sparse CSR|The PyTorch API of nested)")  # young ones
def test_tensors_of_other_layouts_go_where_pytorch_has_kernels(layer):
    x = torch.randn(3, 4)
    with torch.no_grad():
        sparse = ops.dense(x, layer.weight.to_sparse_csr(), None, "relu")
        assert_close(sparse, ops.dense(x, layer.weight, None, "relu"))
        nested = ops.dense(torch.nested.nested_tensor([x, x[:1]]), layer.weight, None, "relu")
        assert_close(nested.unbind()[1], sparse[:1])


def test_a_view_that_is_negated_when_read_is_read_right(layer):
    x = torch.randn(3, 4, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    assert_close(layer(x), formula(layer, x))


class Watch(torch.overrides.TorchFunctionMode):
    def __init__(self):
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.seen.append(function)
        return function(*args, **(kwargs or {}))


def test_a_function_mode_sees_the_functions(layer):
    with Watch() as watch:
        layer(torch.ones(1, 4))
    assert nn.functional.linear in watch.seen


def test_a_default_device_leaves_the_kernels_at_work(layer, monkeypatch):
    x = torch.ones(1, 4)
    monkeypatch.setattr(reference, "dense", None)
    with torch.device("meta"):
        assert layer(x).shape == (1, 2)
    with torch.device("meta"), Watch(), pytest.raises(TypeError, match="NoneType"):
        layer(x)


def test_a_checkpointed_layer_learns(layer):
    x = torch.randn(3, 4)
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    ours = layer.weight.grad.clone()
    layer.zero_grad()
    layer(x).sum().backward()
    assert torch.equal(ours, layer.weight.grad)


@pytest.fixture
def two_ranks():
    """The first of two processes, the other one being made up."""
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    distributed = torch.distributed
    distributed.init_process_group("fake", store=fake.FakeStore(), rank=0, world_size=2)
    yield distributed.device_mesh.init_device_mesh("cpu", (2,))
    distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of what it is still working on
def test_tensor_parallelism_shards_dense_as_linear(two_ranks):
    parallel = pytest.importorskip("torch.distributed.tensor.parallel")
    model = nn.Sequential(Dense(8, "relu", in_features=4), Dense(2, "sigmoid", in_features=8))
    plan = {"0": parallel.ColwiseParallel(), "1": parallel.RowwiseParallel()}
    model = parallel.parallelize_module(model, two_ranks, plan)
    assert model[0].weight.to_local().shape == (4, 4)  # half of the units
    model(torch.randn(3, 4)).sum().backward()
    assert model[0].weight.grad.shape == (8, 4)


# What is kept for backward


def kept_bytes(function):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.nbytes) or t, lambda t: t
    ):
        function()
    return sum(kept)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "needs", [(True, True, True), (False, True, True), (True, False, True), (False, False, True)]
)
def test_no_more_is_kept_than_by_linear_and_its_activation(activation, needs):
    a = [t.requires_grad_(need) for t, need in zip(arguments(), needs, strict=True)]
    ours = kept_bytes(lambda: ops.dense(*a, activation))
    assert ours <= kept_bytes(lambda: reference.dense(*a, activation))


def test_backward_needs_neither_the_bias_nor_the_output_of_the_identity():
    def gradients(function):
        x, weight, bias = (t.clone().requires_grad_() for t in a)
        out = function(x, weight, bias)
        with torch.no_grad():
            bias += 1
        torch.relu_(out.mul_(2)).sum().backward()
        return x.grad, weight.grad, bias.grad

    a = arguments()
    assert_close(gradients(ops.dense), gradients(reference.dense))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "needs", [(True, False, False), (False, True, False), (False, False, True), (True, True, True)]
)
@pytest.mark.parametrize("rows", [4, None])
def test_each_gradient_is_right_alone(activation, needs, rows, device):
    x, weight, bias = arguments(device=device)
    a = [
        t.requires_grad_(need)
        for t, need in zip((x if rows else x[0], weight, bias), needs, strict=True)
    ]
    wanted = [t for t in a if t.requires_grad]
    ours = torch.autograd.grad(ops.dense(*a, activation).square().sum(), wanted)
    theirs = torch.autograd.grad(reference.dense(*a, activation).square().sum(), wanted)
    assert_close(ours, theirs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("needs", [(True, True, True), (True, False, False), (False, True, False)])
def test_third_derivatives_pass_gradgradcheck(activation, needs, device):
    a = [t.requires_grad_(need) for t, need in zip(arguments(device=device), needs, strict=True)]
    assert torch.autograd.gradgradcheck(lambda *b: ops.dense(*b, activation), a)


def test_every_activation_has_its_derivative_in_reference():
    for name in ops.activations():
        z = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
        a = reference.ACTIVATIONS[name](z)
        (expected,) = torch.autograd.grad(a.sum(), z)
        kept = (z if name in reference.KEEP_Z else a).detach()
        assert_close(reference.DERIVATIVES[name](torch.ones_like(a), kept), expected)


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
    assert torch._C._is_any_autocast_enabled() is torch._C._is_tracing() is False
    assert torch._C._len_torch_dispatch_stack() == torch._C._len_torch_function_stack() == 0
    assert forward_ad._current_level == -1
    with forward_ad.dual_level():
        assert forward_ad._current_level >= 0


def test_an_unknown_activation_is_told_whatever_the_layout():
    x, weight = torch.ones(2, 3), torch.ones(4, 3)
    for each in (x, x.to_sparse(), x.to("meta"), x.bfloat16()):
        with pytest.raises(ValueError, match=r"^activation must be None or one of identity, "):
            ops.dense(each, weight.to(each.device, each.dtype), None, "mish")
