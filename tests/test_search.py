"""SweepCV: what scikit-learn's own searches find, from networks that are trained at once."""

import copy
import pickle
import warnings
from functools import partial

import joblib
import numpy as np
import pytest
import scipy.sparse
from scipy.stats import loguniform
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RandomizedSearchCV,
    ShuffleSplit,
    cross_val_score,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import parametrize_with_checks

import torchnn
from torchnn.callbacks import InvalidLossWarning
from torchnn.sklearn import DenseClassifier, DenseRegressor, SweepCV, _search

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X3, y3 = load_iris(return_X_y=True)
X3 = scale(X3)
names3 = np.array(["setosa", "versicolor", "virginica"])[y3]
two = np.array(["no", "yes"])[(y3 == 1).astype(int)]
XR, yr = load_diabetes(return_X_y=True)
XR, yr = scale(XR)[:200], scale(yr)[:200]
XL, yl = make_multilabel_classification(80, 6, n_classes=3, random_state=0)
XL = scale(XL)

Small = partial(
    DenseClassifier,
    (6,),
    max_iter=12,
    batch_size=40,
    learning_rate_init=0.01,
    dtype="float64",
    random_state=0,
)
Line = partial(DenseRegressor, (6,), max_iter=8, batch_size=40, dtype="float64", random_state=0)
GRID = {"alpha": [1e-4, 1.0]}


QUICK = {"max_iter": 20, "learning_rate_init": 0.05, "random_state": 0}


@pytest.mark.filterwarnings("ignore")  # of what the checks do, which is scikit-learn's affair
@parametrize_with_checks([SweepCV(DenseClassifier(**QUICK), {"alpha": [1e-4]}, cv=2)])
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)


def assert_same_search(ours, theirs):
    """All that a search has found, but for times."""
    assert set(ours.cv_results_) == set(theirs.cv_results_)
    for key, expected in theirs.cv_results_.items():
        if "time" in key:
            continue
        if key == "params" or key.startswith("param_"):
            assert list(map(repr, ours.cv_results_[key])) == list(map(repr, expected)), key
        else:
            np.testing.assert_allclose(ours.cv_results_[key], expected, 1e-6, 1e-9, err_msg=key)
    fitted = {name for name in vars(theirs) if name.endswith("_") and name != "refit_time_"}
    assert fitted <= set(vars(ours))
    for name in fitted & {"best_index_", "multimetric_", "n_splits_"}:
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in fitted & {"best_params_", "scorer_"}:
        assert repr(getattr(ours, name)) == repr(getattr(theirs, name)), name


def searches(estimator, grid, **options):
    return SweepCV(estimator, grid, **options), GridSearchCV(estimator, grid, **options)


def fit_both(data, estimator, grid, options=None, **params):
    ours, theirs = (s.fit(*data, **params) for s in searches(estimator, grid, **(options or {})))
    assert_same_search(ours, theirs)
    return ours, theirs


ODD_GRID = [
    {"hidden_layer_sizes": [(3,), (8, 4), ()], "random_state": [1, 2]},
    {"solver": ["sgd"], "learning_rate": ["adaptive", "invscaling"], "learning_rate_init": [0.3]},
    {"early_stopping": [True], "random_state": [3, None], "n_iter_no_change": [2]},
    {"shuffle": [False], "batch_size": [16, "auto"], "activation": ["tanh", "logistic"]},
    {"solver": ["rmsprop"], "dtype": ["float64", "auto"], "max_iter": [1, 20], "tol": [0.05]},
]


def test_candidates_that_differ_in_anything_come_to_what_they_do_alone():
    for search in (pair := searches(Small(), ODD_GRID, cv=2, return_train_score=True)):
        np.random.seed(5)  # for the candidates without a seed
        search.fit(X3, names3)
    assert_same_search(*pair)


DATA = {
    "strings": (Small(), X3, names3),
    "two": (Small(), X3, two),
    "labels": (Small(), XL, yl),
    "sparse": (Small(), scipy.sparse.csr_matrix(X3), y3),
    "numbers": (Line(), XR, yr),
    "several": (Line(), XR, np.stack([yr, -XR[:, 0], yr**2], 1)),
}


