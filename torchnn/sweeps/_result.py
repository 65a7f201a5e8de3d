"""What a sweep comes to: a table, the best network, an ensemble, pictures and files."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from torchnn import _checks
from torchnn._files import storage
from torchnn.callbacks import History
from torchnn.sweeps._chunks import Network, Outcome
from torchnn.sweeps._files import read, write
from torchnn.sweeps._making import Maker
from torchnn.sweeps._space import Settings
from torchnn.sweeps._table import Table, told

Array = np.ndarray[Any, Any]
OWN = ("trial", "fold", "rung", "epochs_trained", "best_epoch", "engine", "networks")  # columns


class Prediction(NamedTuple):
    """What several networks predict.

    Attributes:
        mean: The mean of their outputs, shape (N, units).
        spread: Their standard deviation, likewise.
    """

    mean: Array
    spread: Array


class Ensemble:
    """Several networks that predict together.

    Attributes:
        models: The networks.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        self.models = list(models)

    def __len__(self) -> int:
        return len(self.models)

    def predict(self, x: Any, batch_size: int | None = None) -> Prediction:
        """Returns mean and spread of what the networks predict.

        Args:
            x: As in Model.predict.
            batch_size: Samples to compute at once.

        Raises:
            TypeError: The networks have several outputs.
        """
        total: Any = 0.0
        squares: Any = 0.0
        for number, model in enumerate(self.models):
            output = model.predict(x, batch_size=batch_size, verbose=0)
            if not isinstance(output, np.ndarray):
                raise TypeError("an ensemble predicts one output, and these networks have several")
            # Welford's way: no difference of large sums.
            change = output.astype(np.float64) - total
            total = total + change / (number + 1)
            squares = squares + change * (output - total)
        return Prediction(total, np.sqrt(squares / len(self.models)))


