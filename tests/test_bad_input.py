"""Every kind of bad input: a clear error before any work, and nothing half-changed.

The rows are those of the specification; each names the argument, what came and what is allowed.
"""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torchnn import losses, metrics, optimizers
from torchnn.callbacks import EarlyStopping
from torchnn.layers import BatchNormalization, Dense, Flatten, Input
from torchnn.sequential import Sequential

X = np.random.default_rng(0).random((10, 3))
Y = (X[:, 0] > 0.5).astype(int)
NO_BATCH_AXIS = (
    "x must have a batch axis, shape (samples, features), got shape (3,): "
    "one sample is x.reshape(1, 3)"
)
NOT_AN_ARRAY = "x must be an array, a tensor, a data frame or lists of numbers, got "
OPTIMIZERS = ", ".join(optimizers.NAMES)
LOSSES = ", ".join(losses.NAMES)
METRICS = ", ".join(metrics.NAMES)


def with_value(array, value, row):
    array = array.astype(float)
    array[row] = value
    return array


def loader(*arrays, **options):
    return DataLoader(TensorDataset(*map(torch.tensor, arrays)), **options)


def compiled(**options):
    model = Sequential([Input((3,)), Dense(4, "tanh"), Dense(1, "sigmoid")])
    model.compile(**{"loss": "bce", "metrics": ["accuracy"]} | options)
    return model


def unbuilt():
    model = Sequential([Dense(4, "tanh"), Dense(1, "sigmoid")])
    model.compile(loss="bce")
    return model


def state_of(model):
    """All that fit changes, in a form that can be compared."""
    weights = model.get_weights() if model[0].built else "not built"
    optimizer = model.optimizer.state_dict()
    trained = (model.epochs_trained, model.history, model.training)
    return repr((weights, optimizer, trained, model._recipe))


def assert_refused(message, function, *arguments, **options):
    """The message is the whole of the error's."""
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}$"):
        function(*arguments, **options)


@pytest.mark.parametrize("units", [0, -1, 2.5, "3", True, None, np.float64(3)])
def test_units(units):
    assert_refused(f"units must be a positive integer, got {units!r}", Dense, units)
    assert Dense(np.int32(3)).units == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Dense(1, "sigmod"),
            "unknown activation 'sigmod': did you mean 'sigmoid'? Known: ",
        ),
        (
            lambda: Dense(1, kernel_initializer="glorot_unifrom"),
            "unknown initializer 'glorot_unifrom': did you mean 'glorot_uniform'? Known: ",
        ),
    ],
)
def test_unknown_names_of_layers(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*relu|uniform.*ones"):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"loss": "binary_crosentropy"},
            "unknown loss 'binary_crosentropy': did you mean 'binary_crossentropy'? "
            f"Known: {LOSSES}",
        ),
        (
            {"optimizer": "sgdd"},
            f"unknown optimizer 'sgdd': did you mean 'sgd'? Known: {OPTIMIZERS}",
        ),
        ({"optimizer": "zzz"}, f"unknown optimizer 'zzz'. Known: {OPTIMIZERS}"),
        (
            {"metrics": ["acuracy"]},
            f"unknown metric 'acuracy': did you mean 'accuracy'? Known: {METRICS}",
        ),
        (
            {"optimizer": optimizers.SGD},
            "optimizer must be an instance, got the class SGD: write SGD()",
        ),
        (
            {"loss": losses.BinaryCrossentropy},
            "loss must be an instance, got the class BinaryCrossentropy: "
            "write BinaryCrossentropy()",
        ),
        (
            {"metrics": [nn.L1Loss]},
            "metric must be an instance, got the class L1Loss: write L1Loss()",
        ),
        ({"optimizer": 3}, f"optimizer must be an object or one of {OPTIMIZERS}; got 3"),
        ({"loss": 3}, f"loss must be an object or one of {LOSSES}; got 3"),
        ({"metrics": 3}, "metrics must be a list, got 3"),
        (
            {"metrics": ["acc", "acc"]},
            "metrics must have different names, not 'loss'; got 'acc' twice",
        ),
        (
            {"loss": None},
            f"loss must be given, as a name or an object, got None. Known: {LOSSES}. "
            "(PyTorch's compiler is torch.compile(model).)",
        ),
        (
            {"loss": losses.MeanSquaredError(reduction="none")},
            'loss must reduce to one number to train on, got reduction="none"',
        ),
    ],
)
def test_compile(options, message):
    model = compiled()
    before = state_of(model)
    assert_refused(message, model.compile, **{"loss": "bce"} | options)
    assert state_of(model) == before


