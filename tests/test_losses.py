"""torchnn.losses: Keras's numbers, worked out by hand, and its arguments."""

import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import losses, ops
from torchnn.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    MeanAbsoluteError,
    MeanSquaredError,
)
from torchnn.ops import reference

# The example of Keras's documentation.
TARGETS = [[0.0, 1.0], [0.0, 0.0]]
PROBABILITIES = [[0.6, 0.4], [0.4, 0.6]]
FIRST = -math.log(0.4)
SECOND = -(math.log(0.6) + math.log(0.4)) / 2


def close(actual, wanted, rtol=1e-6, atol=1e-12):
    torch.testing.assert_close(actual.item(), float(wanted), rtol=rtol, atol=atol)


@pytest.fixture
def batch(device):
    return torch.tensor(TARGETS, device=device), torch.tensor(PROBABILITIES, device=device)


def test_bce_is_the_mean_of_minus_log_likelihoods(batch):
    close(BinaryCrossentropy()(*batch), (FIRST + SECOND) / 2)


def test_bce_gives_one_value_per_sample(batch):
    values = BinaryCrossentropy().per_sample(*batch)
    torch.testing.assert_close(values.cpu(), torch.tensor([FIRST, SECOND]))


def test_weights_divide_by_the_samples_not_by_the_weights(batch):
    close(BinaryCrossentropy()(*batch, sample_weight=[3, 1]), (3 * FIRST + SECOND) / 2)


def test_sum_and_none_reduce_as_they_say(batch):
    weight = torch.tensor([[3.0], [1.0]])
    close(BinaryCrossentropy(reduction="sum")(*batch, weight), 3 * FIRST + SECOND)
    values = BinaryCrossentropy(reduction="none")(*batch, weight)
    torch.testing.assert_close(values.cpu(), torch.tensor([3 * FIRST, SECOND]))
    assert BinaryCrossentropy(reduction=None).reduction == "none"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bce_clips_probabilities_at_1e_minus_7(device, dtype):
    y_true = torch.tensor([1.0, 0.0], device=device)
    y_pred = torch.tensor([0.0, 1.0], device=device, dtype=dtype)
    values = BinaryCrossentropy().per_sample(y_true, y_pred).tolist()
    assert values[0] == pytest.approx(-math.log(1e-7), rel=1e-6)
    # 1 - 1e-7 is rounded to the nearest float32, which is 1 - 2^-23.
    assert values[1] == pytest.approx(23 * math.log(2), rel=1e-6)


def test_label_smoothing_pulls_targets_to_a_half():
    wanted = -(0.9 * math.log(0.8) + 0.1 * math.log(0.2))  # 1 becomes 1 * 0.8 + 0.1
    close(BinaryCrossentropy(label_smoothing=0.2)([[1.0]], [[0.8]]), wanted)
    logit = math.log(0.8 / 0.2)
    close(BinaryCrossentropy(from_logits=True, label_smoothing=0.2)([[1.0]], [[logit]]), wanted)


@pytest.mark.parametrize("z", [-100.0, -18.6, -1.0, 0.0, 0.51, 40.0, 100.0])
@pytest.mark.parametrize("y", [0.0, 0.3, 1.0])
def test_bce_from_logits_matches_its_formula(z, y, device):
    logit = torch.tensor([[z]], device=device, requires_grad=True)
    loss = BinaryCrossentropy(from_logits=True)(torch.tensor([[y]], device=device), logit)
    loss.backward()
    close(loss, max(z, 0) - z * y + math.log1p(math.exp(-abs(z))), atol=1e-7)
    close(logit.grad, 1 / (1 + math.exp(-z)) - y, atol=1e-7)


def test_bce_from_logits_matches_keras_documentation():
    y_pred = [[-18.6, 0.51], [2.94, -12.8]]
    loss = BinaryCrossentropy(from_logits=True)
    assert loss(TARGETS, y_pred).item() == pytest.approx(0.865, abs=1e-3)
    assert loss(TARGETS, y_pred, [0.8, 0.2]).item() == pytest.approx(0.243, abs=1e-3)


def test_on_logits_is_the_same_loss_from_logits():
    loss = BinaryCrossentropy(label_smoothing=0.1, reduction="sum", name="mine")
    on_logits = loss.on_logits()
    assert (loss.from_logits, on_logits.from_logits) == (False, True)
    assert (on_logits.label_smoothing, on_logits.reduction, on_logits.name) == (0.1, "sum", "mine")


