"""torchnn.losses: Keras's numbers, worked out by hand, and its arguments."""

import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from torchnn import Sequential, losses, metrics, ops, optimizers
from torchnn.layers import Dense
from torchnn.losses import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    CosineSimilarity,
    Huber,
    KLDivergence,
    MeanAbsoluteError,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
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


KERNELS = [
    MeanSquaredError(),
    BinaryCrossentropy(from_logits=True),
    MeanAbsoluteError(),
    CategoricalCrossentropy(from_logits=True),
    SparseCategoricalCrossentropy(from_logits=True),
    losses.Huber(0.3),
    losses.MeanSquaredLogarithmicError(),
    losses.LogCosh(),
    losses.Hinge(),
    losses.SquaredHinge(),
    losses.Poisson(),
]


def test_every_kernel_of_a_loss_has_its_class():
    assert tuple(ops.kernel_of(loss).name for loss in KERNELS) == ops.losses()


@pytest.mark.parametrize("loss", KERNELS, ids=lambda loss: loss.name)
def test_a_loss_names_the_kernel_that_computes_it(loss):
    generator = torch.Generator().manual_seed(0)
    y_pred = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    y_true = torch.rand(6, 3, generator=generator, dtype=torch.float64)
    if loss.name == "poisson":
        y_pred = y_pred.exp()
    if loss.takes_labels:
        y_true = torch.tensor([[0], [1], [2], [0], [1], [2]])
    kernel = ops.kernel_of(loss)
    torch.testing.assert_close(
        loss.per_sample(y_true, y_pred),
        reference.LOSSES[kernel.name](y_pred, y_true, **kernel.options),
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
        ("sparse_categorical_crossentropy", SparseCategoricalCrossentropy),
        ("log_cosh", losses.LogCosh),
        ("logcosh", losses.LogCosh),
        ("KLD", KLDivergence),
        ("MSLE", losses.MeanSquaredLogarithmicError),
        ("mape", losses.MeanAbsolutePercentageError),
        ("huber", Huber),
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


def of_labels(y_true, y_pred):
    return losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)


def test_a_function_of_class_numbers_says_so():
    labels, logits = torch.tensor([2, 0]), torch.randn(2, 3)
    expected = nn.functional.cross_entropy(logits, labels)
    close(losses.FunctionLoss(of_labels, takes_labels=True)(labels, logits), expected.item())
    hint = r": if of_labels takes .* losses\.FunctionLoss\(of_labels, takes_labels=True\)$"
    for shape in ((2,), (2, 1)):
        with pytest.raises(ValueError, match=r"does not fit y_pred of shape \(2, 3\)" + hint):
            losses.get(of_labels)(labels.reshape(shape), logits)
    with pytest.raises(ValueError, match=r"does not fit y_pred of shape \(2, 3\)$"):
        losses.get(of_labels)(torch.zeros(2, 2), logits)


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


EPS = losses.EPSILON
# Of each: the targets, the value of one prediction and its derivative, by hand.
FORMULAS = {
    "mse": ([0.5, 2.0], lambda y, p: (y - p) ** 2, lambda y, p: 2 * (p - y)),
    "mae": ([0.5, 2.0], lambda y, p: abs(y - p), lambda y, p: np.sign(p - y)),
    "mape": (
        [0.0, 0.5, -2.0],
        lambda y, p: 100 * abs(y - p) / np.maximum(abs(y), EPS),
        lambda y, p: 100 * np.sign(p - y) / np.maximum(abs(y), EPS),
    ),
    "msle": (
        [0.5, 2.0, -1.0],
        lambda y, p: (np.log(np.maximum(p, EPS) + 1) - np.log(np.maximum(y, EPS) + 1)) ** 2,
        lambda y, p: (
            np.where(p < EPS, 0, 2)
            * (np.log(np.maximum(p, EPS) + 1) - np.log(np.maximum(y, EPS) + 1))
            / (np.maximum(p, EPS) + 1)
        ),
    ),
    "huber": (
        [0.5, 2.0],
        lambda y, p: np.where(abs(p - y) <= 1, (p - y) ** 2 / 2, abs(p - y) - 0.5),
        lambda y, p: np.clip(p - y, -1, 1),
    ),
    "logcosh": (
        [0.5, 2.0],
        lambda y, p: np.log(np.cosh(p - y)),
        lambda y, p: np.tanh(p - y),
    ),
    "hinge": (
        [-1.0, 1.0],
        lambda y, p: np.maximum(1 - y * p, 0),
        lambda y, p: np.where(y * p < 1, -y, 0),
    ),
    "squared_hinge": (
        [-1.0, 1.0],
        lambda y, p: np.maximum(1 - y * p, 0) ** 2,
        lambda y, p: -2 * y * np.maximum(1 - y * p, 0),
    ),
}
PREDICTIONS = np.array([-1.5, -0.3, 0.2, 0.9, 3.0])


