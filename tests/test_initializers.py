"""torchnn.initializers: ranges and spreads against Keras's formulas."""

import copy
import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch

from torchnn import initializers
from torchnn.layers import BatchNormalization, Dense, PReLU

UNITS, IN_FEATURES = 250, 400

UNIFORM_LIMITS = {
    "glorot_uniform": math.sqrt(6 / (IN_FEATURES + UNITS)),
    "he_uniform": math.sqrt(6 / IN_FEATURES),
    "lecun_uniform": math.sqrt(3 / IN_FEATURES),
    "random_uniform": 0.05,
}
TRUNCATED_NORMAL_STDS = {
    "glorot_normal": math.sqrt(2 / (IN_FEATURES + UNITS)),
    "he_normal": math.sqrt(2 / IN_FEATURES),
    "lecun_normal": math.sqrt(1 / IN_FEATURES),
}


def drawn(name, device="cpu", shape=(UNITS, IN_FEATURES)):
    tensor = torch.full(shape, torch.nan, device=device)
    initializers.get(name)(tensor)
    return tensor.cpu()


@pytest.mark.parametrize(("name", "limit"), UNIFORM_LIMITS.items())
def test_uniform_fills_its_range_and_no_more(name, limit, device):
    values = drawn(name, device)
    assert 0.999 * limit < values.max() <= limit
    assert 0.999 * limit < -values.min() <= limit
    torch.testing.assert_close(values.std().item(), limit / math.sqrt(3), rtol=0.02, atol=0)


@pytest.mark.parametrize(("name", "std"), TRUNCATED_NORMAL_STDS.items())
def test_truncated_normal_has_its_spread_and_is_cut_off(name, std, device):
    values = drawn(name, device)
    torch.testing.assert_close(values.std().item(), std, rtol=0.02, atol=0)
    assert 0.99 < values.abs().max() / (2 * std / 0.8796) < 1.001


def test_random_normal_has_its_spread():
    values = drawn("random_normal")
    torch.testing.assert_close(values.std().item(), 0.05, rtol=0.02, atol=0)
    torch.testing.assert_close(values.mean().item(), 0.0, rtol=0, atol=0.001)


def test_orthogonal_has_orthonormal_rows():
    values = drawn("orthogonal", shape=(5, 20)).double()
    torch.testing.assert_close(values @ values.T, torch.eye(5).double(), rtol=0, atol=1e-6)


def test_zeros_and_ones_are_what_they_say():
    assert drawn("zeros").unique().tolist() == [0]
    assert drawn("ones").unique().tolist() == [1]


def test_fans_of_a_bias_are_its_length():
    values = drawn("glorot_uniform", shape=(10_000,))
    limit = math.sqrt(6 / 20_000)
    assert 0.99 * limit < values.max() <= limit


def test_a_function_will_do():
    assert initializers.get(torch.nn.init.xavier_uniform_) is torch.nn.init.xavier_uniform_


@pytest.mark.parametrize("value", ["glorot", "glorot_unifrom"])
def test_an_unknown_name_is_an_error_with_a_suggestion(value):
    with pytest.raises(ValueError, match=f"^unknown initializer '{value}': did you mean 'glorot_"):
        initializers.get(value)


@pytest.mark.parametrize("value", [None, 3])
def test_what_is_no_initializer_is_a_type_error(value):
    with pytest.raises(TypeError, match=r"^initializer must be an object or one of glorot_uniform"):
        initializers.get(value)


RANDOM = [
    initializers.GlorotNormal,
    initializers.GlorotUniform,
    initializers.HeNormal,
    initializers.HeUniform,
    initializers.LecunNormal,
    initializers.LecunUniform,
    initializers.Orthogonal,
    initializers.RandomNormal,
    initializers.RandomUniform,
    initializers.TruncatedNormal,
    initializers.VarianceScaling,
]


@pytest.mark.parametrize("kind", RANDOM)
def test_a_seed_gives_the_same_values_at_each_call(kind):
    seeded, other = kind(seed=1), kind(seed=2)
    first = drawn(seeded, shape=(5, 4))
    assert torch.equal(drawn(seeded, shape=(5, 4)), first)
    assert torch.equal(drawn(copy.deepcopy(seeded), shape=(5, 4)), first)
    assert torch.equal(drawn(pickle.loads(pickle.dumps(seeded)), shape=(5, 4)), first)
    assert not torch.equal(drawn(other, shape=(5, 4)), first)
    assert torch.equal(drawn(kind.from_config(seeded.get_config()), shape=(5, 4)), first)
    free = kind()
    assert not torch.equal(drawn(free, shape=(5, 4)), drawn(free, shape=(5, 4)))


