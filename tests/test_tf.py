"""torchnn.tf: TensorFlow's words for what programs with dense networks do."""

import copy
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import torchnn
import torchnn.tf as tf
from torchnn import activations
from torchnn.tf import keras

X = np.array([[1.0, -2.0, 0.5], [4.0, 0.25, -1.0]], np.float32)
POSITIVE = np.abs(X)


def test_keras_is_torchnn_itself():
    assert tf.keras is keras is torchnn
    assert tf.keras.layers.Dense is torchnn.layers.Dense
    assert tf.keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)(10) == 0.05
    assert tf.losses is torchnn.losses


def test_keras_modules_are_imported_by_these_names_too():
    program = """
import torchnn.tf.keras as keras
from torchnn.tf.keras import Sequential
from torchnn.tf.keras.layers import Dense
from torchnn.tf.keras.optimizers.schedules import ExponentialDecay
from torchnn.tf.keras.datasets import mnist
from torchnn.tf.keras.datasets.mnist import load_data
import torchnn, torchnn.datasets.mnist
assert keras is torchnn and Dense is torchnn.layers.Dense and mnist is torchnn.datasets.mnist
assert load_data is mnist.load_data and Dense.__module__.startswith("torchnn.layers")
assert torchnn.layers.__spec__.name == "torchnn.layers"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_program_of_the_course_runs(capsys):
    tf.random.set_seed(1234)
    tf.autograph.set_verbosity(0)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    tf.get_logger().setLevel("ERROR")
    x = np.random.default_rng(0).normal(size=(64, 2))
    y = (x.sum(axis=1) > 0).astype(int)
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Dense(3, activation="relu", name="L1"),
            tf.keras.layers.Dense(1, activation="linear", name="L2"),
        ]
    )
    model.compile(
        loss=tf.keras.losses.BinaryCrossentropy(from_logits=True),
        optimizer=tf.keras.optimizers.Adam(learning_rate=0.01),
    )
    model.fit(x, y, epochs=30, verbose=0)
    p = tf.nn.sigmoid(model.predict(x, verbose=0)).numpy()
    assert np.mean((p[:, 0] >= 0.5) == y) > 0.9


# The functions by NumPy's, which they are named after or do the same as.
SAME = [
    (tf.math.log, np.log, POSITIVE),
    (tf.math.sqrt, np.sqrt, POSITIVE),
    (tf.math.rsqrt, lambda x: x**-0.5, POSITIVE),
    (tf.math.log1p, np.log1p, POSITIVE),
    (tf.math.reciprocal, np.reciprocal, X),
    (tf.abs, np.abs, X),
    (tf.exp, np.exp, X),
    (tf.square, np.square, X),
    (tf.sign, np.sign, X),
    (tf.round, np.round, X),
    (tf.sigmoid, lambda x: 1 / (1 + np.exp(-x)), X),
    (tf.nn.tanh, np.tanh, X),
    (tf.nn.relu, lambda x: np.maximum(x, 0), X),
    (tf.nn.relu6, lambda x: np.clip(x, 0, 6), 4 * X),
    (tf.nn.leaky_relu, lambda x: np.where(x > 0, x, 0.2 * x), X),
    (tf.nn.elu, lambda x: np.where(x > 0, x, np.exp(x) - 1), X),
    (tf.nn.selu, lambda x: 1.05070099 * np.where(x > 0, x, 1.67326324 * (np.exp(x) - 1)), X),
    (tf.nn.silu, lambda x: x / (1 + np.exp(-x)), X),
    (tf.nn.softplus, lambda x: np.log(1 + np.exp(x)), X),
    (tf.nn.softmax, lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), X),
    (tf.nn.log_softmax, lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)), X),
    (tf.reduce_sum, np.sum, X),
    (tf.reduce_mean, np.mean, X),
    (tf.reduce_max, np.max, X),
    (tf.reduce_min, np.min, X),
    (tf.reduce_prod, np.prod, X),
    (tf.math.reduce_std, np.std, X),
    (tf.math.reduce_variance, np.var, X),
    (tf.reduce_logsumexp, lambda x: np.log(np.sum(np.exp(x))), X),
    (tf.norm, np.linalg.norm, X),
    (tf.transpose, np.transpose, X),
    (tf.zeros_like, np.zeros_like, X),
    (tf.ones_like, np.ones_like, X),
    (lambda x: tf.reduce_sum(x, axis=1, keepdims=True), lambda x: x.sum(1, keepdims=True), X),
    (lambda x: tf.reduce_mean(x, [0, 1]), np.mean, X),
    (lambda x: tf.math.reduce_max(x, axis=-1), lambda x: x.max(-1), X),
    (lambda x: tf.reduce_prod(x, 0), lambda x: x.prod(0), X),
    (lambda x: tf.cumsum(x, 1), lambda x: x.cumsum(1), X),
    (lambda x: tf.nn.softmax(x, axis=0), lambda x: np.exp(x) / np.exp(x).sum(0), X),
    (lambda x: tf.linalg.l2_normalize(x, axis=1), lambda x: x / np.hypot.reduce(x, 1)[:, None], X),
    (tf.nn.l2_normalize, lambda x: x / np.linalg.norm(x), X),
    (lambda x: tf.norm(x, ord=1, axis=1), lambda x: np.abs(x).sum(1), X),
    (lambda x: tf.matmul(x, x, transpose_b=True), lambda x: x @ x.T, X),
    (lambda x: tf.linalg.matmul(x, x, transpose_a=True), lambda x: x.T @ x, X),
    (lambda x: tf.linalg.inv(x[:, :2]), lambda x: np.linalg.inv(x[:, :2]), X),
    (lambda x: tf.math.maximum(x, 0.0), lambda x: np.maximum(x, 0), X),
    (lambda x: tf.minimum(1, x), lambda x: np.minimum(1, x), X),
    (lambda x: tf.pow(x, 2), lambda x: x**2, X),
    (lambda x: tf.math.squared_difference(x, 2.0), lambda x: (x - 2) ** 2, X),
    (lambda x: tf.divide(x, 2), lambda x: x / 2, X),
    (lambda x: tf.math.floormod(x, 2), lambda x: x % 2, X),
    (lambda x: tf.clip_by_value(x, -1, 1), lambda x: np.clip(x, -1, 1), X),
    (lambda x: tf.where(x > 0, x, 0.0), lambda x: np.where(x > 0, x, 0), X),
    (lambda x: tf.reshape(x, (3, -1)), lambda x: x.reshape(3, 2), X),
    (lambda x: tf.expand_dims(x, 1), lambda x: x[:, None], X),
    (lambda x: tf.squeeze(x[:1]), lambda x: x[0], X),
    (lambda x: tf.squeeze(x[:1], axis=0), lambda x: x[0], X),
    (lambda x: tf.transpose(x[None], (2, 0, 1)), lambda x: x[None].transpose(2, 0, 1), X),
    (lambda x: tf.concat([x, x], axis=1), lambda x: np.concatenate([x, x], 1), X),
    (lambda x: tf.stack([x, x], axis=2), lambda x: np.stack([x, x], 2), X),
    (lambda x: tf.tile(x, (2, 1)), lambda x: np.tile(x, (2, 1)), X),
    (lambda x: tf.gather(x, [2, 0], axis=1), lambda x: x[:, [2, 0]], X),
    (lambda x: tf.gather_nd(x, [[0, 2], [1, 1]]), lambda x: x[[0, 1], [2, 1]], X),
    (lambda x: tf.gather_nd(x, [[1]]), lambda x: x[[1]], X),
    (lambda x: tf.gather(x, [[1], [0]]), lambda x: x[[[1], [0]]], X),
    (tf.sort, np.sort, X),
    (lambda x: tf.sort(x, 0, "DESCENDING"), lambda x: np.sort(x, 0)[::-1], X),
    (lambda x: tf.add_n([x, 2 * x]), lambda x: 3 * x, X),
    (lambda x: tf.split(x, 3, axis=1)[2], lambda x: x[:, 2:], X),
    (lambda x: tf.split(x, [1, -1], axis=1)[1], lambda x: x[:, 1:], X),
    (lambda x: tf.unstack(x, axis=1)[1], lambda x: x[:, 1], X),
    (lambda x: tf.boolean_mask(x, [False, True]), lambda x: x[1:], X),
    (lambda x: tf.boolean_mask(x, [True, False, True], axis=1), lambda x: x[:, ::2], X),
    (lambda x: tf.boolean_mask(x, x > 0), lambda x: x[x > 0], X),
    (lambda x: tf.repeat(x, 2), lambda x: np.repeat(x, 2), X),
    (lambda x: tf.repeat(x, [1, 2], axis=0), lambda x: np.repeat(x, [1, 2], 0), X),
    (lambda x: tf.clip_by_norm(x, 2.0), lambda x: 2 * x / np.linalg.norm(x), X),
    (lambda x: tf.clip_by_norm(x, 9, axes=1), lambda x: x, X),
    (lambda x: tf.math.divide_no_nan(x, [1, 0, 2]), lambda x: x * [1, 0, 0.5], X),
    (tf.math.l2_normalize, lambda x: x / np.linalg.norm(x), X),
    (lambda x: tf.einsum("ij,kj->ik", x, x), lambda x: x @ x.T, X),
    (lambda x: tf.tensordot(x, x, [[1], [1]]), lambda x: x @ x.T, X),
    (lambda x: tf.tensordot(x, [1, 2, 3], 1), lambda x: x @ [1, 2, 3], X),
    (lambda x: tf.linalg.matvec(x, [1, 1], transpose_a=True), lambda x: x.sum(0), X),
    (
        lambda x: tf.linalg.solve(x[:, :2], x[:, 2:]),
        lambda x: np.linalg.solve(x[:, :2], x[:, 2:]),
        X,
    ),
]


@pytest.mark.parametrize(("function", "formula", "x"), SAME)
def test_functions_compute_what_they_are_called(function, formula, x):
    expected = formula(x.astype(np.float64))
    for given in (x, torch.from_numpy(x), tf.constant(x)):
        result = function(given)
        assert isinstance(result, torch.Tensor)
        assert result.dtype == torch.float32
        np.testing.assert_allclose(result.numpy(), expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (lambda: tf.argmax([[1, 5], [3, 2]]), np.array([1, 0])),
        (lambda: tf.argmax([[1, 5], [3, 2]], axis=1), np.array([1, 0])),
        (lambda: tf.argmin([[1, 5], [3, 2]], axis=-1), np.array([0, 1])),
        (lambda: tf.equal([1, 2], [1, 3]), np.array([True, False])),
        (lambda: tf.math.greater(X, 0), X > 0),
        (lambda: tf.reduce_any([True, False]), np.bool_(True)),
        (lambda: tf.reduce_all([[True, False]], axis=1), np.array([False])),
        (lambda: tf.math.is_nan([1.0, float("nan")]), np.array([False, True])),
        (lambda: tf.reduce_mean([1, 2]), np.float32(1.5)),
        (lambda: tf.reduce_sum([1, 2]), np.int32(3)),
        (lambda: tf.cast([1.9, -1.9], tf.int32), np.array([1, -1], np.int32)),
        (lambda: tf.cast([True, False], "float32"), np.array([1, 0], np.float32)),
        (lambda: tf.cast(3, np.float64), np.float64(3)),
        (lambda: tf.zeros(2), np.zeros(2, np.float32)),
        (lambda: tf.ones((1, 2), tf.int64), np.ones((1, 2), np.int64)),
        (lambda: tf.fill([2], 7), np.array([7, 7], np.int32)),
        (lambda: tf.eye(2), np.eye(2, dtype=np.float32)),
        (lambda: tf.constant(2.0, shape=(1, 2)), np.array([[2, 2]], np.float32)),
        (lambda: tf.constant([1, 2, 3, 4], shape=[2, 2]), np.array([[1, 2], [3, 4]], np.int32)),
        (lambda: tf.range(3), np.arange(3, dtype=np.int32)),
        (lambda: tf.range(1, 2, 0.25), np.arange(1, 2, 0.25, dtype=np.float32)),
        (lambda: tf.linspace(-1, 1, 5), np.linspace(-1, 1, 5, dtype=np.float32)),
        (lambda: tf.one_hot([0, 2, 3], 3), np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]], "float32")),
        (lambda: tf.one_hot(1, 2, 5, 3, dtype=tf.int32), np.array([3, 5], np.int32)),
        (lambda: tf.one_hot([0, 1], 3, axis=0), np.eye(3, 2, dtype=np.float32)),
        (lambda: tf.shape(X), np.array([2, 3], np.int32)),
        (lambda: tf.size(X), np.int32(6)),
        (lambda: tf.rank(X), np.int32(2)),
        (
            lambda: tf.math.confusion_matrix(labels=[0, 1, 1], predictions=np.array([0, 1, 0])),
            np.array([[1, 0], [1, 1]], np.int32),
        ),
        (
            lambda: tf.nn.sigmoid_cross_entropy_with_logits([1.0, 0.0], [0.0, 0.0]),
            np.log(np.array([2, 2], np.float32)),
        ),
        (
            lambda: tf.nn.softmax_cross_entropy_with_logits([[0.0, 1.0]], [[1.0, 1.0]]),
            np.log(np.array([2], np.float32)),
        ),
        (
            lambda: tf.nn.sparse_softmax_cross_entropy_with_logits([2], [[5.0, 5.0, 5.0]]),
            np.log(np.array([3], np.float32)),
        ),
    ],
)
def test_functions_have_the_dtypes_of_tensorflow(result, expected):
    found = result().numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (tf.argsort([3, 1, 2], direction="DESCENDING"), [0, 2, 1]),
        (tf.argsort([[1.0, 1.0, 0.0]]), [[2, 0, 1]]),
        (tf.where([[True, False], [False, True]]), [[0, 0], [1, 1]]),
        (tf.math.count_nonzero([[0, 1], [2, 3]], axis=0), [1, 2]),
        (tf.math.top_k([[1, 5, 5, 2]], 3).values, [[5, 5, 2]]),
        (tf.nn.top_k([[1, 5, 5, 2]], 3).indices, [[1, 2, 3]]),
    ],
)
def test_places_and_counts_are_whole_numbers(found, expected):
    assert not found.is_floating_point()
    assert found.tolist() == expected


def test_several_gradients_are_clipped_by_the_norm_of_them_all():
    (a, nothing, b), norm = tf.clip_by_global_norm([tf.constant([3.0]), None, np.full(1, 4.0)], 1)
    assert (float(a), nothing, float(b), float(norm)) == pytest.approx((0.6, None, 0.8, 5))
    (same,), _ = tf.clip_by_global_norm([tf.constant([3.0])], 10.0)
    assert same.tolist() == [3]
    (broken,), _ = tf.clip_by_global_norm([tf.constant([np.inf, 1.0])], 1.0)
    assert broken.isnan().all()


def test_clipping_and_dividing_have_gradients_at_zero():
    x = tf.Variable([0.0, 0.0])
    with tf.GradientTape() as tape:
        y = tf.clip_by_norm(x, 1.0) + tf.math.divide_no_nan(x, x)
    assert tape.gradient(y, x).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tf.split(X, 2, axis=1), "num_or_size_splits must divide 3, the size of axis 1"),
        (lambda: tf.unstack(X, num=3), "num must be 2, the size of axis 0, got 3"),
        (lambda: tf.where(X > 0, 1.0), "x and y must both be given, or neither"),
        (lambda: tf.sort(X, direction="up"), "direction must be one of ASCENDING, DESCENDING"),
        (lambda: tf.math.top_k(X, 4), "k must be an integer from 0 to 3, got 4"),
        (lambda: tf.linalg.solve(X[:, :2], X[:, 2]), r"rhs must have shape \(..., N, K\)"),
        (lambda: tf.random.categorical(X[0], 2), r"logits must have shape \(N, classes\)"),
        (lambda: tf.nn.dropout(X, 1.0), r"rate must be a number in \[0, 1\)"),
        (lambda: tf.device("/disk:0").__enter__(), 'device_name must be one such as "/CPU:0"'),
    ],
)
def test_what_functions_do_not_take_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_numbers_of_python_are_not_rounded_on_the_way():
    assert tf.constant(0.1, tf.float64).item() == 0.1
    assert tf.cast(0.1, tf.float64).item() == 0.1
    assert tf.maximum(np.zeros(1), 0.1).item() == 0.1
    assert tf.add(tf.constant([1]), 1.5).item() == 2.5


def test_values_are_printed_as_arrays(capsys):
    tf.print("loss:", tf.Variable(1.5), {"x": tf.constant([1, 2])}, tf.range(9), sep="|")
    tf.print(tf.range(9), output_stream=sys.stdout, end="", summarize=-1)
    printed = capsys.readouterr()
    assert printed.err == "loss:|1.5|{'x': [1, 2]}|[0 1 2 ... 6 7 8]\n"
    assert printed.out == "[0 1 2 3 4 5 6 7 8]"


@pytest.mark.parametrize("name", ["/GPU:0", "/device:CPU:0", "gpu", None])
def test_a_device_is_named_without_effect(name):
    with tf.device(name):
        assert tf.constant(1.0).device.type == "cpu"


def test_a_tensor_of_one_entry_is_a_number():
    assert (float(tf.constant([[1.5]])), int(tf.constant([3]))) == (1.5, 3)


def test_a_shape_is_a_list_too():
    assert tf.constant(X).get_shape().as_list() == [2, 3]


def test_confusion_matrix_takes_classes():
    with pytest.raises(ValueError, match="must be class numbers from 0 to 1"):
        tf.math.confusion_matrix([0, 2], [0, 1], num_classes=2)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (1.5, torch.float32),
        ([1, 2], torch.int32),
        (2**31, torch.int64),
        (True, torch.bool),
        (np.float64(1), torch.float64),
        (np.arange(2), torch.int64),
        (torch.ones(1, dtype=torch.float16), torch.float16),
        ([tf.constant(1.0), 2.0], torch.float32),
    ],
)
def test_a_constant_is_of_the_dtype_of_tensorflow(value, dtype):
    assert tf.constant(value).dtype == dtype
    assert tf.convert_to_tensor(value, dtype=tf.float64).dtype == torch.float64


@pytest.mark.parametrize("dtype", ["string", str, object])
def test_a_dtype_is_one_of_numbers(dtype):
    with pytest.raises(TypeError):
        tf.cast(1, dtype)


# NumPy's functions, of what torchnn.tf returns.
NUMPY = [
    *(np.max, np.min, np.sum, np.mean, np.std, np.argmax, np.round, np.ravel, np.asarray, np.exp),
    *(np.unique, np.isnan, np.squeeze, np.atleast_2d, np.cumsum, np.transpose, np.linalg.norm),
    *(lambda a: np.tile(a, (2, 1)), lambda a: np.concatenate([a, a]), lambda a: np.sum(a, axis=1)),
    *(lambda a: np.where(a > 1, a, 0), lambda a: np.max(a[:, 0]), lambda a: np.c_[a, a]),
    *(lambda a: np.dot(a, X.T), lambda a: X @ np.transpose(a), lambda a: np.allclose(a, X)),
    *(lambda a: np.add.reduce(a, axis=0), lambda a: np.power(a, 2), lambda a: np.power(2, a)),
    *(lambda a: X - a, lambda a: a / X, lambda a: np.float64(2) * a, lambda a: a * np.ones(3)),
    *(lambda a: X[a[:, 0] > 1], lambda a: [float(row[0]) for row in a], lambda a: len(a)),
    lambda a: np.add(a, 1, out=np.empty((2, 3), np.float32)),
]


@pytest.mark.parametrize("function", NUMPY)
@pytest.mark.parametrize("make", [tf.constant, tf.Variable])
def test_functions_of_numpy_take_tensors_for_arrays(function, make):
    result, expected = function(make(X)), function(X)
    np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-6)


def test_an_array_on_the_other_side_lets_gradients_through():
    w = tf.Variable([1.0, 2.0, 3.0])
    for function in (
        lambda: X.astype(np.float64) * w,
        lambda: w * X,
        lambda: np.multiply(X, w),
        lambda: np.power(w, 2) * 0 + X * w,
    ):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(function())
        assert total.dtype == torch.float32
        np.testing.assert_allclose(tape.gradient(total, w).numpy(), X.sum(axis=0), rtol=1e-6)


class Deferred:
    """What a tensor would be, by PyTorch's protocol; of methods, it has one operator."""

    ndim, dtype = 2, torch.float32

    def __init__(self, compute):
        self.compute = compute

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        def evaluated(value):
            return value.compute() if isinstance(value, cls) else value

        def compute():
            given = [list(map(evaluated, a)) if isinstance(a, list) else evaluated(a) for a in args]
            return function(*given, **{k: evaluated(v) for k, v in (kwargs or {}).items()})

        return cls(compute)

    def __mul__(self, other):
        return self.__torch_function__(torch.mul, (), (self, other))

    __rmul__ = __mul__