@pytest.mark.parametrize("name", DATA)
def test_each_kind_of_target_is_searched_as_in_scikit_learn(name):
    estimator, X, y = DATA[name]
    grid = {"alpha": [1e-4, 1.0], "early_stopping": [False, True], "validation_fraction": [0.2]}
    ours, theirs = fit_both((X, y), estimator, grid, {"cv": 2})
    np.testing.assert_allclose(ours.predict(X) == y, theirs.predict(X) == y)
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y))
    assert is_classifier(ours) == is_classifier(theirs)


def test_a_trained_candidate_has_all_that_its_fit_leaves():
    found = []

    def look(estimator, X, y):
        found.append(estimator)
        return estimator.score(X, y)

    grid = {"early_stopping": [False, True], "n_iter_no_change": [1]}
    splits = list(KFold(2, shuffle=True, random_state=0).split(X3))
    SweepCV(Small(), grid, scoring=look, refit=False, cv=splits).fit(X3, y3)
    expected = [
        Small(early_stopping=stops, n_iter_no_change=1).fit(X3[train], y3[train])
        for stops in (False, True)
        for train, _ in splits
    ]
    for one, other in zip(found, expected, strict=True):
        assert vars(one).keys() == vars(other).keys()
        assert (one.n_iter_, one.t_, one.n_layers_) == (other.n_iter_, other.t_, other.n_layers_)
        np.testing.assert_allclose(one.loss_curve_, other.loss_curve_, 1e-9)
        np.testing.assert_allclose(one.coefs_[0], other.coefs_[0], 1e-7, 1e-9)
        assert one.validation_scores_ == other.validation_scores_
        again = copy.deepcopy(one).set_params(warm_start=True).fit(X3, y3)  # it is a usual one
        assert len(again.loss_curve_) > len(one.loss_curve_)
        assert pickle.loads(pickle.dumps(one)).score(X3, y3) == one.score(X3, y3)


def test_distributions_are_drawn_as_in_a_randomized_search():
    drawn = {"alpha": loguniform(1e-5, 1.0), "hidden_layer_sizes": [(3,), (5,)]}
    options = {"n_iter": 4, "random_state": 7, "cv": 3}
    ours = SweepCV(Small(), param_distributions=drawn, **options).fit(X3, y3)
    assert_same_search(ours, RandomizedSearchCV(Small(), drawn, **options).fit(X3, y3))


def test_splits_at_random_are_those_of_scikit_learn_and_the_same_for_all_candidates():
    pair = searches(Small(), {"alpha": [1e-4, 1e-4]}, cv=ShuffleSplit(3, test_size=0.3))
    for search in pair:
        np.random.seed(3)
        search.fit(X3, y3)
    assert_same_search(*pair)
    assert len(set(pair[0].cv_results_["mean_test_score"])) == 1


def test_splits_may_come_from_a_generator():
    grid = SweepCV(Small(), GRID, cv=KFold(3, shuffle=True, random_state=0).split(X3))
    expected = GridSearchCV(Small(), GRID, cv=KFold(3, shuffle=True, random_state=0))
    assert_same_search(grid.fit(X3, y3), expected.fit(X3, y3))


def test_pipelines_transform_before_all_are_trained():
    pipeline = Pipeline([("scale", StandardScaler()), ("pca", PCA(2)), ("net", Small())])
    grid = [
        {"net__alpha": [1e-4, 1.0], "pca__n_components": [1, 3]},
        {
            "scale": ["passthrough"],
            "net": [Small(), DenseClassifier((), max_iter=3, random_state=0)],
        },
        {"net": [KNeighborsClassifier()]},  # is fitted by itself
    ]
    ours, theirs = fit_both((load_iris().data, names3), pipeline, grid, {"cv": 3})
    assert list(ours.classes_) == list(theirs.classes_)
    np.testing.assert_allclose(ours.best_estimator_.predict_proba(X3).sum(1), 1.0)
    nested = Pipeline([("first", StandardScaler()), ("rest", pipeline)])
    fit_both((X3, y3), nested, {"rest__net__alpha": [1e-4, 1.0]}, {"cv": 2})


def test_data_frames_reach_the_pipeline():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X3, columns=["a", "b", "c", "d"])
    ours, _ = fit_both((frame, pd.Series(names3)), make_pipeline(StandardScaler(), Small()), {})
    assert list(ours.feature_names_in_) == ["a", "b", "c", "d"]


def best_of_the_cheap(results):
    return int(np.argmin(results["mean_test_worst"]))


