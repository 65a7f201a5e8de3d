"""Whether the libraries load and compute on this GPU, and what a reader must know of it."""

import subprocess
from importlib import metadata

import torch

from benchmarks.gpu import kit
from torchnn import ops

CARD = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,mig.mode.current"
PACKAGES = ("jax", "jaxlib", "triton", "pytest", "pytest-xdist")


def card() -> dict[str, str]:
    """What nvidia-smi says of the first GPU."""
    query = ["nvidia-smi", f"--query-gpu={CARD}", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return {"nvidia-smi": f"{type(error).__name__}: {error}"}
    values = done.stdout.splitlines()[0].split(", ")
    return dict(zip(CARD.split(","), values, strict=True))


def versions() -> dict[str, str | None]:
    """The version of each package that the kit can use, or None."""
    installed = {found.name.lower(): found.version for found in metadata.distributions()}
    return {name: installed.get(name) for name in PACKAGES}


def loads(device: str) -> dict[str, object]:
    """Whether the operators are registered, and how far a small layer is from PyTorch's."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    registered = has("torchnn::train_", device.upper())
    x, weight = torch.randn(8, 5, device=device), torch.randn(3, 5, device=device)
    off = (ops.dense(x, weight, None, "tanh") - torch.tanh(x @ weight.T)).abs().max().item()
    # Five products of numbers near 1, and the derivative of tanh is at most 1.
    return {"registered": registered, "dense_off_by": off, "fine": registered and off < 1e-5}


def main() -> None:
    options = kit.parse(kit.parser(__doc__))
    rows = kit.Rows("facts", options)
    rows.add(**versions(), **({} if options.cpu else card()))
    rows.fill([{}], lambda: loads(options.device))
    raise SystemExit(rows.failed)


if __name__ == "__main__":
    main()
