"""Functions as losses, PyTorch's modules among them, and losses as functions."""

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from torchnn import _array, _checks
from torchnn.losses._base import IGNORED, Loss, returned
from torchnn.losses._crossentropy import check_class_numbers, check_probabilities
from torchnn.ops import Kernel


class FunctionLoss(Loss):
    """A plain function of (y_true, y_pred) as a loss.

    Args:
        function: Returns one value per sample, or one per prediction, or, where no sample weights
            are needed, a scalar.
        reduction: "sum_over_batch_size", "sum" or "none".
        name: What the loss is called in messages.
        takes_labels: Targets are class numbers, of any shape: the function gets them as they are.
            Otherwise they must have the shape of predictions, or (N,) against (N, 1).
    """

    def __init__(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        takes_labels: bool = False,
    ):
        if name is None:
            name = str(getattr(function, "__name__", type(function).__name__))
        super().__init__(reduction, name)
        self.function = function
        self.takes_labels = _checks.truth("takes_labels", takes_labels)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if self.takes_labels:
            return returned(self.name, self.function(y_true, y_pred))
        try:
            y_true = _checks.matched(y_true, y_pred)
        except _checks.ShapeError as error:
            if y_true.shape in (y_pred.shape[:-1], (*y_pred.shape[:-1], 1)):
                error.hint = (
                    f": if {self.name} takes class numbers, make the loss "
                    f"losses.FunctionLoss({self.name}, takes_labels=True)"
                )
            raise
        return returned(self.name, self.function(y_true, y_pred))


# Of these, the mean over a batch is that of its samples, each by itself.
BY_SAMPLE = (
    *(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.SoftMarginLoss),
    *(nn.BCELoss, nn.BCEWithLogitsLoss, nn.CrossEntropyLoss, nn.NLLLoss),
)


class TorchLoss(FunctionLoss):
    """A loss of PyTorch, such as `nn.HuberLoss()`, which takes (y_pred, y_true).

    `nn.CrossEntropyLoss` and `nn.NLLLoss` take class numbers, too, shape (N,) or (N, 1) against
    predictions of shape (N, classes). Sample weights go with those losses whose mean is one of the
    samples, and with those of reduction "none".

    Args:
        function: The module.
        reduction: "sum_over_batch_size", "sum" or "none".
        name: What the loss is called in messages.
    """

    function: Any  # of a module's attributes, mypy knows nothing

    def __init__(
        self,
        function: nn.Module,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ):
        super().__init__(function, reduction, name)
        self.from_logits = isinstance(function, (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss))
        self.takes_labels = isinstance(function, (nn.CrossEntropyLoss, nn.NLLLoss))

    def kernel(self) -> Kernel | None:
        """For class numbers, if the loss takes them."""
        loss, kind = self.function, type(self.function)
        if not self._is_by_sample():
            return None
        if kind is nn.CrossEntropyLoss and not loss.label_smoothing:
            return Kernel("sparse_categorical_crossentropy_from_logits")
        if kind is nn.BCEWithLogitsLoss and loss.pos_weight is None:
            return Kernel("binary_crossentropy_from_logits")
        if kind is nn.HuberLoss:
            return Kernel("huber", {"delta": float(loss.delta)})
        names = {nn.MSELoss: "mean_squared_error", nn.L1Loss: "mean_absolute_error"}
        return Kernel(names[kind]) if kind in names else None

    def targets(self, y_true: Tensor) -> Tensor:
        if not self.takes_labels or y_true.shape[1:].numel() != 1:  # probabilities of classes
            return y_true
        return y_true.masked_fill(y_true == self.function.ignore_index, IGNORED)

    @property
    def ignores(self) -> bool:
        return self.takes_labels

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        function = self.function
        if self._is_by_sample() and (y_pred.ndim == 2 or not self.takes_labels):
            function = copy.copy(function)
            function.reduction = "none"
        if self._are_labels(y_true.shape[1:], y_pred.shape[1:]):
            numbers = y_pred.shape[:1] + y_pred.shape[2:]
            losses = function(y_pred, y_true.reshape(numbers).long())
        else:
            losses = function(y_pred, _checks.matched(y_true, y_pred))
        losses = returned(self.name, losses)
        return losses.flatten(1).mean(1) if losses.ndim > 1 else losses

    def _is_by_sample(self) -> bool:
        """Whether the loss of a batch is the mean over its samples."""
        is_mean = getattr(self.function, "reduction", "") == "mean"
        return is_mean and type(self.function) in BY_SAMPLE and not has_weight(self.function)

    def _mean(self, losses: Tensor, y_true: Tensor) -> Tensor:
        if not self.takes_labels or losses.ndim == 0 or y_true.numel() != losses.numel():
            return losses.mean()
        counted = (y_true != self.function.ignore_index).sum()
        return losses.sum() / counted.clamp(min=1)

    def check_targets(self, y_true: Tensor) -> None:
        if isinstance(self.function, (nn.BCELoss, nn.BCEWithLogitsLoss)):
            check_probabilities(self.name, y_true)

    def check_labels(self, y_true: Tensor, axes: tuple[int, ...]) -> None:
        if self._are_labels(y_true.shape[1:], axes):
            check_class_numbers(y_true, axes[0], self.function.ignore_index)

    def _are_labels(self, axes_true: tuple[int, ...], axes_pred: tuple[int, ...]) -> bool:
        """Whether targets are class numbers: they lack the first axis, that of the classes."""
        numbers = tuple(axes_pred[1:])
        return self.takes_labels and bool(axes_pred) and axes_true in (numbers, (*numbers, 1))


def has_weight(loss: Any) -> bool:
    """Whether a loss of PyTorch weights classes, which its mean then goes by, or elements."""
    return getattr(loss, "weight", None) is not None


class LossFunction:
    """A loss as a function of (y_true, y_pred), with the other arguments of its class by name.

    It returns one value per sample, or one number for two rows of numbers; of arrays, an array. It
    stands for its class wherever a loss is expected.

    Args:
        kind: The class.
        name: What the function is called.
    """

    def __init__(self, kind: type[Loss], name: str):
        self.kind = kind
        self.__name__ = self.__qualname__ = name
        self.__module__ = "torchnn.losses"
        self.__doc__ = f"Returns {kind.__name__} of each sample: {kind.__doc__}"

    def __call__(self, y_true: Any, y_pred: Any, **settings: Any) -> Any:
        given = y_true, y_pred
        y_true, y_pred = _checks.tensor("y_true", y_true), _checks.tensor("y_pred", y_pred)
        loss = self.kind(**settings)
        if y_true.ndim == y_pred.ndim == 1:
            return _array.like(loss.per_sample(y_true[None], y_pred[None])[0], *given)
        return _array.like(loss.per_sample(y_true, y_pred), *given)

    def __reduce__(self) -> str:
        return self.__name__

    def __repr__(self) -> str:
        return f"<function {self.__module__}.{self.__name__}>"