@pytest.mark.parametrize("action", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_before_compile(action):
    model = Sequential([Dense(1)])
    message = f"{action} needs a compiled model: call compile(loss=...) first"
    assert_refused(message, getattr(model, action), X, Y)
    assert not model[0].built


@pytest.mark.parametrize("action", ["fit", "evaluate", "predict", "pop"])
def test_no_layers(action):
    arguments = {"fit": (X, Y), "evaluate": (X, Y), "predict": (X,)}.get(action, ())
    message = "the model has no layers: add one first"
    assert_refused(message, getattr(Sequential(), action), *arguments)


class Sparse:
    def toarray(self):
        raise AssertionError("a large array would be made unasked")


class Lazy:
    def collect(self):
        raise AssertionError("a query would be made unasked")


BAD_X = [
    (X[0], NO_BATCH_AXIS),
    (X[:, :2], "x must have 3 features, as the first layer expects, got shape (10, 2)"),
    (X[:0], "x must hold at least one sample, got shape (0, 3)"),
    (with_value(X, np.nan, 3), "x must be finite in float32, got nan at row 3"),
    (with_value(X, -np.inf, 4), "x must be finite in float32, got -inf at row 4"),
    (X * 1e300, "x must be finite in float32, got inf at row 0"),
    (X.astype(object), "x must hold numbers, got dtype object"),
    (X.astype("S8"), "x must hold numbers, got dtype |S8"),
    (X.astype(str).tolist(), "x must hold numbers, got dtype <U20"),
    (X.astype("datetime64[s]"), "x must hold numbers, got dtype datetime64[s]"),
    (X + 1j, "x must hold numbers, got dtype complex128"),
    ([[1, 2, 3], [1, 2]], "x must be rectangular, got rows of different lengths"),
    (None, NOT_AN_ARRAY + "NoneType"),
    ("abc", NOT_AN_ARRAY + "str"),
    ({"a": 1}, NOT_AN_ARRAY + "dict"),
    (b"abc", NOT_AN_ARRAY + "bytes"),
    (iter(X), NOT_AN_ARRAY + "iterator"),
    ((row for row in X), NOT_AN_ARRAY + "generator"),
    (Sparse(), "x is sparse, a Sparse: pass x.toarray()"),
    (Lazy(), "x is not computed yet, a Lazy: pass x.collect()"),
    (
        np.ma.array(X, mask=X > 0.9),
        f"x must have no masked entries, got {(X > 0.9).sum()}: fill them, as in x.filled(0), or "
        "drop their rows",
    ),
    (TensorDataset(torch.ones(10, 3)), "x is a Dataset: wrap it in a torch.utils.data.DataLoader"),
    (
        torch.ones(10, 3).to_sparse(),
        "x must be a dense tensor of real numbers, got torch.sparse_coo, torch.float32",
    ),
]


@pytest.mark.parametrize("action", ["fit", "evaluate", "predict", "train_on_batch"])
@pytest.mark.parametrize(("x", "message"), BAD_X)
def test_x(x, message, action):
    if action == "predict" and message.startswith("x must hold at least one sample"):
        pytest.skip("no samples have no predictions")
    if action == "predict" and hasattr(x, "__next__"):
        pytest.skip("it gives batches")
    model = compiled()
    before = state_of(model)
    arguments = (x,) if action == "predict" else (x, Y)
    if isinstance(x, np.ndarray) and len(x) == 0 and action != "predict":
        arguments = (x, Y[:0])
    assert_refused(message, getattr(model, action), *arguments)
    assert state_of(model) == before


@pytest.mark.parametrize(
    ("column", "dtype"),
    [(["a"] * 10, "object"), (np.arange(10).astype("datetime64[s]"), "datetime64[s]")],
)
def test_x_with_columns_that_hold_no_numbers(column, dtype):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": X[:, 0], "city": column, "rent": X[:, 1]})
    message = f"x must hold numbers, got dtype {dtype} (columns city)"
    assert_refused(message, compiled().fit, frame, Y)
    message = f"y must hold numbers, got dtype {dtype} (columns city)"
    assert_refused(message, compiled().fit, X, frame["city"])


@pytest.mark.parametrize("dtype", ["Int64", "Float32", "boolean"])
def test_x_with_columns_that_miss_values(dtype):
    pandas = pytest.importorskip("pandas")
    column = pandas.array([1, 0, None, *[1] * 7], dtype=dtype)
    frame = pandas.DataFrame({"age": X[:, 0], "owns": column, "rent": X[:, 1]})
    message = "x must have no missing values, got NA at row 2 (columns owns)"
    assert_refused(message, compiled().fit, frame, Y)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (3, 4, 5),
            "x must have samples of (4, 4), as the first layer expects, got shape (3, 4, 5)",
        ),
        (
            (4, 4),
            "x must have a batch axis, shape (samples, features), got shape (4, 4): "
            "one sample is x.reshape(1, 4, 4)",
        ),
    ],
)
def test_x_of_images(shape, message):
    model = Sequential([Input((4, 4)), Flatten(), Dense(1)])
    assert_refused(message, model.predict, np.ones(shape))


