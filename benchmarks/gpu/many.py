"""train_many_: right numbers for every loss, rule and dtype, and its times beside JAX's vmap."""

import os
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from benchmarks.gpu import device, kit, rivals
from benchmarks.gpu.peers import RIVALS
from benchmarks.gpu.smoke import LIMITS
from benchmarks.gpu.training import CLASSES_LOSS, LOSS, OPTIONS, SLOTS, network_of, spread
from benchmarks.harness import timing
from torchnn import ops
from torchnn.ops import reference

# Several of each size, of other depths in shared memory, and one that has no unit to spare.
WIDTHS = [(13, 7, 5, 3), (13, 32, 1, 3), (13, 7, 5, 3), (13, 16, 25, 3)]
ROWS, BATCH, EPOCHS = 45, 14, 2
FEATURES = ("dropout", "penalties", "clip_norm", "global_clip_norm", "weights", "silu", "gelu")
ON_DEVICE = ("x", "y", "sample_weight", "orders", "learning_rates", "weights", "biases", "slots")
ON_DEVICE += ("validation_x", "validation_y", "validation_rows")
NETWORKS = ("digits", "2-16-16-1", "notes")
COUNTS = (4096, 1056, 132, 16384, 1, 16)
MODEL_STEPS = 4_000_000  # a call, of all models together
STEPS = 480  # at most
ROUNDS = 3


def moved(arguments: dict[str, object], where: str, dtype: torch.dtype) -> dict[str, object]:
    """The same with tensors of their own: what the kernels read on the device, in that dtype."""

    def own(name: str, value: object) -> object:
        if isinstance(value, list):
            return [own(name, each) for each in value]
        if not isinstance(value, torch.Tensor):
            return value
        is_float64 = name in ("learning_rates", "regularization", "input_dropout")
        kept = value.dtype if is_float64 or not value.is_floating_point() else dtype
        return value.to(where if name in ON_DEVICE else "cpu", kept, copy=True)

    return {name: own(name, value) for name, value in arguments.items()}