def test_a_seed_leaves_torchs_generator_alone():
    before = torch.get_rng_state()
    drawn(initializers.HeNormal(seed=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_shape_is_that_of_a_kernel():
    made = initializers.GlorotUniform(seed=1)(shape=(IN_FEATURES, UNITS))
    assert made.shape == (IN_FEATURES, UNITS)
    assert torch.equal(made, drawn(initializers.GlorotUniform(seed=1)).T)
    assert initializers.HeUniform()((7,)).shape == (7,)
    assert initializers.Ones()((1, 2, 3), dtype="float64").dtype == torch.float64
    assert initializers.Zeros()([2, 2], torch.float16).dtype == torch.float16


@pytest.mark.parametrize("shape", [(2.5,), ("3",), (0, 1), "34"])
def test_sizes_are_positive_integers(shape):
    with pytest.raises((TypeError, ValueError), match="each size in shape must be a positive int"):
        initializers.Ones()(shape)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("uniform", initializers.RandomUniform),
        ("normal", initializers.RandomNormal),
        ("TruncatedNormal", initializers.TruncatedNormal),
        ("VarianceScaling", initializers.VarianceScaling),
        ("constant", initializers.Constant),
        ("identity", initializers.Identity),
        ("zero", initializers.Zeros),
        ("one", initializers.Ones),
        (initializers.HeNormal, initializers.HeNormal),
    ],
)
def test_names_and_classes_become_objects(name, kind):
    assert type(initializers.get(name)) is kind


def test_settings_are_arguments():
    values = drawn(initializers.RandomNormal(mean=3.0, stddev=0.5))
    assert values.mean().item() == pytest.approx(3, abs=0.01)
    assert values.std().item() == pytest.approx(0.5, rel=0.02)
    values = drawn(initializers.TruncatedNormal(mean=3.0, stddev=0.5))
    assert (values - 3).abs().max() <= 1
    assert values.std().item() == pytest.approx(0.5 * 0.8796, rel=0.02)
    assert drawn(initializers.TruncatedNormal(mean=3.0, stddev=0.0)).unique().tolist() == [3]
    values = drawn(initializers.RandomUniform(1.0, 2.0))
    assert 1 <= values.min() < 1.001 < 1.999 < values.max() <= 2
    assert torch.equal(drawn(initializers.Identity(2.0), shape=(2, 3)), 2 * torch.eye(2, 3))
    rows = drawn(initializers.Orthogonal(gain=3.0), shape=(2, 5))
    torch.testing.assert_close(rows @ rows.T, 9 * torch.eye(2))


@pytest.mark.parametrize("distribution", initializers.DISTRIBUTIONS)
@pytest.mark.parametrize(("mode", "fan"), [("fan_in", 400), ("fan_out", 250), ("fan_avg", 325)])
def test_variance_scaling_has_its_variance(mode, fan, distribution):
    values = drawn(initializers.VarianceScaling(0.5, mode, distribution))
    assert values.var().item() == pytest.approx(0.5 / fan, rel=0.03)


def test_a_constant_may_be_an_array_in_kerass_order():
    kernel = np.arange(6.0).reshape(3, 2)
    layer = Dense(2, kernel_initializer=initializers.Constant(kernel), in_features=3)
    np.testing.assert_array_equal(layer.get_weights()[0], kernel)
    assert drawn(initializers.Constant(0.5)).unique().tolist() == [0.5]


def test_a_short_name_called_with_settings_is_another_initializer():
    assert repr(initializers.random_normal(stddev=0.1)) == (
        "RandomNormal(mean=0.0, stddev=0.1, seed=None)"
    )
    assert initializers.glorot_uniform(seed=3).get_config() == {"seed": 3}
    assert initializers.constant(0.25).value == 0.25


def test_a_function_of_kerass_kind_is_given_its_shape():
    def ramp(shape, dtype=None):
        return torch.arange(shape[0] * shape[1], dtype=dtype).reshape(shape)

    layer = Dense(2, kernel_initializer=ramp, in_features=3)
    assert layer.get_weights()[0].tolist() == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ValueError, match=r"must return shape \(3, 2\), got \(2, 3\)$"):
        Dense(2, kernel_initializer=lambda shape: np.ones(shape[::-1]), in_features=3)


