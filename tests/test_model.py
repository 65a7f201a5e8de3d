"""compile and what it settles; fit's arguments."""

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import losses, metrics, optimizers
from torchnn._engine.fused import FusedEngine
from torchnn._training import batches
from torchnn.callbacks import EarlyStopping, History, LambdaCallback
from torchnn.layers import Activation, Dense, Input
from torchnn.losses import BinaryCrossentropy
from torchnn.sequential import Sequential

X = np.random.default_rng(0).normal(size=(20, 3))
Y = (X.sum(axis=1) > 0).astype(int)


@pytest.fixture
def model():
    return Sequential([Dense(4, "relu"), Dense(1, "sigmoid")])


def test_compile_settles_optimizer_loss_and_metrics(model):
    assert (model.optimizer, model.loss, model.metrics) == (None, None, [])
    model.compile("adam", "mse", ["accuracy", metrics.MeanAbsoluteError()])
    assert isinstance(model.optimizer, optimizers.Adam)
    assert isinstance(model.loss, losses.MeanSquaredError)
    assert [metric.name for metric in model.metrics] == ["accuracy", "mean_absolute_error"]


def test_the_default_is_gradient_descent_with_a_rate_of_a_hundredth(model):
    model.compile(loss="bce")
    assert isinstance(model.optimizer, optimizers.SGD)
    assert (model.optimizer.learning_rate, model.optimizer.momentum) == (0.01, 0.0)


def test_objects_are_taken_as_they_are(model):
    optimizer, loss = optimizers.SGD(1), BinaryCrossentropy()
    model.compile(optimizer, loss, "accuracy")
    assert (model.optimizer, model.loss) == (optimizer, loss)
    assert model.metrics[0].name == "accuracy"


def test_functions_are_losses_and_metrics(model):
    def distance(y_true, y_pred):
        return (y_true - y_pred).abs()

    model.compile(loss=distance, metrics=[distance])
    history = model.fit(X, Y, verbose=0).history
    assert history["loss"] == pytest.approx(history["distance"])


def test_losses_of_torch_are_losses(model):
    model.compile(loss=nn.BCELoss())
    ours = Sequential([model[0], model[1]])
    ours.compile(loss="bce")
    found = model.evaluate(X, Y, verbose=0)
    assert found == pytest.approx(ours.evaluate(X, Y, verbose=0))


@pytest.mark.parametrize(
    "arguments",
    [
        {"backend": "inductor"},
        {"mode": "max-autotune"},
        {"fullgraph": True},
        {"dynamic": True},
        {"loss": "bce", "options": {}},
    ],
)
def test_arguments_of_torch_compile_are_shown_the_way(model, arguments):
    with pytest.raises(TypeError, match=r"compile got .*torch\.compile\(model, \.\.\.\)"):
        model.compile(**arguments)
    assert model.loss is None


def test_other_arguments_are_named(model):
    with pytest.raises(TypeError, match="compile got unknown sample_mode; it takes optimizer"):
        model.compile(loss="bce", sample_mode=True)


def test_arguments_of_keras_s_engines_change_nothing(model):
    model.compile(
        loss="bce", run_eagerly=True, steps_per_execution=8, jit_compile=False, auto_scale_loss=True
    )
    model.fit(X, Y, verbose=0, workers=2, use_multiprocessing=True, max_queue_size=3)


def test_metrics_have_names_in_the_order_of_evaluate(model):
    assert model.metrics_names == []
    model.compile(loss="bce", metrics=["accuracy", metrics.AUC()], weighted_metrics=["accuracy"])
    assert model.metrics_names == ["loss", "accuracy", "auc", "weighted_accuracy"]
    named = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert list(named) == model.metrics_names
    assert list(named.values()) == model.evaluate(X, Y, verbose=0)
    model.reset_metrics()


def test_a_model_may_be_compiled_before_it_has_layers():
    model = Sequential()
    model.compile("adam", "bce", metrics=["accuracy"])
    with pytest.raises(ValueError, match="no layers"):
        model.fit(X, Y, verbose=0)
    model.add(Dense(4, "relu"))
    model.add(Dense(1, "sigmoid"))
    assert list(model.fit(X, Y, verbose=0).history) == ["loss", "accuracy"]