@pytest.mark.parametrize("refit", ["accuracy", False, best_of_the_cheap])
def test_several_metrics(refit):
    scoring = {"accuracy": "accuracy", "worst": "neg_log_loss"}
    ours, theirs = fit_both((X3, y3), Small(), GRID, {"scoring": scoring, "refit": refit})
    assert hasattr(ours, "best_score_") == hasattr(theirs, "best_score_")
    assert hasattr(ours, "predict") == hasattr(theirs, "predict") == (refit is not False)
    with pytest.raises(ValueError, match="refit must be set to a scorer key"):
        SweepCV(Small(), GRID, scoring=scoring).fit(X3, y3)


def test_a_scoring_function_may_return_several():
    def score(estimator, X, y):
        return {"right": (estimator.predict(X) == y).mean(), "wide": estimator.n_features_in_}

    fit_both((X3, y3), Small(), GRID, {"scoring": score, "refit": "right"})
    fit_both((X3, y3), Small(), GRID, {"scoring": make_scorer(accuracy_score)})


@pytest.mark.filterwarnings("ignore:The scoring")  # takes no weights, says scikit-learn 1.7
def test_groups_and_weights_go_where_they_belong():
    groups = np.arange(len(y3)) % 5
    weight = np.random.RandomState(0).rand(len(y3)) + 0.1
    options = {"cv": GroupKFold(3), "return_train_score": True}
    fit_both((X3, y3), Small(), GRID, options, groups=groups, sample_weight=weight)
    pipeline = make_pipeline(StandardScaler(), Small(early_stopping=True))
    grid = {f"denseclassifier__{name}": values for name, values in GRID.items()}
    ours, _ = fit_both((X3, y3), pipeline, grid, options, groups=groups)
    fits = {"groups": groups, "denseclassifier__sample_weight": weight}
    weighted, _ = fit_both((X3, y3), pipeline, grid, options, **fits)
    assert not np.allclose(
        ours.best_estimator_.predict_proba(X3), weighted.best_estimator_.predict_proba(X3)
    )


def test_weights_may_be_those_of_some_candidates_alone():
    rare = np.r_[0:100, 100:110]
    fit_both((X3[rare], y3[rare]), Small(), {"class_weight": [None, "balanced"]}, {"cv": 2})


FAILING = {
    "a setting": {"alpha": [1e-4, -1.0]},
    "a seed that diverges": {"learning_rate_init": [0.01, 1e300], "solver": ["sgd"]},
    "a judged one": {
        "learning_rate_init": [0.01, 1e300],
        "solver": ["sgd"],
        "early_stopping": [True],
    },
    "the data": {"loss": ["squared_error", "poisson"]},
}


@pytest.mark.filterwarnings("ignore:One or more of the", "ignore::RuntimeWarning")
@pytest.mark.parametrize("name", FAILING)
@pytest.mark.parametrize("error_score", [np.nan, -7.0])
def test_what_fails_has_the_error_score_and_spares_the_others(name, error_score):
    pair = searches(Line(), FAILING[name], error_score=error_score, cv=3)
    for search in pair:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InvalidLossWarning)
            with pytest.warns(FitFailedWarning, match="3 fits failed out of a total of 6"):
                search.fit(XR, yr)
    assert_same_search(*pair)
    raising = SweepCV(Line(), FAILING[name], error_score="raise", cv=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InvalidLossWarning)
        with pytest.raises(ValueError, match=r"alpha must|the loss became|y must be|contains NaN"):
            raising.fit(XR, yr)
    assert raising.estimator.get_params() == Line().get_params()


def test_when_all_fail_that_is_an_error():
    with pytest.raises(ValueError, match=r"All the 4 fits failed.[\s\S]*alpha must be a non-neg"):
        SweepCV(Line(), {"alpha": [-1.0, -2.0]}, cv=2).fit(XR, yr)


