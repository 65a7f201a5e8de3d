"""torchnn.ops.train_ and predict against their definition in plain PyTorch, in float64."""

import inspect
import re
from dataclasses import fields
from itertools import pairwise

import pytest
import torch

from torchnn import ops, tuning
from torchnn.ops import reference
from torchnn.ops._network import activate_, hashed, restore_, shuffle_

OPTIONS = {
    "momentum": 0.9,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-7,
    "weight_decay": 0.0,
    "rho": 0.9,
    "clip_value": 0.0,
    "clip_norm": 0.0,
    "global_clip_norm": 0.0,
    "delta": 0.7,
}
SLOTS = {
    "gradient_descent": 0,
    "momentum": 1,
    "nesterov": 1,
    "adam": 2,
    "rmsprop": 1,
    "rmsprop_momentum": 2,
    "rmsprop_centered": 2,
    "adagrad": 1,
}
NETWORKS = [  # widths, rows, batch size
    ((1, 1), 5, 2),
    ((3, 2), 7, 7),
    ((400, 25, 25, 1), 70, 32),
    ((7, 16, 33, 3), 50, 16),
    ((20, 9, 9, 9, 9, 9, 9, 1), 33, 8),
    ((64, 130, 70, 2), 40, 64),
    ((70, 33, 17, 2), 23, 4),
    ((8, 64, 64, 4), 9, 1),
    ((30, 20, 1), 300, 290),
    ((9, 8, 2), 1300, 1290),
    ((70, 300, 1), 700, 650),
    ((300, 250, 2), 300, 270),
]
# A layer for the library, in float32, and a last batch that is none by itself.
LARGE = ((300, 600, 9, 1), 220, 200)


