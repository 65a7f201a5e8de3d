"""fit, evaluate and predict: what is computed, in which order, and who is told."""

import math
import os
import signal
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torchnn import metrics, optimizers
from torchnn._training.batches import permutation
from torchnn.callbacks import (
    Callback,
    InvalidLossWarning,
    LambdaCallback,
    LearningRateScheduler,
    TerminateOnNaN,
)
from torchnn.layers import Dense, Dropout
from torchnn.sequential import Sequential
from torchnn.utils import set_random_seed

RATE, MOMENTUM = 0.3, 0.9


def sigmoid(z):
    return 1 / (1 + torch.exp(-z))


def data(count=50, features=4):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, features, generator=generator, dtype=torch.float64)
    return x, (x.sum(dim=1) > 0).double()


def network(device="cpu", dtype=torch.float64, **compile_options):
    """4 -> 5 -> 1 with sigmoids."""
    model = Sequential([Dense(5, "sigmoid", in_features=4), Dense(1, "sigmoid", in_features=5)]).to(
        device, dtype
    )
    model.compile(**{"loss": "bce"} | compile_options)
    return model


def line(rate=0.5, **compile_options):
    """y = w x + b, both 0, and the squared error."""
    model = Sequential([Dense(1, in_features=1, kernel_initializer="zeros")])
    options = {"optimizer": optimizers.SGD(rate), "loss": "mse"} | compile_options
    model.compile(**options)
    return model


class ByHand:
    """Back-propagation written out: the network, its loss and momentum in float64, no autograd."""

    def __init__(self, model):
        self.w1, self.b1, self.w2, self.b2 = (p.detach().cpu().clone() for p in model.parameters())
        self.velocity = [torch.zeros_like(p) for p in self.parameters]

    @property
    def parameters(self):
        return [self.w1, self.b1, self.w2, self.b2]

    def step(self, x, y, weight):
        """One step of gradient descent; returns the loss and the predictions before it."""
        a1 = sigmoid(x @ self.w1.T + self.b1)
        a2 = sigmoid(a1 @ self.w2.T + self.b2)
        losses = -(y * a2.log() + (1 - y) * (1 - a2).log())
        grad_z2 = weight * (a2 - y) / len(x)
        grad_z1 = grad_z2 @ self.w2 * a1 * (1 - a1)
        grads = [grad_z1.T @ x, grad_z1.sum(0), grad_z2.T @ a1, grad_z2.sum(0)]
        for parameter, velocity, grad in zip(self.parameters, self.velocity, grads, strict=True):
            velocity.mul_(MOMENTUM).sub_(RATE * grad)
            parameter.add_(velocity)
        return (weight * losses).sum() / len(x), a2

    def fit(self, x, y, weight, batch_size, epochs):
        """Returns each epoch's loss and accuracy."""
        history = []
        for epoch in epochs:
            order = permutation(len(x), torch.initial_seed(), epoch)
            loss, right = 0.0, 0.0
            for rows in order.split(batch_size):
                batch_loss, a2 = self.step(x[rows], y[rows, None], weight[rows, None])
                loss += len(rows) * batch_loss.item() / len(x)
                right += ((a2 > 0.5) == y[rows, None]).sum().item() / len(x)
            history.append((loss, right))
        return history


@pytest.mark.parametrize("batch_size", [3, 8, 50, 64])
def test_fit_follows_back_propagation_by_hand(batch_size, device):
    x, y = data()
    weight = torch.rand(len(x), dtype=torch.float64)
    model = network(device, optimizer=optimizers.SGD(RATE, MOMENTUM), metrics=["accuracy"])
    by_hand = ByHand(model)
    expected = by_hand.fit(x, y, weight, batch_size, range(5))
    fits = [
        model.fit(x, y, batch_size, epochs=3, sample_weight=weight, verbose=0),
        model.fit(x, y, batch_size, epochs=2, sample_weight=weight, verbose=0),  # goes on
    ]
    loss = fits[0].history["loss"] + fits[1].history["loss"]
    accuracy = fits[0].history["accuracy"] + fits[1].history["accuracy"]
    assert loss == pytest.approx([epoch[0] for epoch in expected], rel=1e-12)
    assert accuracy == pytest.approx([epoch[1] for epoch in expected], rel=1e-12)
    for parameter, same in zip(model.parameters(), by_hand.parameters, strict=True):
        torch.testing.assert_close(parameter.detach().cpu(), same, rtol=1e-12, atol=1e-12)


