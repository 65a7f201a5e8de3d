"""A recommender by content: two towers, one of users and one of items, and their dot product."""

import numpy as np
import pytest

import torchnn as tn
import torchnn.tf as tf
from torchnn.layers import Dense, Dot, Input, Lambda
from torchnn.models import Model, Sequential

num_users, num_items, num_genres = 30, 40, 3
train = 1000  # of 1,200 ratings


@pytest.fixture(scope="module")
def ratings():
    """Users, items and what the ones gave to the others, from 0 to 5, a row for each rating.

    A user has an id and a liking for each genre; an item has an id and a genre, one-hot.
    """
    rng = np.random.default_rng(0)
    tastes = rng.uniform(0, 1, (num_users, num_genres))
    genres = np.eye(num_genres)[rng.integers(num_genres, size=num_items)]
    u, i = np.meshgrid(np.arange(num_users), np.arange(num_items), indexing="ij")
    u, i = u.ravel(), i.ravel()
    y = 5 * np.sum(tastes[u] * genres[i], axis=1, keepdims=True)
    order = rng.permutation(len(u))
    users, items = np.c_[u, tastes[u]], np.c_[i, genres[i]]
    return users[order], items[order], y[order]


def tower():
    return Sequential(
        [
            Dense(32, activation="relu"),
            Dense(16, activation="relu"),
            Dense(8, activation="linear"),
        ]
    )


@pytest.fixture(scope="module")
def user_NN():
    tn.utils.set_random_seed(1)
    return tower()


@pytest.fixture(scope="module")
def item_NN():
    tn.utils.set_random_seed(2)
    return tower()


@pytest.fixture(scope="module")
def model(user_NN, item_NN, ratings):
    # create the user input and point to the base network
    input_user = Input(shape=(num_genres,))
    vu = user_NN(input_user)
    vu = tf.linalg.l2_normalize(vu, axis=1)

    # create the item input and point to the base network
    input_item = Input(shape=(num_genres,))
    vm = item_NN(input_item)
    vm = Lambda(lambda x: tf.linalg.l2_normalize(x, axis=1))(vm)

    # compute the dot product of the two vectors vu and vm
    output = Dot(axes=1)([vu, vm])

    # specify the inputs and output of the model
    model = Model([input_user, input_item], output)
    model.compile(
        optimizer=tn.optimizers.Adam(learning_rate=0.01),
        loss=tn.losses.MeanSquaredError(),
    )
    user_train, item_train, y_train = (each[:train] for each in ratings)
    model.fit([user_train[:, 1:], item_train[:, 1:]], scaled(y_train), epochs=12, verbose=0)
    return model


def scaled(y):
    """Ratings as numbers from -1 to 1, like dot products of vectors of length 1."""
    return y / 2.5 - 1.0


def unscaled(y):
    return (y + 1.0) * 2.5


def test_the_model_is_two_towers_and_their_product(model, user_NN, item_NN, ratings):
    users, items, _ = ratings
    vu = user_NN.predict(users[:5, 1:])
    vm = item_NN.predict(items[:5, 1:])
    cosines = np.sum(vu * vm, axis=1) / np.linalg.norm(vu, axis=1) / np.linalg.norm(vm, axis=1)
    y_p = model.predict([users[:5, 1:], items[:5, 1:]])
    np.testing.assert_allclose(y_p[:, 0], cosines, rtol=1e-4, atol=1e-6)
    assert model.count_params() == user_NN.count_params() + item_NN.count_params()


def test_it_predicts_ratings_that_it_has_not_seen(model, ratings):
    user_test, item_test, y_test = (each[train:] for each in ratings)
    loss = model.evaluate([user_test[:, 1:], item_test[:, 1:]], scaled(y_test), verbose=0)
    of_the_mean = np.var(scaled(y_test))
    assert loss < 0.1 * of_the_mean
    y_p = unscaled(model.predict([user_test[:, 1:], item_test[:, 1:]]))
    assert np.mean((scaled(y_p) - scaled(y_test)) ** 2) == pytest.approx(loss, rel=1e-3)


def test_a_new_user_is_shown_items_of_the_genre_that_they_like(model, ratings):
    _, items, _ = ratings
    item_vecs = np.unique(items, axis=0)
    new_user = np.array([[5000, 0.05, 0.95, 0.1]])
    user_vecs = np.tile(new_user, (len(item_vecs), 1))
    y_p = model.predict([user_vecs[:, 1:], item_vecs[:, 1:]])

    sorted_index = np.argsort(-y_p, axis=0).reshape(-1).tolist()
    sorted_items = item_vecs[sorted_index]
    liked = int(np.sum(item_vecs[:, 2]))
    assert np.all(sorted_items[:liked, 2] == 1)
    assert np.all(sorted_items[liked:, 2] == 0)


def test_items_of_one_genre_are_near_each_other(model, item_NN, ratings):
    def sq_dist(a, b):
        return np.sum((a - b) ** 2)

    input_item_m = Input(shape=(num_genres,))
    vm_m = item_NN(input_item_m)  # the trained tower, in a model of its own
    vm_m = tf.linalg.l2_normalize(vm_m, axis=1)
    model_m = Model(input_item_m, vm_m)

    _, items, _ = ratings
    item_vecs = np.unique(items, axis=0)
    vms = model_m.predict(item_vecs[:, 1:])
    np.testing.assert_allclose(np.linalg.norm(vms, axis=1), 1, rtol=1e-5)
    for i, j in np.ndindex(len(vms), len(vms)):
        alike = np.array_equal(item_vecs[i, 1:], item_vecs[j, 1:])
        assert (sq_dist(vms[i], vms[j]) < 0.1) == alike
