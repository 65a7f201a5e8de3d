"""Estimators on tables: torchnn's against scikit-learn's networks and trees, and skorch.

    python -m benchmarks.tabular [--data digits rare] [--rounds 7] [--epochs 50]
                                 [--save tabular-cpu]

Networks have one layer of 100 units, batches of 200, Adam and as many epochs as each other, nobody
stops early; trees are what they are by default. Who is not installed is left out. Everyone takes
turns, in another order in every round, and a round is a seed: of the split, the first weights and
the batches. Times are medians over the rounds, scores means. Libraries take the threads that they
take; since products this small may be quicker on one, torchnn and MLPClassifier also have turns
with one. Ratios are to the quicker of MLPClassifier's.
"""

import argparse
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from typing import Any

import torch
from sklearn import datasets, metrics
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

from benchmarks import harness

UNITS, BATCH_SIZE, ALPHA, LEARNING_RATE = 100, 200, 1e-4, 1e-3
PAUSE = 0.1  # seconds between turns: after its work, a library's pool of threads spins for a while


@dataclass(frozen=True)
class Table:
    """A data set, and how good predictions of it are.

    Attributes:
        make: Returns X and y.
        score: What the score is called.
        is_numeric: Whether y is a number, to be regressed.
    """

    make: Callable[[], Any]
    score: str = "accuracy"
    is_numeric: bool = False

    def split(self, seed: int) -> list[Any]:
        """X and y to train on and to test with: a quarter; features, and a numeric y, scaled."""
        X, y = self.make()
        if self.is_numeric:
            y = (y - y.mean()) / y.std()
        X, X_test, y, y_test = train_test_split(
            X, y, random_state=seed, stratify=None if self.is_numeric else y
        )
        scaler = StandardScaler().fit(X)
        return [scaler.transform(X), scaler.transform(X_test), y, y_test]

    def judge(self, estimator: Any, X: Any, y: Any) -> float:
        """The score of a fitted estimator."""
        if self.score == "average precision":
            return metrics.average_precision_score(y, estimator.predict_proba(X)[:, 1])
        if self.is_numeric:
            return metrics.r2_score(y, estimator.predict(X))
        return metrics.accuracy_score(y, estimator.predict(X))


def rare() -> Any:
    """20,000 x 50, of which 3 % are positives."""
    return datasets.make_classification(
        20_000, 50, n_informative=10, weights=[0.97], flip_y=0.005, random_state=0
    )


def five_classes() -> Any:
    return datasets.make_classification(
        5_000, 20, n_informative=10, n_classes=5, class_sep=1.5, random_state=0
    )


TABLES = {
    "breast cancer": Table(lambda: datasets.load_breast_cancer(return_X_y=True)),
    "digits": Table(lambda: datasets.load_digits(return_X_y=True)),
    "five classes": Table(five_classes),
    "rare": Table(rare, "average precision"),
    "friedman": Table(
        lambda: datasets.make_friedman1(5_000, noise=1.0, random_state=0), "R2", is_numeric=True
    ),
}


def torchnn(table: Table, epochs: int, seed: int) -> Any:
    from torchnn.sklearn import DenseClassifier, DenseRegressor

    kind = DenseRegressor if table.is_numeric else DenseClassifier
    return kind(**_settings(epochs, seed))


def mlp(table: Table, epochs: int, seed: int) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    return (MLPRegressor if table.is_numeric else MLPClassifier)(**_settings(epochs, seed))


def _settings(epochs: int, seed: int) -> dict[str, Any]:
    return {
        "hidden_layer_sizes": (UNITS,),
        "alpha": ALPHA,
        "batch_size": BATCH_SIZE,
        "learning_rate_init": LEARNING_RATE,
        "max_iter": epochs,
        "n_iter_no_change": epochs,  # so nobody stops before
        "random_state": seed,
    }