def test_if_training_at_once_fails_each_is_trained_alone(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("out of memory")

    expected = GridSearchCV(Small(), GRID, cv=3).fit(X3, y3)
    monkeypatch.setattr(_search, "fit_many", fails)
    with pytest.warns(UserWarning, match="one after the other, .* RuntimeError: out of memory"):
        assert_same_search(SweepCV(Small(), GRID, cv=3).fit(X3, y3), expected)
    with pytest.raises(RuntimeError, match="out of memory"):
        SweepCV(Small(), GRID, cv=3, error_score="raise").fit(X3, y3)


def test_all_are_trained_at_once_on_data_that_is_held_once(monkeypatch):
    calls = []

    def counted(models, x, y, **options):
        calls.append((len(models), {id(each) for each in x}, {id(each) for each in y}))
        return torchnn.fit_many(models, x, y, **options)

    monkeypatch.setattr(_search, "fit_many", counted)
    grid = {"alpha": [1e-4, 1.0, 10.0], "random_state": [0, 1], "n_iter_no_change": [np.inf]}
    SweepCV(make_pipeline(StandardScaler(), Small()), prefixed(grid), cv=4).fit(X3, y3)
    ((models, x, y),) = calls
    assert (models, len(x)) == (24, 4)
    assert len(y) <= 4  # folds may have the same classes in the same order
    calls.clear()
    grid["early_stopping"] = [True]  # each seed has a part of its own
    SweepCV(Small(), grid, cv=4).fit(X3, y3)
    assert [(models, len(x)) for models, x, _ in calls] == [(24, 4)]


def prefixed(grid):
    return {f"denseclassifier__{name}": values for name, values in grid.items()}


def test_ctrl_c_ends_the_search_and_leaves_it_as_it_was(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(_search, "fit_many", interrupted)
    search = SweepCV(estimator := Small(), GRID, cv=3, n_jobs=2)
    with pytest.raises(KeyboardInterrupt):
        search.fit(X3, y3)
    assert search.estimator is estimator
    assert (search.cv, search.n_jobs) == (3, 2)


def test_joblib_is_not_asked_and_searches_nest():
    with joblib.parallel_config("loky", n_jobs=2):
        ours = SweepCV(Small(), GRID, cv=3, n_jobs=-1, pre_dispatch=1).fit(X3, y3)
    assert_same_search(ours, GridSearchCV(Small(), GRID, cv=3).fit(X3, y3))
    scores = [cross_val_score(s(Small(), GRID, cv=2), X3, y3) for s in (SweepCV, GridSearchCV)]
    np.testing.assert_allclose(*scores)


def test_copies_and_pickles_predict_the_same():
    search = SweepCV(Small(), GRID, cv=2, verbose=0).fit(X3, y3)
    for other in (copy.deepcopy(search), pickle.loads(pickle.dumps(search))):
        np.testing.assert_array_equal(other.predict_proba(X3), search.predict_proba(X3))
    twin = clone(search).set_params(estimator__alpha=3.0, cv=4)
    assert twin.get_params()["estimator__alpha"] == 3.0
    assert not hasattr(twin, "best_score_")
    assert search.estimator.alpha == Small().alpha


def test_times_are_shared_out_and_warnings_are_those_of_the_fits(capsys):
    search = SweepCV(Small(max_iter=2), GRID, cv=2, verbose=3)
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached"):
        search.fit(X3, y3)
    times = search.cv_results_["mean_fit_time"]
    assert (times > 0).all()
    assert times[0] == pytest.approx(times[1], rel=0.5)
    assert search.refit_time_ > 0
    printed = capsys.readouterr().out
    assert "Fitting 2 folds for each of 2 candidates, totalling 4 fits" in printed
    assert printed.count("] END ") == 4


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((LogisticRegression(), GRID), TypeError, "estimator must be a DenseClassifier, a Dense"),
        ((make_pipeline(Small(), PCA()), GRID), TypeError, "Pipeline that ends with one, got Pipe"),
        ((Small(),), ValueError, "one of param_grid and param_distributions .* got neither"),
        ((Small(), {}, {}), ValueError, "one of param_grid and param_distributions .* got both"),
        ((Small(), None, GRID, 0), ValueError, "n_iter must be a positive integer, got 0"),
        ((Small(), {"alpha": loguniform(1, 2)}), TypeError, "needs to be a list or a numpy array"),
        ((Small(), {"alfa": [1.0]}), ValueError, "Invalid parameter 'alfa'"),
        ((Small(), 3), TypeError, "Parameter grid should be a dict or a list, got: 3"),
    ],
    ids=lambda each: str(each)[:20],
)
def test_what_cannot_be_searched_is_said(arguments, kind, message):
    values = dict(
        zip(("estimator", "param_grid", "param_distributions", "n_iter"), arguments, strict=False)
    )
    with pytest.raises(kind, match=message):
        SweepCV(**values).fit(X3, y3)
