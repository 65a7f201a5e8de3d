"""What fit, evaluate and predict tell while they run, and to whom."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from torchnn import _checks

Logs = dict[str, Any] | None


class Callback:
    """Keras's hooks; override those of interest.

    A hook for batches costs time only if a callback overrides it. The `on_..._end` of a whole run
    is called when the run has finished, not when an error or Ctrl-C ended it.

    Attributes:
        model: The model at work, from set_model.
        params: "epochs", "steps" (None if unknown) and "verbose", from set_params; in fit, also
            "validates".
        model_access: What it does with the model between epochs: "write" if it may change weights,
            layers or samples, "read" if it looks at these, "none" if the logs are all it needs. It
            may set learning_rate and stop_training in any case. fit is quicker with callbacks that
            do less; each class must say so itself, also if the one above it does.
    """

    model_access = "write"
    shows_progress = False  # as fit does, which then tells it to be silent
    model: Any = None
    params: dict[str, Any] | None = None

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params

    def set_model(self, model: Any) -> None:
        self.model = model

    def state_dict(self) -> dict[str, Any]:
        """Returns what it has to remember for a fit to go on in another process: plain values and
        tensors; nothing, if it does not say so."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state_dict, after on_train_begin."""

    def on_train_begin(self, logs: Logs = None) -> None:
        """fit starts."""

    def on_train_end(self, logs: Logs = None) -> None:
        """fit has finished; logs are those of the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """An epoch starts; the first is 0."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """An epoch has ended; what is put into logs goes into the History."""

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """A training step starts; the first of an epoch is 0."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """A training step has ended; logs are means over the epoch so far."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Another name of on_train_batch_begin."""

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Another name of on_train_batch_end."""

    def on_test_begin(self, logs: Logs = None) -> None:
        """An evaluation starts, fit's validation included."""

    def on_test_end(self, logs: Logs = None) -> None:
        """An evaluation has finished."""

    def on_test_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """A batch of an evaluation starts."""

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        """A batch of an evaluation has ended; logs are means so far."""

    def on_predict_begin(self, logs: Logs = None) -> None:
        """predict starts."""

    def on_predict_end(self, logs: Logs = None) -> None:
        """predict has finished."""

    def on_predict_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """A batch of predict starts."""

    def on_predict_batch_end(self, batch: int, logs: Logs = None) -> None:
        """A batch of predict has ended; logs hold its "outputs"."""

    def on_invalid_loss(self, epoch: int, batch: int, logs: Logs = None) -> None:
        """The first loss of a fit that is NaN or infinite; more steps may have followed it.

        Not one of Keras's hooks: it tells the batch without asking to see every batch.
        """


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))
BETWEEN = tuple(
    h for h in HOOKS if not h.startswith(("on_train_begin", "on_train_end", "on_predict"))
)
ACCESS = ("none", "read", "write")
ALIASES = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


class CallbackList:
    """Several callbacks called as one: `callbacks("on_epoch_end", epoch, logs)`.

    Args:
        callbacks: A callback, several, or None.

    Attributes:
        calls: How often one of them has been called.
        model_access: That of the one that does most, of those that are told anything between the
            beginning and the end of a fit.

    Raises:
        TypeError: Something that is no callback.
        ValueError: A model_access that there is not.
    """

    def __init__(self, callbacks: Callback | Iterable[Callback] | None = None):
        self.callbacks, self.calls = _listed(callbacks), 0
        told = [each for each in self.callbacks if any(_overrides(each, hook) for hook in BETWEEN)]
        self.model_access = max(map(access, told), key=ACCESS.index, default="none")
        self._listeners = {
            hook: [getattr(each, hook) for each in self.callbacks if _overrides(each, hook)]
            for hook in HOOKS
            if self.callbacks
        }

    def __call__(self, hook: str, *arguments: Any) -> None:
        """Calls a hook of every callback that overrides it, in order."""
        for listener in self._listeners.get(hook, ()):
            self.calls += 1
            listener(*arguments)

    def listens(self, *hooks: str) -> bool:
        """Whether any callback overrides any of the hooks."""
        return any(map(self._listeners.get, hooks))

    def introduce(self, model: Any, **params: Any) -> None:
        """Tells every callback the model and the parameters of the run."""
        for callback in self.callbacks:
            self.calls += 1
            callback.set_model(model)
            callback.set_params(params | {"verbose": 0} if callback.shows_progress else params)


def access(callback: Callback) -> str:
    """What a callback's own class says, if the hooks are that class's own."""
    says_so = "model_access" in vars(type(callback)) and not vars(callback).keys() & HOOKS
    return _checks.choice("model_access", callback.model_access, ACCESS) if says_so else "write"


def _listed(callbacks: Callback | Iterable[Callback] | None) -> list[Callback]:
    """Returns the callbacks as a list, checked."""
    if callbacks is None:
        return []
    if isinstance(callbacks, CallbackList):
        return list(callbacks.callbacks)
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        callbacks = [callbacks]
    listed: list[Callback] = []
    for callback in callbacks:
        if isinstance(callback, type) and issubclass(callback, Callback):
            name = callback.__name__
            raise TypeError(f"callbacks must hold instances, got the class {name}: write {name}()")
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks must hold torchnn.callbacks.Callback, got {callback!r}")
        listed += callback.callbacks if isinstance(callback, CallbackList) else [callback]
    return listed


def _overrides(callback: Callback, hook: str) -> bool:
    """Whether the callback, its class or an alias replaces the empty hook."""
    names = [hook, ALIASES[hook]] if hook in ALIASES else [hook]
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(Callback, name)
        for name in names
    )


def verbosity(value: Any) -> int:
    """Returns what a callback prints by: 0 or 1, True and False among them."""
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    return _checks.non_negative_int("verbose", value)
