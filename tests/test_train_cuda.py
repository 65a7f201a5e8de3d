"""Training on CUDA: how it is planned and described everywhere; on a GPU, the same as on the CPU.

The kernels without a GPU are in tests/test_simt.py.
"""

import signal
import threading
from importlib import util

import numpy as np
import pytest
import torch
from test_train_op import OPTIONS, SLOTS, call, cast, clone, job

from torchnn import Sequential, ops, optimizers
from torchnn._engine import choice, graphs, recipe
from torchnn._engine.plan import describe_on_cuda
from torchnn.layers import Dense
from torchnn.ops import reference
from torchnn.ops._network import only_by_layers
from torchnn.utils import set_random_seed

HOPPER = 227 << 10  # bytes of shared memory

built = pytest.mark.skipif(
    util.find_spec("torchnn._cuda") is None, reason="built without CUDA kernels"
)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@built
def test_a_small_network_trains_in_one_launch_unless_its_batches_are_large():
    widths = [400, 25, 25, 1]
    rows, size, most_rows, blocks = ops.cuda_plan(widths, torch.float32, 32, HOPPER)
    assert (rows, blocks) == (32, 1)
    assert 32 < most_rows < 1000
    # two chunks of 32 rows of x, 404 apart, and the first weight of 25 such rows, at the least
    assert 4 * (2 * 32 * 404 + 25 * 404) < size <= HOPPER
    assert ops.cuda_plan(widths, torch.float32, most_rows, HOPPER)[0] > 0
    assert ops.cuda_plan(widths, torch.float32, most_rows + 1, HOPPER)[0] == 0
    assert describe_on_cuda(widths, torch.float32, HOPPER) == (
        "fused (many steps in one launch: with batch_size=32 the network takes 217 of 227 KB of "
        f"shared memory; layer by layer in CUDA graphs above batch_size={most_rows})"
    )


@built
def test_a_network_that_does_not_fit_trains_layer_by_layer_and_says_why():
    rows, size, most_rows, _ = ops.cuda_plan((784, 512, 512, 1), torch.float32, 1, HOPPER)
    assert (rows, most_rows) == (0, 0)
    assert size > 4 * (784 * 512 + 512 * 512)
    text = describe_on_cuda([784, 512, 512, 1], torch.float32, HOPPER)
    assert text.startswith("fused (layer by layer in CUDA graphs, since one launch of many steps ")
    assert text.endswith(f" would take {size / 1024:,.0f} of 227 KB of shared memory)")
    assert "far more of 227 KB" in describe_on_cuda([10**9, 1], torch.float32, HOPPER)


@built
def test_less_shared_memory_takes_fewer_rows_at_once():
    limits = [k << 10 for k in (227, 163, 99)]
    plans = [ops.cuda_plan((400, 25, 25, 1), torch.float32, 32, limit) for limit in limits]
    rows = [plan.rows for plan in plans]
    assert rows == sorted(rows, reverse=True)
    assert rows[0] > rows[-1] > 0
    assert all(plan.size <= limit for plan, limit in zip(plans, limits, strict=True))


@built
def test_several_blocks_take_a_network_together_that_has_a_wide_first_layer():
    alone, together = (
        ops.cuda_plan((400, 25, 25, 1), torch.float32, 32, HOPPER, blocks) for blocks in (1, 8)
    )
    assert (alone.blocks, together.blocks) == (1, 8)
    assert together.size < alone.size / 2
    assert together.most_rows > alone.most_rows
    assert ops.cuda_plan((8, 16, 1), torch.float32, 32, HOPPER, 8).blocks == 1
    wide = (784, 64, 64, 1)  # too large for one
    assert ops.cuda_plan(wide, torch.float32, 64, HOPPER).rows == 0
    assert ops.cuda_plan(wide, torch.float32, 64, HOPPER, 8).rows > 0
    text = describe_on_cuda([400, 25, 25, 1], torch.float32, HOPPER, 8)
    assert text == (
        "fused (many steps in one launch on 8 multiprocessors: with batch_size=32 the network "
        f"takes {together.size / 1024:,.0f} of 227 KB of shared memory each; layer by layer in "
        f"CUDA graphs above batch_size={together.most_rows})"
    )