def mixed(loss: str, update: str, feature: str = "") -> dict[str, object]:
    """Models of mixed sizes in float64 on the CPU, with all of their own that they may have."""
    generator = torch.Generator().manual_seed(1)
    random = partial(torch.randn, generator=generator, dtype=torch.float64)
    models, layers = len(WIDTHS), len(WIDTHS[0]) - 1
    shapes = [pair for widths in WIDTHS for pair in pairwise(widths)]
    weights = [random(units, features) / features**0.5 for features, units in shapes]
    biases = [random(units) / 10 for _, units in shapes]
    y = random(models, ROWS, WIDTHS[0][-1])
    if loss in reference.TAKE_LABELS:
        y = torch.randint(3, (models, ROWS, 1), generator=generator).double()
    elif "hinge" in loss:
        y = y.sign()
    last = "softplus" if loss in ("poisson", "mean_squared_logarithmic_error") else "identity"
    hidden = feature if feature in ("silu", "gelu") else "sigmoid"
    steps = EPOCHS * -(-ROWS // BATCH)
    regularization = torch.zeros(models, layers, 5, dtype=torch.float64)
    if feature == "penalties":
        regularization[:, :, :4] = 0.01
    elif feature == "dropout":
        regularization[1:, :-1, 4] = 0.3
    parameters = [
        [p for i in range(layers) for p in (weights[m * layers + i], biases[m * layers + i])]
        for m in range(models)
    ]
    slots = [torch.zeros_like(p) for own in parameters for _ in range(SLOTS[update]) for p in own]
    clips = {feature: torch.linspace(0.02, 0.1, models)} if feature.endswith("clip_norm") else {}
    return {
        "x": random(ROWS, WIDTHS[0][0]),
        "y": y,
        "sample_weight": random(ROWS).abs() if feature == "weights" else None,
        "orders": torch.randint(ROWS, (2, ROWS * EPOCHS), generator=generator),
        "order_of": torch.arange(models) % 2,
        "epoch_size": ROWS,
        "batch_size": BATCH,
        "learning_rates": 0.01 + 0.01 * random(models, steps).abs(),
        "loss": loss,
        "update": update,
        "options": OPTIONS | clips,
        "steps_before": torch.arange(models),
        "activations": [hidden] * (layers - 1) + [last],
        "regularization": regularization,
        "seeds": torch.arange(models * (layers + 1)).reshape(models, -1),
        "input_dropout": torch.full((models,), 0.2 * (feature == "dropout"), dtype=torch.float64),
        "weights": weights,
        "biases": biases,
        "slots": slots,
        "validation_x": random(ROWS, WIDTHS[0][0]),
        "validation_y": y[0],
        "validation_rows": torch.randint(ROWS, (2, 37), generator=generator),
        "validation_of": torch.arange(models) % 2,
        "keep_predictions": True,
        "steps_done": torch.zeros(1, dtype=torch.int64),
    }


def results(train_many_: object, arguments: dict[str, object]) -> list[torch.Tensor]:
    """What training gives and leaves behind."""
    job = ops.Trials(**arguments)
    return [*train_many_(job), *job.weights, *job.biases, *job.slots]


def one_of(arguments: dict[str, object], m: int) -> dict[str, object]:
    """The same of one of the models."""
    own, models = dict(arguments), len(arguments["order_of"])
    for name in ("y", "order_of", "learning_rates", "steps_before", "regularization", "seeds"):
        own[name] = arguments[name][m : m + 1]
    for name in ("input_dropout", "validation_of"):
        own[name] = arguments[name][m : m + 1]
    for name in ("weights", "biases", "slots"):
        count = len(arguments[name]) // models
        own[name] = arguments[name][m * count : (m + 1) * count]
    own["options"] = {
        name: value[m : m + 1] if isinstance(value, torch.Tensor) else value
        for name, value in arguments["options"].items()
    }
    return own


def compare(where: str, dtype: str, loss: str, update: str, feature: str = "") -> kit.Row:
    """How far models are from PyTorch in float64, and whether each has the same bits alone."""
    arguments, own = mixed(loss, update, feature), getattr(torch, dtype)
    exact = results(reference.train_many_, moved(arguments, "cpu", torch.float64))
    ours = results(ops.train_many_, moved(arguments, where, own))
    off = max(
        ((one.double().cpu() - e).abs().max() / (1 + e.abs().max())).item()
        for one, e in zip(ours, exact, strict=True)
        if e.numel()
    )
    same = True
    for m in range(len(WIDTHS)) if loss == LOSS else ():
        alone = results(ops.train_many_, moved(one_of(arguments, m), where, own))
        same = same and all(torch.equal(alone[i][0], ours[i][m]) for i in range(4))
    return {"off_by": off, "same_bits": same, "fine": same and off < LIMITS[dtype]}


def cases(where: str) -> Iterator[kit.Row]:
    """Every loss with a rule, every rule with a loss, in each dtype; then what else there is."""
    few = where == "cpu"
    pairs = [(loss, update) for loss in ops.losses() for update in ops.updates()]
    for loss, update in pairs[:: 9 if few else 1]:
        for dtype in LIMITS:
            yield {"loss": loss, "update": update, "dtype": dtype}
    for feature in FEATURES:
        for dtype in LIMITS:
            yield {"loss": LOSS, "update": "momentum", "dtype": dtype, "feature": feature}


def many(network: str, models: int, epochs: int, where: str) -> ops.Trials:
    """Models of one network, with weights and learning rates of their own."""
    net = network_of(network, where)
    scales, rates = map(torch.from_numpy, spread(models))
    x, y = (torch.from_numpy(array).to(where, torch.float32) for array in net.data())
    pairs = [
        [torch.from_numpy(np.ascontiguousarray(array)).to(where) for array in (kernel.T, bias)]
        for kernel, bias in net.weights()
    ]

    def own(t: torch.Tensor) -> tuple[torch.Tensor, ...]:
        factors = scales.to(where, torch.float32).view(-1, *[1] * t.dim())
        return (factors * t).contiguous().unbind()

    layers = [[own(weight), own(bias)] for weight, bias in pairs]
    steps = net.steps * epochs
    return ops.Trials(
        x=x,
        y=y,
        sample_weight=None,
        orders=torch.arange(net.samples, device=where).repeat(epochs)[None],
        order_of=torch.zeros(models, dtype=torch.int64),
        epoch_size=net.samples,
        batch_size=net.batch_size,
        learning_rates=(rates[:, None] * net.learning_rate)
        .expand(-1, steps)
        .contiguous()
        .to(where),
        loss=CLASSES_LOSS if net.has_classes else LOSS,
        update="gradient_descent",
        options=OPTIONS,
        steps_before=torch.zeros(models, dtype=torch.int64),
        activations=["sigmoid"] * (len(pairs) - 1) + ["identity"],
        regularization=torch.zeros(0, dtype=torch.float64),
        seeds=torch.zeros(models, len(pairs) + 1, dtype=torch.int64),
        input_dropout=torch.zeros(models, dtype=torch.float64),
        weights=[layer[0][m] for m in range(models) for layer in layers],
        biases=[layer[1][m] for m in range(models) for layer in layers],
        slots=[],
        keep_predictions=False,
        steps_done=torch.zeros(1, dtype=torch.int64),
    )


def seconds(job: ops.Trials, where: str) -> float:
    """Of a call: the least of some, since the host does much of a short one."""
    taken = []
    for _ in range(ROUNDS + 1):  # the first warms up
        device.wait(where)
        begun = time.perf_counter()
        ops.train_many_(job)
        device.wait(where)
        taken.append(time.perf_counter() - begun)
    return min(taken[1:])


def time_many(network: str, models: int, where: str) -> kit.Row:
    """Microseconds a step of all models: of whole calls, without what a call costs, and JAX's."""
    net = network_of(network, where)
    most = max(2, min(STEPS, MODEL_STEPS // models) // net.steps) if where == "cuda" else 2
    few = max(1, most // 4)
    short, long = (seconds(many(network, models, n, where), where) for n in (few, most))
    us = long / (most * net.steps) * 1e6
    in_kernels = (long - short) / ((most - few) * net.steps) * 1e6
    row: kit.Row = {
        "us_a_step": us,
        "us_a_step_in_kernels": in_kernels,
        "million_model_steps_a_second": models / us,
        "million_in_kernels": models / in_kernels if in_kernels > 0 else None,
    }
    try:
        jax = RIVALS["JAX"](net, models, where)
    except ModuleNotFoundError as error:
        return row | {"rival": str(error)}
    rivals.seconds(jax, 1)  # compiles
    samples = [rivals.seconds(jax, most) / (most * net.steps) * 1e6 for _ in range(ROUNDS)]
    return row | {"jax": timing(samples), "ratio": timing(samples).median / us}


def times(where: str) -> Iterator[kit.Row]:
    counts, networks = (COUNTS, NETWORKS) if where == "cuda" else ((2,), ("tiny",))
    for models in counts:
        for network in networks:
            yield {"network": network, "models": models}


def main() -> None:
    options = kit.parse(kit.parser(__doc__, seconds=120))
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    rows = kit.Rows("many", options)
    rows.fill(cases(options.device), partial(compare, options.device))
    rows.fill(times(options.device), partial(time_many, where=options.device))
    raise SystemExit(rows.failed)


if __name__ == "__main__":
    main()
