"""The operators: plain functions on tensors.

`dense` is one layer, with gradients; `train_` and `predict` run a whole network of dense layers.
The others tell what the kernels know. `reference` has the definitions, in plain PyTorch.
"""

from torchnn.ops import reference
from torchnn.ops._dense import dense
from torchnn.ops._native import (
    CudaPlan,
    activations,
    cpu_capability,
    cuda_limits,
    cuda_plan,
    losses,
    trains_on,
    updates,
)
from torchnn.ops._network import mark_changed, predict, train_

__all__ = [
    "CudaPlan",
    "activations",
    "cpu_capability",
    "cuda_limits",
    "cuda_plan",
    "dense",
    "losses",
    "mark_changed",
    "predict",
    "reference",
    "train_",
    "trains_on",
    "updates",
]
