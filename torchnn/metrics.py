"""Metrics: what fit and evaluate report beside the loss.

Metric        one value per sample; reported is their mean
Accumulator   a value of all samples together, such as the area under a curve
"""

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from torchnn import _checks
from torchnn.losses import TorchLoss

__all__ = [
    "NAMES",
    "Accumulator",
    "Accuracy",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "FunctionMetric",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "TorchAccumulator",
    "TorchMetric",
    "get",
]


class Metric(ABC):
    """A value per sample; what is reported is the mean over the samples.

    Args:
        name: The key in History.history.

    Attributes:
        is_per_sample: Whether a sample's value is its own, so that several batches may be measured
            at once.
    """

    is_per_sample = True

    def __init__(self, name: str):
        self.name = _checks.string("name", name)

    @abstractmethod
    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns one value per sample.

        Args:
            y_true: Targets, shaped like y_pred, or (N,) against (N, 1).
            y_pred: Predictions, shape (N, ..., units) or (N,).

        Returns:
            Shape (N,), floating point.
        """

    def __call__(self, y_true: Any, y_pred: Any) -> Tensor:
        """Returns the mean over the samples, a scalar. Takes tensors or arrays."""
        y_true, y_pred = _checks.tensor("y_true", y_true), _checks.tensor("y_pred", y_pred)
        return self.per_sample(y_true, y_pred).mean()

    def rehearse(self, y_true: Any, y_pred: Tensor) -> None:
        """Raises what measuring a sample like this would raise."""
        self(y_true, y_pred)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"


class Accumulator(ABC):
    """A value of all samples since the last reset, which is no mean over them.

    It is updated batch by batch; its result is asked for at the end of an epoch, or after a batch
    if a callback looks at each. fit, its validation and evaluate each work on a fresh copy.

    Args:
        name: The key in History.history.
    """

    def __init__(self, name: str):
        self.name = _checks.string("name", name)

    @abstractmethod
    def update(self, y_true: Tensor, y_pred: Tensor) -> None:
        """Takes in a batch.

        Args:
            y_true: Targets, shape (N, ...).
            y_pred: Predictions, shape (N, ..., units) or (N,).
        """

    @abstractmethod
    def result(self) -> float:
        """Returns the value of all batches since the last reset."""

    @abstractmethod
    def reset(self) -> None:
        """Forgets them."""

    def fresh(self) -> "Accumulator":
        """Returns a copy that has seen nothing."""
        other = copy.deepcopy(self)
        other.reset()
        return other

    def __call__(self, y_true: Any, y_pred: Any) -> float:
        """Returns the value of these samples alone. Takes tensors or arrays."""
        other = self.fresh()
        other.update(_checks.tensor("y_true", y_true), _checks.tensor("y_pred", y_pred))
        return other.result()

    def rehearse(self, y_true: Any, y_pred: Tensor) -> None:
        """Raises what a batch of a sample like this would raise."""
        other = self.fresh()
        other.update(y_true, y_pred)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"


class BinaryAccuracy(Metric):
    """The share of outputs that are on the target's side of the threshold."""

    def __init__(self, name: str = "binary_accuracy", threshold: float = 0.5):
        super().__init__(name)
        self.threshold = _checks.number("threshold", threshold)

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        decided = (y_pred > self.threshold).to(y_pred.dtype)
        return _mean_of_outputs(decided == _checks.matched(y_true, y_pred))


class CategoricalAccuracy(Metric):
    """Whether the largest output is the target's class.

    Targets are rows of probabilities, shape (N, classes), or class numbers, (N,) or (N, 1).
    """

    def __init__(self, name: str = "categorical_accuracy"):
        super().__init__(name)

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        decided = y_pred.argmax(-1)
        if y_true.shape in (decided.shape, (*decided.shape, 1)):
            classes = y_true.reshape(decided.shape)
        else:
            classes = _checks.matched(y_true, y_pred).argmax(-1)
        return _mean_of_outputs(decided == classes.to(decided.device))


class Accuracy(Metric):
    """Binary accuracy for one output, categorical accuracy for several."""

    def __init__(self, name: str = "accuracy"):
        super().__init__(name)
        self._binary = BinaryAccuracy()
        self._categorical = CategoricalAccuracy()

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        one_output = y_pred.ndim == 1 or y_pred.shape[-1] == 1
        return (self._binary if one_output else self._categorical).per_sample(y_true, y_pred)


class MeanSquaredError(Metric):
    """(y_true - y_pred)^2, averaged over the outputs."""

    def __init__(self, name: str = "mean_squared_error"):
        super().__init__(name)

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return _mean_of_outputs((_checks.matched(y_true, y_pred) - y_pred).square())


class MeanAbsoluteError(Metric):
    """|y_true - y_pred|, averaged over the outputs."""

    def __init__(self, name: str = "mean_absolute_error"):
        super().__init__(name)

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return _mean_of_outputs((_checks.matched(y_true, y_pred) - y_pred).abs())


