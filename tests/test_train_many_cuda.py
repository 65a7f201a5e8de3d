"""torchnn.ops.train_many_ on CUDA: which models it takes, everywhere; on a GPU, the same as its
definition, and models against their neighbours.

The kernel without a GPU is in tests/test_simt.py.
"""

from importlib import util

import pytest
import torch
from test_train_many import CHANGES, MANY, WIDE, changed, copied, run, stopping, told, trials

from torchnn import ops
from torchnn.ops import reference

HOPPER = 227 << 10  # bytes of shared memory
ON_DEVICE = ("x", "y", "sample_weight", "orders", "learning_rates", "weights", "biases", "slots")
ON_DEVICE += ("validation_x", "validation_y", "validation_weight", "validation_rows")
ON_DEVICE += ("stopping_state", "best")

built = pytest.mark.skipif(
    util.find_spec("torchnn._cuda") is None, reason="built without CUDA kernels"
)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def on_gpu(arguments, dtype=None):
    def move(value):
        if isinstance(value, list):
            return [move(each) for each in value]
        return value.cuda() if isinstance(value, torch.Tensor) else value

    own = copied(arguments, dtype)
    return own | {name: move(own[name]) for name in ON_DEVICE if name in own}


def assert_same(arguments, rtol=1e-10, atol=1e-11):
    exact = run(reference.train_many_, copied(arguments, torch.float64))
    ours = run(ops.train_many_, on_gpu(arguments))
    for own, expected in zip(ours, exact, strict=True):
        for one, other in zip(own, expected, strict=True):
            if one is not None:
                torch.testing.assert_close(one.to(other), other, rtol=rtol, atol=atol)


def plan(widths, update="gradient_descent", dtype=torch.float32, **changes):
    """Rows at once, bytes, and blocks a multiprocessor, of an H100."""
    return ops.cuda_trial_plan(widths, dtype, 32, HOPPER, update=update, **changes)


@built
def test_several_small_models_share_a_multiprocessor():
    assert plan([2, 16, 16, 1])[::2] == (32, plan([8, 16, 1])[2])
    assert plan([64, 25, 25, 1])[2] == 4
    assert plan([64, 25, 25, 1], "adam")[2] >= 4
    assert plan([400, 25, 25, 1])[2] == 2
    dropped = plan([64, 25, 25, 1], dropped=[True, True, False])
    assert dropped[1] > plan([64, 25, 25, 1])[1]  # which keeps what was before


@built
def test_a_model_that_does_not_fit_has_no_rows():
    assert plan([784, 512, 512, 1])[0] == 0
    assert plan([10**9, 1])[0] == 0
    assert plan([400, 25, 25, 1], dtype=torch.float64)[0] > 0


@built
def test_a_plan_needs_what_it_is_asked_of():
    with pytest.raises(ValueError, match="update must be one of"):
        plan([2, 1], "sgd")
    with pytest.raises(RuntimeError, match="one for each of 1 layers"):
        plan([2, 1], activations=["relu", "relu"])


@gpu
@pytest.mark.parametrize("update", reference.UPDATES)
@pytest.mark.parametrize("loss", reference.LOSSES)
def test_every_loss_and_rule_on_cuda(loss, update):
    last = "softplus" if loss in ("poisson", "mean_squared_logarithmic_error") else "identity"
    widths = [(6, 5, 3), (6, 4, 3), (6, 33, 3)]
    arguments = trials(widths, loss=loss, update=update, activations=["tanh", last])
    if loss in reference.TAKE_LABELS:
        arguments["y"].clamp_(min=0)  # CUDA knows no row without a class
    assert_same(arguments)


@gpu
@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_every_activation_on_cuda(activation):
    arguments = trials(
        [(6, 5, 2), (6, 4, 2)], loss="mean_squared_error", activations=[activation] * 2
    )
    assert_same(arguments)


@gpu
@pytest.mark.parametrize("name", CHANGES)
def test_every_option_on_cuda(name):
    assert_same(changed(name))


@gpu
@pytest.mark.parametrize("name", CHANGES)
def test_results_are_the_same_from_run_to_run_on_cuda(name):
    arguments = changed(name, dtype=torch.float32)
    together = run(ops.train_many_, on_gpu(arguments))
    again = run(ops.train_many_, on_gpu(arguments))
    for one, other in zip(together, again, strict=True):
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(one, other, strict=True))


@gpu
@pytest.mark.parametrize("widths", [MANY, WIDE])
@pytest.mark.parametrize("restores", [True, False])
def test_models_end_early_on_cuda(widths, restores):
    arguments = stopping(widths, torch.float64, restores=restores)
    exact, ours = copied(arguments), on_gpu(arguments)
    expected, found = run(reference.train_many_, exact), run(ops.train_many_, ours)
    for own, other in zip(told(ours, found), told(exact, expected), strict=True):
        for one, another in zip(own, other, strict=True):
            if one is not None:
                torch.testing.assert_close(one.cpu(), another, rtol=1e-8, atol=1e-9, equal_nan=True)


@gpu
def test_a_model_that_does_not_fit_is_told_before_anything_changes_on_cuda():
    arguments = on_gpu(trials([(7, 5, 1), (7, 9000, 1)]))
    before = [weight.clone() for weight in arguments["weights"]]
    with pytest.raises(RuntimeError, match=r"models\[1\] must fit in shared memory"):
        ops.train_many_(ops.Trials(**arguments))
    assert all(map(torch.equal, before, arguments["weights"]))


@gpu
def test_rows_that_are_not_there_make_nan_on_cuda():
    arguments = on_gpu(trials([(7, 5, 1)]))
    arguments["orders"][:, 3] = 31
    losses, *_ = ops.train_many_(ops.Trials(**arguments))
    assert losses.isnan().all(1).all()