def trees(table: Table, epochs: int, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if table.is_numeric else HistGradientBoostingClassifier
    return kind(random_state=seed)


class Skorch:
    """skorch's net around the same network; made in fit, which sees the shapes."""

    def __init__(self, table: Table, epochs: int, seed: int):
        self.table, self.epochs, self.seed = table, epochs, seed

    def fit(self, X: Any, y: Any) -> None:
        from skorch import NeuralNetClassifier, NeuralNetRegressor

        torch.manual_seed(self.seed)
        is_numeric = self.table.is_numeric
        outputs = 1 if is_numeric else len(set(y))
        y = y.astype("float32")[:, None] if is_numeric else y
        self.net = (NeuralNetRegressor if is_numeric else NeuralNetClassifier)(
            nn.Sequential(nn.Linear(X.shape[1], UNITS), nn.ReLU(), nn.Linear(UNITS, outputs)),
            criterion=nn.MSELoss if is_numeric else nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            optimizer__weight_decay=ALPHA / BATCH_SIZE,
            lr=LEARNING_RATE,
            batch_size=BATCH_SIZE,
            max_epochs=self.epochs,
            iterator_train__shuffle=True,
            train_split=None,
            verbose=0,
        ).fit(X.astype("float32"), y)

    def predict(self, X: Any) -> Any:
        return self.net.predict(X.astype("float32"))

    def predict_proba(self, X: Any) -> Any:
        return self.net.predict_proba(X.astype("float32"))


@dataclass
class Contender:
    """One way to fit a table.

    Attributes:
        label: What the tables call it.
        make: From a table, the epochs and a seed to an estimator.
        package: What it needs.
        threads: Those that it may take, or None for those that it takes.
        differs: What is not the same work.
        seconds: Those of each fit.
        scores: One for each of them.
    """

    label: str
    make: Callable[[Table, int, int], Any]
    package: str
    threads: int | None = None
    differs: str = ""
    seconds: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    def turn(self, table: Table, epochs: int, seed: int, data: list[Any], counts: bool) -> None:
        """Fits once, and keeps time and score if it counts."""
        X, X_test, y, y_test = data
        estimator = self.make(table, epochs, seed)
        time.sleep(PAUSE)
        with threads(self.threads):
            start = time.perf_counter()
            estimator.fit(X, y)
            seconds = time.perf_counter() - start
        if counts:
            self.seconds.append(seconds)
            self.scores.append(table.judge(estimator, X_test, y_test))


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Lets libraries take so many threads within it; None for as many as they take."""
    before = torch.get_num_threads()
    if count is None:
        yield
        return
    with threadpool_limits(count, "blas"):
        torch.set_num_threads(count)
        yield
        torch.set_num_threads(before)


def contenders() -> dict[str, Contender]:
    """All that is installed; says who is not."""
    found = {
        "torchnn": Contender("torchnn", torchnn, "torchnn"),
        "torchnn-1-thread": Contender("torchnn, 1 thread", torchnn, "torchnn", threads=1),
        "mlp": Contender("scikit-learn MLP", mlp, "sklearn"),
        "mlp-1-thread": Contender("scikit-learn MLP, 1 thread", mlp, "sklearn", threads=1),
        "trees": Contender(
            "HistGradientBoosting",
            trees,
            "sklearn",
            differs="trees by default settings, which know no epochs",
        ),
        "skorch": Contender(
            "skorch", Skorch, "skorch", differs="its first weights are PyTorch's, drawn by Linear"
        ),
    }
    for name, contender in list(found.items()):
        try:
            import_module(contender.package)
        except ImportError:
            print(f"{contender.label} is left out: {contender.package} is not installed")
            del found[name]
    return found


def compare(name: str, rounds: int, epochs: int) -> list[dict[str, object]]:
    """Returns a row for each contender on a table."""
    table, found, order = TABLES[name], contenders(), random.Random(0)
    for seed in range(-1, rounds):  # the first round is to warm up
        data = table.split(max(seed, 0))
        for contender in order.sample(list(found.values()), len(found)):
            contender.turn(table, epochs, max(seed, 0), data, counts=seed >= 0)
    rival = min(
        (statistics.median(c.seconds) for key, c in found.items() if key.startswith("mlp")),
        default=None,
    )
    return [
        {
            "table": name,
            "samples": len(data[2]),
            "features": data[0].shape[1],
            "epochs": epochs,
            "contender": key,
            "label": c.label,
            "differs": c.differs,
            "fit": harness.timing([each * 1e6 for each in c.seconds]),
            "mlp_ratio": rival and rival / statistics.median(c.seconds),
            "score_name": table.score,
            "score": statistics.mean(c.scores),
        }
        for key, c in found.items()
    ]


def print_table(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    title = (
        f"{first['table']}: {first['samples']:,} x {first['features']} to train on, "
        f"{first['epochs']} epochs"
    )
    lines = [
        [
            row["label"],
            *(f"{t / 1e3:.1f}" for t in (row["fit"].median, row["fit"].p20, row["fit"].p80)),
            f"{row['mlp_ratio']:.2f}x" if row["mlp_ratio"] else "-",
            f"{row['score']:.4f}",
        ]
        for row in sorted(rows, key=lambda row: row["fit"].median)
    ]
    columns = ["", "fit, ms", "p20", "p80", "faster than MLP", first["score_name"]]
    harness.show(title, columns, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--save", help="write benchmarks/results/NAME.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # it means: max_iter was reached
    rows = []
    for name in arguments.data:
        rows += (found := compare(name, arguments.rounds, arguments.epochs))
        print_table(found)
    for note in dict.fromkeys(f"{r['label']}: {r['differs']}." for r in rows if r["differs"]):
        print(note)
    if arguments.save:
        names = {row["contender"] for row in rows}
        versions = {"scikit-learn": version("scikit-learn")}
        if "skorch" in names:
            versions["skorch"] = version("skorch")
        print(harness.save(arguments.save, rows, rounds=arguments.rounds, versions=versions))


if __name__ == "__main__":
    main()
