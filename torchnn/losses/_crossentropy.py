"""Cross-entropies: of probabilities, or of what goes into a sigmoid or a softmax."""

from typing import Any

import torch
from torch import Tensor, nn

from torchnn import _checks
from torchnn.losses._base import EPSILON, IGNORED, Loss, aligned, precise
from torchnn.ops import Kernel


class BinaryCrossentropy(Loss):
    """-y log(p) - (1 - y) log(1 - p), for targets y and predicted probabilities p in [0, 1].

    p is clipped to [1e-7, 1 - 1e-7]. Given logits z instead, with p = sigmoid(z), the same is
    computed as max(z, 0) - z y + log(1 + e^-|z|), which needs no clipping and keeps its gradient,
    sigmoid(z) - y, however large z is.

    Args:
        from_logits: y_pred holds z rather than p.
        label_smoothing: s in [0, 1]: targets become y (1 - s) + s / 2.
        axis: The axis to take the mean over.
        reduction: "sum_over_batch_size", "sum" or "none".
        name: What the loss is called in messages.
    """

    activation = "sigmoid"
    is_binary = True

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
    ):
        super().__init__(reduction, name)
        self.from_logits = _checks.truth("from_logits", from_logits)
        self.label_smoothing = _share("label_smoothing", label_smoothing)
        self.axis = _checks.integer("axis", axis)

    def kernel(self) -> Kernel | None:
        if not self.from_logits or self.axis not in (-1, 1):
            return None
        return Kernel("binary_crossentropy_from_logits")

    def targets(self, y_true: Tensor) -> Tensor:
        smoothing = self.label_smoothing
        return y_true * (1 - smoothing) + smoothing / 2 if smoothing else y_true

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = aligned(y_true, y_pred)
        y_true = self.targets(y_true)
        if self.from_logits:
            losses = nn.functional.binary_cross_entropy_with_logits(
                y_pred, y_true, reduction="none"
            )
        else:
            losses = _binary_crossentropy(y_true, y_pred)
        return losses.mean(self.axis)

    def check_targets(self, y_true: Tensor) -> None:
        check_probabilities(self.name, y_true)


class CategoricalCrossentropy(Loss):
    """-sum(y log(p)) over the classes, for targets y and predicted probabilities p.

    p is divided by its sum and clipped to [1e-7, 1 - 1e-7]. Given logits z instead, with p =
    softmax(z), the same is computed as sum(y (log(sum(e^z)) - z)), which needs no clipping.

    Args:
        from_logits: y_pred holds z rather than p.
        label_smoothing: s in [0, 1]: targets become y (1 - s) + s / classes.
        axis: The axis of the classes.
        reduction: "sum_over_batch_size", "sum" or "none".
        name: What the loss is called in messages.
    """

    activation: str | None = "softmax"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
    ):
        super().__init__(reduction, name)
        self.from_logits = _checks.truth("from_logits", from_logits)
        self.label_smoothing = _share("label_smoothing", label_smoothing)
        self.axis = _checks.integer("axis", axis)
        if axis != -1:
            self.activation = None  # that softmax is over the last axis

    def kernel(self) -> Kernel | None:
        if not self.from_logits or self.axis not in (-1, 1):
            return None
        return Kernel("categorical_crossentropy_from_logits")

    def targets(self, y_true: Tensor) -> Tensor:
        smoothing = self.label_smoothing
        if not smoothing:
            return y_true
        return y_true * (1 - smoothing) + smoothing / y_true.shape[self.axis]

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        try:
            y_true, y_pred = aligned(y_true, y_pred)
        except _checks.ShapeError as error:
            if y_true.shape in (y_pred.shape[:-1], (*y_pred.shape[:-1], 1)):
                error.hint = ": for class numbers there is sparse_categorical_crossentropy"
            raise
        log_p = _log_probabilities(y_pred, self.axis, self.from_logits)
        return -(self.targets(y_true) * log_p).sum(self.axis)

    def check_targets(self, y_true: Tensor) -> None:
        if bool((y_true < 0).any()):
            raise ValueError(f"{self.name} needs y of at least 0, got {y_true.min().item():g}")


