"""Warnings that point at the line of the user's program, from wherever in the package they come."""

import sys
import warnings

# Between the user's line and ours stand the package's own frames, and those of nn.Module.__call__.
SKIPPED = ("torchnn", "torch")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns at the line that called the package."""
    warnings.warn(message, category, stacklevel=_levels_to_user())


def _levels_to_user() -> int:
    """The stacklevel, in the function that calls this, of the innermost line that is not ours."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and _package(frame.f_globals) in SKIPPED:
        frame, level = frame.f_back, level + 1
    return level


def _package(scope: dict[str, object]) -> str:
    return str(scope.get("__name__")).partition(".")[0]
