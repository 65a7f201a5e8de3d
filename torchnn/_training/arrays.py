"""Arrays, tensors, data frames and lists of any library in; tensors out, wherever they lie."""

from array import ArrayType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.dlpack import from_dlpack

from torchnn import _checks

ARRAYS = (np.ndarray, np.generic, list, tuple, int, float, memoryview, ArrayType)
ARRAY_PROTOCOLS = ("__array__", "__array_interface__", "__array_struct__")
DLPACK_CPU = 1
NUMBERS = {*"biuf"}  # NumPy's kinds of truth values, integers and floats


def as_tensor(name: str, value: Any) -> Tensor:
    """Returns the value's numbers as a tensor, in whatever dtype and on whatever device they are.

    Takes tensors, what NumPy can read (arrays, data frames, data sets of h5py, lists), and other
    libraries' arrays on any device, by DLPack or the CUDA array interface.

    Raises:
        TypeError: The value is no array, or does not hold numbers.
        ValueError: Nested lists are ragged, or entries are masked or missing.
    """
    if isinstance(value, Tensor):
        return _plain(name, value)
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], Tensor):
        return _plain(name, torch.stack(list(value)))
    if hasattr(value, "__dlpack__") and not _is_for_numpy(value):
        return _plain(name, from_dlpack(value))
    if hasattr(value, "__cuda_array_interface__"):
        return _plain(name, torch.as_tensor(value, device="cuda"))
    return torch.from_numpy(_array(name, value))


def _is_for_numpy(value: Any) -> bool:
    """Whether NumPy can read an array that can also tell its device."""
    return hasattr(value, "__array__") and value.__dlpack_device__()[0] == DLPACK_CPU


def _plain(name: str, tensor: Tensor) -> Tensor:
    """Returns the tensor without its graph, refusing complex and sparse ones."""
    if tensor.layout != torch.strided or tensor.is_complex():
        raise TypeError(
            f"{name} must be a dense tensor of real numbers, got {tensor.layout}, {tensor.dtype}"
        )
    if type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__:
        tensor = tensor.as_subclass(Tensor)  # a class that adds methods alone, and takes time
    # What inference_mode made cannot be saved for a backward pass; a copy can.
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _array(name: str, value: Any) -> np.ndarray[Any, Any]:
    """Returns the value as a NumPy array that torch.from_numpy takes without a warning."""
    _check_kind(name, value)
    _checks.unmasked(name, value)
    _check_columns(name, value)
    try:
        array = np.asarray(value)
    except ValueError:
        if not isinstance(value, (list, tuple)):
            raise
        raise ValueError(f"{name} must be rectangular, got rows of different lengths") from None
    if array.dtype == object and hasattr(value, "isna"):
        _check_missing(name, value)
        array = array.astype(np.float64)  # numbers and truth values, or pandas' own integers
    if array.dtype.isbuiltin == 2:
        array = array.astype(np.float32)  # bfloat16 and its kind, which come with ml_dtypes
    if array.dtype.kind not in NUMBERS:
        raise TypeError(f"{name} must hold numbers, got dtype {array.dtype}")
    if array.dtype.kind == "u" and array.itemsize > 1:
        array = array.astype(np.float64)  # torch knows unsigned integers in part only
    native = array.dtype.newbyteorder("=") if array.itemsize < 16 else np.dtype(np.float64)
    return np.require(array, native, ["C", "W"])


def _check_kind(name: str, value: Any) -> None:
    """Raises TypeError unless NumPy can read the value, and says how to make it something else."""
    if isinstance(value, ARRAYS) or any(hasattr(value, each) for each in ARRAY_PROTOCOLS):
        return
    kind, call = type(value).__name__, name.split()[0]
    if isinstance(value, Dataset):
        raise TypeError(f"{name} is a Dataset: wrap it in a torch.utils.data.DataLoader")
    for method, of in (("toarray", "sparse"), ("collect", "not computed yet")):
        if hasattr(value, method):
            raise TypeError(f"{name} is {of}, a {kind}: pass {call}.{method}()")
    raise TypeError(
        f"{name} must be an array, a tensor, a data frame or lists of numbers, got {kind}"
    )


def _check_missing(name: str, value: Any) -> None:
    """Raises ValueError if a data frame or series of pandas has no value somewhere."""
    missing = np.asarray(value.isna())
    if missing.any():
        where = [name for name, each in _columns(value).items() if each.isna().any()]
        row = missing.reshape(len(missing), -1).any(1).argmax()
        raise ValueError(f"{name} must have no missing values, got NA at row {row}{_told(where)}")


def _check_columns(name: str, value: Any) -> None:
    """Raises TypeError if a column of a data frame holds no numbers, or a series of pandas."""
    columns = _columns(value)
    if not columns and hasattr(value, "isna"):
        columns = {str(getattr(value, "name", None) or ""): value}
    culprits = [label for label, column in columns.items() if not _holds_numbers(column)]
    if culprits:
        dtype = np.asarray(columns[culprits[0]]).dtype
        raise TypeError(f"{name} must hold numbers, got dtype {dtype}{_told(culprits)}")


def _columns(value: Any) -> dict[str, Any]:
    """The columns of a data frame or of Arrow's tables by their names; none of anything else."""
    names = getattr(value, "columns", [])
    if isinstance(names, list) and hasattr(value, "column_names"):
        names = value.column_names  # Arrow's; names of pandas and Polars are in columns
    return {str(name): value[name] for name in names}


def _holds_numbers(column: Any) -> bool:
    """By its own word, since missing values make NumPy's dtype object, or else by NumPy's."""
    kind = getattr(getattr(column, "dtype", None), "kind", "")
    return kind in NUMBERS or np.asarray(column).dtype.kind in NUMBERS


def _told(columns: list[str]) -> str:
    return f" (columns {', '.join(columns)})" if any(columns) else ""
