"""The operators: plain functions on tensors.

`dense` is one layer, with gradients; `train_` and `predict` run a whole network of dense layers.
The others tell what the kernels know. `reference` has the definitions, in plain PyTorch.
"""

from torchnn.ops import reference
from torchnn.ops._dense import dense
from torchnn.ops._many import train_many_
from torchnn.ops._native import (
    CudaPlan,
    CudaTrialPlan,
    Kernel,
    activations,
    cpu_capability,
    cuda_limits,
    cuda_plan,
    cuda_trial_plan,
    kernel_of,
    losses,
    train_options,
    trains_on,
    updates,
)
from torchnn.ops._network import mark_changed, predict, train_
from torchnn.ops.reference import Training, Trials

__all__ = [
    "CudaPlan",
    "CudaTrialPlan",
    "Kernel",
    "Training",
    "Trials",
    "activations",
    "cpu_capability",
    "cuda_limits",
    "cuda_plan",
    "cuda_trial_plan",
    "dense",
    "kernel_of",
    "losses",
    "mark_changed",
    "predict",
    "reference",
    "train_",
    "train_many_",
    "train_options",
    "trains_on",
    "updates",
]