def by_hand(name, y_true, y_pred):
    """The value and the derivative of each prediction."""
    _, value, derivative = FORMULAS[name]
    return value(y_true, y_pred), derivative(y_true, y_pred)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_loss_is_its_formula_and_so_is_its_gradient(name, device):
    y_true, y_pred = (a.ravel() for a in np.meshgrid(FORMULAS[name][0], PREDICTIONS))
    values, derivatives = by_hand(name, y_true, y_pred)
    p = torch.tensor(y_pred.reshape(-1, 1), device=device, requires_grad=True)
    losses_of_each = losses.get(name).per_sample(torch.tensor(y_true, device=device), p)
    (grad,) = torch.autograd.grad(losses_of_each.sum(), p)
    np.testing.assert_allclose(losses_of_each.detach().cpu(), values, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(grad.cpu().ravel(), derivatives, rtol=1e-12, atol=1e-15)


def test_poisson_is_its_formula():
    y, p = np.array([0.0, 1.0, 4.0]), np.array([0.5, 2.0, 0.1])
    values = losses.get("poisson").per_sample(torch.tensor(y), torch.tensor(p).unsqueeze(1))
    np.testing.assert_allclose(values, p - y * np.log(p + EPS), rtol=1e-12)


def test_huber_bends_at_delta():
    y_pred = torch.tensor([[0.2], [0.5], [3.0]], dtype=torch.float64)
    values = Huber(delta=0.5, reduction=None)(torch.zeros(3), y_pred)
    assert values.tolist() == pytest.approx([0.02, 0.125, 0.5 * 3 - 0.125])
    for delta in (0, -1.0):
        with pytest.raises(ValueError, match=r"^delta must be a positive number, got "):
            Huber(delta)


def test_log_cosh_does_not_overflow():
    values = losses.get("log_cosh").per_sample(torch.zeros(2), torch.tensor([[1e4], [-1e4]]))
    assert values.tolist() == pytest.approx([1e4 - math.log(2)] * 2)


@pytest.mark.parametrize("name", ["hinge", "squared_hinge"])
def test_hinge_takes_0_for_minus_1_where_all_targets_are_0_and_1(name):
    loss, y_pred = losses.get(name), torch.tensor([[0.3], [-0.2], [2.0]])
    assert torch.equal(
        loss.per_sample(torch.tensor([0, 1, 1]), y_pred),
        loss.per_sample(torch.tensor([-1.0, 1.0, 1.0]), y_pred),
    )
    for good in ([-1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [-0.5, 2.0]):
        loss.check_targets(torch.tensor(good))
    message = f"^{name} needs y of -1 and 1, or of 0 and 1, got 0 among values from -1 to 1$"
    with pytest.raises(ValueError, match=message):
        loss.check_targets(torch.tensor([-1.0, 0.0, 1.0]))


def test_categorical_hinge_compares_with_the_best_of_the_other_classes():
    # the example of Keras's documentation, and a row with a margin of more than 1
    y_true = [[0.0, 1.0], [0.0, 0.0], [0.0, 1.0]]
    y_pred = [[0.6, 0.4], [0.4, 0.6], [0.1, 2.0]]
    values = CategoricalHinge(reduction="none")(y_true, y_pred)
    assert values.tolist() == pytest.approx([0.6 - 0.4 + 1, 0.6 - 0 + 1, 0])


def test_kl_divergence_clips_both_to_1e_minus_7():
    y, p = np.array([[0.0, 1.0], [0.3, 0.7]]), np.array([[0.6, 0.4], [0.0, 1.2]])
    clipped, given = np.clip(y, EPS, 1), np.clip(p, EPS, 1)
    expected = (clipped * np.log(clipped / given)).sum(1)
    np.testing.assert_allclose(KLDivergence(reduction=None)(y, p), expected, rtol=1e-12)


def test_cosine_similarity_is_minus_1_for_one_direction():
    y_true, y_pred = [[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [3.0, 3.0], [1.0, 2.0]]
    values = CosineSimilarity(reduction=None)(y_true, y_pred)
    np.testing.assert_allclose(values, [0.0, -1.0, 0.0], rtol=1e-12)
    first = CosineSimilarity(axis=0, reduction=None)([[0.0, 1.0], [1.0, 1.0]], [[1, 0], [3, 3]])
    expected = [-3 / math.sqrt(10), -1 / math.sqrt(2)]
    assert first.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("balances", [False, True])
def test_focal_crossentropy_counts_what_is_predicted_well_for_less(from_logits, balances):
    p, y = np.array([0.9, 0.2, 0.6]), np.array([1.0, 0.0, 0.0]) * 0.8 + 0.1
    given = y * p + (1 - y) * (1 - p)
    expected = -((1 - given) ** 1.5) * (y * np.log(p) + (1 - y) * np.log(1 - p))
    expected *= (y * 0.3 + (1 - y) * 0.7) if balances else 1
    loss = BinaryFocalCrossentropy(balances, 0.3, 1.5, from_logits, 0.2, reduction="none")
    shown = np.log(p / (1 - p)) if from_logits else p
    np.testing.assert_allclose(loss([1, 0, 0], shown), expected, rtol=1e-12)


LOGITS = np.array([[1.0, 2.0, -1.0], [0.0, 0.5, 30.0], [-2.0, 4.0, 4.0], [3.0, 0.0, 0.0]])
NUMBERS = np.array([1, 0, 2, 0])


def softmax(z):
    powers = np.exp(z - z.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float64])
def test_sparse_crossentropy_of_logits_is_minus_the_logarithm_of_the_right_one(
    shape, dtype, device
):
    z = torch.tensor(LOGITS, device=device, requires_grad=True)
    y = torch.tensor(NUMBERS.astype(dtype).reshape(shape), device=device)
    values = SparseCategoricalCrossentropy(from_logits=True, reduction=None)(y, z)
    (grad,) = torch.autograd.grad(values.sum(), z)
    p = softmax(LOGITS)
    np.testing.assert_allclose(values.detach().cpu(), -np.log(p[range(4), NUMBERS]), rtol=1e-12)
    np.testing.assert_allclose(grad.cpu(), p - np.eye(3)[NUMBERS], rtol=1e-9, atol=1e-15)


def test_sparse_crossentropy_of_probabilities_divides_and_clips_like_the_dense_one():
    p = torch.tensor([[0.2, 0.2, 0.0], [1.0, 3.0, 4.0]], dtype=torch.float64)
    y, hot = torch.tensor([2, 1]), torch.eye(3, dtype=torch.float64)
    values = SparseCategoricalCrossentropy(reduction="none")(y, p)
    assert values.tolist() == pytest.approx([-math.log(1e-7), -math.log(3 / 8)])
    torch.testing.assert_close(values, CategoricalCrossentropy(reduction="none")(hot[y], p))


def test_sparse_crossentropy_takes_the_classes_from_any_axis():
    z, y = torch.randn(2, 5, 3, dtype=torch.float64), torch.randint(5, (2, 3))
    values = SparseCategoricalCrossentropy(True, axis=1, reduction=None)(y, z)
    torch.testing.assert_close(values, nn.functional.cross_entropy(z, y, reduction="none"))
    assert SparseCategoricalCrossentropy(axis=1).activation is None


def test_what_is_ignored_does_not_count_in_the_mean():
    y = np.array([1, -1, 2, -1])
    each = -np.log(softmax(LOGITS)[[0, 2], [1, 2]])
    loss = SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    close(loss(y, LOGITS), each.mean())
    close(loss(y, LOGITS, [1.0, 5.0, 3.0, 5.0]), (each[0] + 3 * each[1]) / 2)
    close(loss([-1] * 4, LOGITS), 0)
    total = SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1, reduction="sum")
    close(total(y, LOGITS), each.sum())
    loss.check_labels(torch.tensor(y), (3,))


@pytest.mark.parametrize("ignored", [None, -1])
def test_a_number_of_no_class_is_an_error_that_names_its_row(ignored):
    loss = SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignored)
    told = "" if ignored is None else ", or -1 to be ignored"
    for bad, shown in ((3, "3"), (-2, "-2"), (0.5, "0.5")):
        y = torch.tensor([0, 1, bad, 2])
        message = f"^y must hold class numbers from 0 to 2{told}, got {shown} at row 2$"
        with pytest.raises(ValueError, match=message):
            loss.check_labels(y, (3,))
        with pytest.raises(ValueError, match=message):
            loss(y, LOGITS)