def test_layers_that_come_after_compile_are_looked_at_when_they_are_used():
    model = Sequential()
    model.compile(loss=BinaryCrossentropy(from_logits=True))
    model.add(Dense(1, "sigmoid"))
    with pytest.warns(UserWarning, match="the model ends in a sigmoid"):
        model.fit(X, Y, verbose=0)
    model.fit(X, Y, verbose=0)  # once
    fused = Sequential()
    fused.compile(loss="bce", engine="fused")
    fused.add(nn.Linear(3, 1))
    fused.add(nn.Softplus())
    with pytest.raises(ValueError, match=r'^engine="fused" cannot train this model'):
        fused.fit(X, Y, verbose=0)


def test_several_values_of_a_metric_are_an_array(model):
    model.compile(loss="bce", metrics=[metrics.Precision(thresholds=[0.2, 0.8])])
    history = model.fit(X, Y, epochs=2, verbose=2).history
    assert np.shape(history["precision"]) == (2, 2)


class Hits(metrics.Metric):
    """Keras's way: weights that are assigned."""

    def __init__(self, name="hits", **options):
        super().__init__(name=name, **options)
        self.hits = self.add_weight(name="hits", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.hits.assign_add(((y_pred > 0.5) == (y_true > 0.5)).sum())

    def result(self):
        return self.hits


@pytest.mark.parametrize("engine", ["fused", "autograd"])
def test_a_metric_of_one_s_own_is_one_of_each_epoch(engine):
    model = Sequential([Dense(1, "sigmoid", in_features=3)])
    hits = Hits()
    model.compile(loss="bce", metrics=[hits, "accuracy"], engine=engine)
    history = model.fit(X, Y, batch_size=3, epochs=3, verbose=0).history
    assert history["hits"] == pytest.approx([20 * each for each in history["accuracy"]])
    assert hits.result() == 0


def test_torch_compile_takes_the_model(model):
    model(torch.ones(1, 3))
    compiled = torch.compile(model, backend="eager")
    x = torch.tensor(X, dtype=torch.float32)
    torch.testing.assert_close(compiled(x), model(x))


def test_compiling_again_starts_afresh(model):
    model.compile(loss="bce", metrics=["accuracy"])
    model.fit(X, Y, verbose=0)
    model.compile(loss="mse")
    assert model.optimizer.iterations == 0
    assert list(model.fit(X, Y, verbose=0).history) == ["loss"]


def test_a_compile_that_fails_leaves_the_one_before(model):
    model.compile(loss="bce")
    before = model.optimizer
    with pytest.raises(ValueError, match="unknown metric"):
        model.compile("adam", "mse", ["acuracy"])
    assert model.optimizer is before
    assert isinstance(model.loss, BinaryCrossentropy)


def test_a_softmax_before_from_logits_is_a_warning():
    loss = losses.CategoricalCrossentropy(from_logits=True)
    with pytest.warns(UserWarning, match="CategoricalCrossentropy.*ends in a softmax"):
        Sequential([Dense(3, "softmax")]).compile(loss=loss)


@pytest.mark.parametrize("end", [[Dense(1, "sigmoid")], [Dense(1), Activation("sigmoid")]])
def test_a_sigmoid_before_from_logits_is_a_warning(end):
    with pytest.warns(UserWarning, match="from_logits=True.*ends in a sigmoid") as caught:
        Sequential(end).compile(loss=BinaryCrossentropy(from_logits=True))
    assert caught[0].filename == __file__


MSE, TWICE = "mse", "takes its input for logits, but the model ends in a"
LOG_P = "takes its input for logarithms of probabilities, but the model ends in a"
FROM_LOGITS = BinaryCrossentropy(from_logits=True)
SPARSE_LOGITS = losses.SparseCategoricalCrossentropy(from_logits=True)
BY_ITSELF = "takes every output by itself, but the model ends in a softmax"
OF_CLASSES = "compares classes, each with an output of its own, but the model"


@pytest.mark.parametrize(
    ("layers", "loss", "message"),
    [
        ([Dense(1, "softmax")], "bce", "a softmax over one output, which is always 1"),
        ([Dense(4), Dense(1), Activation("softmax")], MSE, "softmax over one output"),
        ([nn.Linear(3, 1), nn.Softmax(1)], MSE, "softmax over one output"),
        ([Dense(3, "softmax")], FROM_LOGITS, f"{TWICE} softmax: leave out from_logits=True"),
        ([Dense(3, "softmax")], nn.CrossEntropyLoss(), f"CrossEntropyLoss {TWICE} softmax"),
        ([Dense(3), nn.Softmax(1)], nn.CrossEntropyLoss(), f"CrossEntropyLoss {TWICE} softmax"),
        ([Dense(3, "sigmoid")], nn.CrossEntropyLoss(), f"CrossEntropyLoss {TWICE} sigmoid"),
        ([Dense(1), nn.Sigmoid()], nn.BCEWithLogitsLoss(), f"BCEWithLogitsLoss {TWICE} sigmoid"),
        ([nn.Sequential(Dense(3, "softmax"))], nn.NLLLoss(), f"NLLLoss {LOG_P} softmax"),
        ([Dense(3, "softmax"), Activation("softmax")], MSE, "a softmax of a softmax: leave one of"),
        ([Dense(3, "softmax"), nn.Softmax(1)], "bce", "ends in a softmax of a softmax"),
        ([Dense(3, "softmax")], SPARSE_LOGITS, f"{TWICE} softmax: leave out from_logits=True"),
        ([Dense(2, "softmax")], "bce", f"BinaryCrossentropy {BY_ITSELF}"),
        ([Dense(2, "softmax")], "binary_focal_crossentropy", BY_ITSELF),
        ([Dense(2), nn.Softmax(-1)], nn.BCELoss(), f"BCELoss {BY_ITSELF}"),
        ([Dense(3, "sigmoid")], "categorical_crossentropy", f"{OF_CLASSES} ends in a sigmoid: "),
        ([Dense(1, "sigmoid")], "sparse_categorical_crossentropy", f"{OF_CLASSES} ends in a sig"),
        ([Dense(1)], SPARSE_LOGITS, f"{OF_CLASSES} has one output: make the last activation a so"),
        (
            [nn.Linear(2, 1)],
            nn.CrossEntropyLoss(),
            f"^CrossEntropyLoss {OF_CLASSES} has one output",
        ),
    ],
)
def test_an_end_that_does_not_suit_the_loss_is_a_warning(layers, loss, message):
    with pytest.warns(UserWarning, match=message) as caught:
        Sequential(layers).compile(loss=loss)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("layers", "loss"),
    [
        ([Dense(1, "sigmoid")], "bce"),
        ([Dense(2, "sigmoid")], "bce"),
        ([Dense(3, "softmax")], "categorical_crossentropy"),
        ([Dense(3, "softmax")], "sparse_categorical_crossentropy"),
        ([Dense(3)], SPARSE_LOGITS),
        ([Dense(3, "softmax"), Dense(3, "softmax")], "categorical_crossentropy"),
        ([Dense(3)], nn.CrossEntropyLoss()),
        ([Dense(3, "log_softmax")], nn.NLLLoss()),
        ([Dense(1, "softmax"), Dense(1)], MSE),
        ([nn.Flatten(), nn.Softmax(1)], MSE),
        ([nn.Sequential()], MSE),
    ],
)
def test_an_end_that_suits_the_loss_is_none(layers, loss):
    Sequential(layers).compile(loss=loss)


