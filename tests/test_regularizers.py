"""torchnn.regularizers: penalties by Keras's formulas, and as parts of the loss."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import losses, optimizers, regularizers
from torchnn.callbacks import LambdaCallback
from torchnn.layers import Activation, Dense, Input
from torchnn.sequential import Sequential

W = [[1.0, -2.0], [3.0, 0.5]]  # sum |w| = 6.5, sum w^2 = 14.25
X, Y = np.random.default_rng(0).normal(size=(10, 3)), np.arange(10.0).reshape(10, 1)


@pytest.mark.parametrize(
    ("regularizer", "wanted"),
    [
        (regularizers.L1(), 0.065),
        (regularizers.l1(0.1), 0.65),
        (regularizers.L2(), 0.1425),
        (regularizers.l2(l2=0.1), 1.425),
        (regularizers.L1L2(), 0),
        (regularizers.L1L2(0.1, 0.01), 0.7925),
        (regularizers.l1_l2(), 0.2075),
        (regularizers.get("l1"), 0.065),
        (regularizers.get("L2"), 0.1425),
        (regularizers.get("l1_l2"), 0.2075),
        (regularizers.get("L1L2"), 0.2075),
        (regularizers.get(regularizers.L2), 0.1425),
    ],
)
def test_a_penalty_has_its_formula(regularizer, wanted, device):
    assert regularizer(torch.tensor(W, device=device)).item() == pytest.approx(wanted)
    assert float(regularizer(W)) == pytest.approx(wanted)
    again = type(regularizer).from_config(regularizer.get_config())
    for other in (again, copy.deepcopy(regularizer), pickle.loads(pickle.dumps(regularizer))):
        assert repr(other) == repr(regularizer)


def test_the_config_is_kerass():
    assert regularizers.l2(0.1).get_config() == {"l2": 0.1}
    assert regularizers.L1L2(l2=0.1).get_config() == {"l1": 0.0, "l2": 0.1}
    assert repr(regularizers.L1(0.5)) == "L1(l1=0.5)"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: regularizers.L2(-1), ValueError, "^l2 must be a non-negative number, got -1"),
        (lambda: regularizers.L1("a"), TypeError, "^l1 must be a non-negative number, got 'a'"),
        (lambda: Dense(1, kernel_regularizer="l3"), ValueError, "^unknown kernel_regularizer 'l3'"),
        (lambda: Dense(1, bias_regularizer=0.1), TypeError, "^bias_regularizer must be an object"),
    ],
)
def test_what_is_no_penalty_is_an_error(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_none_is_none():
    assert regularizers.get(None) is None
    assert Dense(1).kernel_regularizer is None


def network(**last):
    """By hand: two layers, with penalties of three kinds."""
    torch.manual_seed(1)
    hidden = Dense(4, "tanh", kernel_regularizer=regularizers.L2(0.1), bias_regularizer="l1")
    end = Dense(1, kernel_regularizer=lambda kernel: kernel[0].abs().sum(), **last)
    return Sequential([Input((3,)), hidden, end]).double()


def penalty_by_hand(model):
    hidden, end = model.layers
    squares = 0.1 * hidden.weight.square().sum() + 0.01 * hidden.bias.abs().sum()
    return squares + end.weight[:, 0].abs().sum()


def steps_by_hand(model, batch_size, epochs):
    """The mean of each epoch's losses, of samples in their order."""
    x, y = torch.tensor(X), torch.tensor(Y)
    optimizer, history = torch.optim.SGD(model.parameters(), lr=0.01), []
    for _ in range(epochs):
        total = 0.0
        for start in range(0, len(x), batch_size):
            part = slice(start, start + batch_size)
            loss = (model(x[part]) - y[part]).square().mean() + penalty_by_hand(model)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x[part])
        history.append(total / len(x))
    return history


def test_the_penalty_is_part_of_the_loss_and_of_no_metric():
    model, twin = network(), network()
    model.compile("sgd", "mse", metrics=["mse"])
    history = model.fit(X, Y, epochs=3, batch_size=4, shuffle=False, verbose=0).history
    assert history["loss"] == pytest.approx(steps_by_hand(twin, batch_size=4, epochs=3))
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(one, other)
    loss, error = model.evaluate(X, Y, verbose=0)
    assert error == pytest.approx(np.square(model.predict(X, verbose=0) - Y).mean())
    assert loss == pytest.approx(error + penalty_by_hand(model).item())
    assert model.test_on_batch(X, Y) == pytest.approx([loss, error])
    assert model.train_on_batch(X, Y) == pytest.approx([loss, error])


def test_a_model_tells_its_penalties():
    model = network()
    values = model.losses
    assert len(values) == 3
    torch.testing.assert_close(sum(values), penalty_by_hand(model))
    torch.testing.assert_close(regularizers.penalty(model), penalty_by_hand(model))
    assert regularizers.penalty(nn.Linear(2, 1)) == 0
    assert Sequential([Dense(1)]).losses == []


@pytest.mark.parametrize("head", ["sigmoid", Activation("sigmoid")])
def test_a_penalty_on_outputs_is_shared_by_the_samples(head):
    named = isinstance(head, str)
    end = Dense(2, head if named else None, activity_regularizer=regularizers.L2(0.1))
    model = Sequential([Input((3,)), end, *([] if named else [head])]).double()
    model.compile("sgd", "bce")
    y = np.random.default_rng(1).random((10, 2))
    loss = model.evaluate(X, y, verbose=0)
    out = end(torch.tensor(X))
    wanted = 0.1 * out.square().sum() / 10
    p = torch.tensor(model.predict(X, verbose=0))
    entropy = losses.BinaryCrossentropy()(torch.tensor(y), p)
    assert loss == pytest.approx((wanted + entropy).item(), rel=1e-6)
    model(torch.tensor(X))
    torch.testing.assert_close(model.losses, [wanted])
    wanted.backward()
    grads = [p.grad for p in end.parameters()]
    assert all(grad.abs().sum() > 0 for grad in grads)
    copy.deepcopy(model)  # with nothing of a graph in it


def test_fit_minds_a_penalty_on_outputs():
    plain, shrunk = (
        Sequential([Dense(4, in_features=3, activity_regularizer=it), Dense(1)])
        for it in (None, regularizers.L2(10.0))
    )
    for model in (plain, shrunk):
        model.compile(optimizers.SGD(0.01), "mse")
        model.fit(X, Y, epochs=50, verbose=0)
    x = torch.tensor(X).float()
    hidden = [model.layers[0](x).square().mean() for model in (plain, shrunk)]
    assert hidden[1] < 0.1 * hidden[0]


def test_a_penalty_must_be_one_number():
    model = Sequential([Dense(1, kernel_regularizer=lambda kernel: kernel)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"^a regularizer must return one number, got shape"):
        model.fit(X, Y, verbose=0)


def test_a_callback_may_change_a_regularizer():
    model = Sequential([Input((3,)), Dense(1, kernel_regularizer="l2")])
    model.compile(optimizers.SGD(0.0), "mse")
    kernel = np.square(model.get_weights()[0]).sum()

    def stronger(epoch, logs):
        model.layers[0].kernel_regularizer.l2 = 1.0

    callback = LambdaCallback(on_epoch_end=stronger)
    first, second = model.fit(X, Y, epochs=2, verbose=0, callbacks=callback).history["loss"]
    assert second - first == pytest.approx(0.99 * kernel, rel=1e-4)
