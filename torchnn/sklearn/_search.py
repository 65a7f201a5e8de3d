"""A search over settings that trains all candidates on all folds at once.

scikit-learn's BaseSearchCV does the search; what it clones, sets, fits and scores, candidate by
candidate and fold by fold, has been trained before it asks:

    begin      each candidate on each fold: pipelines transform, networks get their first weights
    train      all networks in calls of fit_many
    hand out   what BaseSearchCV takes for clones; their fit has nothing left to do
"""

import copy
import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import product
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sklearn.base import clone, is_classifier  # type: ignore[import, unused-ignore]
from sklearn.model_selection import (  # type: ignore[import, unused-ignore]
    ParameterGrid,
    ParameterSampler,
    check_cv,
)
from sklearn.model_selection._search import (  # type: ignore[import, unused-ignore]
    BaseSearchCV,
)
from sklearn.pipeline import Pipeline  # type: ignore[import, unused-ignore]
from sklearn.utils import indexable  # type: ignore[import, unused-ignore]
from sklearn.utils.metaestimators import _safe_split  # type: ignore[import, unused-ignore]
from sklearn.utils.validation import _check_method_params  # type: ignore[import, unused-ignore]
from torch import Tensor

from torchnn import _checks, _warnings, fit_many
from torchnn.sklearn._base import DenseEstimator, Training


class SweepCV(BaseSearchCV):  # type: ignore[misc, unused-ignore]
    """A GridSearchCV or RandomizedSearchCV that trains all candidates on all folds at once.

    With the arguments, attributes and methods of both: to change the import is enough, but that
    distributions have their name. Each candidate comes to what its own fit comes to, up to
    rounding; whatever differs between them, layers, solvers or seeds, they are trained together.

        >>> from sklearn.datasets import load_iris
        >>> from sklearn.pipeline import make_pipeline
        >>> from sklearn.preprocessing import StandardScaler
        >>> from torchnn.sklearn import DenseClassifier, SweepCV
        >>> pipeline = make_pipeline(StandardScaler(), DenseClassifier(random_state=0))
        >>> search = SweepCV(pipeline, {"denseclassifier__alpha": [1e-4, 1e-2, 1.0]})
        >>> search.fit(*load_iris(return_X_y=True)).best_params_
        {'denseclassifier__alpha': 0.0001}

    Args:
        estimator: A DenseClassifier, a DenseRegressor, or a Pipeline that ends with one.
        param_grid: From names of parameters to lists of values, of which all combinations are
            tried; or a list of such dicts.
        param_distributions: Instead of it, from names to lists or to distributions of scipy.stats,
            of which n_iter combinations are drawn; or a list of such dicts.
        n_iter: As above.
        scoring, refit, cv, error_score, return_train_score: As in GridSearchCV.
        verbose: As there, but what it prints of the fits comes when all are trained.
        random_state: Of the draws from param_distributions.
        n_jobs, pre_dispatch: GridSearchCV's; they change nothing. `torch.set_num_threads` says how
            many threads train.

    Attributes:
        cv_results_: As in GridSearchCV, but that fit times are the time of all, shared out evenly.
        best_estimator_, best_params_, best_score_, best_index_, refit_time_: As there.
        scorer_, multimetric_, n_splits_, n_features_in_, feature_names_in_, classes_: Likewise.

    Of a Pipeline, all transformed folds are in memory at once, equal ones one time.
    """

    estimator: Any
    cv: Any
    n_jobs: Any

    def __init__(
        self,
        estimator: Any,
        param_grid: Any = None,
        *,
        param_distributions: Any = None,
        n_iter: int = 10,
        scoring: Any = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        random_state: Any = None,
        n_jobs: int | None = None,
        pre_dispatch: Any = "2*n_jobs",
    ) -> None:
        super().__init__(
            estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_grid = param_grid
        self.param_distributions = param_distributions
        self.n_iter = n_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, **params: Any) -> "SweepCV":
        """Tries all candidates on all folds, and fits the best on all samples if refit says so.

        Args:
            X: Features, shape (N, features): what the estimator takes.
            y: Targets, likewise.
            **params: "groups" for cv, and what goes to the estimator's fit: "sample_weight", or
                of a Pipeline "denseclassifier__sample_weight" and the like.

        Returns:
            The search.

        Raises:
            TypeError: estimator is none of those that can be trained at once.
            ValueError: An argument is wrong; or all fits have failed, or one with
                error_score="raise".
        """
        self._check_own()
        X, y = indexable(X, y)
        own, self._fits = (self.estimator, self.cv, self.n_jobs), _Fits(self.estimator, X, y)
        try:
            return super().fit(X, y, **params)
        finally:
            self.estimator, self.cv, self.n_jobs = own
            del self._fits

    def _check_own(self) -> None:
        """Raises TypeError or ValueError for what BaseSearchCV does not know of."""
        if _network(self.estimator) is None:
            raise TypeError(
                "estimator must be a DenseClassifier, a DenseRegressor or a Pipeline that ends "
                f"with one, got {self.estimator!r}: GridSearchCV takes any other"
            )
        if (self.param_grid is None) == (self.param_distributions is None):
            what = "neither" if self.param_grid is None else "both"
            raise ValueError(f"one of param_grid and param_distributions must be given, got {what}")
        _checks.positive_int("n_iter", self.n_iter)

    def _get_routed_params_for_fit(self, params: Any) -> Any:
        """Comes after BaseSearchCV has made the scorers and before it clones the estimator."""
        routed, fits = super()._get_routed_params_for_fit(params), self._fits
        fits.params, fits.split_params = routed.estimator.fit, routed.splitter.split
        self.cv = check_cv(self.cv, fits.y, classifier=is_classifier(self.estimator))
        self.estimator = fits.stand_in()
        self.n_jobs = 1  # so that clones are asked for in order, whatever joblib is told
        return routed

    def _run_search(self, evaluate_candidates: Callable[..., Any]) -> None:
        """Trains all candidates, then has them scored one by one."""
        fits = self._fits
        candidates = list(self._candidates())
        splits = list(self.cv.split(fits.X, fits.y, **fits.split_params))
        start = perf_counter()
        fits.train(
            [(parameters, train) for parameters, (train, _) in product(candidates, splits)],
            raises=self.error_score == "raise",
        )
        seconds = perf_counter() - start
        same = SimpleNamespace(split=lambda *_, **__: splits)  # another split may be another one
        results = evaluate_candidates(candidates, cv=same)
        results["mean_fit_time"] += seconds / (len(candidates) * len(splits))

    def _candidates(self) -> Iterable[dict[str, Any]]:
        if self.param_grid is not None:
            return ParameterGrid(self.param_grid)
        return ParameterSampler(
            self.param_distributions, self.n_iter, random_state=self.random_state
        )