@pytest.mark.parametrize("call", ["evaluate", "train_on_batch", "test_on_batch"])
def test_return_dict_is_true_or_false(model, call):
    model.compile(loss="bce")
    with pytest.raises(TypeError, match=r"^return_dict must be True or False, got 'no'$"):
        getattr(model, call)(X, Y, return_dict="no")
    assert not model.layers[0].built


def test_logits_and_no_sigmoid_are_as_good_as_a_sigmoid(model):
    linear = Sequential([Dense(4, "relu"), Dense(1)])
    model.build((None, 3))
    linear.load_state_dict(model.state_dict())
    model.compile(loss="bce")
    linear.compile(loss=BinaryCrossentropy(from_logits=True))
    expected = model.fit(X, Y, epochs=3, verbose=0).history["loss"]
    assert linear.fit(X, Y, epochs=3, verbose=0).history["loss"] == pytest.approx(expected)


def test_fit_returns_and_keeps_the_history(model):
    model.compile(loss="bce", metrics=["accuracy"])
    history = model.fit(X, Y, epochs=3, validation_split=0.25, verbose=0)
    assert isinstance(history, History)
    assert model.history is history
    assert history.epoch == [0, 1, 2]
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert all(type(value) is float for values in history.history.values() for value in values)


def test_a_fit_goes_at_the_pace_that_the_last_one_found_out(model, monkeypatch):
    model.compile("sgd", "mse")
    calls, train = [], FusedEngine.train
    monkeypatch.setattr(
        FusedEngine, "train", lambda *args: calls.append(len(args[1])) or train(*args)
    )
    for _ in range(2):
        model.fit(X, Y, epochs=3, batch_size=1, verbose=0)
        model._recipe.paces = {kind: {1: 60} for kind in model._recipe.paces}
    assert calls[0] == batches.FIRST_PACE
    assert sum(calls[:-1]) == calls[-1] == 60