ONE = torch.tensor([0.0, 1.0])


@pytest.mark.parametrize(
    ("activations", "regularization", "options", "reason"),
    [
        (["softplus", "elu"], [(0.0,) * 5] * 2, {"clip_value": 1.0, "clip_norm": 0.0}, None),
        (["silu", "relu"], (), {}, "the activation silu"),
        (["relu", "gelu"], (), {}, "the activation gelu"),
        (["relu", "relu"], [(0.0,) * 5, (0.0, 0.0, 0.1, 0.0, 0.0)], {}, "penalties"),
        (["relu", "relu"], [(0.0, 0.0, 0.0, 0.0, 0.5), (0.0,) * 5], {}, "dropout"),
        (["relu", "relu"], (), {"clip_norm": 1.0}, "clipped norms"),
        (["relu", "relu"], (), {"clip_norm": 0, "global_clip_norm": ONE}, "clipped norms"),
    ],
)
def test_what_trains_layer_by_layer_alone_is_told(activations, regularization, options, reason):
    assert only_by_layers(activations, regularization, options) == reason
    assert only_by_layers(["relu"], (), {}, 0.1) == "dropout"
    if reason:
        text = describe_on_cuda([4, 3, 1], torch.float32, HOPPER, reason=reason)
        assert text == f"fused (layer by layer in CUDA graphs, since it has {reason})"


@built
def test_a_plan_of_nothing_is_refused():
    good = {"widths": (4, 1), "dtype": torch.float32, "batch_size": 32, "shared_bytes": HOPPER}
    bad = [
        ("widths", (4,), r"widths must be two or more, got \[4\]"),
        ("widths", (4, 0), "each width must be an integer from 1 to 2147483647, got 0"),
        ("widths", (2**62, 4), f"each width must be .*, got {2**62}"),
        ("dtype", torch.float16, "dtype must be torch.float32 or torch.float64, got .*"),
        ("batch_size", 0, "batch_size must be a positive integer, got 0"),
        ("shared_bytes", 2**62, f"shared_bytes must be an integer from 0 to 1048576, got {2**62}"),
        ("shared_bytes", -1, "shared_bytes must be .*, got -1"),
        ("blocks", 9, "blocks must be an integer from 1 to 8, got 9"),
        ("blocks", 0, "blocks must be an integer from 1 to 8, got 0"),
    ]
    for name, value, message in bad:
        with pytest.raises(ValueError, match=f"^{message}$"):
            ops.cuda_plan(**good | {name: value})
    with pytest.raises(TypeError, match=r"^each width must be .*, got 2\.5$"):
        ops.cuda_plan((4, 2.5), torch.float32, 32, HOPPER)


@built
@pytest.mark.parametrize("batch_size", [10**9, 2**63 - 1, 10**30])
def test_a_batch_of_any_size_has_a_plan(batch_size):
    assert ops.cuda_plan((400, 25, 1), torch.float32, batch_size, HOPPER).rows == 0


def test_the_devices_of_the_kernels():
    assert ops.trains_on(torch.device("cpu"))
    assert not ops.trains_on(torch.device("meta"))
    assert ops.trains_on(torch.device("cuda")) == (util.find_spec("torchnn._cuda") is not None)


def model(device, dtype=torch.float64, widths=(9, 5), **compiled):
    set_random_seed(7)
    made = Sequential([*(Dense(width, "tanh") for width in widths), Dense(1, "sigmoid")])
    made.to(device, dtype)
    options = {"loss": "bce", "metrics": ["accuracy"], "optimizer": optimizers.SGD(0.1)}
    made.compile(engine="fused", **(options | compiled))
    return made


def data(rows=70, features=6):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, features))
    return x, (x[:, :1] + 0.3 * generator.normal(size=(rows, 1)) > 0).astype(float)


OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.1, weight_decay=0.2),
    "momentum": lambda: optimizers.SGD(0.01, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(0.01),
}


