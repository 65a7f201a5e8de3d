"""The estimators: scikit-learn's own checks, and MLPClassifier's numbers."""

import copy
import io
import pickle
import subprocess
import sys
import warnings
from functools import partial

import joblib
import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_iris,
    make_classification,
    make_multilabel_classification,
)
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import parametrize_with_checks

import torchnn
from torchnn import optimizers
from torchnn.callbacks import InvalidLossWarning
from torchnn.layers import Dense
from torchnn.sklearn import DenseClassifier, DenseRegressor
from torchnn.sklearn._base import InverseScaling

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Got `batch_size` less than 1"),  # MLPClassifier's
]

X2, y2 = load_breast_cancer(return_X_y=True)
X2 = scale(X2)
X3, y3 = load_iris(return_X_y=True)
X3 = scale(X3)
XR, yr = load_diabetes(return_X_y=True)
yr = scale(yr)
XL, yl = make_multilabel_classification(80, 6, n_classes=3, random_state=0)
XL = scale(XL)

Small = partial(DenseClassifier, (8,), max_iter=20, random_state=0)


@pytest.mark.filterwarnings("ignore")  # of what the checks do, which is scikit-learn's affair
@parametrize_with_checks([DenseClassifier(), DenseRegressor()])
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)


SETTINGS = [
    {"solver": "sgd", "learning_rate_init": 0.1},
    {"solver": "sgd", "momentum": 0.0, "activation": "logistic", "learning_rate_init": 0.1},
    {"solver": "sgd", "nesterovs_momentum": False, "activation": "tanh"},
    {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.5, "power_t": 0.2},
    {
        "solver": "sgd",
        "learning_rate": "adaptive",
        "learning_rate_init": 0.5,
        "n_iter_no_change": 1,
        "tol": 0.01,
    },
    {"solver": "adam", "activation": "identity", "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-4},
    {"early_stopping": True, "n_iter_no_change": 3},
    {"hidden_layer_sizes": (8, 4)},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: "-".join(map(str, each.values())))
@pytest.mark.parametrize("data", [(X2, y2), (X3, y3), (XL, yl)], ids=["two", "three", "labels"])
def test_a_full_batch_trains_as_in_scikit_learn(settings, data):
    X, y = data
    settings = {"batch_size": len(X), "max_iter": 40, "alpha": 0.5, "random_state": 3} | settings
    theirs, ours = MLPClassifier(**settings).fit(X, y), DenseClassifier(**settings).fit(X, y)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), 1e-7, 1e-12)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    for name in ("best_loss_", "validation_scores_", "best_validation_score_", "t_"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name)), name
    for name in ("n_layers_", "n_outputs_", "out_activation_"):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("y", [yr, np.stack([yr, XR[:, 0] * 10], 1)], ids=["one", "two"])
@pytest.mark.parametrize("settings", [{"solver": "sgd"}, {}, {"early_stopping": True}])
def test_a_regressor_trains_as_in_scikit_learn(settings, y):
    settings = {"batch_size": len(XR), "max_iter": 40, "alpha": 0.5, "random_state": 3} | settings
    theirs, ours = MLPRegressor(**settings).fit(XR, y), DenseRegressor(**settings).fit(XR, y)
    np.testing.assert_allclose(ours.predict(XR), theirs.predict(XR), rtol=1e-7, atol=1e-9)
    if y.ndim == 1:  # of several, theirs reports the mean and trains the sum
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)


@pytest.mark.skipif("loss" not in MLPRegressor().get_params(), reason="scikit-learn before 1.7")
def test_a_poisson_regression_predicts_what_scikit_learns_does():
    settings = {"batch_size": len(XR), "max_iter": 30, "random_state": 3, "loss": "poisson"}
    y = yr - yr.min()
    theirs, ours = MLPRegressor(**settings).fit(XR, y), DenseRegressor(**settings).fit(XR, y)
    np.testing.assert_allclose(ours.predict(XR), theirs.predict(XR), rtol=1e-5)
    with pytest.raises(ValueError, match=r"y must be at least 0 for loss='poisson', got -"):
        DenseRegressor(loss="poisson").fit(XR, yr)


