"""Training by hand with GradientTape: a single weight, collaborative filtering, Q-learning."""

import numpy as np
import pytest

import torchnn.tf as tf
from torchnn import Sequential
from torchnn.layers import Dense, Input
from torchnn.losses import MSE
from torchnn.optimizers import Adam
from torchnn.tf import keras


def test_gradient_descent_on_one_weight():
    w = tf.Variable(3.0)
    x = 1.0
    y = 1.0  # target value
    alpha = 0.01
    costs = []
    for _ in range(30):
        with tf.GradientTape() as tape:
            fwb = w * x
            costJ = (fwb - y) ** 2
        [dJdw] = tape.gradient(costJ, [w])
        w.assign_add(-alpha * dJdw)
        costs.append(costJ.numpy())
    assert costs[0] == 4
    assert w.numpy() == pytest.approx(1 + 2 * 0.98**30, rel=1e-5)  # each step leaves 98 %


def cofi_cost_func_v(X, W, b, Y, R, lambda_):
    """Half the squared errors of the ratings that are there, and of all parameters."""
    j = (tf.linalg.matmul(X, tf.transpose(W)) + b - Y) * R
    return 0.5 * tf.reduce_sum(j**2) + (lambda_ / 2) * (tf.reduce_sum(X**2) + tf.reduce_sum(W**2))


def test_collaborative_filtering_predicts_ratings_that_were_left_out():
    rng = np.random.default_rng(0)
    num_movies, num_users, num_features = 40, 30, 2
    Y = rng.normal(size=(num_movies, num_features)) @ rng.normal(size=(num_features, num_users))
    R = rng.random(Y.shape) < 0.7  # which ratings there are

    tf.random.set_seed(1234)
    W = tf.Variable(tf.random.normal((num_users, num_features), dtype=tf.float64), name="W")
    X = tf.Variable(tf.random.normal((num_movies, num_features), dtype=tf.float64), name="X")
    b = tf.Variable(tf.random.normal((1, num_users), dtype=tf.float64), name="b")
    optimizer = keras.optimizers.Adam(learning_rate=1e-1)
    for _ in range(200):
        with tf.GradientTape() as tape:
            cost_value = cofi_cost_func_v(X, W, b, Y, R, 0.1)
        grads = tape.gradient(cost_value, [X, W, b])
        optimizer.apply_gradients(zip(grads, [X, W, b], strict=True))

    p = np.matmul(X.numpy(), np.transpose(W.numpy())) + b.numpy()
    assert np.mean((p - Y)[~R] ** 2) < 0.1 * np.var(Y[~R])


def make_network():
    return Sequential(
        [
            Input((3,)),
            Dense(16, activation="relu"),
            Dense(2, activation="linear"),
        ]
    )


def test_a_q_network_learns_the_values_of_actions():
    GAMMA, TAU = 0.5, 0.1
    tf.random.set_seed(0)
    q_network, target_q_network = make_network(), make_network()
    target_q_network.set_weights(q_network.get_weights())
    optimizer = Adam(learning_rate=0.01)

    rng = np.random.default_rng(0)
    states = tf.convert_to_tensor(rng.normal(size=(64, 3)), dtype=tf.float32)
    actions = tf.convert_to_tensor(rng.integers(2, size=64), dtype=tf.float32)
    rewards = actions  # action 1 is worth 1, action 0 nothing, whatever the state
    done_vals = tf.zeros(64)

    @tf.function
    def agent_learn():
        with tf.GradientTape() as tape:
            max_qsa = tf.reduce_max(target_q_network(states), axis=-1)
            y_targets = rewards + (GAMMA * max_qsa * (1 - done_vals))
            q_values = q_network(states)
            chosen = tf.stack([tf.range(q_values.shape[0]), tf.cast(actions, tf.int32)], axis=1)
            loss = MSE(tf.stop_gradient(y_targets), tf.gather_nd(q_values, chosen))
        gradients = tape.gradient(loss, q_network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, q_network.trainable_variables, strict=True))
        for target_weights, weights in zip(
            target_q_network.weights, q_network.weights, strict=True
        ):
            target_weights.assign(TAU * weights + (1.0 - TAU) * target_weights)

    for _ in range(300):
        agent_learn()

    q_values = q_network(states).numpy()
    # Acting best for ever is worth 1 + 0.5 + 0.25 + ... = 2, and one mistake first 0 + 0.5 * 2.
    np.testing.assert_allclose(q_values.mean(axis=0), [1, 2], atol=0.1)
    assert np.mean(np.argmax(q_values, axis=1) == 1) > 0.95