DEFERRED = [
    *((function, formula, x) for function, formula, x in SAME if function.__name__ != "<lambda>"),
    (lambda x: tf.linalg.l2_normalize(x, axis=1), lambda x: x / np.hypot.reduce(x, 1)[:, None], X),
    (
        lambda x: tf.reduce_sum(tf.multiply(x, x), axis=1, keepdims=True),
        lambda x: (x**2).sum(1, keepdims=True),
        X,
    ),
    (lambda x: tf.concat([x, tf.square(x)], axis=1), lambda x: np.concatenate([x, x**2], 1), X),
    (lambda x: tf.expand_dims(tf.reshape(x, (-1,)), 1), lambda x: x.reshape(-1, 1), X),
    (lambda x: tf.cast(tf.math.maximum(x, 0), tf.float64), lambda x: np.maximum(x, 0), X),
]


@pytest.mark.parametrize(("function", "formula", "x"), DEFERRED)
def test_functions_take_what_those_of_pytorch_take(function, formula, x):
    result = function(Deferred(lambda: torch.from_numpy(x)))
    np.testing.assert_allclose(result.compute().numpy(), formula(x), rtol=2e-5, atol=1e-6)


def test_a_number_with_a_gradient_reads_like_a_number():
    cost = tf.Variable(2.0) * 3
    assert (float(cost), int(cost), f"{cost:.2f}", cost.item()) == (6.0, 6, "6.00", 6.0)
    assert isinstance(cost.numpy(), np.float32)
    assert f"{cost.numpy():0.3f}" == "6.000"
    assert str(tf.constant([1.0])) == "Tensor([1.])"
    assert tf.constant([1.5], dtype=tf.bfloat16).numpy().tolist() == [1.5]