def test_mini_batches_in_order_train_as_in_scikit_learn():
    settings = {"batch_size": 50, "shuffle": False, "max_iter": 10, "random_state": 0}
    X, y = X2[:550], y2[:550]  # whole batches, for which the penalties agree
    theirs, ours = MLPClassifier(**settings).fit(X, y), DenseClassifier(**settings).fit(X, y)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-5)
    assert ours.model_[0].weight.dtype == torch.float32


def test_sample_weights_train_as_in_scikit_learn():
    weight = np.random.RandomState(0).rand(len(y3)) * 3
    settings = {"batch_size": len(y3), "max_iter": 30, "alpha": 0.5, "random_state": 3}
    ours = DenseClassifier(**settings).fit(X3, y3, weight)
    try:
        theirs = MLPClassifier(**settings).fit(X3, y3, weight)
    except TypeError:
        pytest.skip("before 1.7, MLPClassifier took none")
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)


def test_sample_weights_are_repetitions():
    weight = np.random.RandomState(0).randint(0, 4, len(y3))
    settings = {"batch_size": 10**6, "solver": "sgd", "max_iter": 30, "random_state": 0}
    weighted = DenseClassifier(**settings).fit(X3, y3, weight)
    repeated = DenseClassifier(**settings).fit(X3.repeat(weight, 0), y3.repeat(weight))
    np.testing.assert_allclose(weighted.predict_proba(X3), repeated.predict_proba(X3))


def test_balanced_classes_weigh_samples_over_classes_times_count():
    y = np.array(["no"] * 60 + ["yes"] * 20)
    X = np.random.RandomState(0).randn(80, 3)
    by_hand = np.where(y == "yes", 80 / (2 * 20), 80 / (2 * 60))
    expected = Small().fit(X, y, sample_weight=by_hand).predict_proba(X)
    for classes in ("balanced", {"yes": 2.0, "no": 2 / 3}):
        got = Small(class_weight=classes).fit(X, y).predict_proba(X)
        np.testing.assert_allclose(got, expected)
    double = Small(class_weight="balanced").fit(X, y, sample_weight=np.full(80, 2.0))
    np.testing.assert_allclose(double.predict_proba(X), expected, rtol=1e-3)  # half the penalty


def test_class_weights_find_rare_classes():
    X, y = make_classification(2000, 10, weights=[0.95], class_sep=0.7, random_state=0)
    plain, balanced = Small().fit(X, y), Small(class_weight="balanced").fit(X, y)
    assert balanced.predict(X)[y == 1].mean() > plain.predict(X)[y == 1].mean() + 0.2


def test_labels_may_be_strings():
    names = np.array(["setosa", "versicolor", "virginica"])
    model = DenseClassifier(learning_rate_init=0.01, random_state=0).fit(X3, names[y3])
    assert list(model.classes_) == list(names)
    assert model.score(X3, names[y3]) > 0.95
    two = Small(learning_rate_init=0.1).fit(X2, np.array(["m", "b"])[y2])
    assert two.score(X2, np.array(["m", "b"])[y2]) > 0.95
    assert list(two.classes_) == ["b", "m"]


@pytest.mark.parametrize("data", [(X2, y2), (X3, y3), (XL, yl)], ids=["two", "three", "labels"])
def test_scores_and_probabilities_say_the_same(data):
    X, y = data
    model = Small().fit(X, y)
    p, z = model.predict_proba(X), model.decision_function(X)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), p)
    np.testing.assert_allclose(p[:, -1] if z.ndim == 1 else p, of_scores(z, y), rtol=1e-6)
    np.testing.assert_allclose(model.model_.predict(X), p[:, 1:] if z.ndim == 1 else p, rtol=1e-5)


def of_scores(z, y):
    """The formulas: a sigmoid of each, or for three classes a softmax of all."""
    if y is y3:
        return np.exp(z) / np.exp(z).sum(1, keepdims=True)
    return 1 / (1 + np.exp(-z))


def test_logarithms_of_small_probabilities_are_finite():
    model = Small().fit(X2, y2)
    assert np.isfinite(model.predict_log_proba(X2 * 1e4)).all()


def test_several_labels_and_several_numbers_keep_their_shapes():
    labels = Small().fit(XL, yl)
    assert labels.predict(XL).shape == labels.predict_proba(XL).shape == yl.shape
    assert set(np.unique(labels.predict(XL))) <= {0, 1}
    sparse = Small().fit(XL, scipy.sparse.csr_matrix(yl))
    np.testing.assert_array_equal(sparse.predict(XL), labels.predict(XL))
    y = np.stack([yr, -yr, 2 * yr], 1)
    assert DenseRegressor((5,), max_iter=2).fit(XR, y).predict(XR).shape == y.shape
    assert DenseRegressor((5,), max_iter=2).fit(XR, yr).predict(XR).shape == yr.shape


