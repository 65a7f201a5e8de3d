"""The fused engine trains the network that autograd trains: weights, History, callbacks, data."""

import signal
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from torchnn import Sequential, callbacks, losses, optimizers
from torchnn.layers import Dense, Flatten, Normalization, Rescaling
from torchnn.utils import set_random_seed

schedules = optimizers.schedules


def data(rows=70, features=6, outputs=1):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, features))
    y = (x[:, :outputs] + 0.3 * generator.normal(size=(rows, outputs)) > 0).astype(float)
    return x, y


def model(engine, *, widths=(5, 4), last="sigmoid", outputs=1, front=(), **compiled):
    set_random_seed(7)
    layers = [Dense(width, "tanh") for width in widths]
    made = Sequential([*front, *layers, Dense(outputs, last)]).double()
    options = {"loss": "bce", "metrics": ["accuracy"], "optimizer": optimizers.SGD(0.1)}
    made.compile(engine=engine, **(options | compiled))
    return made


def both(run, **options):
    """The History and weights that the two engines leave behind."""
    found = []
    for engine in ("fused", "autograd"):
        own = {k: v() if callable(v) else v for k, v in options.items()}
        trained = model(engine, **own)
        history = run(trained)
        found.append((history.history, history.epoch, trained.get_weights()))
    return found


