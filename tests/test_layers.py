"""torchnn.layers: every layer beside Dense, alone and in a plain PyTorch network."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torchnn import layers, losses
from torchnn.layers import (
    ELU,
    Activation,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    InputLayer,
    LeakyReLU,
    Normalization,
    ReLU,
    Rescaling,
    Reshape,
    Softmax,
)
from torchnn.sequential import Sequential

EXAMPLES = [
    ELU(0.5),
    GaussianNoise(0.1),
    InputLayer((3,)),
    LeakyReLU(),
    ReLU(max_value=6.0),
    ReLU(),
    Reshape((3, -1, 1)),
    Softmax(),
    Softmax(1),
    Activation("relu"),
    Activation(torch.sin),
    Activation(nn.PReLU()),
    Dense(4, "sigmoid"),
    Dropout(0.5),
    Flatten(),
    Input((3,)),
    Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0]),
    Normalization((1,), mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0]),
    Rescaling(1 / 255, offset=-0.5),
    Rescaling([1.0, 2.0, 3.0], offset=[0.0, 0.0, 1.0]),
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
    network = nn.Sequential(copy.deepcopy(layer), Flatten(), Dense(2)).to(device)
    network(torch.rand(5, 3, device=device)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("layer", EXAMPLES, ids=repr)
def test_layers_trace_and_show_all_that_they_have(layer):
    layer, x = copy.deepcopy(layer).eval(), torch.rand(5, 3)
    assert "output_shape" in dict(inspect.getmembers(layer))
    wanted = layer(x)
    torch.testing.assert_close(torch.jit.trace(layer, x)(x), wanted)


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
        (LeakyReLU(), "LeakyReLU(0.3)"),
        (ReLU(max_value=6, threshold=1), "ReLU(max_value=6.0, threshold=1.0)"),
        (ELU(), "ELU(1.0)"),
        (Softmax(1), "Softmax(1)"),
        (Reshape([2, -1]), "Reshape((2, -1))"),
        (GaussianNoise(0.5, seed=3), "GaussianNoise(0.5, seed=3)"),
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


X = [-2.0, -0.5, 0.0, 3.0, 8.0]


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (LeakyReLU(), [-0.6, -0.15, 0, 3, 8]),
        (LeakyReLU(alpha=0.1), [-0.2, -0.05, 0, 3, 8]),
        (ReLU(), [0, 0, 0, 3, 8]),
        (ReLU(6), [0, 0, 0, 3, 6]),
        (ReLU(6, 0.1), [-0.2, -0.05, 0, 3, 6]),
        (ReLU(negative_slope=0.5, threshold=4.0), [-3, -2.25, -2, -0.5, 8]),
        (ELU(), [np.expm1(-2), np.expm1(-0.5), 0, 3, 8]),
        (ELU(alpha=2.0), [2 * np.expm1(-2), 2 * np.expm1(-0.5), 0, 3, 8]),
        (Softmax(), np.exp(X) / np.exp(X).sum()),
        (Softmax(axis=0), [1] * 5),
    ],
    ids=repr,
)
def test_activations_that_are_layers_have_kerass_formulas(layer, wanted, device):
    out = layer(torch.tensor([X], device=device)).cpu().numpy()
    np.testing.assert_allclose(out, [wanted], rtol=1e-6)


def test_layers_that_are_plain_activations_say_so():
    assert (ReLU().activation, ELU().activation, Softmax().activation) == ("relu", "elu", "softmax")
    assert Dense(1, LeakyReLU(0.5), kernel_initializer="ones")(torch.tensor([[-2.0]])).item() == -1


@pytest.mark.parametrize("loss", ["categorical_crossentropy", losses.CategoricalCrossentropy()])
def test_a_softmax_layer_goes_into_the_loss(loss):
    model = Sequential([Input((1,)), Dense(2, kernel_initializer="ones"), Softmax()])
    model.compile("sgd", loss)
    model.layers[0].set_weights([[[300.0, 0.0]], [0.0, 0.0]])
    wanted = 300.0  # log(1 + e^300), where log(softmax) would have been cut off
    assert model.evaluate(np.ones((1, 1)), np.array([[0, 1]]), verbose=0) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeakyReLU(-1), "^negative_slope must be a non-negative number, got -1"),
        (lambda: LeakyReLU(None), "^negative_slope must be a non-negative number, got None"),
        (lambda: ReLU(max_value=-1), "^max_value must be a non-negative number, got -1"),
        (lambda: ELU("a"), "^alpha must be a finite number, got 'a'"),
        (lambda: Softmax(0.5), "^axis must be an integer, got 0.5"),
        (lambda: Reshape(3), "^target_shape must be a tuple of integers, got 3"),
        (lambda: Reshape((2, 0)), "^each size in target_shape must be a positive integer, got 0"),
        (lambda: Reshape((-1, -1)), "^target_shape must have -1 once at most"),
        (lambda: GaussianNoise(-1), "^stddev must be a non-negative number, got -1"),
        (lambda: GaussianNoise(1, seed=-1), "^seed must be a non-negative integer, got -1"),
        (lambda: InputLayer(), r"^shape must be a tuple of integers such as \(400,\), got None"),
        (lambda: Dense(1, input_shape="3"), "^input_shape must be a tuple of integers such as"),
        (lambda: Dense(1, input_shape=(0,)), "^each size in input_shape must be a positive int"),
        (lambda: Flatten(input_dim=2.5), "^input_dim must be a positive integer, got 2.5"),
        (lambda: Dense(1, trainable=1), "^trainable must be True or False, got 1"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


# The first layer's shape


@pytest.mark.parametrize(
    ("first", "shapes"),
    [
        (Dense(4, input_shape=(3,)), [(3, 4), (4,)]),
        (Dense(4, input_dim=3), [(3, 4), (4,)]),
        (Dense(4, input_shape=[5, 3]), [(3, 4), (4,)]),
        (Dense(4, input_shape=3), [(3, 4), (4,)]),
        (Activation("relu", input_shape=(4,)), []),
        (Dropout(0.5, input_dim=4), []),
        (Flatten(input_shape=(2, 2)), []),
        (InputLayer(input_shape=(4,)), []),
    ],
    ids=repr,
)
def test_the_first_layer_may_say_what_comes_in(first, shapes):
    first = copy.deepcopy(first)
    model = Sequential([first, Dense(1)])
    assert [w.shape for w in model.get_weights()] == [*shapes, (4, 1), (1,)]
    added = Sequential()
    added.add(copy.deepcopy(first))
    added.add(Dense(1))
    assert added.count_params() == model.count_params()


def test_what_another_layer_says_of_its_input_counts_for_nothing():
    model = Sequential([Dense(4, input_dim=3), Dense(1, input_dim=99)])
    assert model.layers[1].kernel.shape == (4, 1)
    given = Sequential([Input((3,)), Dense(1, input_dim=99)])
    assert given.input_shape == (None, 3)


def test_the_data_must_have_the_first_layers_shape():
    model = Sequential([Flatten(input_shape=(2, 2)), Dense(1)])
    with pytest.raises(ValueError, match=r"^x must have samples of \(2, 2\), as the first"):
        model.predict(np.ones((5, 4)), verbose=0)


# Input


@pytest.mark.parametrize("shape", [(3,), [3], torch.Size([3]), (np.int64(3),), 3])
def test_input_is_the_identity_on_its_shape(shape):
    layer, x = Input(shape), torch.zeros(5, 3)
    assert layer.shape == (None, 3)
    assert layer(x) is x


def test_input_takes_the_shape_of_a_batch():
    layer = Input(batch_shape=(4, 3))
    assert (layer.sample_shape, layer.batch_size) == ((3,), 4)
    assert Input(batch_shape=[None, 3]).batch_size is None
    again = Input.from_config(Input((3,), 4, "float64").get_config())
    assert (again.sample_shape, again.batch_size, again.dtype) == ((3,), 4, torch.float64)
    with pytest.raises(ValueError, match=r"^batch_shape must be given alone"):
        Input((3,), batch_shape=(None, 3))
    with pytest.raises(TypeError, match=r"^batch_shape must be a tuple such as"):
        Input(batch_shape=3)
    with pytest.raises(ValueError, match=r"^batch_size must be a positive integer, got 0"):
        Input((3,), batch_size=0)
    with pytest.raises(ValueError, match=r"^dtype must be a floating dtype"):
        Input((3,), dtype="string")


@pytest.mark.parametrize("shape", [(3,), (5, 4), (5, 3, 1), ()])
def test_input_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"^layer 'in' expects x of shape \(N, 3\), got \("):
        Input((3,), name="in")(torch.zeros(shape))


@pytest.mark.parametrize("shape", [400.0, "400", None, {400}])
def test_the_shape_of_an_input_is_a_tuple(shape):
    with pytest.raises(
        TypeError, match=r"^shape must be a tuple of integers such as \(400,\), got"
    ):
        Input(shape)


@pytest.mark.parametrize(
    ("shape", "error"),
    [((0,), ValueError), ((2.5,), TypeError), (0, ValueError), (True, TypeError)],
)
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


# Reshape


@pytest.mark.parametrize(
    ("target", "shape", "wanted"),
    [((2, 3), (5, 6), (5, 2, 3)), ((-1,), (5, 2, 3), (5, 6)), ((3, -1), (0, 6), (0, 3, 2))],
)
def test_reshape_keeps_the_samples(target, shape, wanted):
    assert Reshape(target)(torch.zeros(shape)).shape == wanted


@pytest.mark.parametrize("target", [(4,), (5, -1)])
def test_reshape_keeps_the_numbers(target):
    with pytest.raises(ValueError, match=r"^layer 'r' makes samples of shape .*, got \(2, 3\)$"):
        Reshape(target, name="r")(torch.zeros(5, 2, 3))


# Rescaling


def test_rescaling_scales_and_shifts(device):
    x = torch.tensor([[0, 255]], dtype=torch.uint8, device=device)
    assert Rescaling(2 / 255, offset=-1)(x).tolist() == [[-1, 1]]


@pytest.mark.parametrize("number", [np.array(0.5), torch.tensor(0.5), np.float32(0.5), 0.5])
def test_an_array_without_axes_is_a_number(number):
    layer = Rescaling(number, offset=number)
    assert repr(layer) == "Rescaling(0.5, offset=0.5)"
    assert not layer.state_dict()
    assert layer(torch.tensor([[1.0, 3.0]])).tolist() == [[1, 2]]


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_rescaling_by_arrays_is_feature_by_feature(kind, device):
    layer = Rescaling(kind([2.0, 0.5]), offset=kind([1, 0])).to(device)
    assert repr(layer) == "Rescaling([2.0, 0.5], offset=[1.0, 0.0])"
    x = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8, device=device)
    assert layer(x).tolist() == [[3, 1], [7, 2]]
    assert list(layer.state_dict()) == ["scale", "offset"]
    assert layer.double()(x).dtype == torch.float64


@pytest.mark.parametrize("x", [torch.ones(4, 1), torch.ones(4, 3), torch.ones(())])
def test_rescaling_stretches_nothing(x):
    with pytest.raises(ValueError, match=r"^layer 'r' expects x with the last axes \(2,\), got"):
        Rescaling([2.0, 0.5], name="r")(x)


def test_rescaling_refuses_an_array_that_is_not_finite():
    with pytest.raises(ValueError, match=r"^offset must be finite, got \[1\.0, nan\]$"):
        Rescaling(1.0, [1.0, float("nan")])


@pytest.mark.parametrize(
    "arguments", [("1",), (1, None), (True,), (np.array(True),), (["a"],), (torch.tensor(1j),)]
)
def test_rescaling_takes_numbers(arguments):
    with pytest.raises(TypeError, match=r"must (be a finite number|hold numbers), got "):
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


DEEP = torch.arange(240, dtype=torch.float64).reshape(5, 4, 3, 4).square()


@pytest.mark.parametrize(
    ("axis", "others", "shape"),
    [
        ((1, 2), (0, 3), (1, 4, 3, 1)),
        ((-2, 1), (0, 3), (1, 4, 3, 1)),
        ([1, -1], (0, 2), (1, 4, 1, 4)),
        ((1, 2, 3), (0,), (1, 4, 3, 4)),
        ((2,), (0, 1, 3), (1, 1, 3, 1)),
        ((), (0, 1, 2, 3), ()),
    ],
)
def test_adapt_takes_several_axes(axis, others, shape):
    layer = Normalization(axis).double()
    layer.adapt(DEEP)
    mean, std = DEEP.mean(others), DEEP.std(others, correction=0)
    torch.testing.assert_close(layer.mean, mean)
    torch.testing.assert_close(layer.variance, std.square())
    torch.testing.assert_close(layer(DEEP), (DEEP - mean.reshape(shape)) / std.reshape(shape))
    given = Normalization(axis, mean=mean, variance=std.square()).double()
    torch.testing.assert_close(given(DEEP), layer(DEEP), rtol=1e-6, atol=1e-6)


def uneven(data, kind=torch.tensor):
    return [kind(data[:2]), kind(data[2:])]


@pytest.mark.parametrize(
    "batches",
    [
        uneven(DATA),
        tuple(uneven(DATA, np.array)),
        iter(uneven(DATA)),
        ((batch, None) for batch in uneven(DATA)),
        DataLoader(TensorDataset(torch.tensor(DATA), torch.zeros(3)), batch_size=2),
        DataLoader(torch.tensor(DATA), batch_size=1),
    ],
)
def test_adapt_goes_over_batches(batches):
    layer = Normalization()
    layer.adapt(batches)
    torch.testing.assert_close(layer.mean, torch.tensor([3.0, 20.0]))
    torch.testing.assert_close(layer.variance, torch.tensor([8 / 3, 200.0]))


@pytest.mark.parametrize("axis", [-1, None, (1, 2)])
def test_how_data_is_cut_into_batches_changes_nothing(axis):
    data = np.random.default_rng(0).normal(1e6, 1e-2, size=(1000, 3, 2))
    whole, parts = Normalization(axis).double(), Normalization(axis).double()
    whole.adapt(data)
    parts.adapt(data[start : start + 7] for start in range(0, 1000, 7))
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(parts.variance, whole.variance, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], ValueError, "^data of shape"),
        (iter([]), ValueError, "^data must have samples"),
        (uneven([[1.0, 2.0], [3.0, 4.0], [float("inf"), 5.0]]), ValueError, "all of them finite"),
        (iter([np.ones((2, 2)), np.ones((2, 3))]), ValueError, r"same features, got .*2,\) and"),
        (iter([["a"]]), TypeError, "^data must hold numbers"),
        (TensorDataset(torch.ones(3, 2)), TypeError, "^data is a Dataset: wrap it in a torch"),
        (np.ma.masked_less([[1.0], [2.0]], 2), ValueError, "^data must have no masked entries"),
    ],
)
def test_batches_without_statistics_leave_the_layer_as_it_was(batches, error, message):
    layer = Normalization(mean=[1.0], variance=[2.0])
    with pytest.raises(error, match=message):
        layer.adapt(batches)
    assert (layer.mean.tolist(), layer.variance.tolist()) == ([1], [2])


@pytest.mark.parametrize("axis", [1.5, "1", True, (1, 2.0), [None]])
def test_axes_are_integers(axis):
    with pytest.raises(TypeError, match=r"axis must be an integer, got "):
        Normalization(axis)


def test_one_axis_by_two_names_is_an_error():
    with pytest.raises(
        ValueError, match=r"^layer 'n' expects x with the axes \(1, -1\), got shape"
    ):
        Normalization((1, -1), name="n").adapt(DATA)


def test_normalization_refuses_other_axes():
    layer = Normalization((1, 2), mean=np.ones((2, 3)), variance=np.ones((2, 3)), name="n")
    with pytest.raises(ValueError, match=r"^layer 'n' expects 2x3 features, got 2x4$"):
        layer(torch.ones(5, 2, 4))
    with pytest.raises(ValueError, match=r"^layer 'n' expects x with the axes \(1, 2\), got shape"):
        layer(torch.ones(5, 2))


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
        {"mean": 1.0, "variance": float("nan")},
        {"axis": (1, 2), "mean": [1.0], "variance": [1.0]},
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


# GaussianNoise


def test_noise_has_its_deviation_in_training_alone(device):
    x = torch.full((20_000,), 3.0, device=device)
    layer = GaussianNoise(0.5)
    out = layer(x)
    assert out.mean().item() == pytest.approx(3, abs=0.02)
    assert out.std().item() == pytest.approx(0.5, rel=0.02)
    assert layer.eval()(x) is x


def test_noise_with_a_seed_is_its_own():
    x, one, other = torch.zeros(9), GaussianNoise(1.0, seed=1), GaussianNoise(1.0, seed=1)
    before = torch.get_rng_state()
    first, second = one(x), one(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(other(x), first)
    assert not torch.equal(first, second)
    assert not torch.equal(GaussianNoise(1.0, seed=2)(x), second)
