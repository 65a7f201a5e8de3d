"""Second names: `from torchnn.tf.keras.layers import Dense` imports torchnn.layers."""

import pkgutil
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

NOT_KERAS = ("sklearn", "tf")


def name_modules(own: ModuleType, name: str) -> None:
    """Gives a package and the public modules in it a second name, but for those that are none of
    Keras's."""
    for module in _public(own):
        sys.modules[name + module.__name__.removeprefix(own.__name__)] = module


def _public(module: ModuleType) -> Iterator[ModuleType]:
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not found.name.startswith("_") and found.name not in NOT_KERAS:
            yield from _public(import_module(f"{module.__name__}.{found.name}"))
