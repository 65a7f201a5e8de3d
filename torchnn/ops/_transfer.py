"""Copies between the host and a device that works through a queue: nobody waits in between.

A copy that has to wait for its turn in the queue must have pinned memory on the host's side; with
any other, the host would wait along.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def is_queued(device: torch.device) -> bool:
    """Returns whether a device works through a queue while the host goes on."""
    return device.type == "cuda"


def float64(numbers: Any) -> Tensor:
    """Returns numbers in float64: a tensor where it is, all else on the CPU, whichever device is
    the default."""
    if isinstance(numbers, Tensor):
        return numbers.double()
    return torch.from_numpy(np.array(numbers, np.float64))  # in less than half of as_tensor's time


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns the tensor on a device, to which it may still be on its way."""
    if is_queued(device) and tensor.is_cpu:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_host(tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Sends tensors of one device; returns the function that waits until they are there."""
    device = tensors[0].device
    if not is_queued(device):
        return lambda: [tensor.cpu() for tensor in tensors]
    sent = [
        torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
        for tensor in tensors
    ]
    arrival = torch.cuda.Event()
    arrival.record(torch.cuda.current_stream(device))

    def wait() -> list[Tensor]:
        arrival.synchronize()
        return sent

    return wait
