"""What a metric is: a state, what a batch adds to it, and what it comes to.

Metric       any state; batch by batch
Summed       sums over the samples, those of many batches at once; what fit measures fast
Mean         two of them: values times weights, and weights
MeanMetric   the mean of a value per sample
"""

import copy
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import reduce
from numbers import Real
from operator import add
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from torchnn import _checks
from torchnn._config import Configured


class Variable(Tensor):
    """A tensor that can be assigned."""

    # What is computed of it is of the kind of the other side, such as a tensor of torchnn.tf.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def assign(self, value: Any) -> "Variable":
        """Takes the value in place of its own."""
        with torch.no_grad():
            self.copy_(torch.as_tensor(value))
        return self

    def assign_add(self, value: Any) -> "Variable":
        """Adds the value."""
        return self.assign(self.cpu() + torch.as_tensor(value).detach().cpu())

    def assign_sub(self, value: Any) -> "Variable":
        """Subtracts the value."""
        return self.assign(self.cpu() - torch.as_tensor(value).detach().cpu())

    def __deepcopy__(self, memo: dict[int, Any]) -> "Variable":
        return self.detach().clone().as_subclass(Variable)


class Metric(Configured, ABC):
    """A number, or several, for all samples since the last reset; weighted, if weights are given.

    One of your own has update_state, result and reset_state, as in Keras:

        class Hits(Metric):
            def __init__(self, name="hits"):
                super().__init__(name)
                self.hits = self.add_weight(name="hits")

            def update_state(self, y_true, y_pred, sample_weight=None):
                self.hits.assign_add((y_true == y_pred.round()).sum())

            def result(self):
                return self.hits

    fit, its validation and evaluate each work on a fresh copy: an object that compile was given
    stays as it is.

    Args:
        name: The key in History.history; the name of the class in snake_case if None.
        dtype: Ignored: sums are kept in float64.

    Attributes:
        is_weighted: Whether fit and evaluate give it sample weights: those among compile's
            weighted_metrics.
    """

    is_weighted = False
    takes_weights = True

    def __init__(self, name: str | None = None, dtype: Any = None):
        self.has_automatic_name = name is None
        self.name = _snake_case(type(self)) if name is None else _checks.string("name", name)
        self.dtype = dtype

    @abstractmethod
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes in a batch.

        Args:
            y_true: Targets, shape (N, ...).
            y_pred: Predictions, shape (N, ..., units) or (N,).
            sample_weight: Shape (N,), or the first axes of y_true; None for weights of 1.
        """

    @abstractmethod
    def result(self) -> Any:
        """Returns the value of all batches since the last reset."""

    def reset_state(self) -> None:
        """Forgets them: sets what add_weight has made to 0."""
        for value in vars(self).values():
            if isinstance(value, Variable):
                value.zero_()

    def add_weight(
        self,
        shape: Sequence[int] = (),
        initializer: Any = "zeros",
        dtype: Any = None,
        name: str | None = None,
    ) -> "Variable":
        """Returns a number, or an array of them, that begins as 0 and has assign_add."""
        if initializer not in ("zeros", None):
            raise ValueError(f'initializer must be "zeros", got {initializer!r}')
        zeros = torch.zeros(tuple(shape), dtype=torch.get_default_dtype(), device="cpu")
        return zeros.as_subclass(Variable)

    add_variable = add_weight

    def update(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Another name of update_state."""
        self.update_state(y_true, y_pred, sample_weight)

    def reset(self) -> None:
        """Another name of reset_state."""
        self.reset_state()

    def reset_states(self) -> None:
        """The old name of reset_state."""
        self.reset_state()

    def value(self) -> Any:
        """Returns the result, as what number takes."""
        return self.result()

    def fresh(self) -> "Metric":
        """Returns a copy that has seen nothing."""
        other = copy.deepcopy(self)
        other.reset_state()
        return other

    def rehearse(self, y_true: Any, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        """Raises what a batch of a sample like this would raise."""
        other = self.fresh()
        other.take_batch(y_true, y_pred, sample_weight)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = other.result()
        except Exception:  # one sample may be too few for it, where an epoch's are not
            return
        number(self.name, value)

    def take_batch(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Calls update_state, which need not know of weights unless there are some."""
        if sample_weight is None:
            self.update_state(y_true, y_pred)
        else:
            self.update_state(y_true, y_pred, sample_weight=sample_weight)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Takes in a batch, as update_state does, and returns the result."""
        self.update_state(*arguments, **named)
        return self.result()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"


class Parts(Protocol):
    """How samples lie in batches, and these in epochs.

    Attributes:
        samples: All of them.
        epoch_size: Samples an epoch.
        sizes: Samples in each batch.
    """

    @property
    def samples(self) -> int: ...

    @property
    def epoch_size(self) -> int: ...

    @property
    def sizes(self) -> list[int]: ...

    def reduce(self, values: Tensor, reduction: Callable[[Tensor, int], Tensor]) -> Tensor: ...


class OneBatch:
    """All samples are one batch, of one epoch."""

    def __init__(self, samples: int) -> None:
        self.samples = self.epoch_size = samples
        self.sizes = [samples]

    def reduce(self, values: Tensor, reduction: Callable[[Tensor, int], Tensor]) -> Tensor:
        return reduction(values.unsqueeze(0), 1)


class Summed(Metric):
    """A metric whose state is sums over samples: a few tensor operations sum up many batches.

    Attributes:
        totals: The sums so far, numbers or arrays; nothing before the first batch. They are
            replaced as one, so that another thread may ask for the value meanwhile.
    """

    def __init__(self, name: str | None = None, dtype: Any = None):
        super().__init__(name, dtype)
        self.totals: list[Any] = []

    @abstractmethod
    def sums(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, batches: Parts
    ) -> list[Tensor]:
        """Returns what is to be added to each of the totals.

        Args:
            y_true: As in update_state.
            y_pred: As in update_state, floating point.
            sample_weight: As in update_state.
            batches: How the samples lie in batches.

        Returns:
            For a total that is a number, shape (batches,); for an array of S, (batches, S), or
            (epochs, S) where the order of the additions does not matter. Floats of 64 bits.
        """

    @abstractmethod
    def value_of(self, totals: list[Any]) -> Any:
        """Returns what totals, of which there are some, come to: a float or an array."""

    def value(self) -> Any:
        totals = self.totals
        return self.value_of(totals) if totals else 0.0

    def take(self, sums: Sequence[Sequence[Any]], samples: int) -> None:
        """Adds to the totals, one after the other, so that how an epoch is cut into runs does not
        change how they are rounded.

        Args:
            sums: For each total, what sums has returned, as a list of numbers or of arrays.
            samples: How many samples that is.
        """
        before = self.totals or [0.0] * len(sums)
        self.totals = [reduce(add, each, total) for each, total in zip(sums, before, strict=True)]

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = aligned(y_true, y_pred)
        weight = _weight(sample_weight, len(y_pred))
        with torch.no_grad():
            sums = self.sums(y_true, y_pred, weight, OneBatch(len(y_pred)))
        self.take([listed(each) for each in sums], len(y_pred))

    def result(self) -> Tensor:
        """Returns the value of all batches since the last reset: a scalar tensor, 0 if there were
        none, or one of several numbers."""
        return torch.as_tensor(self.value(), dtype=torch.get_default_dtype(), device="cpu")

    def reset_state(self) -> None:
        self.totals = []

    def fresh(self) -> "Metric":
        other = copy.copy(self)
        other.reset_state()
        return other


class Mean(Summed):
    """sum(w v) / sum(w), of values v and their weights w, which are 1 if there are none.

    Of several values a sample, the mean counts.
    """

    def __init__(self, name: str | None = "mean", dtype: Any = None):
        super().__init__(name, dtype)

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        values = _values(values)
        weight = _weight(sample_weight, len(values))
        with torch.no_grad():
            sums = mean_sums(values, weight, OneBatch(len(values)))
        self.take([listed(each) for each in sums], len(values))

    def sums(self, *_: Any) -> list[Tensor]:
        raise TypeError(f"{self.name} is of values that you give it, not of predictions")

    def take(self, sums: Sequence[Sequence[Any]], samples: int) -> None:
        total, count = self.totals or (0.0, 0.0)
        count = reduce(add, sums[1], count) if len(sums) > 1 else count + samples
        self.totals = [reduce(add, sums[0], total), count]

    def value_of(self, totals: list[Any]) -> float:
        total, count = totals
        return total / count if count else 0.0


class Sum(Mean):
    """sum(w v), of values v and their weights w, which are 1 if there are none."""

    def __init__(self, name: str | None = "sum", dtype: Any = None):
        super().__init__(name, dtype)

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        values = _values(values)
        weight = _weight(sample_weight, len(values))
        if weight is not None:
            values = values * _as_factor(weight, values)
        super().update_state(values.double().flatten(1).sum(1) if values.ndim > 1 else values)

    def value_of(self, totals: list[Any]) -> float:
        return totals[0]


class MeanMetric(Mean):
    """The mean over the samples of a value that each of them has by itself."""

    @abstractmethod
    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Returns the values of each sample, of which the mean counts.

        Args:
            y_true: Targets, shaped like y_pred, or (N,) against (N, 1).
            y_pred: Predictions, shape (N, ..., units) or (N,), floating point.

        Returns:
            Shape (N, ...).
        """

    update_state = Summed.update_state  # type: ignore[assignment]

    def sums(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None, batches: Parts
    ) -> list[Tensor]:
        values = of_samples(self.name, self.values(y_true, y_pred), y_pred)
        return mean_sums(values, sample_weight, batches)


def of_samples(name: str, values: Any, y_pred: Tensor) -> Tensor:
    """Returns what a metric says of each sample; one value is that of all of them.

    Args:
        name: The metric's.
        values: What its function returned.
        y_pred: The predictions that these are of.

    Raises:
        TypeError: They are no numbers.
        ValueError: There are more or fewer than samples.
    """
    if not isinstance(values, Tensor):
        values = _as_values(name, values, y_pred.device)
    if len(values.shape) and len(values) == len(y_pred):
        return values
    if values.numel() == 1:
        return values.reshape(1).expand(len(y_pred))
    raise ValueError(
        f"metric {name} must return one value per sample, {len(y_pred)} of them, or one for all, "
        f"got shape {tuple(values.shape)}"
    )


def _as_values(name: str, values: Any, device: torch.device) -> Tensor:
    """An array or a number as a tensor."""
    if isinstance(values, Real) or hasattr(type(values), "__array__"):
        try:
            return torch.as_tensor(values, device=device)
        except (TypeError, RuntimeError, ValueError):
            pass  # an array of strings, say
    count = f" of {len(values)}" if isinstance(values, (list, tuple)) else ""
    raise TypeError(
        f"metric {name} must return a tensor, an array or a number, "
        f"got {type(values).__name__}{count}"
    )


def listed(sums: Tensor) -> list[Any]:
    """Numbers as a list of them, rows as a list of arrays."""
    return sums.tolist() if sums.ndim == 1 else list(sums.cpu().numpy())


def number(name: str, value: Any) -> Any:
    """Returns what a metric has computed as a float, or as an array if it is several numbers."""
    if isinstance(value, float):
        return value
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.ndim < 2:
        return float(value.reshape(())) if value.size == 1 else value
    if not isinstance(value, Real):
        shape = f" of shape {value.shape}" if isinstance(value, np.ndarray) else ""
        raise TypeError(
            f"metric {name} must compute a number or a row of them, "
            f"got {type(value).__name__}{shape}"
        )
    return float(value)


def aligned(y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
    """Tensors of both, predictions in floating point; targets may have an axis of 1 too many."""
    y_true, y_pred = _checks.tensor("y_true", y_true), _checks.tensor("y_pred", y_pred)
    if not y_pred.is_floating_point():
        y_pred = y_pred.to(torch.get_default_dtype())
    if y_true.shape == (*y_pred.shape, 1):
        y_true = y_true.squeeze(-1)
    return y_true, y_pred.detach()


def spread(sample_weight: Tensor, values: Tensor) -> Tensor:
    """Weights of the first axes of values, one for each of them."""
    return _as_factor(sample_weight, values).expand_as(values)


def mean_sums(values: Tensor, weight: Tensor | None, batches: Parts) -> list[Tensor]:
    """Of each batch, the sum of values times weights and that of the weights, if there are any."""
    if weight is None:
        return [batches.reduce(_mean_of_rest(values).double(), torch.sum)]
    if values.ndim > weight.ndim:
        values = _wide(values).flatten(weight.ndim).mean(-1)
    factor = _as_factor(weight, values).to(torch.float64)
    weighted = _mean_of_rest(values * factor), _mean_of_rest(factor.expand_as(values))
    return [batches.reduce(each.double(), torch.sum) for each in weighted]


def _mean_of_rest(values: Tensor) -> Tensor:
    """The mean over all axes but the first, in float32 or wider."""
    return _wide(values).flatten(1).mean(1) if values.ndim > 1 else _wide(values)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _values(values: Any) -> Tensor:
    """Values as a tensor of one or more axes."""
    values = _checks.tensor("values", values)
    return values.detach().reshape(1) if values.ndim == 0 else values.detach()


def _weight(sample_weight: Any, samples: int) -> Tensor | None:
    """Sample weights as a tensor; one for all is one for each."""
    if sample_weight is None:
        return None
    weight = _checks.tensor("sample_weight", sample_weight)
    return weight.expand(samples) if weight.ndim == 0 else weight


def _as_factor(weight: Tensor, values: Tensor) -> Tensor:
    """Weights of the first axes of values, as a factor of them."""
    axes = tuple(weight.shape)
    if axes != values.shape[: len(axes)] and axes[-1] == 1:
        axes = axes[:-1]
    if axes != values.shape[: len(axes)]:
        raise ValueError(
            f"sample_weight of shape {tuple(weight.shape)} does not fit "
            f"values of shape {tuple(values.shape)}: one weight per sample"
        )
    return weight.to(values.device).reshape(*axes, *[1] * (values.ndim - len(axes)))


def _snake_case(kind: type) -> str:
    """TruePositives as true_positives, AUC as auc."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()