def test_one_hot_rows_and_class_numbers_are_told_apart():
    hot = torch.eye(3)[torch.tensor(NUMBERS)]
    with pytest.raises(ValueError, match=r"for one-hot rows there is categorical_crossentropy$"):
        SparseCategoricalCrossentropy().check_labels(hot, (3,))
    with pytest.raises(ValueError, match=r"^y_true of shape \(4, 3\) does not fit"):
        SparseCategoricalCrossentropy()(hot, LOGITS)
    with pytest.raises(ValueError, match=r"numbers there is sparse_categorical_crossentropy$"):
        CategoricalCrossentropy()(NUMBERS, LOGITS)


def test_targets_that_do_not_sum_to_1_weigh_the_classes():
    y = np.array([[2.0, 0.5, 0.0]])
    p = softmax(LOGITS[:1])
    expected = -(y * np.log(p)).sum()
    close(CategoricalCrossentropy(from_logits=True)(y, LOGITS[:1]), expected)
    close(CategoricalCrossentropy()(y, p), expected)


FUNCTIONS = [
    value
    for name, value in vars(losses).items()
    if isinstance(value, losses.LossFunction) and name == value.__name__
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_a_function_of_keras_is_its_class(function):
    assert type(losses.get(function)) is function.kind is losses.NAMES[function.__name__]
    assert pickle.loads(pickle.dumps(function)) is function
    assert function.__doc__.startswith(f"Returns {function.kind.__name__} of each sample: ")


def test_a_function_returns_a_value_a_sample_and_takes_its_settings_by_name():
    assert losses.mse(np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros((2, 2))).tolist() == [2.5, 12.5]
    assert losses.mae([1.0, 2.0], [0.0, 0.0]).tolist() == 1.5
    assert losses.huber([[3.0]], [[0.0]], delta=2.0).tolist() == [4.0]
    values = losses.sparse_categorical_crossentropy(NUMBERS, LOGITS, from_logits=True)
    np.testing.assert_allclose(values, -np.log(softmax(LOGITS)[range(4), NUMBERS]))


@pytest.mark.parametrize("value", [Huber(0.5), SparseCategoricalCrossentropy(True, -1, axis=1)])
def test_a_config_makes_the_same_loss(value):
    config = value.get_config()
    assert vars(type(value).from_config(config)) == vars(value)
    assert set(config) >= {"reduction", "name"}


def trained(loss, x, y, layer, start, **options):
    """The losses, kernel and bias after two epochs of gradient descent in batches of four."""
    model = Sequential([layer])
    model.set_weights(start)
    model.compile(optimizers.SGD(0.1), loss, engine="autograd")
    history = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, **options)
    return history.history["loss"], *model.get_weights()


