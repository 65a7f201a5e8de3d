"""A table: rows of named values, shown as text, taken by pandas."""

import io
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

SHOWN = 10  # rows
UNLIMITED = 10_000  # letters in a line
PLUS_MINUS = "\u00b1"


class Table:
    """Rows of named values, in order.

    Args:
        rows: From names to values.
        columns: The names.
        shown: The names that the text shows, as far as its width allows; one with a "_spread"
            beside it is shown with that.
        title: What stands above the text.

    Attributes:
        columns: The names.
        rows: Of each row, a dict from the names to its values.
    """

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        columns: Sequence[str],
        shown: Sequence[str],
        title: str,
    ) -> None:
        self.rows, self.columns = list(rows), list(columns)
        self._shown, self._title = list(shown), title

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]

    def to_pandas(self) -> Any:
        """Returns the rows as a pandas.DataFrame.

        Raises:
            ModuleNotFoundError: There is no pandas.
        """
        try:
            import pandas  # type: ignore[import-untyped, unused-ignore]
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("to_pandas needs pandas: pip install pandas") from error
        return pandas.DataFrame(self.rows, columns=self.columns)

    def __repr__(self) -> str:
        """The first rows, as a table of text, in letters that the terminal has."""
        width, lines = shutil.get_terminal_size().columns, list[str]()
        for count in range(len(self._shown), 0, -1):
            lines = self._lines(count)
            if max(map(len, lines)) <= width:
                break
        text, encoding = "\n".join(lines), _encoding()
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def _lines(self, count: int) -> list[str]:
        """The first rows with so many columns."""
        from rich.console import Console  # 50 ms to import: not before someone looks
        from rich.table import Table as Drawn
        from rich.text import Text

        drawn = Drawn()
        names = self._shown[:count]
        for name in names:
            drawn.add_column(name, justify="right")
        for row in self.rows[:SHOWN]:
            drawn.add_row(*(Text(self._cell(row, name)) for name in names))
        console: Any = Console(file=_Page(), width=UNLIMITED)
        console.print(drawn)
        more = [f"... and {len(self) - SHOWN:,} more"] if len(self) > SHOWN else []
        return [self._title, *map(str.rstrip, console.file.getvalue().splitlines()), *more]

    def _cell(self, row: dict[str, Any], name: str) -> str:
        text, spread = told(row.get(name)), row.get(f"{name}_spread", math.nan)
        if math.isnan(spread):
            return text
        return f"{text} {PLUS_MINUS if _is_known(PLUS_MINUS) else '+-'} {spread:.2g}"


class _Page(io.StringIO):
    """Text for the terminal: by its encoding, frames are drawn with lines or with signs."""

    @property
    def encoding(self) -> str:  # type: ignore[override, unused-ignore]
        return _encoding()


def _encoding() -> str:
    """That of what print writes to."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def _is_known(letter: str) -> bool:
    """Whether print can write a letter."""
    try:
        letter.encode(_encoding())
    except UnicodeEncodeError:
        return False
    return True


def told(value: Any) -> str:
    """Returns a value as a table or a legend shows it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return "-".join(map(told, value))
    if isinstance(value, (str, int)):
        return str(value)
    return str(getattr(value, "__name__", type(value).__name__))