def test_matplotlib_draws_tensors():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    x = tf.linspace(-1, 1, 5)
    (line,) = plt.plot(x, tf.nn.relu(x))
    plt.close()
    np.testing.assert_allclose(line.get_ydata(), [0, 0, 0, 0.5, 1])


def test_a_variable_takes_values_in_place():
    w = tf.Variable([1.0, 2.0], name="w")
    same = w
    w.assign_add([1, 1])
    w.assign_sub(np.array([0.5, 0.5]))
    assert same.numpy().tolist() == [1.5, 2.5]
    assert w.assign(torch.tensor([7, 8])) is w
    assert (w.numpy().tolist(), w.name, w.trainable, w.dtype) == ([7, 8], "w", True, torch.float32)
    with pytest.raises(ValueError, match=r"value must have shape \(2,\), got \(3,\)"):
        w.assign([1, 2, 3])
    values = w.numpy()
    assert type(w.value()) is type(w * 2) is type(tf.constant(1))
    assert (w.is_leaf, values.tolist()) == (True, [7, 8])


def test_a_variable_copies_what_it_is_made_of():
    array = np.ones(2)
    w = tf.Variable(array, dtype=tf.float32)
    array[:] = 5
    v = tf.Variable(w)
    w.assign([2, 2])
    assert (v.numpy().tolist(), v.dtype) == ([1, 1], torch.float32)
    assert not tf.Variable(3).trainable
    assert not tf.Variable(3.0, trainable=False).requires_grad


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_tensors_and_variables_can_be_copied(clone):
    for value in (tf.constant([1.0, 2.0]), tf.Variable([1.0, 2.0])):
        other = clone(value)
        assert (type(other), other.requires_grad) == (type(value), value.requires_grad)
        assert other.numpy().tolist() == [1, 2]


