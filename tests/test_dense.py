"""torchnn.Dense: laziness, weights, state dicts, copies, compilation, errors."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from torchnn import activations, ops
from torchnn.layers import Dense
from torchnn.layers._dense import _filled
from torchnn.ops import reference


def square(z):
    return z * z


ANY_ACTIVATION = [None, *activations.FUNCTIONS, square, nn.PReLU()]


def state(layer):
    return {name: tensor.tolist() for name, tensor in layer.state_dict().items()}


# Values


@pytest.mark.parametrize("activation", ANY_ACTIVATION)
def test_dense_matches_reference(activation, device):
    activation = copy.deepcopy(activation)
    layer = Dense(5, activation, bias_initializer="random_normal", in_features=7).to(device)
    x = torch.randn(3, 7, device=device)
    z = reference.dense(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer.logits(x), z)
    torch.testing.assert_close(layer(x), activations.apply(layer.activation, z))


def test_dense_without_bias_matches_reference(device):
    layer = Dense(5, "tanh", use_bias=False, in_features=7, device=device)
    x = torch.randn(2, 3, 7, device=device)
    assert layer.bias is None
    torch.testing.assert_close(layer(x), reference.dense(x, layer.weight, None, "tanh"))


@pytest.mark.parametrize("activation", ["sigmoid", "gelu"])
def test_dense_learns_in_a_plain_loop(activation, device):
    layer = Dense(1, activation).to(device)
    x, y = torch.rand(16, 3, device=device), torch.full((16, 1), 0.25, device=device)
    layer(x)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (layer(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_dense_hands_fused_activations_to_the_operator(monkeypatch):
    seen = []
    dense = ops.dense
    monkeypatch.setattr(ops, "dense", lambda *args: seen.append(args[3:]) or dense(*args))
    x = torch.zeros(1, 2)
    for activation in (*ops.activations(), "mish"):
        Dense(2, activation)(x)
    assert seen == [*((name,) for name in ops.activations()), (None,)]


def test_kernel_starts_glorot_uniform_and_bias_zero():
    layer = Dense(250, in_features=400)
    limit = math.sqrt(6 / 650)
    assert 0.99 * limit < layer.weight.abs().max() <= limit
    assert not layer.bias.any()


def test_initializers_are_names_or_functions():
    layer = Dense(2, kernel_initializer=nn.init.ones_, bias_initializer="ones", in_features=3)
    assert state(layer) == {"weight": [[1, 1, 1], [1, 1, 1]], "bias": [1, 1]}


def test_a_seed_gives_the_same_first_weights_on_every_device(device):
    def first(device):
        torch.manual_seed(3)
        made = Dense(5, kernel_initializer="he_normal", bias_initializer="random_uniform")
        made.to(device).build(4)
        made.reset_parameters()
        return [*made.parameters()]

    for there, here in zip(first(device), first("cpu"), strict=True):
        assert there.device.type == device
        assert torch.equal(there.cpu(), here)


def test_first_values_are_drawn_on_the_cpu_whatever_the_device():
    seen = []

    def initializer(tensor):
        seen.append(tensor.device.type)

    try:
        _filled(initializer, (5, 4), torch.device("cuda"), torch.float32)
    except (AssertionError, RuntimeError):  # a PyTorch without CUDA, or no GPU
        assert not torch.cuda.is_available()
    assert seen == ["cpu"]


def test_reset_parameters_draws_anew():
    layer = Dense(3, in_features=4)
    nn.init.ones_(layer.bias)
    before = layer.weight.detach().clone()
    layer.reset_parameters()
    assert not torch.equal(layer.weight, before)
    assert not layer.bias.any()


# Laziness


def test_the_first_input_builds_the_layer(device):
    layer = Dense(25).to(device)
    assert (layer.built, layer.in_features) == (False, None)
    parameters = list(layer.parameters())
    assert layer(torch.zeros(2, 400, device=device)).shape == (2, 25)
    assert (layer.built, layer.in_features) == (True, 400)
    assert layer.weight.shape == (25, 400)
    assert layer.weight.is_contiguous()
    assert layer.bias.shape == (25,)
    assert [type(p) for p in layer.parameters()] == [nn.Parameter, nn.Parameter]
    assert all(map(lambda some, other: some is other, layer.parameters(), parameters))


def test_logits_build_the_layer_too():
    layer = Dense(2, "sigmoid")
    assert layer.logits(torch.zeros(1, 3)).tolist() == [[0, 0]]
    assert layer.built


def test_in_features_build_the_layer_at_once():
    assert Dense(2, in_features=3).weight.shape == (2, 3)


@pytest.mark.parametrize("shape", [(None, 3), [None, 5, 3], torch.Size([2, 3])])
def test_build_takes_the_shape_of_a_batch(shape):
    layer = Dense(2)
    layer.build(shape)
    assert layer.weight.shape == (2, 3)
    with pytest.raises(ValueError, match="expects 3 features, got 4"):
        layer.build((None, 4))


@pytest.mark.parametrize("shape", [(), (None,), "3", (3, None)])
def test_build_needs_a_number_of_features(shape):
    with pytest.raises(TypeError, match=r"^in_features must be a positive integer, got "):
        Dense(2).build(shape)


def test_what_is_no_tensor_builds_nothing():
    layer = Dense(2)
    with pytest.raises(TypeError, match=r"^x must be a torch\.Tensor, got str$"):
        layer("x")
    assert not layer.built


def test_building_twice_changes_nothing():
    layer = Dense(2, in_features=3)
    before = state(layer)
    layer.build(3)
    assert state(layer) == before
    with pytest.raises(ValueError, match="expects 3 features, got 4"):
        layer.build(4)


def test_a_layer_moved_before_it_is_built_is_built_there(device):
    layer = Dense(2).to(device, torch.float64)
    layer.build(3)
    assert layer.weight.dtype == layer.bias.dtype == torch.float64
    assert layer.weight.device.type == layer.bias.device.type == device


def test_a_layer_built_in_inference_mode_still_learns():
    layer = Dense(2)
    with torch.inference_mode():
        layer(torch.zeros(1, 3))
    layer(torch.ones(1, 3)).sum().backward()
    assert layer.weight.grad.tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("in_features", [None, 3])
def test_a_layer_made_in_inference_mode_still_learns(in_features):
    with torch.inference_mode():
        layer = Dense(2, in_features=in_features)
    layer(torch.ones(1, 3)).sum().backward()
    assert layer.weight.grad.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_failing_initializer_leaves_the_layer_unbuilt():
    def fail(tensor):
        raise RuntimeError("no luck")

    layer = Dense(2, bias_initializer=fail)
    with pytest.raises(RuntimeError, match="no luck"):
        layer(torch.zeros(1, 3))
    assert not layer.built
    layer.bias_initializer = nn.init.zeros_
    assert layer(torch.zeros(1, 5)).shape == (1, 2)


def test_a_torch_optimizer_may_be_made_before_the_first_input():
    layer = Dense(2, kernel_initializer="ones")
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert state(layer) == {"weight": [[0, 0, 0], [0, 0, 0]], "bias": [-1, -1]}


# State dicts, copies, moves


@pytest.mark.parametrize("in_features", [None, 3])
@pytest.mark.parametrize("assign", [False, True])
def test_dense_loads_a_linear_state_dict(in_features, assign):
    linear, layer = nn.Linear(3, 2), Dense(2, in_features=in_features)
    layer.load_state_dict(linear.state_dict(), strict=True, assign=assign)
    assert state(layer) == state(linear)
    assert layer(torch.zeros(1, 3)).tolist() == [linear.bias.tolist()]


def test_linear_loads_a_dense_state_dict():
    linear, layer = nn.Linear(3, 2), Dense(2, in_features=3)
    linear.load_state_dict(layer.state_dict(), strict=True)
    assert state(layer) == state(linear)


def test_an_unbuilt_state_dict_loads_into_an_unbuilt_layer():
    layer = Dense(2)
    layer.load_state_dict(Dense(2).state_dict(), strict=True)
    assert not layer.built
    with pytest.raises(RuntimeError, match="uninitialized"):
        Dense(2, in_features=3).load_state_dict(layer.state_dict())


def test_a_state_dict_without_bias_leaves_the_first_bias():
    layer = Dense(2, bias_initializer="ones")
    weight = {"weight": torch.zeros(2, 3)}
    assert layer.load_state_dict(weight, strict=False).missing_keys == ["bias"]
    assert layer.bias.tolist() == [1, 1]


@pytest.mark.parametrize("in_features", [None, 3])
def test_a_state_dict_of_another_size_is_an_error(in_features):
    layer = Dense(2, in_features=in_features)
    with pytest.raises(RuntimeError, match=r"Error.* loading state_dict for Dense"):
        layer.load_state_dict(nn.Linear(3, 4).state_dict())
    assert layer.in_features == in_features


def test_state_dicts_load_inside_a_network():
    unbuilt = nn.Sequential(Dense(4, "relu"), Dense(2))
    built = nn.Sequential(Dense(4, "relu"), Dense(2))
    built(torch.zeros(1, 3))
    unbuilt.load_state_dict(built.state_dict())
    assert state(unbuilt) == state(built)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
@pytest.mark.parametrize(
    "activation", [None, "sigmoid", "gelu", square, nn.PReLU(dtype=torch.float64)]
)
@pytest.mark.parametrize("in_features", [None, 3])
def test_a_copy_is_the_same_layer_on_its_own(duplicate, activation, in_features):
    layer = Dense(2, activation, in_features=in_features, name="mine", dtype=torch.float64)
    other = duplicate(layer)
    assert repr(other) == repr(layer)
    assert (other.built, other.name) == (layer.built, "mine")
    x = torch.randn(4, 3, dtype=torch.float64)
    layer(x), other(x)
    assert other.weight.dtype == torch.float64
    assert other.weight.data_ptr() != layer.weight.data_ptr()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))


def test_a_saved_state_dict_is_read_back(tmp_path):
    layer, other = Dense(2, in_features=3), Dense(2)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    other.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    assert state(other) == state(layer)


def test_a_built_layer_moves(device):
    layer = Dense(2, "sigmoid", in_features=3).to(device).double()
    out = layer(torch.zeros(1, 3, dtype=torch.float64, device=device))
    assert out.dtype == torch.float64
    assert out.device.type == device


def test_a_module_as_activation_is_part_of_the_layer():
    layer = Dense(2, nn.PReLU(), in_features=3)
    assert set(layer.state_dict()) == {"weight", "bias", "activation.weight"}


# An nn.Linear in all but forward


def test_dense_is_a_linear():
    layer = Dense(2, "relu", in_features=3)
    assert isinstance(layer, nn.Linear)
    assert (layer.in_features, layer.out_features) == (3, 2)
    assert Dense(2).out_features == 2
    built = Dense(2, in_features=3, device="meta", dtype=torch.float64)
    assert (built.weight.device.type, built.bias.dtype) == ("meta", torch.float64)


def test_a_layer_is_made_under_fake_tensors_and_on_the_default_device():
    with FakeTensorMode():
        assert Dense(2, in_features=3).weight.shape == (2, 3)
    with torch.device("meta"):
        unbuilt, layer = Dense(2), Dense(2, in_features=3)
        assert layer.weight.is_meta
        assert unbuilt.weight.is_meta
    layer.to_empty(device="cpu").reset_parameters()
    assert not layer.bias.any()


def test_parameters_may_be_moved_as_they_are_registered(monkeypatch):
    """As accelerate's init_empty_weights does it."""
    register = nn.Module.register_parameter

    def register_empty(module, name, parameter):
        register(module, name, parameter)
        if parameter is not None:
            kind = type(module._parameters[name])
            module._parameters[name] = kind(parameter.to("meta"), **parameter.__dict__)

    monkeypatch.setattr(nn.Module, "register_parameter", register_empty)
    assert all(p.is_meta for p in Dense(2, in_features=3).parameters())