def test_several_columns_of_classes_are_for_multi_output_classifier():
    y = np.stack([y3, y3[::-1]], 1)
    with pytest.raises(ValueError, match="MultiOutputClassifier"):
        Small().fit(X3, y)
    assert MultiOutputClassifier(Small()).fit(X3, y).predict(X3).shape == y.shape


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix", "coo_matrix", "csr_array"])
def test_sparse_features_are_like_dense_ones(kind):
    X = np.where(np.abs(X2) > 1, X2, 0)
    sparse = getattr(scipy.sparse, kind)(X)
    for settings in ({}, {"early_stopping": True}):
        model = Small(**settings).fit(sparse, y2)
        np.testing.assert_array_equal(model.coefs_[0], Small(**settings).fit(X, y2).coefs_[0])
    np.testing.assert_array_equal(model.predict_proba(sparse), model.predict_proba(X))


def test_data_frames_give_their_names():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X3, columns=["a", "b", "c", "d"])
    model = Small().fit(frame, pd.Series(y3))
    assert list(model.feature_names_in_) == ["a", "b", "c", "d"]
    assert model.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["b", "a", "c", "d"]])
    with pytest.warns(UserWarning, match="feature names"):
        model.predict(X3)


@pytest.mark.parametrize("settings", [{}, {"solver": "sgd"}, {"batch_size": 40}])
def test_partial_fits_are_the_epochs_of_a_fit(settings):
    whole = Small(**settings, max_iter=5, tol=0.0).fit(X3, y3)
    parts = Small(**settings)
    for _ in range(5):
        parts.partial_fit(X3, y3, classes=[0, 1, 2])
    assert parts.loss_curve_ == whole.loss_curve_
    np.testing.assert_array_equal(parts.coefs_[1], whole.coefs_[1])


def test_partial_fit_takes_what_comes():
    model = Small(learning_rate_init=0.02, class_weight={1: 2.0})
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(X3, y3)
    for epoch in range(60):
        rows = slice(epoch % 3, None, 3)  # the first hold other classes than all
        model.partial_fit(X3[rows], y3[rows], classes=[0, 1, 2])
    model.partial_fit(X3[:5], y3[:5])
    assert model.score(X3, y3) > 0.9
    with pytest.raises(
        ValueError, match=r"classes must be those of before, \[0 1 2\], got \[0 1\]"
    ):
        model.partial_fit(X3, y3, classes=[0, 1])
    with pytest.raises(ValueError, match=r"y must hold the classes \[0 1 2\], got \[3\]"):
        model.partial_fit(X3, y3 + 1)
    with pytest.raises(ValueError, match="class_weight must be a dict for partial_fit"):
        model.set_params(class_weight="balanced").partial_fit(X3, y3)
    model = DenseRegressor(random_state=0).partial_fit(XR, yr).partial_fit(XR[:9], yr[:9])
    assert len(model.loss_curve_) == 2


def test_a_warm_start_goes_on():
    model = Small(warm_start=True, max_iter=3).fit(X3, y3)
    before = [each.copy() for each in model.coefs_]
    first = model.loss_curve_[-1]
    model.fit(X3, y3)
    assert (len(model.loss_curve_), model.n_iter_) == (6, 3)
    assert model.loss_curve_[3] < first
    assert (before[0] != model.coefs_[0]).any()
    with pytest.raises(ValueError, match=r"y must have the classes of before for warm_start"):
        model.fit(X3[:100], y3[:100])
    with pytest.raises(
        ValueError, match=r"needs layers of \[8, 3\] units, as before, got \[9, 3\]"
    ):
        model.set_params(hidden_layer_sizes=9).fit(X3, y3)
    again = model.set_params(warm_start=False, hidden_layer_sizes=8).fit(X3, y3)
    assert len(again.loss_curve_) == 3


