"""A fit that can be killed: what it needs to go on in another process."""

import os
from typing import Any

from torchnn import _checks
from torchnn._files import storage, tree
from torchnn.callbacks._base import Callback

NAME = "fit.safetensors"


class BackupAndRestore(Callback):
    """Keeps what a fit needs to go on, so that the same program, started again after a crash or a
    kill, goes on where it was, and ends with the bits of one that was never stopped.

        model.fit(x, y, epochs=1000, callbacks=[BackupAndRestore("backup")])

    It keeps weights, optimizer, History, random numbers, and what other callbacks remember
    (`state_dict` of those of one's own). The program must make the same model, or go on with the
    one that was stopped, and give the same data; callbacks that are new begin anew. Batches of a
    DataLoader or a generator go on with the epoch that was not finished, from its beginning; so do
    metrics that are computed from all predictions at once.

    Args:
        backup_dir: A folder for one fit alone, made if it is missing.
        save_freq: "epoch" for the end of each epoch; or so many batches at least, which native
            training counts when it pauses, some twenty times a second.
        double_checkpoint: Keras's; it changes nothing: a backup is replaced as a whole.
        delete_checkpoint: Whether to remove the backup when fit has finished.

    Raises:
        ValueError: backup_dir is empty or save_freq is neither; when fit begins, the backup is of
            another fit.
        OSError: A backup cannot be written.
    """

    def __init__(
        self,
        backup_dir: Any,
        save_freq: str | int = "epoch",
        double_checkpoint: Any = False,
        delete_checkpoint: bool = True,
    ) -> None:
        self.backup_dir = storage.checked(backup_dir, "backup_dir")
        self.save_freq = checked_frequency(save_freq)
        self.delete_checkpoint = _checks.truth("delete_checkpoint", delete_checkpoint)
        self._steps = 0  # those that had been taken at the last backup

    @property
    def path(self) -> str:
        """The file of the backup."""
        return os.path.join(self.backup_dir, NAME)

    def is_due(self, steps: int, has_ended: bool) -> bool:
        """Whether to keep the state.

        Args:
            steps: Those that have been taken.
            has_ended: Whether an epoch has just ended.
        """
        if isinstance(self.save_freq, str):
            return has_ended
        return steps - self._steps >= self.save_freq

    def keep(self, steps: int, state: dict[str, Any]) -> None:
        """Replaces the backup."""
        tensors: dict[str, Any] = {}
        told = tree.encode(state, tensors, "/fit")
        os.makedirs(self.backup_dir, exist_ok=True)
        storage.write(self.path, tensors, told)
        self._steps = steps

    def kept(self, steps: int) -> dict[str, Any] | None:
        """Returns the state in the backup, or None if there is none, when fit begins."""
        self._steps = steps
        if not os.path.exists(self.path):
            return None
        tensors, told = storage.read(self.path)
        try:
            return dict(tree.decode(told, tensors, {}))
        except Exception as error:
            raise ValueError(f"{self.path!r} is damaged: {error}") from error

    def drop(self) -> None:
        """Removes the backup, and its folder if nothing else is in it."""
        if self.delete_checkpoint and os.path.isdir(self.backup_dir):
            storage.remove(self.path)
            if not os.listdir(self.backup_dir):
                os.rmdir(self.backup_dir)


def checked_frequency(save_freq: Any) -> str | int:
    """Returns "epoch", or a number of batches."""
    if isinstance(save_freq, str):
        return _checks.choice("save_freq", save_freq, ("epoch",))
    return _checks.positive_int("save_freq", save_freq)