def test_the_activation_can_be_assigned_as_it_was_given():
    layer, x = Dense(2, "sigmoid", in_features=3), torch.randn(4, 3)
    z = layer.logits(x)
    for activation in (None, "linear", nn.PReLU(init=1.0), "identity"):
        layer.activation = activation
        assert torch.equal(layer(x), z)
    assert layer.activation == "identity"
    assert set(layer.state_dict()) == {"weight", "bias"}
    with pytest.raises(ValueError, match=r"^unknown activation 'sigmod'"):
        layer.activation = "sigmod"
    assert torch.equal(layer(x), z)


def test_eager_quantization_is_refused():
    layer = nn.Sequential(Dense(2, in_features=3, name="hidden"))
    with pytest.raises(TypeError, match=r"^layer 'hidden' cannot be quantized by torch.ao"):
        layer[0].qconfig = None  # what torch.ao.quantization sets first


# Compilation


@pytest.mark.parametrize("activation", ["sigmoid", "gelu", square, nn.PReLU()])
def test_dense_compiles_in_one_graph(activation):
    layer = Dense(4, activation, in_features=3)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    x = torch.randn(5, 3)
    torch.testing.assert_close(compiled(x), layer(x))


def test_a_layer_must_be_built_before_it_compiles_in_one_graph():
    torch.compiler.reset()
    compiled = torch.compile(Dense(4), fullgraph=True, backend="eager")
    with pytest.raises(Exception, match=r"must be built before torch.compile can trace it"):
        compiled(torch.randn(5, 3))