@dataclass(eq=False)
class _Fit:
    """A candidate on a fold.

    Attributes:
        estimator: Its clone.
        training: What is left to do, or None.
        error: What has ended it, or None.
    """

    estimator: Any
    training: Training | None = None
    error: Exception | None = None

    def put_off(self, share: "_Shared", training: Training) -> None:
        """Takes the second half of the estimator's fit."""
        training.put_off(share)
        self.training = training

    def attempt(self, step: Callable[[], Any], raises: bool) -> None:
        """Takes a step; an error ends this fit alone, unless raises is True."""
        try:
            step()
        except Exception as error:
            if raises:
                raise
            self.error = error


class _Fits:
    """The fits of all candidates on all folds.

    Args:
        estimator: What the candidates are clones of.
        X: Features.
        y: Targets.

    Attributes:
        X, y: As above.
        params: Those of the estimator's fit.
        split_params: Those of the splitter.
    """

    def __init__(self, estimator: Any, X: Any, y: Any) -> None:
        self._estimator, self.X, self.y = estimator, X, y
        self.params: dict[str, Any] = {}
        self.split_params: dict[str, Any] = {}
        self._trained = deque[_Fit]()

    def stand_in(self) -> Any:
        """Returns what is like the estimator, but for the clones of its clone: these are what has
        been trained, in that order, and when there is no more, the estimator's."""
        first, second = copy.copy(self._estimator), copy.copy(self._estimator)
        vars(first)["__sklearn_clone__"] = lambda: second
        vars(second)["__sklearn_clone__"] = lambda: (
            _as_clone(self._trained.popleft()) if self._trained else clone(self._estimator)
        )
        return first

    def train(self, pairs: list[tuple[dict[str, Any], Any]], raises: bool) -> None:
        """Trains a candidate for each pair, all at once.

        Args:
            pairs: Parameters, and the numbers of the rows to train on.
            raises: Whether the first error is to be raised.
        """
        share = _Shared()
        fits = [self._begin(parameters, train, share, raises) for parameters, train in pairs]
        try:
            _train(fits, raises)
        except Exception as error:
            if raises:
                raise
            _warnings.warn(
                "The candidates are trained one after the other, to find those that fail: together "
                f"they did, with {type(error).__name__}: {error}"
            )
            fits = [self._begin(parameters, train, None, raises) for parameters, train in pairs]
        self._trained.extend(fits)

    def _begin(
        self, parameters: dict[str, Any], train: Any, share: "_Shared | None", raises: bool
    ) -> _Fit:
        """Does the first half of a fit; all of it if there is nothing to share."""
        estimator = clone(self._estimator).set_params(**clone(parameters, safe=False))
        X, y = _safe_split(estimator, self.X, self.y, train)
        params = _check_method_params(self.X, params=self.params, indices=train)
        fit, network = _Fit(estimator), _network(estimator)
        if network is None or share is None:
            fit.attempt(lambda: estimator.fit(X, y, **params), raises)
        else:
            network.__dict__["_train"] = partial(fit.put_off, share)
            fit.attempt(lambda: estimator.fit(X, y, **params), raises)
            del network.__dict__["_train"]
        return fit


