"""The rivals that benchmarks.gpu.rivals times: each has epoch(), which queues one, and wait()."""

import copy
import os
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import grad_and_value, vmap

from benchmarks.gpu import device
from benchmarks.gpu.training import spread
from benchmarks.loops import JaxLoop, TorchLoop
from benchmarks.networks import Network


class Eager(TorchLoop):
    """The eager loop of benchmarks.loops on a device, which waits for nothing within an epoch."""

    def __init__(self, network: Network, models: int, where: str) -> None:
        super().__init__(network, where=where)
        self.where = where
        self.total = torch.zeros((), device=where)

    def epoch(self) -> torch.Tensor:
        self.total.zero_()
        for x, y in self:
            self.total += self.step(x, y).detach() * len(x)
        return self.total / len(self.x)

    def wait(self) -> None:
        device.wait(self.where)


class Compiled(Eager):
    """Forward and backward by torch.compile reduce-overhead, whose CUDA graphs are a step each."""

    def __init__(self, network: Network, models: int, where: str) -> None:
        super().__init__(network, models, where)
        torch._dynamo.reset()  # or it gives up after some networks, and goes on uncompiled
        self.model = torch.compile(self.model, mode="reduce-overhead", dynamic=False)

    def step(self, x, y):
        torch.compiler.cudagraph_mark_step_begin()
        return super().step(x, y)


class Graph(Eager):
    """One CUDA graph of a whole epoch, made by hand: PyTorch without the launches."""

    def __init__(self, network: Network, models: int, where: str) -> None:
        super().__init__(network, models, where)
        self.replay = record_epoch(self.whole_epoch, self.model.parameters(), where)
        for state in self.optimizer.state.values():  # what the epochs before the recording left
            for tensor in state.values():
                tensor.zero_()

    def whole_epoch(self) -> torch.Tensor:
        """Leaves no gradient, since memory from before a recording may not be freed within."""
        mean = super().epoch()
        self.optimizer.zero_grad(set_to_none=True)
        return mean

    def epoch(self) -> torch.Tensor:
        return self.replay().clone()


class Func(TorchLoop):
    """torch.func's vmap over models, weights stacked, in one CUDA graph of an epoch."""

    def __init__(self, network: Network, models: int, where: str, compiled: bool = False) -> None:
        super().__init__(network, where=where)
        self.where = where
        scales, rates = (torch.from_numpy(f).float().to(where) for f in spread(models))
        self.state = [
            torch.from_numpy(array).to(where) * scales.view(-1, *[1] * array.ndim)
            for pair in network.weights()
            for array in pair
        ]
        self.rates = [
            network.learning_rate * rates.view(-1, *[1] * (t.dim() - 1)) for t in self.state
        ]
        self.gradients = vmap(grad_and_value(self.loss_of), in_dims=(0, None, None))
        if compiled:
            self.gradients = torch.compile(self.gradients, dynamic=False)
        self.replay = record_epoch(self.whole_epoch, self.state, where)

    @staticmethod
    def loss_of(weights: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        *hidden, kernel, bias = weights
        for inner, shift in zip(hidden[::2], hidden[1::2], strict=True):
            x = torch.sigmoid(x @ inner + shift)
        return F.binary_cross_entropy_with_logits(x @ kernel + bias, y)

    def whole_epoch(self) -> torch.Tensor:
        total = torch.zeros(len(self.state[0]), device=self.where)
        for x, y in self:
            gradients, losses = self.gradients(self.state, x, y)
            for weight, grad, rate in zip(self.state, gradients, self.rates, strict=True):
                weight.sub_(grad * rate)
            total = total + losses * len(x)
        return total / len(self.x)

    def epoch(self) -> torch.Tensor:
        return self.replay().clone()

    def wait(self) -> None:
        device.wait(self.where)


def record_epoch(
    epoch: Callable[[], torch.Tensor], weights: Iterable[torch.Tensor], where: str
) -> Callable[[], torch.Tensor]:
    """What replays a CUDA graph of an epoch; the weights are then what they were before."""
    weights = list(weights)
    before = [weight.detach().clone() for weight in weights]
    replay = device.record(epoch, where)
    with torch.no_grad():
        for weight, value in zip(weights, before, strict=True):
            weight.copy_(value)
    return replay


class Jax(JaxLoop):
    """The jitted epoch of benchmarks.loops, under vmap if there are many models.

    Args:
        precision: JAX's name for that of products; None for TensorFloat-32 where there is one.
    """

    def __init__(self, network: Network, models: int, where: str, precision: str | None) -> None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch is here too
        import jax

        if jax.default_backend() != {"cuda": "gpu"}.get(where, where):
            raise ImportError(f"JAX does not see {where}, but {jax.default_backend()}")
        jax.config.update("jax_default_matmul_precision", precision)
        super().__init__(network)
        if models > 1:
            self.stack(models)
        self.jitted, self.epoch = self.epoch, self.one_epoch

    def stack(self, models: int) -> None:
        """Makes of one model many, with weights and learning rates of their own."""
        import jax
        from jax import numpy as jnp

        scales, rates = (jnp.asarray(factors.astype(np.float32)) for factors in spread(models))

        def times(factors: jax.Array, array: jax.Array) -> jax.Array:
            return factors.reshape(-1, *[1] * array.ndim) * array

        weights, moments, key, t = self.state
        weights = jax.tree.map(partial(times, scales), weights)
        moments = jax.tree.map(partial(times, jnp.ones(models)), moments)
        self.state = weights, moments, jax.random.split(key, models), t
        axes = 0, 0, 0, None  # of the state: all have taken as many steps
        train = jax.vmap(self.train, in_axes=(0, axes, None, None), out_axes=(axes, 0))
        self.epoch = partial(jax.jit(train, donate_argnums=1), rates * self.network.learning_rate)

    def train(self, rate, state, full, rest):
        """An epoch of one model with its own learning rate."""
        own = copy.copy(self)
        own.rate = rate
        return JaxLoop.epoch(own, state, full, rest)

    def one_epoch(self):
        """Queues an epoch; returns its mean loss, or what will be it."""
        self.state, loss = self.jitted(self.state, self.full, self.rest)
        return loss

    def wait(self) -> None:
        import jax

        jax.block_until_ready(self.state)


RIVALS: dict[str, Callable[[Network, int, str], object]] = {
    "JAX": partial(Jax, precision=None),
    "JAX exact": partial(Jax, precision="highest"),
    "CUDA graph": Graph,
    "eager": Eager,
    "compile": Compiled,
    "torch.func": Func,
    "torch.func, compiled": partial(Func, compiled=True),
}