def assert_same(run, **options):
    (fused, epochs, weights), (autograd, other_epochs, other_weights) = both(run, **options)
    assert epochs == other_epochs
    assert fused.keys() == autograd.keys()
    for name in fused:
        np.testing.assert_allclose(fused[name], autograd[name], rtol=1e-9, err_msg=name)
    for one, other in zip(weights, other_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


def fit(**arguments):
    return lambda trained: trained.fit(*data(), verbose=0, **({"epochs": 3} | arguments))


OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(0.01, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "weight decay": lambda: optimizers.SGD(0.1, weight_decay=0.2),
    "adam": lambda: optimizers.Adam(0.01, weight_decay=0.1),
    "rmsprop": lambda: optimizers.RMSprop(0.01, weight_decay=0.1),
    "rmsprop with momentum": lambda: optimizers.RMSprop(0.01, momentum=0.5),
    "schedule": lambda: optimizers.SGD(schedules.ExponentialDecay(0.2, 5, 0.7), momentum=0.5),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("batch_size", [1, 32, 70, 100])
def test_fit_leaves_the_weights_that_autograd_leaves(optimizer, batch_size):
    assert_same(fit(batch_size=batch_size), optimizer=OPTIMIZERS[optimizer])


@pytest.mark.parametrize("widths", [(), (25, 25), (3,) * 8, (40, 130)])
@pytest.mark.parametrize(
    ("loss", "last", "outputs"),
    [
        (losses.BinaryCrossentropy(), "sigmoid", 1),
        (losses.BinaryCrossentropy(label_smoothing=0.2), "sigmoid", 3),
        (losses.BinaryCrossentropy(from_logits=True), None, 1),
        (losses.MeanSquaredError(), None, 2),
        (losses.MeanSquaredError(), "sigmoid", 1),
        (losses.MeanAbsoluteError(), None, 2),
        (losses.CategoricalCrossentropy(), "softmax", 3),
        (losses.CategoricalCrossentropy(label_smoothing=0.2), "softmax", 3),
        (losses.CategoricalCrossentropy(from_logits=True), None, 4),
    ],
)
def test_any_network_and_loss_train_the_same(widths, loss, last, outputs):
    x, y = data(outputs=outputs)
    assert_same(
        lambda trained: trained.fit(x, y, epochs=3, verbose=0),
        widths=widths,
        loss=lambda: loss,
        last=last,
        outputs=outputs,
    )


def test_a_softmax_that_goes_into_the_loss_still_comes_out_of_the_model():
    x, y = data(outputs=3)
    trained = []
    for engine in ("fused", "autograd"):
        options = {"loss": "categorical_crossentropy", "last": "softmax", "outputs": 3}
        trained.append(model(engine, **options))
        trained[-1].fit(x, y, epochs=2, verbose=0)
    for function in (
        lambda m: m.evaluate(x, y, batch_size=9, verbose=0),
        lambda m: m.predict(x, verbose=0),
        lambda m: m.predict_on_batch(x),
    ):
        np.testing.assert_allclose(*map(function, trained), rtol=1e-9)
    np.testing.assert_allclose(trained[0].predict(x, verbose=0).sum(1), 1, rtol=1e-12)


FIT_ARGUMENTS = {
    "validation split": {"validation_split": 0.3},
    "validation data": {"validation_data": data(33)},
    "no shuffle": {"shuffle": False},
    "sample weights": {"sample_weight": np.linspace(0, 2, 70)},
    "class weights": {"class_weight": {0: 0.5, 1: 2.0}},
    "weighted validation": {"validation_data": (*data(33), np.linspace(0, 1, 33))},
}


@pytest.mark.parametrize("arguments", FIT_ARGUMENTS)
def test_every_way_to_call_fit_gives_the_same_history(arguments):
    assert_same(fit(**FIT_ARGUMENTS[arguments]))


def test_layers_in_front_are_folded_into_the_data():
    x, y = data()

    def front():
        normalization = Normalization()
        normalization.adapt(x / 2 + 1)
        return [Flatten(), Rescaling(0.5, 1.0), normalization]

    assert_same(lambda trained: trained.fit(x, y, epochs=3, verbose=0), front=front)
    trained = model("fused", front=front())
    trained.fit(x, y, verbose=0)
    expected = trained(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(trained.predict(x, verbose=0), expected)


def test_callbacks_see_and_change_the_same():
    class Slower(callbacks.Callback):
        def __init__(self):
            self.batches = []

        def on_train_batch_end(self, batch, logs=None):
            self.batches.append((batch, logs["loss"], logs["accuracy"]))
            self.model.optimizer.learning_rate *= 0.9

    seen = []

    def run(trained):
        seen.append(Slower())
        return trained.fit(*data(), epochs=3, verbose=0, callbacks=seen[-1])

    assert_same(run)
    np.testing.assert_allclose(seen[0].batches, seen[1].batches, rtol=1e-9)


def test_early_stopping_restores_the_same_weights():
    def run(trained):
        stop = callbacks.EarlyStopping(patience=2, restore_best_weights=True)
        return trained.fit(
            *data(), epochs=60, validation_split=0.4, verbose=0, callbacks=stop, batch_size=8
        )

    assert_same(run, optimizer=lambda: optimizers.SGD(1.0, momentum=0.9))


def test_a_second_fit_and_single_batches_go_on_from_there():
    def run(trained):
        x, y = data()
        trained.fit(x, y, epochs=2, verbose=0)
        trained.train_on_batch(x[:9], y[:9])
        return trained.fit(x, y, epochs=2, verbose=0)

    assert_same(run, optimizer=OPTIMIZERS["adam"])


def test_evaluate_predict_and_batch_methods_agree():
    x, y = data()
    trained = []
    for engine in ("fused", "autograd"):
        trained.append(model(engine))
        trained[-1].fit(x, y, verbose=0)
    for function in (
        lambda m: m.evaluate(x, y, verbose=0),
        lambda m: m.evaluate(x, y, batch_size=9, sample_weight=np.linspace(0, 1, 70), verbose=0),
        lambda m: m.test_on_batch(x, y),
        lambda m: m.predict(x, verbose=0),
        lambda m: m.predict_on_batch(x),
    ):
        np.testing.assert_allclose(*map(function, trained), rtol=1e-9)


def test_a_data_loader_feeds_the_fused_engine():
    x, y = map(torch.tensor, data())
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    assert_same(lambda trained: trained.fit(loader, epochs=3, verbose=0))


def test_float32_and_lists_are_taken_too():
    x, y = data()
    trained = model("fused").float()
    trained.fit(x.tolist(), y[:, 0].tolist(), epochs=2, verbose=0)
    assert trained.predict(x, verbose=0).dtype == np.float32


def test_the_same_seed_gives_the_same_bits():
    weights = []
    for _ in range(2):
        trained = model("fused")
        trained.fit(*data(), epochs=5, verbose=0)
        weights.append(trained.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_two_models_train_in_two_threads():
    x, y = data(3000)

    def train(results, seed):
        trained = Sequential([Dense(9, "tanh", in_features=6), Dense(1, "sigmoid")])
        with torch.no_grad():
            for i, p in enumerate(trained[0].parameters()):
                p.copy_(torch.sin(torch.arange(p.numel()) + seed + i).reshape(p.shape))
        trained.build((None, 6))
        with torch.no_grad():
            trained[1].weight.fill_(0.1)
        trained.compile(loss="bce", engine="fused")
        trained.fit(x, y, epochs=20, verbose=0, shuffle=False)
        results[seed] = trained.get_weights()

    alone: dict = {}
    together: dict = {}
    for seed in (1, 2):
        train(alone, seed)
    threads = [threading.Thread(target=train, args=(together, seed)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (1, 2):
        for one, other in zip(alone[seed], together[seed], strict=True):
            np.testing.assert_array_equal(one, other)


def test_ctrl_c_leaves_the_weights_of_a_whole_number_of_steps():
    x, y = data(500)
    cut = model("fused")
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        cut.fit(x, y, batch_size=500, epochs=10**7, shuffle=False, verbose=0)
    steps = cut.optimizer.iterations
    assert 0 < steps < 10**7
    whole = model("fused")
    whole.fit(x, y, batch_size=500, epochs=steps, shuffle=False, verbose=0)
    for one, other in zip(cut.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    cut.fit(x, y, verbose=0)
    assert cut.optimizer.iterations == steps + 16


def test_autograd_notices_that_weights_have_changed():
    trained = model("fused")
    trained.build((None, 6))
    x, y = data()
    loss = trained(torch.tensor(x)).sum()
    trained.fit(x, y, verbose=0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
