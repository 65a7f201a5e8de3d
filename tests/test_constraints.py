"""torchnn.constraints: Keras's formulas, and what fit makes weights obey."""

import copy
import pickle

import numpy as np
import pytest
import torch

from torchnn import constraints
from torchnn.layers import Dense, Input
from torchnn.sequential import Sequential

W = [[3.0, -0.3], [4.0, 0.4]]  # the norms of the columns are 5 and 0.5
X, Y = np.random.default_rng(0).normal(size=(10, 3)), np.arange(10.0).reshape(10, 1)


@pytest.mark.parametrize(
    ("constraint", "wanted"),
    [
        ("non_neg", [[3, 0], [4, 0.4]]),
        ("NonNeg", [[3, 0], [4, 0.4]]),
        ("unit_norm", [[0.6, -0.6], [0.8, 0.8]]),
        ("max_norm", [[1.2, -0.3], [1.6, 0.4]]),
        ("min_max_norm", [[0.6, -0.3], [0.8, 0.4]]),
        (constraints.MaxNorm(10), W),
        (constraints.MaxNorm(0.5, axis=[0, 1]), np.array(W) * 0.5 / 25.25**0.5),
        (constraints.UnitNorm(axis=1), np.array(W) / [[9.09**0.5], [16.16**0.5]]),
        (constraints.min_max_norm(1.0, 2.0), [[1.2, -0.6], [1.6, 0.8]]),
        (constraints.MinMaxNorm(1.0, 2.0, rate=0.5), [[2.1, -0.45], [2.8, 0.6]]),
        (constraints.NonNeg, [[3, 0], [4, 0.4]]),
    ],
)
def test_a_constraint_has_its_formula(constraint, wanted):
    constraint = constraints.get(constraint)
    np.testing.assert_allclose(constraint(W), wanted, rtol=1e-6)
    again = type(constraint).from_config(constraint.get_config())
    for other in (again, copy.deepcopy(constraint), pickle.loads(pickle.dumps(constraint))):
        assert repr(other) == repr(constraint)


def test_weights_obey_after_each_step():
    seen = []

    def halved(bias):
        seen.append(bias.shape)
        return bias / 2

    layers = [Input((3,)), Dense(4, kernel_constraint="unit_norm"), Dense(1)]
    model = Sequential(layers)
    model.layers[1].kernel_constraint = constraints.NonNeg()
    model.layers[1].bias_constraint = halved
    model.compile("sgd", "mse")
    model.fit(X, Y, epochs=2, batch_size=5, verbose=0)
    kernels = [layer.kernel.numpy() for layer in model.layers]
    np.testing.assert_allclose(np.linalg.norm(kernels[0], axis=0), 1, rtol=1e-5)
    assert kernels[1].min() >= 0
    assert seen == [(1,)] * 4
    model.evaluate(X, Y, verbose=0)
    assert len(seen) == 4
    model.train_on_batch(X, Y)
    assert len(seen) == 5


def test_what_is_frozen_stays_as_it_is():
    frozen = Dense(4, "relu", kernel_constraint="non_neg", bias_constraint="unit_norm")
    free = Dense(1, kernel_constraint="non_neg", kernel_initializer=constraints_start)
    model = Sequential([Input((3,)), frozen, free])
    frozen.trainable = False
    frozen.set_weights([np.full((3, 4), -1.0), np.full(4, 3.0)])
    model.compile("sgd", "mse")
    model.fit(X, Y, epochs=2, verbose=0)
    assert (frozen.kernel.numpy() == -1).all()
    assert (frozen.bias == 3).all()
    assert free.kernel.numpy().min() == 0
    frozen.trainable = True
    model.fit(X, Y, verbose=0)
    assert frozen.kernel.numpy().min() >= 0


def constraints_start(weight):
    torch.nn.init.constant_(weight, -100.0)


def test_a_constraint_keeps_the_shape():
    model = Sequential([Dense(1, kernel_constraint=torch.sum)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"^a constraint must return shape \(3, 1\), got \(\)$"):
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Dense(1, kernel_constraint="max"), ValueError, "^unknown kernel_constraint"),
        (lambda: Dense(1, kernel_constraint="positive"), ValueError, "Known: max_norm, min_max"),
        (lambda: Dense(1, bias_constraint=1), TypeError, "^bias_constraint must be an object or"),
        (lambda: constraints.MaxNorm(-1), ValueError, "^max_value must be a non-negative number"),
        (lambda: constraints.UnitNorm(axis=0.5), TypeError, "^axis must be an integer, got 0.5"),
    ],
)
def test_what_is_no_constraint_is_an_error(make, error, message):
    with pytest.raises(error, match=message):
        make()
