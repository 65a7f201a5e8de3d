"""TensorFlow's mathematics, in PyTorch: functions of tensors, arrays and numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from torchnn import _checks
from torchnn.tf._missing import said_of
from torchnn.tf._tensor import as_axes, as_dtype, as_tensor

__all__ = [
    "TopK",
    "abs",
    "add",
    "add_n",
    "argmax",
    "argmin",
    "ceil",
    "confusion_matrix",
    "cos",
    "count_nonzero",
    "cumsum",
    "divide",
    "divide_no_nan",
    "equal",
    "erf",
    "exp",
    "expm1",
    "floor",
    "floordiv",
    "floormod",
    "greater",
    "greater_equal",
    "is_finite",
    "is_inf",
    "is_nan",
    "l2_normalize",
    "less",
    "less_equal",
    "log",
    "log1p",
    "logical_and",
    "logical_not",
    "logical_or",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "pow",
    "reciprocal",
    "reduce_all",
    "reduce_any",
    "reduce_logsumexp",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_std",
    "reduce_sum",
    "reduce_variance",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "softplus",
    "sqrt",
    "square",
    "squared_difference",
    "subtract",
    "tan",
    "tanh",
    "top_k",
]

Function = Callable[..., Any]
__getattr__ = said_of(__name__)


def _of_one(name: str, function: Function) -> Function:
    def elementwise(x: Any, name: str | None = None) -> Any:
        return function(as_tensor(x))

    elementwise.__name__, elementwise.__doc__ = name, f"{name}(x), entry by entry."
    return elementwise


def _of_two(name: str, function: Function) -> Function:
    def elementwise(x: Any, y: Any, name: str | None = None) -> Any:
        return function(*alike(x, y))

    elementwise.__name__, elementwise.__doc__ = name, f"{name}(x, y), entry by entry."
    return elementwise


def alike(*values: Any) -> list[Any]:
    """Values as tensors; Python's numbers, and lists of them, are of the dtype of the tensors and
    arrays among them, but for floats beside integers, which would lose what is after the point."""
    like = next((as_tensor(v).dtype for v in values if hasattr(v, "dtype")), None)
    return [as_tensor(v, like if _suits(v, like) else None) for v in values]


def _suits(value: Any, like: Any) -> bool:
    """Whether a value is Python's numbers, which a dtype keeps as they are."""
    if like is None or not isinstance(value, (int, float, list, tuple)):
        return False
    return like.is_floating_point or not as_tensor(value).is_floating_point()


abs = _of_one("abs", torch.abs)
ceil = _of_one("ceil", torch.ceil)
cos = _of_one("cos", torch.cos)
erf = _of_one("erf", torch.erf)
exp = _of_one("exp", torch.exp)
expm1 = _of_one("expm1", torch.expm1)
floor = _of_one("floor", torch.floor)
is_finite = _of_one("is_finite", torch.isfinite)
is_inf = _of_one("is_inf", torch.isinf)
is_nan = _of_one("is_nan", torch.isnan)
log = _of_one("log", torch.log)
log1p = _of_one("log1p", torch.log1p)
logical_not = _of_one("logical_not", torch.logical_not)
negative = _of_one("negative", torch.negative)
reciprocal = _of_one("reciprocal", torch.reciprocal)
round = _of_one("round", torch.round)
rsqrt = _of_one("rsqrt", torch.rsqrt)
sigmoid = _of_one("sigmoid", torch.sigmoid)
sign = _of_one("sign", torch.sign)
sin = _of_one("sin", torch.sin)
softplus = _of_one("softplus", torch.nn.functional.softplus)
sqrt = _of_one("sqrt", torch.sqrt)
square = _of_one("square", torch.square)
tan = _of_one("tan", torch.tan)
tanh = _of_one("tanh", torch.tanh)

add = _of_two("add", torch.add)
divide = _of_two("divide", torch.true_divide)
equal = _of_two("equal", torch.eq)
floordiv = _of_two("floordiv", torch.floor_divide)
floormod = _of_two("floormod", torch.remainder)
greater = _of_two("greater", torch.greater)
greater_equal = _of_two("greater_equal", torch.greater_equal)
less = _of_two("less", torch.less)
less_equal = _of_two("less_equal", torch.less_equal)
logical_and = _of_two("logical_and", torch.logical_and)
logical_or = _of_two("logical_or", torch.logical_or)
maximum = _of_two("maximum", torch.maximum)
minimum = _of_two("minimum", torch.minimum)
multiply = _of_two("multiply", torch.multiply)
not_equal = _of_two("not_equal", torch.ne)
pow = _of_two("pow", torch.pow)
squared_difference = _of_two("squared_difference", lambda x, y: (x - y).square())
subtract = _of_two("subtract", torch.subtract)


