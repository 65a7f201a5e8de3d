"""torchnn.optimizers._base: learning rates, slots and state, with a rule of the simplest kind."""

import copy

import pytest
import torch
from torch import nn

from torchnn.optimizers._base import SlotOptimizer


class Summing(SlotOptimizer):
    """w -= learning_rate * (the sum of all gradients so far)."""

    def __init__(self, learning_rate=1.0, weight_decay=None):
        super().__init__(learning_rate, weight_decay, ["sums"])

    def _update(self, learning_rate, parameters, grads, sums):
        torch._foreach_add_(sums, grads)
        torch._foreach_add_(parameters, sums, alpha=-learning_rate)


def parameter(*values, **options):
    return nn.Parameter(torch.tensor(values, **options))


def built(optimizer, *parameters):
    optimizer.build(parameters)
    return optimizer


def step(optimizer, grad=1.0):
    """Takes a step along a gradient of grad everywhere."""
    for each in optimizer.parameters:
        each.grad = torch.full_like(each, grad)
    optimizer.step()


def test_a_schedule_is_asked_at_every_step():
    w = parameter(0.0)
    optimizer = built(Summing(lambda step: 10.0**step), w)
    step(optimizer)
    assert w.tolist() == [-1]
    assert optimizer.current_learning_rate() == 10
    step(optimizer)
    assert w.tolist() == [-21]
    assert optimizer.iterations == 2


def test_the_learning_rate_can_be_assigned():
    w = parameter(0.0)
    optimizer = built(Summing(lambda step: 10.0), w)
    optimizer.learning_rate = 2
    assert type(optimizer.learning_rate) is float
    step(optimizer)
    assert w.tolist() == [-2]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-0.1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("0.1", TypeError),
        (True, TypeError),
        (None, TypeError),
        (float, TypeError),
    ],
)
def test_a_bad_learning_rate_is_an_error_and_changes_nothing(value, error):
    with pytest.raises(error, match=r"^learning_rate must be a non-negative number, got "):
        Summing(value)
    optimizer = Summing(0.1)
    with pytest.raises(error, match=r"^learning_rate must be a non-negative number, got "):
        optimizer.learning_rate = value
    assert optimizer.learning_rate == 0.1


def test_weight_decay_shrinks_before_the_step():
    w = parameter(2.0)
    step(built(Summing(0.5, weight_decay=0.5), w))
    assert w.tolist() == [2 - 2 * 0.5 * 0.5 - 0.5]


def test_slots_are_zeros_like_the_parameters(device):
    first, second = parameter(1.0, 2.0, device=device), parameter(3.0, dtype=torch.float64)
    optimizer = built(Summing(), first, second)
    assert [t.tolist() for t in optimizer.slots["sums"]] == [[0, 0], [0]]
    assert [t.dtype for t in optimizer.slots["sums"]] == [torch.float32, torch.float64]
    assert [t.device for t in optimizer.slots["sums"]] == [first.device, second.device]
    assert not any(t.requires_grad for t in optimizer.slots["sums"])


def test_parameters_without_gradient_stay():
    frozen, trained = parameter(1.0), parameter(1.0)
    optimizer = built(Summing(weight_decay=0.1), frozen, trained)
    trained.grad = torch.ones(1)
    optimizer.step()
    assert frozen.tolist() == [1]
    assert trained.tolist() == pytest.approx([-0.1])
    assert [t.tolist() for t in optimizer.slots["sums"]] == [[0], [1]]


def test_zero_grad_forgets_the_gradients():
    w = parameter(1.0)
    optimizer = built(Summing(), w)
    step(optimizer)
    optimizer.zero_grad()
    assert w.grad is None


def test_a_step_before_build_is_an_error():
    with pytest.raises(RuntimeError, match=r"has no parameters: call build"):
        Summing().step()


def test_building_again_keeps_the_state():
    w = parameter(1.0)
    optimizer = built(Summing(), w)
    step(optimizer)
    (before,) = optimizer.slots["sums"]
    optimizer.build([w])
    assert optimizer.slots["sums"][0] is before
    assert optimizer.iterations == 1


