"""The operators: plain functions on tensors.

`dense` is one layer, with gradients; `train_` and `predict` run a whole network of dense layers.
The others tell what the kernels know. `reference` has the definitions, in plain PyTorch.
"""

from torchnn.ops import reference
from torchnn.ops._dense import dense
from torchnn.ops._native import (
    CudaPlan,
    Kernel,
    activations,
    cpu_capability,
    cuda_limits,
    cuda_plan,
    kernel_of,
    losses,
    train_options,
    trains_on,
    updates,
)
from torchnn.ops._network import activate_, hashed, mark_changed, predict, restore_, train_
from torchnn.ops.reference import Training

__all__ = [
    "CudaPlan",
    "Kernel",
    "Training",
    "activate_",
    "activations",
    "cpu_capability",
    "cuda_limits",
    "cuda_plan",
    "dense",
    "hashed",
    "kernel_of",
    "losses",
    "mark_changed",
    "predict",
    "reference",
    "restore_",
    "train_",
    "train_options",
    "trains_on",
    "updates",
]
