"""What both estimators do: judge the settings, begin or go on, train, and stop in time."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator  # type: ignore[import, unused-ignore]
from sklearn.exceptions import ConvergenceWarning  # type: ignore[import, unused-ignore]
from sklearn.model_selection import train_test_split  # type: ignore[import, unused-ignore]
from sklearn.utils import (  # type: ignore[import, unused-ignore]
    check_random_state,
    column_or_1d,
    gen_batches,
)
from sklearn.utils.validation import (  # type: ignore[import, unused-ignore]
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)
from torch import Tensor

from torchnn import _checks, _warnings, activations, optimizers
from torchnn._engine.run import Batches
from torchnn.callbacks import Callback
from torchnn.callbacks._base import Logs
from torchnn.initializers import RandomUniform
from torchnn.layers import Activation, Dense
from torchnn.models import Sequential
from torchnn.optimizers import schedules
from torchnn.regularizers import L2

Array = np.ndarray[Any, Any]

MOST_ROWS = 200  # a batch with batch_size="auto"
ROWS_AT_ONCE = 4096  # that predictions are made of; so many of a sparse X are dense at a time
DTYPES = ("auto", "float32", "float64")
RATES = ("constant", "invscaling", "adaptive")
LEAST_RATE = 1e-6  # below which "adaptive" stops
OTHER_NAMES = {"logistic": "sigmoid"}  # scikit-learn's, of activations
OUT_NAMES = {"sigmoid": "logistic", "linear": "identity", "exponential": "exp"}


class Rows(NamedTuple):
    """Samples as NumPy has them.

    Attributes:
        x: Shape (N, features), dense or sparse.
        y: Targets, shape (N, outputs), or class numbers, shape (N,).
        weight: Shape (N,), or None.
    """

    x: Any
    y: Array
    weight: Array | None

    def take(self, numbers: Array | None) -> "Rows":
        """Returns those of some numbers, or all."""
        if numbers is None:
            return self
        weight = None if self.weight is None else self.weight[numbers]
        return Rows(self.x[numbers], self.y[numbers], weight)


class Head(NamedTuple):
    """The end of a network.

    Attributes:
        units: The number of outputs.
        activation: Torchnn's name of the last activation.
        loss: What compile takes.
        scale: How many times torchnn's loss, a mean over outputs, scikit-learn's is.
    """

    units: int
    activation: str
    loss: Any
    scale: float = 1.0


@dataclass(eq=False, repr=False)
class DenseEstimator(BaseEstimator, ABC):  # type: ignore[misc, unused-ignore]
    """A network of dense layers between fit and predict."""

    hidden_layer_sizes: Any = (100,)
    activation: Any = "relu"
    _: KW_ONLY
    solver: Any = "adam"
    alpha: float = 0.0001
    batch_size: Any = "auto"
    learning_rate: str = "constant"
    learning_rate_init: float = 0.001
    power_t: float = 0.5
    max_iter: int = 200
    shuffle: bool = True
    random_state: Any = None
    tol: float = 1e-4
    verbose: Any = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: float = 10
    max_fun: int = 15000
    device: Any = "cpu"
    dtype: str = "auto"

    @property
    def coefs_(self) -> list[Array]:
        """The layers' weights, (inputs, units): of a model on the CPU, views, not copies."""
        return [_array(layer.weight.t()) for layer in self._dense_layers()]

    @coefs_.setter
    def coefs_(self, values: Iterable[Any]) -> None:
        _put([layer.weight.t() for layer in self._dense_layers()], "coefs_", list(values))

    @property
    def intercepts_(self) -> list[Array]:
        """The layers' biases, (units,), likewise."""
        return [_array(layer.bias) for layer in self._dense_layers()]

    @intercepts_.setter
    def intercepts_(self, values: Iterable[Any]) -> None:
        _put([layer.bias for layer in self._dense_layers()], "intercepts_", list(values))

    @property
    def n_layers_(self) -> int:
        """The number of layers, the input counted."""
        return len(self._dense_layers()) + 1

    @abstractmethod
    def _targets(self, y: Array, goes_on: bool, classes: Any) -> Array:
        """Returns what the network is to learn; sets what the estimator knows of y.

        Args:
            y: What fit was given.
            goes_on: Whether there is a network already.
            classes: Those that y may hold, or None for those that it does hold.
        """

    @abstractmethod
    def _head(self) -> Head:
        """Returns the end of the network."""

    @abstractmethod
    def _score(self, targets: Array, outputs: Array, weight: Array | None) -> float:
        """Returns how good outputs are; higher is better."""

    def _class_weight(self, y: Array) -> Array | None:
        """Returns each row's weight by its class, or None."""
        return None

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, is_partial: bool = False, classes: Any = None
    ) -> Any:
        """Trains max_iter epochs, or one more of a partial fit."""
        self._train(self._begin(X, y, sample_weight, is_partial, classes))
        return self

    def _train(self, training: "Training") -> None:
        """Does the second half of a fit; a search puts it off, and does that of many at once."""
        training.run()

    def _begin(
        self, X: Any, y: Any, sample_weight: Any, is_partial: bool, classes: Any
    ) -> "Training":
        """Makes the model, or takes that of before, and says what it is to be trained on."""
        self._check_settings(is_partial)
        goes_on = hasattr(self, "model_") and (self.warm_start or is_partial)
        X, y = self._validated(X, y, reset=not goes_on)
        targets = self._targets(y, goes_on, classes)
        rows = Rows(X, targets, self._weight(X, y, sample_weight))
        widths = [X.shape[1], *self._hidden(), self._head().units]
        if goes_on and widths != self._widths():
            raise ValueError(
                f"a fit that goes on needs layers of {self._widths()[1:]} units, as before, got "
                f"{widths[1:]}"
            )
        random = check_random_state(self.random_state)
        drawn = None if goes_on else self._draw(random, widths)  # in MLPClassifier's order
        train, held = self._split(random, rows) if self.early_stopping else (None, None)
        count = len(rows.y if train is None else train)
        if drawn is not None:
            self._build(drawn, self._dtype(rows.x, count), random.randint(2**31 - 1))
        if not (goes_on and is_partial):
            self._compile()
        return Training(self, rows, train, held, is_partial)

    def _validated(self, X: Any, y: Any, reset: bool) -> tuple[Any, Array]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            multi_output=True,
            y_numeric=self._takes_numbers,
            dtype=(np.float64, np.float32),
            reset=reset,
        )
        y = y.toarray() if hasattr(y, "toarray") else y
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    _takes_numbers = False  # whether y must hold numbers

    def _weight(self, X: Any, y: Array, sample_weight: Any) -> Array | None:
        """The product of what each row and its class weigh, or None."""
        weight = self._class_weight(y)
        if sample_weight is not None:
            own = _check_sample_weight(sample_weight, X, dtype=np.float64)
            weight = own if weight is None else own * weight
        if weight is not None and not weight.sum() > 0:
            raise ValueError("the weights of all samples must not sum to zero or less")
        return weight

    def _hidden(self) -> list[int]:
        """The units of the hidden layers."""
        sizes = self.hidden_layer_sizes
        sizes = [sizes] if isinstance(sizes, str) or not isinstance(sizes, Iterable) else sizes
        return [_checks.positive_int("hidden_layer_sizes", size) for size in sizes]

    def _check_settings(self, is_partial: bool) -> None:
        """Raises ValueError or TypeError for what no network can be made of or trained with."""
        self._hidden()
        if self.solver == "lbfgs":
            raise ValueError(
                "solver must be 'sgd', 'adam' or another optimizer of torchnn or PyTorch, got "
                "'lbfgs', which looks at all samples at once and has no native kernels here: "
                "sklearn.neural_network has it"
            )
        if self.batch_size != "auto":
            _checks.positive_int("batch_size", self.batch_size)
        _checks.choice("learning_rate", self.learning_rate, RATES)
        _checks.choice("dtype", self.dtype, DTYPES)
        for name in ("alpha", "power_t", "tol"):
            _checks.non_negative_float(name, getattr(self, name))
        _checks.positive_float("learning_rate_init", self.learning_rate_init)
        _checks.positive_int("max_iter", self.max_iter)
        if self.n_iter_no_change != np.inf:
            _checks.positive_int("n_iter_no_change", self.n_iter_no_change)
        for name in ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping"):
            _checks.truth(name, getattr(self, name))
        _checks.fraction("validation_fraction", self.validation_fraction)
        if not isinstance(self.verbose, (bool, np.bool_)):
            _checks.non_negative_int("verbose", self.verbose)
        if is_partial and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        self._check_device()
        self._optimizer()
        activations.get(self._activation())

    def _check_device(self) -> None:
        try:
            kind = torch.device(self.device).type
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"device must be one of PyTorch's, got {self.device!r}") from error
        if kind == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device must be one that is here, got {self.device!r}: no GPU is")

    def _optimizer(self) -> optimizers.Optimizer:
        """A new optimizer by the settings."""
        rate = self.learning_rate_init
        if self.solver == "sgd":
            return optimizers.SGD(rate, self.momentum, self.nesterovs_momentum)
        if self.solver == "adam":
            return optimizers.Adam(rate, self.beta_1, self.beta_2, self.epsilon)
        try:
            optimizer = optimizers.get(copy.deepcopy(self.solver))
        except TypeError as error:
            raise TypeError(f"solver must be an optimizer: {error}") from error
        if isinstance(self.solver, str):
            optimizer.learning_rate = rate
        return optimizer

    def _draw(self, random: np.random.RandomState, widths: list[int]) -> list[Array]:
        """First weights and biases, layer by layer: of one seed, the same as MLPClassifier's."""
        limits = [self._limit(*pair) for pair in pairwise(widths)]
        return [
            random.uniform(-limit, limit, shape)
            for limit, (i, o) in zip(limits, pairwise(widths), strict=True)
            for shape in ((i, o), (o,))
        ]

    def _limit(self, fan_in: int, fan_out: int) -> float:
        """Up to where first values are drawn."""
        is_flat = activations.name_of(self._activation()) == "sigmoid"
        return math.sqrt((2 if is_flat else 6) / (fan_in + fan_out))

    def _activation(self) -> Any:
        """That of a hidden layer, as torchnn calls it."""
        own = self.activation
        return copy.deepcopy(OTHER_NAMES.get(own, own) if isinstance(own, str) else own)

    def _split(self, random: np.random.RandomState, rows: Rows) -> tuple[Array, Array]:
        """The numbers of the rows to train on, and of those to hold out."""
        train, held = train_test_split(
            np.arange(len(rows.y)),
            test_size=self.validation_fraction,
            random_state=random,
            stratify=rows.y if self._is_stratified() else None,
        )
        if len(held) < 2:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} of {len(rows.y)} samples leaves "
                f"{len(held)} to validate on: two are needed"
            )
        for part in (train, held):
            if rows.weight is not None and not rows.weight[part].sum() > 0:
                raise ValueError("the weights of the validation part, or of the rest, are all zero")
        return train, held

    def _is_stratified(self) -> bool:
        return False

    def _rows_a_batch(self, count: int) -> int:
        return min(MOST_ROWS if self.batch_size == "auto" else int(self.batch_size), count)

    def _dtype(self, x: Any, count: int) -> torch.dtype:
        """What "auto" stands for: all at once, the result is worth all digits."""
        if self.dtype != "auto":
            return torch.float32 if self.dtype == "float32" else torch.float64
        is_whole = self._rows_a_batch(count) == count
        return torch.float64 if is_whole and x.dtype == np.float64 else torch.float32

    def _build(self, drawn: list[Array], dtype: torch.dtype, seed: int) -> None:
        """Makes the model, and forgets what was known of an earlier one."""
        head, layers = self._head(), list[Any]()
        for number, weight in enumerate(drawn[::2]):
            features, units = weight.shape
            limit = self._limit(features, units)
            seeds = (seed + 2 * number, seed + 2 * number + 1)  # none is drawn from PyTorch's
            kernel, bias = (RandomUniform(-limit, limit, each) for each in seeds)
            layers.append(
                Dense(
                    units,
                    self._activation() if 2 * number < len(drawn) - 2 else None,
                    kernel_initializer=kernel,
                    bias_initializer=bias,
                    in_features=features,
                    device=self.device,
                    dtype=dtype,
                )
            )
        if head.activation != "linear":
            layers.append(Activation(head.activation))
        model = Sequential(layers)
        model._order_seed = seed
        self.model_ = model
        self.coefs_, self.intercepts_ = drawn[::2], drawn[1::2]
        self.out_activation_ = OUT_NAMES.get(head.activation, head.activation)
        self.n_outputs_, self.t_, self.loss_curve_ = head.units, 0, list[float]()
        self._no_improvement_count = 0
        self._best: list[Tensor] | None = None
        self.best_loss_ = None if self.early_stopping else np.inf
        self.validation_scores_ = list[float]() if self.early_stopping else None
        self.best_validation_score_ = -np.inf if self.early_stopping else None

    def _compile(self) -> None:
        self.model_.compile(self._optimizer(), self._head().loss)

    def _epochs_to_a_stop(self) -> int:
        """The least number of epochs after which training may stop."""
        if self.verbose:
            return 1
        missing = self.n_iter_no_change + 1 - self._no_improvement_count
        return max(1, int(min(missing, self.max_iter)))

    def _count(self, loss: float, score: float | None = None) -> None:
        """Takes note of an epoch; if none has been better for long, says stop or trains slower."""
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss became {loss}: scale the features to mean 0 and variance 1, or make "
                f"learning_rate_init smaller (it is {self.learning_rate_init:g})"
            )
        self.n_iter_ += 1
        self.t_ += self._samples
        self.loss_ = loss
        self.loss_curve_.append(loss)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {loss:.8f}")
        improves = self._improves(loss) if score is None else self._scores(score)
        self._no_improvement_count = 0 if improves else self._no_improvement_count + 1
        if self._no_improvement_count > self.n_iter_no_change:
            self._stop_or_slow_down()

    def _improves(self, loss: float) -> bool:
        """Whether a loss is better than the best by more than tol."""
        best = np.inf if self.best_loss_ is None else self.best_loss_
        self.best_loss_ = min(best, loss)
        return not loss > best - self.tol

    def _scores(self, score: float) -> bool:
        """Whether a validation score is better than the best by tol; keeps the best's weights."""
        best = -np.inf if self.best_validation_score_ is None else self.best_validation_score_
        self.validation_scores_ = [*(self.validation_scores_ or []), score]
        self.best_validation_score_ = max(best, score)
        if self.verbose:
            print(f"Validation score: {score:f}")
        if score > best or self._best is None:
            self._best = [parameter.detach().clone() for parameter in self.model_.parameters()]
        return not score < best + self.tol

    def _stop_or_slow_down(self) -> None:
        optimizer = self.model_.optimizer
        is_adaptive = self.solver == "sgd" and self.learning_rate == "adaptive"
        self._stopped = not is_adaptive or optimizer.current_learning_rate() <= LEAST_RATE
        if not self._stopped:
            optimizer.learning_rate = optimizer.current_learning_rate() / 5
            self._no_improvement_count = 0
        if self.verbose:
            what = "Validation score" if self.early_stopping else "Training loss"
            then = "Stopping" if self._stopped else f"Learning rate {optimizer.learning_rate:g}"
            print(
                f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} "
                f"consecutive epochs. {then}."
            )

    def _set_penalty(self, factor: float) -> None:
        """alpha / 2 * sum(w^2) over the samples of a batch, as scikit-learn has it."""
        for layer in self._dense_layers():
            layer.kernel_regularizer = L2(factor) if factor else None

    def _set_learning_rate(self, count: int, size: int) -> None:
        if self.solver == "sgd" and self.learning_rate == "invscaling":
            optimizer, steps = self.model_.optimizer, Batches(count, count, size).count
            optimizer.learning_rate = InverseScaling(
                self.learning_rate_init, self.power_t, count, steps, self.t_, optimizer.iterations
            )

    def _outputs(self, X: Any) -> Array:
        """What comes out before the last activation of a classifier, (N, outputs), float64."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=(np.float64, np.float32), reset=False)
        return self._forward(X)

    def _forward(self, X: Any) -> Array:
        parameter, layers = next(self.model_.parameters()), self._forward_layers()
        found = []
        with torch.inference_mode():
            for rows in gen_batches(X.shape[0], ROWS_AT_ONCE):
                x = _tensor(X[rows], parameter)
                for layer in layers:
                    x = layer(x)
                found.append(x.to("cpu", torch.float64).numpy())
        return np.concatenate(found)

    def _forward_layers(self) -> list[Any]:
        return list(self.model_)

    def _dense_layers(self) -> list[Any]:
        return [layer for layer in self.model_ if isinstance(layer, Dense)]

    def _widths(self) -> list[int]:
        """The number of features and the units of each layer."""
        layers = self._dense_layers()
        return [layers[0].in_features, *(layer.units for layer in layers)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class Training:
    """The second half of a fit, from when the model is there: many can be done at once.

    Args:
        estimator: Whose fit it is.
        rows: The samples.
        train: The numbers of those to train on, or None for all.
        held: The numbers of those to validate on, or None.
        is_partial: Whether it is one more epoch.

    Attributes:
        estimator: As above.
        rows: As above.
        train: As above.
        batch_size: Samples a step.
        callbacks: What fit has to tell.
        tensors: After put_off, what data returns of all samples.
    """

    def __init__(
        self,
        estimator: DenseEstimator,
        rows: Rows,
        train: Array | None,
        held: Array | None,
        is_partial: bool,
    ) -> None:
        self.estimator, self.rows, self.train = estimator, rows, train
        self._epochs, self._is_partial = 1 if is_partial else estimator.max_iter, is_partial
        count = len(rows.y if train is None else train)
        weight = rows.weight if train is None or rows.weight is None else rows.weight[train]
        self._mean = 1.0 if weight is None else float(weight.mean())
        self.batch_size = estimator._rows_a_batch(count)
        self._judge = None if held is None else _Judge(estimator, rows.take(held))
        self.callbacks: list[Callback] = [] if self._judge is None else [self._judge]
        estimator._set_penalty(estimator.alpha / 2 / (self.batch_size * self._mean))
        estimator._set_learning_rate(count, self.batch_size)
        estimator._samples, estimator._stopped = count, False
        estimator.n_iter_ = self._known = 0

    def run(self) -> None:
        """Trains the model; Ctrl-C ends that in good order."""
        estimator, data = self.estimator, self.data(self.rows.take(self.train))
        model = estimator.model_
        while epochs := self.next_epochs():
            first = model.epochs_trained
            try:
                model.fit(
                    **data,
                    batch_size=self.batch_size,
                    shuffle=estimator.shuffle,
                    initial_epoch=first,
                    epochs=first + epochs,
                    callbacks=self.callbacks,
                    verbose=0,
                )
            except KeyboardInterrupt:
                _warnings.warn("Training interrupted by user.")
                estimator._stopped = True
            self.count()
        self.end()

    def data(self, rows: Rows) -> dict[str, Any]:
        """Returns samples as the model's fit takes them, on its device and in its dtype."""
        scale, like = self.estimator._head().scale, next(self.estimator.model_.parameters())
        is_number = rows.y.dtype.kind == "i"
        y = torch.from_numpy(rows.y).to(like.device) if is_number else _tensor(rows.y, like)
        x, weight = _tensor(rows.x, like), None
        if rows.weight is not None:
            weight = _tensor(rows.weight, like) / self._mean * scale
        elif scale != 1:
            weight = torch.full_like(x[:, 0], scale)
        return {"x": x, "y": y, "sample_weight": weight}

    def put_off(self, share: Callable[[Tensor], Tensor]) -> None:
        """Gets ready for fit_many, which takes all samples and the numbers of those to train on:
        from now on the samples are in `tensors` alone.

        Args:
            share: Returns the one of equal tensors that all trainings hold.
        """
        data = self.data(self.rows)
        del self.rows
        self.tensors = {name: None if each is None else share(each) for name, each in data.items()}
        if self._judge is not None:
            self._judge.held = self._judge.held._replace(x=share(self._judge.held.x))

    def next_epochs(self) -> int:
        """Gets ready for a call of fit, and returns how many epochs it is to train: the least
        after which training may stop, so that nobody looks until then; or 0 if it has ended."""
        estimator = self.estimator
        left = 0 if estimator._stopped else self._epochs - estimator.n_iter_
        if left:
            self._known, estimator.model_.history = estimator.n_iter_, None
        return left if self._judge is not None else min(left, estimator._epochs_to_a_stop())

    def count(self) -> None:
        """Takes note of the epochs that the call has trained, but for what the judge has noted.

        Raises:
            ValueError: A loss is no number.
        """
        estimator = self.estimator
        if self._judge is not None and self._judge.error is not None:
            raise self._judge.error
        history = estimator.model_.history
        losses = history.history.get("loss", []) if history else []
        for loss in losses[estimator.n_iter_ - self._known :]:
            estimator._count(loss)

    def end(self) -> None:
        """Leaves the estimator as fit does."""
        estimator = self.estimator
        if self._judge is not None and estimator._best is not None:
            _copy(estimator._best, estimator.model_.parameters())
        if not (estimator._stopped or self._is_partial):
            _warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached and the "
                "optimization hasn't converged yet: raise max_iter, or tol",
                ConvergenceWarning,
            )


