"""One way to watch a logged value, for callbacks that act on whether it improves."""

import math
from typing import Any

from torchnn import _checks, _warnings
from torchnn.callbacks._base import Callback

# What the names of metrics end in.
RISING = (
    *("acc", "auc", "auroc", "precision", "recall", "score", "similarity"),
    *("true_positives", "true_negatives"),
)
FALLING = (
    *("loss", "error", "mse", "mae", "rmse", "mape", "msle", "logcosh", "entropy"),
    *("false_positives", "false_negatives"),
)


class Monitor(Callback):
    """Knows whether a logged value is better than another; what follows, a subclass says.

    Args:
        monitor: The value's name: "loss", "val_loss", "val_accuracy", ...
        mode: "min", "max", or "auto" to tell by the name: accuracies rise, losses and errors fall.
        min_delta: What counts as an improvement must exceed this.

    Attributes:
        best: The best value of the fit, or None.
        remembered: The names of the attributes that a state_dict holds.

    Raises:
        TypeError: monitor is no name.
        ValueError: mode is none of these, or the name does not tell.
    """

    best: float | None = None
    remembered: tuple[str, ...] = ("best",)
    consequence = "does nothing"  # if the value is not there
    _warned = False

    def __init__(self, monitor: str, mode: str = "auto", min_delta: float = 0.0):
        if not isinstance(monitor, str):
            raise TypeError(f"monitor must be a name such as 'val_loss', got {monitor!r}")
        self.monitor = monitor
        self.min_delta = abs(_checks.number("min_delta", min_delta))
        self.mode = _checks.choice("mode", mode, ("auto", "min", "max"))
        if mode == "auto":
            self.mode = _direction(monitor)

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.remembered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.remembered:
            setattr(self, name, state[name])

    def _forget(self) -> None:
        """Begins anew, as every fit does."""
        self.best, self._warned = None, False

    def _monitored(self, logs: dict[str, Any]) -> float | None:
        """The value to watch, or, once a fit, a warning and None if it is not there."""
        if self.monitor in logs:
            return float(logs[self.monitor])
        if not self._warned and not self._is_due_later(logs):
            self._warned = True
            _warnings.warn(
                f"{type(self).__name__} cannot see {self.monitor!r} and so {self.consequence}"
                f"{_why_unseen(self.monitor, logs)}. Available: {', '.join(logs)}"
            )
        return None

    def _is_due_later(self, logs: dict[str, Any]) -> bool:
        """Whether the epoch is one that fit does not validate after, as it does after others."""
        validates = self.monitor.startswith("val_") and (self.params or {}).get("validates", False)
        return validates and not any(name.startswith("val_") for name in logs)

    def _improves(self, value: float, reference: float | None) -> bool:
        """Whether value is better than reference by more than min_delta; NaN never is."""
        if reference is None:
            return not math.isnan(value)
        if self.mode == "max":
            return value - self.min_delta > reference
        return value + self.min_delta < reference


def _why_unseen(name: str, logs: dict[str, Any]) -> str:
    """What may be wrong if a value is not among the logs; empty if nobody can tell."""
    measured = name.removeprefix("val_")
    if name != measured and not any(other.startswith("val_") for other in logs):
        return ": pass validation_data to fit"
    if measured in logs:
        return ""
    return f": {measured} is not in compile's metrics, and no callback before this one adds it"


def _direction(name: str) -> str:
    """Returns "max" if a value of this name is better when it is larger, else "min"."""
    lower = name.lower().rstrip("_0123456789")  # the second precision is precision_1
    if lower.endswith(RISING) or "accuracy" in lower:
        return "max"
    if lower.endswith(FALLING):
        return "min"
    raise ValueError(
        f'mode must be "min" or "max" for monitor={name!r}, since "auto" does not know whether it '
        "should fall or rise"
    )