def test_x_of_another_width_than_the_first():
    model = unbuilt()
    model.fit(X, Y, verbose=0)
    before = state_of(model)
    assert_refused(BAD_X[1][1], model.fit, X[:, :2], Y)
    assert state_of(model) == before


NO_LABEL = "binary_crossentropy needs y in [0, 1], got values from"
BAD_Y = [
    (Y[:9], "y must have as many rows as x, 10, got 9 rows"),
    (Y[0], "y must have as many rows as x, 10, got a single number"),
    (with_value(Y, np.nan, 2), "y must be finite in float32, got nan at row 2"),
    (with_value(Y, np.inf, 2), "y must be finite in float32, got inf at row 2"),
    (2 * Y, f"y does not suit the loss: {NO_LABEL} 0 to 2"),
    (Y - 1, f"y does not suit the loss: {NO_LABEL} -1 to 0"),
    (np.array(["zero"] * 10), "y must hold numbers, got dtype <U4"),
    (Y.astype(object), "y must hold numbers, got dtype object"),
    (None, "y must be given, unless x is a DataLoader; got None"),
    (
        np.ones((10, 2)),
        "y has shape (N, 2), which does not fit the model's output of shape (N, 1)",
    ),
    (np.ones((10, 0)), "y must hold at least one value a row, got shape (10, 0)"),
]


@pytest.mark.parametrize("make", [compiled, unbuilt])
@pytest.mark.parametrize("action", ["fit", "evaluate"])
@pytest.mark.parametrize(("y", "message"), BAD_Y)
def test_y(y, message, action, make):
    model = make()
    before = state_of(model)
    assert_refused(message, getattr(model, action), X, y)
    assert state_of(model) == before


