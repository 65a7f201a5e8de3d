"""Sweep: many settings of a network, each trained with several seeds and folds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torchnn import _checks
from torchnn._console.progress import check_verbose
from torchnn._many import check_files
from torchnn.callbacks._base import CallbackList
from torchnn.callbacks._monitor import Monitor
from torchnn.sweeps import _folds, _workers
from torchnn.sweeps._chunks import Data, Network
from torchnn.sweeps._files import Backup, fingerprint, plain
from torchnn.sweeps._halving import Halving
from torchnn.sweeps._making import OWN, Maker, check_common, check_seed
from torchnn.sweeps._result import SweepResult, key
from torchnn.sweeps._rounds import Rounds
from torchnn.sweeps._space import Settings, settings

REHEARSED = 32  # numbers of a setting, about


class Sweep:
    """Trains a network with many settings, seeds and folds, all at once, and tells which is best.

        def build(units):
            return Sequential([Input((64,)), Dense(units, "relu"), Dense(1, "sigmoid")])

        sweep = Sweep(
            build,
            grid={"units": [16, 25], "learning_rate": [0.01, 0.1], "seed": range(10)},
            optimizer="adam",
            loss="binary_crossentropy",
        )
        result = sweep.fit(X, y, epochs=20, folds=5)
        print(result)
        model = result.best()

    The names of settings are, in this order: arguments of build; `seed`, `batch_size` and `epochs`;
    settings of the optimizer, such as learning_rate, momentum or weight_decay. A build that takes
    `**settings` gets all but those three.

    A trial's seed is what first weights, the order of samples and dropout follow from: it comes to
    what `torch.manual_seed(seed); model = build(...); model.fit(...)` comes to, to rounding, and to
    the same bits whatever else is in the sweep and wherever it is trained. build gets it, too, if
    it has an argument of that name.

    Args:
        build: A function that returns a model, compiled or not.
        grid: From names to lists of values, of which all combinations are tried, or a list of such
            dicts.
        random: From names to lists or distributions to draw from: torchnn.sweeps.uniform,
            loguniform and integers, or what has a method rvs, as scipy.stats. Each draw is tried
            with all combinations of the grid.
        trials: How many draws.
        seed: What the draws follow from, and drawn folds; and the seed of trials that have none.
        optimizer: For models that build does not compile, as in compile.
        loss: Likewise.
        metrics: Likewise.

    Attributes:
        trials: The settings of each trial.
        result_: The SweepResult of the latest fit that has finished any network: of those, if it
            was interrupted.

    Raises:
        TypeError, ValueError: An argument is wrong.
    """

    result_: SweepResult | None = None

    def __init__(
        self,
        build: Callable[..., Any],
        grid: Any = None,
        *,
        random: Any = None,
        trials: int | None = None,
        seed: int = 0,
        optimizer: Any = None,
        loss: Any = None,
        metrics: Any = None,
    ) -> None:
        if not callable(build):
            raise TypeError(f"build must be a function that returns a model, got {build!r}")
        seed = check_seed(seed)
        self.trials = settings(grid, random, trials, seed)
        for each in self.trials:
            check_common(each)
        self._maker = Maker(build, optimizer, loss, metrics, seed)

    def __len__(self) -> int:
        return len(self.trials)

    def build_model(self, settings: Settings) -> Any:
        """Returns a new model of these settings, compiled, as a trial begins with it.

            model = sweep.build_model(result.best_settings)
            model.fit(X, y, epochs=20)

        Args:
            settings: From names to values, as in `trials` or `result.best_settings`.

        Raises:
            TypeError: They are no dict.
            ValueError: A setting that nobody knows.
        """
        if not isinstance(settings, Mapping):
            raise TypeError(
                "settings must be a dict from names to values, such as result.best_settings, got "
                f"{settings!r}"
            )
        check_common(settings)
        return self._maker.make(settings)

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: int | None = None,
        batch_size: int = 32,
        folds: Any = None,
        groups: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        callbacks: Any = None,
        shuffle: bool = True,
        halving: Halving | int | None = None,
        monitor: str | None = None,
        mode: str = "auto",
        n_jobs: int | None = None,
        chunk_size: int | None = None,
        backup: Any = None,
        verbose: Any = "auto",
    ) -> SweepResult:
        """Trains a network for each trial, or for each of its folds.

        Args:
            x: Features, shape (N, ...), as in Model.fit.
            y: Targets, likewise.
            epochs: To train each, unless the settings say.
            batch_size: Samples a step, unless the settings say.
            folds: How many parts of the samples each trial is validated on, one after the other,
                having been trained on the others; drawn by the sweep's seed, and if y holds labels,
                with each label's share. Or a splitter of scikit-learn's, or a list of pairs of row
                numbers.
            groups: For a splitter such as GroupKFold.
            validation_split: As in Model.fit, in place of folds.
            validation_data: Likewise.
            sample_weight: A factor of each sample's loss, shape (N,).
            class_weight: From labels to weights.
            callbacks: One or several, of which each network gets copies.
            shuffle: As in Model.fit.
            halving: To stop training settings that do badly: one of so many is kept after each
                round; or a torchnn.sweeps.Halving. To callbacks, each round is a fit of its own.
            monitor: What networks are ranked by; "val_loss" if None, or "loss" if nothing is
                validated.
            mode: "min", "max", or "auto" to tell by the name.
            n_jobs: How many processes of joblib's train; None for this one, or for what the program
                has entered: `with joblib.parallel_config(backend="dask"): sweep.fit(...)`. Where
                build puts networks on "cuda", chunks go to a machine's GPUs in turn.
            chunk_size: Networks that are trained in one call, and by one worker; None to choose.
            backup: A folder that keeps what has been trained, so that the same program, started
                again, trains only what is missing. It stays when the sweep has finished.
            verbose: As in Model.fit.

        Returns:
            The SweepResult, which is `result_`, too.

        Raises:
            TypeError, ValueError: An argument is wrong, or the folder is of another sweep; nothing
                has been trained then.
            KeyboardInterrupt: On Ctrl-C: `result_` has the networks of chunks that were finished.
            RuntimeError: Workers are lost again and again.
        """
        if y is None:
            raise ValueError("y must be given, got None")
        rule = None if halving is None else Halving.of(halving)
        check_files(CallbackList(callbacks), "train the network that it is wanted of by itself")
        listed = CallbackList(callbacks).callbacks
        arrays = (x, y, sample_weight, validation_data)
        pairs = self._pairs(x, y, folds, groups, validation_split, validation_data)
        data = Data(*arrays, pairs, class_weight, listed, _checks.truth("shuffle", shuffle))
        networks = self._networks(epochs, batch_size, len(pairs))
        if rule is not None:
            ends = self._ends(rule, epochs)
        if chunk_size is not None:
            chunk_size = _checks.positive_int("chunk_size", chunk_size)
        workers = _workers.find(n_jobs)
        is_validated = bool(pairs) or validation_data is not None
        first = self._rehearse(x)
        monitor = _checks.string("monitor", monitor or ("val_loss" if is_validated else "loss"))
        if not listed:  # which might add what is to be monitored
            _check_monitor(monitor, first.metrics_names, is_validated)
        judge = Monitor(monitor, mode)
        workers = replace(workers, use_gpus=any(each.is_cuda for each in first.parameters()))
        kept = None
        if backup is not None:
            kept = Backup(backup, self._about(first, data, networks, rule))
        rounds = Rounds(
            self._maker,
            data,
            networks,
            judge.monitor,
            judge.mode,
            workers,
            chunk_size,
            kept,
            check_verbose(verbose),
        )
        try:
            if rule is None:
                rounds.all_at_once()
            else:
                rounds.halving(rule, ends)
        finally:
            result = rounds.result()
            if rounds.outcomes:  # an error before any work leaves an earlier result
                self.result_ = result
        return result

    def _pairs(
        self, x: Any, y: Any, folds: Any, groups: Any, split: float, validation_data: Any
    ) -> list[_folds.Fold]:
        """The rows of each fold, to train and to validate on; none to train on all."""
        given = {
            "folds": folds is not None,
            "validation_split": split != 0,
            "validation_data": validation_data is not None,
        }
        if sum(given.values()) > 1:
            both = " and ".join(name for name, is_given in given.items() if is_given)
            raise ValueError(f"networks are validated on one thing, got {both}")
        if groups is not None and folds is None:
            raise ValueError("groups are for a splitter, such as GroupKFold: give that as folds")
        if folds is not None:
            return _folds.folds(folds, x, y, groups, self._maker.seed)
        return [_folds.last(split, y)] if split else []

    def _networks(self, epochs: Any, batch_size: Any, folds: int) -> dict[int, Network]:
        """All networks, trial by trial, those of its folds one after the other."""
        batch_size = _checks.positive_int("batch_size", batch_size)
        if epochs is not None:
            epochs = _checks.positive_int("epochs", epochs)
        found: dict[int, Network] = {}
        for trial, each in enumerate(self.trials):
            own = each.get("epochs", epochs)
            if own is None:
                raise ValueError("epochs must be given, to fit or among the settings")
            for fold in range(folds) if folds else [None]:
                number = len(found)
                seed = self._maker.seed_of(each)
                size = each.get("batch_size", batch_size)
                found[number] = Network(number, trial, each, seed, size, own, fold)
        return found

    def _ends(self, rule: Halving, epochs: int | None) -> list[int]:
        """After how many epochs each round of successive halving ends."""
        if epochs is None or any("epochs" in each for each in self.trials):
            raise ValueError("halving needs epochs as an argument of fit, and not as a setting")
        named = [
            tuple((n, key(value)) for n, value in each.items() if n != "seed")
            for each in self.trials
        ]
        if len(set(named)) < rule.factor:
            raise ValueError(
                f"halving keeps one of {rule.factor} settings, and there are {len(set(named))}: "
                "seeds of the same setting stay together"
            )
        return rule.ends(len(set(named)), epochs)

    def _rehearse(self, x: Any) -> Any:
        """Makes a model of each kind that will be, and with each value of a setting, so that errors
        come now; returns the first."""
        known, values = set[Any](), _rehearsed(self.trials)
        first = None
        for each in self.trials:
            kind = tuple((n, v if isinstance(v, (str, bool)) else None) for n, v in each.items())
            new = values & {(name, key(value)) for name, value in each.items()}
            if kind in known and not new:
                continue
            known.add(kind)
            values -= new
            model = self._maker.make(each, x)
            first = model if first is None else first
        return first

    def _about(
        self, first: Any, data: Data, networks: dict[int, Network], rule: Halving | None
    ) -> dict[str, Any]:
        """What this fit is, for its backup."""
        try:
            compiled = first.get_compile_config()
        except TypeError:  # of objects that no config tells
            compiled = [first.optimizer, first.loss, first.metrics]
        arrays = (data.x, data.y, data.sample_weight, data.validation_data)
        return {
            "settings": self.trials,
            "model": [list(each.shape) for each in first.parameters()],
            "compile": compiled,
            "data": fingerprint(*arrays),
            "folds": fingerprint(*(rows for pair in data.folds for rows in pair)),
            "seeds": [each.seed for each in networks.values()],
            "batch_size": [each.batch_size for each in networks.values()],
            "epochs": [each.epochs for each in networks.values()],
            "class_weight": data.class_weight,
            "callbacks": data.callbacks,
            "shuffle": data.shuffle,
            "halving": None if rule is None else [rule.factor, rule.min_epochs],
        }

    def _same(self, networks: dict[int, Network]) -> dict[int, Network]:
        """Networks that a file tells, with the settings of these trials.

        Raises:
            ValueError: Their settings are others.
        """
        count = len(self.trials)
        for each in networks.values():
            if each.trial >= count or plain(self.trials[each.trial]) != each.settings:
                raise ValueError(f"the file is of another sweep: trial {each.trial} differs")
        return {n: replace(each, settings=self.trials[each.trial]) for n, each in networks.items()}


def _rehearsed(trials: Sequence[Settings]) -> set[tuple[str, Any]]:
    """Names and values of settings to make models with: all, or of many numbers some and the
    extremes, which are most likely to be wrong."""
    found: dict[str, dict[Any, None]] = {}
    for each in trials:
        for name, value in each.items():
            if name not in OWN:  # which are checked when the sweep is made
                found.setdefault(name, {})[key(value)] = None
    pairs = set[tuple[str, Any]]()
    for name, values in found.items():
        numbers = sorted(v for v in values if isinstance(v, (int, float)))
        left = {*numbers[:: len(numbers) // REHEARSED + 1], *numbers[-1:]}
        pairs |= {(name, v) for v in values if v in left or not isinstance(v, (int, float))}
    return pairs


def _check_monitor(monitor: str, metrics: Sequence[str], is_validated: bool) -> None:
    known = [*metrics, *(f"val_{name}" for name in metrics if is_validated)]
    if monitor not in known:
        raise ValueError(f"monitor must be one of {', '.join(known)}, got {monitor!r}")