class SparseCategoricalCrossentropy(Loss):
    """-log(p[y]), for the number y of the right class and predicted probabilities p.

    p is divided by its sum and clipped to [1e-7, 1 - 1e-7]. Given logits z instead, with p =
    softmax(z), the same is computed as log(sum(e^z)) - z[y], which needs no clipping. It is
    CategoricalCrossentropy of one-hot targets, which are never made.

    Targets are whole numbers from 0 to classes - 1, of y_pred's shape without the axis of the
    classes, or with 1 there: (N,) or (N, 1) against (N, classes).

    Args:
        from_logits: y_pred holds z rather than p.
        ignore_class: A number in the targets whose samples do not count: their loss is 0, and the
            mean is over the others. None for none.
        reduction: "sum_over_batch_size", "sum" or "none".
        axis: The axis of the classes.
        name: What the loss is called in messages.
    """

    activation: str | None = "softmax"
    takes_labels = True

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
    ):
        super().__init__(reduction, name)
        self.from_logits = _checks.truth("from_logits", from_logits)
        self.ignore_class = None
        if ignore_class is not None:
            self.ignore_class = _checks.integer("ignore_class", ignore_class)
        self.axis = _checks.integer("axis", axis)
        if axis != -1:
            self.activation = None  # that softmax is over the last axis

    def kernel(self) -> Kernel | None:
        if not self.from_logits or self.axis not in (-1, 1):
            return None
        return Kernel("sparse_categorical_crossentropy_from_logits")

    def targets(self, y_true: Tensor) -> Tensor:
        if self.ignore_class is None:
            return y_true
        return y_true.masked_fill(y_true == self.ignore_class, IGNORED)

    @property
    def ignores(self) -> bool:
        return self.ignore_class is not None

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_pred, axis = precise(y_pred), self.axis
        classes = self._labels(y_true, y_pred)
        is_ignored = None if self.ignore_class is None else classes == self.ignore_class
        if is_ignored is not None:
            classes = classes.masked_fill(is_ignored, 0)
        log_p = _log_probabilities(y_pred, axis, self.from_logits)
        try:
            losses = -log_p.gather(axis, classes.unsqueeze(axis)).squeeze(axis)
        except RuntimeError:
            self.check_labels(y_true, tuple(y_pred.shape[1:]))  # the fault lies there, if anywhere
            raise
        return losses if is_ignored is None else losses.masked_fill(is_ignored, 0)

    def check_labels(self, y_true: Tensor, axes: tuple[int, ...]) -> None:
        shape = len(y_true), *axes
        wanted = self._shapes(shape)
        if y_true.shape not in wanted:
            raise ValueError(
                f"class numbers have shape {wanted[0]} where the output has {shape}, got "
                f"{tuple(y_true.shape)}: for one-hot rows there is categorical_crossentropy"
            )
        check_class_numbers(y_true, shape[self.axis], self.ignore_class)

    def _shapes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The two shapes of targets for predictions of one shape."""
        axis = range(len(shape))[self.axis]
        return (*shape[:axis], *shape[axis + 1 :]), (*shape[:axis], 1, *shape[axis + 1 :])

    def _labels(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Class numbers as integers, without an axis for the classes."""
        without, with_one = self._shapes(tuple(y_pred.shape))
        if y_true.shape not in (without, with_one):
            raise _checks.ShapeError(
                f"y_true of shape {tuple(y_true.shape)} does not fit "
                f"y_pred of shape {tuple(y_pred.shape)}: class numbers have shape {without}"
            )
        if y_true.is_floating_point():
            check_class_numbers(y_true, y_pred.shape[self.axis], self.ignore_class)
        return y_true.reshape(without).to(y_pred.device, torch.int64)

    def _mean(self, losses: Tensor, y_true: Tensor) -> Tensor:
        if self.ignore_class is None:
            return losses.mean()
        return losses.sum() / (y_true != self.ignore_class).sum().clamp(min=1)