def test_only_the_logits_keep_the_gradient_of_a_saturated_sigmoid():
    z = torch.full((1, 1), 20.0, dtype=torch.float64, requires_grad=True)
    (clipped,) = torch.autograd.grad(BinaryCrossentropy()([[0.0]], torch.sigmoid(z)), z)
    (exact,) = torch.autograd.grad(BinaryCrossentropy().on_logits()([[0.0]], z), z)
    assert clipped.item() == 0
    close(exact, 1.0)


def test_bce_knows_its_targets():
    loss = BinaryCrossentropy()
    loss.check_targets(torch.tensor([[0.0], [0.5], [1.0]]))
    with pytest.raises(ValueError, match=r"y in \[0, 1\], got values from -1 to 3"):
        loss.check_targets(torch.tensor([[-1.0], [3.0]]))
    MeanSquaredError().check_targets(torch.tensor([[-1.0], [3.0]]))


def test_mse_is_the_mean_of_squares(device):
    y_true = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=device)
    y_pred = torch.tensor([[1.0, 4.0], [0.0, 3.0]], device=device)
    close(MeanSquaredError()(y_true, y_pred), (2 + 5) / 2)
    close(MeanSquaredError()(y_true, y_pred, [1, 0]), 1)
    assert MeanSquaredError().per_sample(y_true, y_pred).tolist() == [2, 5]


def test_mae_is_the_mean_of_absolute_values(device):
    y_true = torch.tensor([[0.0, 1.0], [2.0, 0.0]], device=device)
    y_pred = torch.tensor([[1.0, 0.0], [0.0, 1.0]], device=device)
    close(MeanAbsoluteError()(y_true, y_pred), 1.25)
    close(MeanAbsoluteError()(y_true, y_pred, [1, 0]), 0.5)
    assert MeanAbsoluteError().per_sample(y_true, y_pred).tolist() == [1, 1.5]


ONE_HOT = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
CLASSES = torch.tensor([[0.05, 0.95, 0.0], [0.1, 0.8, 0.1]])


def test_categorical_crossentropy_has_keras_numbers(device):
    # the example of Keras's documentation
    y_true, y_pred = ONE_HOT.to(device), CLASSES.to(device)
    loss = CategoricalCrossentropy()
    assert loss(y_true, y_pred).item() == pytest.approx(1.177, abs=1e-3)
    assert loss(y_true, y_pred, [0.3, 0.7]).item() == pytest.approx(0.814, abs=1e-3)
    each = CategoricalCrossentropy(reduction="none")(y_true, y_pred)
    torch.testing.assert_close(each.cpu(), -torch.tensor([0.95, 0.1]).log())
    close(CategoricalCrossentropy()(y_true, 2 * y_pred), loss(y_true, y_pred).item())


def test_categorical_crossentropy_smooths_and_takes_logits():
    z = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.5, 300.0]], dtype=torch.float64)
    y = ONE_HOT.double()
    smoothed = y * 0.7 + 0.1
    expected = -(smoothed * torch.log_softmax(z, 1)).sum(1)
    loss = CategoricalCrossentropy(label_smoothing=0.3, reduction="none")
    torch.testing.assert_close(loss.on_logits()(y, z), expected)
    torch.testing.assert_close(loss(y[:1], torch.softmax(z[:1], 1)), expected[:1])
    with pytest.raises(
        ValueError, match=r"^categorical_crossentropy needs y of at least 0, got -1"
    ):
        loss.check_targets(-y)


@pytest.mark.parametrize(
    "loss",
    [
        MeanSquaredError(),
        MeanAbsoluteError(),
        BinaryCrossentropy(from_logits=True),
        CategoricalCrossentropy(from_logits=True),
    ],
    ids=lambda loss: loss.name,
)
def test_a_loss_names_the_kernel_that_computes_it(loss):
    generator = torch.Generator().manual_seed(0)
    y_pred = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    y_true = torch.rand(6, 3, generator=generator, dtype=torch.float64)
    kernel = ops.kernel_of(loss)
    assert kernel.name in ops.losses()
    torch.testing.assert_close(
        loss.per_sample(y_true, y_pred), reference.LOSSES[kernel.name](y_pred, y_true)
    )


def test_a_loss_that_computes_something_else_names_no_kernel():
    class HalvedError(MeanSquaredError):
        def per_sample(self, y_true, y_pred):
            return super().per_sample(y_true, y_pred) / 2

    assert ops.kernel_of(HalvedError()) is None
    assert ops.kernel_of(BinaryCrossentropy()) is None  # of probabilities
    assert ops.kernel_of(BinaryCrossentropy(from_logits=True, axis=0)) is None


