"""What fit, evaluate and predict take for x, y and weights."""

from array import array

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


def test_a_frame_of_numbers_and_truth_values_holds_numbers():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"age": [1.0, 2.5], "is_new": [True, False], "count": [3, 4]})
    assert data.as_tensor("x", frame).tolist() == [[1, 1, 3], [2.5, 0, 4]]


class Array:
    """An array of another library, which NumPy can read; it counts how often."""

    def __init__(self, value):
        self.value, self.reads = np.array(value), 0

    def __array__(self, dtype=None, copy=None):
        self.reads += 1
        return self.value


class Interface:
    def __init__(self, value):
        self.value = np.array(value)
        self.__array_interface__ = self.value.__array_interface__


class Capsule:
    """A tensor of another library that says where it is."""

    def __init__(self, value):
        self.tensor = torch.tensor(value)

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


class CapsuleElsewhere(Capsule):
    """One that NumPy could read, but only after a copy to the host."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("implicit conversion to a host array is not allowed")

    def __dlpack_device__(self):
        return 2, 0  # CUDA's first


def arrow(kind):
    def make(columns):
        pyarrow = pytest.importorskip("pyarrow")
        return getattr(pyarrow, kind)(columns)

    return make


def polars(columns):
    return pytest.importorskip("polars").DataFrame(columns)


def h5py(columns):
    file = pytest.importorskip("h5py").File("rows.h5", "w", driver="core", backing_store=False)
    return file.create_dataset("x", data=np.stack([*columns.values()], 1))


def xarray(columns):
    return pytest.importorskip("xarray").DataArray(ROWS)


def nullable(columns):
    return pytest.importorskip("pandas").DataFrame(columns).convert_dtypes()


def bfloat16(columns):
    return np.array(ROWS).astype(pytest.importorskip("ml_dtypes").bfloat16)


FOREIGN = {
    "__array__": lambda columns: Array(ROWS),
    "__array_interface__": lambda columns: Interface(ROWS),
    "DLPack": lambda columns: Capsule(ROWS),
    "buffer": lambda columns: memoryview(np.array(ROWS)),
    "array.array": lambda columns: [array("d", row) for row in ROWS],
    "Arrow's table": arrow("table"),
    "Arrow's batch": arrow("record_batch"),
    "Polars": polars,
    "h5py": h5py,
    "xarray": xarray,
    "pandas' own integers": nullable,
    "bfloat16": bfloat16,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_arrays_of_other_libraries_are_read(name, form):
    value = FOREIGN[name]({"a": [1, 3, 5], "b": [2.0, 4.0, 6.0]})
    assert data.features("x", value, form).tolist() == ROWS


def test_what_lies_elsewhere_is_read_once(form):
    x, y, weight = Array(ROWS), Array([0.0, 1.0, 0.0]), Array([1.0, 2.0, 3.0])
    data.samples(form, x, y, weight)
    assert [each.reads for each in (x, y, weight)] == [1, 1, 1]


def test_an_array_on_a_device_is_not_copied_to_the_host(monkeypatch):
    monkeypatch.setattr(data, "from_dlpack", lambda value: value.tensor)
    assert data.as_tensor("x", CapsuleElsewhere(ROWS)).tolist() == ROWS


def test_columns_of_series_and_arrays_of_arrow_and_polars(form):
    for make in ("pyarrow.array", "polars.Series"):
        library, kind = make.split(".")
        y = getattr(pytest.importorskip(library), kind)([True, False, True])
        assert data.rows("y", y, 3, form).tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("make", [arrow("table"), polars], ids=["Arrow", "Polars"])
def test_columns_that_hold_no_numbers_are_named(make):
    day = np.datetime64("2000-01-01").astype(object)
    table = make({"age": [1.0, 2.0], "city": ["a", "b"], "born": [day, day]})
    with pytest.raises(TypeError, match=r"^x must hold numbers, got .* \(columns city, born\)$"):
        data.as_tensor("x", table)


def test_a_lazy_frame_and_a_sparse_matrix_say_what_to_call():
    scipy = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"^x is sparse, a csr_array: pass x\.toarray\(\)$"):
        data.as_tensor("x", scipy.csr_array(ROWS))
    with pytest.raises(TypeError, match=r"^x is not .*, a LazyFrame: pass x\.collect\(\)$"):
        data.as_tensor("x", polars({"a": [1.0]}).lazy())


def test_masked_arrays_may_have_no_masked_entry(form):
    assert data.features("x", np.ma.array(ROWS), form).tolist() == ROWS
    with pytest.raises(ValueError, match=r"^y must have no masked entries, got 1: fill them"):
        data.rows("y", np.ma.array([0, 1, 0], mask=[0, 0, 1]), 3, form)


def test_no_samples_are_samples_where_that_is_said(form):
    form = Form(form.device, form.dtype, (2,))
    assert data.samples(form, np.empty((0, 2)), may_be_empty=True).x.shape == (0, 2)
    with pytest.raises(ValueError, match=r"^x must have 2 features"):
        data.samples(form, np.empty((0, 3)), may_be_empty=True)
    with pytest.raises(ValueError, match=r"^x must hold at least one sample, got shape \(3, 0\)"):
        data.samples(Form(form.device, form.dtype), np.empty((3, 0)), may_be_empty=True)
