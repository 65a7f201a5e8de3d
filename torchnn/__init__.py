"""Fused dense layers for PyTorch, and a trainer with Keras's words.

    from torchnn import Sequential
    from torchnn.layers import Dense
    from torchnn.losses import BinaryCrossentropy

`torchnn.layers` and `torchnn.ops` work in any PyTorch program; `Sequential` adds compile, fit,
evaluate and predict.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from torchnn import (
    activations,
    backend,
    callbacks,
    constraints,
    initializers,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    regularizers,
    saving,
    utils,
)
from torchnn._many import fit_many
from torchnn._version import __version__ as __version__
from torchnn.layers import Input
from torchnn.model import Model
from torchnn.optimizers import legacy as _legacy  # noqa: F401 (there as optimizers.legacy)
from torchnn.sequential import Sequential

if TYPE_CHECKING:
    from torchnn import datasets, sweeps, tuning
    from torchnn.sweeps import Sweep

__all__ = [
    "Input",
    "Model",
    "Sequential",
    "Sweep",
    "activations",
    "backend",
    "callbacks",
    "constraints",
    "datasets",
    "fit_many",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "regularizers",
    "saving",
    "sweeps",
    "tuning",
    "utils",
]


def __getattr__(name: str) -> Any:
    """Imports what is not always needed when it is first asked for."""
    if name in ("datasets", "sklearn", "sweeps", "tf", "tuning"):
        return import_module(f"torchnn.{name}")
    if name == "Sweep":
        return import_module("torchnn.sweeps").Sweep
    raise AttributeError(f"module 'torchnn' has no attribute {name!r}")