def job(widths, rows, batch_size, dtype=torch.float64, update="gradient_descent", **changes):
    """Arguments of train_ with random data and weights."""
    generator = torch.Generator().manual_seed(changes.pop("seed", 0))

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = [random(o, i) / i**0.5 for i, o in pairwise(widths)]
    biases = [random(o) / 10 for o in widths[1:]]
    parameters = [p for pair in zip(weights, biases, strict=True) for p in pair]
    steps = changes.pop("steps", -(-rows // batch_size))
    loss = changes.get("loss", "binary_crossentropy_from_logits")
    y = (random(rows, widths[-1]) > 0).double()
    if loss in reference.TAKE_LABELS:
        y = torch.randint(widths[-1], (rows, 1), generator=generator).double()
    if "hinge" in loss:
        y = 2 * y - 1
    arguments = {
        "x": random(rows, widths[0]),
        "y": y,
        "sample_weight": None,
        "order": torch.randint(rows, (steps * batch_size,), generator=generator),
        "epoch_size": steps * batch_size,
        "batch_size": batch_size,
        "learning_rates": [0.1 / (1 + i) ** 0.5 for i in range(steps)],
        "loss": loss,
        "update": update,
        "options": OPTIONS,
        "steps_before": 0,
        "activations": ["sigmoid"] * (len(widths) - 2) + ["identity"],
        "regularization": (),
        "seeds": (),
        "weights": weights,
        "biases": biases,
        "slots": [[torch.zeros_like(p) for p in parameters] for _ in range(SLOTS[update])],
        "keep_predictions": True,
        "steps_done": torch.zeros(1, dtype=torch.int64),
    } | changes
    return cast(arguments, dtype)


def cast(value, dtype):
    """A copy, with its floating tensors in a dtype."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value.clone()
    if isinstance(value, dict):
        return {
            k: v if k in ("options", "learning_rates") else cast(v, dtype) for k, v in value.items()
        }
    if isinstance(value, list):
        return [cast(v, dtype) for v in value]
    return value


def call(function, arguments):
    """Passes the first four arguments by place and the others by name."""
    places = ("x", "y", "sample_weight", "order")
    named = {name: value for name, value in arguments.items() if name not in places}
    return function(*(arguments[name] for name in places), **named)


def run(function, arguments):
    """What training gives and leaves behind: losses, predictions, weights, biases, slots."""
    own = cast(arguments, arguments["x"].dtype)
    own = own | {k: clone(own[k]) for k in ("weights", "biases", "slots", "steps_done")}
    losses, predictions = call(function, own)
    slots = [tensor for slot in own["slots"] for tensor in slot]
    left = [t for t in [*own["weights"], *own["biases"], *slots] if t is not None]
    return [losses, predictions, *left, own["steps_done"]]


def clone(value):
    if isinstance(value, list):
        return [clone(v) for v in value]
    return None if value is None else value.clone()


def assert_same_training(arguments, rtol=1e-10, atol=1e-11):
    exact = run(reference.train_, cast(arguments, torch.float64))
    for ours, expected in zip(run(ops.train_, arguments), exact, strict=True):
        assert ours.dtype in (arguments["x"].dtype, torch.int64)
        torch.testing.assert_close(ours.to(expected), expected, rtol=rtol, atol=atol)


def test_the_lists_are_those_of_the_reference():
    assert ops.losses() == tuple(reference.LOSSES)
    assert ops.updates() == tuple(reference.UPDATES) == tuple(SLOTS)
    assert ops.train_options() == tuple(OPTIONS)


def test_the_arguments_are_spelled_once_and_known_to_help():
    names = [field.name for field in fields(ops.Training)]
    schema = [argument.name for argument in torch.ops.torchnn.train_.default._schema.arguments]
    assert names == schema
    for function in (ops.train_, reference.train_):
        assert list(inspect.signature(function).parameters) == names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "mape"}, "^loss must be one of mean_squared_error, .*, got 'mape'$"),
        ({"update": "lion"}, "^update must be one of gradient_descent, .*, got 'lion'$"),
        ({"activations": ["mish"]}, "^activation must be one of identity, .*, got 'mish'$"),
        ({"options": {"beta": 1.0}}, "^each name in options must be one of .*, got 'beta'$"),
    ],
)
def test_a_name_that_no_kernel_has_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        call(ops.train_, job((3, 1), 5, 2) | changes)


def test_options_that_are_not_given_are_0():
    arguments = job((6, 5, 1), 20, 8)
    assert_same_training(arguments | {"options": OPTIONS | {"weight_decay": 0.0}})
    few = run(ops.train_, arguments | {"options": {}})
    assert all(map(torch.equal, few, run(ops.train_, arguments)))


@pytest.mark.parametrize("update", SLOTS)
@pytest.mark.parametrize("network", NETWORKS)
def test_training_is_that_of_the_reference(network, update):
    assert_same_training(job(*network, update=update))


@pytest.mark.parametrize("loss", ops.losses())
@pytest.mark.parametrize("activation", ops.activations())
@pytest.mark.parametrize("last", ops.activations())
def test_any_activation_goes_with_any_loss(activation, last, loss):
    if loss == "poisson" and last not in ("sigmoid", "softplus"):
        pytest.skip("the logarithm of a negative output is no number")
    activations = [activation, activation, last]
    assert_same_training(job((9, 8, 7, 3), 40, 16, activations=activations, loss=loss))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("widths_rows_batch", [0, 1, 2, 3])
def test_slopes_are_those_of_the_reference(widths_rows_batch, dtype):
    """Negative ones are the usual ones; what has none to choose takes no notice."""
    arguments = job(
        *BATCHES[widths_rows_batch],
        dtype,
        activations=["leaky_relu", "elu", "tanh", "leaky_relu"],
        slopes=[0.4, 0.7, 5.0, -1.0],
        regularization=[(0.0, 0.0, 0.0, 0.0, 0.3)] * 4,
    )
    rtol, atol = (1e-9, 1e-10) if dtype == torch.float64 else (2e-3, 2e-4)
    assert_same_training(arguments, rtol, atol)
    network = (arguments[name] for name in ("x", "activations", "weights", "biases", "slopes"))
    x, *rest = network
    torch.testing.assert_close(ops.predict(x, *rest), reference.predict(x, *rest))
    usual = run(ops.train_, arguments | {"slopes": [0.2, 1.0, 0.0, -3.0]})
    assert all(map(torch.equal, usual, run(ops.train_, arguments | {"slopes": ()})))
    assert not torch.equal(usual[0], run(ops.train_, arguments)[0])


@pytest.mark.parametrize("network", [((4, 5, 3), 40, 16), ((4, 5, 3), 300, 290), ((4, 3), 5, 1)])
def test_samples_without_a_class_do_not_count(network):
    arguments = job(*network, loss="sparse_categorical_crossentropy_from_logits")
    arguments["y"][::3] = -1
    assert_same_training(arguments)
    assert_same_training(arguments | {"y": torch.full_like(arguments["y"], -7)})


REGULARIZATION = (  # l1 and l2 of weight and bias, and dropout
    (0.01, 0.02, 0.0, 0.0, 0.0),
    (0.0, 0.02, 0.03, 0.01, 0.5),
    (0.0, 0.0, 0.0, 0.0, 0.2),
    (0.01, 0.0, 0.0, 0.02, 0.0),
)
# widths, rows, batch size: by rows, in registers, in shares, threads together, large layers and
# these in chunks
BATCHES = [
    ((9, 8, 17, 7, 3), 12, 1),
    ((9, 8, 17, 7, 3), 40, 16),
    ((33, 25, 17, 9, 1), 700, 600),
    ((300, 250, 40, 30, 2), 330, 300),
    ((512, 520, 40, 30, 2), 330, 300),
    ((512, 260, 40, 30, 2), 700, 650),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("update", SLOTS)
@pytest.mark.parametrize("network", BATCHES)
def test_penalties_and_dropout_are_those_of_the_reference(network, update, dtype):
    arguments = job(*network, dtype, update, regularization=REGULARIZATION, seeds=[3, 2**62, -5, 0])
    rtol, atol = (1e-9, 1e-10) if dtype == torch.float64 else (2e-3, 2e-4)
    assert_same_training(arguments | {"steps_before": 2**33}, rtol, atol)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.1}])
@pytest.mark.parametrize("network", [*BATCHES, ((64, 8, 1), 50, 16), ((3, 1), 7, 3)])
def test_features_are_dropped_as_in_the_reference(network, clip, dtype):
    arguments = job(*network, dtype, options=OPTIONS | clip, input_dropout=0.4, input_seed=-(2**40))
    rtol, atol = (1e-9, 1e-10) if dtype == torch.float64 else (2e-3, 2e-4)
    assert_same_training(arguments | {"steps_before": 2**33}, rtol, atol)
    others = arguments | {"input_seed": 1}
    assert not torch.equal(run(ops.train_, arguments)[0], run(ops.train_, others)[0])


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_all_features_cannot_be_dropped(rate):
    arguments = job((3, 1), 5, 2) | {"input_dropout": rate}
    with pytest.raises(RuntimeError, match=r"^input_dropout must be at least 0 .*, got"):
        call(ops.train_, arguments)


@pytest.mark.parametrize("kind", ["clip_value", "clip_norm", "global_clip_norm"])
@pytest.mark.parametrize("update", ["gradient_descent", "adam", "rmsprop_centered"])
@pytest.mark.parametrize("network", BATCHES)
def test_gradients_are_clipped_as_in_the_reference(network, update, kind):
    plain = job(*network, update=update, regularization=REGULARIZATION)
    arguments = plain | {"options": OPTIONS | {kind: 0.01}}
    assert_same_training(arguments)
    assert not torch.equal(run(ops.train_, arguments)[2], run(ops.train_, plain)[2])


@pytest.mark.parametrize("activation", ops.activations())
@pytest.mark.parametrize("network", BATCHES)
def test_what_is_dropped_leaves_every_derivative_right(network, activation):
    """Of the last layer's outputs, too."""
    dropout = [(0.0, 0.0, 0.0, 0.0, 0.3)] * 4
    activations = [activation] * 4
    arguments = job(*network, activations=activations, regularization=dropout)
    assert_same_training(arguments | {"loss": "mean_squared_error"})


def test_a_rate_of_outputs_is_dropped_and_each_by_itself():
    rows = torch.arange(1000)
    masks = torch.stack(
        [
            reference.dropped(rows, 200, 0.3, seed, step).double()
            for seed, step in ((0, 1), (0, 2), (1, 1), (2**40, 1), (0, 2**40))
        ]
    )
    # The standard deviation of a mean of 200,000 is 0.001; of 1,000, 0.0145; of 200, 0.0324.
    assert (masks.mean((1, 2)) - 0.3).abs().max() < 0.005
    assert (masks.mean(1) - 0.3).abs().max() < 0.075
    assert (masks.mean(2) - 0.3).abs().max() < 0.17
    centred = (masks - 0.3) / 0.21**0.5
    for other in (centred[:, 1:, :-1], centred[:, 1:, 1:], centred[:, :-1, 1:]):  # neighbours
        shape = other.shape
        assert (centred[:, : shape[1], : shape[2]] * other).mean().abs() < 0.01
    together = centred.flatten(1).corrcoef()
    assert (together - torch.eye(5, dtype=torch.float64)).abs().max() < 0.012


def test_what_is_dropped_does_not_depend_on_how_a_batch_is_cut():
    """Into chunks of a large batch, by threads, or by the rows of a call."""
    dropout = [(0.0, 0.0, 0.0, 0.0, 0.5), (0.0, 0.0, 0.0, 0.0, 0.0)]
    arguments = job((20, 30, 1), 700, 700, regularization=dropout, seeds=[1, 2])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = run(ops.train_, arguments)
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, alone, run(ops.train_, arguments)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regularization": [(0.0,) * 4] * 2}, "regularization must have 5 numbers for each of 2"),
        ({"regularization": [(0.0,) * 5]}, "regularization must have 5 numbers for each of 2"),
        ({"regularization": [(0, 0, 0, 0, 1.0)] * 2}, "dropout of layer 0 must be .* got 1"),
        ({"seeds": [1]}, "seeds must have one number for each of 2 layers, or none, got 1"),
    ],
)
def test_wrong_regularization_is_refused(changes, message):
    arguments = job((3, 2, 1), 5, 2) | changes
    before = clone(arguments["weights"])
    with pytest.raises(RuntimeError, match=message):
        call(ops.train_, arguments)
    assert all(map(torch.equal, before, arguments["weights"]))


