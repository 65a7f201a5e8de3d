"""What benchmarks.training trains: the networks, their data and first weights, their arithmetic."""

from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np


@dataclass(frozen=True)
class Network:
    """Dense sigmoid layers, binary cross-entropy, plain gradient descent, batches in fixed order.

    Attributes:
        widths: The number of features, then the units of each layer; the last one has one.
        batch_size: Samples a step; the last batch of an epoch may be shorter.
        samples: Samples an epoch.
        learning_rate: That of every step.
        dtype: "float32" or "float64", of the data and the weights.
    """

    widths: tuple[int, ...]
    batch_size: int
    samples: int = 1000
    learning_rate: float = 0.01
    dtype: str = "float32"

    @property
    def layers(self) -> str:
        """The widths, with 16x8 for eight layers of 16."""
        runs = [(width, len(list(run))) for width, run in groupby(self.widths)]
        return "-".join(f"{w}x{n}" if n > 2 else "-".join([str(w)] * n) for w, n in runs)

    @property
    def batch(self) -> str:
        """The batch size in words."""
        full = self.batch_size == self.samples
        return f"full batch of {self.samples:,}" if full else f"batch {self.batch_size}"

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return -(-self.samples // self.batch_size)

    @property
    def flop(self) -> float:
        """Floating-point operations of a step, the mean of an epoch's, without the sigmoids.

        Two for each weight and sample: forward, for the gradient of the weights and, but for the
        first layer, for that of the inputs; two a step for the update of each weight.
        """
        products = [i * o for i, o in pairwise(self.widths)]
        parameters = sum(products) + sum(self.widths[1:])
        passes = 3 * sum(products) - products[0]
        return 2 * self.samples * passes / self.steps + 2 * parameters

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """x of shape (samples, features), and y of zeros and ones, shape (samples, 1)."""
        random = np.random.default_rng(0)
        x = random.standard_normal((self.samples, self.widths[0]), np.float32)
        y = x @ random.standard_normal((self.widths[0], 1), np.float32) > 0
        return x.astype(self.dtype), y.astype(self.dtype)

    def weights(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """A kernel (in_features, units) and a bias (units,) for each layer, as Keras starts."""
        random = np.random.default_rng(1)
        kernels = [
            random.uniform(-1, 1, (i, o)) * np.sqrt(6 / (i + o)) for i, o in pairwise(self.widths)
        ]
        # Rounded to float32 in any case, so that every dtype starts from the same numbers.
        return [
            (k.astype(np.float32).astype(self.dtype), np.zeros(k.shape[1], self.dtype))
            for k in kernels
        ]


NETWORKS = {
    "notes": Network((400, 25, 25, 1), batch_size=32),
    "digits": Network((64, 25, 25, 1), batch_size=32),
    "full-batch": Network((400, 25, 25, 1), batch_size=1000),
    "medium": Network((784, 128, 64, 1), batch_size=128, samples=3200),
    "large": Network((784, 512, 512, 1), batch_size=128, samples=3200),
    "deep": Network((20, *[16] * 8, 1), batch_size=16, samples=1600),
}

SWEEPS = {
    "width": [Network((w, w, w, 1), 32, 640) for w in (16, 32, 64, 128, 256, 512, 1024)],
    "batch size": [
        Network((400, 25, 25, 1), b, max(640, 8 * b)) for b in (1, 4, 16, 64, 256, 1024, 4096)
    ],
}