def test_numpy_integers_are_integers(model):
    model.compile(loss="bce")
    five = np.int64(5)
    history = model.fit(X, Y, five, five, initial_epoch=np.int32(3), verbose=0)
    assert history.epoch == [3, 4]
    assert model.predict(X, five).shape == (20, 1)


def test_targets_may_be_a_row_or_a_column(model):
    model.compile(loss="bce", metrics=["accuracy"])
    row = model.evaluate(X, Y, verbose=0)
    assert model.evaluate(X, Y.reshape(20, 1), verbose=0) == row
    assert model.evaluate(X.tolist(), Y.tolist(), verbose=0) == pytest.approx(row)


def test_one_feature_may_be_a_row_of_numbers():
    model = Sequential([Dense(1, in_features=1)])
    model.compile(loss="mse")
    model.fit([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], verbose=0)
    assert model.predict([10.0]).shape == (1, 1)


def test_early_stopping_ends_with_the_best_weights(model):
    model.compile(loss="bce", optimizer=optimizers.SGD(50.0))
    stopping = EarlyStopping(patience=2, restore_best_weights=True)
    history = model.fit(
        X, Y, 4, epochs=50, validation_data=(X, Y), callbacks=[stopping], verbose=0
    ).history
    assert model.evaluate(X, Y, 4, verbose=0) == pytest.approx(min(history["val_loss"]))


def test_a_model_learns_on_the_device(device):
    torch.manual_seed(1)
    model = Sequential([Dense(8, "relu"), Dense(1, "sigmoid")]).to(device)
    model.compile("adam", "bce", ["accuracy"])
    model.optimizer.learning_rate = 0.05
    model.fit(X, Y, 4, epochs=30, verbose=0)
    assert model[0].weight.device.type == device
    assert model.evaluate(X, Y, verbose=0)[1] == 1.0


ROWS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
LABELS = (ROWS.sum(1) > 0).float()


@pytest.mark.parametrize("options", [{"in_features": 6}, {}], ids=["built", "not built yet"])
def test_trainable_is_requires_grad(options):
    model = Sequential([Dense(4, "relu", **options), Dense(1, "sigmoid")])
    model.layers[0].trainable = False
    model.compile(loss="bce")
    model.predict(ROWS, verbose=0)
    before = model.layers[0].get_weights()
    model.fit(ROWS, LABELS, verbose=0)
    assert (model.trainable, model.layers[1].trainable) == (False, True)
    assert all(map(np.array_equal, before, model.layers[0].get_weights()))
    model.trainable = True
    model.fit(ROWS, LABELS, verbose=0)
    assert not np.array_equal(before[0], model.layers[0].get_weights()[0])


def test_samples_of_more_axes_train_through_autograd():
    x = torch.randn(20, 5, 6)
    model = Sequential([Dense(4, "relu"), Dense(1, "sigmoid")])
    assert model.predict(x, verbose=0).shape == (20, 5, 1)
    model.compile(loss="bce")
    model.fit(x, (x.sum(2, keepdim=True) > 0).float(), verbose=0)
    assert model.train_on_batch(x, (x.sum(2, keepdim=True) > 0).float()) > 0
    with pytest.raises(ValueError, match="cannot train this model: its samples have 2 axes"):
        model.compile(loss="bce", engine="fused")


def test_weights_that_are_not_contiguous_train_through_autograd():
    model = Sequential([Dense(4, "sigmoid", in_features=6), Dense(1, "sigmoid")])
    model.compile(loss="bce")
    model[0].weight.data = torch.randn(6, 4).T
    expected = model(ROWS).detach()
    np.testing.assert_allclose(model.predict(ROWS, verbose=0), expected, rtol=1e-6)
    model.fit(ROWS, LABELS, verbose=0)
    assert not torch.equal(model(ROWS), expected)


def test_class_weights_do_not_weigh_the_samples_that_validate():
    model = Sequential([Dense(1, "sigmoid", in_features=6)])
    model.compile(optimizers.SGD(0.0), "bce")
    weights = {0: 1.0, 1: 100.0}
    split = model.fit(ROWS, LABELS, validation_split=0.25, class_weight=weights, verbose=0)
    given = model.fit(
        ROWS[:30],
        LABELS[:30],
        validation_data=(ROWS[30:], LABELS[30:]),
        class_weight=weights,
        verbose=0,
    )
    assert split.history["val_loss"] == pytest.approx(given.history["val_loss"])


