"""The history of a fit."""

from collections.abc import Callable
from numbers import Real
from typing import Any
from weakref import ref

from torch import Tensor

from torchnn.callbacks._base import Callback, Logs


class History(Callback):
    """Keeps every epoch's logs: what fit returns.

    Attributes:
        epoch: The numbers of the epochs that finished.
        history: For "loss", each metric and their "val_" twins, a list of one float an epoch.
        model: The model, as long as someone else has it, or None.
        engine: How fit_many has trained it; None in fit, of which summary tells.
    """

    model_access = "none"

    _model: Callable[[], Any] = staticmethod(lambda: None)  # before set_model, and in a copy

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[Any]] = {}
        self.engine: str | None = None

    @property
    def model(self) -> Any:
        return self._model()

    @model.setter
    def model(self, model: Any) -> None:
        # The model has its history: only if that does not have the model, both are freed at once.
        self._model = ref(model)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_model"}

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            if type(value) is not float and isinstance(value, (Real, Tensor)):
                value = float(value)
            self.history.setdefault(name, []).append(value)

    def __repr__(self) -> str:
        return f"History({len(self.epoch)} epochs of {', '.join(self.history) or 'nothing'})"
