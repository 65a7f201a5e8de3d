"""What fit, evaluate and predict take for x, y and weights."""

import dataclasses

import numpy as np
import pytest
import torch

from torchnn._engine.run import Form
from torchnn._training import data

ROWS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


@pytest.fixture
def form(device):
    return Form(torch.device(device), torch.float32)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "value",
    [
        ROWS,
        tuple(map(tuple, ROWS)),
        np.array(ROWS),
        np.array(ROWS, dtype=np.float16),
        np.array(ROWS, dtype=np.longdouble),
        np.array(ROWS, dtype=np.int8),
        np.array(ROWS, dtype=np.uint8),
        np.array(ROWS, dtype=np.uint16),
        np.array(ROWS, dtype=np.uint64),
        np.array(ROWS, dtype=">f8"),
        np.asfortranarray(ROWS),
        np.array(ROWS)[::-1][::-1],
        read_only(np.array(ROWS, dtype=np.float32)),
        torch.tensor(ROWS),
        torch.tensor(ROWS, dtype=torch.float64),
        torch.tensor(ROWS, dtype=torch.int64),
        torch.tensor(ROWS, requires_grad=True),
        torch.tensor(ROWS).t().contiguous().t(),
        torch.nn.Parameter(torch.tensor(ROWS)),
        [torch.tensor(row) for row in ROWS],
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}",
)
def test_anything_made_of_numbers_becomes_the_models_dtype(value, form):
    x = data.features("x", value, form)
    assert type(x) is torch.Tensor
    assert (x.dtype, x.device.type) == (torch.float32, form.device.type)
    assert not x.requires_grad
    assert x.is_contiguous()
    assert x.tolist() == ROWS


def test_data_frames_and_series_are_read(form):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 3, 5], "b": [2.0, 4.0, 6.0], "y": [True, False, True]})
    samples = data.samples(form, frame[["a", "b"]], frame["y"])
    assert samples.x.tolist() == ROWS
    assert samples.y.tolist() == [1.0, 0.0, 1.0]


def test_inference_tensors_can_be_trained_on(form):
    with torch.inference_mode():
        value = torch.tensor(ROWS)
    x = data.features("x", value, form)
    assert not x.is_inference()


def test_data_of_the_right_kind_is_not_copied():
    array = np.array(ROWS, dtype=np.float32)
    x = data.features("x", array, Form(torch.device("cpu"), torch.float32))
    assert x.data_ptr() == array.ctypes.data


def test_n_numbers_are_n_samples_for_a_model_of_one_feature(form):
    one_feature = Form(form.device, form.dtype, (1,))
    assert data.features("x", [1, 2, 3], one_feature).tolist() == [[1.0], [2.0], [3.0]]


def test_targets_keep_their_shape(form):
    assert data.samples(form, ROWS, [0, 1, 0]).y.shape == (3,)
    assert data.samples(form, ROWS, [[0], [1], [0]]).y.shape == (3, 1)


def test_sample_weights_may_come_as_a_column(form):
    weight = data.samples(form, ROWS, [0, 1, 0], sample_weight=[[1], [2], [0]]).weight
    assert weight.tolist() == [1.0, 2.0, 0.0]


@pytest.mark.parametrize("y", [[0, 2, 1], [[0], [2], [1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]]])
def test_class_weights_go_by_the_label_and_are_1_by_default(y, form):
    weight = data.samples(form, ROWS, y, class_weight={0: 3.0, 2: 0.5}).weight
    assert weight.tolist() == [3.0, 0.5, 1.0]


@pytest.mark.parametrize("to_key", [int, float, np.int64, np.float32, torch.tensor])
@pytest.mark.parametrize("y", [[-1.0, 1.0, -1.0], [[-1], [1], [-1]]])
def test_labels_of_class_weights_may_be_any_whole_numbers(y, to_key, form):
    class_weight = {to_key(-1): 3.0, to_key(1): 0.5}
    assert data.samples(form, ROWS, y, class_weight=class_weight).weight.tolist() == [3, 0.5, 3]


def test_labels_of_class_weights_may_be_those_of_a_column(form):
    for y in (np.array([0.0, 1.0, 1.0]), np.array([False, True, True])):
        class_weight = dict(zip(np.unique(y), [1.0, 2.0], strict=True))
        assert data.samples(form, ROWS, y, class_weight=class_weight).weight.tolist() == [1, 2, 2]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_models_dtype_rules(dtype):
    form = Form(torch.device("cpu"), dtype)
    assert data.features("x", np.float32(ROWS), form).dtype == dtype


def test_a_sum_that_overflows_is_no_infinity(form):
    x = torch.full((4, 1), 2e38)
    assert data.features("x", x, form).tolist() == x.tolist()


def test_no_samples_are_samples_where_that_is_said(form):
    form = Form(form.device, form.dtype, (2,))
    assert data.samples(form, np.empty((0, 2)), may_be_empty=True).x.shape == (0, 2)
    with pytest.raises(ValueError, match=r"^x must have 2 features"):
        data.samples(form, np.empty((0, 3)), may_be_empty=True)
    with pytest.raises(ValueError, match=r"^x must hold at least one sample, got shape \(3, 0\)"):
        data.samples(Form(form.device, form.dtype), np.empty((3, 0)), may_be_empty=True)


@pytest.mark.parametrize(
    "value",
    [
        np.array([0, 300, 2**40]),
        np.array([0.0, 300.0, 2.0**40]),
        np.array([0, 300, 2**40], np.uint64),
        torch.tensor([0, 300, 2**40]),
        [0, 300, 2**40],
    ],
)
def test_labels_become_integers_and_nothing_is_rounded(value, device):
    form = Form(torch.device(device), torch.float16, labels=True)
    y = data.rows("y", value, 3, form)
    assert (y.dtype, y.device.type, y.tolist()) == (torch.int64, form.device.type, [0, 300, 2**40])


def test_what_is_no_whole_number_stays_what_it_is(form):
    form = dataclasses.replace(form, labels=True)
    assert data.rows("y", [0.5, 1e30, 2], 3, form).dtype == form.dtype
    assert data.rows("y", [True, False], 2, form).tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"^y must be finite in float32, got nan at row 1$"):
        data.rows("y", [0.0, np.nan], 2, form)


def test_weights_of_integer_labels_are_no_integers(form):
    form = dataclasses.replace(form, labels=True)
    samples = data.samples(form, ROWS, [0, 1, 2], class_weight={1: 0.5, 2: 2})
    assert (samples.weight.dtype, samples.weight.tolist()) == (form.dtype, [1, 0.5, 2])
