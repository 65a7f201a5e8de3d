"""Files of a model while it learns."""

import os
import string
from typing import Any

from torchnn import _checks
from torchnn._files import storage
from torchnn.callbacks._backup import checked_frequency
from torchnn.callbacks._base import Logs, verbosity
from torchnn.callbacks._monitor import Monitor


class ModelCheckpoint(Monitor):
    """Saves the model, or its weights, after each epoch or when a logged value has improved.

        ModelCheckpoint("best.keras", monitor="val_accuracy", save_best_only=True)
        ModelCheckpoint("{epoch:02d}-{val_loss:.2f}.weights.h5", save_weights_only=True)

    Args:
        filepath: Where to; {epoch}, {batch} and the names of logged values stand for what they are
            then. Folders that are missing are made.
        monitor: The value to go by with save_best_only.
        verbose: 1 prints what is saved, and why.
        save_best_only: Whether to save only when the value is better than ever before.
        save_weights_only: Whether to call model.save_weights in place of model.save.
        mode: "min", "max", or "auto" to tell by the name: accuracies rise, losses and errors fall.
        save_freq: "epoch", or after how many batches, counted on from epoch to epoch; native
            training then goes batch by batch.
        initial_value_threshold: What the first value must be better than.

    Attributes:
        best: The best value so far, also of earlier fits.

    Raises:
        TypeError, ValueError: An argument is wrong; or, when a file is due, filepath names a value
            that is not logged.
        OSError: A file cannot be written.
    """

    model_access = "read"

    consequence = "saves nothing"

    def __init__(
        self,
        filepath: Any,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        self.save_best_only = _checks.truth("save_best_only", save_best_only)
        # Only the best is found by the value: then "auto" must know which way it goes.
        super().__init__(monitor, mode if self.save_best_only or mode != "auto" else "min")
        self.filepath = os.fspath(storage.checked(filepath, "filepath"))
        self.verbose = verbosity(verbose)
        self.save_weights_only = _checks.truth("save_weights_only", save_weights_only)
        self.save_freq = checked_frequency(save_freq)
        if initial_value_threshold is not None:
            self.best = _checks.number("initial_value_threshold", initial_value_threshold)
        self.initial_value_threshold = initial_value_threshold
        self._epoch = self._batches = 0
        if self.save_freq != "epoch":  # a hook for batches costs time
            self.on_epoch_begin = self._begin_epoch  # type: ignore[method-assign]
            self.on_train_batch_end = self._count  # type: ignore[method-assign]

    def on_train_begin(self, logs: Logs = None) -> None:
        self._warned = False

    def _begin_epoch(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, None, logs or {})

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "batches": self._batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self._batches = state["best"], state["batches"]

    def _count(self, batch: int, logs: Logs = None) -> None:
        self._batches += 1
        if self._batches % int(self.save_freq) == 0:
            self._save(self._epoch, batch, logs or {})

    def _save(self, epoch: int, batch: int | None, logs: dict[str, Any]) -> None:
        """Writes a file, if it is due."""
        why = self._reason(epoch, logs) if self.save_best_only else ""
        if why is None:
            return
        path = self._path(epoch, batch, logs)
        if self.verbose:
            print(f"Epoch {epoch + 1}: {why}saving model to {path}")
        if folder := os.path.dirname(path):
            os.makedirs(folder, exist_ok=True)
        (self.model.save_weights if self.save_weights_only else self.model.save)(path)

    def _reason(self, epoch: int, logs: dict[str, Any]) -> str | None:
        """Takes note of the value; in words, how it has improved, or None if it has not."""
        value = self._monitored(logs)
        if value is None:
            return None
        if not self._improves(value, self.best):
            if self.verbose:
                best = "nothing" if self.best is None else f"{self.best:.5f}"
                print(f"Epoch {epoch + 1}: {self.monitor} did not improve from {best}")
            return None
        before, self.best = self.best, value
        change = (
            f"is {value:.5f}" if before is None else f"improved from {before:.5f} to {value:.5f}"
        )
        return f"{self.monitor} {change}, "

    def _path(self, epoch: int, batch: int | None, logs: dict[str, Any]) -> str:
        known = {"epoch": epoch + 1, **({} if batch is None else {"batch": batch + 1}), **logs}
        names = [name for _, name, _, _ in string.Formatter().parse(self.filepath) if name]
        if unknown := [name for name in names if name not in known]:
            raise ValueError(
                f"filepath {self.filepath!r} names {', '.join(unknown)}; "
                f"there are {', '.join(known)}"
            )
        return self.filepath.format(**known)