def test_weights_can_be_written():
    source, model = Small().fit(X3, y3), Small(random_state=5).fit(X3, y3)
    model.coefs_, model.intercepts_ = source.coefs_, source.intercepts_
    np.testing.assert_array_equal(model.predict_proba(X3), source.predict_proba(X3))
    model.coefs_[0][:] = 0  # in place, as of MLPClassifier
    assert not model.model_[0].weight.any()
    with pytest.raises(ValueError, match=r"coefs_ must have the shapes \[\(4, 8\), \(8, 3\)\]"):
        model.coefs_ = source.coefs_[::-1]
    assert not hasattr(DenseClassifier(), "coefs_")


def test_first_weights_are_those_of_scikit_learn():
    theirs = MLPClassifier((8, 3), random_state=7, max_iter=1, learning_rate_init=1e-30).fit(X3, y3)
    ours = DenseClassifier((8, 3), random_state=7, max_iter=1, learning_rate_init=1e-30).fit(X3, y3)
    for name in ("coefs_", "intercepts_"):
        for mine, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            np.testing.assert_allclose(mine, other)


def test_a_seed_decides_all_and_pytorchs_generator_stays():
    state = torch.get_rng_state()
    one, other = (Small(batch_size=32).fit(X2, y2).coefs_[0] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(one, other)
    torch.manual_seed(99)
    np.testing.assert_array_equal(Small(batch_size=32).fit(X2, y2).coefs_[0], one)
    assert (Small(batch_size=32, random_state=1).fit(X2, y2).coefs_[0] != one).any()
    shuffled = Small(batch_size=32, shuffle=False).fit(X2, y2).coefs_[0]
    assert (shuffled != one).any()


def test_training_stops_where_a_look_at_each_epoch_would():
    settings = {"tol": 0.02, "n_iter_no_change": 4, "max_iter": 200, "batch_size": 40}
    model = Small(**settings).fit(X3, y3)
    curve, best, counts = model.loss_curve_, np.inf, [0]
    for loss in curve:
        counts.append(0 if loss <= best - 0.02 else counts[-1] + 1)
        best = min(best, loss)
    assert counts.index(5) == model.n_iter_ == len(curve) < 200
    assert model.best_loss_ == min(curve)
    looks = Small(**settings, verbose=True).fit(X3, y3)  # epoch by epoch
    assert looks.loss_curve_ == curve


def test_early_stopping_ends_with_the_best_weights():
    settings = {"early_stopping": True, "learning_rate_init": 0.05, "max_iter": 60}
    model = Small(**settings, n_iter_no_change=5).fit(X2, y2)
    best = int(np.argmax(model.validation_scores_))
    assert model.best_validation_score_ == model.validation_scores_[best]
    until = Small(**settings | {"max_iter": best + 1}).fit(X2, y2)
    np.testing.assert_array_equal(model.coefs_[0], until.coefs_[0])
    assert model.best_loss_ is None


def test_max_iter_warns_and_convergence_does_not():
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached") as caught:
        Small(max_iter=2).fit(X3, y3)
    assert caught[0].filename.endswith(".py")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Small(tol=10.0, n_iter_no_change=1).fit(X3, y3)


def test_verbose_prints_each_epoch(capsys):
    Small(verbose=True, max_iter=2).fit(X3, y3)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:19] for line in lines] == ["Iteration 1, loss =", "Iteration 2, loss ="]
    Small(verbose=True, max_iter=9, early_stopping=True, tol=9.0, n_iter_no_change=1).fit(X3, y3)
    printed = capsys.readouterr().out
    assert "Validation score: " in printed
    assert "did not improve more than tol=9.000000 for 1 consecutive epochs. Stopping." in printed


def test_the_network_trains_in_the_kernels():
    for data, model in (((X2, y2), Small()), ((X3, y3), Small()), ((XL, yl), Small())):
        lines = []
        model.fit(*data).model_.summary(print_fn=lines.append)
        assert "fused" in lines[0]


@pytest.mark.parametrize(
    "solver",
    [
        "rmsprop",
        "nadam",
        optimizers.AdamW(0.02),
        partial(torch.optim.Adam, lr=0.02),
        torch.optim.SGD,
    ],
    ids=str,
)
def test_any_optimizer_may_solve(solver):
    model = Small(solver=solver, learning_rate_init=0.02, max_iter=5)
    first = clone(model).fit(X2, y2).loss_curve_
    assert first[-1] < first[0]
    assert model.fit(X2, y2).fit(X2, y2).loss_curve_ == first  # each fit has its own
    if isinstance(solver, optimizers.Optimizer):
        assert solver.iterations == 0


