"""torchnn.ops.train_many_ against its definition in plain PyTorch, and models against their
neighbours."""

from dataclasses import fields
from itertools import pairwise

import pytest
import torch

from tests.test_train_op import OPTIONS, SLOTS
from torchnn import ops
from torchnn.ops import _many, reference
from torchnn.ops._native import call
from torchnn.ops.reference import Stopping, StoppingState

SMALL = [(7, 5, 1), (7, 8, 1), (7, 3, 1), (7, 5, 1)]


def trials(
    widths, dtype=torch.float64, samples=23, batch_size=8, epochs=2, update="adam", **changes
):
    """Models of such widths, with data, orders, rates and seeds of their own."""
    generator = torch.Generator().manual_seed(3)
    models, layers, rows = len(widths), len(widths[0]) - 1, 31

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    weights = [random(o, i) / i**0.5 for own in widths for i, o in pairwise(own)]
    biases = [random(o) / 10 for own in widths for o in own[1:]]
    pairs = [p for pair in zip(weights, biases, strict=True) for p in pair]
    of_model = [pairs[2 * layers * m : 2 * layers * (m + 1)] for m in range(models)]
    slots = [torch.zeros_like(p) for own in of_model for _ in range(SLOTS[update]) for p in own]
    loss = changes.get("loss", "binary_crossentropy_from_logits")
    y = (random(rows, widths[0][-1]) > 0).to(dtype)
    if loss in reference.TAKE_LABELS:
        y = torch.randint(-1, widths[0][-1], (rows, 1), generator=generator).to(dtype)
    if "hinge" in loss:
        y = 2 * y - 1
    steps = epochs * -(-samples // batch_size)
    orders = torch.stack(
        [
            torch.cat([torch.randperm(rows, generator=generator)[:samples] for _ in range(epochs)])
            for _ in range(3)
        ]
    )
    arguments = {
        "x": random(rows, widths[0][0]),
        "y": y,
        "sample_weight": None,
        "orders": orders,
        "order_of": torch.arange(models) % 3,
        "epoch_size": samples,
        "batch_size": batch_size,
        "learning_rates": torch.rand(models, steps, generator=generator, dtype=torch.float64) / 10,
        "loss": loss,
        "update": update,
        "options": OPTIONS,
        "steps_before": torch.arange(models),
        "activations": ["sigmoid"] * (layers - 1) + ["identity"],
        "regularization": torch.zeros(0, dtype=torch.float64),
        "seeds": torch.arange(models * (layers + 1)).reshape(models, -1),
        "input_dropout": torch.zeros(models, dtype=torch.float64),
        "weights": weights,
        "biases": biases,
        "slots": slots,
        "keep_predictions": True,
        "steps_done": torch.zeros(1, dtype=torch.int64),
    }
    return arguments | changes


def copied(arguments, dtype=None):
    def copy(value):
        if isinstance(value, list):
            return [copy(each) for each in value]
        if not isinstance(value, torch.Tensor):
            return value
        is_number = value.dtype in (torch.float32, torch.float64) and dtype is not None
        return value.to(dtype, copy=True) if is_number else value.clone()

    of_float64 = ("learning_rates", "regularization", "input_dropout", "stopping", "stopping_state")
    return {
        name: value.clone() if name in of_float64 else copy(value)
        for name, value in arguments.items()
    }


def run(function, arguments):
    """What training gives and leaves behind, of each model."""
    job = ops.Trials(**arguments)
    results = function(job)
    models = job.models
    left = []
    for each in (job.weights, job.biases, job.slots):
        count = len(each) // models
        left.append([list(each[m * count : (m + 1) * count]) for m in range(models)])
    return [[*(r[m] for r in results), *(t for of in left for t in of[m])] for m in range(models)]


def assert_same(arguments, rtol=1e-10, atol=1e-11):
    exact = run(reference.train_many_, copied(arguments, torch.float64))
    ours = run(ops.train_many_, copied(arguments))
    for own, expected in zip(ours, exact, strict=True):
        for one, other in zip(own, expected, strict=True):
            if one is None:
                continue
            torch.testing.assert_close(one.to(other), other, rtol=rtol, atol=atol)


def chosen(arguments, models):
    """The same of some of the models alone."""
    count = len(arguments["activations"])
    slots = len(arguments["slots"]) // (len(arguments["weights"]) // count)
    own = dict(arguments)
    for name in ("order_of", "learning_rates", "steps_before", "seeds", "input_dropout"):
        own[name] = arguments[name][models].clone()
    for name in ("regularization", "validation_of"):
        if arguments.get(name) is not None and arguments[name].numel():
            own[name] = arguments[name][models].clone()
    for name, each in (("weights", count), ("biases", count), ("slots", slots)):
        own[name] = [t for m in models for t in arguments[name][m * each : (m + 1) * each]]
    return copied(own)


@pytest.mark.parametrize("update", reference.UPDATES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_rule(update, dtype):
    exact = dtype == torch.float64
    assert_same(
        trials(SMALL, dtype, update=update),
        **({} if exact else {"rtol": 2e-4, "atol": 2e-5}),
    )


@pytest.mark.parametrize("loss", reference.LOSSES)
def test_every_loss(loss):
    last = "softplus" if loss in ("poisson", "mean_squared_logarithmic_error") else "identity"
    widths = [(6, 5, 3), (6, 4, 3), (6, 9, 3)]
    assert_same(trials(widths, loss=loss, activations=["tanh", last]))


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_every_activation(activation):
    slopes = [0.3, -1.0] if activation in reference.SLOPED else ()
    widths = [(6, 5, 2), (6, 4, 2)]
    loss = "mean_squared_error"
    assert_same(trials(widths, loss=loss, activations=[activation] * 2, slopes=slopes))


def regularized(models, layers):
    generator = torch.Generator().manual_seed(5)
    numbers = torch.rand(models, layers, 5, generator=generator, dtype=torch.float64)
    return numbers * torch.tensor([0.01, 0.02, 0.005, 0.01, 0.6], dtype=torch.float64)


MANY = [(9, 1 + m % 7, 2 + m % 3, 2) for m in range(21)]
VALIDATION = {
    "validation_x": torch.randn(70, 9, generator=torch.Generator().manual_seed(4)).double(),
    "validation_y": torch.arange(140, dtype=torch.float64).reshape(70, 2) % 3 // 2,
}
CHANGES = {
    "penalties": {"regularization": regularized(21, 3) * torch.tensor([1, 1, 1, 1, 0])},
    "dropout": {"regularization": regularized(21, 3) * torch.tensor([0, 0, 0, 0, 1])},
    "inputs": {"input_dropout": torch.arange(21, dtype=torch.float64) % 4 / 5},
    "clip_value": {"options": OPTIONS | {"clip_value": torch.arange(21) % 3 / 100}},
    "clip_norm": {"options": OPTIONS | {"clip_norm": torch.arange(21) % 3 / 20}},
    "global_clip_norm": {"options": OPTIONS | {"global_clip_norm": torch.arange(21) % 3 / 20}},
    "momentum": {
        "update": "momentum",
        "options": OPTIONS | {"momentum": torch.arange(21) / 25, "weight_decay": 0.1},
    },
    "weights": {"sample_weight": torch.arange(31, dtype=torch.float64) / 15},
    "own weights": {
        "sample_weight": torch.rand(21, 31, generator=torch.Generator().manual_seed(1)).double()
    },
    "own targets": {
        "y": (torch.rand(21, 31, 2, generator=torch.Generator().manual_seed(1)) > 0.5).double()
    },
    "large batches": {"samples": 31, "batch_size": 31},
    "one order": {"order_of": torch.zeros(21, dtype=torch.int64)},
    "batches of several chunks": {"samples": 500, "batch_size": 210, "epochs": 1},
    "some without epsilon": {
        "update": "rmsprop",
        "options": OPTIONS | {"epsilon": torch.arange(21) % 2 * 1e-7},
    },
    "no epsilon": {"update": "rmsprop", "options": OPTIONS | {"epsilon": 0.0}},
    "validation": VALIDATION,
    "validation with penalties": {
        **VALIDATION,
        "regularization": regularized(21, 3),
        "validation_weight": torch.arange(70, dtype=torch.float64) / 50,
    },
    "validation of each": {
        "validation_x": VALIDATION["validation_x"],
        "validation_y": VALIDATION["validation_y"].expand(21, -1, -1).contiguous(),
        "validation_rows": torch.arange(120).reshape(3, 40) % 70,
        "validation_of": torch.arange(21) % 3,
    },
    "no biases": {"biases": None},
}


def changed(name, widths=MANY, dtype=torch.float64):
    change = dict(CHANGES[name])
    if change.get("samples", 0) > 31:
        generator = torch.Generator().manual_seed(2)
        change["orders"] = torch.randint(31, (3, change["samples"]), generator=generator)
    arguments = trials(widths, dtype, **change)
    if name == "no biases":
        arguments["biases"] = [None] * len(arguments["weights"])
        arguments["slots"] = [t if t.ndim == 2 else None for t in arguments["slots"]]
    return copied(arguments, dtype)


@pytest.mark.parametrize("name", CHANGES)
def test_every_option(name):
    assert_same(changed(name))


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_does_not_depend_on_its_neighbours(name, threads):
    arguments = changed(name, dtype=torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = run(ops.train_many_, copied(arguments))
        for models in ([3], [20, 4, 0], [*range(20, 2, -1)]):
            own = dict(arguments)
            for each in ("y", "sample_weight", "validation_y", "options"):
                if each not in own:
                    continue
                own[each] = of_models(own[each], each, models)
            apart = run(ops.train_many_, chosen(own, models))
            for place, m in enumerate(models):
                for one, other in zip(apart[place], together[m], strict=True):
                    assert one is other is None or torch.equal(one, other), (name, m)
    finally:
        torch.set_num_threads(before)


def of_models(value, name, models):
    if isinstance(value, dict):
        return {k: v[models] if isinstance(v, torch.Tensor) else v for k, v in value.items()}
    own = {"y": 3, "validation_y": 3, "sample_weight": 2}[name]
    return value[models].contiguous() if value is not None and value.ndim == own else value


def test_steps_may_be_cut_into_calls():
    arguments = trials(MANY, torch.float32, epochs=3)
    whole = run(ops.train_many_, copied(arguments))
    own = copied(arguments)
    for first, last in ((0, 1), (1, 3)):
        steps = slice(first * 3, last * 3)
        part = own | {
            "orders": own["orders"][:, first * 23 : last * 23].contiguous(),
            "learning_rates": own["learning_rates"][:, steps].contiguous(),
            "steps_before": own["steps_before"] + first * 3,
        }
        results = run(ops.train_many_, part)
    for one, other in zip(results, whole, strict=True):
        assert all(map(torch.equal, one[4:], other[4:]))


def test_wide_models_train_alone_and_are_validated():
    widths = [(300, 200, 1), (300, 7, 1), (300, 150, 1)]
    measured = {
        "validation_x": torch.randn(40, 300, dtype=torch.float64),
        "validation_y": torch.arange(40, dtype=torch.float64)[:, None] % 2,
        "regularization": regularized(3, 2),
    }
    for changes in (
        {},
        measured,
        measured | {"orders": torch.zeros(3, 0).long()},
    ):
        if "orders" in changes:
            changes["learning_rates"] = torch.zeros(3, 0, dtype=torch.float64)
        assert_same(trials(widths, **changes))


RULES = [
    Stopping(patience=1, of_validation=1),
    Stopping(patience=2, min_delta=0.01),
    Stopping(),
    Stopping(patience=0, of_validation=1, sign=-1),
    Stopping(patience=2, of_validation=1, min_delta=1e9, baseline=-1.0, start_from_epoch=1),
]


def stopping(widths, dtype, epochs=9, restores=True):
    """Models that end early, each by a rule of its own: of five, one never does."""
    arguments, models = trials(widths, dtype, epochs=epochs), range(len(widths))
    arguments["learning_rates"][:, 12:] *= -20  # their losses rise
    generator = torch.Generator().manual_seed(4)
    state = torch.tensor([StoppingState()] * len(models), dtype=torch.float64)
    state[:, 3] = torch.tensor(models)  # epochs before
    pairs = zip(arguments["weights"], arguments["biases"], strict=True)
    best = [torch.zeros_like(p) for pair in pairs for p in pair]
    best[2:4] = None, None
    return arguments | {
        "validation_x": torch.randn(40, widths[0][0], generator=generator).to(dtype),
        "validation_y": (torch.arange(40 * widths[0][-1]) % 3 // 2).reshape(40, -1).to(dtype),
        "stopping": torch.tensor([RULES[m % 5] for m in models], dtype=torch.float64),
        "stopping_state": state,
        "best": best if restores else (),
    }


def told(arguments, results):
    """What there is of each model: what it has come to, and of its epochs those that were trained;
    what is known of it; and what has been kept."""
    models = len(results)
    counts = (arguments["stopping_state"][:, 3] - torch.arange(models)).long().tolist()
    steps, size = arguments["learning_rates"].shape[1] // 9, arguments["epoch_size"]
    count = len(arguments["best"]) // models
    for m, (own, epochs) in enumerate(zip(results, counts, strict=True)):
        ends = (epochs * steps, epochs * size, epochs, epochs)
        parts = [each[:end] for each, end in zip(own, ends, strict=False)]
        yield [*parts, *own[4:], arguments["stopping_state"][m], *kept(arguments, m, count)]


def kept(arguments, m, count):
    return arguments["best"][m * count : (m + 1) * count]


@pytest.mark.parametrize("function", [ops.train_many_, reference.train_many_])
def test_the_tensors_say_where_not_the_default_device(function):
    for arguments in (changed("validation of each"), stopping(MANY, torch.float64)):
        expected, found = copied(arguments), copied(arguments)
        results = [run(function, expected)]
        with torch.device("meta"):
            results.append(run(function, found))
        for one, other in zip(*results, strict=True):
            assert all(
                a is b is None or torch.equal(a.nan_to_num(), b.nan_to_num())
                for a, b in zip(one[4:], other[4:], strict=True)
            )


WIDE = [(7, 60, 50, 1), (7, 5, 4, 1), (7, 70, 40, 1)]  # two go by themselves


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("widths", [MANY, WIDE])
@pytest.mark.parametrize("restores", [True, False])
def test_models_end_early(widths, dtype, restores):
    arguments = stopping(widths, dtype, restores=restores)
    exact, ours = copied(arguments, torch.float64), copied(arguments)
    expected, found = run(reference.train_many_, exact), run(ops.train_many_, ours)
    assert len(set(exact["stopping_state"][:, 3].tolist())) > 1
    assert set(exact["stopping_state"][:, 4].tolist()) == {0, 1}
    tolerance = {"rtol": 1e-8, "atol": 1e-9, "equal_nan": True}
    if dtype == torch.float32:
        tolerance |= {"rtol": 2e-3, "atol": 2e-4}
    for own, other in zip(told(ours, found), told(exact, expected), strict=True):
        for one, another in zip(own, other, strict=True):
            if one is not None:
                torch.testing.assert_close(one.double(), another, **tolerance)


@pytest.mark.parametrize("widths", [MANY, WIDE])
def test_models_that_end_early_do_not_depend_on_neighbours_or_calls(widths):
    arguments = stopping(widths, torch.float32)
    together = copied(arguments)
    expected = list(told(together, run(ops.train_many_, together)))
    count = len(arguments["best"]) // len(widths)
    for m in range(len(widths)):
        own = chosen(arguments, [m])
        own |= {name: arguments[name][[m]] for name in ("stopping", "stopping_state")}
        own["best"] = copied({"best": kept(arguments, m, count)})["best"]
        steps, size = own["learning_rates"].shape[1] // 9, own["epoch_size"]
        for first, last in ((0, 1), (1, 4), (4, 9)):
            part = own | {
                "orders": own["orders"][:, first * size : last * size].contiguous(),
                "learning_rates": own["learning_rates"][:, first * steps : last * steps],
                "steps_before": own["steps_before"] + first * steps,
            }
            part["learning_rates"] = part["learning_rates"].contiguous()
            results = run(ops.train_many_, part)
        left = [*results[0][4:], own["stopping_state"][0], *own["best"]]
        for one, other in zip(left, expected[m][4:], strict=True):
            assert one is other is None or torch.equal(one.nan_to_num(), other.nan_to_num())


def test_losses_that_are_subnormal_do_not_depend_on_threads():
    widths = [(300, 10, 1)]
    arguments = trials(
        widths,
        torch.float32,
        loss="mean_squared_error",
        validation_x=torch.zeros(9, 300),
        validation_y=torch.full((9, 1), 1e-20),  # whose squares are subnormal
        orders=torch.zeros(3, 0).long(),
        learning_rates=torch.zeros(1, 0, dtype=torch.float64),
    )
    arguments["biases"] = [torch.zeros(10), torch.zeros(1)]
    arguments["weights"][1].zero_()
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert run(ops.train_many_, copied(arguments))[0][2].tolist() == [[0.0, 0.0]]
    finally:
        torch.set_num_threads(before)


def test_bad_arguments_change_nothing():
    arguments = trials(SMALL)
    before = copied(arguments)
    bad = [
        ("order_of", torch.tensor([0, 1, 3, 0]), r"order_of\[2\] is 3, of 3 in orders"),
        ("orders", torch.full((3, 46), 31), r"^orders\[0, 0\] is 31, of 31 rows"),
        ("y", torch.zeros(30, 1, dtype=torch.float64), r"y must be .* of shape \(31, 1\)"),
        ("learning_rates", torch.zeros(4, 5, dtype=torch.float64), r"shape \(4, 6\), got \(4, 5\)"),
        ("seeds", torch.zeros(4, 2, dtype=torch.int64), r"seeds must have shape \(4, 3\)"),
        ("options", OPTIONS | {"delta": torch.tensor([1, 1, 2, 1])}, "the same delta"),
        (
            "validation_of",
            torch.zeros(4, dtype=torch.int64),
            "validation_rows and validation_weight need validation_x",
        ),
        (
            "weights",
            [*arguments["weights"][:-1], arguments["weights"][1]],
            "weight 1 shares memory with weight 1",
        ),
        ("input_dropout", torch.ones(4, dtype=torch.float64), "^input_dropout must be at least 0"),
        ("activations", [], "^there must be a weight and a bias for each layer of each model"),
        ("batch_size", 0, "batch_size must be positive, got 0"),
    ]
    for name, value, message in bad:
        with pytest.raises(RuntimeError, match=message):
            ops.train_many_(ops.Trials(**(arguments | {name: value})))
    for name in ("weights", "biases", "slots"):
        assert all(map(torch.equal, arguments[name], before[name]))
    assert arguments["steps_done"] == 0


def test_row_numbers_of_the_validation_are_called_so():
    arguments = trials(SMALL, validation_x=torch.zeros(5, 7, dtype=torch.float64))
    arguments |= {"validation_y": torch.zeros(5, 1, dtype=torch.float64)}
    arguments |= {"validation_of": torch.zeros(4, dtype=torch.int64)}
    for rows, message in (
        (torch.tensor([[0, 5]]), r"^validation_rows\[0, 1\] is 5, of 5 rows"),
        (torch.tensor([0, 1]), "^validation_rows must have 2 dimensions"),
    ):
        with pytest.raises(RuntimeError, match=message):
            ops.train_many_(ops.Trials(**(arguments | {"validation_rows": rows})))


@pytest.mark.parametrize(
    "name", ["order_of", "validation_of", "stopping", "options", "steps_before", "seeds", "slopes"]
)
def test_nothing_is_read_from_a_storage_that_has_been_cut(name):
    arguments = trials(SMALL, validation_x=torch.zeros(5, 7, dtype=torch.float64))
    arguments |= {
        "validation_y": torch.zeros(5, 1, dtype=torch.float64),
        "validation_rows": torch.zeros(1, 2, dtype=torch.int64),
        "validation_of": torch.zeros(4, dtype=torch.int64),
        "stopping": torch.ones(4, 6, dtype=torch.float64),
        "stopping_state": torch.zeros(4, 5, dtype=torch.float64),
    }
    own = _many._as_native(ops.Trials(**arguments))
    place = [field.name for field in fields(ops.Trials)].index(name)
    if name == "slopes":
        own[place] = torch.zeros(len(arguments["activations"]), dtype=torch.float64)
    own[place].untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match=f"{name} reaches beyond its storage"):
        call(_many._train_many, *own)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("epoch_size", "a", TypeError, "epoch_size must be an integer, got 'a'"),
        ("options", None, TypeError, "options must be a dict of numbers, got None"),
        (
            "options",
            {"momentum": [0.1, 0.2]},
            ValueError,
            r"options\['momentum'\] must be a number",
        ),
    ],
)
def test_arguments_of_another_kind_are_named(name, value, error, message):
    with pytest.raises(error, match=message):
        ops.train_many_(ops.Trials(**(trials(SMALL) | {name: value})))
