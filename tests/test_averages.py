"""Moving averages of the weights: who keeps them, and who evaluates with them."""

import copy

import numpy as np
import pytest
import torch

from torchnn import optimizers
from torchnn.callbacks import EarlyStopping, LambdaCallback, SwapEMAWeights
from torchnn.layers import Dense
from torchnn.optimizers import SGD, Adam
from torchnn.sequential import Sequential

X, Y = [[1.0], [2.0], [3.0], [4.0]], [1.0, 1.0, 2.0, 5.0]


def stepped(optimizer, steps, grad=1.0):
    """What a weight is after each step along the same gradient, and what its average is."""
    weight, found = torch.zeros(1), []
    optimizer.build([weight.requires_grad_()])
    for _ in range(steps):
        weight.grad = torch.full((1,), grad)
        optimizer.step()
        found.append((weight.item(), optimizer.slots["averages"][0].item()))
    return found


def compiled(**settings):
    """A model of one weight, w, that starts at 0 and takes a step an epoch."""
    model = Sequential([Dense(1, use_bias=False, kernel_initializer="zeros", in_features=1)])
    model.compile(SGD(0.01, use_ema=True, **settings), "mse")
    return model


def fitted(model, epochs, *callbacks, **more):
    return model.fit(
        X, Y, batch_size=4, epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks, **more
    )


def weights_of_gradient_descent(steps, w=0.0):
    """w - 0.01 * mean(2 x (w x - y)): with mean(x^2) = 7.5 and mean(x y) = 7.25."""
    for _ in range(steps):
        w -= 0.01 * 2 * (7.5 * w - 7.25)
        yield w


def averages(weights, momentum=0.99):
    first, *rest = weights
    found = [first]
    for w in rest:
        found.append(momentum * found[-1] + (1 - momentum) * w)
    return found


def test_averages_follow_the_weights_from_the_first_step_on():
    found = stepped(SGD(1.0, use_ema=True, ema_momentum=0.5), 3)
    assert found == [(-1, -1), (-2, -1.5), (-3, -2.25)]


def test_averages_overwrite_the_weights_when_that_is_due():
    settings = {"ema_momentum": 0.5, "ema_overwrite_frequency": 2}
    found = stepped(SGD(1.0, use_ema=True, **settings), 4)
    assert found == [(-1, -1), (-1.5, -1.5), (-2.5, -2), (-2.75, -2.75)]


@pytest.mark.parametrize("name", sorted(optimizers.NAMES))
def test_every_rule_steps_as_without_averages(name):
    kind = optimizers.NAMES[name]
    found = stepped(kind(learning_rate=0.1, use_ema=True), 4, grad=0.5)
    weight = torch.zeros(1, requires_grad=True)
    plain = kind(learning_rate=0.1)
    for average in averages([w for w, _ in found]):
        weight.grad = torch.full((1,), 0.5)
        plain.apply([weight.grad], [weight])
        expected = found.pop(0)
        assert (weight.item(), pytest.approx(average)) == expected


def test_what_is_frozen_has_no_average():
    frozen, trained = torch.ones(1), torch.ones(1, requires_grad=True)
    optimizer = SGD(1.0, use_ema=True)
    optimizer.build([frozen, trained])
    trained.grad = torch.ones(1)
    optimizer.step()
    frozen.fill_(7)
    optimizer.finalize_variable_values([frozen, trained])
    assert (frozen.item(), trained.item()) == (7, 0)


def test_averages_may_begin_and_end_at_any_time():
    weight = torch.zeros(1, requires_grad=True)
    optimizer = SGD(1.0, momentum=0.5)
    for use_ema in (False, True, False):
        optimizer.use_ema = use_ema
        optimizer.apply([torch.ones(1)], [weight])  # to -1, -2.5 and -4.25
        assert optimizer.use_ema is use_ema
        if use_ema:
            optimizer.momentum = 0.5  # what the rule remembers comes and goes by itself
            assert optimizer.slots["averages"][0].item() == pytest.approx(0.99 * -1 + 0.01 * -2.5)
    assert (weight.item(), list(optimizer.slots)) == (-4.25, ["velocities"])


def test_fit_ends_with_the_averages():
    model = compiled(ema_momentum=0.5)
    fitted(model, 3)
    raw = list(weights_of_gradient_descent(3))
    average = averages(raw, 0.5)[-1]
    assert model.get_weights()[0].item() == pytest.approx(average)
    fitted(model, 1)  # goes on from there
    (raw,) = weights_of_gradient_descent(1, average)
    assert model.get_weights()[0].item() == pytest.approx((average + raw) / 2)