def test_the_epochs_loss_is_measured_while_the_weights_change():
    model = line()
    x, y = np.ones((3, 1)), np.array([1.0, 1.0, 4.0])
    # Batches of 2 and 1 in order; kernel and bias each move by rate * 2 * mean error.
    # Batch 1: prediction 0, loss (1 + 1) / 2 = 1; kernel = bias = 0.5 * 2 * 1 = 1.
    # Batch 2: prediction 2, loss (4 - 2)^2 = 4. The mean over samples is (2 * 1 + 1 * 4) / 3.
    history = model.fit(x, y, batch_size=2, shuffle=False, verbose=0)
    assert history.history == {"loss": [2.0]}


def test_losses_are_reduced_with_n_not_with_the_sum_of_weights():
    model = line()
    weights = [3.0, 0.0]
    assert model.evaluate([[1], [1]], [1, 1], sample_weight=weights, verbose=0) == 1.5
    labels = line().evaluate([[1], [1]], [1, 0], verbose=0)
    assert labels == 0.5


def test_class_weights_are_weights_by_label():
    x, y = data()
    by_class, by_sample = network(), network()
    by_sample.set_weights(by_class.get_weights())
    first = by_class.fit(x, y, class_weight={0: 2.0, 1: 0.5}, verbose=0)
    second = by_sample.fit(x, y, sample_weight=np.where(y == 1, 0.5, 2.0), verbose=0)
    assert first.history == second.history