def test_autocast_and_autograd_do_not_reach_into_a_network():
    arguments = job((300, 250, 1), 64, 32, torch.float32)
    for weight in arguments["weights"]:
        weight.requires_grad_()

    def results():
        network = (arguments[name] for name in ("activations", "weights", "biases"))
        return [ops.predict(arguments["x"], *network), *run(ops.train_, arguments)]

    expected = results()
    with torch.autocast("cpu"):
        found = results()
    assert all(map(torch.equal, found, expected))
    assert not any(t.requires_grad for t in found[:3])  # of predict, and losses and outputs


@pytest.mark.parametrize("steps", [1, 10, 100])
@pytest.mark.parametrize("update", SLOTS)
def test_float32_is_as_exact_as_pytorch_for_many_steps(steps, update):
    # In one training PyTorch's own errors may cancel, so it is measured by its worst of five.
    trainings = [errors(update, steps, seed) for seed in range(5)]
    for several in zip(*trainings, strict=True):
        worst = max(theirs / size if size else 0 for _, theirs, size in several)
        ours, _, size = several[0]
        assert ours <= (4 * worst + 1e-6) * size


def errors(update, steps, seed):
    """For each result of a training in float32: our error, PyTorch's, and the largest number."""
    arguments = job((30, 20, 10, 1), 100, 16, torch.float32, update, steps=steps, seed=seed)
    exact = run(reference.train_, cast(arguments, torch.float64))
    eager = run(reference.train_, arguments)
    return [
        tuple(t.abs().max().item() for t in (ours.double() - truth, theirs.double() - truth, truth))
        for ours, theirs, truth in zip(run(ops.train_, arguments), eager, exact, strict=True)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("features", [1, 5, 16, 20, 100])
@pytest.mark.parametrize("rows", [3, 16, 200])
def test_rows_that_are_copied_to_be_aligned_change_no_bit(rows, features, dtype):
    # A call of ten epochs copies them, one of a single epoch does not.
    layers = (features, 6, 2)
    given = job(layers, rows, min(rows, 64), dtype, "momentum", order=None, steps=1)
    wide = torch.full((rows, features + 7), torch.nan, dtype=dtype)
    wide[:, 1 : features + 1] = given["x"]
    given["x"] = wide[:, 1 : features + 1]
    batches = -(-rows // given["batch_size"])
    given |= {"epoch_size": rows, "learning_rates": [0.1] * batches}

    def ten_times(*arguments, **named):
        return [ops.train_(*arguments, **named) for _ in range(10)][-1]

    one = run(ten_times, given)
    order = torch.arange(rows).repeat(10)
    many = given | {"order": order, "learning_rates": [0.1] * (10 * batches)}
    ours = run(ops.train_, many)
    assert torch.equal(ours[0][-batches:], one[0])
    assert all(map(torch.equal, ours[2:], one[2:]))


@pytest.mark.parametrize("update", ["gradient_descent", "adam"])
def test_a_large_network_takes_many_rows_at_once(update):
    assert_same_training(job((600, 450, 3), 1100, 700, update=update, steps=3))


def test_sample_weights_and_weight_decay():
    weight = torch.linspace(0, 3, 50, dtype=torch.float64)
    options = OPTIONS | {"weight_decay": 0.3}
    for update in SLOTS:
        arguments = job((5, 4, 2), 50, 16, update=update, sample_weight=weight, options=options)
        assert_same_training(arguments)


def test_layers_without_a_bias_and_a_shorter_last_batch():
    arguments = job((6, 5, 1), 20, 8, update="adam", order=None)
    arguments["biases"][0] = None
    for slot in arguments["slots"]:
        slot[1] = None
    arguments["learning_rates"] = [0.1, 0.2, 0.3]  # 20 rows are 8, 8 and 4
    assert_same_training(arguments)


@pytest.mark.parametrize("update", SLOTS)
def test_a_batch_ends_where_its_epoch_does(update):
    # 20 samples an epoch, in batches of 8, 8 and 4; two epochs and a half
    assert_same_training(
        job((6, 5, 1), 20, 8, update=update, epoch_size=20, order=torch.arange(50) % 20)
        | {"learning_rates": [0.1 + 0.01 * i for i in range(8)]}
    )


@pytest.mark.parametrize("function", [ops.train_, reference.train_])
def test_the_tensors_say_where_not_the_default_device(function):
    arguments = job((6, 5, 1), 20, 8, update="adam", order=None)
    expected = run(function, arguments)
    with torch.device("meta"):
        found = run(function, arguments)
    assert all(map(torch.equal, found, expected))


def test_no_samples_are_no_steps():
    arguments = job((6, 5, 1), 20, 8, update="adam", order=torch.zeros(0, dtype=torch.int64))
    arguments["learning_rates"] = []
    before = clone(arguments["weights"])
    losses, predictions = call(ops.train_, arguments)
    assert (losses.shape, predictions.shape) == ((0,), (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(arguments["weights"], before, strict=True))
    assert arguments["steps_done"].item() == 0


def test_a_second_call_goes_on_where_the_first_stopped():
    arguments = job((6, 5, 1), 40, 10, update="adam")
    whole = run(ops.train_, arguments)
    half = {"keep_predictions": False}
    rates, order = arguments["learning_rates"], arguments["order"]
    first = arguments | half | {"order": order[:20], "learning_rates": rates[:2]}
    state = {k: clone(arguments[k]) for k in ("weights", "biases", "slots")}
    rest = {"order": order[20:], "learning_rates": rates[2:]}
    for part in (first | state, arguments | half | rest | state | {"steps_before": 2}):
        call(ops.train_, part)
    parts = [*state["weights"], *state["biases"], *(t for slot in state["slots"] for t in slot)]
    assert all(torch.equal(a, b) for a, b in zip(parts, whole[2:-1], strict=True))


@pytest.mark.parametrize("widths", [(100, 16, 1), (64, 25, 25, 1), (400, 25, 25, 1)])
@pytest.mark.parametrize("batch_size", [16, 50, 128, 10**18])
def test_how_many_epochs_go_into_a_call_changes_no_bit(batch_size, widths):
    epochs, rows = 4, 50
    order = torch.arange(rows).repeat(epochs)
    given = job(widths, rows, batch_size, torch.float32, order=order, epoch_size=rows, steps=0)
    steps = -(-rows // batch_size)
    given["learning_rates"] = [0.5] * (steps * epochs)
    whole = run(ops.train_, given)
    part = given | {"order": order[:rows], "learning_rates": [0.5] * steps}
    own = {k: clone(given[k]) for k in ("weights", "biases", "slots", "steps_done")}
    for _ in range(epochs):
        call(ops.train_, part | own)
    assert all(map(torch.equal, [*own["weights"], *own["biases"]], whole[2:-1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_run_gives_the_same_bits(dtype):
    arguments = job((33, 20, 10, 1), 100, 16, dtype, "adam")
    first, second = run(ops.train_, arguments), run(ops.train_, arguments)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_strided_rows_of_x_are_read_right():
    arguments = job((16, 5, 1), 40, 8, torch.float32)
    wide = torch.full((40, 21), torch.nan)
    wide[:, 3:19] = arguments["x"]
    expected = run(ops.train_, arguments)
    own = {k: clone(arguments[k]) for k in ("weights", "biases", "slots", "steps_done")}
    rest = {
        k: v for k, v in (arguments | own).items() if k not in ("x", "y", "sample_weight", "order")
    }
    losses, _ = ops.train_(wide[:, 3:19], arguments["y"], None, arguments["order"], **rest)
    assert torch.equal(losses, expected[0])
    assert all(torch.equal(a, b) for a, b in zip(own["weights"], expected[2:4], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("widths", [(1, 1), (400, 25, 25, 1), (7, 33, 3)])
@pytest.mark.parametrize("rows", [0, 1, 64, 3000])
def test_predict_is_that_of_the_reference(widths, rows, dtype):
    arguments = job(widths, 10, 5, dtype)
    network = arguments["activations"], arguments["weights"], [*arguments["biases"][:-1], None]
    x = torch.randn(rows, widths[0], dtype=dtype)
    torch.testing.assert_close(ops.predict(x, *network), reference.predict(x, *network))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("widths", [(1, 1), (400, 25, 25, 1), (7, 33, 3), (784, 64, 10)])
def test_what_a_row_comes_to_does_not_depend_on_those_beside_it(widths, dtype):
    arguments = job(widths, 10, 5, dtype)
    network = arguments["activations"], arguments["weights"], arguments["biases"]
    x = torch.randn(700, widths[0], dtype=dtype)
    whole = ops.predict(x, *network)
    for size in (9, 16, 17, 63, 64, 65, 100, 333):  # of fewer rows, each goes by itself
        parts = [ops.predict(part, *network) for part in x.split(size) if len(part) > 8]
        assert torch.equal(torch.cat(parts), whole[: sum(map(len, parts))])


BAD = {
    "y of other rows": {"y": torch.ones(39, 1)},
    "y of other units": {"y": torch.ones(40, 2)},
    "y of another dtype": {"y": torch.ones(40, 1).double()},
    "a weight of another width": {"weights": [torch.ones(5, 16), torch.ones(1, 4)]},
    "one weight too few": {"weights": [torch.ones(5, 16)]},
    "a bias of another width": {"biases": [torch.ones(5), torch.ones(2)]},
    "an order beyond the rows": {"order": torch.tensor([40])},
    "a negative order": {"order": torch.tensor([-1])},
    "an order of another dtype": {"order": torch.zeros(8, dtype=torch.int32)},
    "too few learning rates": {"learning_rates": [0.1]},
    "no batches": {"batch_size": 0},
    "epochs without samples": {"epoch_size": 0},
    "too few slots": {"update": "adam"},
    "sample weights of other rows": {"sample_weight": torch.ones(39)},
    "x of another width": {"x": torch.ones(40, 15)},
    "x without rows": {"x": torch.ones(16)},
}


@pytest.mark.parametrize("bad", BAD)
def test_what_does_not_fit_is_refused_before_anything_changes(bad):
    arguments = job((16, 5, 1), 40, 8, torch.float32) | BAD[bad]
    before = clone(arguments["weights"])
    with pytest.raises(RuntimeError):
        call(ops.train_, arguments)
    assert all(torch.equal(a, b) for a, b in zip(before, arguments["weights"], strict=True))


# ---- snapshots ----


def kept(arguments, epochs):
    """Room for what changes, full of what it must not be."""
    pairs = [
        p for pair in zip(arguments["weights"], arguments["biases"], strict=True) for p in pair
    ]
    return [
        [None if t is None else t.new_full((epochs, *t.shape), torch.nan) for t in each]
        for each in (pairs, *arguments["slots"])
    ]


def in_epochs(network, epochs, dtype=torch.float64, update="adam", **changes):
    widths, rows, batch_size = network
    generator = torch.Generator().manual_seed(1)
    order = torch.cat([torch.randperm(rows, generator=generator) for _ in range(epochs)])
    steps = epochs * -(-rows // batch_size)
    given = {"order": order, "epoch_size": rows, "steps": steps} | changes
    return job(widths, rows, batch_size, dtype, update, **given)


def tensors_in(lists):
    return [t for each in lists for t in each if t is not None]


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.1}])
@pytest.mark.parametrize("update", SLOTS)
@pytest.mark.parametrize("network", [*NETWORKS[:10], ((300, 250, 2), 300, 270), LARGE])
def test_snapshots_are_the_state_after_each_epoch(network, update, clip):
    epochs = 3
    arguments = in_epochs(network, epochs, torch.float32, update, options=OPTIONS | clip)
    arguments["biases"][0] = None
    for slot in arguments["slots"]:
        slot[1] = None
    whole = run(ops.train_, arguments)
    arguments["snapshots"] = kept(arguments, epochs)
    assert all(map(torch.equal, run(ops.train_, arguments), whole))
    rows = network[1]
    steps = len(arguments["learning_rates"]) // epochs
    own = {k: clone(arguments[k]) for k in ("weights", "biases", "slots", "steps_done")}
    for epoch in range(epochs):
        part = {
            "order": arguments["order"][epoch * rows : (epoch + 1) * rows],
            "learning_rates": arguments["learning_rates"][epoch * steps : (epoch + 1) * steps],
            "steps_before": epoch * steps,
            "snapshots": (),
        }
        call(ops.train_, arguments | own | part)
        pairs = [p for pair in zip(own["weights"], own["biases"], strict=True) for p in pair]
        then = tensors_in([pairs, *own["slots"]])
        found = [t[epoch] for t in tensors_in(arguments["snapshots"])]
        assert all(torch.equal(a, b) for a, b in zip(found, then, strict=True))


def test_snapshots_are_those_of_the_reference():
    found = []
    for function in (ops.train_, reference.train_):
        arguments = in_epochs(((7, 5, 3), 20, 8), 4)
        arguments["snapshots"] = kept(arguments, 4)
        run(function, arguments)
        found.append(tensors_in(arguments["snapshots"]))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-11)


BAD_SNAPSHOTS = {
    "snapshots need whole epochs": lambda a: {"order": a["order"][:-1]},
    "room for 3 epochs": lambda a: {"snapshots": kept(a, 2)},
    "the update rule needs 2 slots for each snapshot of weight": lambda a: {
        "snapshots": kept(a, 3)[:2]
    },
    "snapshot of weight 1 must have shape": lambda a: {
        "snapshots": kept(a | {"weights": [a["weights"][0], torch.zeros(1, 6).double()]}, 3)
    },
    "snapshot of bias 0 must be there if": lambda a: {
        "snapshots": kept(a | {"biases": [None, a["biases"][1]]}, 3)
    },
    "weight 0 shares memory with snapshot of weight 0": lambda a: {
        "weights": [kept_of_weight(a), a["weights"][1]]
    },
    "snapshot of weight 0 must be contiguous": lambda a: {
        "snapshots": [[t.float() for t in each] for each in kept(a, 3)]
    },
}


def kept_of_weight(arguments):
    return arguments["snapshots"][0][0][1]


@pytest.mark.parametrize("message", BAD_SNAPSHOTS)
def test_snapshots_that_do_not_fit_are_refused(message):
    arguments = in_epochs(((7, 5, 1), 20, 8), 3)
    arguments["snapshots"] = kept(arguments, 3)
    arguments |= BAD_SNAPSHOTS[message](arguments)
    before = clone(arguments["weights"])
    if "whole" in message:
        arguments["learning_rates"] = arguments["learning_rates"][:9]
    with pytest.raises(RuntimeError, match=message):
        call(ops.train_, arguments)
    for now, then in zip(arguments["weights"], before, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=0, equal_nan=True)


def test_snapshots_are_of_one_model():
    together = several("everything")
    together["snapshots"] = [[t[None] for t in each] for each in kept(together, 1)]
    with pytest.raises(RuntimeError, match="snapshots are of a single model"):
        call(ops.train_, together)


def test_a_state_is_given_back_if_it_is_as_expected():
    state = [torch.nn.Parameter(torch.zeros(2, 3)), torch.zeros(2)]
    snapshots = [torch.arange(18.0).view(3, 2, 3), torch.arange(6.0).view(3, 2)]
    version = state[0]._version
    assert restore_(state, snapshots, 1)
    assert all(torch.equal(t, s[1]) for t, s in zip(state, snapshots, strict=True))
    assert state[0]._version > version
    assert state[0].requires_grad
    assert restore_(state, snapshots, 2, expected=1)
    assert not restore_(state, snapshots, 0, expected=1)
    assert all(torch.equal(t, s[2]) for t, s in zip(state, snapshots, strict=True))
    state[1].numpy()[1] = -0.0  # past PyTorch
    snapshots[1][2, 1] = 0.0  # equal to it, but for the bits
    assert not restore_(state, snapshots, 0, expected=2)
    state[0].data = state[0].data.t()  # no longer contiguous
    assert not restore_(state, snapshots, 0, expected=2)
    with pytest.raises(RuntimeError, match="state 0 must be contiguous and like its snapshots"):
        restore_(state, snapshots, 0)


@pytest.mark.parametrize(
    ("state", "snapshots", "epoch", "message"),
    [
        ([torch.zeros(2)], [], 0, "a snapshot of each"),
        ([torch.zeros(2)], [torch.zeros(3, 2)], 3, "epoch must be from 0 to 2, got 3"),
        ([torch.zeros(2)], [torch.zeros(3, 3)], 0, "like its snapshots"),
        ([torch.zeros(2)], [torch.zeros(3, 2).double()], 0, "like its snapshots"),
        ([torch.zeros(2)], [torch.zeros(2, 3).t()], 0, "each snapshot must be contiguous"),
    ],
)
def test_a_state_that_does_not_fit_is_not_given_back(state, snapshots, epoch, message):
    with pytest.raises(RuntimeError, match=message):
        restore_(state, snapshots, epoch)


def test_a_state_in_the_memory_of_its_snapshots_is_refused():
    snapshots = torch.zeros(3, 2)
    with pytest.raises(RuntimeError, match="shares memory"):
        restore_([snapshots[1]], [snapshots], 0)
    state = torch.zeros(2)
    state.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="beyond its storage"):
        restore_([state], [snapshots], 0, expected=1)


@pytest.mark.parametrize("size", [1, 7, 16, 64, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_a_hash_tells_any_change_of_a_bit(size, dtype):
    numbers, rest = torch.arange(1, size + 1).to(dtype), torch.ones(3)
    bytes_, seen = numbers.view(torch.uint8), [hashed([numbers, rest]), hashed([rest, numbers])]
    bits = range(8 * numbers.element_size())
    places = sorted({0, size // 2, size - 1})
    for place in places:
        for bit in bits:
            at = place * numbers.element_size() + bit // 8
            bytes_[at] ^= 1 << bit % 8
            seen.append(hashed([numbers, rest]))
            bytes_[at] ^= 1 << bit % 8
    assert hashed([numbers.clone(), rest.clone()]) == seen[0]
    assert len(set(seen)) == len(seen) == 2 + len(bits) * len(places)


@pytest.mark.parametrize("function", [lambda t: hashed([t]), lambda t: activate_(t, "tanh")])
def test_memory_that_is_not_there_is_not_gone_through(function):
    numbers = torch.ones(40, 10)
    with pytest.raises(RuntimeError, match="must be contiguous, on the CPU"):
        function(numbers.t())
    numbers.untyped_storage().resize_(16)
    with pytest.raises(RuntimeError, match="reaches beyond its storage"):
        function(numbers)


def test_what_swaps_places_or_changes_signs_shows_in_a_hash():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 16, generator=generator)
    before = hashed([x])
    for _ in range(500):
        i, j = torch.randint(100, (2,), generator=generator).tolist()
        changed = x.clone()
        changed[[i, j]] = x[[j, i]] if i % 2 else -x[[i, j]]
        assert (hashed([changed]) == before) == torch.equal(changed, x)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 623, 624, 625, 1250, 50_000])
def test_rows_are_shuffled_as_by_pytorch(device, count):
    seeds = [0, 1, 2**32 - 1, 2**32, 2**62 + 5]
    rows = torch.arange(7, 7 + count).repeat(len(seeds), 1).to(device)
    shuffle_(rows, torch.tensor(seeds, device=device))
    for seed, shuffled in zip(seeds, rows.cpu(), strict=True):
        generator = torch.Generator().manual_seed(seed)
        assert torch.equal(shuffled - 7, torch.randperm(count, generator=generator))


@pytest.mark.parametrize(
    ("rows", "seeds", "message"),
    [
        (torch.zeros(3), torch.zeros(3), "rows must have 2 dimensions"),
        (torch.zeros(3, 4), torch.zeros(3).long(), "rows must be contiguous int64"),
        (torch.zeros(4, 3).long().t(), torch.zeros(3).long(), "rows must be contiguous int64"),
        (torch.zeros(3, 4).long(), torch.zeros(3), "seeds must be contiguous int64"),
        (
            torch.zeros(3, 4).long(),
            torch.zeros(4).long(),
            "seeds must have shape",
        ),
    ],
)
def test_rows_of_another_kind_are_not_shuffled(rows, seeds, message):
    with pytest.raises(RuntimeError, match=message):
        shuffle_(rows, seeds)


def test_rows_are_not_shuffled_by_themselves():
    rows = torch.arange(4).repeat(4, 1)
    with pytest.raises(RuntimeError, match="rows shares memory with seeds"):
        shuffle_(rows, rows[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_an_activation_comes_to_the_same_bits_wherever_a_number_lies(activation, dtype):
    numbers = torch.linspace(-9, 9, 101, dtype=dtype)
    alone = torch.cat([activate_(each.clone(), activation) for each in numbers.split(1)])
    assert torch.equal(activate_(numbers.clone(), activation), alone)
    assert torch.equal(activate_(numbers.repeat(1000), activation).view(1000, 101)[-1], alone)
    torch.testing.assert_close(alone, getattr(torch, activation)(numbers))


# ---- models side by side ----

MODELS = 5
SHARED = ("everything", "data", "nothing")


def several(shared, update="adam", dtype=torch.float32, network=((9, 6, 2), 40, 16)):
    """Arguments of train_ for models that share everything, just their data, or nothing."""
    jobs = [job(*network, dtype, update) for _ in range(MODELS)]
    generator = torch.Generator().manual_seed(1)

    def own(tensor, size=1.0):
        return tensor + size * torch.randn(tensor.shape, generator=generator).to(tensor)

    def stack(tensors):
        return torch.stack([own(tensor) for tensor in tensors])

    together = dict(jobs[0])
    for name in ("weights", "biases"):
        together[name] = [stack(each) for each in zip(*(j[name] for j in jobs), strict=True)]
    together["slots"] = [
        [torch.zeros(MODELS, *tensor.shape, dtype=dtype) for tensor in slot]
        for slot in jobs[0]["slots"]
    ]
    if shared != "everything":
        rates = torch.tensor(jobs[0]["learning_rates"], dtype=torch.float64)
        together["learning_rates"] = rates * torch.linspace(0.5, 1, MODELS).double()[:, None]
        decay = torch.linspace(0, 0.3, MODELS)
        together["options"] = OPTIONS | {"weight_decay": decay, "momentum": [0.9] * MODELS}
    if shared == "nothing":
        rows, order = together["x"], together["order"]
        together["x"] = stack([rows] * MODELS)
        together["y"] = torch.stack([together["y"].roll(i, 0) for i in range(MODELS)])
        together["order"] = torch.stack([order.roll(i) for i in range(MODELS)])
        together["sample_weight"] = stack([rows[:, 0]] * MODELS).abs()
    return together


def alone(together, i):
    """The arguments of one of them by itself, on copies."""
    one = vars(ops.Training(**together).of_model(i))
    return one | {name: clone(one[name]) for name in ("weights", "biases", "slots", "steps_done")}


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_large_layers_come_to_the_same_bits_by_any_number_of_threads(threads):
    """Also in a call that other networks would leave to one thread."""
    widths, _, batch_size = LARGE
    arguments = [job(widths, rows, batch_size, torch.float32) for rows in (batch_size, 900)]
    together = several("nothing", "adam", torch.float32, LARGE)
    arguments += [together, *(alone(together, i) for i in range(MODELS))]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = [run(ops.train_, each) for each in arguments]
        torch.set_num_threads(threads)
        found = [run(ops.train_, each) for each in arguments]
    finally:
        torch.set_num_threads(before)
    for ours, theirs in zip(found, expected, strict=True):
        assert all(map(torch.equal, ours, theirs))
    for ours, *each in zip(found[2][:-1], *(one[:-1] for one in found[3:]), strict=True):
        assert torch.equal(ours, torch.stack(each))


@pytest.mark.parametrize("tail", [1, 20, 64, 74])
@pytest.mark.parametrize("update", ["gradient_descent", "adam"])
def test_large_layers_come_to_the_same_bits_however_steps_are_cut_into_calls(update, tail):
    widths, _, batch_size = LARGE
    rows = 2 * batch_size + tail
    arguments = job(
        widths, rows, batch_size, torch.float32, update,
        steps=3, order=torch.arange(rows), epoch_size=rows, keep_predictions=False,
    )  # fmt: skip
    own = {k: clone(arguments[k]) for k in ("weights", "biases", "slots", "steps_done")}
    for step in range(3):
        part = slice(step * batch_size, (step + 1) * batch_size)
        cut = {
            "order": arguments["order"][part],
            "learning_rates": arguments["learning_rates"][step : step + 1],
            "steps_before": step,
        }
        call(ops.train_, arguments | own | cut)
    left = [*own["weights"], *own["biases"], *(t for slot in own["slots"] for t in slot)]
    assert all(map(torch.equal, run(ops.train_, arguments)[2:], left))


def test_large_layers_can_be_kept_from_the_library():
    arguments = job(*LARGE, torch.float32)
    by_library = run(ops.train_, arguments)
    tuning.set_products("ours")
    try:
        ours = run(ops.train_, arguments)
    finally:
        tuning.set_products("measured")
    assert not torch.equal(ours[2], by_library[2])
    for a, b in zip(ours, by_library, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("update", SLOTS)
@pytest.mark.parametrize("shared", SHARED)
def test_models_side_by_side_are_bit_for_bit_what_they_are_alone(shared, update, threads):
    together = several(shared, update)
    expected = [run(ops.train_, alone(together, i)) for i in range(MODELS)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = run(ops.train_, together)
    finally:
        torch.set_num_threads(before)
    for ours, *each in zip(found[:-1], *(e[:-1] for e in expected), strict=True):
        assert torch.equal(ours, torch.stack(each))
    assert all(found[-1] == e[-1] for e in expected)


@pytest.mark.parametrize("update", SLOTS)
@pytest.mark.parametrize("shared", SHARED)
def test_models_side_by_side_are_those_of_the_reference(shared, update):
    assert_same_training(several(shared, update, torch.float64))


def test_models_side_by_side_are_where_their_tensors_are():
    arguments = several("nothing")
    expected = run(ops.train_, arguments)
    with torch.device("meta"):
        found = run(ops.train_, arguments)
    assert all(map(torch.equal, found, expected))


def test_models_of_larger_networks_and_batches():
    for network in [((400, 25, 25, 1), 70, 32), ((30, 20, 1), 300, 290), ((64, 130, 2), 9, 1)]:
        together = several("nothing", "momentum", network=network)
        expected = [run(ops.train_, alone(together, i)) for i in range(MODELS)]
        for ours, *each in zip(
            run(ops.train_, together)[:-1], *(e[:-1] for e in expected), strict=True
        ):
            assert torch.equal(ours, torch.stack(each))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [0, 1, 40, 700])
@pytest.mark.parametrize("shared", [True, False])
def test_models_side_by_side_predict_what_each_does_alone(shared, rows, threads):
    together = several("nothing", network=((9, 40, 6, 2), 40, 16))
    x = torch.randn(MODELS, rows, 9)
    x = x[0] if shared else x
    network = together["activations"], together["weights"], together["biases"]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = ops.predict(x, *network)
    finally:
        torch.set_num_threads(before)
    assert found.shape == (MODELS, rows, 2)
    for i in range(MODELS):
        weights, biases = ([t[i] for t in each] for each in network[1:])
        own = x if shared else x[i]
        assert torch.equal(found[i], ops.predict(own, network[0], weights, biases))


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("x", lambda t: t.expand(MODELS - 1, *t.shape), "x must have 2 dimensions, or one more"),
        ("y", lambda t: t.expand(1, *t.shape), "y must have 2 dimensions, or one more"),
        ("order", lambda t: t.repeat(2, 1), "order must have 1 dimension, or one more"),
        ("weights", lambda ts: [ts[0], ts[1][:-1].clone()], "weight 1 must have shape"),
        ("weights", lambda ts: [t[:0].clone() for t in ts], "there must be at least one model"),
        ("biases", lambda ts: [ts[0], ts[1][0].clone()], "bias 1 must have shape"),
        ("options", lambda o: o | {"momentum": [0.9, 0.8]}, "options must have 1 dimension, "),
    ],
)
def test_parts_of_another_number_of_models_are_refused(name, wrong, message):
    together = several("everything")
    before = clone(together["weights"])
    with pytest.raises(RuntimeError, match=message):
        call(ops.train_, together | {name: wrong(together[name])})
    assert all(map(torch.equal, together["weights"], before))


# ---- memory ----


def beside(numbers, *tensors):
    """Copies of the tensors that lie one behind the other, each so many numbers into the last."""
    size = sum(t.numel() for t in tensors)
    buffer, placed, at = torch.zeros(size, dtype=tensors[0].dtype), [], 0
    for t in tensors:
        at -= numbers if placed else 0
        placed.append(buffer[at : at + t.numel()].view(t.shape).copy_(t))
        at += t.numel()
    return placed


def two(arguments, one, other, numbers):
    """The arguments with two of them in the same memory, as far as so many numbers."""
    places = {"x": ("x",), "y": ("y",), "sample_weight": ("sample_weight",), "order": ("order",)}
    places |= {"learning_rates": ("learning_rates",), "steps_done": ("steps_done",)}
    places |= {"weight 0": ("weights", 0), "weight 1": ("weights", 1), "bias 0": ("biases", 0)}
    places |= {"slot of bias 1": ("slots", 0, 3), "slot of weight 0": ("slots", 0, 0)}

    def at(path):
        value = arguments
        for key in path:
            value = value[key]
        return value

    pair = beside(numbers, at(places[one]), at(places[other]))
    for name, tensor in zip((one, other), pair, strict=True):
        at(places[name][:-1])[places[name][-1]] = tensor
    return arguments


SHARING = [
    ("weight 0", "weight 1"),
    ("weight 1", "x"),
    ("y", "weight 0"),
    ("bias 0", "weight 0"),
    ("sample_weight", "bias 0"),
    ("slot of weight 0", "weight 0"),
    ("slot of bias 1", "x"),
    ("learning_rates", "weight 0"),
    ("order", "steps_done"),
]


@pytest.mark.parametrize(("one", "other"), SHARING)
def test_what_training_changes_shares_no_memory(one, other):
    arguments = job((6, 5, 1), 20, 8, update="momentum", sample_weight=torch.ones(20).double())
    arguments["learning_rates"] = torch.full((3,), 0.1, dtype=torch.float64)
    call(ops.train_, two(copy(arguments), one, other, 0))  # side by side
    shared = two(copy(arguments), one, other, 1)
    before = copy(shared)
    with pytest.raises(RuntimeError) as raised:
        call(ops.train_, shared)
    named = re.fullmatch("(.*) shares memory with (.*), and would change it", str(raised.value))
    assert {*named.groups()} == {one, other}
    for name in ("weights", "biases", "order", "steps_done"):
        assert same(shared[name], before[name])


def copy(arguments):
    return {name: copied(value) for name, value in arguments.items()}


def copied(value):
    if isinstance(value, list):
        return [copied(each) for each in value]
    return value.clone() if isinstance(value, torch.Tensor) else value


def same(one, other):
    if isinstance(one, list):
        return all(map(same, one, other))
    return torch.equal(one, other)


def test_what_is_only_read_may_share_memory():
    x = torch.randn(12, 1, dtype=torch.float64)
    assert_same_training(job((1, 4, 1), 12, 4, x=x, y=x, sample_weight=x[:, 0]))


def test_a_tensor_whose_memory_was_taken_away_is_refused():
    arguments = job((6, 5, 1), 20, 8)
    arguments["weights"][1].untyped_storage().resize_(0)
    message = "^weight 1 reaches beyond its storage$"
    with pytest.raises(RuntimeError, match=message):
        call(ops.train_, arguments)
    with pytest.raises(RuntimeError, match=message):
        ops.predict(*(arguments[k] for k in ("x", "activations", "weights", "biases")))


def test_memory_that_is_not_there_is_an_error_that_says_how_much():
    weights = [torch.ones(4, 3)]
    for rows, amount in [(2**40, f"{2**44}"), (2**61, f"more than {2**63 - 1}")]:
        x = torch.ones(1, 3).expand(rows, 3)
        with pytest.raises(MemoryError, match=f"^out of memory: {amount} bytes were asked for$"):
            ops.predict(x, ["relu"], weights, [None])


@pytest.mark.parametrize("size", [2**63 - 1, 2**63, 10**30])
def test_sizes_beyond_all_numbers_are_whole_epochs(size):
    arguments = job((6, 5, 1), 20, 20)
    expected = run(ops.train_, arguments)
    huge = run(ops.train_, arguments | {"batch_size": size, "epoch_size": size})
    assert all(map(torch.equal, huge, expected))


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"learning_rates": [0.1]}, RuntimeError, "learning_rates must have .* of 3 steps, got 1"),
        (
            {"order": torch.zeros(0, dtype=torch.int64)},
            RuntimeError,
            "learning_rates must have one number for each of 0 steps, as of no samples, got 3",
        ),
        ({"x": [[1.0]]}, TypeError, "x must be a torch.Tensor, got list"),
        ({"weights": [None, None]}, TypeError, "each weight must be a torch.Tensor, got NoneType"),
        ({"biases": [None, 3]}, TypeError, "each bias must be a torch.Tensor, got int"),
        ({"order": [0, 1]}, TypeError, "order must be a torch.Tensor, got list"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be an integer, got 2.5"),
        ({"steps_done": 0}, TypeError, "steps_done must be a torch.Tensor, got int"),
        ({"steps_before": -1}, RuntimeError, r"steps_before must be from 0 to \d+, got -1"),
        (
            {"steps_done": torch.tensor([2**63 - 2])},
            RuntimeError,
            f"steps_done must be from 0 to {2**63 - 4}, got {2**63 - 2}",
        ),
        (
            {"x": torch.ones(20, 6, device="meta")},
            RuntimeError,
            "x must be on the CPU, or on a GPU, got meta",
        ),
        (
            {"y": torch.ones(20, 1, device="meta")},
            RuntimeError,
            "y must be on the device of x, cpu, got meta",
        ),
        ({"x": torch.ones(20, 7).double()}, RuntimeError, r"weight 0 must have shape \(5, 7\), .*"),
    ],
)
def test_errors_speak_of_the_argument_and_not_of_cpp(changes, kind, message):
    arguments = job((6, 5, 1), 20, 8) | changes
    with pytest.raises(kind, match=f"^{message}$"):
        call(ops.train_, arguments)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"x": [1.0]}, TypeError, "x must be a torch.Tensor, got list"),
        ({"x": torch.ones(2)}, RuntimeError, "x must have 2 dimensions, got 1"),
        ({"x": torch.ones(2, 3).half()}, RuntimeError, "x must be float32 or float64"),
        ({"weights": [torch.ones(4, 2)]}, RuntimeError, r"weight 0 must have shape \(4, 3\), .*"),
        ({"weights": [1]}, TypeError, "each weight must be a torch.Tensor, got int"),
        ({"activations": ["mish"]}, ValueError, "activation must be one of .*, got 'mish'"),
        ({"slopes": [0.1, 0.2]}, RuntimeError, "slopes must .* for each of 1 layers, .*"),
        ({"slopes": [float("inf")]}, RuntimeError, "slope 0 must be finite, got inf"),
        ({"slopes": [float("nan")]}, RuntimeError, "slope 0 must be finite, got nan"),
    ],
)
def test_errors_of_predict_speak_of_the_argument(changes, kind, message):
    network = {"activations": ["relu"], "weights": [torch.ones(4, 3)], "biases": [None]}
    with pytest.raises(kind, match=f"^{message}$"):
        ops.predict(**{"x": torch.ones(2, 3)} | network | changes)
