"""torchnn.optimizers._base: learning rates, slots and state, with a rule of the simplest kind."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import optimizers
from torchnn.layers import Dense
from torchnn.optimizers._base import SlotOptimizer


class Summing(SlotOptimizer):
    """w -= learning_rate * (the sum of all gradients so far)."""

    def __init__(self, learning_rate=1.0, weight_decay=None, **common):
        super().__init__(learning_rate, weight_decay, ["sums"], **common)

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
    assert isinstance(optimizer.learning_rate, float)
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


def test_a_learning_rate_reads_like_keras_s_variable():
    optimizer = Summing(0.25)
    assert float(optimizer.learning_rate) == optimizer.learning_rate.numpy() == 0.25
    assert type(optimizer.current_learning_rate()) is float
    with pytest.raises(TypeError, match=r"write optimizer\.learning_rate = 0\.5$"):
        optimizer.learning_rate.assign(0.5)


# Gradients of two parameters, (3, 4) and 12: their norms are 5 and 12, and 13 together.
LIMITED = {
    "clipnorm": [(10, [3, 4], [10]), (1, [0.6, 0.8], [1]), (20, [3, 4], [12])],
    "clipvalue": [(3.5, [3, 3.5], [3.5]), (20, [3, 4], [12])],
    "global_clipnorm": [(6.5, [1.5, 2], [6]), (20, [3, 4], [12])],
}
CASES = [(name, *case) for name, cases in LIMITED.items() for case in cases]


@pytest.mark.parametrize(("name", "limit", "first", "second"), CASES)
def test_gradients_are_clipped_by_keras_formula(name, limit, first, second, device):
    parameters = parameter(0.0, 0.0, device=device), parameter(0.0, device=device)
    optimizer = built(Summing(**{name: limit}), *parameters)
    grads = torch.tensor([-3.0, 4.0], device=device), torch.tensor([12.0], device=device)
    for each, grad in zip(parameters, grads, strict=True):
        each.grad = grad.clone()
    optimizer.step()
    first = [-first[0], first[1]]
    assert [slot.tolist() for slot in optimizer.slots["sums"]] == [
        pytest.approx(first),
        pytest.approx(second),
    ]
    assert [p.grad.tolist() for p in parameters] == [g.tolist() for g in grads]


@pytest.mark.parametrize("name", LIMITED)
def test_no_gradient_is_no_reason_to_divide_by_zero(name):
    w = parameter(1.0, -1.0)
    step(built(Summing(**{name: 0.1}), w), 0.0)
    assert w.tolist() == [1, -1]


def test_negative_values_are_clipped_like_positive_ones():
    w = parameter(0.0)
    step(built(Summing(clipvalue=0.5), w), -3.0)
    assert w.tolist() == [0.5]


def test_the_norm_of_all_gradients_spans_dtypes():
    parameters = parameter(0.0, dtype=torch.float64), parameter(0.0)
    optimizer = built(Summing(global_clipnorm=5.0), *parameters)
    parameters[0].grad, parameters[1].grad = torch.tensor([6.0]).double(), torch.tensor([8.0])
    optimizer.step()
    assert [p.item() for p in parameters] == pytest.approx([-3, -4])


def test_clipping_leaves_the_weight_decay_alone():
    w = parameter(2.0)
    step(built(Summing(0.5, weight_decay=0.5, clipvalue=0.1), w), 3.0)
    assert w.tolist() == pytest.approx([2 - 2 * 0.5 * 0.5 - 0.5 * 0.1])


def test_one_limit_is_set_at_a_time():
    message = r"^only one of clipnorm, clipvalue, global_clipnorm can be set, got clipnorm=1 and "
    with pytest.raises(ValueError, match=message + "clipvalue=0.5$"):
        Summing(clipnorm=1, clipvalue=0.5)
    optimizer = Summing(clipnorm=1.0)
    with pytest.raises(ValueError, match=message + "global_clipnorm=2$"):
        optimizer.global_clipnorm = 2
    optimizer.clipvalue = None
    assert (optimizer.clipnorm, optimizer.clipvalue) == (1, None)
    optimizer.clipnorm = None
    optimizer.global_clipnorm = 2
    assert (optimizer.clipnorm, optimizer.global_clipnorm) == (None, 2)


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1.0, ValueError), ("1", TypeError), (True, TypeError)]
)
@pytest.mark.parametrize("name", LIMITED)
def test_a_limit_is_a_positive_number(name, value, error):
    with pytest.raises(error, match=f"^{name} must be a positive number, got "):
        Summing(**{name: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 0.1}, r"^Summing takes no lr: the learning rate is learning_rate$"),
        ({"decay": 1e-6}, r"^Summing takes no decay: .* torchnn\.optimizers\.schedules$"),
        ({"gradient_accumulation_steps": 4}, r"^Summing takes no .*: a larger batch_size has"),
        ({"loss_scale_factor": 2.0}, r"^Summing takes no loss_scale_factor: losses are not scaled"),
        ({"jit_compile": True}, r"^Summing takes no jit_compile: the kernels are compiled already"),
        ({"momentun": 0.9}, r"^Summing got an unknown argument momentun$"),
    ],
)
def test_arguments_that_are_not_there_say_what_to_do(arguments, message):
    with pytest.raises(TypeError, match=message):
        Summing(**arguments)


def test_what_is_switched_off_may_be_missing():
    optimizer = Summing(use_ema=False, jit_compile=False, loss_scale_factor=None, name="mine")
    assert (optimizer.name, Summing().name) == ("mine", "summing")


def test_the_old_name_of_the_learning_rate_says_the_new_one():
    optimizer, message = Summing(), "^Summing has no lr: the learning rate is learning_rate$"
    with pytest.raises(AttributeError, match=message):
        optimizer.lr = 0.1
    with pytest.raises(AttributeError, match=message):
        _ = optimizer.lr
    assert not hasattr(optimizer, "lr")


def test_gradients_can_be_applied_to_variables():
    first, second = parameter(1.0), parameter(2.0)
    optimizer, kept = Summing(0.5), torch.tensor([7.0])
    first.grad = kept
    assert optimizer.apply_gradients(zip([torch.ones(1), None], [first, second], strict=True)) == 1
    assert optimizer.apply_gradients([(torch.ones(1), second)]) == 2
    assert [first.item(), second.item()] == [0.5, 1.5]
    assert (first.grad is kept, second.grad) == (True, None)
    with pytest.raises(ValueError, match=r"^each variable must be one of the parameters that"):
        optimizer.apply_gradients([(torch.ones(1), parameter(0.0))])


def test_gradients_can_be_applied_to_what_a_model_shows():
    layer = Dense(2, in_features=3)
    before, grad = layer.get_weights()[0], torch.arange(6.0).reshape(3, 2)
    optimizer = Summing(0.5)
    optimizer.build(layer.trainable_variables)
    optimizer.apply_gradients([(grad, layer.trainable_variables[0]), (None, layer.weights[1])])
    np.testing.assert_allclose(layer.get_weights()[0], before - 0.5 * grad.numpy(), rtol=1e-6)


def test_a_config_makes_the_same_optimizer():
    config = Summing(0.5, weight_decay=0.1, clipnorm=2.0, name="mine").get_config()
    limits = {"clipnorm": 2.0, "clipvalue": None, "global_clipnorm": None}
    ema = {"use_ema": False, "ema_momentum": 0.99, "ema_overwrite_frequency": None}
    assert config == {"learning_rate": 0.5, "weight_decay": 0.1, **limits, **ema, "name": "mine"}
    assert Summing.from_config(config).get_config() == config


def test_repr_shows_the_learning_rate():
    assert repr(Summing(0.25)) == "Summing(learning_rate=0.25)"


def test_apply_takes_gradients_and_variables_apart():
    weight, other = torch.ones(2), torch.ones(1)
    optimizer = optimizers.SGD(0.5)
    optimizer.apply([torch.tensor([1.0, 2.0]), None], [weight, other])
    assert (weight.tolist(), other.tolist()) == ([0.5, 0], [1])
    optimizer.apply([None, torch.ones(1)])
    assert (other.tolist(), optimizer.iterations) == ([0.5], 2)
    with pytest.raises(ValueError, match=r"^grads must hold 2 gradients, got 1$"):
        optimizer.apply([None])


def test_an_optimizer_is_made_of_a_dict():
    made = optimizers.get({"class_name": "Adam", "config": {"learning_rate": 0.25}})
    assert (type(made), made.learning_rate) == (optimizers.Adam, 0.25)
    with pytest.raises(ValueError, match=r"^unknown optimizer 'Eve'"):
        optimizers.get({"class_name": "Eve", "config": {}})


def test_gradients_may_be_arrays():
    layer, weight = Dense(2, in_features=3), parameter(0.0)
    before = layer.get_weights()
    optimizer = optimizers.SGD(1.0)
    grad = np.arange(6.0).reshape(3, 2)  # as the kernel's shape is
    variables = [*layer.trainable_variables, weight]
    optimizer.apply_gradients(zip([grad, [1.0, 2.0], np.ones(1)], variables, strict=True))
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(kernel, before[0] - grad, rtol=1e-6)
    np.testing.assert_allclose(bias, [-1, -2])
    assert weight.item() == -1


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ([None, None], "^grads_and_variables must hold a gradient at least, got none for 2 var"),
        ([torch.ones(2, 3), None], r"^the gradient of .*kernel must .*, \(3, 2\), got \(2, 3\)$"),
        ([torch.ones(3, 2), np.ones(3)], r"^the gradient of .*bias must .*, \(2,\), got \(3,\)$"),
    ],
)
def test_gradients_that_do_not_fit_change_nothing(grads, message):
    layer = Dense(2, in_features=3)
    before, optimizer = layer.get_weights(), optimizers.SGD(1.0)
    with pytest.raises(ValueError, match=message):
        optimizer.apply_gradients(zip(grads, layer.trainable_variables, strict=True))
    assert (optimizer.iterations, optimizer.parameters) == (0, [])
    for one, other in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    weight = parameter(0.0)
    with pytest.raises(ValueError, match=r"^the gradient must have the variable's shape, \(1,\)"):
        optimizer.apply([torch.ones(2)], [weight])


@pytest.mark.parametrize("rate", [lambda: 0.1, lambda step, epoch: 0.1])
def test_a_schedule_takes_the_step(rate):
    message = "^learning_rate must be a number or a function of the number of steps taken, such as"
    with pytest.raises(TypeError, match=message):
        optimizers.SGD(rate)
    optimizer = optimizers.Adam(0.5)
    with pytest.raises(TypeError, match=message):
        optimizer.learning_rate = rate
    assert optimizer.learning_rate == 0.5
    optimizer.learning_rate = lambda step, rate=0.25: rate
    assert optimizer.current_learning_rate() == 0.25
    optimizer.learning_rate = {0: 0.125}.get
    assert optimizer.current_learning_rate() == 0.125
