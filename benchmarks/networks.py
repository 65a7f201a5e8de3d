"""What benchmarks.training trains: the networks, their data and first weights, their arithmetic."""

from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np


@dataclass(frozen=True)
class Network:
    """Dense layers, a loss, batches in fixed order.

    Attributes:
        widths: The number of features, then the units of each layer. Under a cross-entropy the last
            one has one, with a sigmoid, or one for each class, with a softmax; under the mean
            squared error any number, and no activation.
        batch_size: Samples a step; the last batch of an epoch may be shorter.
        samples: Samples an epoch.
        learning_rate: That of every step.
        dtype: "float32" or "float64", of the data and the weights.
        adam: Whether Adam takes the steps, with Keras's numbers, and not plain gradient descent.
        dropout: Of the hidden layers' outputs.
        l2: The penalty on kernels, l2 sum(w^2).
        activation: "sigmoid" or "relu", of the hidden layers.
        loss: "cross-entropy" or "mse".
        highest: Features are uniform from 0 to this number; None for standard normal ones.
    """

    widths: tuple[int, ...]
    batch_size: int
    samples: int = 1000
    learning_rate: float = 0.01
    dtype: str = "float32"
    adam: bool = False
    dropout: float = 0.0
    l2: float = 0.0
    activation: str = "sigmoid"
    loss: str = "cross-entropy"
    highest: float | None = None

    @property
    def layers(self) -> str:
        """The widths, with 16x8 for eight layers of 16, and what else there is to train."""
        runs = [(width, len(list(run))) for width, run in groupby(self.widths)]
        widths = "-".join(f"{w}x{n}" if n > 2 else "-".join([str(w)] * n) for w, n in runs)
        more = {"relu": self.activation == "relu", "MSE": self.loss == "mse"}
        more |= {"softmax": self.has_classes, "Adam": self.adam}
        more |= {"dropout": self.dropout, "L2": self.l2}
        more |= {f"features 0 to {self.highest:g}": True} if self.highest else {}
        return " ".join([widths, *(name for name, is_there in more.items() if is_there)])

    @property
    def has_classes(self) -> bool:
        return self.loss == "cross-entropy" and self.widths[-1] > 1

    @property
    def last_activation(self) -> str:
        """What makes the last layer's sums predictions."""
        if self.loss == "mse":
            return "linear"
        return "softmax" if self.has_classes else "sigmoid"

    @property
    def is_plain(self) -> bool:
        """Whether it has sigmoids, one output, plain gradient descent, and no more."""
        is_other = self.activation != "sigmoid" or self.loss != "cross-entropy"
        return not (is_other or self.has_classes or self.adam or self.dropout or self.l2)

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
        """x of shape (samples, features), and y of zeros and ones, shape (samples, 1), of the
        numbers of classes, shape (samples,), or of numbers around 0, shape (samples, units)."""
        random = np.random.default_rng(0)
        shape, middle = (self.samples, self.widths[0]), 0
        if self.highest:
            x, middle = random.random(shape, np.float32) * self.highest, self.highest / 2
        else:
            x = random.standard_normal(shape, np.float32)
        weights = random.standard_normal((self.widths[0], self.widths[-1]), np.float32)
        scores = (x - middle) @ weights
        if self.loss == "mse":
            return x.astype(self.dtype), (scores / scores.std()).astype(self.dtype)
        y = scores.argmax(1) if self.has_classes else (scores > 0).astype(self.dtype)
        return x.astype(self.dtype), y

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
    "classes": Network((400, 25, 15, 10), batch_size=32, learning_rate=0.001, adam=True),
    "regularized": Network(
        (784, 128, 10), batch_size=128, samples=3200, learning_rate=0.1, dropout=0.2, l2=1e-4
    ),
}

SWEEPS = {
    "width": [Network((w, w, w, 1), 32, 640) for w in (16, 32, 64, 128, 256, 512, 1024)],
    "batch size": [
        Network((400, 25, 25, 1), b, max(640, 8 * b)) for b in (1, 4, 16, 64, 256, 1024, 4096)
    ],
}

# As pictures come that nobody has scaled: from some 20 on most of the first sigmoids are saturated.
SCALES = [replace(NETWORKS["notes"], highest=float(highest)) for highest in (1, 20, 60, 120, 255)]

ADAM = [replace(NETWORKS["notes"], learning_rate=0.001, adam=adam) for adam in (False, True)]


def _odd(*widths: int, batch_size: int, samples: int, learning_rate: float = 1e-3) -> Network:
    """A network for which nobody has tuned anything; rates so small that losses stay finite."""
    return Network(widths, batch_size, samples, learning_rate, activation="relu", loss="mse")


ODD = [
    _odd(2, 1, batch_size=32, samples=1000),
    _odd(20, 16, 1, batch_size=1, samples=40),
    _odd(20, 16, 1, batch_size=4096, samples=40960),
    _odd(50, 50, 50, 50, 20, batch_size=32, samples=1000),
    _odd(*[8] * 65, batch_size=32, samples=1000),
    _odd(100, 1000, 1, batch_size=8, samples=200),
    _odd(300, 300, 300, 1, batch_size=16, samples=500),
    _odd(10000, 64, 1, batch_size=32, samples=640, learning_rate=1e-4),
    _odd(3, 512, 512, 1, batch_size=64, samples=1280),
    _odd(64, 2000, 64, batch_size=100, samples=2000),
    _odd(1000, 1000, 1000, 10, batch_size=256, samples=2560),
]

GROUPS = {"scales": SCALES, "odd": ODD, "adam": ADAM}
