"""torchnn.layers: every layer beside Dense, alone and in a plain PyTorch network."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import layers, losses
from torchnn.layers import Activation, Dense, Dropout, Flatten, Input, Normalization, Rescaling

EXAMPLES = [
    Activation("relu"),
    Activation(torch.sin),
    Activation(nn.PReLU()),
    Dense(4, "sigmoid"),
    Dropout(0.5),
    Flatten(),
    Input((3,)),
    Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0]),
    Rescaling(1 / 255, offset=-0.5),
]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
@pytest.mark.parametrize("layer", EXAMPLES, ids=repr)
def test_layers_copy_and_pickle(layer, duplicate):
    layer = copy.deepcopy(layer).eval()
    other = duplicate(layer)
    assert repr(other) == repr(layer)
    x = torch.rand(5, 3)
    if isinstance(layer, Dense):
        layer(x)
        other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))


@pytest.mark.parametrize("layer", EXAMPLES, ids=repr)
def test_layers_work_in_a_network(layer, device):
    network = nn.Sequential(copy.deepcopy(layer), Dense(2)).to(device)
    network(torch.rand(5, 3, device=device)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("layer", EXAMPLES, ids=repr)
def test_layers_compile_in_one_graph(layer):
    layer = copy.deepcopy(layer).eval()
    x = torch.rand(5, 3)
    wanted = layer(x)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), wanted)


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (Activation("ReLU"), "Activation('relu')"),
        (Activation(nn.Tanh()), "Activation(\n  (activation): Tanh()\n)"),
        (Dropout(0.25), "Dropout(0.25)"),
        (Flatten(name="flat"), "Flatten(name='flat')"),
        (Input([8, 8]), "Input((8, 8))"),
        (Normalization(), "Normalization(-1)"),
        (Normalization(axis=None), "Normalization(None)"),
        (Rescaling(0.5), "Rescaling(0.5)"),
        (Rescaling(2, offset=-1), "Rescaling(2.0, offset=-1.0)"),
    ],
)
def test_repr_reads_like_the_call(layer, wanted):
    assert repr(layer) == wanted


def test_losses_can_be_imported_from_here_as_in_the_notes():
    assert layers.BinaryCrossentropy is losses.BinaryCrossentropy
    assert layers.MeanSquaredError is losses.MeanSquaredError


# Activation


@pytest.mark.parametrize("name", ["sigmoid", "gelu"])
def test_activation_applies_its_function(name, device):
    x = torch.randn(3, 2, device=device)
    layer = Activation(name)
    torch.testing.assert_close(layer(x), getattr(torch.nn.functional, name)(x))
    assert layer.logits(x) is x


def test_an_unknown_activation_is_an_error():
    with pytest.raises(ValueError, match=r"^unknown activation 'rellu': did you mean 'relu'\?"):
        Activation("rellu")


# Input


@pytest.mark.parametrize("shape", [(3,), [3], torch.Size([3]), (np.int64(3),)])
def test_input_is_the_identity_on_its_shape(shape):
    layer, x = Input(shape), torch.zeros(5, 3)
    assert layer.shape == (3,)
    assert layer(x) is x


@pytest.mark.parametrize("shape", [(3,), (5, 4), (5, 3, 1), ()])
def test_input_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"^layer 'in' expects x of shape \(N, 3\), got \("):
        Input((3,), name="in")(torch.zeros(shape))


@pytest.mark.parametrize("shape", [400, "400", None, {400}])
def test_the_shape_of_an_input_is_a_tuple(shape):
    with pytest.raises(
        TypeError, match=r"^shape must be a tuple of integers such as \(400,\), got"
    ):
        Input(shape)


@pytest.mark.parametrize(("shape", "error"), [((0,), ValueError), ((2.5,), TypeError)])
def test_the_sizes_of_an_input_are_positive_integers(shape, error):
    with pytest.raises(error, match=r"^each size in shape must be a positive integer, got "):
        Input(shape)


# Flatten


@pytest.mark.parametrize(
    ("shape", "flat"),
    [((5, 8, 8), (5, 64)), ((5, 3), (5, 3)), ((5,), (5, 1)), ((0, 2, 3), (0, 6))],
)
def test_flatten_keeps_the_samples(shape, flat):
    assert Flatten()(torch.zeros(shape)).shape == flat


# Rescaling


def test_rescaling_scales_and_shifts(device):
    x = torch.tensor([[0, 255]], dtype=torch.uint8, device=device)
    assert Rescaling(2 / 255, offset=-1)(x).tolist() == [[-1, 1]]


@pytest.mark.parametrize("arguments", [("1",), (1, None), (True,)])
def test_rescaling_takes_numbers(arguments):
    with pytest.raises(TypeError, match=r"must be a finite number, got "):
        Rescaling(*arguments)


# Normalization

DATA = [[1.0, 10.0], [3.0, 10.0], [5.0, 40.0]]  # means 3, 20; variances 8/3, 200


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_adapt_takes_the_mean_and_variance_of_each_feature(kind, device):
    layer = Normalization().to(device)
    layer.adapt(kind(DATA))
    torch.testing.assert_close(layer.mean.tolist(), [3.0, 20.0])
    torch.testing.assert_close(layer.variance.tolist(), [8 / 3, 200.0], rtol=1e-6, atol=0)
    out = layer(torch.tensor(DATA, device=device)).cpu()
    wanted = torch.tensor([[-(1.5**0.5), -(0.5**0.5)], [0, -(0.5**0.5)], [1.5**0.5, 2**0.5]])
    torch.testing.assert_close(out, wanted)


def test_adapt_without_axis_takes_one_mean():
    layer = Normalization(axis=None)
    layer.adapt([1, 2, 3, 4, 5])  # mean 3, variance 2
    torch.testing.assert_close(layer(torch.tensor([1.0])).item(), -(2**0.5), rtol=1e-6, atol=0)


@pytest.mark.parametrize("axis", [2, -2])
def test_adapt_takes_other_axes(axis):
    data = torch.randn(10, 4, 3, 5) * torch.tensor([[1.0], [2.0], [3.0]]) + 5
    layer = Normalization(axis)
    layer.adapt(data)
    out = layer(data)
    assert layer.mean.shape == (3,)
    torch.testing.assert_close(out.mean((0, 1, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std((0, 1, 3), correction=0), torch.ones(3))


def test_adapt_takes_nothing_from_the_data_before():
    layer = Normalization()
    layer.adapt([[100.0], [200.0]])
    layer.adapt([[1.0], [3.0]])
    assert layer(torch.tensor([[2.0], [4.0]])).tolist() == [[0], [2]]


@pytest.mark.parametrize(("mean", "variance"), [(2.0, 4.0), ([2.0, 2.0], [4.0, 4.0])])
def test_mean_and_variance_may_be_given(mean, variance):
    layer = Normalization(mean=mean, variance=variance)
    assert layer(torch.tensor([[2.0, 6.0]])).tolist() == [[0, 2]]


def test_a_constant_feature_becomes_zero():
    layer = Normalization()
    layer.adapt(np.full((3, 2), [0.5, 0.1]))
    assert layer(torch.tensor([[0.5, 0.1]])).tolist() == [[0, 0]]


def test_adapt_computes_in_float64():
    layer = Normalization()
    layer.adapt(np.array([[1e8], [1e8 + 2]]))  # one number in float32
    assert layer.variance.tolist() == [1]


def test_normalization_saves_and_loads_what_it_learned():
    layer, other = Normalization(), Normalization()
    layer.adapt(DATA)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(4, 2)
    assert torch.equal(other(x), layer(x))


def test_normalization_has_no_parameters_and_moves(device):
    layer = Normalization(mean=[1.0], variance=[4.0]).to(device, torch.float64)
    assert not list(layer.parameters())
    assert layer(torch.ones(1, 1, dtype=torch.float64, device=device)).dtype == torch.float64


def test_normalization_must_adapt_first():
    with pytest.raises(ValueError, match=r"^layer 'norm' knows no mean yet: call adapt\(data\)"):
        Normalization(name="norm")(torch.zeros(2, 2))


def test_normalization_refuses_other_feature_counts():
    layer = Normalization(name="norm")
    layer.adapt(DATA)
    with pytest.raises(ValueError, match=r"^layer 'norm' expects 2 features, got 1$"):
        layer(torch.zeros(3, 1))


@pytest.mark.parametrize(
    ("axis", "data", "message"),
    [
        (-1, [1.0, 2.0], r"^data of shape \(2,\) has no axis -1 beside the samples"),
        (2, DATA, r"^data of shape \(3, 2\) has no axis 2 beside the samples"),
        (0, DATA, "has no axis 0 beside the samples"),
        (-1, np.zeros((0, 2)), "^data must have samples, all of them finite"),
        (-1, [[float("nan")]], "^data must have samples, all of them finite"),
    ],
)
def test_adapt_refuses_data_without_statistics(axis, data, message):
    layer = Normalization(axis)
    with pytest.raises(ValueError, match=message):
        layer.adapt(data)
    assert layer.mean.numel() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"mean": 1.0},
        {"variance": 1.0},
        {"mean": [1.0, 2.0], "variance": 1.0},
        {"mean": [[1.0]], "variance": [[1.0]]},
        {"axis": None, "mean": [1.0], "variance": [1.0]},
        {"mean": 1.0, "variance": -1.0},
    ],
)
def test_mean_and_variance_must_fit(arguments):
    with pytest.raises(ValueError, match="variance must"):
        Normalization(**arguments)


# Dropout


def test_dropout_zeroes_some_and_scales_the_rest(device):
    out = Dropout(0.25)(torch.ones(10_000, device=device)).cpu()
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_dropout_does_nothing_in_evaluation():
    x = torch.ones(100)
    assert torch.equal(Dropout(0.5).eval()(x), x)


@pytest.mark.parametrize("rate", [1.0, -0.1, float("nan")])
def test_the_rate_of_dropout_is_a_fraction(rate):
    with pytest.raises(ValueError, match=r"^rate must be a number in \[0, 1\), got "):
        Dropout(rate)