def test_a_layer_that_a_callback_freezes_stays_as_it_is():
    found = []
    for engine in ("auto", "autograd"):
        torch.manual_seed(0)
        model = Sequential([Dense(4, "tanh", in_features=6), Dense(1, "sigmoid")])
        model.compile(loss="bce", engine=engine)

        def freeze(epoch, logs, model=model):
            if epoch == 2:
                model[0].trainable = False

        model.fit(
            ROWS, LABELS, epochs=5, callbacks=LambdaCallback(on_epoch_begin=freeze), verbose=0
        )
        found.append(model.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_class_numbers_go_with_the_cross_entropy_of_pytorch():
    labels = torch.randint(3, (40,))
    model = Sequential([Dense(3, in_features=6)])
    model.compile("adam", nn.CrossEntropyLoss(), metrics=["accuracy"])
    expected = nn.functional.cross_entropy(model(ROWS), labels).item()
    loss, accuracy = model.evaluate(ROWS, labels, batch_size=40, verbose=0)
    assert loss == pytest.approx(expected)
    assert accuracy == pytest.approx((model(ROWS).argmax(1) == labels).float().mean().item())
    model.fit(ROWS, labels[:, None], verbose=0)


@pytest.mark.parametrize("verbose", [0, 1])
def test_no_samples_have_no_predictions(model, verbose):
    calls = []
    hooks = {f"on_predict_{when}": lambda logs: calls.append(logs) for when in ("begin", "end")}
    found = model.predict(X[:0], verbose=verbose, callbacks=LambdaCallback(**hooks))
    assert found.shape == model.predict_on_batch(X[:0]).shape == (0, 1)
    assert model(torch.ones(0, 3)).shape == (0, 1)
    assert len(calls) == 2


def test_time_steps_may_have_weights_of_their_own():
    x, y = torch.rand(6, 4, 3), torch.rand(6, 4, 1)
    weight = torch.arange(24.0).reshape(6, 4)
    model = Sequential([Dense(1, in_features=3)])
    model.compile("sgd", "mse")
    expected = ((model(x) - y).square().squeeze(-1) * weight).mean().item()
    assert model.evaluate(x, y, sample_weight=weight, batch_size=6, verbose=0) == pytest.approx(
        expected
    )
    history = model.fit(x, y, sample_weight=weight.numpy(), batch_size=6, verbose=0).history
    assert history["loss"] == pytest.approx([expected])
    with pytest.raises(ValueError, match=r"one number a sample, shape \(6,\), got shape \(6, 3\)"):
        model.fit(x, y, sample_weight=weight[:, :3], verbose=0)


@pytest.mark.parametrize("name", ["train_step", "test_step", "predict_step", "compute_loss"])
def test_a_step_of_ones_own_that_nothing_would_call_is_refused(name):
    own = type("Own", (Sequential,), {name: lambda self, data: {}})([Dense(1)])
    message = f"^{name} of Own would never be called: .* tf.GradientTape, PyTorch or train_on_batch"
    with pytest.raises(TypeError, match=message):
        own.compile(loss="mse")
    with pytest.raises(TypeError, match=message):
        own.predict(np.ones((2, 3)))
    assert not own.layers[0].built


def test_a_model_that_was_compiled_frozen_trains_nothing():
    model = Sequential([Dense(1, trainable=False, in_features=3)])
    model.compile(loss="mse")
    before = model.get_weights()[0]
    with pytest.warns(UserWarning, match=r"^the model has nothing to train: .* was compiled$"):
        history = model.fit(np.ones((2, 3)), np.ones(2), epochs=2, verbose=0)
    assert history.history["loss"] == [pytest.approx((before.sum() - 1) ** 2)] * 2
    assert (model.get_weights()[0] == before).all()


def test_a_frozen_model_tells_how_to_train_it():
    model = Sequential([Dense(1)])
    model.compile(loss="mse")
    model.trainable = False
    x, y = np.ones((2, 3)), np.ones(2)
    with pytest.raises(ValueError, match=r"set trainable=True before train_on_batch or fit"):
        model.train_on_batch(x, y)
    model.trainable = True
    model.train_on_batch(x, y)


def test_a_loss_of_pairs_takes_a_batch():
    def of_pairs(y_true, y_pred):
        one, other = y_pred.reshape(-1, 2, 2).unbind(1)
        return ((one - other) ** 2).mean()

    model = Sequential([Input((3,)), Dense(2)])
    model.compile("sgd", of_pairs)
    x, y = np.ones((8, 3), np.float32), np.ones((8, 2), np.float32)
    assert model.train_on_batch(x, y) == model.test_on_batch(x, y) == 0
