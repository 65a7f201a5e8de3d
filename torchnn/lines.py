"""How a line of progress looks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CYAN, GREEN, DIM, RESET = "\x1b[36m", "\x1b[32m", "\x1b[2m", "\x1b[0m"


@dataclass
class Look:
    """What a stream can show.

    Attributes:
        bar: A whole and a half character to make bars of, or None for no bars.
        has_colours: Whether it takes colours.
        columns: How many columns it has now.
    """

    bar: tuple[str, str] | None = None
    has_colours: bool = False
    columns: int = 80

    def finished(self, label: str, rate: float, time: str, logs: Mapping[str, Any]) -> str:
        """Returns "Epoch 1/5 ━━━━━━━━  4,321 steps/s   12 ms  loss: 0.4321"."""
        facts = [speed(rate), f"{time:>6}", *values(logs)]
        return self._fitted(label, 1.0, GREEN, [facts, facts[1:]])

    def live(
        self,
        label: str,
        done: int,
        steps: int | None,
        rate: float,
        time: str,
        logs: Mapping[str, Any],
    ) -> str:
        """Returns "Epoch 1/5 ━━━╸━━━━ 450/1000  4,321 steps/s  0.1 s left  loss: 0.4321"."""
        fraction = min(done / steps, 1.0) if steps else 0.0
        count = f"{done:>{len(str(steps))}}/{steps}" if steps else f"{done}"
        facts = [count, speed(rate), time, *values(logs)]
        # A line that wraps could not be drawn over.
        return self._fitted(label, fraction, CYAN, [facts, [count, *facts[2:]]], crops=True)

    def _fitted(
        self,
        label: str,
        fraction: float,
        colour: str,
        choices: list[list[str]],
        crops: bool = False,
    ) -> str:
        """The first choice of facts that fits on the screen beside a bar, or the last without."""
        if self.bar is None:
            return "  ".join([label, *choices[0]])
        columns = self.columns - 1
        width = min(max(columns // 10, 8), 30)
        for facts in map("  ".join, choices):
            if len(label) + width + len(facts) + 2 <= columns:
                return f"{label} {self._bar(*self.bar, fraction, width, colour)} {facts}"
        line = "  ".join([label, *choices[-1]])
        return line[:columns] if crops else line

    def _bar(self, whole: str, half: str, fraction: float, width: int, colour: str) -> str:
        """A bar of this many characters."""
        halves = int(fraction * width * 2)
        done = whole * (halves // 2) + half * (halves % 2)
        if not self.has_colours:
            return done.ljust(width)
        rest = whole * (width - len(done))
        return f"{colour}{done}{RESET}" + (f"{DIM}{rest}{RESET}" if rest else "")


def speed(rate: float) -> str:
    """Returns "  4,321 steps/s", with decimals below 10."""
    return f"{rate:>7,.0f} steps/s" if rate >= 10 else f"{rate:>7.2f} steps/s"


def values(logs: Mapping[str, Any]) -> list[str]:
    """Returns "loss: 0.4321" and so on."""
    return [f"{name}: {decimal(number)}" for name, number in logs.items()]


def decimal(number: Any) -> str:
    """Returns a number with four decimals, or in scientific notation below 0.001."""
    if not isinstance(number, (int, float)):
        return str(number)
    return f"{number:.4e}" if 0 < abs(number) < 1e-3 else f"{number:.4f}"


def duration(seconds: float) -> str:
    """Returns "1.2 ms", "12 ms", "3.1 s", "2:05" or "1:02:05"."""
    if seconds < 0.00995:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