def test_an_initializer_of_ones_own_fills():
    class Sevens(initializers.Initializer):
        def fill(self, tensor, generator):
            tensor.fill_(7)

    layer = Dense(1, bias_initializer=Sevens())
    layer.build(1)
    assert layer.bias.tolist() == [7]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: initializers.RandomNormal(stddev=-1), "^stddev must be a non-negative number"),
        (lambda: initializers.RandomUniform(1, 0), "^maxval must be at least minval, 1, got 0"),
        (lambda: initializers.VarianceScaling(0), "^scale must be a positive number, got 0"),
        (lambda: initializers.VarianceScaling(mode="in"), "^mode must be one of fan_in, fan_out"),
        (lambda: initializers.VarianceScaling(distribution="x"), "^distribution must be one of"),
        (lambda: initializers.HeNormal(seed=1.5), "^seed must be an integer, got 1.5"),
        (lambda: initializers.Constant("a"), "^value must hold numbers"),
        (lambda: initializers.Ones()((2,), dtype="int32"), "^dtype must be a floating dtype"),
    ],
)
def test_settings_out_of_range_are_errors(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_none_is_the_default_of_a_layer():
    dense = Dense(300, kernel_initializer=None, bias_initializer=None, in_features=300)
    limit = math.sqrt(6 / 600)
    assert 0.9 * limit < dense.weight.abs().max() <= limit
    assert (dense.bias == 0).all()
    normalization = BatchNormalization(
        **{f"{name}_initializer": None for name in ("beta", "gamma", "moving_mean")},
        moving_variance_initializer=None,
    )
    normalization.build((5, 2))
    gamma, beta, mean, variance = normalization.get_weights()
    assert (*gamma, *beta, *mean, *variance) == (1, 1, 0, 0, 0, 0, 1, 1)
    prelu = PReLU(alpha_initializer=None)
    prelu.build((5, 2))
    assert prelu.alpha.tolist() == [0, 0]
    with pytest.raises(TypeError, match=r"^initializer must be"):
        initializers.get(None)


def test_a_function_that_takes_a_dtype_takes_a_shape_whatever_it_calls_it():
    values = np.arange(6.0).reshape(3, 2)  # (in_features, units)
    layer = Dense(2, kernel_initializer=lambda s, dtype=None: values, in_features=3)
    np.testing.assert_array_equal(layer.get_weights()[0], values)


@pytest.mark.parametrize(
    ("function", "returned"),
    [
        (lambda t: torch.zeros_like(t), r"Tensor of shape \(2, 3\)"),
        (lambda t: np.zeros((3, 2)), r"ndarray of shape \(3, 2\)"),
        (lambda t: 1.0, "float"),
    ],
)
def test_what_neither_fills_nor_takes_a_shape_is_an_error(function, returned):
    with pytest.raises(
        TypeError, match=f"fill the tensor .* took a tensor and returned {returned}"
    ):
        Dense(2, kernel_initializer=function, in_features=3)
    unbuilt = Dense(2, kernel_initializer=function)
    with pytest.raises(TypeError, match="fill the tensor"):
        unbuilt(torch.ones(1, 3))
    assert not unbuilt.built


def test_a_function_may_fill_by_a_view_and_return_nothing():
    def halves(tensor):
        tensor.data.fill_(0.5)

    for function in (halves, lambda tensor: tensor.detach().fill_(0.5)):
        assert Dense(1, kernel_initializer=function, in_features=2).weight.tolist() == [[0.5, 0.5]]


def test_a_class_may_say_it_by_kerass_call():
    class Ramp(initializers.Initializer):
        def __init__(self, step=1.0):
            self.step = step

        def __call__(self, shape, dtype=None):
            return self.step * torch.arange(float(np.prod(shape))).reshape(shape)

    layer = Dense(2, kernel_initializer=Ramp(2.0), bias_initializer=Ramp, in_features=2)
    assert layer.get_weights()[0].tolist() == [[0, 2], [4, 6]]
    assert layer.bias.tolist() == [0, 1]
    assert Ramp(3.0).get_config()["step"] == 3


def test_a_class_may_extend_one_of_ours_by_its_call():
    class Half(initializers.HeNormal):
        def __call__(self, tensor):
            return super().__call__(tensor).mul_(0.5)

    class HalfOfShape(initializers.HeNormal):
        def __call__(self, shape, dtype=None):
            return super().__call__(shape, dtype=dtype) * 0.5

    whole = Dense(2, kernel_initializer=initializers.HeNormal(seed=1), in_features=3).weight
    for half in (Half(seed=1), HalfOfShape(seed=1)):
        weight = Dense(2, kernel_initializer=half, in_features=3).weight
        assert torch.equal(weight, whole / 2)
    assert HalfOfShape(seed=1)(shape=(3, 2)).shape == (3, 2)


def typed(tensor, dtype=None):
    tensor.fill_(1)


@pytest.mark.parametrize(
    "function",
    [
        typed,
        partial(lambda t, dtype=None: t.fill_(1), dtype=torch.float32),
        lambda t: torch.nn.init.ones_(t).clone(),
        lambda t: t.fill_(1).sum(),
    ],
)
def test_what_fills_may_take_a_dtype_and_return_anything(function):
    assert Dense(1, kernel_initializer=function, in_features=2).weight.tolist() == [[1, 1]]
