"""A chunk: networks that are trained in one call of fit_many, and what comes of them.

That does not depend on the others in the chunk, nor on where it is trained: so chunks may be cut in
any way.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from torchnn._many import fit_many
from torchnn.callbacks import EarlyStopping
from torchnn.sweeps._making import Maker, pack
from torchnn.sweeps._space import Settings

Rows = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Network:
    """One network of a sweep.

    Attributes:
        number: Its place among all.
        trial: The number of its settings.
        settings: The trial's.
        seed: What its first weights, order of samples and dropout follow from.
        batch_size: Samples a step.
        epochs: To train in all.
        fold: The number of its rows among those of the Data, or None for all rows.
    """

    number: int
    trial: int
    settings: Settings
    seed: int
    batch_size: int
    epochs: int
    fold: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a network so far.

    Attributes:
        number: The network's.
        logs: For "loss", each metric and their "val_" twins, one value an epoch.
        epochs: Those trained.
        kept: The number of epochs after which the weights were these.
        engine: How it was trained.
        has_stopped: Whether a callback has stopped it.
        weights: What pack tells.
        rung: Of successive halving, the last one that it took part in.
    """

    number: int
    logs: dict[str, list[float]]
    epochs: int
    kept: int
    engine: str
    has_stopped: bool
    weights: bytes
    rung: int = 0

    def at(self, name: str, epoch: int | None = None) -> float:
        """Returns a loss or metric after so many epochs, or of the weights that there are; NaN
        where there is none."""
        values, epoch = self.logs.get(name, []), self.kept if epoch is None else epoch
        return float(values[epoch - 1]) if 0 < epoch <= len(values) else math.nan

    def after(self, earlier: "Outcome | None") -> "Outcome":
        """Returns this one with the epochs that an earlier one had trained before it."""
        if earlier is None:
            return self
        logs = {name: [*earlier.logs.get(name, []), *values] for name, values in self.logs.items()}
        before = earlier.epochs
        return replace(self, logs=logs, epochs=before + self.epochs, kept=before + self.kept)


@dataclass(frozen=True)
class Data:
    """What networks are trained and validated on, and the options of fit_many that all share.

    Attributes:
        x: Features.
        y: Targets.
        sample_weight: Of each sample, or None.
        validation_data: (x, y) or (x, y, sample_weight), or None.
        folds: Pairs of row numbers, to train and to validate on; none for all rows.
        class_weight: As in fit.
        callbacks: Of which each network gets copies.
        shuffle: As in fit.
    """

    x: Any
    y: Any
    sample_weight: Any
    validation_data: Any
    folds: list[tuple[Rows, Rows]]
    class_weight: Any
    callbacks: list[Any]
    shuffle: bool


@dataclass(frozen=True)
class Chunk:
    """Networks to train in one call.

    Attributes:
        networks: Those.
        states: Of each, what pack has told, to go on there; None to begin.
        epochs: How many to train each.
        goes_on: Whether they are to be trained further afterwards.
        rung: Of successive halving.
    """

    networks: list[Network]
    states: list[bytes | None]
    epochs: list[int]
    goes_on: bool
    rung: int


def train(maker: Maker, data: Data, chunk: Chunk, verbose: Any = 0) -> list[Outcome]:
    """Trains the networks of a chunk, and returns what came of each."""
    models = [
        maker.make(network.settings, data.x, state)
        for network, state in zip(chunk.networks, chunk.states, strict=True)
    ]
    callbacks = [copy.deepcopy(data.callbacks) for _ in models]
    folds = [data.folds[n.fold] for n in chunk.networks if n.fold is not None]
    histories = fit_many(
        models,
        data.x,
        data.y,
        epochs=chunk.epochs,
        batch_size=[network.batch_size for network in chunk.networks],
        rows=[rows for rows, _ in folds] or None,
        validation_rows=[rows for _, rows in folds] or None,
        validation_data=data.validation_data,
        sample_weight=data.sample_weight,
        class_weight=data.class_weight,
        callbacks=callbacks,
        shuffle=data.shuffle,
        verbose=verbose,
    )
    return [
        Outcome(
            network.number,
            history.history,
            len(history.epoch),
            _kept(own, len(history.epoch)),
            history.engine or "",  # a History of fit has none
            model.stop_training,
            pack(model, chunk.goes_on),
            chunk.rung,
        )
        for network, model, history, own in zip(
            chunk.networks, models, histories, callbacks, strict=True
        )
    ]


def _kept(callbacks: Sequence[Any], epochs: int) -> int:
    """After how many epochs the weights were what they are now."""
    for each in callbacks:
        if isinstance(each, EarlyStopping) and each.best_weights is not None:
            return each.best_epoch + 1
    return epochs