def test_other_activations_and_losses_of_torchnn_are_taken():
    assert Small(activation="gelu").fit(X2, y2).model_[0].activation == "gelu"
    model = Small(activation=torch.nn.PReLU()).fit(X2, y2)
    assert len(list(model.model_.parameters())) == 5
    model = DenseRegressor((8,), loss="huber", max_iter=50, learning_rate_init=0.01)
    assert model.fit(XR, yr).score(XR, yr) > 0.3


def test_no_hidden_layer_is_a_logistic_regression():
    model = DenseClassifier((), random_state=0).fit(X2, y2)
    assert [each.shape for each in model.coefs_] == [(30, 1)]
    assert model.score(X2, y2) > 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "lbfgs"}, "got 'lbfgs', which looks at all samples"),
        ({"solver": "adm"}, "unknown optimizer 'adm': did you mean 'adam'?"),
        ({"activation": "rleu"}, "unknown activation 'rleu': did you mean 'relu'?"),
        ({"hidden_layer_sizes": (8, 0)}, "hidden_layer_sizes must be a positive integer, got 0"),
        ({"hidden_layer_sizes": "8"}, "hidden_layer_sizes must be a positive integer, got '8'"),
        ({"alpha": -1.0}, "alpha must be a non-negative number, got -1"),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"batch_size": "all"}, "batch_size must be a positive integer, got 'all'"),
        ({"learning_rate": 0.01}, "learning_rate must be one of constant, .* got 0.01"),
        ({"learning_rate_init": 0}, "learning_rate_init must be a positive number, got 0"),
        ({"max_iter": 2.5}, "max_iter must be a positive integer, got 2.5"),
        ({"n_iter_no_change": 0}, "n_iter_no_change must be a positive integer, got 0"),
        ({"validation_fraction": 1.0}, r"validation_fraction must be a number in \[0, 1\)"),
        ({"solver": "sgd", "momentum": 1.5}, r"momentum must be a number in \[0, 1\), got 1.5"),
        ({"shuffle": "yes"}, "shuffle must be True or False, got 'yes'"),
        ({"dtype": "float16"}, "dtype must be one of auto, float32, float64, got 'float16'"),
        ({"class_weight": "even"}, "class_weight must be 'balanced', a dict or None, got 'even'"),
        ({"class_weight": {0: -1.0}}, r"class_weight\[0\] must be a non-negative number, got -1"),
        ({"class_weight": 3}, "class_weight must be 'balanced', a dict or None, got 3"),
        ({"class_weight": [{0: 2.0}]}, "class_weight must be a list for several labels alone"),
        ({"device": "gpu"}, "device must be one of PyTorch's, got 'gpu'"),
        ({"solver": 3}, "solver must be an optimizer: .* got 3"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_what_cannot_be_is_said(settings, message):
    model = DenseClassifier(**settings)
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(X3, y3)
    assert not hasattr(model, "model_")


def test_data_that_cannot_be_is_said():
    with pytest.raises(ValueError, match=r"at least two classes, got one class: \[0\]"):
        Small().fit(X3, y3 * 0)
    with pytest.raises(ValueError, match="zero"):
        Small().fit(X3, y3, np.zeros(len(y3)))
    with pytest.raises(ValueError, match="weights of all samples must not sum to zero or less"):
        Small().fit(X3, y3, np.where(y3, 1.0, -2.0))
    with pytest.raises(ValueError, match=r"class_weight must be of the classes \[0 1 2\], got 7"):
        Small(class_weight={7: 2.0}).fit(X3, y3)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping"):
        Small(early_stopping=True).partial_fit(X3, y3, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="leaves 1 to validate on: two are needed"):
        DenseRegressor(early_stopping=True).fit(XR[:8], yr[:8])
    with pytest.raises(NotFittedError):
        Small().predict(X3)


def test_a_loss_that_is_no_number_ends_the_fit():
    model = DenseRegressor(solver="sgd", learning_rate_init=1e6, batch_size=50)
    with (
        pytest.warns(InvalidLossWarning),
        pytest.raises(ValueError, match="scale the features"),
    ):
        model.fit(XR * 1e6, yr * 1e6)


def test_ctrl_c_keeps_what_is_trained(monkeypatch):
    fit, model = torchnn.Sequential.fit, Small(n_iter_no_change=4, max_iter=50)
    calls = []

    def interrupted(self, *arguments, **options):
        calls.append(fit(self, *arguments, **options))
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(torchnn.Sequential, "fit", interrupted)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X3, y3)
    assert model.n_iter_ == len(model.loss_curve_) == 10
    assert model.predict(X3).shape == y3.shape


