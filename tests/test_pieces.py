"""Every piece that the kernels know beside dense layers, by itself: fit through each engine, in
both dtypes, against a loop by hand in plain PyTorch."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchnn import Sequential, activations, losses, optimizers, regularizers
from torchnn.layers import ELU, Dense, Dropout, LeakyReLU, ReLU
from torchnn.ops import reference

ROWS, BATCH, EPOCHS, RATE = 20, 7, 3, 0.05
WIDTHS = (4, 6, 5, 3)
EPSILON = 1e-7


def mean(function):
    return lambda y, a: function(y, a).mean()


def plus_minus(y):
    return 2 * y - 1


LOSSES = {  # the loss, the last activation, and the mean of a batch
    "mse": ("mse", None, lambda y, a: F.mse_loss(a, y)),
    "mae": (losses.MeanAbsoluteError(), None, lambda y, a: F.l1_loss(a, y)),
    "huber": (losses.Huber(0.3), None, lambda y, a: F.huber_loss(a, y, delta=0.3)),
    "msle": (
        "msle",
        "relu",
        mean(
            lambda y, a: (
                (torch.log1p(a.clamp(min=EPSILON)) - torch.log1p(y.clamp(min=EPSILON))) ** 2
            )
        ),
    ),
    "log_cosh": ("log_cosh", None, mean(lambda y, a: torch.log(torch.cosh(a - y)))),
    "hinge": ("hinge", "tanh", mean(lambda y, a: F.relu(1 - plus_minus(y) * a))),
    "squared_hinge": ("squared_hinge", None, mean(lambda y, a: F.relu(1 - plus_minus(y) * a) ** 2)),
    "poisson": ("poisson", "softplus", mean(lambda y, a: a - y * torch.log(a + EPSILON))),
    "bce": ("bce", "sigmoid", lambda y, a: F.binary_cross_entropy(a, y)),
    "bce of logits": (
        losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1),
        None,
        lambda y, a: F.binary_cross_entropy_with_logits(a, y * 0.9 + 0.05),
    ),
    "classes": (
        losses.CategoricalCrossentropy(label_smoothing=0.1),
        "softmax",
        lambda y, a: -((y * 0.9 + 0.1 / 3) * a.log()).sum(1).mean(),
    ),
    "class numbers": (
        "sparse_categorical_crossentropy",
        "softmax",
        lambda y, a: F.nll_loss(a.log(), y),
    ),
    "class numbers of logits, some ignored": (
        losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0),
        None,
        lambda y, a: F.cross_entropy(a, y, ignore_index=0, reduction="sum") / (y != 0).sum(),
    ),
    "PyTorch's": (torch.nn.CrossEntropyLoss(), None, lambda y, a: F.cross_entropy(a, y)),
}

ACTIVATIONS = {
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "leaky_relu": lambda z: F.leaky_relu(z, 0.2),
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "silu": F.silu,
    "swish": lambda z: z * torch.sigmoid(z),
    "gelu": lambda z: z * (1 + torch.erf(z / math.sqrt(2))) / 2,
}

SLOPED = {  # with a slope of their own below 0
    "LeakyReLU": (LeakyReLU(), lambda z: torch.where(z > 0, z, 0.3 * z)),
    "LeakyReLU of 0": (LeakyReLU(0.0), F.relu),
    "ReLU": (ReLU(negative_slope=0.1), lambda z: torch.where(z > 0, z, 0.1 * z)),
    "ELU": (ELU(0.5), lambda z: torch.where(z > 0, z, 0.5 * torch.expm1(z))),
    "PyTorch's": (nn.LeakyReLU(), lambda z: torch.where(z > 0, z, 0.01 * z)),
    "PyTorch's function": (F.leaky_relu, lambda z: torch.where(z > 0, z, 0.01 * z)),
    "PyTorch's ELU": (nn.ELU(2.0), lambda z: torch.where(z > 0, z, 2 * torch.expm1(z))),
    "a partial": (
        partial(activations.leaky_relu, negative_slope=1.5),
        lambda z: torch.where(z > 0, z, 1.5 * z),
    ),
}


def momentum(w, g, s, t):
    s["v"] = 0.9 * s.get("v", 0) - RATE * g
    return w + s["v"]


def rmsprop(w, g, s, t):
    s["v"] = 0.8 * s.get("v", 0) + 0.2 * g**2
    return w - RATE * g / (s["v"] + 1e-3).sqrt()


def rmsprop_with_momentum(w, g, s, t):
    s["v"] = 0.8 * s.get("v", 0) + 0.2 * g**2
    s["m"] = 0.5 * s.get("m", 0) + RATE * g / (s["v"] + 1e-3).sqrt()
    return w - s["m"]


def rmsprop_centered(w, g, s, t):
    s["v"] = 0.8 * s.get("v", 0) + 0.2 * g**2
    s["m"] = 0.8 * s.get("m", 0) + 0.2 * g
    return w - RATE * g / (s["v"] - s["m"] ** 2 + 1e-3).sqrt()


def adam(w, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * g**2
    rate = RATE * math.sqrt(1 - 0.99**t) / (1 - 0.9**t)
    return w - rate * s["m"] / (s["v"].sqrt() + 1e-3)


def adamw(w, g, s, t):
    return adam(w * (1 - 0.1 * RATE), g, s, t)


def adagrad(w, g, s, t):
    s["a"] = s.get("a", 0.2) + g**2
    return w - RATE * g / (s["a"] + 1e-3).sqrt()


RULES = {
    "sgd": (lambda: optimizers.SGD(RATE), lambda w, g, s, t: w - RATE * g),
    "momentum": (lambda: optimizers.SGD(RATE, 0.9), momentum),
    "rmsprop": (lambda: optimizers.RMSprop(RATE, 0.8, epsilon=1e-3), rmsprop),
    "rmsprop with momentum": (
        lambda: optimizers.RMSprop(RATE, 0.8, 0.5, 1e-3),
        rmsprop_with_momentum,
    ),
    "rmsprop, centered": (
        lambda: optimizers.RMSprop(RATE, 0.8, epsilon=1e-3, centered=True),
        rmsprop_centered,
    ),
    "adam": (lambda: optimizers.Adam(RATE, 0.9, 0.99, 1e-3), adam),
    "adamw": (lambda: optimizers.AdamW(RATE, 0.1, 0.9, 0.99, 1e-3), adamw),
    "adagrad": (lambda: optimizers.Adagrad(RATE, 0.2, 1e-3), adagrad),
}

PENALTIES = {  # l1 and l2 of a kernel, and of a bias
    "l1": (0.02, 0, 0, 0),
    "l2": (0, 0.03, 0, 0),
    "both, of biases too": (0.01, 0.02, 0.03, 0.04),
}


def clip_each(gradients, most):
    return [g * most / max(g.norm(), most) for g in gradients]


def clip_all(gradients, most):
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    return [g * most / max(norm, most) for g in gradients]


CLIPPING = {
    "clipvalue": lambda gradients, most: [g.clamp(-most, most) for g in gradients],
    "clipnorm": clip_each,
    "global_clipnorm": clip_all,
}


def data(dtype):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(ROWS, WIDTHS[0], generator=generator, dtype=torch.float64)
    weights = [
        torch.randn(units, features, generator=generator, dtype=torch.float64) / features**0.5
        for features, units in pairwise(WIDTHS)
    ]
    biases = [torch.randn(u, generator=generator, dtype=torch.float64) / 10 for u in WIDTHS[1:]]
    return x.to(dtype), [w.to(dtype) for w in weights], [b.to(dtype) for b in biases]


def targets(loss, x):
    if "class" in loss or loss == "PyTorch's":
        y = torch.arange(ROWS) % 3
        return F.one_hot(y, 3).to(x) if loss == "classes" else y
    return (torch.arange(3 * ROWS).reshape(ROWS, 3) % 2).to(x)


def penalties(parameters, factors):
    """Of weights and biases in turn."""
    kinds = [factors[:2], factors[2:]] * (len(parameters) // 2)
    return sum(
        l1 * p.abs().sum() + l2 * p.square().sum()
        for p, (l1, l2) in zip(parameters, kinds, strict=True)
    )


def loop_by_hand(
    dtype,
    loss="mse",
    activation="tanh",
    rule="sgd",
    penalty=(0, 0, 0, 0),
    clip=lambda gradients: gradients,
    drop=lambda a, layer, rows, step: a,
):
    """The weights after training, and the mean loss of each epoch."""
    x, weights, biases = data(dtype)
    y, (_, last, mean_loss) = targets(loss, x), LOSSES[loss]
    ends = {None: lambda z: z, "softmax": lambda z: z.softmax(1), **ACTIVATIONS}
    parameters = [p for pair in zip(weights, biases, strict=True) for p in pair]
    states = [{} for _ in parameters]
    history, step = [], 0
    for _ in range(EPOCHS):
        total = 0.0
        for rows in torch.arange(ROWS).split(BATCH):
            step += 1
            parameters = [p.detach().requires_grad_() for p in parameters]
            a = drop(x[rows], -1, torch.arange(len(rows)), step)
            for layer in range(3):
                z = a @ parameters[2 * layer].T + parameters[2 * layer + 1]
                a = ends[activation if layer < 2 else last](z)
                a = drop(a, layer, torch.arange(len(rows)), step)
            value = mean_loss(y[rows], a) + penalties(parameters, penalty)
            gradients = clip(torch.autograd.grad(value, parameters))
            update = RULES[rule][1]
            parameters = [
                update(p.detach(), g, s, step)
                for p, g, s in zip(parameters, gradients, states, strict=True)
            ]
            total += value.item() * len(rows)
        history.append(total / ROWS)
    return parameters, history


def fitted(
    dtype,
    device,
    engine,
    loss="mse",
    activation="tanh",
    rule="sgd",
    penalty=(0, 0, 0, 0),
    limit=None,
    seed=None,
    front=(),
):
    x, weights, biases = data(dtype)
    kind, last, _ = LOSSES[loss]
    own = {}
    if any(penalty):
        own = {
            "kernel_regularizer": regularizers.L1L2(*penalty[:2]),
            "bias_regularizer": regularizers.L1L2(*penalty[2:]),
        }
    layers = [*front]
    for units, features, name in zip(WIDTHS[1:], WIDTHS, [activation] * 2 + [last], strict=False):
        layers.append(Dense(units, name, in_features=features, dtype=dtype, **own))
        if seed is not None and len(layers) < 4:
            layers.append(Dropout(0.4, seed=seed))
    model = Sequential(layers)
    dense = [layer for layer in layers if isinstance(layer, Dense)]
    for layer, weight, bias in zip(dense, weights, biases, strict=True):
        layer.weight.data, layer.bias.data = weight, bias
    model.to(device)
    optimizer = RULES[rule][0]()
    if limit:
        setattr(optimizer, *limit)
    model.compile(optimizer, kind, engine=engine)
    y = targets(loss, x)
    history = model.fit(x, y, BATCH, EPOCHS, verbose=0, shuffle=False).history["loss"]
    found = [p for layer in dense for p in (layer.weight, layer.bias)]
    evaluated = model.evaluate(x, y, ROWS, verbose=0)
    return [p.detach().cpu() for p in found], history, evaluated


def assert_same(dtype, engine, by_hand, found):
    exact = dtype == torch.float64
    tolerance = {"rtol": 1e-8, "atol": 1e-9} if exact else {"rtol": 2e-3, "atol": 2e-4}
    parameters, history = by_hand
    torch.testing.assert_close(found[0], list(parameters), check_stride=False, **tolerance)
    assert found[1] == pytest.approx(history, rel=1e-8 if exact else 1e-3, abs=1e-6)


everywhere = pytest.mark.parametrize("engine", ["fused", "autograd"])
in_both = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@everywhere
@in_both
@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss, dtype, device, engine):
    if device == "cuda" and ("ignored" in loss or loss == "PyTorch's"):
        engine = "auto"  # its kernels ignore no classes
    assert_same(dtype, engine, loop_by_hand(dtype, loss), fitted(dtype, device, engine, loss))


@everywhere
@in_both
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation, dtype, device, engine):
    by_hand = loop_by_hand(dtype, activation=activation)
    assert_same(dtype, engine, by_hand, fitted(dtype, device, engine, activation=activation))


@everywhere
@in_both
@pytest.mark.parametrize("name", SLOPED)
def test_slopes(name, dtype, device, engine, monkeypatch):
    activation, function = SLOPED[name]
    monkeypatch.setitem(ACTIVATIONS, "sloped", function)
    by_hand = loop_by_hand(dtype, activation="sloped")
    if device == "cuda":
        engine = "auto"  # its kernels know the usual slopes alone
    assert_same(dtype, engine, by_hand, fitted(dtype, device, engine, activation=activation))


@everywhere
@in_both
@pytest.mark.parametrize("rule", RULES)
def test_rules(rule, dtype, device, engine):
    assert_same(
        dtype, engine, loop_by_hand(dtype, rule=rule), fitted(dtype, device, engine, rule=rule)
    )


@everywhere
@in_both
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_penalties(penalty, rule, dtype, device, engine):
    penalty = PENALTIES[penalty]
    by_hand = loop_by_hand(dtype, rule=rule, penalty=penalty)
    found = fitted(dtype, device, engine, rule=rule, penalty=penalty)
    assert_same(dtype, engine, by_hand, found)
    # evaluate reports the loss with the penalties of the weights as they are.
    parameters, a = by_hand[0], data(dtype)[0]
    for layer in range(3):
        a = a @ parameters[2 * layer].T + parameters[2 * layer + 1]
        a = torch.tanh(a) if layer < 2 else a
    expected = F.mse_loss(a, targets("mse", a)) + penalties(parameters, penalty)
    assert found[2] == pytest.approx(expected.item(), rel=1e-3)


@everywhere
@in_both
@pytest.mark.parametrize("kind", CLIPPING)
def test_clipping(kind, dtype, device, engine):
    by_hand = loop_by_hand(dtype, rule="adam", clip=lambda g: CLIPPING[kind](g, 0.1))
    assert_same(
        dtype, engine, by_hand, fitted(dtype, device, engine, rule="adam", limit=(kind, 0.1))
    )


@in_both
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_dropout(activation, dtype, device):
    """In the kernels alone: PyTorch draws other numbers."""

    def drop(a, layer, rows, step):
        if layer not in (0, 1):
            return a
        mask = reference.dropped(rows, a.shape[1], 0.4, 11, step)
        return torch.where(mask, 0, a / 0.6)

    by_hand = loop_by_hand(dtype, activation=activation, drop=drop)
    assert_same(
        dtype, "fused", by_hand, fitted(dtype, device, "fused", activation=activation, seed=11)
    )


@in_both
def test_dropout_of_features(dtype, device):
    """The same: in front of the first layer, the mask is that of layer -1."""

    def drop(a, layer, rows, step):
        if layer >= 0:
            return a
        return torch.where(reference.dropped(rows, a.shape[1], 0.4, 11, step), 0, a / 0.6)

    by_hand = loop_by_hand(dtype, drop=drop)
    assert_same(
        dtype, "fused", by_hand, fitted(dtype, device, "fused", front=[Dropout(0.4, seed=11)])
    )


@everywhere
@in_both
def test_negative_weights_of_samples(dtype, device, engine):
    """As in policy gradients, where an advantage weights a sample."""
    weights = torch.linspace(-1, 2, ROWS, dtype=dtype)
    x, y = data(dtype)[0], targets("class numbers", data(dtype)[0])
    model = Sequential([Dense(3, "softmax", in_features=4, dtype=dtype)])
    layer, expected = model.layers[0], nn.Linear(4, 3, dtype=dtype)
    model.to(device)
    expected.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    model.compile(optimizers.SGD(RATE), "sparse_categorical_crossentropy", engine=engine)
    loss = model.train_on_batch(x, y, sample_weight=weights)
    value = (F.cross_entropy(expected(x), y, reduction="none") * weights).mean()
    value.backward()
    assert loss == pytest.approx(value.item(), rel=1e-5)
    found = layer.weight.cpu()
    torch.testing.assert_close(found, expected.weight - RATE * expected.weight.grad)