@pytest.mark.parametrize("loss", [MeanSquaredError(), BinaryCrossentropy()])
def test_the_mean_goes_over_the_last_axis(loss):
    y_true, y_pred = torch.rand(4, 3, 2), torch.rand(4, 3, 2)
    values = loss.per_sample(y_true, y_pred)
    assert values.shape == (4, 3)
    close(loss(y_true, y_pred), values.mean())
    close(loss(y_true, y_pred, [0, 1, 0, 0]), values[1].sum() / 12)


def test_flat_predictions_are_one_per_sample():
    assert MeanSquaredError().per_sample(torch.zeros(3), torch.ones(3)).tolist() == [1, 1, 1]


def test_column_predictions_take_flat_targets():
    y_true = np.array([1, 0, 1])
    assert MeanSquaredError(reduction="none")(y_true, torch.zeros(3, 1)).tolist() == [1, 0, 1]


@pytest.mark.parametrize("loss", ["bce", "mse", lambda y_true, y_pred: y_true - y_pred])
def test_other_shapes_are_never_broadcast(loss):
    with pytest.raises(ValueError, match="does not fit"):
        losses.get(loss)(torch.zeros(3), torch.zeros(3, 2))


@pytest.mark.parametrize("weight", [[1.0, 1.0, 1.0], [[1.0, 1.0], [1.0, 1.0]], [2.0], [[[2.0]]]])
def test_weights_are_one_per_sample(weight):
    with pytest.raises(ValueError, match=r"^sample_weight of shape .* does not fit"):
        MeanSquaredError()(torch.zeros(2, 1), torch.zeros(2, 1), weight)


STEPS = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])  # losses of two samples of three steps


@pytest.mark.parametrize(
    ("weight", "factors"),
    [
        (2.3, 2.3),
        (np.float32(2), 2.0),
        ([1.0, 2.0], [[1.0], [2.0]]),
        ([[1.0], [2.0]], [[1.0], [2.0]]),
        ([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]], [[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]),
        ([[[1.0], [0.0], [2.0]], [[0.0], [3.0], [0.0]]], [[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]),
    ],
)
def test_weights_of_fewer_axes_go_with_the_first_of_the_losses(weight, factors):
    y_true, y_pred = torch.zeros(2, 3, 1), STEPS.sqrt().unsqueeze(-1)
    expected = STEPS * torch.tensor(factors)
    values = MeanSquaredError(reduction="none")(y_true, y_pred, weight)
    torch.testing.assert_close(values, expected)
    close(MeanSquaredError()(y_true, y_pred, weight), expected.mean())


@pytest.mark.parametrize("weight", [[1.0] * 3, [[1.0] * 2] * 3, [[1.0] * 2] * 2])
def test_weights_of_other_axes_are_never_broadcast(weight):
    with pytest.raises(ValueError, match=r"^sample_weight of shape .* does not fit"):
        MeanSquaredError()(torch.zeros(2, 3, 1), torch.zeros(2, 3, 1), weight)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("bce", BinaryCrossentropy),
        ("binary_crossentropy", BinaryCrossentropy),
        ("BinaryCrossentropy", BinaryCrossentropy),
        ("mse", MeanSquaredError),
        ("mae", MeanAbsoluteError),
        ("categorical_crossentropy", CategoricalCrossentropy),
        ("mean_absolute_error", MeanAbsoluteError),
        ("MeanSquaredError", MeanSquaredError),
    ],
)
def test_names_are_resolved(value, kind):
    assert type(losses.get(value)) is kind


def test_a_loss_is_returned_as_it_is():
    loss = MeanSquaredError()
    assert losses.get(loss) is loss


def absolute_error(y_true, y_pred):
    return (y_true - y_pred).abs()


def test_a_function_becomes_a_loss():
    loss = losses.get(absolute_error)
    y_true, y_pred = torch.tensor([1, 2]), torch.zeros(2, 1)
    assert loss.name == "absolute_error"
    close(loss(y_true, y_pred), 1.5)
    close(loss(y_true, y_pred, [0, 3]), 3)


def test_a_function_that_reduces_by_itself_takes_no_weights():
    loss = losses.get(lambda y_true, y_pred: (y_true - y_pred).abs().mean())
    close(loss([1.0, 2.0], [0.0, 0.0]), 1.5)
    with pytest.raises(ValueError, match="one loss per sample"):
        loss([1.0, 2.0], [0.0, 0.0], [1.0, 1.0])