def test_copies_pickles_and_joblibs_predict_the_same(tmp_path):
    model = Small(solver="sgd", learning_rate="invscaling").fit(X3, y3)
    joblib.dump(model, tmp_path / "model.joblib")
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        joblib.load(tmp_path / "model.joblib"),
    ]
    for other in copies:
        np.testing.assert_array_equal(other.predict_proba(X3), model.predict_proba(X3))
        other.partial_fit(X3, y3)  # and go on
    assert not hasattr(clone(model), "model_")
    assert clone(model).get_params() == model.get_params()


def test_the_model_is_a_sequential_to_go_on_with():
    model = Small().fit(X3, y3).model_
    assert isinstance(model, torchnn.Sequential)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    twin = torchnn.models.clone_model(model)
    twin.load_state_dict(torch.load(io.BytesIO(buffer.getvalue())))
    np.testing.assert_allclose(twin.predict(X3), model.predict(X3))


def test_scikit_learns_tools_take_it():
    pipeline = make_pipeline(StandardScaler(), Small(learning_rate_init=0.05))
    grid = GridSearchCV(
        pipeline,
        {
            "denseclassifier__hidden_layer_sizes": [(4,), (8, 4)],
            "denseclassifier__alpha": np.array([1e-4, 1.0]),
        },
        cv=3,
    ).fit(X2, y2)
    assert grid.best_score_ > 0.9
    assert cross_val_score(pipeline, X3, y3, cv=3, scoring="neg_log_loss").mean() > -0.7
    calibrated = CalibratedClassifierCV(pipeline, cv=3).fit(X2, y2)
    assert calibrated.score(X2, y2) > 0.95
    found = permutation_importance(grid, X2[:100], y2[:100], n_repeats=2, random_state=0)
    assert found.importances_mean.shape == (30,)
    votes = VotingClassifier([("a", Small()), ("b", Small(random_state=1))], voting="soft")
    assert votes.fit(X3, y3).predict(X3).shape == y3.shape


def test_a_grid_search_in_processes_finds_the_same():
    grids = [GridSearchCV(Small(), {"alpha": [0.1, 1.0]}, cv=2, n_jobs=n) for n in (None, 2)]
    one, two = (grid.fit(X3, y3).cv_results_["mean_test_score"] for grid in grids)
    np.testing.assert_array_equal(one, two)


def test_dtype_goes_by_the_data_and_the_batches():
    def dtype(X=X2, **settings):
        return Small(max_iter=1, **settings).fit(X, y2).model_[0].weight.dtype

    assert dtype() == torch.float32
    assert dtype(batch_size=1000) == torch.float64
    assert dtype(X2.astype(np.float32), batch_size=1000) == torch.float32
    assert dtype(dtype="float64") == torch.float64
    assert dtype(batch_size=1000, dtype="float32") == torch.float32


def test_devices_are_torchs(device):
    model = Small(device=device, batch_size=32, dtype="float32").fit(X2, y2)
    assert model.model_[0].weight.device.type == device
    np.testing.assert_allclose(
        model.predict_proba(X2), Small(batch_size=32).fit(X2, y2).predict_proba(X2), atol=1e-3
    )


def test_inverse_scaling_falls_with_the_samples_seen():
    rate = InverseScaling(0.5, 0.5, samples=24, steps=3, samples_before=24, first=10)
    assert [rate(step) for step in (10, 12, 13)] == [0.5 / 5, 0.5 / 5, 0.5 / 7]


def test_layers_keep_scikit_learns_distribution():
    layer = Small().fit(X3, y3).model_[0]
    assert isinstance(layer, Dense)
    assert layer.kernel_initializer.maxval == pytest.approx((6 / 12) ** 0.5)


def test_without_scikit_learn_the_import_says_what_to_install():
    program = (
        "import sys; sys.modules['sklearn.utils.validation'] = None\n"
        "import torchnn; torchnn.Sequential\n"
        "try: torchnn.sklearn\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install torchnn-fused[sklearn]" in done.stdout, done.stderr