BOTH = "class_weight and sample_weight were both given: pass one of them"
FIT_OPTIONS = [
    *[({"batch_size": v}, f"batch_size must be a positive integer, got {v!r}")
      for v in (0, -1, 2.5, "8", True)],
    *[({"epochs": v}, f"epochs must be a non-negative integer, got {v!r}")
      for v in (-1, 1.5, "3", True)],
    *[({"initial_epoch": v}, f"initial_epoch must be a non-negative integer, got {v!r}")
      for v in (-1, 1.5)],
    *[({"validation_split": v}, f"validation_split must be a number in [0, 1), got {v!r}")
      for v in (1.0, -0.1, 2, "0.1", float("nan"))],
    (
        {"validation_split": 0.95},
        "validation_split=0.95 of 10 samples leaves 0 to train on and 10 to validate on: "
        "both need some",
    ),
    ({"class_weight": {0: 1.0}, "sample_weight": np.ones(10)}, BOTH),
    (
        {"class_weight": [1, 2]},
        "class_weight must be a dict from class labels to weights, got [1, 2]",
    ),
    (
        {"class_weight": "balanced"},
        "class_weight must be a dict from class labels to weights, got 'balanced'",
    ),
    ({"class_weight": {0: -1}}, "class_weight[0] must be a non-negative number, got -1"),
    (
        {"class_weight": {"a": 1}},
        "a class label of class_weight must be a whole number, got 'a'",
    ),
    *[({"class_weight": {v: 1}}, f"a class label of class_weight must be a whole number, got {v!r}")
      for v in (0.5, float("nan"), float("inf"), None, (1,), torch.tensor(0.5))],
    (
        {"class_weight": {1: 1.0, torch.tensor(1.0): 2.0}},
        "class_weight must have each label once, got 1 twice",
    ),
    ({"sample_weight": np.ones(9)}, "sample_weight must have as many rows as x, 10, got 9 rows"),
    (
        {"sample_weight": np.full(10, np.inf)},
        "sample_weight must be finite in float32, got inf at row 0",
    ),
    (
        {"sample_weight": np.ones((10, 2))},
        "sample_weight must be one number a sample, shape (10,), got shape (10, 2)",
    ),
    (
        {"sample_weight": np.full(10, np.nan)},
        "sample_weight must be finite in float32, got nan at row 0",
    ),
    *[({"callbacks": v}, f"callbacks must hold torchnn.callbacks.Callback, got {got}")
      for v, got in ((3, "3"), ([None], "None"), ("stop", "'s'"), ([print], repr(print)))],
    (
        {"callbacks": [EarlyStopping]},
        "callbacks must hold instances, got the class EarlyStopping: write EarlyStopping()",
    ),
    ({"verbose": 5}, 'verbose must be "auto", 0, 1 or 2, got 5'),
    ({"shuffle": "yes"}, "shuffle must be True or False, got 'yes'"),
    *[({"validation_data": v}, "validation_data must be (x, y), (x, y, sample_weight) or "
       f"what gives batches, got {type(v).__name__}") for v in (3, (X,), X)],
    (
        {"validation_data": (X, Y[:3])},
        "y of validation_data must have as many rows as x, 10, got 3 rows",
    ),
    (
        {"validation_data": (X[:, :1], Y)},
        "x of validation_data must have 3 features, as the first layer expects, "
        "got shape (10, 1)",
    ),
    (
        {"validation_data": (X, 3 * Y)},
        f"y of validation_data does not suit the loss: {NO_LABEL} 0 to 3",
    ),
    (
        {"validation_data": (X, np.ones((10, 2)))},
        "y of validation_data has shape (N, 2), which does not fit the model's output "
        "of shape (N, 1)",
    ),
    (
        {"validation_data": (X[0], Y)},
        "x of validation_data must have a batch axis, shape (samples, features), "
        "got shape (3,): one sample is x.reshape(1, 3)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), FIT_OPTIONS)
def test_options_of_fit(options, message):
    model = compiled()
    before = state_of(model)
    assert_refused(message, model.fit, X, Y, **options)
    assert state_of(model) == before


def test_labels_that_class_weight_cannot_use():
    model = compiled(loss="mse")
    message = "class_weight needs whole-number labels in y, got shape (10,), from 0 to 0.5"
    assert_refused(message, model.fit, X, Y / 2, class_weight={0: 1.0})


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (loader(X), {}, "a batch from the DataLoader must be (x, y) or (x, y, sample_weight), "
         "got list of 1"),
        (
            DataLoader([{"x": 1.0}]),
            {},
            "a batch from the DataLoader must be (x, y) or (x, y, sample_weight), got dict",
        ),
        (loader(X, Y), {"y": Y}, "y must be None when x is a DataLoader, which yields (x, y)"),
        (
            loader(X, Y),
            {"sample_weight": Y},
            "sample_weight must be None when x is a DataLoader, which yields (x, y)",
        ),
        (
            loader(X, Y),
            {"validation_split": 0.5},
            "validation_split must be 0 when x is a DataLoader, got 0.5: pass validation_data",
        ),
        (loader(X[:0], Y[:0]), {}, "x from the DataLoader must hold at least one batch, got none"),
        (
            loader(X, 2 * Y, batch_size=10),
            {},
            f"y from the DataLoader does not suit the loss: {NO_LABEL} 0 to 2",
        ),
        (
            loader(X[:, :2], Y),
            {},
            "x from the DataLoader must have 3 features, as the first layer expects, "
            "got shape (1, 2)",
        ),
    ],
)  # fmt: skip
def test_loaders(x, options, message):
    model = compiled()
    before = state_of(model)
    assert_refused(message, model.fit, x, **options)
    assert state_of(model) == before


