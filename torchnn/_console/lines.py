"""How a line of progress looks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
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

    def told(self, parts: Sequence[str]) -> str:
        """Returns the parts on one line, or one on each where a terminal has no room for it."""
        line = " ".join(parts)
        return line if not self.bar or len(line) < self.columns else "\n  ".join(parts)

    def finished(self, label: str, rate: float, time: str, logs: Mapping[str, Any]) -> str:
        """Returns "Epoch 1/5 ━━━━━━━━  4,321 steps/s   12 ms  loss: 0.4321".

        What fits on no line is continued on a second one; a plain stream has it all on one.
        """
        return self._fitted(label, 1.0, GREEN, [], rate, f"{time:>6}", logs)

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
        lines = self._fitted(label, fraction, CYAN, [count], rate, time, logs)
        return lines.partition("\n")[0]  # only one line can be drawn over

    def _fitted(
        self,
        label: str,
        fraction: float,
        colour: str,
        count: list[str],
        rate: float,
        time: str,
        logs: Mapping[str, Any],
    ) -> str:
        """The first that fits: it goes without the speed, then the bar, "val_" and the time."""
        columns = self.columns - 1  # a terminal may wrap a line that is full
        width = min(max(columns // 10, 8), 30)
        for facts in _choices(count, rate, time, logs):
            line = "  ".join([label, *facts])
            if self.bar and len(line) + width <= columns:
                return f"{label} {self._bar(*self.bar, fraction, width, colour)} {'  '.join(facts)}"
            if len(line) <= columns and not (self.bar and speed(rate) in facts):
                return line
        return _wrapped([label, *facts], columns) if self.bar else line

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


def pairs(logs: Mapping[str, Any]) -> list[str]:
    """Returns "loss: 0.4321 (val 0.5678)" and so on, shorter than with "val_loss: 0.5678"."""
    twins = {name: f"val_{name}" for name in logs if f"val_{name}" in logs}
    return [
        text + (f" (val {decimal(logs[twins[name]])})" if name in twins else "")
        for name, text in zip(logs, values(logs), strict=True)
        if name not in twins.values()
    ]


def decimal(number: Any) -> str:
    """Returns a number with four decimals, or in scientific notation below 0.001."""
    if not isinstance(number, (int, float, Real)):  # Real is NumPy's, too, but slow to ask
        return " ".join(str(number).split())
    number = float(number)
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


def _choices(
    count: list[str], rate: float, time: str, logs: Mapping[str, Any]
) -> Iterator[list[str]]:
    """What to tell, from the most to the least."""
    yield [*count, speed(rate), time, *values(logs)]
    yield [*count, time, *values(logs)]
    yield [*count, time, *pairs(logs)]
    yield [*count, *pairs(logs)]


def _wrapped(parts: list[str], columns: int) -> str:
    """The parts, in as many lines as they need; a part that is longer than a line is cut."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 2 + len(part) <= columns:
            lines[-1] += f"  {part}"
        else:
            lines.append(f"  {part}")
    return "\n".join(line[:columns] for line in lines)
