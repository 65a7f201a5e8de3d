"""The devices that there are."""

from typing import NamedTuple

import torch

from torchnn.tf._missing import said_of

__all__ = ["PhysicalDevice", "list_physical_devices"]
__getattr__ = said_of(__name__)


class PhysicalDevice(NamedTuple):
    """A device by its name, such as "/physical_device:GPU:0", and its type, "CPU" or "GPU"."""

    name: str
    device_type: str


def list_physical_devices(device_type: str | None = None) -> list[PhysicalDevice]:
    """Returns the devices that there are, or those of type "CPU" or "GPU"."""
    kinds = ["CPU", *["GPU"] * torch.cuda.device_count()]
    names = [
        "/physical_device:CPU:0",
        *(f"/physical_device:GPU:{i}" for i in range(len(kinds) - 1)),
    ]
    found = map(PhysicalDevice, names, kinds)
    return [device for device in found if device_type in (None, device.device_type)]