def reduce_sum(input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The sum, over all axes or those given."""
    x = as_tensor(input_tensor)
    dtype = None if x.dtype == torch.bool else x.dtype
    return torch.sum(x, _all(x, axis), keepdims, dtype=dtype)


def reduce_mean(input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The mean, over all axes or those given; of integers too a float, unlike in TensorFlow."""
    x = _floating(input_tensor)
    return torch.mean(x, _all(x, axis), keepdims)


def reduce_std(input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The standard deviation, as NumPy has it: the sum is divided by the number of entries."""
    x = _floating(input_tensor)
    return torch.std(x, _all(x, axis), correction=0, keepdim=keepdims)


def reduce_variance(input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The variance, as NumPy has it: the sum is divided by the number of entries."""
    x = _floating(input_tensor)
    return torch.var(x, _all(x, axis), correction=0, keepdim=keepdims)


def reduce_max(input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The greatest entry, over all axes or those given."""
    x = as_tensor(input_tensor)
    return torch.amax(x, _all(x, axis), keepdims)


def reduce_min(input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The smallest entry, over all axes or those given."""
    x = as_tensor(input_tensor)
    return torch.amin(x, _all(x, axis), keepdims)


def reduce_prod(input_tensor: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """The product, over all axes or the one given."""
    x = as_tensor(input_tensor)
    return torch.prod(x) if axis is None else torch.prod(x, axis, keepdims)


def reduce_any(input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Whether any entry is true, over all axes or those given."""
    x = as_tensor(input_tensor)
    return torch.any(x, _all(x, axis), keepdims)


def reduce_all(input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Whether all entries are true, over all axes or those given."""
    x = as_tensor(input_tensor)
    return torch.all(x, _all(x, axis), keepdims)


def reduce_logsumexp(input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """log(sum(e^x)), over all axes or those given."""
    x = as_tensor(input_tensor)
    return torch.logsumexp(x, _all(x, axis), keepdims)


def argmax(input: Any, axis: int = 0, output_type: Any = torch.int64) -> Any:
    """The place of the greatest entry along an axis, the first one, unlike NumPy's."""
    return as_tensor(torch.argmax(as_tensor(input), axis), output_type)


def argmin(input: Any, axis: int = 0, output_type: Any = torch.int64) -> Any:
    """The place of the smallest entry along an axis, the first one, unlike NumPy's."""
    return as_tensor(torch.argmin(as_tensor(input), axis), output_type)


def cumsum(x: Any, axis: int = 0) -> Any:
    """The sums of the entries up to each one, along an axis."""
    x = as_tensor(x)
    return torch.cumsum(x, axis, dtype=x.dtype)


def l2_normalize(x: Any, axis: Any = None, epsilon: float = 1e-12) -> Any:
    """x / sqrt(max(sum(x^2), epsilon)) over all axes, or those given."""
    x = as_tensor(x)
    squares = (
        torch.sum(torch.square(x), as_axes(axis), keepdim=True)
        if axis is not None
        else torch.sum(torch.square(x))
    )
    return x * torch.rsqrt(torch.clamp(squares, min=epsilon))


def add_n(inputs: Any) -> Any:
    """The sum of several tensors of one shape."""
    return reduce_sum(torch.stack(list(map(as_tensor, inputs))), 0)


def divide_no_nan(x: Any, y: Any) -> Any:
    """x / y, and 0 where y is 0."""
    x, y = alike(x, y)
    is_zero = y == 0
    return torch.where(is_zero, 0, x / torch.where(is_zero, 1, y))


def count_nonzero(
    input: Any, axis: Any = None, keepdims: bool = False, dtype: Any = torch.int64
) -> Any:
    """How many entries are not 0, over all axes or those given."""
    return reduce_sum(as_tensor(as_tensor(input) != 0, dtype), axis, keepdims)


class TopK(NamedTuple):
    """The greatest entries, and where they are."""

    values: Any
    indices: Any


def top_k(input: Any, k: int = 1, sorted: bool = True, index_type: Any = torch.int32) -> TopK:
    """The k greatest entries along the last axis, from the greatest on; of equals, the first."""
    x = as_tensor(input)
    count = _checks.bounded_int("k", k, 0, x.shape[-1])
    places = torch.argsort(x, dim=-1, descending=True, stable=True)[..., :count]
    return TopK(torch.take_along_dim(x, places, -1), as_tensor(places, index_type))


def confusion_matrix(
    labels: Any, predictions: Any, num_classes: int | None = None, dtype: Any = torch.int32
) -> Any:
    """How often each class, a row, was taken for each class, a column.

    Args:
        labels: The true class numbers, shape (N,).
        predictions: Those that were predicted, shape (N,).
        num_classes: How many there are; the greatest number and 1 if None.
        dtype: The dtype of the counts.
    """
    rows, columns = as_tensor(labels, torch.int64), as_tensor(predictions, torch.int64)
    if num_classes is None:
        num_classes = int(torch.maximum(rows.max(), columns.max())) + 1
    if min(rows.min(), columns.min()) < 0 or max(rows.max(), columns.max()) >= num_classes:
        raise ValueError(
            f"labels and predictions must be class numbers from 0 to {num_classes - 1}"
        )
    counts = torch.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).to(as_dtype(dtype))


def _all(x: Any, axis: Any) -> Any:
    """The axes that are meant: all of them if None."""
    return tuple(range(x.ndim)) if axis is None else as_axes(axis)


def _floating(value: Any) -> Any:
    x = as_tensor(value)
    return x if x.dtype.is_floating_point else as_tensor(x, torch.get_default_dtype())
