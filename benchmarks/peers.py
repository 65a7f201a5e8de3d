"""The list of implementations that benchmarks.training compares."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from benchmarks import fits, loops


class Trainer(Protocol):
    """One network in training."""

    def fit(self, epochs: int) -> list[float]:
        """Trains on, and returns the mean loss of every epoch."""


@dataclass(frozen=True)
class Peer:
    """One way to train a network.

    Attributes:
        label: What tables and charts call it.
        make: Prepares the training of a network; nothing is imported before.
        packages: What it needs, by the names to import.
        environment: Variables that must be set before its packages are imported.
        differs: What is not the same work, for a footnote.
    """

    label: str
    make: Callable[..., Trainer]
    packages: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    differs: str = ""


# Where there is a GPU, these would take it: all of benchmarks.training is on the CPU.
ON_CPU = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def _keras(label: str, backend: str, package: str, **options: object) -> Peer:
    environment = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", **ON_CPU}
    return Peer(label, partial(fits.KerasFit, **options), ("keras", package), environment)


_tensorflow = partial(_keras, backend="tensorflow", package="tensorflow")

PEERS = {
    "torchnn": Peer("torchnn fit", fits.TorchnnFit, ("torch",)),
    "torchnn-progress": Peer(
        "torchnn fit, progress on",
        partial(fits.TorchnnFit, verbose=1),
        ("torch",),
        differs="draws its lines in a terminal, which another process reads",
    ),
    "torchnn-engine": Peer(
        "torchnn engine alone",
        fits.TorchnnEngine,
        ("torch",),
        differs="without what fit does around the training: data checks, history, callbacks",
    ),
    "jax": Peer("JAX, jitted lax.scan epoch", loops.JaxLoop, ("jax",), ON_CPU),
    "numpy": Peer("NumPy by hand", loops.NumpyLoop, ("numpy",)),
    "sklearn": Peer(
        "scikit-learn MLPClassifier",
        fits.SklearnFit,
        ("sklearn",),
        differs="its loss clips probabilities, and counts the (absent) penalty",
    ),
    "torch-1-thread": Peer(
        "PyTorch eager, 1 thread", partial(loops.TorchLoop, threads=1), ("torch",)
    ),
    "torch": Peer("PyTorch eager, all threads", loops.TorchLoop, ("torch",)),
    "torch-compile": Peer("PyTorch torch.compile", loops.TorchCompileLoop, ("torch",)),
    "torch-loader": Peer("PyTorch DataLoader", partial(loops.TorchLoop, loader=True), ("torch",)),
    "skorch": Peer("skorch", fits.SkorchFit, ("skorch", "torch")),
    "keras-jax": _keras("Keras on JAX", "jax", "jax"),
    "keras-torch": _keras("Keras on torch", "torch", "torch"),
    "keras-tensorflow": _tensorflow("Keras on TensorFlow", jit_compile=False),
    "keras-tensorflow-jit": _tensorflow("Keras on TensorFlow, jit_compile", jit_compile=True),
    "keras-tensorflow-steps": _tensorflow(
        "Keras on TensorFlow, steps_per_execution", jit_compile=False, fused_steps=True
    ),
    "keras-tensorflow-jit-steps": _tensorflow(
        "Keras on TensorFlow, jit + steps", jit_compile=True, fused_steps=True
    ),
}

OWN_ADAM = ("torch-1-thread", "torch", "torch-loader")  # epsilon is added in another place there
IN_SWEEPS = ("torchnn", "jax", "torch")