def test_a_torch_loss_gets_its_arguments_in_its_own_order():
    loss = losses.get(nn.BCELoss())
    y_true, y_pred = torch.tensor([[1.0]]), torch.tensor([[0.25]])
    close(loss(y_true, y_pred), math.log(4))
    assert loss.name == "BCELoss"


@pytest.mark.parametrize("value", ["mean_square_error", "crossentropy", "mes"])
def test_an_unknown_name_is_an_error_with_the_list(value):
    with pytest.raises(ValueError, match=f"^unknown loss '{value}'.* Known: binary_crossentropy, "):
        losses.get(value)


@pytest.mark.parametrize("value", [None, 3, BinaryCrossentropy])
def test_what_is_no_loss_is_a_type_error(value):
    with pytest.raises(TypeError, match=r"^loss must be "):
        losses.get(value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"reduction": "mean"}, ValueError),
        ({"reduction": False}, ValueError),
        ({"reduction": ""}, ValueError),
        ({"name": False}, TypeError),
        ({"label_smoothing": 1.1}, ValueError),
        ({"label_smoothing": -0.1}, ValueError),
        ({"label_smoothing": "0.1"}, TypeError),
        ({"from_logits": "from_logits=False"}, TypeError),
        ({"from_logits": 0.1}, TypeError),
        ({"from_logits": None}, TypeError),
        ({"axis": 1.5}, TypeError),
        ({"axis": None}, TypeError),
        ({"name": 3}, TypeError),
    ],
)
@pytest.mark.parametrize("kind", [BinaryCrossentropy, CategoricalCrossentropy])
def test_bad_arguments_are_errors(kind, arguments, error):
    with pytest.raises(error, match=f"^{next(iter(arguments))} must "):
        kind(**arguments)


def test_numpys_truth_values_and_integers_will_do():
    loss = BinaryCrossentropy(np.bool_(True), axis=np.int64(-1))
    assert (loss.from_logits, loss.axis) == (True, -1)


@pytest.mark.parametrize("module", [nn.BCELoss(), nn.BCEWithLogitsLoss()])
def test_pytorchs_binary_crossentropies_know_their_targets(module):
    loss = losses.get(module)
    loss.check_targets(torch.tensor([[0.0], [0.5], [1.0]]))
    with pytest.raises(ValueError, match=r"y in \[0, 1\], got values from 0 to 2"):
        loss.check_targets(torch.tensor([[0.0], [2.0]]))
    losses.get(nn.PoissonNLLLoss()).check_targets(torch.tensor([[7.0]]))


@pytest.mark.parametrize("module", [nn.CrossEntropyLoss(), nn.NLLLoss(ignore_index=-1)])
@pytest.mark.parametrize("axes", [(3,), (3, 2)])
def test_labels_are_class_numbers_of_the_output(module, axes):
    loss, ignored = losses.get(module), float(module.ignore_index)
    good = torch.tensor([0.0, 2.0, ignored]).reshape(3, *[1] * (len(axes) - 1))
    good = good.expand(3, *axes[1:]).clone()
    loss.check_labels(good, axes)
    loss.check_labels(good.unsqueeze(-1), axes)
    loss.check_labels(torch.full((3, *axes), 0.2), axes)  # probabilities
    for bad, shown in ((1.9, "1.9"), (3.0, "3"), (-2.0, "-2"), (-0.5, "-0.5")):
        y = good.clone()
        y[1] = bad
        message = f"^y must hold class numbers from 0 to 2, or {ignored:g} to be ignored, "
        with pytest.raises(ValueError, match=f"{message}got {shown} at row 1$"):
            loss.check_labels(y, axes)


@pytest.mark.parametrize("value", ["bce", "mse", absolute_error, nn.HuberLoss()])
def test_losses_pickle(value):
    loss = losses.get(value)
    batch = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.3], [0.4]])
    assert pickle.loads(pickle.dumps(loss))(*batch) == loss(*batch)


def test_repr_reads_like_a_call():
    assert repr(MeanSquaredError(name="error")) == (
        "MeanSquaredError(reduction='sum_over_batch_size', name='error')"
    )


def test_a_function_of_pytorch_which_takes_its_arguments_the_other_way_round_is_refused():
    with pytest.raises(TypeError, match=r"pass the nn\.Module of binary_cross_entropy_with_logits"):
        losses.get(nn.functional.binary_cross_entropy_with_logits)