@pytest.mark.parametrize("name", [*torchnn.ops.activations()[1:], "softmax", "swish"])
def test_activations_of_layers_are_those_of_their_names(name):
    function = getattr(tf.nn, name)
    layers = [keras.layers.Dense(3, function, input_dim=2), keras.layers.Dense(4)]
    assert activations.name_of(layers[0].activation) == {"swish": "silu"}.get(name, name)
    model = keras.Sequential(layers)
    model.compile("sgd", "mse", engine="auto" if name == "softmax" else "fused")
    x = np.ones((2, 2))
    kernel, bias, *_ = model.get_weights()
    np.testing.assert_allclose(layers[0](x), function(x @ kernel + bias).numpy(), rtol=1e-5)


def test_a_softmax_of_tf_at_the_end_is_the_losses():
    model = keras.Sequential([keras.layers.Dense(3, tf.nn.softmax, input_dim=2)])
    model.compile("sgd", "sparse_categorical_crossentropy", engine="fused")
    assert model.evaluate([[0.0, 0.0]], [2], verbose=0) == pytest.approx(np.log(3), rel=1e-6)


def test_gradient_descent_by_hand():
    w, x, y, alpha = tf.Variable(3.0), 1.0, 1.0, 0.01
    expected = 3.0
    for _ in range(30):
        with tf.GradientTape() as tape:
            cost = (w * x - y) ** 2
        [gradient] = tape.gradient(cost, [w])
        w.assign_add(-alpha * gradient)
        expected -= alpha * 2 * (expected - 1)
    assert w.numpy() == pytest.approx(expected, rel=1e-5)