class _Judge(Callback):
    """Scores what is held out after each epoch."""

    model_access = "read"

    def __init__(self, estimator: DenseEstimator, held: Rows) -> None:
        x = _tensor(held.x, next(estimator.model_.parameters()))
        self.estimator, self.held = estimator, held._replace(x=x)
        self.error: Exception | None = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        estimator, (x, y, weight) = self.estimator, self.held
        try:
            score = estimator._score(y, estimator._forward(x), weight)
            estimator._count((logs or {})["loss"], score)
        except Exception as error:  # it ends this training, but not those beside it
            self.error = error
        self.model.stop_training = estimator._stopped or self.error is not None


@dataclass(frozen=True)
class InverseScaling(schedules.LearningRateSchedule):
    """initial / (t + 1) ^ power, t the samples seen before the epoch.

    Args:
        initial: The learning rate at t = 0.
        power: The exponent.
        samples: Those of an epoch.
        steps: Likewise.
        samples_before: Those seen before the first step here.
        first: The number of that step.
    """

    initial: float
    power: float
    samples: int
    steps: int
    samples_before: int = 0
    first: int = 0

    def __call__(self, step: int) -> float:
        epochs = (step - self.first) // self.steps
        return self.initial / (self.samples_before + epochs * self.samples + 1) ** self.power


def _tensor(values: Any, like: Tensor) -> Tensor:
    """A dense tensor of an array or a sparse one, with the dtype and the device of another."""
    if isinstance(values, Tensor):
        return values.to(like)
    dense = values.toarray() if hasattr(values, "toarray") else values
    dtype = np.float64 if like.dtype == torch.float64 else np.float32
    return torch.from_numpy(np.require(dense, dtype, ["C", "W"])).to(like.device)


def _array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy()


def _copy(values: Iterable[Any], tensors: Iterable[Tensor]) -> None:
    with torch.no_grad():
        for value, tensor in zip(values, tensors, strict=True):
            tensor.copy_(value)


def _put(tensors: list[Tensor], name: str, values: list[Any]) -> None:
    """Copies values into tensors; if a shape or the number is wrong, nothing changes."""
    values = [_checks.tensor(name, value) for value in values]
    shapes, wanted = [tuple(v.shape) for v in values], [tuple(t.shape) for t in tensors]
    if shapes != wanted:
        raise ValueError(f"{name} must have the shapes {wanted}, got {shapes}")
    _copy(values, tensors)