# Weights as Keras has them


def test_get_weights_gives_the_kernel_and_the_bias(device):
    layer = Dense(2, in_features=3, bias_initializer="ones", device=device)
    kernel, bias = layer.get_weights()
    assert isinstance(kernel, np.ndarray)
    assert kernel.shape == (3, 2)
    assert kernel.flags.c_contiguous
    assert kernel.tolist() == layer.weight.T.tolist()
    kernel[:], bias[:] = 7, 7  # copies
    assert layer.weight.abs().max() < 2
    assert layer.bias.tolist() == [1, 1]


def test_get_weights_of_a_layer_without_bias_is_the_kernel():
    assert len(Dense(2, in_features=3, use_bias=False).get_weights()) == 1


def test_get_weights_gives_bfloat16_as_float32():
    kernel, _ = Dense(2, in_features=3, dtype=torch.bfloat16).get_weights()
    assert kernel.dtype == np.float32


@pytest.mark.parametrize("in_features", [None, 3])
def test_set_weights_takes_what_get_weights_gives(in_features, device):
    layer, other = Dense(2, in_features=3), Dense(2, in_features=in_features, device=device)
    other.set_weights(layer.get_weights())
    assert state(other) == state(layer)
    other.set_weights([[[1, 2], [3, 4], [5, 6]], [7, 8]])
    assert state(other) == {"weight": [[1, 3, 5], [2, 4, 6]], "bias": [7, 8]}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([], "must be 2 arrays, got 0$"),
        ([(3, 2)], "must be 2 arrays, got 1$"),
        ([(3, 2), (2,), (2,)], "must be 2 arrays, got 3$"),
        ([(2, 3), (2,)], r"must have shapes \[\(3, 2\), \(2,\)\], got \[\(2, 3\), \(2,\)\]$"),
        ([(3, 2), (3,)], r"must have shapes \[\(3, 2\), \(2,\)\], got "),
        ([(3, 2), (1, 2)], r"must have shapes \[\(3, 2\), \(2,\)\], got "),
        ([(), (2,)], r"must have shapes .*, got \[\(\), \(2,\)\]$"),
    ],
)
@pytest.mark.parametrize("in_features", [None, 3])
def test_wrong_weights_are_an_error_and_change_nothing(shapes, message, in_features):
    layer = Dense(2, in_features=in_features, name="hidden")
    if shapes == [(2, 3), (2,)] and in_features is None:
        message = r"must have shapes \[\(2, 2\), \(2,\)\], got "
    with pytest.raises(ValueError, match=f"^weights of layer 'hidden' {message}"):
        layer.set_weights([np.ones(shape) for shape in shapes])
    assert layer.in_features == in_features
    assert not in_features or not layer.bias.any()