class BinaryFocalCrossentropy(Loss):
    """(1 - q)^gamma times the binary cross-entropy, with q the probability given to the target.

    q = y p + (1 - y) (1 - p), so that what is predicted well already counts less.

    Args:
        apply_class_balancing: Multiply by y alpha + (1 - y) (1 - alpha) as well.
        alpha: In [0, 1]: the weight of class 1.
        gamma: At least 0: how much less.
        from_logits: y_pred holds z, with p = sigmoid(z).
        label_smoothing: s in [0, 1]: targets become y (1 - s) + s / 2.
        axis: The axis to take the mean over.
        reduction: "sum_over_batch_size", "sum" or "none".
        name: What the loss is called in messages.

    Source: Lin et al., Focal loss for dense object detection, 2018.
    """

    is_binary = True

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_focal_crossentropy",
    ):
        super().__init__(reduction, name)
        self.apply_class_balancing = _checks.truth("apply_class_balancing", apply_class_balancing)
        self.alpha = _share("alpha", alpha)
        self.gamma = _checks.non_negative_float("gamma", gamma)
        self.from_logits = _checks.truth("from_logits", from_logits)
        self.label_smoothing = _share("label_smoothing", label_smoothing)
        self.axis = _checks.integer("axis", axis)

    def targets(self, y_true: Tensor) -> Tensor:
        return y_true * (1 - self.label_smoothing) + self.label_smoothing / 2

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = aligned(y_true, y_pred)
        y_true = self.targets(y_true)
        p = y_pred.sigmoid() if self.from_logits else y_pred
        given = y_true * p + (1 - y_true) * (1 - p)
        losses = (1 - given) ** self.gamma * _binary_crossentropy(y_true, p)
        if self.apply_class_balancing:
            losses = losses * (y_true * self.alpha + (1 - y_true) * (1 - self.alpha))
        return losses.mean(self.axis)

    def check_targets(self, y_true: Tensor) -> None:
        check_probabilities(self.name, y_true)


def _log_probabilities(y_pred: Tensor, axis: int, from_logits: bool) -> Tensor:
    if from_logits:
        return y_pred.log_softmax(axis)
    p = y_pred / y_pred.sum(axis, keepdim=True)
    return p.clamp(EPSILON, 1 - EPSILON).log()


def _binary_crossentropy(y_true: Tensor, p: Tensor) -> Tensor:
    # Not PyTorch's binary_cross_entropy: on CUDA a NaN prediction would end the process.
    p = p.clamp(EPSILON, 1 - EPSILON)
    return -(y_true * p.log() + (1 - y_true) * (1 - p).log())


def _share(name: str, value: Any) -> float:
    share = _checks.number(name, value)
    if not 0 <= share <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value!r}")
    return share


def check_probabilities(name: str, y_true: Tensor) -> None:
    if bool(((y_true < 0) | (y_true > 1)).any()):
        low, high = y_true.min().item(), y_true.max().item()
        raise ValueError(f"{name} needs y in [0, 1], got values from {low:g} to {high:g}")


def check_class_numbers(y_true: Tensor, classes: int, ignored: int | None) -> None:
    """Raises ValueError unless all are whole numbers below classes, or the one to be ignored."""
    is_fine = (y_true >= 0) & (y_true < classes)
    if y_true.is_floating_point():
        is_fine &= y_true == y_true.round()
    if ignored is not None:
        is_fine |= y_true == ignored
    bad = (~is_fine).nonzero()
    if len(bad):
        or_ignored = "" if ignored is None else f", or {ignored} to be ignored"
        raise ValueError(
            f"y must hold class numbers from 0 to {classes - 1}{or_ignored}, got "
            f"{y_true[tuple(bad[0])].item():g} at row {bad[0][0].item()}"
        )