def test_a_fit_that_trains_nothing_changes_nothing():
    model = compiled()
    fitted(model, 2)
    model.set_weights([[[5.0]]])
    fitted(model, 2, initial_epoch=2)
    assert model.get_weights()[0].item() == 5


def test_a_fit_that_is_interrupted_goes_on_with_the_weights():
    def interrupt(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    model, whole = compiled(), compiled()
    with pytest.raises(KeyboardInterrupt):
        fitted(model, 4, LambdaCallback(on_epoch_end=interrupt))
    fitted(model, 4, initial_epoch=2)
    fitted(whole, 4)
    assert model.get_weights()[0].item() == whole.get_weights()[0].item()


def test_a_loop_of_ones_own_finalizes_by_itself():
    model = compiled(ema_momentum=0.5)
    for _ in range(3):
        model.train_on_batch(X, Y)
    raw = list(weights_of_gradient_descent(3))
    assert model.get_weights()[0].item() == pytest.approx(raw[-1])
    model.optimizer.finalize_variable_values(model.trainable_variables)
    assert model.get_weights()[0].item() == pytest.approx(averages(raw, 0.5)[-1])


def test_finalizing_tells_what_is_no_parameter():
    optimizer = SGD(use_ema=True)
    stepped(optimizer, 1)
    with pytest.raises(ValueError, match=r"^each variable must be one of the parameters that"):
        optimizer.finalize_variable_values([torch.ones(1)])


@pytest.mark.parametrize("optimizer", [SGD(), optimizers.get(torch.optim.SGD)])
def test_finalizing_without_averages_changes_nothing(optimizer):
    weight = torch.ones(1, requires_grad=True)
    optimizer.build([weight])
    optimizer.finalize_variable_values([weight])
    assert (weight.item(), optimizer.use_ema) == (1, False)


def test_a_state_dict_has_the_averages():
    first, second = (SGD(1.0, use_ema=True, ema_momentum=0.5) for _ in range(2))
    stepped(first, 2)
    state = copy.deepcopy(first.state_dict())
    second.load_state_dict(state)
    assert stepped(second, 1) == [(-1, (-1.5 - 1) / 2)]
    with pytest.raises(ValueError, match=r"^state must hold iterations; got .*averages$"):
        SGD().load_state_dict(state)


@pytest.mark.parametrize("kind", [optimizers.Adagrad, SGD])
def test_a_state_of_nothing_begins_as_a_new_optimizer_does(kind):
    first, second = (kind(use_ema=True) for _ in range(2))
    for optimizer in (first, second):
        optimizer.build([torch.full((2,), 3.0, requires_grad=True)])
    second.load_state_dict(kind(use_ema=True).state_dict())
    for slot, tensors in first.slots.items():
        assert torch.equal(second.slots[slot][0], tensors[0])
    assert second.slots["averages"][0].tolist() == [3, 3]


@pytest.mark.parametrize("is_swapped", [False, True])
def test_another_process_can_evaluate_and_end_with_the_averages(is_swapped):
    model, other = compiled(ema_momentum=0.5), compiled(ema_momentum=0.5)
    for _ in range(2):
        model.train_on_batch(X, Y)
    raw = list(weights_of_gradient_descent(2))
    average = averages(raw, 0.5)[-1]
    if is_swapped:
        model.optimizer.swap_averages()
    other.load_state_dict(model.state_dict())
    other.optimizer.load_state_dict(model.optimizer.state_dict())
    third = copy.deepcopy(other)
    loss = other.evaluate(X, Y, verbose=0, callbacks=SwapEMAWeights())
    assert loss == pytest.approx(loss_of(average))
    assert other.get_weights()[0].item() == pytest.approx(raw[-1])
    third.optimizer.finalize_variable_values(third.trainable_variables)
    assert third.get_weights()[0].item() == pytest.approx(average)


def test_a_config_tells_of_averages():
    settings = {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3}
    config = Adam(**settings).get_config()
    assert {name: config[name] for name in settings} == settings
    assert Adam.from_config(config).get_config() == config


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"use_ema": 1}, TypeError, "use_ema must be True or False, got 1"),
        ({"ema_momentum": 1.5}, ValueError, r"ema_momentum must be a number in \[0, 1\), got 1.5"),
        (
            {"ema_overwrite_frequency": 0},
            ValueError,
            "ema_overwrite_frequency must be a positive integer, got 0",
        ),
    ],
)
def test_settings_of_averages_are_checked(settings, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        Adam(**settings)


def test_summary_says_that_averages_train_through_autograd(capsys):
    compiled().summary()
    said = " ".join(capsys.readouterr().out.split())
    assert "since the optimizer keeps moving averages of the weights (use_ema=True)" in said
    model = Sequential([Dense(1, in_features=1)])
    with pytest.raises(ValueError, match="cannot train this model: the optimizer keeps moving"):
        model.compile(SGD(use_ema=True), "mse", engine="fused")


def loss_of(w):
    return np.mean((w * np.array(X)[:, 0] - Y) ** 2)


@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_validation_measures_the_averages(swap_on_epoch):
    model, seen = compiled(ema_momentum=0.5), []
    peek = LambdaCallback(on_epoch_end=lambda *_: seen.append(model.get_weights()[0].item()))
    history = fitted(model, 3, SwapEMAWeights(swap_on_epoch), peek, validation_data=(X, Y))
    raw = list(weights_of_gradient_descent(3))
    smooth = averages(raw, 0.5)
    before = [0, *raw[:-1]]
    assert history.history["loss"] == pytest.approx([loss_of(w) for w in before])
    assert history.history["val_loss"] == pytest.approx([loss_of(w) for w in smooth])
    assert seen == pytest.approx(smooth if swap_on_epoch else raw)
    assert model.get_weights()[0].item() == pytest.approx(smooth[-1])
    assert model.optimizer.slots["averages"][0].item() == pytest.approx(smooth[-1])


def test_a_fit_that_is_stopped_between_epochs_ends_with_the_averages():
    model = compiled(ema_momentum=0.5)
    stop = EarlyStopping("loss", min_delta=100)  # after the second epoch
    fitted(model, 9, SwapEMAWeights(swap_on_epoch=True), stop)
    expected = averages(list(weights_of_gradient_descent(2)), 0.5)[-1]
    assert model.get_weights()[0].item() == pytest.approx(expected)


@pytest.mark.parametrize("swap_on_epoch", [False, True])
@pytest.mark.parametrize("hook", ["on_test_begin", "on_test_batch_end", "on_epoch_end"])
def test_what_fails_while_the_averages_are_there_leaves_the_weights(swap_on_epoch, hook):
    def fail(*arguments):
        raise RuntimeError("enough")

    model = compiled(ema_momentum=0.5)
    callbacks = [SwapEMAWeights(swap_on_epoch), LambdaCallback(**{hook: fail})]
    fitted(model, 1)
    start = model.get_weights()[0].item()
    with pytest.raises(RuntimeError, match="enough"):
        fitted(model, 3, *callbacks, initial_epoch=1, validation_data=(X, Y))
    (raw,) = weights_of_gradient_descent(1, start)
    assert model.get_weights()[0].item() == pytest.approx(raw)


def test_predict_sees_the_averages_and_leaves_the_weights():
    model, swap = compiled(ema_momentum=0.5), SwapEMAWeights()
    assert model.predict([[1.0]], verbose=0, callbacks=swap).item() == 0  # none are kept yet
    for _ in range(2):
        model.train_on_batch(X, Y)
    raw = list(weights_of_gradient_descent(2))
    predicted = model.predict([[1.0]], verbose=0, callbacks=swap).item()
    assert predicted == pytest.approx(averages(raw, 0.5)[-1])
    assert model.get_weights()[0].item() == pytest.approx(raw[-1])


def test_a_state_dict_tells_that_the_averages_are_in_the_model():
    model, other = compiled(ema_momentum=0.5), compiled(ema_momentum=0.5)
    for _ in range(2):
        model.train_on_batch(X, Y)
    raw = list(weights_of_gradient_descent(3))
    model.optimizer.swap_averages()
    other.load_state_dict(model.state_dict())
    other.optimizer.load_state_dict(model.optimizer.state_dict())
    other.train_on_batch(X, Y)  # what is trained is the weights
    assert other.get_weights()[0].item() == pytest.approx(raw[2])
    assert not other.optimizer.averages_in_model


def test_swapping_needs_averages():
    model = Sequential([Dense(1, in_features=1)])
    model.compile(Adam(), "mse")
    message = r"^SwapEMAWeights needs an optimizer with use_ema=True, got Adam\("
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, verbose=0, callbacks=[SwapEMAWeights()])
    assert model.optimizer.iterations == 0
    with pytest.raises(TypeError, match=r"^swap_on_epoch must be True or False, got 'yes'$"):
        SwapEMAWeights("yes")
