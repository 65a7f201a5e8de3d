"""What is read as an array, and what is not."""

from array import array

import numpy as np
import pytest
import torch

from torchnn._engine.run import Form
from torchnn._training import arrays, data

ROWS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


@pytest.fixture
def form(device):
    return Form(torch.device(device), torch.float32)


def test_a_frame_of_numbers_and_truth_values_holds_numbers():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"age": [1.0, 2.5], "is_new": [True, False], "count": [3, 4]})
    assert arrays.as_tensor("x", frame).tolist() == [[1, 1, 3], [2.5, 0, 4]]


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
    monkeypatch.setattr(arrays, "from_dlpack", lambda value: value.tensor)
    assert arrays.as_tensor("x", CapsuleElsewhere(ROWS)).tolist() == ROWS


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
        arrays.as_tensor("x", table)


def test_a_lazy_frame_and_a_sparse_matrix_say_what_to_call():
    scipy = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"^x is sparse, a csr_array: pass x\.toarray\(\)$"):
        arrays.as_tensor("x", scipy.csr_array(ROWS))
    with pytest.raises(TypeError, match=r"^x is not .*, a LazyFrame: pass x\.collect\(\)$"):
        arrays.as_tensor("x", polars({"a": [1.0]}).lazy())


def test_masked_arrays_may_have_no_masked_entry(form):
    assert data.features("x", np.ma.array(ROWS), form).tolist() == ROWS
    with pytest.raises(ValueError, match=r"^y must have no masked entries, got 1: fill them"):
        data.rows("y", np.ma.array([0, 1, 0], mask=[0, 0, 1]), 3, form)


def test_of_a_tensor_that_adds_methods_alone_the_values_are_taken():
    class Named(torch.Tensor):
        pass

    rows = torch.tensor(ROWS)
    taken = arrays.as_tensor("x", rows.as_subclass(Named))
    assert type(taken) is torch.Tensor
    assert taken.data_ptr() == rows.data_ptr()