class FunctionMetric(Metric):
    """A plain function of (y_true, y_pred) as a metric.

    Args:
        function: Returns one value per sample or per prediction, or one for the batch; a tensor, an
            array or a number.
        name: The key in History.history; the function's own name if None.
    """

    is_per_sample = False  # who knows: it is called for each batch

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], name: str | None = None):
        if name is None:
            name = str(getattr(function, "__name__", type(function).__name__))
        super().__init__(name)
        self.function = function

    def per_sample(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        values = torch.as_tensor(self._measure(y_true, y_pred), device=y_pred.device)
        return values.expand(len(y_pred)) if values.ndim == 0 else _mean_of_outputs(values)

    def _measure(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self.function(_checks.matched(y_true, y_pred), y_pred)


class TorchMetric(FunctionMetric):
    """A module of (y_pred, y_true), such as `nn.L1Loss()`, as a metric.

    Args:
        function: The module. It gets what it would get as a loss.
        name: The key in History.history; the name of the module's class if None.
    """

    function: Any  # mypy knows it as a function

    def _measure(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return TorchLoss(self.function).per_sample(y_true, y_pred)


class TorchAccumulator(Accumulator):
    """An object with update(y_pred, y_true), compute and reset, such as those of torchmetrics.

    Predictions of shape (N, 1) and their targets go in with shape (N,); class numbers, shape (N,)
    or (N, 1) against predictions of shape (N, classes), with shape (N,). Class numbers are
    integers, and so are all targets of metrics for classification.

    Args:
        metric: The object. It stays as it is: copies of it measure.
        name: The key in History.history; the name of the object's class if None.
    """

    def __init__(self, metric: Any, name: str | None = None):
        super().__init__(type(metric).__name__ if name is None else name)
        self.metric = metric

    def update(self, y_true: Tensor, y_pred: Tensor) -> None:
        if getattr(self.metric, "device", y_pred.device) != y_pred.device:
            self.metric.to(y_pred.device)
        self.metric.update(*_as_pytorch_has_them(self.metric, y_true, y_pred))

    def result(self) -> float:
        return _number(self.name, self.metric.compute())

    def reset(self) -> None:
        self.metric.reset()

    def rehearse(self, y_true: Any, y_pred: Tensor) -> None:
        other: Any = self.fresh()
        other.update(y_true, y_pred)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = other.metric.compute()
        except Exception:  # one sample may be too few for it, where an epoch's are not
            return
        _number(self.name, value)


NAMES: dict[str, Callable[[str], Metric]] = {
    "accuracy": Accuracy,
    "acc": Accuracy,
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
}


def get(value: Any) -> Metric | Accumulator:
    """Returns the metric of this name, the metric itself, or a function of (y_true, y_pred) as one.

    An `nn.Module` is called PyTorch's way round, with (y_pred, y_true); so is an object with
    update, compute and reset, such as those of torchmetrics, which is computed of whole epochs.

    A metric that was asked for by name keeps the spelling as its own name: "acc" is reported as
    "acc".

    Raises:
        ValueError: Unknown name.
        TypeError: No metric, a class that was not instantiated, or a function of (y_pred, y_true).
    """
    if isinstance(value, str):
        name = _checks.find("metric", value, NAMES)
        return NAMES[name](name)
    metric = _checks.admit("metric", value, NAMES, lambda v: callable(v) or _accumulates(v))
    _checks.takes_targets_first("metric", metric)
    if isinstance(metric, (Metric, Accumulator)):
        return metric
    if _accumulates(metric):
        return TorchAccumulator(metric)
    return TorchMetric(metric) if isinstance(metric, nn.Module) else FunctionMetric(metric)


def _number(name: str, value: Any) -> float:
    """What a metric has computed, as a number."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    if not isinstance(value, Real):
        shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
        raise TypeError(f"metric {name} must compute one number, got {type(value).__name__}{shape}")
    return float(value)


def _accumulates(value: Any) -> bool:
    """Whether a value has the methods of torchmetrics."""
    return all(callable(getattr(value, name, None)) for name in ("update", "compute", "reset"))


def _as_pytorch_has_them(metric: Any, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    """Returns predictions and targets, in this order, in the shapes and dtypes of torchmetrics."""
    if y_pred.ndim == 2 and y_pred.shape[1] == 1:
        y_pred = y_pred.squeeze(1)
    if y_true.ndim == 2 and y_true.shape[1] == 1:
        y_true = y_true.squeeze(1)
    if y_pred.ndim == 2 and y_true.ndim == 1:
        return y_pred, _whole(y_true, y_pred)
    y_true = _checks.matched(y_true, y_pred)
    if not _is_for_classes(metric):
        return y_pred, y_true
    if y_pred.ndim == 2 and hasattr(metric, "num_classes"):
        return y_pred, y_true.argmax(1)  # of rows of probabilities
    return y_pred, _whole(y_true, y_pred)


def _is_for_classes(metric: Any) -> bool:
    """Whether a metric, or one that it is made of, is one for classification."""
    parts = metric.modules() if isinstance(metric, nn.Module) else [metric]
    kinds = [kind.__module__.split(".") for part in parts for kind in type(part).__mro__]
    return any("classification" in kind for kind in kinds)


def _whole(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Targets as integers."""
    whole = y_true.to(y_pred.device, torch.int64)
    if not torch.equal(whole.to(y_true), y_true):
        raise ValueError("y must hold whole numbers for a metric of classes")
    return whole


def _mean_of_outputs(values: Tensor) -> Tensor:
    """The mean over all axes but the first, in float32 or wider."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    return values.flatten(1).mean(1) if values.ndim > 1 else values
