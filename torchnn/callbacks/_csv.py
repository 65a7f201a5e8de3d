"""A file with a row for every epoch."""

import csv
import io
import os
from collections.abc import Iterable
from typing import Any

from torchnn import _checks, _warnings
from torchnn.callbacks._base import Callback, Logs


class CSVLogger(Callback):
    """Writes what is logged into a file of comma-separated values, a row an epoch.

    model.fit(x, y, epochs=20, callbacks=[CSVLogger("log.csv")])
    pandas.read_csv("log.csv").plot(x="epoch", y=["loss", "val_loss"])

    The columns are "epoch", the first being 0, and the names of the first epoch's values, in the
    order of the alphabet; where none begins with "val_", also these with that in front of them. A
    value that an epoch does not have is NA. After each epoch, its row is in the file.

    Args:
        filename: The file's path.
        separator: The character between two columns.
        append: Whether rows that are there stay, and columns as they are; else the first row of
            every fit begins a new file.

    Raises:
        TypeError, ValueError: An argument is wrong; or, when fit begins, the file to append to has
            other columns than these.
        OSError: When fit begins, the file cannot be written.
    """

    model_access = "none"

    _columns: list[str] | None  # but for "epoch"
    _file: Any = None  # from the first row of a fit until on_train_end

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ):
        if not isinstance(filename, (str, os.PathLike)):
            raise TypeError(f"filename must be a path, got {filename!r}")
        self.filename = os.fspath(filename)
        self.separator = _checks.string("separator", separator)
        if len(separator) != 1 or separator in '\r\n"':
            raise ValueError(f"separator must be one character, no quote, got {separator!r}")
        self.append = _checks.truth("append", append)
        self._forget()

    def on_train_begin(self, logs: Logs = None) -> None:
        self._forget()
        with open(self.filename, "a+b") as file:
            if self.append:
                self._end = file.seek(0, os.SEEK_END)
                file.seek(0)
                self._columns = self._columns_of(file.readline().decode())

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        logs = logs or {}
        if self._columns is None:
            self._columns = _columns(logs)
        self._tell_of_others(logs, self._columns)
        self._write([epoch, *(_written(logs.get(name, "NA")) for name in self._columns)])

    def on_train_end(self, logs: Logs = None) -> None:
        self._close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_file"}

    def state_dict(self) -> dict[str, Any]:
        return {"columns": self._columns, "end": self._end}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._close()
        self._columns, self._end = state["columns"], state["end"]

    def _forget(self) -> None:
        self._close()
        self._columns = None
        self._end = 0  # of the rows that are to stay, in bytes: there may be others behind them
        self._told: set[str] = set()

    def _columns_of(self, header: str) -> list[str] | None:
        """Those of a file that is there; None if it is empty."""
        if not header:
            return None
        first, *columns = next(csv.reader([header], delimiter=self.separator))
        if first != "epoch":
            raise ValueError(
                f"the columns of {self.filename} must begin with 'epoch', and have "
                f"{self.separator!r} between them, to append to it, got {header.rstrip()!r}"
            )
        return columns

    def _tell_of_others(self, logs: dict[str, Any], columns: list[str]) -> None:
        """Warns once of a value that has no column."""
        for name in logs.keys() - {*columns, *self._told}:
            self._told.add(name)
            _warnings.warn(f"{self.filename} has no column for {name!r}, which it goes without")

    def _write(self, row: list[Any]) -> None:
        if self._file is None:
            self._open()
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self.separator)
        if not self._end:
            writer.writerow(["epoch", *(self._columns or ())])
        writer.writerow(row)
        self._end += self._file.write(text.getvalue().encode())
        self._file.flush()

    def _open(self) -> None:
        """Opens the file behind the rows that are to stay."""
        self._file = open(self.filename, "ab")  # noqa: SIM115
        self._end = min(self._end, self._file.seek(0, os.SEEK_END))
        self._file.truncate(self._end)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _columns(logs: dict[str, Any]) -> list[str]:
    names = sorted(logs)
    if any(name.startswith("val_") for name in names):
        return names
    return names + [f"val_{name}" for name in names]  # validation may come later


def _written(value: Any) -> Any:
    """A value as its column shows it."""
    if hasattr(value, "tolist"):  # arrays and tensors
        value = value.tolist()
    if isinstance(value, Iterable) and not isinstance(value, str):
        return f'"[{", ".join(map(str, value))}]"'
    return value