def test_gradients_are_shaped_like_the_sources():
    a, b, c = tf.Variable(2.0), tf.Variable([1.0, 2.0]), tf.Variable(1.0)
    with tf.GradientTape(persistent=True) as tape:
        y = a * b
    assert tape.gradient(y, a).numpy() == 3
    da, db, dc = tape.gradient(y, (a, b, c))
    assert (da.numpy(), db.numpy().tolist(), dc) == (3, [2, 2], None)
    assert tape.gradient([y, a], [a])[0].numpy() == 4
    assert tape.gradient(y, a, output_gradients=[1.0, 10.0]).numpy() == 21
    assert tape.gradient(y, [tf.constant(1.0)]) == [None]


def test_a_loop_of_ones_own_trains_a_model_as_train_on_batch_does():
    def network():
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(3, "tanh", input_dim=2), keras.layers.Dense(1)]
        return keras.Sequential(layers)

    x, y = np.random.default_rng(0).normal(size=(5, 2)), np.ones((5, 1))
    model, other = network(), network()
    optimizer = keras.optimizers.Adam(0.1)
    other.compile(keras.optimizers.Adam(0.1), "mse")
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.mse(y, model(tf.constant(x, tf.float32))))
        gradients = tape.gradient(loss, model.trainable_variables)
        assert [g.shape for g in gradients] == [w.shape for w in model.trainable_variables]
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        assert other.train_on_batch(x, y) == pytest.approx(loss.numpy(), rel=1e-5)
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_a_constant_is_watched_and_gradients_have_gradients():
    x = tf.constant(3.0)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch([x])
            y = x**3
        dy = inner.gradient(y, x)
    assert (dy.numpy(), outer.gradient(dy, x).numpy()) == (27, 18)
    for value in (tf.constant(3), 3.0, np.ones(2)):
        with pytest.raises(TypeError, match="watch takes tensors of floats"):
            inner.watch([value])


