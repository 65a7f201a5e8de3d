"""Evaluating with moving averages of the weights."""

from typing import Any

from torchnn import _checks
from torchnn.callbacks._base import Callback, Logs


class SwapEMAWeights(Callback):
    """Evaluates and predicts with the moving averages of the weights, and trains without them.

    model.compile(torchnn.optimizers.Adam(use_ema=True), loss="mse")
    model.fit(x, y, validation_split=0.2, callbacks=[SwapEMAWeights()])

    Args:
        swap_on_epoch: Whether the averages are in the model also between two epochs, where the
            callbacks that follow this one, such as a ModelCheckpoint, find them.

    Raises:
        ValueError: When fit, evaluate or predict begins, the optimizer keeps no averages.
    """

    def __init__(self, swap_on_epoch: bool = False):
        self.swap_on_epoch = _checks.truth("swap_on_epoch", swap_on_epoch)

    def on_train_begin(self, logs: Logs = None) -> None:
        self._averaging_optimizer()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._swap(are_averages_wanted=False)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.swap_on_epoch:
            self._swap(are_averages_wanted=True)

    def on_train_end(self, logs: Logs = None) -> None:
        self._swap(are_averages_wanted=False)  # unless fit has ended as it should

    def on_test_begin(self, logs: Logs = None) -> None:
        self._swap(are_averages_wanted=True)

    def on_test_end(self, logs: Logs = None) -> None:
        self._swap(are_averages_wanted=False)

    def on_predict_begin(self, logs: Logs = None) -> None:
        self._swap(are_averages_wanted=True)

    def on_predict_end(self, logs: Logs = None) -> None:
        self._swap(are_averages_wanted=False)

    def _swap(self, are_averages_wanted: bool) -> None:
        optimizer = self._averaging_optimizer()
        if not optimizer.parameters:  # nothing has been trained yet in this process
            optimizer.build(self.model.parameters())
        if optimizer.averages_in_model != are_averages_wanted:
            optimizer.swap_averages()

    def _averaging_optimizer(self) -> Any:
        optimizer = self.model.optimizer
        if not getattr(optimizer, "use_ema", False):
            raise ValueError(
                f"SwapEMAWeights needs an optimizer with use_ema=True, got {optimizer!r}"
            )
        return optimizer