def test_an_unbuilt_layer_has_no_weights_to_get():
    layer = Dense(2, name="hidden")
    assert layer.get_weights() == layer.weights == []
    assert layer.kernel is layer.output_shape is layer.input is None
    with pytest.raises(ValueError, match=r"^layer 'hidden' has no weights yet: build the model"):
        layer.count_params()


# Errors and repr


@pytest.mark.parametrize("units", [0, -1])
def test_units_must_be_positive(units):
    with pytest.raises(ValueError, match=f"^units must be a positive integer, got {units}$"):
        Dense(units)


@pytest.mark.parametrize("units", [2.5, "3", True, None])
def test_units_must_be_an_integer(units):
    with pytest.raises(TypeError, match=f"^units must be a positive integer, got {units!r}$"):
        Dense(units)


def test_numpy_integers_are_integers():
    layer = Dense(np.int64(2), in_features=np.int32(3))
    assert layer.weight.shape == (2, 3)
    assert type(layer.units) is type(layer.in_features) is int


def test_in_features_must_be_a_positive_integer():
    with pytest.raises(ValueError, match=r"^in_features must be a positive integer, got 0$"):
        Dense(2, in_features=0)
    with pytest.raises(TypeError, match=r"^in_features must be a positive integer, got 2.5$"):
        Dense(2, in_features=2.5)


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match=r"^unknown activation 'sigmod': did you mean 'sigmoid'\?"):
        Dense(2, "sigmod")
    with pytest.raises(ValueError, match=r"^unknown initializer 'glorot'"):
        Dense(2, kernel_initializer="glorot")
    with pytest.raises(TypeError, match=r"^name must be a string"):
        Dense(2, name=3)