def test_building_again_moves_the_slots_to_the_parameters(device):
    layer = nn.Linear(1, 1)
    optimizer = built(Summing(), *layer.parameters())
    step(optimizer, 2.0)
    layer.to(device, torch.float64)
    optimizer.build(layer.parameters())
    assert [t.tolist() for t in optimizer.slots["sums"]] == [[[2]], [2]]
    assert [t.dtype for t in optimizer.slots["sums"]] == [torch.float64] * 2
    step(optimizer)


def test_an_optimizer_trains_one_model():
    first, second = parameter(1.0, 1.0), parameter(1.0)
    optimizer = built(Summing(), first)
    optimizer.build([second])  # before the first step, that is no harm
    step(optimizer)
    assert second.tolist() == [0]
    with pytest.raises(ValueError, match=r"^this Summing has already trained other parameters"):
        optimizer.build([first])


def test_new_parameters_of_the_same_owner_go_on_with_the_state():
    owner, (old, new) = object(), (parameter(0.0), parameter(0.0))
    optimizer = Summing()
    optimizer.build([old], owner)
    step(optimizer)
    optimizer.build([new], owner)
    step(optimizer)
    assert (old.tolist(), new.tolist(), optimizer.iterations) == ([-1], [-2], 2)


@pytest.mark.parametrize("is_same", [True, False])
def test_new_parameters_of_another_owner_or_shape_are_refused(is_same):
    owner, w = object(), parameter(0.0)
    optimizer = Summing()
    optimizer.build([w], owner)
    step(optimizer)
    new, its_owner = (parameter(0.0, 0.0), owner) if is_same else (parameter(0.0), object())
    with pytest.raises(ValueError, match=r"^this Summing has already trained other parameters"):
        optimizer.build([new], its_owner)
    step(optimizer)
    assert w.tolist() == [-3]


def test_a_parameter_that_takes_the_place_of_another_starts_anew():
    first, second, third = parameter(0.0), parameter(0.0, 0.0), parameter(0.0, 0.0, 0.0)
    optimizer = built(Summing(), first, second)
    step(optimizer)
    optimizer.build([second, third])
    assert [t.tolist() for t in optimizer.slots["sums"]] == [[1, 1], [0, 0, 0]]
    assert optimizer.iterations == 1
    step(optimizer)
    assert [p.tolist() for p in (first, second, third)] == [[-1], [-3, -3], [-1, -1, -1]]


def test_a_parameter_of_another_shape_is_an_error_and_changes_nothing():
    w = parameter(0.0)
    optimizer = built(Summing(), w)
    step(optimizer)
    w.data = torch.zeros(2)
    with pytest.raises(ValueError, match=r"does not fit the parameters' shapes"):
        optimizer.build([w])
    assert optimizer.slots["sums"][0].tolist() == [1]


@pytest.mark.parametrize("loads_first", [True, False])
def test_a_state_dict_goes_on_where_it_was(loads_first):
    first, second = built(Summing(), parameter(0.0)), Summing()
    step(first)
    w = parameter(0.0)
    if loads_first:
        second.load_state_dict(first.state_dict())
    second.build([w])
    if not loads_first:
        second.load_state_dict(first.state_dict())
    step(second)
    assert w.tolist() == [-2]
    assert (second.iterations, first.iterations) == (2, 1)
    assert first.slots["sums"][0].tolist() == [1]  # loading made a copy


def test_a_state_that_does_not_fit_is_an_error_and_changes_nothing():
    optimizer = built(Summing(), parameter(0.0))
    step(optimizer)
    with pytest.raises(ValueError, match=r"^state must hold iterations, sums; got iterations"):
        optimizer.load_state_dict({"iterations": 7})
    with pytest.raises(ValueError, match=r"does not fit the parameters' shapes"):
        optimizer.load_state_dict({"iterations": 7, "sums": [torch.zeros(2)]})
    with pytest.raises(ValueError, match=r"does not fit the parameters' shapes"):
        optimizer.load_state_dict({"iterations": 7, "sums": [torch.zeros(1)] * 2})
    assert optimizer.iterations == 1
    assert optimizer.slots["sums"][0].tolist() == [1]


def test_a_copy_trains_its_own_copy_of_the_model():
    w = parameter(0.0)
    other_w, other_optimizer = copy.deepcopy((w, built(Summing(), w)))
    step(other_optimizer)
    assert (w.tolist(), other_w.tolist()) == ([0], [-1])


def test_repr_shows_the_learning_rate():
    assert repr(Summing(0.25)) == "Summing(learning_rate=0.25)"