def test_the_same_seed_makes_the_same_run(device):
    def run(seed):
        set_random_seed(seed)
        model = Sequential([Dense(4, "relu"), Dropout(0.3), Dense(1, "sigmoid")]).to(device)
        model.compile(loss="bce", metrics=["accuracy"])
        x, y = data()
        return model.fit(x, y, epochs=4, batch_size=7, verbose=0).history

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_models_in_two_threads_do_not_disturb_each_other():
    x, y = data()
    models = [network() for _ in range(3)]
    for model in models[1:]:
        model.set_weights(models[0].get_weights())
    expected = models[0].fit(x, y, 5, epochs=5, verbose=0).history
    threads = [
        threading.Thread(target=model.fit, args=(x, y, 5, 5), kwargs={"verbose": 0})
        for model in models[1:]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [model.history.history for model in models[1:]] == [expected] * 2


def test_fit_leaves_the_global_generator_alone():
    x, y = data()
    model = network()
    before = torch.get_rng_state()
    model.fit(x, y, epochs=2, verbose=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("engine", ["fused", "autograd"])
def test_epochs_trained_together_are_those_trained_one_by_one(engine):
    class Listener(Callback):
        def on_epoch_end(self, epoch, logs=None):
            """Whoever listens may look at the model: epochs are trained one by one."""

    set_random_seed(3)
    x, y = data(50)
    together, apart = (network(metrics=["accuracy"], engine=engine) for _ in range(2))
    apart.load_state_dict(together.state_dict())
    found = together.fit(x, y, batch_size=16, epochs=30, verbose=0)
    expected = apart.fit(x, y, batch_size=16, epochs=30, verbose=0, callbacks=Listener())
    assert found.history == expected.history
    assert found.epoch == expected.epoch == list(range(30))
    assert together.epochs_trained == apart.epochs_trained == 30
    weights = zip(together.get_weights(), apart.get_weights(), strict=True)
    assert all(np.array_equal(ours, theirs) for ours, theirs in weights)


class Peak:
    """The largest prediction: no mean over batches. Like torchmetrics."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.seen = []

    def update(self, preds, target):
        assert preds.shape == target.shape == (len(preds),)
        self.seen.append(preds.max().item())

    def compute(self):
        return max(self.seen)


@pytest.mark.parametrize("engine", ["fused", "autograd"])
@pytest.mark.parametrize("callbacks", [None, [LambdaCallback(on_train_batch_end=print)]])
def test_a_metric_of_all_samples_is_computed_of_each_epoch(engine, callbacks):
    x, y = data()
    peak = Peak()
    model = network(metrics=[peak, "mae"], optimizer=optimizers.SGD(0.0), engine=engine)
    model.build((None, 4))
    expected = model.predict(x, verbose=0).max(), model.predict(x[:7], verbose=0).max()
    assert expected[0] != expected[1]
    history = model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=callbacks).history
    assert list(history) == ["loss", "Peak", "mae"]
    assert history["Peak"] == pytest.approx([expected[0]] * 3)
    options = {"epochs": 2, "verbose": 0, "validation_data": (x[:7], y[:7])}
    history = model.fit(x, y, callbacks=callbacks, **options).history
    assert history["Peak"] == pytest.approx([expected[0]] * 2)
    assert history["val_Peak"] == pytest.approx([expected[1]] * 2)
    assert model.evaluate(x[:7], y[:7], verbose=0)[1] == pytest.approx(expected[1])
    assert peak.seen == []


@pytest.mark.parametrize("engine", ["fused", "autograd"])
@pytest.mark.parametrize("looks", [False, True])
def test_metrics_of_an_epoch_are_those_of_all_its_samples(engine, looks):
    x, y = data()
    names = ["accuracy", "auc", "precision", "recall", "f1_score", "r2_score", "rmse", "mse"]
    model = network(
        metrics=names, weighted_metrics=names, optimizer=optimizers.SGD(0.0), engine=engine
    )
    model.build((None, 4))
    weight, p = torch.rand(50), model.predict(x, verbose=0)
    expected = {}
    for name in names:
        expected[name] = float(metrics.get(name)(y, p))
        expected[f"weighted_{name}"] = float(metrics.get(name)(y, p, weight))
    callbacks = [LambdaCallback(on_train_batch_end=lambda batch, logs: None)] if looks else None
    options = {"batch_size": 8, "epochs": 3, "verbose": 0, "callbacks": callbacks}
    history = model.fit(x, y, sample_weight=weight, **options).history
    for name, value in expected.items():
        assert history[name] == pytest.approx([value] * 3, rel=1e-5)
    measured = model.evaluate(x, y, sample_weight=weight, batch_size=7, verbose=0)
    assert measured[1:] == pytest.approx(
        [expected[name] for name in model.metrics_names[1:]], rel=1e-5
    )


def test_epochs_trained_together_are_shown_one_by_one(capsys):
    model = network()
    model.fit(*data(50), batch_size=16, epochs=30)
    lines = capsys.readouterr().out.splitlines()[1:]  # the first tells of the optimizer
    assert [line.split("/")[0].split()[-1] for line in lines] == [str(i) for i in range(1, 31)]
    assert all("steps/s" in line and "loss: " in line for line in lines)


def test_two_fits_are_as_good_as_one():
    x, y = data()
    whole, parts = network(optimizer="adam"), network(optimizer="adam")
    parts.set_weights(whole.get_weights())
    expected = whole.fit(x, y, epochs=5, verbose=0)
    first = parts.fit(x, y, epochs=2, verbose=0)
    second = parts.fit(x, y, epochs=5, initial_epoch=2, verbose=0)
    assert first.history["loss"] + second.history["loss"] == expected.history["loss"]
    assert (first.epoch, second.epoch) == ([0, 1], [2, 3, 4])


def test_a_resumed_fit_takes_the_orders_of_its_epochs():
    x, y = data()
    whole, resumed = network(), network()
    whole.fit(x, y, epochs=2, verbose=0)
    resumed.set_weights(whole.get_weights())
    assert (
        whole.fit(x, y, epochs=3, initial_epoch=2, verbose=0).history
        == resumed.fit(x, y, epochs=3, initial_epoch=2, verbose=0).history
    )


def test_no_epochs_are_no_work():
    x, y = data()
    assert network().fit(x, y, epochs=0, verbose=0).history == {}
    assert network().fit(x, y, epochs=2, initial_epoch=2, verbose=0).epoch == []


@pytest.mark.parametrize("kind", ["pair", "triple", "list", "loader"])
def test_validation_measures_without_training(kind):
    x, y = data()
    x_val, y_val = x[:10] * 2, y[:10]
    validation = {
        "pair": (x_val, y_val),
        "triple": (x_val, y_val, np.ones(10)),
        "list": [x_val.tolist(), y_val.tolist()],
        "loader": DataLoader(TensorDataset(x_val, y_val), batch_size=3),
    }[kind]
    model = network(metrics=["accuracy"])
    history = model.fit(x, y, epochs=2, validation_data=validation, verbose=0).history
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    loss, accuracy = model.evaluate(x_val, y_val, verbose=0)
    assert history["val_loss"][-1] == pytest.approx(loss, rel=1e-12)
    assert history["val_accuracy"][-1] == accuracy


def test_validation_split_takes_the_last_rows_before_shuffling():
    x = np.arange(10.0).reshape(10, 1)
    model = line(rate=0.0)  # predicts 0, so the loss is the mean of y^2
    history = model.fit(x, x, validation_split=0.2, verbose=0).history
    assert history["loss"] == [pytest.approx(sum(i**2 for i in range(8)) / 8)]
    assert history["val_loss"] == [pytest.approx((8**2 + 9**2) / 2)]


def test_a_loader_trains_like_arrays_in_its_order():
    x, y = data()
    arrays, loaded = network(metrics=["accuracy"]), network(metrics=["accuracy"])
    loaded.set_weights(arrays.get_weights())
    loader = DataLoader(TensorDataset(x, y), batch_size=8)
    expected = arrays.fit(x, y, batch_size=8, shuffle=False, epochs=2, verbose=0).history
    history = loaded.fit(loader, epochs=2, verbose=0).history
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-12)
    assert history["accuracy"] == expected["accuracy"]
    assert loaded.evaluate(loader, verbose=0) == pytest.approx(arrays.evaluate(x, y, verbose=0))
    np.testing.assert_allclose(loaded.predict(loader), arrays.predict(x))


def endless(x, y, size):
    while True:
        for i in range(0, len(x), size):
            yield x[i : i + size], y[i : i + size]


def test_a_generator_trains_like_arrays_in_its_order():
    x, y = data(48)
    arrays, fed = network(metrics=["auc"]), network(metrics=["auc"])
    fed.set_weights(arrays.get_weights())
    options = {"epochs": 3, "steps_per_epoch": 4, "verbose": 0}
    expected = arrays.fit(x, y, batch_size=8, shuffle=False, **options).history
    validation = {"validation_data": endless(x, y, 8), "validation_steps": 6}
    history = fed.fit(endless(x, y, 8), **options, **validation).history
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-12)
    assert history["auc"] == pytest.approx(expected["auc"])
    measured = fed.evaluate(endless(x, y, 8), steps=6, verbose=0)
    assert [history["val_loss"][-1], history["val_auc"][-1]] == pytest.approx(measured)
    assert measured == pytest.approx(arrays.evaluate(x, y, verbose=0))
    np.testing.assert_allclose(fed.predict(endless(x, y, 8), steps=2), arrays.predict(x[:16]))
    np.testing.assert_allclose(arrays.predict(x, batch_size=8, steps=2), arrays.predict(x[:16]))


def test_a_generator_that_ends_early_ends_the_fit_with_a_warning():
    x, y = data(24)
    batches = ((x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16))
    with pytest.warns(UserWarning, match="^x ran out of batches after 2 of 5 epochs$"):
        history = network().fit(batches, epochs=5, steps_per_epoch=2, verbose=0)
    assert history.epoch == [0, 1]


def test_a_generator_without_an_end_in_sight_is_refused_before_any_work():
    x, y = data()
    model = network()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"^x is a generator, which can be read only once"):
        model.fit(endless(x, y, 8), epochs=2, verbose=0)
    with pytest.raises(ValueError, match=r"^validation_data is a generator, .* validation_steps"):
        model.fit(x, y, epochs=2, validation_data=endless(x, y, 8), verbose=0)
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize(("freq", "epochs"), [(1, 4), (2, 2), (5, 0), ([1, 4], 2), ({2}, 1)])
def test_validation_comes_every_so_often(freq, epochs):
    x, y = data()
    history = network().fit(x, y, epochs=4, validation_data=(x, y), validation_freq=freq, verbose=0)
    assert len(history.history["loss"]) == 4
    assert len(history.history.get("val_loss", [])) == epochs


def test_validation_has_a_batch_size_and_steps_of_its_own():
    x, y = data()
    model, batches = network(optimizer=optimizers.SGD(0.0)), []
    model.fit(
        x,
        y,
        validation_data=(x, y),
        validation_batch_size=10,
        validation_steps=2,
        verbose=0,
        callbacks=LambdaCallback(on_test_batch_end=lambda batch, logs: batches.append(batch)),
    )
    assert batches == [0, 1]
    expected = model.evaluate(x[:20], y[:20], verbose=0)
    assert model.history.history["val_loss"] == pytest.approx([expected])
    assert model.evaluate(x, y, batch_size=10, steps=2, verbose=0) == pytest.approx(expected)


def test_a_later_batch_that_does_not_fit_is_told_in_the_user_s_words():
    model = Sequential([Dense(1)])
    model.compile(loss="mse")
    batches = ((np.ones((2, 3 - i)), np.ones(2)) for i in range(2))
    with pytest.raises(ValueError, match=r"^x from the generator must have 3 features"):
        model.fit(batches, verbose=0)


def test_class_weights_leave_validation_its_steps():
    x, y = data()
    model, batches = network(), []
    model.fit(
        x,
        y,
        validation_split=0.4,
        validation_batch_size=2,
        validation_steps=3,
        class_weight={1: 2.0},
        verbose=0,
        callbacks=LambdaCallback(on_test_batch_end=lambda batch, logs: batches.append(batch)),
    )
    assert batches == [0, 1, 2]


def test_on_batch_methods_are_one_step():
    x, y = data(8)
    fitted, stepped = network(metrics=["accuracy"]), network(metrics=["accuracy"])
    stepped.set_weights(fitted.get_weights())
    before = stepped.test_on_batch(x, y)
    history = fitted.fit(x, y, verbose=0).history
    assert stepped.train_on_batch(x, y) == pytest.approx(before, rel=1e-12)
    assert before == [pytest.approx(history["loss"][0]), history["accuracy"][0]]
    assert stepped.test_on_batch(x, y) == pytest.approx(fitted.evaluate(x, y, verbose=0))
    np.testing.assert_allclose(stepped.predict_on_batch(x), fitted.predict(x))
    weighted = stepped.test_on_batch(x, y, sample_weight=2 * np.ones(8), return_dict=True)
    assert weighted["loss"] == pytest.approx(2 * stepped.test_on_batch(x, y)[0])


def test_batch_normalization_trains_on_batches_and_predicts_on_averages():
    x, y = data(48)
    model = Sequential([nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), Dense(1, "sigmoid")])
    model.double().compile(loss="bce")
    model.fit(x, y, epochs=3, batch_size=16, verbose=0, validation_split=0.25)
    assert model[1].num_batches_tracked == 9  # validation does not count
    running = model[1].running_mean.clone()
    one_by_one = np.concatenate([model.predict(x[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(one_by_one, model.predict(x[:5]))
    assert torch.equal(running, model[1].running_mean)
    assert model.training


def test_training_and_evaluation_mode_are_as_before():
    x, y = data()
    model = network()
    model.eval()
    model[0].train()
    model.fit(x, y, validation_split=0.5, verbose=0)
    model.evaluate(x, y, verbose=0)
    model.predict(x)
    model.train_on_batch(x, y)
    assert [module.training for module in model.modules()] == [False, True, False]


def test_frozen_layers_stay():
    x, y = data()
    model = network()
    model[0].requires_grad_(False)
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    after = model.get_weights()
    assert [np.array_equal(*pair) for pair in zip(before, after, strict=True)] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("make", [torch.optim.AdamW, lambda ps: torch.optim.SGD(ps, lr=0.1)])
def test_torch_optimizers_train_too(make):
    x, y = data()
    history = network(optimizer=make).fit(x, y, epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


class Recorder(Callback):
    """Notes the order of all hooks."""

    def __init__(self):
        self.calls = []


def _recording(name):
    def hook(self, *arguments):
        self.calls.append((name.removeprefix("on_"), *arguments[:-1], sorted(arguments[-1])))

    return hook


for _kind in ("train", "epoch", "train_batch", "test", "test_batch", "predict", "predict_batch"):
    for _end in ("begin", "end"):
        setattr(Recorder, f"on_{_kind}_{_end}", _recording(f"on_{_kind}_{_end}"))


def test_callbacks_are_told_in_order():
    recorder = Recorder()
    model = line(metrics=["mae"])
    x = np.ones((3, 1))
    model.fit(x, x, 2, epochs=1, verbose=0, callbacks=recorder, validation_data=(x[:1], x[:1]))
    both = ["loss", "mae"]
    assert recorder.calls == [
        ("train_begin", []),
        ("epoch_begin", 0, []),
        ("train_batch_begin", 0, []),
        ("train_batch_end", 0, both),
        ("train_batch_begin", 1, []),
        ("train_batch_end", 1, both),
        ("test_begin", []),
        ("test_batch_begin", 0, []),
        ("test_batch_end", 0, both),
        ("test_end", both),
        ("epoch_end", 0, [*both, "val_loss", "val_mae"]),
        ("train_end", [*both, "val_loss", "val_mae"]),
    ]
    assert recorder.params == {"epochs": 1, "steps": 2, "verbose": 0, "validates": True}
    assert recorder.model is model


def test_callbacks_are_told_of_evaluations_and_predictions():
    recorder = Recorder()
    model = line()
    x = np.ones((3, 1))
    model.evaluate(x, x, 2, verbose=0, callbacks=[recorder])
    model.predict(x, 2, callbacks=[recorder])
    kinds = [call[0] for call in recorder.calls]
    assert kinds == [
        *("test_begin", "test_batch_begin", "test_batch_end", "test_batch_begin"),
        *("test_batch_end", "test_end"),
        *("predict_begin", "predict_batch_begin", "predict_batch_end", "predict_batch_begin"),
        *("predict_batch_end", "predict_end"),
    ]


def test_batch_logs_are_means_so_far():
    seen = []
    watch = LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    x, y = np.ones((3, 1)), np.array([1.0, 1.0, 4.0])
    line().fit(x, y, batch_size=2, shuffle=False, verbose=0, callbacks=watch)
    assert seen == [1.0, 2.0]


def test_looking_at_batches_changes_no_result():
    x, y = data()
    watched, alone = network(), network()
    watched.set_weights(alone.get_weights())
    watch = LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    assert (
        watched.fit(x, y, epochs=2, verbose=0, callbacks=watch).history
        == alone.fit(x, y, epochs=2, verbose=0).history
    )


def test_what_a_callback_adds_to_the_logs_is_kept_and_shown(capsys):
    x, y = data()
    add = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(answer=42))
    history = network().fit(x, y, callbacks=add)
    assert history.history["answer"] == [42.0]
    assert "answer: 42.0000" in capsys.readouterr().out


def test_a_schedule_changes_the_rate_and_is_recorded():
    x, y = data()
    model = network()
    halve = LearningRateScheduler(lambda epoch, rate: rate / 2)
    history = model.fit(x, y, epochs=3, callbacks=halve, verbose=0)
    assert history.history["learning_rate"] == [0.005, 0.0025, 0.00125]


@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_batch_end"])
def test_a_callback_can_stop_training(hook):
    x, y = data()
    model = network()

    def stop(number, logs):
        model.stop_training = number == 1

    recorder = Recorder()
    history = model.fit(
        x, y, 10, epochs=9, verbose=0, callbacks=[LambdaCallback(**{hook: stop}), recorder]
    )
    batches = [call[1] for call in recorder.calls if call[0] == "train_batch_end"]
    if hook == "on_epoch_end":
        assert history.epoch == [0, 1]
        assert len(batches) == 10
    else:
        assert history.epoch == [0]
        assert batches == [0, 1]
    assert recorder.calls[-1][0] == "train_end"
    assert model.fit(x, y, verbose=0).epoch == [0]  # the next fit starts afresh


class CtrlC(nn.Module):
    """Presses Ctrl-C in the middle of a step."""

    def __init__(self, at):
        super().__init__()
        self.calls, self.at = 0, at

    def forward(self, x):
        self.calls += self.training
        if self.calls == self.at and self.training:
            os.kill(os.getpid(), signal.SIGINT)
        return x


def test_ctrl_c_leaves_weights_of_whole_steps_and_fit_can_go_on(capsys):
    x, y = data(20)
    recorder = Recorder()
    model = Sequential([CtrlC(at=8), Dense(1, "sigmoid", in_features=4)]).double()
    model.compile(loss="bce", optimizer="adam")
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=4, epochs=3, callbacks=recorder)
    # Five steps an epoch: the eighth is the third of the second epoch, and it is finished.
    assert model.optimizer.iterations == 8
    assert model.history.epoch == [0]
    assert recorder.calls[-1][0] == "train_end"
    assert capsys.readouterr().out.count("\n") == 1
    assert model.training
    history = model.fit(x, y, batch_size=4, epochs=3, verbose=0)
    assert history.epoch == [0, 1, 2]
    assert model.optimizer.iterations == 20  # two steps, and two epochs
    assert model.epochs_trained == 4


def test_an_interrupted_fit_has_the_weights_of_its_steps():
    x, y = data(20)
    whole = Sequential([Dense(1, "sigmoid", in_features=4)]).double()
    whole.compile(loss="bce", optimizer=optimizers.SGD(0.1, momentum=0.9))
    cut = Sequential([CtrlC(at=3), Dense(1, "sigmoid", in_features=4)]).double()
    cut.compile(loss="bce", optimizer=optimizers.SGD(0.1, momentum=0.9))
    cut.set_weights(whole.get_weights())
    with pytest.raises(KeyboardInterrupt):
        cut.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    whole.fit(x[:12], y[:12], batch_size=4, shuffle=False, verbose=0)
    for one, other in zip(whole.get_weights(), cut.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)  # another engine trained the other


def diverging():
    """A line whose loss overflows in the third epoch of two steps."""
    model = line(rate=1e10)
    return model, np.ones((4, 1), np.float32), np.ones((4, 1), np.float32)


def test_an_invalid_loss_is_reported_once_with_epoch_and_batch():
    model, x, y = diverging()
    with pytest.warns(InvalidLossWarning) as caught:
        history = model.fit(x, y, batch_size=2, epochs=5, verbose=0)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert message.startswith("the loss became inf at epoch 2, batch 1. Try a smaller")
    assert "learning_rate (it is 1e+10)" in message
    assert "TerminateOnNaN()" in message
    assert caught[0].filename == __file__
    assert history.epoch == [0, 1, 2, 3, 4]


def test_terminate_on_nan_stops_the_fit():
    model, x, y = diverging()
    with pytest.warns(InvalidLossWarning):
        history = model.fit(x, y, 2, epochs=5, verbose=0, callbacks=TerminateOnNaN())
    assert history.epoch == [0, 1]
    assert not math.isfinite(history.history["loss"][-1])


def test_evaluate_says_what_it_found(capsys):
    model = line(metrics=["mae", "mse"])
    x = np.ones((3, 1))
    assert model.evaluate(x, 2 * x) == [4.0, 2.0, 4.0]
    assert capsys.readouterr().out.endswith("loss: 4.0000  mae: 2.0000  mse: 4.0000\n")
    named = model.evaluate(x, 2 * x, verbose=0, return_dict=True)
    assert named == {"loss": 4.0, "mae": 2.0, "mse": 4.0}
    assert line().evaluate(x, 2 * x, verbose=0, return_dict=True) == {"loss": 4.0}


def test_predict_gives_numpy_rows_and_keeps_no_graph(capsys, device):
    model = network(device, torch.float32)
    x, _ = data()
    output = model.predict(x, batch_size=7)
    assert (type(output), output.shape, output.dtype) == (np.ndarray, (50, 1), np.float32)
    np.testing.assert_allclose(output[3:4], model.predict(x[3].reshape(1, 4)), rtol=1e-6)
    assert capsys.readouterr().out == ""
    assert all(parameter.grad is None for parameter in model.parameters())


def test_predict_needs_no_compile():
    model = Sequential([Dense(2, in_features=4)])
    assert model.predict(data()[0]).shape == (50, 2)


def test_bfloat16_predictions_are_float32():
    model = network(dtype=torch.bfloat16)
    assert model.predict(data()[0]).dtype == np.float32


def test_mode_is_put_back_after_an_error():
    model = network().eval()
    fail = LambdaCallback(on_epoch_end=lambda epoch, logs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.fit(*data(), callbacks=fail, verbose=0)
    assert not model.training
