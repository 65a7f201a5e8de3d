"""torchnn.optimizers: Keras's update rules, step by step by hand, and their state."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from torchnn import Sequential, ops, optimizers
from torchnn.layers import Dense
from torchnn.ops import reference
from torchnn.optimizers import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Ftrl,
    Lion,
    Nadam,
    RMSprop,
    TorchOptimizer,
)

OURS = {
    "sgd": SGD,
    "momentum": lambda: SGD(momentum=0.9),
    "adam": Adam,
    "amsgrad": lambda: Adam(amsgrad=True),
    "rmsprop": lambda: RMSprop(momentum=0.9, centered=True),
    **{kind.__name__: kind for kind in (AdamW, Adagrad, Adadelta, Adamax, Nadam, Lion, Ftrl)},
}


def walk(optimizer, grads, start=1.0, device="cpu", dtype=torch.float64):
    """Where one parameter stands after each step along these gradients."""
    w = nn.Parameter(torch.tensor([start], device=device, dtype=dtype))
    optimizer.build([w])
    return [step(optimizer, w, grad) for grad in grads]


def step(optimizer, w, grad):
    """Where w stands after one step."""
    w.grad = torch.full_like(w, grad)
    optimizer.step()
    return w.item()


def test_sgd_steps_against_the_gradient(device):
    assert walk(SGD(0.1), [0.5, -1.0], device=device) == pytest.approx([0.95, 1.05])


def test_momentum_keeps_the_learning_rate_in_the_velocity(device):
    # velocity: -0.05, -0.045 - 0.05, and with a tenth of the rate -0.0855 - 0.005
    optimizer = SGD(lambda step: 0.1 if step < 2 else 0.01, momentum=0.9)
    places = walk(optimizer, [0.5, 0.5, 0.5], device=device)
    assert places == pytest.approx([0.95, 0.855, 0.7645])


def test_nesterov_looks_ahead(device):
    # velocity: -0.05, -0.095; moves by 0.9 * velocity - 0.05
    optimizer = SGD(0.1, momentum=0.9, nesterov=True)
    assert walk(optimizer, [0.5, 0.5], device=device) == pytest.approx([0.905, 0.7695])


def test_momentum_can_be_assigned():
    w = nn.Parameter(torch.zeros(1))
    optimizer = SGD(0.1)
    optimizer.build([w])
    optimizer.momentum = 0.9
    step(optimizer, w, 1.0)
    step(optimizer, w, 1.0)
    torch.testing.assert_close(optimizer.velocities, [torch.tensor([-0.19])])
    optimizer.momentum = 0.5
    torch.testing.assert_close(optimizer.velocities, [torch.tensor([-0.19])])
    optimizer.momentum = 0.0
    assert optimizer.velocities == []
    with pytest.raises(ValueError, match=r"^momentum must be "):
        optimizer.momentum = 1.0
    assert optimizer.momentum == 0


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_weight_decay_is_decoupled(momentum):
    # w - w * 0.2 * 0.1 - 0.1 * 0.5, whatever the velocity
    places = walk(SGD(0.1, momentum=momentum, weight_decay=0.2), [0.5], start=2.0)
    assert places == pytest.approx([2.0 - 0.04 - 0.05])
    assert walk(Adam(0.1, weight_decay=0.2), [0.0], start=2.0) == pytest.approx([1.96])


def rmsprop_by_hand(grads, learning_rate, rho, momentum, epsilon, centered, w=1.0):
    v = m = velocity = 0.0
    for grad in grads:
        v = rho * v + (1 - rho) * grad * grad
        m = rho * m + (1 - rho) * grad
        change = learning_rate * grad / math.sqrt(v - centered * m * m + epsilon)
        velocity = momentum * velocity + change
        w -= velocity
        yield w


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_rmsprop_is_keras_formula(momentum, centered, device):
    grads = [0.5, -1.0, 0.25, 3.0]
    optimizer = RMSprop(0.1, 0.8, momentum, 1e-5, centered)
    expected = list(rmsprop_by_hand(grads, 0.1, 0.8, momentum, 1e-5, centered))
    assert walk(optimizer, grads, device=device) == pytest.approx(expected, rel=1e-12)


def test_rmsprop_has_keras_defaults():
    optimizer = optimizers.get("rmsprop")
    names = ("learning_rate", "rho", "momentum", "epsilon", "centered", "weight_decay")
    assert [getattr(optimizer, name) for name in names] == [0.001, 0.9, 0, 1e-7, False, 0]


@pytest.mark.parametrize("options", [{"rho": 1.0}, {"momentum": -0.1}, {"epsilon": 0.0}])
def test_rmsprop_refuses_options_out_of_range(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name} must be "):
        RMSprop(**options)


KERNELS = {
    "gradient_descent": lambda: SGD(0.1, weight_decay=0.1),
    "momentum": lambda: SGD(0.1, momentum=0.8),
    "nesterov": lambda: SGD(0.1, momentum=0.8, nesterov=True),
    "adam": lambda: Adam(0.1, 0.8, 0.95, 1e-3),
    "rmsprop": lambda: RMSprop(0.1, 0.8, weight_decay=0.2),
    "rmsprop_momentum": lambda: RMSprop(0.1, 0.8, 0.5, 1e-3),
    "rmsprop_centered": lambda: RMSprop(0.1, 0.8, epsilon=1e-3, centered=True),
    "adagrad": lambda: Adagrad(0.1, 0.2, 1e-3),
}


def test_every_update_rule_has_its_optimizer():
    assert tuple(KERNELS) == ops.updates()


@pytest.mark.parametrize("name", KERNELS)
def test_an_optimizer_names_the_kernel_that_takes_its_steps(name):
    grads = [0.5, -1.0, 0.25, 3.0]
    optimizer = KERNELS[name]()
    kernel = ops.kernel_of(optimizer)
    assert kernel.name == name
    assert set(kernel.options) <= set(ops.train_options())
    options = dict.fromkeys(ops.train_options(), 0.0) | dict(kernel.options)
    w = torch.ones(1, dtype=torch.float64)
    slots = [torch.full_like(w, optimizer.initial_values.get(slot, 0)) for slot in optimizer.slots]
    places = []
    for step_number, grad in enumerate(grads, 1):
        w *= 1 - options["weight_decay"] * 0.1
        now = {"rate": 0.1, "step": step_number}
        reference.UPDATES[name](w, slots, torch.full_like(w, grad), **now, **options)
        places.append(w.item())
    assert walk(optimizer, grads) == pytest.approx(places, rel=1e-12)
    for ours, expected in zip(optimizer.slots.values(), slots, strict=True):
        torch.testing.assert_close(ours[0], expected)


def test_an_optimizer_that_does_something_else_names_no_kernel():
    class Mine(SGD):
        pass

    assert ops.kernel_of(Mine()) is None
    assert ops.kernel_of(RMSprop(centered=True, momentum=0.5)) is None
    assert ops.kernel_of(Adam(amsgrad=True)) is None
    assert ops.kernel_of(AdamW()) == Adam(weight_decay=0.004).kernel()
    assert ops.kernel_of(TorchOptimizer(torch.optim.AdamW)) is None


def adam_by_hand(grads, learning_rate, b1, b2, epsilon, w=1.0):
    m = v = 0.0
    for t, grad in enumerate(grads, start=1):
        m += (grad - m) * (1 - b1)
        v += (grad * grad - v) * (1 - b2)
        alpha = learning_rate * math.sqrt(1 - b2**t) / (1 - b1**t)
        w -= m * alpha / (math.sqrt(v) + epsilon)
        yield w


@pytest.mark.parametrize("arguments", [(0.001, 0.9, 0.999, 1e-7), (0.1, 0.5, 0.9, 0.01)])
def test_adam_follows_its_formula(arguments, device):
    grads = [0.5, -1.0, 2.0, 1e-6]
    wanted = list(adam_by_hand(grads, *arguments))
    assert walk(Adam(*arguments), grads, device=device) == pytest.approx(wanted, rel=1e-12)


def amsgrad_by_hand(grads, rate, w=1.0):
    m = v = largest = 0.0
    for t, grad in enumerate(grads, start=1):
        m, v = 0.9 * m + 0.1 * grad, 0.5 * v + 0.5 * grad**2
        largest = max(largest, v)
        w -= rate * math.sqrt(1 - 0.5**t) / (1 - 0.9**t) * m / (math.sqrt(largest) + 1e-7)
        yield w


def adagrad_by_hand(grads, rate, w=1.0):
    a = 0.3
    for grad in grads:
        a += grad**2
        w -= rate * grad / math.sqrt(a + 1e-5)
        yield w


def adadelta_by_hand(grads, rate, w=1.0):
    v = d = 0.0
    for grad in grads:
        v = 0.8 * v + 0.2 * grad**2
        change = math.sqrt(d + 1e-5) / math.sqrt(v + 1e-5) * grad
        d = 0.8 * d + 0.2 * change**2
        w -= rate * change
        yield w


def adamax_by_hand(grads, rate, w=1.0):
    m = u = 0.0
    for t, grad in enumerate(grads, start=1):
        m, u = 0.8 * m + 0.2 * grad, max(0.9 * u, abs(grad))
        w -= rate / (1 - 0.8**t) * m / (u + 1e-5)
        yield w


def nadam_by_hand(grads, rate, w=1.0):
    def u(t):
        return 0.8 * (1 - 0.5 * 0.96**t)

    m = v = 0.0
    for t, grad in enumerate(grads, start=1):
        m, v = 0.8 * m + 0.2 * grad, 0.9 * v + 0.1 * grad**2
        until = math.prod(u(i) for i in range(1, t + 1))
        ahead = u(t + 1) * m / (1 - until * u(t + 1)) + (1 - u(t)) * grad / (1 - until)
        w -= rate * ahead / (math.sqrt(v / (1 - 0.9**t)) + 1e-5)
        yield w


def lion_by_hand(grads, rate, w=1.0):
    m = 0.0
    for grad in grads:
        w -= rate * math.copysign(1, 0.8 * m + 0.2 * grad)
        m = 0.9 * m + 0.1 * grad
        yield w


def ftrl_by_hand(grads, rate, w=1.0):
    a, s, p = 0.3, 0.0, 0.7
    for grad in grads:
        before, a = a**p, a + grad**2
        s += grad + 2 * 0.1 * w - (a**p - before) / rate * w
        l2 = 0.2 + 0.5 / (2 * rate)
        w = (min(max(s, -0.4), 0.4) - s) / (a**p / rate + 2 * l2)
        yield w


@pytest.mark.parametrize(
    ("by_hand", "optimizer"),
    [
        (amsgrad_by_hand, Adam(0.1, beta_2=0.5, amsgrad=True)),
        (adagrad_by_hand, Adagrad(0.1, 0.3, 1e-5)),
        (adadelta_by_hand, Adadelta(0.1, 0.8, 1e-5)),
        (adamax_by_hand, Adamax(0.1, 0.8, 0.9, 1e-5)),
        (nadam_by_hand, Nadam(0.1, 0.8, 0.9, 1e-5)),
        (lion_by_hand, Lion(0.1, 0.8, 0.9)),
        (ftrl_by_hand, Ftrl(0.1, -0.7, 0.3, 0.4, 0.2, 0.1, 0.5)),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_other_rules_follow_their_formulas(by_hand, optimizer, device):
    grads = [2.0, -0.5, -1.0, 0.1, 3.0]
    optimizer = copy.deepcopy(optimizer)
    places = walk(optimizer, grads, device=device)
    assert places == pytest.approx(list(by_hand(grads, 0.1)), rel=1e-12)


def test_adamw_decays_unless_told_otherwise():
    assert walk(AdamW(0.1), [0.0], start=2.0) == pytest.approx([2 - 2 * 0.004 * 0.1])
    grads = [0.5, -1.0]
    assert walk(AdamW(0.1, 0.2), grads) == walk(Adam(0.1, weight_decay=0.2), grads)
    with pytest.raises(TypeError, match=r"^weight_decay must be a non-negative number, got None"):
        AdamW(weight_decay=None)


def test_ftrl_needs_a_rate_to_divide_by():
    with pytest.raises(ValueError, match=r"^learning_rate must be a positive number, got 0"):
        walk(Ftrl(0.0), [1.0])
    with pytest.raises(ValueError, match=r"^learning_rate_power must be at most 0, got 0\.5"):
        Ftrl(learning_rate_power=0.5)


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_every_name_is_of_its_class_with_keras_arguments(name):
    optimizer = optimizers.get(name)
    assert (type(optimizer).__name__.lower(), optimizer.name) == (name, name)
    assert type(optimizer).from_config(optimizer.get_config()).get_config() == (
        optimizer.get_config()
    )


@pytest.mark.parametrize("limit", ["clipnorm", "clipvalue", "global_clipnorm"])
@pytest.mark.parametrize("name", optimizers.NAMES)
def test_every_rule_clips(name, limit):
    kind = optimizers.NAMES[name]
    clipped = walk(kind(0.1, **{limit: 0.5}), [3.0, -0.2])
    assert clipped == walk(kind(0.1), [0.5, -0.2])


@pytest.mark.parametrize("engine", ["autograd", "fused"])
@pytest.mark.parametrize("limit", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_fit_clips_like_a_loop_by_hand(limit, engine):
    x, y = torch.randn(12, 3, dtype=torch.float64), torch.randn(12, 2, dtype=torch.float64)
    model = Sequential([Dense(2, in_features=3, dtype=torch.float64)])
    model.compile(SGD(0.1, **{limit: 0.2}), "mse", engine=engine)
    weight, bias = (p.detach().clone().requires_grad_() for p in model.parameters())
    for rows in torch.arange(12).split(5) * 2:
        loss = (x[rows] @ weight.T + bias - y[rows]).square().mean()
        grads = torch.autograd.grad(loss, (weight, bias))
        norms = [grad.square().sum().sqrt().item() for grad in grads]
        if limit == "global_clipnorm":
            norms = [math.hypot(*norms)] * 2
        for parameter, grad, norm in zip((weight, bias), grads, norms, strict=True):
            change = grad.clip(-0.2, 0.2) if limit == "clipvalue" else grad * min(0.2 / norm, 1)
            parameter.data -= 0.1 * change
    model.fit(x, y, batch_size=5, epochs=2, shuffle=False, verbose=0)
    torch.testing.assert_close(list(model.parameters()), [weight, bias], check_stride=False)


def test_pytorchs_optimizers_say_that_they_do_not_clip():
    optimizer = optimizers.get(torch.optim.SGD)
    with pytest.raises(AttributeError, match=r"^TorchOptimizer has no clipnorm: PyTorch's opt"):
        optimizer.clipnorm = 1.0
    with pytest.raises(AttributeError, match=r"^TorchOptimizer has no lr: the learning rate is"):
        optimizer.lr = 0.1


def test_the_first_step_of_adam_is_the_learning_rate():
    assert walk(Adam(), [0.5]) == pytest.approx([1 - 0.001], rel=1e-8)


@pytest.mark.parametrize("make", OURS.values(), ids=OURS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_shapes_move_like_one_number(make, dtype, device):
    parameters = [nn.Parameter(torch.ones(s, dtype=dtype, device=device)) for s in [(3, 2), (3,)]]
    optimizer = make()
    optimizer.build(parameters)
    for grad in (0.5, -1.0):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, grad)
        optimizer.step()
    wanted = walk(make(), [0.5, -1.0])[-1]
    for parameter in parameters:
        assert parameter.dtype == dtype
        torch.testing.assert_close(parameter, torch.full_like(parameter, wanted))
    assert all(t.dtype == dtype for slot in optimizer.slots.values() for t in slot)


def test_slots_are_one_tensor_per_parameter():
    parameters = [nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3))]
    sgd, adam = SGD(momentum=0.5), Adam()
    sgd.build(parameters)
    adam.build(parameters)
    for slot in (sgd.velocities, adam.momentums, adam.variances):
        assert [tuple(t.shape) for t in slot] == [(3, 2), (3,)]
        assert not any(t.requires_grad for t in slot)
    assert SGD().velocities == []


@pytest.mark.parametrize(
    "make", [lambda: SGD(momentum=0.9), lambda: TorchOptimizer(torch.optim.SGD)]
)
def test_an_optimizer_trains_one_model(make):
    optimizer = make()
    optimizer.build([nn.Parameter(torch.ones(2))])
    (place,) = walk(optimizer, [0.5])  # another model, but before the first step
    assert place != 1
    with pytest.raises(ValueError, match=r"has already trained other parameters: make a new one"):
        optimizer.build([nn.Parameter(torch.ones(1))])


@pytest.mark.parametrize("make", OURS.values(), ids=OURS)
@pytest.mark.parametrize("loads_first", [True, False])
def test_a_state_dict_goes_on_where_it_was(make, loads_first):
    grads = [0.5, -1.0, 2.0, 0.1]
    first = make()
    places = walk(first, grads[:2])
    state = pickle.loads(pickle.dumps(first.state_dict()))
    w = nn.Parameter(torch.tensor([places[-1]], dtype=torch.float64))
    second = make()
    if loads_first:
        second.load_state_dict(state)
    second.build([w])
    if not loads_first:
        second.load_state_dict(state)
    assert [step(second, w, grad) for grad in grads[2:]] == walk(make(), grads)[2:]


@pytest.mark.parametrize(
    ("value", "kind"), [("sgd", SGD), ("SGD", SGD), ("adam", Adam), ("Adam", Adam)]
)
def test_names_are_resolved(value, kind):
    assert type(optimizers.get(value)) is kind


def test_an_optimizer_is_returned_as_it_is():
    optimizer = SGD(0.25)
    assert optimizers.get(optimizer) is optimizer
    assert repr(optimizer) == "SGD(learning_rate=0.25)"


def test_the_defaults_are_keras_s():
    sgd, adam = SGD(), Adam()
    assert (sgd.learning_rate, sgd.momentum, sgd.nesterov, sgd.weight_decay) == (0.01, 0, False, 0)
    assert (adam.learning_rate, adam.beta_1, adam.beta_2) == (0.001, 0.9, 0.999)
    assert (adam.epsilon, adam.weight_decay) == (1e-7, 0)


@pytest.mark.parametrize(
    "factory", [torch.optim.SGD, lambda parameters: torch.optim.SGD(parameters, lr=1e-3)]
)
def test_a_torch_optimizer_is_made_on_build(factory):
    optimizer = optimizers.get(factory)
    assert walk(optimizer, [1.0, 1.0]) == pytest.approx([0.999, 0.998])
    assert optimizer.iterations == 2
    assert optimizer.current_learning_rate() == 1e-3


def test_a_torch_optimizer_may_hold_the_parameters_already():
    w = nn.Parameter(torch.ones(1))
    optimizer = optimizers.get(torch.optim.SGD([w], lr=0.5))
    optimizer.build([w])
    assert step(optimizer, w, 1.0) == 0.5
    with pytest.raises(ValueError, match="has already trained other parameters"):
        optimizer.build([nn.Parameter(torch.ones(1))])


def test_there_is_no_torch_optimizer_before_build():
    with pytest.raises(RuntimeError, match=r"is made when training begins: call build first"):
        TorchOptimizer(torch.optim.SGD).step()


def test_a_torch_optimizer_of_another_model_is_an_error():
    optimizer = optimizers.get(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.5))
    with pytest.raises(ValueError, match="holds none of this model's parameters"):
        optimizer.build([nn.Parameter(torch.ones(1))])


def test_the_learning_rate_of_a_torch_optimizer_can_be_assigned():
    optimizer = optimizers.get(torch.optim.SGD)
    walk(optimizer, [1.0])
    optimizer.learning_rate = 0.25
    assert optimizer.optimizer.param_groups[0]["lr"] == 0.25
    assert optimizer.current_learning_rate() == 0.25


def test_building_a_torch_optimizer_again_keeps_it():
    optimizer = optimizers.get(torch.optim.Adam)
    walk(optimizer, [1.0])
    inner = optimizer.optimizer
    optimizer.build(optimizer.parameters)
    assert optimizer.optimizer is inner


def test_a_torch_optimizer_hands_on_what_it_knows_of_parameters_that_stay():
    stays, goes, comes = (nn.Parameter(torch.ones(1)) for _ in range(3))
    optimizer = optimizers.get(torch.optim.Adam)
    optimizer.build([stays, goes])
    optimizer.learning_rate = 0.25
    step(optimizer, stays, 1.0)
    known = optimizer.optimizer.state[stays]
    optimizer.build([stays, comes])
    assert optimizer.optimizer.param_groups[0]["params"] == [stays, comes]
    assert optimizer.optimizer.state == {stays: known}
    assert (optimizer.learning_rate, optimizer.iterations) == (0.25, 1)


@pytest.mark.parametrize(
    "make", [lambda w: torch.optim.Adam, lambda w: torch.optim.Adam([w])], ids=["factory", "object"]
)
def test_new_parameters_of_the_same_owner_go_on_with_a_torch_optimizers_state(make):
    owner, old = object(), nn.Parameter(torch.ones(1))
    optimizer = optimizers.get(make(old))
    optimizer.build([old], owner)
    step(optimizer, old, 0.5)
    new = nn.Parameter(old.detach().clone())
    optimizer.build([new], owner)
    after = step(optimizer, new, -1.0)
    expected = nn.Parameter(torch.ones(1))
    theirs = torch.optim.Adam([expected])
    for grad in (0.5, -1.0):
        expected.grad = torch.full((1,), grad)
        theirs.step()
    assert (after, old.item() != after) == (expected.item(), True)


def test_a_torch_optimizers_state_follows_parameters_that_move():
    layer = nn.Linear(1, 1)
    optimizer = optimizers.get(torch.optim.Adam)
    for dtype in (torch.float32, torch.float64):
        layer.to(dtype)
        optimizer.build(layer.parameters())
        step(optimizer, layer.weight, 1.0)
        assert optimizer.optimizer.state[layer.weight]["exp_avg"].dtype == dtype


def test_a_torch_state_dict_goes_on_where_it_was():
    first, second = optimizers.get(torch.optim.Adam), optimizers.get(torch.optim.Adam)
    (place,) = walk(first, [0.5])
    parameter = nn.Parameter(torch.tensor([place], dtype=torch.float64))
    second.build([parameter])
    second.load_state_dict(first.state_dict())
    assert step(second, parameter, -1.0) == walk(optimizers.get(torch.optim.Adam), [0.5, -1.0])[1]
    assert second.iterations == 2


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda parameters: None, "^optimizer must make a torch optimizer, got None"),
        (torch.optim.LBFGS, "^optimizer must need one gradient per step, got LBFGS"),
    ],
)
def test_a_factory_must_make_an_optimizer_of_use(factory, message):
    optimizer = optimizers.get(factory)
    with pytest.raises(TypeError, match=message):
        optimizer.build([nn.Parameter(torch.ones(1))])


def test_an_unknown_name_is_an_error_with_the_list():
    with pytest.raises(ValueError, match=r"^unknown optimizer 'adma': .*'adam'\? Known: sgd, adam"):
        optimizers.get("adma")


@pytest.mark.parametrize("value", ["no", 0.9, 1, None])
def test_what_is_true_or_false_is_not_taken_for_it(value):
    with pytest.raises(TypeError, match=r"^nesterov must be True or False, got "):
        SGD(nesterov=value)
    with pytest.raises(TypeError, match=r"^centered must be True or False, got "):
        RMSprop(centered=value)


@pytest.mark.parametrize("value", [None, 0.01])
def test_what_is_no_optimizer_is_a_type_error(value):
    with pytest.raises(
        TypeError, match=r"^optimizer must be an object or one of sgd, adam, rmsprop, .*; got"
    ):
        optimizers.get(value)


def test_a_class_is_told_to_be_instantiated():
    message = r"^optimizer must be an instance, got the class SGD: write SGD\(\)$"
    with pytest.raises(TypeError, match=message):
        optimizers.get(SGD)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(momentum=1.0), "^momentum must be "),
        (lambda: SGD(momentum=-0.1), "^momentum must be "),
        (lambda: SGD(weight_decay=-1), "^weight_decay must be "),
        (lambda: Adam(beta_1=1.0), "^beta_1 must be "),
        (lambda: Adam(beta_2=-0.5), "^beta_2 must be "),
        (lambda: Adam(epsilon=0.0), "^epsilon must be "),
    ],
)
def test_bad_arguments_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_optimizers_are_there_under_their_legacy_name():
    from torchnn.optimizers.legacy import Adam as LegacyAdam

    assert LegacyAdam is optimizers.legacy.Adam is Adam
    assert optimizers.legacy.schedules is optimizers.schedules
