"""Sweeps: a network trained with many settings, seeds and folds, all at once.

sweep = torchnn.Sweep(build, grid={"units": [16, 25], "seed": range(10)}, loss="mse")
result = sweep.fit(X, y, epochs=20, folds=5)
model = result.best()
"""

from torchnn.sweeps._halving import Halving
from torchnn.sweeps._result import Ensemble, Prediction, SweepResult
from torchnn.sweeps._space import integers, loguniform, uniform
from torchnn.sweeps._sweep import Sweep
from torchnn.sweeps._table import Table

__all__ = [
    "Ensemble",
    "Halving",
    "Prediction",
    "Sweep",
    "SweepResult",
    "Table",
    "integers",
    "loguniform",
    "uniform",
]
