"""Losses of (y_true, y_pred): Keras's arguments and numbers.

A loss has one value per sample, the mean over the last axis, and a reduction that makes one
number of a batch:

    "sum_over_batch_size"   sum(w * l) / N, with N samples, not the sum of the weights
    "sum"                   sum(w * l)
    "none"                  w * l

Each class has a function, too, which returns the values of the samples; both will do for compile.
"""

from collections.abc import Callable

from torch import Tensor, nn

from torchnn import _checks
from torchnn._config import deserializer, serialize
from torchnn.losses._base import EPSILON, REDUCTIONS, Loss
from torchnn.losses._crossentropy import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
)
from torchnn.losses._functions import FunctionLoss, LossFunction, TorchLoss
from torchnn.losses._means import (
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    SquaredHinge,
)

__all__ = [
    "BCE",
    "EPSILON",
    "KLD",
    "MAE",
    "MAPE",
    "MSE",
    "MSLE",
    "NAMES",
    "REDUCTIONS",
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "FunctionLoss",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "LossFunction",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "TorchLoss",
    "bce",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_hinge",
    "cosine_similarity",
    "deserialize",
    "get",
    "hinge",
    "huber",
    "kl_divergence",
    "kld",
    "kullback_leibler_divergence",
    "log_cosh",
    "logcosh",
    "mae",
    "mape",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "mse",
    "msle",
    "poisson",
    "serialize",
    "sparse_categorical_crossentropy",
    "squared_hinge",
]

binary_crossentropy = bce = BCE = LossFunction(BinaryCrossentropy, "binary_crossentropy")
binary_focal_crossentropy = LossFunction(BinaryFocalCrossentropy, "binary_focal_crossentropy")
categorical_crossentropy = LossFunction(CategoricalCrossentropy, "categorical_crossentropy")
sparse_categorical_crossentropy = LossFunction(
    SparseCategoricalCrossentropy, "sparse_categorical_crossentropy"
)
mean_squared_error = mse = MSE = LossFunction(MeanSquaredError, "mean_squared_error")
mean_absolute_error = mae = MAE = LossFunction(MeanAbsoluteError, "mean_absolute_error")
mean_absolute_percentage_error = mape = MAPE = LossFunction(
    MeanAbsolutePercentageError, "mean_absolute_percentage_error"
)
mean_squared_logarithmic_error = msle = MSLE = LossFunction(
    MeanSquaredLogarithmicError, "mean_squared_logarithmic_error"
)
huber = LossFunction(Huber, "huber")
log_cosh = LossFunction(LogCosh, "log_cosh")
poisson = LossFunction(Poisson, "poisson")
hinge = LossFunction(Hinge, "hinge")
squared_hinge = LossFunction(SquaredHinge, "squared_hinge")
categorical_hinge = LossFunction(CategoricalHinge, "categorical_hinge")
kl_divergence = kullback_leibler_divergence = kld = KLD = LossFunction(
    KLDivergence, "kl_divergence"
)
cosine_similarity = LossFunction(CosineSimilarity, "cosine_similarity")

NAMES: dict[str, Callable[[], Loss]] = {
    **{
        name: value.kind
        for name, value in list(vars().items())
        if isinstance(value, LossFunction) and name.islower()
    },
    "huber_loss": Huber,
}
logcosh = log_cosh  # no name of its own: get looks past underscores


def get(value: str | Loss | Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Returns the loss of this name, the loss itself, or a function of (y_true, y_pred) as a loss.

    A function of this module is the loss that it is named after. An `nn.Module` is called PyTorch's
    way round, with (y_pred, y_true).

    Raises:
        ValueError: Unknown name.
        TypeError: No loss, or a class that was not instantiated.
    """
    loss = _checks.resolve("loss", value, NAMES, accept=callable)
    _checks.takes_targets_first("loss", loss)
    if isinstance(loss, LossFunction):
        return loss.kind()
    if isinstance(loss, Loss):
        return loss
    return TorchLoss(loss) if isinstance(loss, nn.Module) else FunctionLoss(loss)


deserialize = deserializer(get)