def _network(estimator: Any) -> DenseEstimator | None:
    """What an estimator trains last, if that is one of ours."""
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    return estimator if isinstance(estimator, DenseEstimator) else None


def _train(fits: list[_Fit], raises: bool) -> None:
    """Does the second half of all, in as many calls as the one takes that takes most."""
    begun = [(fit, fit.training) for fit in fits if fit.training is not None and fit.error is None]
    for shuffle in (True, False):
        some = [pair for pair in begun if bool(pair[1].estimator.shuffle) == shuffle]
        while some := [pair for pair in some if pair[0].error is None and pair[1].next_epochs()]:
            ready = [training for _, training in some]
            fit_many(
                [each.estimator.model_ for each in ready],
                [each.tensors["x"] for each in ready],
                [each.tensors["y"] for each in ready],
                sample_weight=_weights(ready),
                rows=[each.train for each in ready],
                epochs=[each.next_epochs() for each in ready],
                batch_size=[each.batch_size for each in ready],
                callbacks=[each.callbacks for each in ready],
                shuffle=shuffle,
                verbose=0,
            )
            for fit, training in some:
                fit.attempt(training.count, raises)
    for fit, training in begun:
        if fit.error is None:
            fit.attempt(training.end, raises)
        fit.training = None  # and the samples with it


def _weights(trainings: list[Training]) -> list[Tensor] | None:
    """The samples' weights of each, or None if no training has any."""
    tensors: list[Any] = [training.tensors for training in trainings]
    if all(each["sample_weight"] is None for each in tensors):
        return None
    return [
        torch.ones_like(each["x"][:, 0]) if each["sample_weight"] is None else each["sample_weight"]
        for each in tensors
    ]


def _as_clone(fit: _Fit) -> Any:
    """An estimator to set parameters of and to fit, both of which has been done."""
    estimator = fit.estimator

    def set_params(**_: Any) -> Any:
        return estimator

    def own_fit(*_: Any, **__: Any) -> Any:
        del vars(estimator)["set_params"], vars(estimator)["fit"]
        if fit.error is not None:
            raise fit.error
        return estimator

    vars(estimator).update(set_params=set_params, fit=own_fit)
    return estimator


class _Shared:
    """Tensors, of which equal ones are held once: a call returns the first that was like its own.

    Folds are the same for all candidates, and so is, mostly, what a pipeline makes of them.
    """

    def __init__(self) -> None:
        self._first: dict[Any, Tensor] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        content = hashlib.blake2b(np.ascontiguousarray(tensor.cpu().numpy()).data).digest()
        key = (tensor.dtype, tensor.device, tensor.shape, content)
        return self._first.setdefault(key, tensor)