class SweepResult(Table):
    """The networks of a sweep, best first: one row a network.

    A row has the number of its trial; the settings, of which one that is named as another column is
    stands as "setting_loss"; its seed; its fold, if there are folds; `epochs_trained`;
    `best_epoch`, from 1; loss and metrics of the network as it is; the same after its best epoch,
    as "best_val_loss"; and its engine. The weights are those after the last epoch, unless a
    callback has restored those of the best one. In successive halving, `rung` is the last round
    that it took part in, and whoever has come further stands first.

    Attributes:
        monitor: What networks are ranked by.
        mode: "min" or "max".
        settings: The names of the settings that differ among the trials.
    """

    def __init__(
        self,
        maker: Maker | None,
        networks: Mapping[int, Network],
        outcomes: Sequence[Outcome],
        monitor: str,
        mode: str,
    ) -> None:
        self.monitor, self.mode = monitor, mode
        self._maker = maker
        self._networks, self._outcomes = networks, sorted(outcomes, key=self._rank)
        self.settings = _varying([networks[each.number].settings for each in outcomes])
        self._logs = logs = list(dict.fromkeys(n for each in self._outcomes for n in each.logs))
        has_folds = any(network.fold for network in networks.values())  # more than the one, 0
        has_rungs = any(each.rung for each in self._outcomes)
        names = dict.fromkeys(n for network in networks.values() for n in network.settings)
        self._columns = {name: self._column(name) for name in names}
        columns = [
            "trial",
            *(column for column in self._columns.values() if column != "seed"),
            "seed",
            *["fold"] * has_folds,
            *["rung"] * has_rungs,
            "epochs_trained",
            "best_epoch",
            *logs,
            *(f"best_{name}" for name in logs),
            "engine",
        ]
        few = self._columns_told_apart()
        others = [name for name in logs if name != monitor]
        last = [monitor, "epochs_trained", "best_epoch", *others]
        shown = [*few, "seed", *["fold"] * has_folds, *["rung"] * has_rungs, *last]
        title = f"{len(outcomes):,} networks, best {monitor} first"
        rows = [self._row(each) for each in self._outcomes]
        rows = [{name: row.get(name) for name in columns} for row in rows]
        super().__init__(rows, columns, shown, title)

    def _column(self, setting: str) -> str:
        """The name of a setting's column: its own, unless another column is named so."""
        losses = {named for log in self._logs for named in (log, f"best_{log}", f"{log}_spread")}
        return f"setting_{setting}" if setting in losses.union(OWN) else setting

    def _columns_told_apart(self) -> list[str]:
        """The columns of the settings that differ, seeds apart."""
        return [self._columns[name] for name in self.settings if name != "seed"]

    def _rank(self, outcome: Outcome) -> tuple[float, ...]:
        score = outcome.at(self.monitor)
        return -outcome.rung, *self._order(score), outcome.number

    def _order(self, score: float) -> tuple[float, ...]:
        """Sorts better ones first, and those that are no number last."""
        if math.isnan(score):
            return 1, 0.0
        return 0, -score if self.mode == "max" else score

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        network = self._networks[outcome.number]
        best = self._best_epoch(outcome)
        row = {
            "trial": network.trial,
            **{self._columns[name]: value for name, value in network.settings.items()},
            "seed": network.seed,
            "fold": network.fold,
            "rung": outcome.rung,
            "epochs_trained": outcome.epochs,
            "best_epoch": best,
            "engine": outcome.engine,
        }
        row |= {name: outcome.at(name) for name in outcome.logs}
        row |= {f"best_{name}": outcome.at(name, best) for name in outcome.logs}
        return row

    def _best_epoch(self, outcome: Outcome) -> int:
        epochs = range(1, outcome.epochs + 1)
        return min(epochs, key=lambda n: self._order(outcome.at(self.monitor, n)), default=0)

    def history(self, index: int = 0) -> dict[str, list[float]]:
        """Returns the losses and metrics of a row's network, one value an epoch."""
        return {name: list(values) for name, values in self._outcomes[index].logs.items()}

    def model(self, index: int = 0) -> Any:
        """Returns the network of a row, made by build, with the weights that were trained.

        It is an ordinary model, compiled: it predicts, can be saved, and goes on training in the
        order of its seed; its optimizer remembers nothing but the epochs.

        Args:
            index: The row; 0 is the best.

        Raises:
            ValueError: The result was loaded without its sweep, which knows build.
        """
        if self._maker is None:
            raise ValueError(
                "a file holds no code to build models: load it with SweepResult.load(path, sweep)"
            )
        outcome = self._outcomes[index]
        model = self._maker.make(self._networks[outcome.number].settings, weights=outcome.weights)
        model.epochs_trained = outcome.epochs
        history = History()
        history.set_model(model)
        history.epoch, history.history = list(range(outcome.epochs)), self.history(index)
        model.history = history
        return model

    @property
    def best_settings(self) -> Settings:
        """The settings whose networks are best in the mean over seeds and folds, without seed."""
        first = self._networks[self._outcomes[self._best_group()[0]].number]
        return {name: value for name, value in first.settings.items() if name != "seed"}

    def best(self) -> Any:
        """Returns the best network of the best settings: see model and best_settings.

        The settings are chosen by their mean over seeds and folds, which luck decides less than a
        single network's score. Of folds, it has been trained on all rows but those of its own:
        `sweep.build_model(result.best_settings).fit(X, y, ...)` trains one on all.
        """
        return self.model(self._best_group()[0])

    def ensemble(self, count: int | None = None) -> Ensemble:
        """Returns networks that predict together: mean and spread.

        Args:
            count: So many of the best networks, whatever their settings; None for all networks of
                the best settings, which differ in seed and fold.

        Raises:
            ValueError: There are not so many.
        """
        if count is None:
            return Ensemble([self.model(index) for index in self._best_group()])
        count = _checks.bounded_int("count", count, 1, len(self))
        return Ensemble([self.model(index) for index in range(count)])

    def summary(self, by: Sequence[str] | str | None = None) -> Table:
        """Returns mean and spread of losses and metrics, best first: one row for each combination
        of settings.

        The spread is the standard deviation of a sample, as of several seeds and folds.

        Args:
            by: The names of the settings to tell apart; None for all but seed.

        Raises:
            TypeError: by is no name, nor a list of names.
            ValueError: There is no such setting.
        """
        if by is None:
            names = self._columns_told_apart()
        else:
            given = [by] if isinstance(by, str) else by
            if not isinstance(given, Iterable) or not all(isinstance(n, str) for n in given):
                raise TypeError(f"by must be the name of a setting, or a list of some, got {by!r}")
            names = [self._columns.get(name, name) for name in given]
        for name in names:
            if name not in self.columns[: self.columns.index("epochs_trained")]:
                raise ValueError(f"by must name settings, got {name!r}")
        logs, rows = self._logs, []
        for group in self._groups(names):
            first = self.rows[group[0]]
            row = {name: first[name] for name in names} | {"networks": len(group)}
            for log in logs:
                values = np.array([self._outcomes[index].at(log) for index in group])
                with np.errstate(invalid="ignore"):  # losses that are infinite have none
                    spread = values.std(ddof=1) if len(values) > 1 else math.nan
                row |= {log: float(values.mean()), f"{log}_spread": float(spread)}
            rows.append(row)
        columns = [*names, "networks", *(c for log in logs for c in (log, f"{log}_spread"))]
        others = [name for name in logs if name != self.monitor]
        shown = [*names, "networks", self.monitor, *others]
        return Table(rows, columns, shown, f"Means and spreads, best {self.monitor} first")

    def _groups(self, names: Sequence[str]) -> list[list[int]]:
        """The rows that are equal in these columns, groups best in the mean first; of successive
        halving, those that came further before others."""
        groups: dict[Any, list[int]] = {}
        for index, row in enumerate(self.rows):
            groups.setdefault(tuple(key(row.get(name)) for name in names), []).append(index)

        def rank(group: list[int]) -> tuple[float, ...]:
            scores = [self._outcomes[index].at(self.monitor) for index in group]
            rung = max(self._outcomes[index].rung for index in group)
            return -rung, *self._order(float(np.mean(scores)))

        return sorted(groups.values(), key=rank)

    def _best_group(self) -> list[int]:
        if not self.rows:
            raise ValueError("no network has been trained yet")
        return self._groups(self._columns_told_apart())[0]

    def plot(self, path: Any = None) -> Any:
        """Draws what the best settings' networks have learned over the epochs, and the score
        against each setting, with matplotlib.

        Args:
            path: Where to save the picture, such as "sweep.png"; None for not.

        Returns:
            The matplotlib.figure.Figure.

        Raises:
            ModuleNotFoundError: There is no matplotlib.
        """
        from torchnn.sweeps._plot import draw

        figure = draw(self)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def save(self, path: Any) -> None:
        """Writes a file of the table, histories and weights, for load. It holds no code: build
        stays in the program.

        Raises:
            OSError: The folder is missing, the disk is full, or the like.
        """
        about = {"monitor": self.monitor, "mode": self.mode}
        write(storage.checked(path), self._outcomes, self._networks.values(), about)

    @classmethod
    def load(cls, path: Any, sweep: Any = None) -> "SweepResult":
        """Returns the result that save has written.

        Args:
            path: The file.
            sweep: A Sweep with the same build and settings, to make models again; without it there
                are the table, the summary and the plot.

        Raises:
            TypeError: sweep is no Sweep.
            OSError: There is no such file.
            ValueError: It is damaged, or of another sweep.
        """
        if sweep is not None and not isinstance(getattr(sweep, "_maker", None), Maker):
            raise TypeError(f"sweep must be the Sweep that the result is of, got {sweep!r}")
        outcomes, networks, about = read(path)
        found = {network.number: network for network in networks}
        maker = None
        if sweep is not None:
            maker, found = sweep._maker, sweep._same(found)
        return cls(maker, found, outcomes, about["monitor"], about["mode"])


def key(value: Any) -> Any:
    """Returns what equal values have in common, of those that cannot be hashed as well."""
    try:
        hash(value)
    except TypeError:
        return told(value) if isinstance(value, (list, tuple)) else id(value)
    return value


def _varying(settings: Sequence[Settings]) -> list[str]:
    """The names of the settings that have more than one value."""
    names = dict.fromkeys(name for each in settings for name in each)
    return [n for n in names if len({key(each.get(n)) for each in settings}) > 1]