def descended(x, y, kernel, bias, of_batch, epochs=2):
    """The same by hand: of_batch returns the loss and its derivative by z = x @ kernel + bias."""
    means = []
    for _ in range(epochs):
        total = 0.0
        for i in range(0, len(x), 4):
            loss, grad_z = of_batch(y[i : i + 4], x[i : i + 4] @ kernel + bias)
            total += loss * len(grad_z)
            kernel = kernel - 0.1 * x[i : i + 4].T @ grad_z
            bias = bias - 0.1 * grad_z.sum(0)
        means.append(total / len(x))
    return means, kernel, bias


def same_training(actual, expected):
    for ours, by_hand_ in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, by_hand_, rtol=1e-9)


@pytest.mark.parametrize("name", [*FORMULAS, "function"])
def test_training_follows_the_formula(name):
    rng = np.random.default_rng(0)
    loss, name = (losses.msle, "msle") if name == "function" else (name, name)
    x, y = rng.standard_normal((10, 3)), rng.choice(FORMULAS[name][0][1:], 10)
    start = [rng.standard_normal((3, 2)), rng.standard_normal(2)]
    y = np.stack([y, np.roll(y, 1)], 1)

    def of_batch(y, p):
        value, derivative = by_hand(name, y, p)
        return value.mean(), derivative / derivative.size

    layer = Dense(2, in_features=3, dtype=torch.float64)
    same_training(trained(loss, x, y, layer, start), descended(x, y, *start, of_batch))