@pytest.mark.parametrize("call", [Dense.forward, Dense.logits])
def test_a_wrong_feature_count_is_told_in_the_layers_name(call):
    with pytest.raises(ValueError, match=r"^layer 'dense_1' expects 400 features, got 64$"):
        call(Dense(25, in_features=400, name="dense_1"), torch.zeros(2, 64))
    with pytest.raises(ValueError, match=r"^this Dense layer expects 400 features, got 64$"):
        call(Dense(25, in_features=400), torch.zeros(2, 64))


def test_an_input_without_features_is_an_error():
    with pytest.raises(ValueError, match=r"^in_features must be a positive integer, got 0$"):
        Dense(2)(torch.zeros(3, 0))


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (Dense(25), "Dense(25)"),
        (Dense(25, "linear"), "Dense(25)"),
        (Dense(25, "relu", name="a"), "Dense(25, activation='relu', name='a')"),
        (Dense(2, square, in_features=3), "Dense(2, activation='square', in_features=3)"),
        (Dense(2, use_bias=False), "Dense(2, use_bias=False)"),
    ],
)
def test_repr_reads_like_the_call(layer, wanted):
    assert repr(layer) == wanted


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 7, dtype=torch.int64), TypeError, "x must have a floating dtype, got"),
        (torch.zeros(2, 7, dtype=torch.float64), TypeError, "x must have the dtype of this Dense"),
        (torch.zeros(2, 7, device="meta"), ValueError, "x must be on the device of this Dense"),
    ],
)
def test_an_input_that_does_not_fit_builds_nothing(x, error, message):
    layer = Dense(4)
    with pytest.raises(error, match=message):
        layer(x)
    assert not layer.built
    assert layer(torch.zeros(2, 3)).shape == (2, 4)
    with pytest.raises(error, match=message):  # and it is told alike when it is built
        layer(x)


def test_a_first_input_may_be_one_of_autocast():
    for dtype in (torch.bfloat16, torch.int64):
        layer = Dense(4)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(torch.zeros(2, 3, dtype=dtype)).dtype == torch.bfloat16
        assert layer.weight.dtype == torch.float32
