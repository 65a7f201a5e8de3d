"""Networks of dense layers as scikit-learn's estimators, with MLPClassifier's words.

    from torchnn.sklearn import DenseClassifier as MLPClassifier

trains what `sklearn.neural_network.MLPClassifier` would, in native calls of many epochs.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

try:
    from scipy import special  # type: ignore[import, unused-ignore]
    from sklearn.base import (  # type: ignore[import, unused-ignore]
        ClassifierMixin,
        RegressorMixin,
    )
    from sklearn.metrics import r2_score  # type: ignore[import, unused-ignore]
    from sklearn.utils.class_weight import (  # type: ignore[import, unused-ignore]
        compute_sample_weight,
    )
    from sklearn.utils.multiclass import (  # type: ignore[import, unused-ignore]
        check_classification_targets,
        type_of_target,
        unique_labels,
    )
    from sklearn.utils.validation import (  # type: ignore[import, unused-ignore]
        validate_data,  # noqa: F401 (from 1.6 on)
    )
except ImportError as error:
    raise ImportError(
        "torchnn.sklearn needs scikit-learn 1.6 or newer: pip install torchnn-fused[sklearn]"
    ) from error

from torchnn import _checks, losses
from torchnn.sklearn._base import Array, DenseEstimator, Head
from torchnn.sklearn._search import SweepCV

__all__ = ["DenseClassifier", "DenseRegressor", "SweepCV"]


@dataclass(eq=False, repr=False)
class DenseClassifier(ClassifierMixin, DenseEstimator):  # type: ignore[misc, unused-ignore]
    """A classifier that minimises the cross-entropy, plus alpha / 2 * sum(w^2) / samples a batch.

    With the arguments of `sklearn.neural_network.MLPClassifier`, its defaults and its meanings: to
    change the import is enough. Classes may be two, more, or several labels at once (an indicator
    matrix). Whole epochs are trained in one native call, those after which training cannot stop.

    Args:
        hidden_layer_sizes: The units of each hidden layer; one number for one layer, () for none.
        activation: Of the hidden layers: "identity", "logistic", "tanh", "relu", or any of
            torchnn.activations.
        solver: "sgd" and "adam" take the numbers below. Another name from torchnn.optimizers takes
            learning_rate_init; an optimizer, or what makes one of parameters, such as
            `torch.optim.AdamW`, has numbers of its own.
        alpha: The strength of the penalty on weights.
        batch_size: Samples a step; "auto" for 200. All of them if there are fewer.
        learning_rate: Of "sgd": "constant"; "invscaling", learning_rate_init / (t + 1)^power_t
            with t the samples before the epoch; or "adaptive", a fifth of what it was whenever
            training would stop otherwise, down to 1e-6.
        learning_rate_init: The first learning rate.
        power_t: As above.
        max_iter: Epochs, at most.
        shuffle: Whether each epoch has an order of its own.
        random_state: A number, a `numpy.random.RandomState`, or None for NumPy's own. A number
            gives the first weights of MLPClassifier. PyTorch's generator is left alone.
        tol: What counts as an improvement exceeds this.
        verbose: Whether to print each epoch's loss.
        warm_start: Whether fit goes on with the weights of an earlier one.
        momentum: Of "sgd", in [0, 1).
        nesterovs_momentum: Of "sgd".
        early_stopping: Whether to hold out a part, to stop by its score, and to end with the
            weights of the best epoch. Weights of samples and classes count in the score, too.
        validation_fraction: That part.
        beta_1: Of "adam".
        beta_2: Of "adam".
        epsilon: Of "adam".
        n_iter_no_change: Epochs in a row without an improvement before training stops; np.inf for
            all of max_iter.
        max_fun: Of scikit-learn's "lbfgs", which is not here; it changes nothing.
        device: Where to train and predict.
        dtype: "float32", "float64", or "auto": float64 if X is of that and a batch holds all
            samples, so that the result does not hang on their order; else float32.
        class_weight: From classes to what their samples weigh, 1 for a class that is not in it; or
            "balanced", for classes that weigh as much as each other; None for samples that do. For
            several labels, a list of dicts, whose weights are multiplied.

    Attributes:
        classes_: The classes; for several labels, their numbers.
        model_: The `Sequential`, which returns probabilities.
        coefs_, intercepts_: Its weights, (inputs, units), and biases. They can be written.
        loss_curve_: The loss of each epoch, measured while the weights change.
        loss_: The last of them.
        best_loss_: The least; None with early_stopping.
        validation_scores_: With early_stopping, the accuracy on the part held out, or None.
        best_validation_score_: The best of them, or None.
        n_iter_: Epochs of the last fit.
        t_: Samples seen in all epochs.
        n_features_in_, feature_names_in_: Of X.
        n_layers_, n_outputs_, out_activation_: Of the network, the input being a layer.

    A sparse X is made dense to train on, and some thousand rows at a time to predict.
    """

    class_weight: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "DenseClassifier":
        """Trains a new network, or goes on with warm_start.

        Ctrl-C ends it with a warning, and what has been trained counts.

        Args:
            X: Features, shape (N, features): an array, a data frame or sparse.
            y: Classes, shape (N,), of any kind; or an indicator matrix, shape (N, labels).
            sample_weight: How often each sample counts, shape (N,).

        Returns:
            The estimator.

        Raises:
            ValueError, TypeError: An argument or a setting is wrong; or the loss became no number.
        """
        self._check_class_weight()
        return self._fit(X, y, sample_weight)

    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None
    ) -> "DenseClassifier":
        """Trains one more epoch, on these samples.

        Args:
            X: As in fit.
            y: As in fit.
            sample_weight: As in fit.
            classes: All that there will be, in the first call.

        Raises:
            ValueError: As in fit; or classes are missing, or others than before.
        """
        self._check_class_weight()
        if isinstance(self.class_weight, str):
            raise ValueError(
                "class_weight must be a dict for partial_fit, which does not see all samples, got "
                f"{self.class_weight!r}: sklearn.utils.class_weight.compute_class_weight makes one"
            )
        if classes is not None:
            classes = unique_labels(classes)
        if not hasattr(self, "model_"):
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit")
        elif classes is not None and not np.array_equal(classes, self.classes_):
            raise ValueError(f"classes must be those of before, {self.classes_}, got {classes}")
        else:
            classes = self.classes_
        return self._fit(X, y, sample_weight, is_partial=True, classes=classes)

    def predict(self, X: Any) -> Array:
        """Returns the class of each row, (N,); or which labels it has, (N, labels).

        Args:
            X: Shape (N, features), an array, a data frame or sparse.
        """
        numbers = self._decide(self._outputs(X))
        return numbers if self._has_labels else self.classes_[numbers]

    def predict_proba(self, X: Any) -> Array:
        """Returns the probability of each class, (N, classes); of several labels, of each label.

        Args:
            X: As in predict.
        """
        outputs = self._outputs(X)
        if self.out_activation_ == "softmax":
            return special.softmax(outputs, axis=1)
        positive = special.expit(outputs)
        return np.hstack([special.expit(-outputs), positive]) if self._is_binary() else positive

    def predict_log_proba(self, X: Any) -> Array:
        """Returns the logarithms of predict_proba, also of what is too small for that.

        Args:
            X: As in predict.
        """
        outputs = self._outputs(X)
        if self.out_activation_ == "softmax":
            return special.log_softmax(outputs, axis=1)
        positive = special.log_expit(outputs)
        return np.hstack([special.log_expit(-outputs), positive]) if self._is_binary() else positive

    def decision_function(self, X: Any) -> Array:
        """Returns what goes into the last activation: shape (N,) for two classes, above 0 for the
        second; else (N, classes), the largest being the class, or (N, labels), those above 0.

        Args:
            X: As in predict.
        """
        outputs = self._outputs(X)
        return outputs.ravel() if self._is_binary() else outputs

    def _targets(self, y: Array, goes_on: bool, classes: Array | None) -> Array:
        check_classification_targets(y)
        if type_of_target(y) == "multiclass-multioutput":
            raise ValueError(
                "y must hold one class a row, or an indicator matrix of labels, got several "
                "columns of classes: sklearn.multioutput.MultiOutputClassifier(DenseClassifier())"
            )
        found = unique_labels(y)
        if goes_on and classes is None and not np.array_equal(found, self.classes_):
            raise ValueError(
                f"y must have the classes of before for warm_start, {self.classes_}, got {found}"
            )
        classes = found if classes is None else classes
        if y.ndim == 1 and len(classes) < 2:
            raise ValueError(f"y must hold at least two classes, got one class: {classes}")
        if len(strange := np.setdiff1d(found, classes)):
            raise ValueError(f"y must hold the classes {classes}, got {strange}")
        if goes_on and (y.ndim == 2) != self._has_labels:
            raise ValueError("y must be an indicator matrix if it was one before, and else not")
        self.classes_: Any = classes
        self._has_labels: bool = y.ndim == 2
        if self._has_labels:
            return y.astype(np.float64)
        numbers = np.searchsorted(classes, y)
        return numbers[:, None].astype(np.float64) if len(classes) == 2 else numbers

    def _head(self) -> Head:
        count = len(self.classes_)
        if self._has_labels:
            return Head(count, "sigmoid", "binary_crossentropy", count)
        if count == 2:
            return Head(1, "sigmoid", "binary_crossentropy")
        return Head(count, "softmax", "sparse_categorical_crossentropy")

    def _is_binary(self) -> bool:
        return self._head().units == 1

    _is_stratified = _is_binary

    def _forward_layers(self) -> list[Any]:
        return list(self.model_)[:-1]  # before the last activation

    def _decide(self, outputs: Array) -> Array:
        """The number of each row's class, or which labels it has."""
        if self._has_labels:
            return (outputs > 0).astype(np.int64)
        numbers = outputs[:, 0] > 0 if self._is_binary() else outputs.argmax(axis=1)
        return numbers.astype(np.int64)

    def _score(self, targets: Array, outputs: Array, weight: Array | None) -> float:
        """The accuracy; of several labels, the share of rows of which all are right."""
        wanted = targets[:, 0] if self._is_binary() else targets
        right = self._decide(outputs) == wanted
        return float(np.average(right.all(axis=1) if right.ndim > 1 else right, weights=weight))

    def _class_weight(self, y: Array) -> Array | None:
        given, classes = self.class_weight, self.classes_
        if isinstance(given, list) and not self._has_labels:
            raise ValueError(f"class_weight must be a list for several labels alone, got {given}")
        if given is None or not isinstance(given, Mapping) or self._has_labels:
            return None if given is None else compute_sample_weight(given, y)
        unknown = [each for each in given if each not in classes]
        if unknown and any(each not in given for each in classes):  # else they are of rare classes
            raise ValueError(
                f"class_weight must be of the classes {classes}, got {', '.join(map(str, unknown))}"
            )
        by_number = np.array([given.get(each, 1.0) for each in classes], np.float64)
        return by_number[np.searchsorted(classes, y)]

    def _check_class_weight(self) -> None:
        value = self.class_weight
        if isinstance(value, str) and value != "balanced":
            raise ValueError(f"class_weight must be 'balanced', a dict or None, got {value!r}")
        if not isinstance(value, (str, Mapping, list, type(None))):
            raise TypeError(f"class_weight must be 'balanced', a dict or None, got {value!r}")
        each = value if isinstance(value, list) else [value]
        for label, weight in (
            pair for dic in each if isinstance(dic, Mapping) for pair in dic.items()
        ):
            _checks.non_negative_float(f"class_weight[{label!r}]", weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@dataclass(eq=False, repr=False)
class DenseRegressor(RegressorMixin, DenseEstimator):  # type: ignore[misc, unused-ignore]
    """A regressor that minimises half the squared error, plus alpha / 2 * sum(w^2) / samples a
    batch.

    With the arguments of `sklearn.neural_network.MLPRegressor`, its defaults and its meanings, but
    that hidden_layer_sizes stays the first. Targets may be several numbers a row.

    Args: Those of DenseClassifier, but for class_weight, and
        loss: "squared_error"; "poisson", with targets of at least 0 and an output e^z; or any of
            torchnn.losses, a mean over the outputs.

    Attributes: Those of DenseClassifier, but for classes_; a validation score is an R2. The loss is
        the sum over the outputs; of "poisson", without the terms that do not hang on predictions.

    A sparse X is made dense to train on, and some thousand rows at a time to predict.
    """

    loss: Any = "squared_error"

    _takes_numbers = True

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "DenseRegressor":
        """Trains a new network, or goes on with warm_start.

        Ctrl-C ends it with a warning, and what has been trained counts.

        Args:
            X: Features, shape (N, features): an array, a data frame or sparse.
            y: Targets, shape (N,) or (N, outputs).
            sample_weight: How often each sample counts, shape (N,).

        Returns:
            The estimator.

        Raises:
            ValueError, TypeError: An argument or a setting is wrong; or the loss became no number.
        """
        return self._fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> "DenseRegressor":
        """Trains one more epoch, on these samples.

        Args: As in fit.
        """
        return self._fit(X, y, sample_weight, is_partial=True)

    def predict(self, X: Any) -> Array:
        """Returns the prediction for each row, (N,), or (N, outputs) if there are several.

        Args:
            X: Shape (N, features), an array, a data frame or sparse.
        """
        outputs = self._outputs(X)
        return outputs.ravel() if outputs.shape[1] == 1 else outputs

    def _targets(self, y: Array, goes_on: bool, classes: Any) -> Array:
        if self.loss == "poisson" and (y < 0).any():
            raise ValueError(f"y must be at least 0 for loss='poisson', got {y.min():g}")
        self._units = 1 if y.ndim == 1 else y.shape[1]
        return y.reshape(len(y), -1).astype(np.float64)

    def _head(self) -> Head:
        if self.loss == "squared_error":
            return Head(self._units, "linear", "mean_squared_error", self._units / 2)
        if self.loss == "poisson":
            return Head(self._units, "exponential", "poisson", self._units)
        return Head(self._units, "linear", copy.deepcopy(self.loss))

    def _check_settings(self, is_partial: bool) -> None:
        super()._check_settings(is_partial)
        if self.loss != "squared_error":
            losses.get(self.loss)

    def _score(self, targets: Array, outputs: Array, weight: Array | None) -> float:
        return float(r2_score(targets, outputs, sample_weight=weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