@pytest.mark.parametrize("activation", ["softmax", None])
def test_training_with_class_numbers_follows_the_formula(activation):
    rng = np.random.default_rng(1)
    x, y = 5 * rng.standard_normal((10, 3)), rng.integers(4, size=10)
    start = [5 * rng.standard_normal((3, 4)), rng.standard_normal(4)]

    def of_batch(y, z):
        p = softmax(z)
        return -np.log(p[range(len(y)), y]).mean(), (p - np.eye(4)[y]) / len(y)

    loss = SparseCategoricalCrossentropy(from_logits=activation is None)
    layer = Dense(4, activation, in_features=3, dtype=torch.float64)
    same_training(trained(loss, x, y, layer, start), descended(x, y, *start, of_batch))


def test_class_numbers_stay_integers_on_the_way_to_the_loss():
    seen = []

    class Watched(SparseCategoricalCrossentropy):
        def per_sample(self, y_true, y_pred):
            seen.append(y_true.dtype)
            return super().per_sample(y_true, y_pred)

    y = np.array([0, 300, 257, 1])  # bfloat16 would make 256 of 257
    model = Sequential([Dense(301, "softmax", in_features=2, dtype=torch.bfloat16)])
    model.compile("sgd", Watched())
    for labels in (y, y.astype(np.float32), y[:, None]):
        model.fit(np.zeros((4, 2)), labels, verbose=0, class_weight={257: 2.5})
        model.evaluate(np.zeros((4, 2)), labels, verbose=0)
    assert set(seen) == {torch.int64}


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_losses_of_arrays_are_arrays(kind):
    y, p = np.array([[1, 0], [0, 1]], kind), np.array([[0.5, 0.25], [0.5, 1]], kind)
    each = losses.mae(y, p)
    np.testing.assert_allclose(each, [0.375, 0.25])
    assert np.mean(each, axis=0) == 0.3125
    assert each.dtype == kind
    total = losses.MeanAbsoluteError()(y, p)
    assert (float(total), total.numpy()) == (0.3125, 0.3125)
    assert f"{total:.2f}" == "0.31"
    assert isinstance(losses.mae(torch.tensor(y), p), torch.Tensor)
    assert isinstance(losses.MeanAbsoluteError()(y, torch.tensor(p)), torch.Tensor)


class Doubled(losses.Loss):
    def call(self, y_true, y_pred):
        return 2 * (y_true - y_pred).square()


