"""Hostile calls of the operators: a good call, of which up to three arguments are made bad.

Either the call is refused, by an error that speaks of its arguments, and has changed nothing; or
what it gives is what reference.py gives, and nothing around the memory it writes has changed.
"""

import random
import re
import sys
from itertools import pairwise

import torch

from tests.fuzz.memory import Watch, overlaps
from torchnn import ops
from torchnn.ops import reference
from torchnn.ops._network import _as_native

SLOTS = [0, 1, 1, 2, 1, 2, 2, 1]  # of each update rule
KINKED = ("absolute", "hinge", "logarithmic")  # in the names of losses
EXTREMES = [0, -1, 1, 2, 3, 7, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63)]
CLEAN = (
    AttributeError,
    IndexError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
# What no error of a public function may contain.
RAW = re.compile(r"csrc/|\.(cpp|h):\d+|INTERNAL ASSERT|std::|API call failed")


# ---- good calls: the function, its arguments by name, and those that it writes ----


def numbers(rng, *shape, dtype):
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def network(rng, dtype, models=None):
    """Widths, and weights and biases of them."""
    lead = () if models is None else (models,)
    widths = [rng.choice([1, 2, 3, 5, 8, 13, 17, 33]) for _ in range(rng.randint(2, 4))]
    if rng.random() < 0.05:
        widths[0] = rng.choice([64, 200, 400])
    weights = [numbers(rng, *lead, o, i, dtype=dtype) / i**0.5 for i, o in pairwise(widths)]
    biases = [numbers(rng, *lead, o, dtype=dtype) / 10 for o in widths[1:]]
    return widths, weights, [None if rng.random() < 0.2 else b for b in biases]


def training(rng):
    dtype = rng.choice([torch.float32, torch.float64, torch.float64])
    models = rng.choice([None, None, None, 1, 2, 3])
    lead = () if models is None else (models,)
    widths, weights, biases = network(rng, dtype, models)
    rows = rng.choice([0, 1, 2, 3, 5, 9, 20, 40] + [300] * (rng.random() < 0.05))
    samples = rng.choice([rows, rng.randint(0, 20)]) if rows else 0
    epoch_size, batch_size = rng.randint(1, samples + 2), rng.randint(1, samples + 2)
    in_order = rng.random() < 0.4
    order = None if in_order else torch.tensor([rng.randrange(rows) for _ in range(samples)]).long()
    samples = rows if in_order else samples
    batches = [b for e in torch.arange(samples).split(epoch_size) for b in e.split(batch_size)]
    steps = len(batches) if samples else 0
    # A sign or a kink of theirs may fall to either side in float32.
    smooth = dtype == torch.float32
    update = rng.randrange(len(SLOTS))
    parameters = [p for pair in zip(weights, biases, strict=True) for p in pair]

    def shared(*shape):
        return (*lead, *shape) if rng.random() < 0.3 else shape

    def activation():
        kinked = ("relu", "leaky_relu", "selu")
        return rng.choice([a for a in ops.activations() if not (smooth and a in kinked)])

    def penalty():
        return rng.choice([0.0, 0.0, 0.1]), rng.choice([0.0, 0.0, 0.1])

    def regularization():
        l1_and_l2 = penalty() + penalty()
        smoothed = (0.0, l1_and_l2[1], 0.0, l1_and_l2[3]) if smooth else l1_and_l2
        return (*smoothed, rng.choice([0.0, 0.0, 0.5]))

    losses = [n for n in ops.losses() if not (smooth and any(k in n for k in KINKED))]
    loss = rng.choice(losses)
    y = numbers(rng, *shared(rows, widths[-1]), dtype=dtype).sigmoid()
    if loss in reference.TAKE_LABELS:
        y = torch.tensor([rng.randrange(-1, widths[-1]) for _ in range(rows)]).to(dtype)[:, None]
    arguments = {
        "x": numbers(rng, *shared(rows, widths[0]), dtype=dtype),
        "y": y,
        "sample_weight": rng.choice([None, numbers(rng, *shared(rows), dtype=dtype).abs()]),
        "order": order,
        "epoch_size": epoch_size,
        "batch_size": batch_size,
        "learning_rates": numbers(rng, *shared(steps), dtype=torch.float64).abs() / 30,
        "loss": loss,
        "update": ops.updates()[update],
        "options": {
            "momentum": 0.5,
            "beta_1": 0.9,
            "beta_2": 0.99,
            "epsilon": 1e-3,
            "rho": 0.9,
            **rng.choice([{}, {}, {"clip_value": 0.1}, {"clip_norm": 0.1}]),
            **rng.choice([{}, {"global_clip_norm": 0.1}]),
            "delta": 0.5,
        },
        "steps_before": rng.choice([0, 0, 5, torch.tensor([3])]),
        "activations": [activation() for _ in weights],
        "slopes": () if smooth else slopes(rng, weights),
        "regularization": rng.choice([(), [regularization() for _ in weights]]),
        "seeds": rng.choice([(), [rng.randrange(-(2**63), 2**63) for _ in weights]]),
        "input_dropout": rng.choice([0.0, 0.0, 0.3]),
        "input_seed": rng.randrange(-(2**63), 2**63),
        "weights": weights,
        "biases": biases,
        "slots": [
            [None if p is None else p.abs() / 100 for p in parameters] for _ in range(SLOTS[update])
        ],
        "snapshots": (),
        "keep_predictions": rng.random() < 0.5,
        "steps_done": torch.tensor([rng.choice([0, 4])]),
    }
    if models is None and samples and samples % epoch_size == 0 and rng.random() < 0.7:
        epochs = samples // epoch_size
        arguments["snapshots"] = [
            [None if t is None else t.new_zeros(epochs, *t.shape) for t in each]
            for each in (parameters, *arguments["slots"])
        ]
    if rng.random() < 0.2:
        arguments["options"] = dict(rng.sample([*arguments["options"].items()], 2)) | {
            "delta": 0.5,
            "weight_decay": numbers(rng, *lead, dtype=torch.float64).abs() / 10,
            "epsilon": 1e-3,
        }
    return arguments


def prediction(rng):
    dtype = rng.choice([torch.float32, torch.float64])
    models = rng.choice([None, None, 1, 3])
    widths, weights, biases = network(rng, dtype, models)
    rows = rng.choice([0, 1, 2, 7, 65] + [2000] * (rng.random() < 0.02))
    lead = (models,) if models and rng.random() < 0.5 else ()
    return {
        "x": numbers(rng, *lead, rows, widths[0], dtype=dtype),
        "activations": [rng.choice(ops.activations()) for _ in weights],
        "weights": weights,
        "biases": biases,
        "slopes": slopes(rng, weights),
    }


def slopes(rng, weights):
    return rng.choice([(), [rng.choice([-1.0, 0.0, 0.3, 2.0]) for _ in weights]])


def layer(rng):
    dtype = rng.choice([torch.float32, torch.float64])
    lead = [rng.choice([0, 1, 2, 7, 20]) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
    in_features, units = (rng.choice([0, 1, 3, 8, 17, 33, 100]) for _ in range(2))
    return {
        "x": numbers(rng, *lead, in_features, dtype=dtype),
        "weight": numbers(rng, units, in_features, dtype=dtype),
        "bias": rng.choice([None, numbers(rng, units, dtype=dtype)]),
        "activation": rng.choice([None, *ops.activations()]),
    }


def backward(rng):
    """Of dense_backward, whose arguments its schema names."""
    arguments = layer(rng)
    out = reference.dense(**arguments)
    made = arguments | {"out": out, "grad_out": numbers(rng, *out.shape, dtype=out.dtype)}
    place = ops.activations().index(arguments["activation"] or "identity")
    wanted = {
        a.name: str(a.type) for a in torch.ops.torchnn.dense_backward.default._schema.arguments
    }
    made |= {name: rng.random() < 0.7 for name, kind in wanted.items() if kind == "bool"}
    return {name: place if name == "activation" else made[name] for name in wanted}


def plan(rng):
    def size(most):
        return rng.choice([rng.randint(1, 300), 2 ** rng.randint(0, most), *EXTREMES])

    return {
        "widths": [size(40) for _ in range(rng.choice([0, 1, 2, 3, 5, 70]))],
        "dtype": rng.choice([torch.float32, torch.float64, torch.float16]),
        "batch_size": size(64),
        "shared_bytes": rng.choice([227 << 10, 99 << 10, size(64)]),
        "blocks": rng.choice([1, 8, 8, size(5)]),
    }


# ---- what makes them bad ----


def another_dtype(rng, t, others):
    kinds = "float32 float64 int64 int32 bool uint8 complex64 bfloat16 float16"
    return t.to(getattr(torch, rng.choice(kinds.split())))


def another_rank(rng, t, others):
    changed = [t[None], t.reshape(-1), t[..., None], t.squeeze(), t.flatten()[:1].squeeze()]
    return rng.choice(changed + ([t[0]] if t.dim() and len(t) else []))


def another_size(rng, t, others):
    if t.dim() == 0:
        return t.repeat(rng.randint(0, 3))
    dim = rng.randrange(t.dim())
    cut = [t.narrow(dim, 0, n).clone() for n in {0, t.shape[dim] // 2, max(0, t.shape[dim] - 1)}]
    return rng.choice([*cut, torch.cat([t, t], dim)])


def another_stride(rng, t, others):
    """The same numbers for most of these, and they must be read as such."""
    if t.dim() == 0:
        return t.expand(rng.choice([1, 3, 2**40, 2**62]))
    transposed = t.transpose(0, -1).contiguous().transpose(0, -1)
    doubled = t.repeat_interleave(2, -1)[..., ::2]
    padded = torch.nn.functional.pad(t.float(), (1, 2)).to(t.dtype)[..., 1:-2]
    spread = t[:1].expand(t.shape) if len(t) else t
    huge = t[:1].expand(rng.choice([2**33, 2**40, 2**62]), *t.shape[1:])
    flat = t.reshape(-1)
    shape = [min(n, 3) for n in t.shape]
    overlapping = t
    if flat.numel() > sum(shape):
        overlapping = flat.as_strided(shape, [1] * t.dim())
    return rng.choice([transposed, doubled, padded, spread, huge, overlapping])


def other_numbers(rng, t, others):
    t = t.clone()
    if t.numel():
        at = rng.randrange(t.numel())
        if t.is_floating_point():
            t.view(-1)[at] = rng.choice([torch.nan, torch.inf, -torch.inf, 1e300, 1e-310, 0.0])
        elif t.dtype == torch.int64:
            t.view(-1)[at] = rng.choice(EXTREMES)
    return t


def of_another(rng, t, others):
    """Memory of another argument, or a part of it."""
    if not others:
        return t
    other = rng.choice(others)
    if rng.random() < 0.3:
        return other
    flat = other.detach().reshape(-1)
    if flat.data_ptr() != other.data_ptr() or flat.element_size() != t.element_size():
        return other
    flat = flat.view(t.dtype) if flat.numel() else flat
    size, offset = t.numel(), rng.randrange(max(1, flat.numel() - t.numel() + 1))
    part = flat[offset : offset + size]
    return part.view(t.shape) if part.numel() == size else part


def of_another_kind(rng, t, others):
    made = [
        None,
        t.tolist(),
        1,
        "x",
        t.to("meta"),
        torch.nn.Parameter(t) if t.is_floating_point() else t,
    ]
    if t.dim() == 2 and t.is_floating_point():
        made += [
            t.to_sparse(),
            t._neg_view(),
            torch.ops.aten._efficientzerotensor(t.shape, dtype=t.dtype),
        ]
    return rng.choice(made)


def without_memory(rng, t, others):
    """As modules that come in shards leave it."""
    t = t.clone()
    t.untyped_storage().resize_(0)
    return t


def has_no_memory(t):
    return t.layout == torch.strided and t.numel() > 0 and t.untyped_storage().nbytes() == 0


def same(rng, t, others):
    return t


TENSOR = [
    another_dtype,
    another_rank,
    another_size,
    another_stride,
    other_numbers,
    of_another,
    of_another,
    of_another_kind,
    without_memory,
    same,
]


def bad_tensor(rng, t, others):
    if has_no_memory(t) or t._is_zerotensor():  # by now; PyTorch's own functions die of it
        return t
    try:
        return rng.choice(TENSOR)(rng, t, others)
    except (IndexError, MemoryError, RuntimeError, ValueError):  # PyTorch refuses to make one
        return t


def bad_list(rng, values, others):
    """Another length, or another element."""
    values = list(values)
    kind = rng.randrange(8)
    if kind == 0 or not values:
        return rng.choice([[], None, [[]], [None], values])
    if kind == 1:
        return values[:-1]
    if kind == 2:
        return [*values, values[-1]]
    at = rng.randrange(len(values))
    values[at] = bad(rng, values[at], others)
    return values


def bad(rng, value, others):
    if isinstance(value, torch.Tensor):
        return bad_tensor(rng, value, others)
    if isinstance(value, dict):
        number = rng.choice([None, "a", torch.nan, [1, 2]])
        return rng.choice([{}, None, value | {"momentum": number}, value | {"none": 1}, value])
    if isinstance(value, (list, tuple)):
        return bad_list(rng, value, others)
    if isinstance(value, bool):
        return rng.choice([True, False, 2, None])
    if isinstance(value, int):
        return rng.choice([*EXTREMES, 2**64, -(2**70), 1.5, None, "1", True])
    if isinstance(value, str):
        return rng.choice(["", "relu", "adam", "mean_squared_error", None, 0, value])
    return rng.choice([None, torch.ones(3), torch.zeros(0), 1, value])


# ---- whole cases ----


def tensors_of(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from tensors_of(each)
    elif isinstance(value, dict):
        yield from tensors_of([*value.values()])


def placed(value, watch):
    """The same in watched memory."""
    if isinstance(value, torch.Tensor):
        return watch.place(value)
    if isinstance(value, list):
        return [placed(each, watch) for each in value]
    return value


def copied(value):
    """A copy in float64 that shares no memory, for the reference; none of what has no end."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        if value.numel() > 2**24 or has_no_memory(value):
            return None
        return value.double().clone() if value.is_floating_point() else value.clone()
    if isinstance(value, (list, tuple)):
        return [copied(each) for each in value]
    return value


def native(name):
    return getattr(torch.ops.torchnn, name)


def call_training(a):
    results = ops.train_(**a)
    return [*results, *tensors_of([a[name] for name in WRITTEN])]


def expect_training(a):
    sizes = {name: min(int(a[name]), 2**62) for name in ("epoch_size", "batch_size")}
    results = reference.train_(**(a | sizes))
    return [*results, *tensors_of([a[name] for name in WRITTEN])]


def call_native_training(a):
    return [*native("train_")(*a.values())]


def call_backward(a):
    return [*native("dense_backward")(*a.values())]


WRITTEN = ("weights", "biases", "slots", "snapshots", "steps_done")
# name: how often, a good call, what calls it, what it should give, whether users call it
CALLS = {
    "train_": (6, training, call_training, expect_training, True),
    "native train_": (4, training, call_native_training, None, False),
    "predict": (
        3,
        prediction,
        lambda a: [ops.predict(**a)],
        lambda a: [reference.predict(**a)],
        True,
    ),
    "dense": (3, layer, lambda a: [ops.dense(**a)], lambda a: [reference.dense(**a)], True),
    "native dense": (2, layer, lambda a: [native("dense_forward")(*a.values())], None, False),
    "native dense_backward": (2, backward, call_backward, None, False),
    "cuda_plan": (1, plan, lambda a: [*ops.cuda_plan(**a)] and [], lambda a: [], True),
}


def made(seed):
    """The name and the arguments of the call that a seed stands for, and its watch."""
    rng = random.Random(seed)
    name = rng.choices([*CALLS], [entry[0] for entry in CALLS.values()])[0]
    arguments = CALLS[name][1](rng)
    watch = Watch(rng)
    arguments = {key: placed(value, watch) for key, value in arguments.items()}
    if name == "native train_":
        job = ops.Training(**arguments)
        names = [a.name for a in native("train_").default._schema.arguments]
        arguments = dict(zip(names, _as_native(job), strict=True))
    if name == "native dense":
        place = ops.activations().index(arguments["activation"] or "identity")
        arguments["activation"] = place
    for i in range(rng.choice([0, 1, 1, 1, 2, 3])):
        key = rng.choice([*arguments])
        changed = bad(rng, arguments[key], [*tensors_of(arguments)])
        # A single layer takes memory for granted, as PyTorch's own do, and its messages too, in
        # which it prints what is of a wrong kind.
        if not any(map(has_no_memory, tensors_of(changed))):
            arguments[key] = changed
        elif i == 0 and "dense" not in name:
            arguments[key] = changed
            break
    return name, arguments, watch


def check(seed):
    """Runs one case, and raises if anything is not as it should be."""
    name, arguments, watch = made(seed)
    _, _, call, expect, is_public = CALLS[name]
    before = {key: copied(value) for key, value in arguments.items()} if expect else None
    shares_memory = "train_" in name and overlaps(*written_and_read(arguments))
    try:
        found = call(arguments)
    except CLEAN as error:
        watch.assert_unchanged(margins_only=False)
        if is_public and RAW.search(str(error)) and not isinstance(error, NotImplementedError):
            raise AssertionError("a raw message") from error
        return "refused"
    watch.assert_unchanged(margins_only=True)
    assert not shares_memory, "shared memory was not refused"
    if expect is None:
        return "done"
    return compare(found, expect, before)


def written_and_read(arguments):
    """The tensors of a training, less the slots if some are of a bias that is not there."""
    biases = arguments["biases"]
    has_all = isinstance(biases, list) and all(
        isinstance(b, torch.Tensor) and b.numel() for b in biases
    )
    written = [key for key in WRITTEN if has_all or key not in ("slots", "snapshots")]
    read = [key for key in arguments if key not in WRITTEN and not is_copied(arguments, key)]
    return [[*tensors_of([arguments[key] for key in keys])] for keys in (written, read)]


def is_copied(arguments, key):
    """Whether the operator is given a copy of an argument of the public function."""
    value = arguments[key]
    is_float64 = isinstance(value, torch.Tensor) and value.dtype == torch.float64
    converted = key in ("learning_rates", "regularization", "slopes") and not is_float64
    return isinstance(value, dict) or converted or key == "seeds"  # numbers for the operator


def compare(found, expect, before):
    try:
        expected = expect(before)
    except Exception:  # the reference is for calls that are good
        return "done"
    if any(t.is_meta or t.layout != torch.strided for t in expected):  # both are PyTorch's own
        return "done"
    rates = before.get("learning_rates")
    large = isinstance(rates, torch.Tensor) and rates.is_floating_point() and (rates > 0.5).any()
    if large and found[0].dtype == torch.float32:
        return "done"  # a rate in the memory of something else makes much of every rounding
    # How far a NaN gets, and what overflows in float32, is the kernels' affair.
    is_moderate = all((t.abs() < 1e6).all() for t in expected if t.is_floating_point())
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape, f"shape {one.shape} and not {other.shape}"
        if is_moderate and other.numel():
            bound = {torch.float64: 1e-7, torch.float32: 2e-3}.get(one.dtype, 3e-2)
            error = (one.to(other) - other).abs() / (1 + other.abs())
            assert (error <= bound).all(), f"off by {error.max():.2g}"
    return "compared"


def describe(seed):
    """The call of a case, for whoever repeats it."""
    name, arguments, _ = made(seed)
    lines = [f"{name}:"]
    for key, value in arguments.items():
        lines.append(f"  {key} = {show(value)}")
    return "\n".join(lines)


def show(value):
    if isinstance(value, torch.Tensor):
        where = f"strides {value.stride()}" if value.layout == torch.strided else value.layout
        return f"{value.dtype} {tuple(value.shape)} {where} on {value.device}"
    if isinstance(value, list):
        return "[" + ", ".join(map(show, value)) + "]"
    return repr(value)


if __name__ == "__main__":
    print(describe(sys.argv[1]))
