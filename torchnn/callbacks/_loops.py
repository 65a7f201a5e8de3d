"""Callbacks in loops of one's own: what fit does for those that it is given."""

from collections.abc import Iterable
from functools import wraps
from inspect import signature
from numbers import Real
from typing import Any

from torch import Tensor

from torchnn import _checks
from torchnn.callbacks import _base
from torchnn.callbacks._base import HOOKS, Callback, Logs
from torchnn.callbacks._history import History


class ProgbarLogger(Callback):
    """Prints a line for every epoch of a loop of one's own; fit shows its line without it.

    Args:
        count_mode, stateful_metrics: Keras 2's; they change nothing.
    """

    model_access = "none"

    shows_progress = True

    def __init__(self, count_mode: str = "steps", stateful_metrics: Any = None):
        _checks.choice("count_mode", count_mode, ("steps", "samples"))
        self._is_in_fit = False

    def on_train_begin(self, logs: Logs = None) -> None:
        self._is_in_fit = True

    def on_train_end(self, logs: Logs = None) -> None:
        self._is_in_fit = False

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        epochs = (self.params or {}).get("epochs")
        self._print(f"Epoch {epoch + 1}/{epochs}" if epochs else f"Epoch {epoch + 1}", logs)

    def on_test_end(self, logs: Logs = None) -> None:
        if not self._is_in_fit:
            self._print("Evaluate", logs)

    def _print(self, label: str, logs: Logs) -> None:
        if (self.params or {}).get("verbose", 1):
            values = [f"{name}: {_shown(value)}" for name, value in (logs or {}).items()]
            print(" - ".join([label, *values]))


class CallbackList(_base.CallbackList, Callback):
    """Several callbacks that are told as one, in a loop of one's own.

    callbacks = CallbackList([EarlyStopping("loss")], add_history=True, model=model, epochs=9)
    callbacks.on_train_begin()
    for epoch in range(9):
        callbacks.on_epoch_begin(epoch)
        loss = model.train_on_batch(x, y)
        callbacks.on_epoch_end(epoch, {"loss": loss})
        if model.stop_training:
            break
    callbacks.on_train_end()

    Args:
        callbacks: A callback, several, or None.
        add_history: Whether to add a History, unless there is one, as model.history.
        add_progbar: Whether to add a ProgbarLogger, unless there is one.
        model: The model that the callbacks are to know, or None.
        params: What their params are to be: epochs, steps, verbose.

    Attributes:
        callbacks: All of them, in the order in which they are told.

    Raises:
        TypeError: Something that is no callback.
    """

    def __init__(
        self,
        callbacks: Callback | Iterable[Callback] | None = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ):
        super().__init__(callbacks)
        if _checks.truth("add_history", add_history) and not self._has(History):
            self.append(History())
        if _checks.truth("add_progbar", add_progbar) and not self._has(ProgbarLogger):
            self.append(ProgbarLogger())
        if model is not None:
            self.set_model(model)
        self.set_params(params)

    def _has(self, kind: type) -> bool:
        return any(isinstance(each, kind) for each in self.callbacks)

    def append(self, callback: Callback) -> None:
        """Adds a callback, which knows no model until set_model."""
        super().__init__([*self.callbacks, callback])

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        for callback in self.callbacks:
            callback.set_model(model)
            if isinstance(callback, History):
                model.history = callback

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        for callback in self.callbacks if params else ():
            callback.set_params(params)


def _teller(hook: str) -> Any:
    """The hook of a list: it tells those of the callbacks in it, with logs in any case."""
    empty = getattr(Callback, hook)
    takes = signature(empty)

    @wraps(empty)
    def tell(self: CallbackList, *arguments: Any, **named: Any) -> None:
        given = takes.bind(self, *arguments, **named).arguments
        logs = given.pop("logs", None)
        _, *numbers = given.values()
        self(hook, *numbers, {} if logs is None else logs)

    return tell


for _hook in HOOKS:
    setattr(CallbackList, _hook, _teller(_hook))


def _shown(value: Any) -> str:
    if isinstance(value, (Real, Tensor)):
        value = float(value)
        return f"{value:.4e}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"
    return str(value)