@gpu
@pytest.mark.parametrize("widths", [(), (25, 25), (3,) * 8, (300, 700)])  # the last one by layers
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fit_on_cuda_leaves_what_fit_on_the_cpu_leaves(optimizer, widths):
    found = []
    for device in ("cpu", "cuda"):
        trained = model(device, widths=widths, optimizer=OPTIMIZERS[optimizer]())
        x, y = data()
        history = trained.fit(
            *(x, y), epochs=3, validation_split=0.2, sample_weight=np.linspace(0, 2, 70), verbose=0
        )
        found.append((history.history, trained.get_weights(), trained.predict(x, verbose=0)))
    (one, weights, outputs), (other, other_weights, other_outputs) = found
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-8, err_msg=name)
    np.testing.assert_allclose(outputs, other_outputs, rtol=1e-7)
    for w, v in zip(weights, other_weights, strict=True):
        np.testing.assert_allclose(w, v, rtol=1e-7, atol=1e-9)


def on_cuda(arguments):
    """Arguments of train_ with all tensors but the counter on the GPU."""

    def moved(value):
        if isinstance(value, list):
            return [moved(v) for v in value]
        return value.cuda() if isinstance(value, torch.Tensor) else value

    return {k: v if k == "steps_done" else moved(v) for k, v in arguments.items()}


def trained(arguments, train_=ops.train_):
    """Losses, predictions, weights, biases and slots after training on copies, on the CPU."""
    own = {k: clone(arguments[k]) for k in ("weights", "biases", "slots", "steps_done")}
    losses, predictions = call(train_, arguments | own)
    left = [*own["weights"], *own["biases"], *(t for slot in own["slots"] for t in slot)]
    return [t.cpu() for t in (losses, predictions, *left, own["steps_done"])]


@gpu
@pytest.mark.parametrize("update", SLOTS)
@pytest.mark.parametrize(
    ("widths", "rows", "batch_size"),
    [((400, 25, 25, 1), 70, 32), ((7, 16, 33, 3), 500, 500), ((300, 700, 2), 40, 16)],
)
def test_train_on_cuda_is_train_on_the_cpu(widths, rows, batch_size, update):
    arguments = job(widths, rows, batch_size, update=update)
    for ours, expected in zip(trained(on_cuda(arguments)), trained(arguments), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-10)


@gpu
@pytest.mark.parametrize("widths", [(400, 25, 25, 1), (300, 700, 2)])
def test_every_run_on_cuda_gives_the_same_bits(widths):
    arguments = on_cuda(job(widths, 200, 32, torch.float32, "adam"))
    assert all(map(torch.equal, trained(arguments), trained(arguments)))


def side_by_side(arguments, models):
    """The same for so many models, each with first weights of its own."""
    scales = [1 + number / models for number in range(models)]

    def own(ts):
        return [torch.stack([t * scale for scale in scales]) for t in ts]

    parameters = {name: own(arguments[name]) for name in ("weights", "biases")}
    return arguments | parameters | {"slots": [own(slot) for slot in arguments["slots"]]}


def one_of(together, number):
    """The arguments of one model among several, as several of which there is one."""

    def own(ts):
        return [t[number : number + 1].contiguous() for t in ts]

    parameters = {name: own(together[name]) for name in ("weights", "biases")}
    return together | parameters | {"slots": [own(slot) for slot in together["slots"]]}


SMALL = [(2, 16, 16, 1), (20, 9, 3), (64, 25, 25, 1), (5, 40, 1)]  # each model in a warp


@gpu
@pytest.mark.parametrize("widths", [*SMALL, (400, 25, 25, 1)])
@pytest.mark.parametrize("models", [3, 300])
def test_a_model_among_others_has_the_bits_of_one_alone(widths, models):
    arguments = on_cuda(cast(job(widths, 64, 16, update="adam"), torch.float32))
    together = side_by_side(arguments, models)
    many = trained(together)[:-1]
    for number in {0, 1, models - 1}:
        for ours, expected in zip(many, trained(one_of(together, number))[:-1], strict=True):
            assert torch.equal(ours[number : number + 1], expected)