def with_labels(loss=nn.CrossEntropyLoss):
    model = Sequential([Dense(4, "tanh"), Dense(3)])
    model.compile(loss=loss())
    return model


LABELS = np.arange(10) % 3
NO_CLASS = "does not suit the loss: y must hold class numbers from 0 to 2, or -100 to be ignored, "
WRONG_LABELS = [
    (with_value(LABELS, 1.9, 0), "got 1.9 at row 0"),
    (with_value(LABELS, 3, 9), "got 3 at row 9"),
    (with_value(LABELS, -1, 4)[:, None], "got -1 at row 4"),
]


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, nn.NLLLoss])
@pytest.mark.parametrize(("y", "got"), WRONG_LABELS)
@pytest.mark.parametrize("is_built", [False, True])
def test_labels_that_are_no_classes_of_the_model(loss, y, got, is_built):
    model = with_labels(loss)
    if is_built:
        model.build((None, 3))
    before, message = state_of(model), f"y {NO_CLASS}{got}"
    assert_refused(message, model.fit, X, y)
    assert_refused(message, model.evaluate, X, y)
    assert_refused(message, model.train_on_batch, X, y)
    assert_refused(message, model.test_on_batch, X, y)
    assert_refused(message.replace("y does", "y from the DataLoader does"), model.fit, one(X, y))
    of_validation = message.replace("y does", "y of validation_data does")
    assert_refused(of_validation, model.fit, X, LABELS, validation_data=(X, y))
    assert_refused(of_validation, model.fit, X, LABELS, validation_data=one(X, y))
    assert state_of(model) == before


def one(x, y):
    return loader(x, y, batch_size=len(x))


def test_labels_of_a_loader_are_looked_at_batch_by_batch():
    model = with_labels()
    y = with_value(LABELS, 3, 9)
    message = f"y from the DataLoader {NO_CLASS}got 3 at row 1"
    assert_refused(message, model.fit, loader(X, y, batch_size=2), verbose=0)
    assert model.optimizer.iterations == 4  # those before it


def test_labels_to_be_ignored_and_probabilities_of_classes():
    model = with_labels()
    model.fit(X, with_value(LABELS, -100, 4), verbose=0)
    model.fit(X, np.full((10, 3), 1 / 3), verbose=0)


@pytest.mark.parametrize("rate", [-1, -0.1, float("nan"), float("inf"), "0.1", None, True])
def test_learning_rates(rate):
    message = f"learning_rate must be a non-negative number, got {rate!r}"
    assert_refused(message, optimizers.SGD, rate)
    assert_refused(message, optimizers.Adam, rate)
    optimizer = optimizers.SGD(1)
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        optimizer.learning_rate = rate
    assert optimizer.learning_rate == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w[:3], "weights must hold 4 arrays, got 3"),
        (lambda w: [w[0].T, *w[1:]], "weights[0] must have shape (3, 4), got (4, 3)"),
        (lambda w: [*w[:3], w[3][:0]], "weights[3] must have shape (1,), got (0,)"),
        (lambda w: [*w[:3], ["a"]], "weights[3] must hold numbers, got dtype <U1"),
        (lambda w: None, "weights must be a list of arrays, got NoneType"),
    ],
)
def test_set_weights(change, message):
    model = compiled()
    before = state_of(model)
    weights = [array + 1 for array in model.get_weights()]
    assert_refused(message, model.set_weights, change(weights))
    assert state_of(model) == before


