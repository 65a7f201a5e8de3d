"""torchnn.initializers: ranges and spreads against Keras's formulas."""

import math

import pytest
import torch

from torchnn import initializers

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