@gpu
@pytest.mark.parametrize("update", SLOTS)
@pytest.mark.parametrize("batch_size", [1, 16, 24, 32, 70])  # two chunks, and a short one
@pytest.mark.parametrize("widths", SMALL)
def test_models_side_by_side_train_as_on_the_cpu(widths, batch_size, update):
    arguments = job(widths, 90, batch_size, update=update)
    together = side_by_side(arguments, 4)
    many = trained(on_cuda(together))[:-1]
    for number in range(4):
        own = {k: [t[number] for t in together[k]] for k in ("weights", "biases")}
        own["slots"] = [[t[number] for t in slot] for slot in together["slots"]]
        for ours, expected in zip(many, trained(arguments | own)[:-1], strict=True):
            torch.testing.assert_close(ours[number], expected, rtol=1e-9, atol=1e-10)


def assert_as_the_reference(arguments):
    expected = trained(arguments, reference.train_)
    for ours, theirs in zip(trained(on_cuda(arguments)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


WAYS = [  # a block, several together, layer by layer
    ((20, 9, 3), 70, 16),
    ((400, 25, 25, 3), 70, 32),
    ((300, 700, 3), 40, 16),
]


@gpu
@pytest.mark.parametrize("network", WAYS)
@pytest.mark.parametrize("loss", ops.losses())
def test_every_loss_on_cuda_is_that_of_the_reference(loss, network):
    arguments = job(*network, loss=loss)
    arguments["activations"][-1] = "softplus" if loss == "poisson" else "identity"
    assert_as_the_reference(arguments)


@gpu
@pytest.mark.parametrize("network", WAYS)
@pytest.mark.parametrize("activation", ops.activations())
def test_every_activation_on_cuda_is_that_of_the_reference(activation, network):
    activations = [activation] * (len(network[0]) - 1)
    assert_as_the_reference(job(*network, activations=activations, loss="mean_squared_error"))


@gpu
@pytest.mark.parametrize("network", WAYS)
def test_each_number_of_a_gradient_is_clipped_on_cuda(network):
    assert_as_the_reference(job(*network, options=OPTIONS | {"clip_value": 0.01}))


REGULARIZED = [(0.01, 0.02, 0.0, 0.03, 0.3), (0.0, 0.0, 0.02, 0.0, 0.2), (0.01, 0.0, 0.0, 0.0, 0.0)]


def featured(network, name, update="adam", dtype=torch.float64):
    """A job of what trains layer by layer alone."""
    layers = len(network[0]) - 1
    changes = {
        "penalties": {"regularization": [(*row[:4], 0.0) for row in REGULARIZED[-layers:]]},
        "dropout": {
            "regularization": [(0.0,) * 4 + (0.4,)] * layers,
            "seeds": [2**62, -5, 3][:layers],
        },
        "both": {"regularization": REGULARIZED[:layers]},
        "dropout of features": {"input_dropout": 0.4, "input_seed": 2**62},
        "clip_norm": {"options": OPTIONS | {"clip_norm": 0.05}},
        "global_clip_norm": {"options": OPTIONS | {"global_clip_norm": 0.05}},
        "all": {
            "regularization": REGULARIZED[:layers],
            "options": OPTIONS | {"clip_norm": 0.5, "clip_value": 0.1},
            "activations": ["gelu", "silu", "gelu"][:layers],
        },
    }[name]
    return job(*network, dtype, update, **changes)


FEATURES = (
    *("penalties", "dropout", "both", "dropout of features"),
    *("clip_norm", "global_clip_norm", "all"),
)


@gpu
@pytest.mark.parametrize("update", ["gradient_descent", "adam", "rmsprop_centered"])
@pytest.mark.parametrize("network", [*WAYS, ((9, 8, 3), 12, 1), ((33, 17, 3), 1000, 700)])
@pytest.mark.parametrize("feature", FEATURES)
def test_what_layers_alone_know_is_that_of_the_reference(feature, network, update):
    assert_as_the_reference(featured(network, feature, update) | {"steps_before": 2**33})


@gpu
@pytest.mark.parametrize("feature", FEATURES)
def test_a_graph_finds_the_number_of_its_steps_anew(feature):
    """What is dropped then differs from replay to replay as from call to call."""
    arguments = on_cuda(featured(((30, 20, 2), 60, 20), feature, dtype=torch.float32))

    def left_by(train_):
        names = ("weights", "biases", "slots", "steps_done")
        own = arguments | {name: clone(arguments[name]) for name in names}
        calls = range(graphs.UNRECORDED + 3)
        losses = [call(train_, own | {"steps_before": 3 * i})[0] for i in calls]
        return [*losses, *own["weights"]]

    trainer = graphs.Trainer()
    assert all(map(torch.equal, left_by(trainer.train_), left_by(ops.train_)))
    assert trainer._graphs


@gpu
@pytest.mark.parametrize("loss", ["huber", *reference.TAKE_LABELS])
@pytest.mark.parametrize("widths", [(20, 9, 3), (400, 25, 25, 3)])  # in warps, and in blocks
def test_models_side_by_side_take_labels_and_losses_with_a_number(widths, loss):
    arguments = job(widths, 90, 16, loss=loss, options=OPTIONS | {"clip_value": 0.02})
    together = side_by_side(arguments, 3)
    many = trained(on_cuda(together))[:-1]
    for number in range(3):
        own = {k: [t[number] for t in together[k]] for k in ("weights", "biases")}
        for ours, expected in zip(many, trained(arguments | own)[:-1], strict=True):
            torch.testing.assert_close(ours[number], expected, rtol=1e-9, atol=1e-10)


@gpu
@pytest.mark.parametrize("feature", FEATURES)
def test_models_cannot_have_what_layers_alone_know(feature):
    together = side_by_side(on_cuda(featured(((20, 9, 3), 40, 16), feature)), 3)
    before = clone(together["weights"])
    with pytest.raises((RuntimeError, ValueError), match="cannot be trained at once on CUDA"):
        call(ops.train_, together)
    assert all(map(torch.equal, before, together["weights"]))


@gpu
def test_slopes_are_the_usual_ones_here():
    arguments = on_cuda(job((16, 5, 1), 40, 8)) | {"activations": ["leaky_relu", "identity"]}
    usual = trained(arguments | {"slopes": [0.2, 7.0]})
    with pytest.raises(RuntimeError, match="activation 0 must have its usual slope on CUDA"):
        call(ops.train_, arguments | {"slopes": [0.3, -1.0]})
    assert all(map(torch.equal, usual, trained(arguments)))


@gpu
def test_no_samples_are_no_steps():
    arguments = on_cuda(job((16, 5, 1), 40, 8, torch.float32)) | {"learning_rates": []}
    losses, predictions = trained(arguments | {"order": arguments["order"][:0]})[:2]
    assert (losses.shape, predictions.shape) == ((0,), (0, 1))


@gpu
def test_autocast_does_not_reach_into_a_network_that_trains_layer_by_layer():
    arguments = on_cuda(job((300, 700, 2), 200, 32, torch.float32))
    expected = trained(arguments)
    with torch.autocast("cuda"):
        found = trained(arguments)
    assert all(map(torch.equal, found, expected))


@gpu
def test_a_row_number_that_is_not_there_makes_the_loss_nan():
    arguments = on_cuda(job((16, 5, 1), 40, 8, torch.float32))
    arguments["order"][-1] = 40
    losses = trained(arguments)[0]
    assert losses[:-1].isfinite().all()
    assert losses[-1].isnan()


@gpu
def test_tensors_on_two_devices_are_refused_before_anything_changes():
    arguments = on_cuda(job((16, 5, 1), 40, 8, torch.float32))
    for name in ("y", "order"):
        with pytest.raises(RuntimeError, match=f"{name} must be"):
            trained(arguments | {name: arguments[name].cpu()})


@gpu
def test_summary_tells_how_a_model_on_cuda_trains():
    made = model("cuda")
    made.build((None, 6))
    settled = recipe.settle("sgd", "bce", None)
    assert "fused (many steps in one launch" in choice.describe(made, settled)


@gpu
def test_ctrl_c_on_cuda_leaves_the_weights_of_a_whole_number_of_steps():
    x, y = data(500)
    cut = model("cuda")
    threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        cut.fit(x, y, batch_size=500, epochs=10**7, shuffle=False, verbose=0)
    steps = cut.optimizer.iterations
    assert 0 < steps < 10**7
    whole = model("cuda")
    whole.fit(x, y, batch_size=500, epochs=steps, shuffle=False, verbose=0)
    for one, other in zip(cut.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
