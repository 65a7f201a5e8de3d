"""The fused sigmoid against the exact one, over all 2^32 float32 values: `make ulp`.

Prints the largest error, in units of the last place of the exact value, of our kernel and of
PyTorch's own, and where each lies. Takes minutes; the test suite looks at every 997th value.
"""

import torch
from rich.progress import track

from torchnn import ops

ALLOWED = 2.5  # ulp
CHUNK = 1 << 22


def ulp_errors(values, exact):
    """|values - exact| in units of the last place of exact; the exact values are float64.

    0 is right where the exact value is below the smallest normal number, or as good as there.
    """
    smallest = torch.finfo(torch.float32).smallest_normal
    unit = torch.exp2(torch.floor(torch.log2(exact.abs().clamp_min(smallest))) - 23)
    errors = (values.double() - exact).abs() / unit
    return errors.where((values != 0) | (exact.abs() > smallest * (1 + 1e-6)), 0)


def fused_sigmoid(z):
    return ops.dense(z[:, None], torch.ones(1, 1), None, "sigmoid")[:, 0]


def main() -> None:
    worst = {"torchnn": (0.0, 0.0), "torch.sigmoid": (0.0, 0.0)}  # error, where
    for start in track(range(-(2**31), 2**31, CHUNK), "all floats"):
        z = torch.arange(start, start + CHUNK, dtype=torch.int64).to(torch.int32)
        z = z.view(torch.float32)
        z = z[z.isfinite()]
        if not len(z):
            continue
        exact = torch.sigmoid(z.double())
        for name, function in (("torchnn", fused_sigmoid), ("torch.sigmoid", torch.sigmoid)):
            error, place = ulp_errors(function(z), exact).max(dim=0)
            worst[name] = max(worst[name], (error.item(), z[place].item()))
    for name, (error, where) in worst.items():
        print(f"{name}: at most {error:.3f} ulp, at {where!r}")
    if worst["torchnn"][0] > ALLOWED:
        raise SystemExit(f"more than {ALLOWED} ulp")


if __name__ == "__main__":
    main()
