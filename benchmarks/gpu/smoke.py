"""Right numbers: every loss, rule and dtype against float64, bits of two runs, many against one."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

import torch

from benchmarks.gpu import kit
from benchmarks.gpu.training import LOSS, OPTIONS, alone, arguments, network_of
from benchmarks.networks import Network
from torchnn import ops
from torchnn._engine import graphs
from torchnn.ops import reference

EPOCHS = 2
# The sums of some 400 products are off by the root of 400 roundings of 6e-8, 1.2e-6, and a step
# hands a hundredth or less of that on, by its learning rate: 5e-5 leaves room for a few hundred
# of them and for Adam, which divides by small gradients. In float64 a rounding is 1.1e-16.
LIMITS = {"float32": 5e-5, "float64": 1e-12}
# Adam makes rounding errors of a deep network's vanishing gradients as large as its steps, so
# that one has momentum.
OTHERS = [("digits", "adam"), ("tiny", "adam"), ("deep", "momentum"), ("large", "momentum")]
# These train layer by layer, and come so often that a CUDA graph is recorded and replayed.
REPLAYED = [("medium", "adam"), ("full-batch", "adam")]
CALLS = graphs.UNRECORDED + 2
# And so do these, of three layers each.
BY_LAYERS = {
    "penalties": {"regularization": [(1e-4, 1e-3, 0.0, 1e-3, 0.0)] * 3},
    "dropout": {
        "regularization": [(0.0, 0.0, 0.0, 0.0, 0.3)] * 2 + [(0.0,) * 5],
        "seeds": [1, 2, 3],
    },
    "clip_norm": {"options": OPTIONS | {"clip_norm": 0.01}},
    "global_clip_norm": {"options": OPTIONS | {"global_clip_norm": 0.02}},
    "silu": {"activations": ["silu", "silu", "identity"]},
    "gelu": {"activations": ["gelu", "gelu", "identity"]},
}
SHORT = ("medium", "large")  # few samples of these: in float64, a CPU takes long
MODELS = (("notes", 3), ("notes", 300), ("digits", 3), ("tiny", 300))


def cases(where: str) -> Iterator[kit.Row]:
    """All losses, rules and dtypes on one network, then the other networks."""
    first = "tiny" if where == "cpu" else "notes"
    for loss in ops.losses():
        for update in ops.updates():
            for dtype in LIMITS:
                yield {"network": first, "update": update, "loss": loss, "dtype": dtype}
    for network, update in [] if where == "cpu" else OTHERS + REPLAYED:
        for dtype in LIMITS:
            yield {"network": network, "update": update, "loss": LOSS, "dtype": dtype}
    for feature in [] if where == "cpu" else BY_LAYERS:
        for dtype in LIMITS:
            how = {"update": "momentum", "loss": LOSS, "dtype": dtype}
            yield {"network": "digits", "feature": feature} | how


def results(train_, given: dict[str, object], calls: int = 1) -> list[torch.Tensor]:
    """The losses of the last of so many calls, and all that training leaves behind."""
    for call in range(calls):
        before = call * given["learning_rates"].shape[-1]
        losses = train_(**given | {"steps_before": before})[0]
    slots = [tensor for slot in given["slots"] for tensor in slot]
    return [losses, *given["weights"], *given["biases"], *slots]


@cache
def exact_results(network: Network, calls: int, feature: str, **how: str) -> list[torch.Tensor]:
    """The results by PyTorch in float64 on the CPU."""
    given = arguments(network, epochs=EPOCHS, where="cpu", dtype=torch.float64, **how)
    return results(reference.train_, given | BY_LAYERS.get(feature, {}), calls)


def compare(where: str, network: str, dtype: str, feature: str = "", **how: str) -> kit.Row:
    """How far two epochs are from PyTorch in float64 on the CPU, and whether they repeat."""
    net = network_of(network, where)
    if how["loss"] in reference.TAKE_LABELS:
        net = replace(net, widths=(*net.widths[:-1], 3))
    if network in SHORT:
        net = replace(net, samples=5 * net.batch_size - 7)
    calls = CALLS if feature or (network, how["update"]) in REPLAYED else 1
    exact = exact_results(net, calls, feature, **how)

    def ours() -> list[torch.Tensor]:
        given = arguments(net, epochs=EPOCHS, where=where, dtype=getattr(torch, dtype), **how)
        return results(graphs.Trainer().train_, given | BY_LAYERS.get(feature, {}), calls)

    one, two = ours(), ours()
    off = _distance(one, exact)
    same = all(map(torch.equal, one, two))
    return {"off_by": off, "same_bits": same, "fine": same and off < LIMITS[dtype]}


def _distance(ours: list[torch.Tensor], exact: list[torch.Tensor]) -> float:
    """The largest difference, relative to a tensor's largest number where above 1; NaN stays."""
    pairs = zip(ours, exact, strict=True)
    off = [(o.double().cpu() - e).abs().max() / (1 + e.abs().max()) for o, e in pairs]
    return torch.stack(off).max().item()


def compare_with_each_alone(where: str, network: str, models: int) -> kit.Row:
    """Whether models side by side give the bits that each gives alone."""
    together = arguments(network_of(network, where), models, where=where)
    each = [slice(i, i + 1) for i in range(models)]
    singles = [alone(together, one) for one in each]  # before they are trained
    many = results(ops.train_, together)
    differ = [
        i
        for i, single in zip(each, singles, strict=True)
        if not all(map(torch.equal, (t[i] for t in many), results(ops.train_, single)))
    ]
    return {"models_that_differ": len(differ), "fine": not differ}


def main() -> None:
    options = kit.parse(kit.parser(__doc__))
    rows = kit.Rows("smoke", options)
    rows.fill(cases(options.device), partial(compare, options.device))
    # Only CUDA trains many models in one call.
    many = [] if options.cpu else [{"network": n, "models": count} for n, count in MODELS]
    rows.fill(many, partial(compare_with_each_alone, options.device))
    raise SystemExit(rows.failed)


if __name__ == "__main__":
    main()