def test_duplicate_layer_names():
    layers = [Dense(1, name="a"), Dense(1, name="a")]
    assert_refused("layer names must differ, got 'a' 2 times", Sequential, layers)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("dense", "layers must be torch.nn.Module instances, got 'dense'"),
        (None, "layers must be torch.nn.Module instances, got None"),
        (Dense, "layers must be instances, got the class Dense: write Dense()"),
    ],
)
def test_layers_that_are_none(layer, message):
    assert_refused(message, Sequential, [layer])


def test_an_optimizer_of_another_model():
    trained, other = compiled(), compiled()
    trained.fit(X, Y, verbose=0)
    other.compile(trained.optimizer, "mse")
    before = state_of(other)
    message = "this SGD has already trained other parameters: make a new one for each model"
    assert_refused(message, other.fit, X, Y)
    assert state_of(other) == before


def test_nothing_to_train():
    model = compiled()
    model.requires_grad_(False)
    message = (
        "the model has nothing to train: no parameter requires a gradient. Something has set "
        "trainable=False: set trainable=True before train_on_batch or fit, and False again after "
        "it, if another model must not train these layers"
    )
    assert_refused(message, model.fit, X, Y)


@pytest.mark.parametrize("axes", [(3,), (1, 1), (1, 2)])
@pytest.mark.parametrize("engine", ["auto", "autograd"])
def test_a_batch_of_other_axes_is_refused_before_any_work(engine, axes):
    model = Sequential([Dense(3), BatchNormalization(), Dense(1)])
    model.compile(loss="mse", engine=engine)
    model.fit(X, Y, verbose=0)
    before = state_of(model)
    y = np.ones((10, *axes), np.float32)
    shape = ", ".join(map(str, axes))
    message = f"y has shape (N, {shape}), which does not fit the model's output of shape (N, 1)"
    for _ in range(2):
        assert_refused(message, model.train_on_batch, X, y)
        assert_refused(message, model.test_on_batch, X, y)
    assert state_of(model) == before


def test_a_batch_of_known_axes_is_not_rehearsed_again():
    calls = []

    class Counted(nn.Module):
        def forward(self, x):
            calls.append(len(x))
            return x

    model = Sequential([Dense(1), Counted()])
    model.compile(loss="mse")
    model.train_on_batch(X, Y)
    calls.clear()
    for _ in range(3):
        model.train_on_batch(X, Y)
    assert calls == [10, 10, 10]
    model.add(Dense(2))
    with pytest.raises(ValueError, match=r"does not fit the model's output of shape \(N, 2\)$"):
        model.train_on_batch(X, Y)


def test_a_later_batch_of_other_axes_is_refused_before_its_step():
    model = Sequential([Dense(3), BatchNormalization(), Dense(1)])
    model.compile(loss="mse")
    weights = []

    def batches():
        yield X, Y
        yield X, Y
        weights.extend(model.get_weights())
        yield X, np.ones((10, 2))

    message = (
        "y from the generator has shape (N, 2), which does not fit the model's output of shape "
        "(N, 1)"
    )
    assert_refused(message, model.fit, batches())
    assert model.optimizer.iterations == 2
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_batches_of_series_may_have_any_length():
    model = Sequential([Dense(3), Dense(1)])
    model.compile(loss="mse")
    series = [np.ones((4, length, 2), np.float32) for length in (3, 5, 3, 2)]
    history = model.fit(((x, x[:, :, :1]) for x in series), verbose=0)
    assert len(history.history["loss"]) == 1
    for x in series:
        model.train_on_batch(x, x[:, :, :1])
    assert model.optimizer.iterations == 8


def test_a_model_on_the_meta_device_says_so():
    model = compiled().to("meta")
    message = "^the model is on the meta device, where parameters have shapes and no numbers: call"
    for name in ("fit", "evaluate", "train_on_batch", "test_on_batch"):
        with pytest.raises(ValueError, match=message):
            getattr(model, name)(X, Y)
    for name in ("predict", "predict_on_batch"):
        with pytest.raises(ValueError, match=message):
            getattr(model, name)(X)
    with pytest.raises(ValueError, match=message):
        model.fit(loader(X, Y))
    model.to_empty(device="cpu").set_weights(compiled().get_weights())
    model.fit(X, Y, verbose=0)