def test_gradients_of_a_model_are_those_of_pytorch():
    x, y = tf.constant(X), tf.constant([[0.0], [1.0]])
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with tf.GradientTape() as tape:
        cost = keras.losses.MeanSquaredError()(y, model(x))
    gradients = tape.gradient(cost, list(model.parameters()))
    torch.nn.functional.mse_loss(model(torch.tensor(X)), torch.tensor(y.numpy())).backward()
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        np.testing.assert_allclose(gradient.numpy(), parameter.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("x", [X, X.tolist()])
def test_a_model_called_on_an_array_within_a_tape_keeps_gradients(x):
    model = keras.Sequential([keras.layers.Dense(1), keras.layers.Dropout(0.5)])
    model(X)
    kernel = model.layers[0].kernel
    with tf.GradientTape() as tape:
        cost = tf.reduce_mean(model(x)) + tf.reduce_sum(kernel**2)
    gradients = tape.gradient(cost, model.trainable_variables)
    expected = X.mean(axis=0)[:, None] + 2 * kernel.numpy()
    np.testing.assert_allclose(gradients[0].numpy(), expected, rtol=1e-6)
    assert gradients[1].numpy() == 1
    assert isinstance(model(x), np.ndarray)


def test_arrays_go_together_with_what_a_model_returns_within_a_tape():
    layer = keras.layers.Dense(1)
    layer(X)
    with tf.GradientTape() as outer:
        with tf.GradientTape():
            layer(X)
        cost = tf.reduce_mean((np.ones((2, 1), np.float32) - layer(X)) ** 2)
    assert [g.shape for g in outer.gradient(cost, layer.weights)] == [(3, 1), (1,)]


def test_gradients_lie_as_the_sources_do():
    a, b = tf.Variable(2.0), tf.Variable(3.0)
    with tf.GradientTape(persistent=True) as tape:
        y = a * b
    assert tape.gradient(y, {"a": a, "b": [b]}) == {"a": 3, "b": [2]}
    assert tape.gradient({"y": y}, (a, [b, {"a": a}])) == (3, [2, {"a": 3}])
    assert tape.gradient(y, iter([a])) == [3]
    with pytest.raises(TypeError, match=r"variables and watched tensors, got 2\.0"):
        tape.gradient(y, [a, 2.0])
    with pytest.raises(ValueError, match="functions of tf rather than NumPy's"):
        tape.gradient(y.numpy(), a)


def test_misuse_of_a_tape_is_told():
    w = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        y, constant = w * 2, tf.constant(1.0) * 2
    with pytest.raises(ValueError, match="target depends on no variable"):
        tape.gradient(constant, w)
    tape.gradient(y, w)
    with pytest.raises(RuntimeError, match=r"GradientTape\(persistent=True\)"):
        tape.gradient(y, w)
    with pytest.raises(ValueError, match="watch_accessed_variables must be True"):
        tf.GradientTape(watch_accessed_variables=False)


def test_random_numbers_follow_from_the_seed():
    def draw():
        return [
            tf.random.normal((2, 3), mean=1.0, stddev=0.1),
            tf.random.uniform([4], -1, 1, dtype=tf.float64),
            tf.random.uniform((5,), maxval=3, dtype=tf.int32),
            tf.random.shuffle(np.arange(6)),
            tf.random.truncated_normal((999,), mean=1.0, stddev=0.5),
            tf.random.categorical([[0.0, -np.inf], [0.0, 0.0]], 50),
            tf.nn.dropout(np.ones((9, 50)), 0.5, noise_shape=(9, 1)),
        ]

    tf.random.set_seed(1)
    first = draw()
    tf.random.set_seed(1)
    for one, other in zip(first, draw(), strict=True):
        assert_close(one, other, rtol=0, atol=0)
    normal, uniform, integers, shuffled, truncated, classes, dropped = first
    assert 0.9 < (truncated - 1).abs().max() <= 1
    assert [set(row.tolist()) for row in classes] == [{0}, {0, 1}]
    assert {tuple(set(row.tolist())) for row in dropped} == {(0,), (2,)}
    assert (normal.shape, normal.dtype) == ((2, 3), torch.float32)
    assert (uniform.dtype, bool((uniform.abs() <= 1).all())) == (torch.float64, True)
    assert (integers.dtype, set(integers.tolist()) <= {0, 1, 2}) == (torch.int32, True)
    assert sorted(shuffled.tolist()) == list(range(6))
    assert_close(tf.random.normal((3,), seed=5), tf.random.normal((3,), seed=5))
    with pytest.raises(ValueError, match="maxval must be given for integers"):
        tf.random.uniform((1,), dtype=tf.int32)


def test_a_metric_of_ones_own_adds_tensors():
    class Doubled(keras.metrics.Metric):
        def __init__(self):
            super().__init__("doubled")
            self.total = self.add_weight(name="total")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.total.assign_add(tf.reduce_sum(y_true))
            self.total.assign_sub(tf.constant(1.0))

        def result(self):
            return self.total * tf.constant(2.0)

    metric = Doubled()
    for _ in range(2):
        metric.update_state(tf.constant([1.0, 2.0]), None)
    assert metric.result().numpy() == 8
    assert metric.total.assign(tf.constant(5.0)) is metric.total
    assert metric.fresh().result().numpy() == 0


def test_a_dataset_gives_rows_and_batches():
    x, y = np.arange(5.0).reshape(5, 1), np.arange(5)
    rows = tf.data.Dataset.from_tensor_slices((x, y))
    assert [(a.tolist(), int(b)) for a, b in rows.take(2)] == [([0], 0), ([1], 1)]
    batches = rows.batch(2).cache().prefetch(tf.data.AUTOTUNE)
    assert [b.tolist() for _, b in batches] == [[0, 1], [2, 3], [4]]
    assert (len(rows), len(batches), len(rows.batch(2, drop_remainder=True))) == (5, 3, 2)
    assert [b.tolist() for _, b in batches.take(1)] == [[0, 1]]
    assert [b.tolist() for _, b in batches.skip(2)] == [[4]]
    single = tf.data.Dataset.from_tensor_slices(y).skip(3)
    assert [int(each) for each in single] == [3, 4]


def test_a_dataset_is_shuffled_anew_each_time():
    rows = tf.data.Dataset.from_tensor_slices(np.arange(50)).shuffle(50)
    first, second = ([int(each) for each in rows] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    (one,) = rows.shuffle(50, seed=3).batch(50)
    (other,) = rows.shuffle(50, seed=3).batch(50)
    assert one.tolist() == other.tolist()
    with pytest.raises(ValueError, match="reshuffle_each_iteration must be True"):
        rows.shuffle(5, reshuffle_each_iteration=False)
    with pytest.raises(ValueError, match=r"as many rows as each other, got \[2, 3\]"):
        tf.data.Dataset.from_tensor_slices((np.ones(2), np.ones(3)))


def rows(count=5):
    return tf.data.Dataset.from_tensor_slices((np.arange(2.0 * count).reshape(-1, 2), range(count)))


@pytest.mark.parametrize(
    ("made", "labels", "size"),
    [
        (lambda: rows().map(lambda a, b: (a, 2 * b)).batch(3), [[0, 2, 4], [6, 8]], 2),
        (lambda: rows().batch(3).map(lambda a, b: (a, 2 * b)), [[0, 2, 4], [6, 8]], 2),
        (lambda: rows().repeat(2).batch(4), [[0, 1, 2, 3], [4, 0, 1, 2], [3, 4]], 3),
        (lambda: rows().repeat(2).batch(4, drop_remainder=True), [[0, 1, 2, 3], [4, 0, 1, 2]], 2),
        (lambda: rows(2).batch(2).repeat(2).cache().prefetch(1), [[0, 1], [0, 1]], 2),
        (lambda: rows().repeat().skip(4).take(2).batch(2), [[4, 0]], 1),
        (lambda: rows(2).repeat(-1).batch(3).take(1), [[0, 1, 0]], 1),
        (lambda: rows().batch(2).take(-1).skip(2), [[4]], 1),
        (lambda: rows().filter(lambda a, b: b > 2).batch(5), [[3, 4]], None),
        (lambda: rows().filter(lambda a, b: b > 9).repeat().batch(1), [], None),
        (lambda: rows(0).repeat().batch(1), [], 0),
        (lambda: tf.data.Dataset.zip(rows(), rows(3)).map(lambda a, b: a).batch(9), [[0, 1, 2]], 1),
        (lambda: tf.data.Dataset.zip((rows().batch(4),)).map(lambda a: a), [[0, 1, 2, 3], [4]], 2),
    ],
)
def test_steps_of_a_dataset_follow_each_other(made, labels, size):
    batches = made()
    for _ in range(2):  # again from the start
        assert [b.tolist() for _, b in batches] == labels
    if size is None:
        with pytest.raises(TypeError, match="have no len"):
            len(batches)
    else:
        assert len(batches) == size


def test_a_dataset_of_a_dict_gives_dicts():
    both = tf.data.Dataset.from_tensor_slices(({"a": X, "b": [1, 2]}, [3, 4]))
    ((features, label),) = both.skip(1).as_numpy_iterator()
    assert (features["a"].tolist(), features["b"], label) == (X[1].tolist(), 2, 4)
    for batches in (both.batch(2), both.map(lambda x, y: (x, y)).batch(2)):
        ((features, labels),) = batches.as_numpy_iterator()
        assert features["a"].tolist() == X.tolist()
        assert (features["b"].tolist(), labels.tolist()) == ([1, 2], [3, 4])


def test_a_dataset_mixes_as_many_rows_as_its_buffer_holds():
    mixed = rows(40).repeat(1).shuffle(4, seed=1)
    order = [int(b) for _, b in mixed]
    assert sorted(order) == list(range(40))
    assert order != sorted(order)
    assert all(place >= value - 3 for place, value in enumerate(order))
    assert order == [int(b) for _, b in mixed]
    firsts = rows(50).shuffle(50).take(3)
    assert len({int(b) for _ in range(20) for _, b in firsts}) > 3


def test_a_dataset_says_what_it_is_and_has():
    assert repr(rows()) == "<Dataset of 5 rows>"
    assert repr(rows().batch(2)) == "<Dataset of 3 batches>"
    assert repr(rows().repeat().batch(2)) == "<Dataset of endless batches>"
    sizes = (rows(), rows().repeat(), rows().filter(bool))
    assert [int(each.cardinality()) for each in sizes] == [5, -1, -2]
    for each in (rows(), rows().batch(2), rows().repeat(2), rows().batch(2).repeat(2)):
        with pytest.raises(
            AttributeError, match="has no 'window': it has as_numpy_iterator, batch"
        ):
            each.window(2)
    with pytest.raises(TypeError, match="datasets must be Datasets, or a tuple of them, got 1"):
        tf.data.Dataset.zip(1)
    with pytest.raises(ValueError, match="must all be of rows, or all of batches"):
        tf.data.Dataset.zip(rows(), rows().batch(1))


def test_a_mapped_dataset_trains_a_model_and_an_endless_one_for_so_many_steps():
    data = tf.data.Dataset.from_tensor_slices((X, np.ones((2, 1), np.float32)))
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    halves = data.map(lambda x, y: (x / 2, y)).shuffle(2).batch(1).prefetch(tf.data.AUTOTUNE)
    history = model.fit(halves, epochs=3, verbose=0, validation_data=halves).history
    assert history["val_loss"][2] < history["val_loss"][0]
    endless = data.repeat().batch(1)
    assert len(model.fit(endless, epochs=2, steps_per_epoch=3, verbose=0).epoch) == 2
    with pytest.raises(ValueError, match="x never ends: pass steps_per_epoch"):
        model.fit(endless, verbose=0)
    for each in (data, data.repeat(2)):
        with pytest.raises(TypeError, match="x is a Dataset: call its batch"):
            model.fit(each, verbose=0)


def test_a_dataset_trains_a_model():
    batches = tf.data.Dataset.from_tensor_slices((X, [[0.0], [1.0]])).shuffle(2).batch(2)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    losses = model.fit(batches, epochs=3, verbose=0).history["loss"]
    assert losses[2] < losses[0]


def test_devices_are_counted():
    assert [d.device_type for d in tf.config.list_physical_devices("CPU")] == ["CPU"]
    assert len(tf.config.list_physical_devices("GPU")) == torch.cuda.device_count()


def test_what_is_decorated_as_a_function_runs_as_it_is():
    @tf.function
    def double(x):
        return 2 * x

    @tf.function(jit_compile=True)
    def triple(x):
        return 3 * x

    assert (double(2), triple(2), tf.executing_eagerly()) == (4, 6, True)


def test_its_version_is_that_of_the_words_and_of_torchnn():
    assert tf.__version__.startswith("2.")
    assert tf.__version__.endswith(torchnn.__version__)


@pytest.mark.parametrize(
    ("module", "name", "hint"),
    [
        (tf, "meshgrid", "torch.meshgrid takes its tensors"),
        (tf, "version", "PyTorch's and NumPy's"),
        (tf, "manual_seed", "PyTorch's and NumPy's"),
        (tf.linalg, "svd", "torch.linalg.svd takes its tensors"),
        (tf.random, "gamma", "PyTorch's and NumPy's"),
        (tf, "sparse_thing", "PyTorch's and NumPy's functions take its tensors"),
        (tf.nn, "conv2d", "torch.nn.functional.conv2d takes its tensors"),
        (tf.math, "bessel_i0", "PyTorch's and NumPy's"),
    ],
)
def test_what_is_missing_says_so(module, name, hint):
    with pytest.raises(AttributeError) as caught:
        getattr(module, name)
    assert f"module '{module.__name__}' has no attribute '{name}'" in str(caught.value)
    assert hint in str(caught.value)
    assert not hasattr(module, "__wrapped__")


def test_torchnn_does_not_import_it_until_it_is_asked_for():
    program = (
        "import sys, torchnn; assert 'torchnn.tf' not in sys.modules;"
        "assert torchnn.tf.keras is torchnn"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parent.parent)


def test_it_needs_no_scikit_learn():
    program = "import sys; sys.modules['sklearn'] = None; import torchnn.tf.keras.saving"
    subprocess.run([sys.executable, "-c", program], check=True)