class DoubledSamples(losses.Loss):
    def per_sample(self, y_true, y_pred):
        return 2 * (y_true - y_pred).square().mean(-1)


@pytest.mark.parametrize("kind", [Doubled, DoubledSamples])
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
def test_a_class_of_ones_own_gets_targets_with_the_axes_of_predictions(kind, reduction):
    y_true, y_pred, weight = np.arange(5), np.ones((5, 1), np.float32), [1, 0, 2, 0, 1]
    losses_of_samples = 2 * (y_true - 1.0) ** 2
    share = 1 if reduction == "sum" else 5
    loss = kind(reduction=reduction)
    close(loss(y_true, y_pred), losses_of_samples.sum() / share)
    close(loss(y_true, y_pred, weight), (losses_of_samples * weight).sum() / share)


def test_a_class_of_ones_own_gets_no_more_axes_than_predictions():
    assert Doubled("none")(np.array([[1], [3]]), np.ones(2)).tolist() == [0, 8]


@pytest.mark.parametrize("kind", [Doubled, DoubledSamples])
def test_a_class_of_ones_own_trains_and_measures(kind):
    x = torch.tensor([[1.0], [2.0], [4.0]])
    model = Sequential([Dense(1, kernel_initializer="zeros", in_features=1)])
    model.compile(optimizers.SGD(0.0), kind(), metrics=[kind(name="again")])
    history = model.fit(x, np.array([1, 2, 3]), sample_weight=np.array([1, 0, 1]), verbose=0)
    assert history.history["loss"] == [pytest.approx(2 * (1 + 9) / 3)]
    assert history.history["again"] == [pytest.approx(2 * (1 + 4 + 9) / 3)]


def test_a_class_of_ones_own_may_tell_apart_columns():
    class Gaussian(losses.Loss):
        def call(self, y_true, y_pred):
            mean, variance = y_pred[:, :1], y_pred[:, 1:]
            return (y_true - mean).square() / variance

    close(Gaussian()([1, 3], [[0.0, 1.0], [1.0, 2.0]]), (1 + 4 / 2) / 2)


def test_a_class_of_ones_own_on_top_of_a_loss_gets_predictions():
    class Tripled(BinaryCrossentropy):
        def call(self, y_true, y_pred):
            assert ((y_pred >= 0) & (y_pred <= 1)).all()
            return 3 * super().call(y_true, y_pred)

    model = Sequential([Dense(1, "sigmoid", in_features=1, kernel_initializer="ones")])
    model.compile("sgd", Tripled())
    wanted = 3 * math.log1p(math.exp(-2))
    assert model.evaluate([[2.0]], [1], verbose=0) == pytest.approx(wanted, rel=1e-6)


def test_a_class_without_values_is_refused():
    class Nothing(losses.Loss):
        pass

    class Forgetful(losses.Loss):
        def call(self, y_true, y_pred):
            y_true - y_pred

    with pytest.raises(TypeError, match=r"Nothing must have a method call\(self, y_true, y_pred\)"):
        Nothing()
    with pytest.raises(TypeError, match="Forgetful must return a tensor, got NoneType"):
        Forgetful()([1.0], [2.0])
    with pytest.raises(ValueError, match="does not fit"):
        Doubled()(np.zeros((3, 2, 2)), np.zeros((3, 1)))


@pytest.mark.parametrize("from_logits", [False, True])
def test_accuracy_of_a_binary_loss_is_element_by_element(from_logits):
    class Own(BinaryCrossentropy):
        def call(self, y_true, y_pred):
            return (y_true - y_pred).square().mean(-1)

    y_true, y_pred = torch.tensor([[1.0, 1, 0]]), torch.tensor([[0.9, 0.8, 0.7]])
    y_pred = y_pred.logit() if from_logits else y_pred
    for kind in (BinaryCrossentropy, BinaryFocalCrossentropy, Own):
        accuracy = metrics.get("accuracy", kind(from_logits=from_logits))
        assert accuracy.values(y_true, y_pred).tolist() == [[True, True, False]]
