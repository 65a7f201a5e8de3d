"""Training loops as one writes them by hand: NumPy, PyTorch, JAX.

Each class takes a network, does what need be done once, and has `fit(epochs)`, which trains on and
returns the mean loss of every epoch.
"""

from functools import partial
from itertools import pairwise

import numpy as np

from benchmarks.networks import Network


class NumpyLoop:
    """Back-propagation in NumPy."""

    def __init__(self, network: Network):
        self.network, self.weights = network, network.weights()
        self.x, self.y = network.data()

    def fit(self, epochs: int) -> list[float]:
        return [self.epoch() for _ in range(epochs)]

    def epoch(self) -> float:
        total, size = 0.0, self.network.batch_size
        for start in range(0, len(self.x), size):
            x, y = self.x[start : start + size], self.y[start : start + size]
            total += self.step(x, y) * len(x)
        return total / len(self.x)

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        activations, z = [x], x
        for kernel, bias in self.weights:
            z = activations[-1] @ kernel + bias
            activations.append(1 / (1 + np.exp(-z)))
        grad = (activations[-1] - y) / len(x)
        for (kernel, bias), a in zip(self.weights[::-1], activations[-2::-1], strict=True):
            grad_kernel, grad_bias = a.T @ grad, grad.sum(axis=0)
            if a is not x:
                grad = grad @ kernel.T * a * (1 - a)
            kernel -= self.network.learning_rate * grad_kernel
            bias -= self.network.learning_rate * grad_bias
        loss = np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))
        return float(loss.mean())


class TorchLoop:
    """nn.Sequential and torch.optim.SGD; the batches are slices of tensors, or a DataLoader's."""

    def __init__(self, network: Network, threads: int | None = None, loader: bool = False):
        import torch

        if threads:
            torch.set_num_threads(threads)
        self.network = network
        self.x, self.y = map(torch.from_numpy, network.data())
        self.model = torch_model(network)
        self.loss = torch.nn.BCEWithLogitsLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=network.learning_rate)
        self.batches = self.loaded() if loader else self

    def fit(self, epochs: int) -> list[float]:
        return [self.epoch() for _ in range(epochs)]

    def epoch(self) -> float:
        total = 0.0
        for x, y in self.batches:
            total += self.step(x, y).item() * len(x)
        return total / len(self.x)

    def __iter__(self):
        size = self.network.batch_size
        for start in range(0, len(self.x), size):
            yield self.x[start : start + size], self.y[start : start + size]

    def loaded(self):
        from torch.utils.data import DataLoader, TensorDataset

        return DataLoader(TensorDataset(self.x, self.y), batch_size=self.network.batch_size)

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = self.loss(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss


class TorchCompileLoop(TorchLoop):
    """A whole step, gradients and update, as one function for torch.compile.

    That is twice as fast here as a compiled model with an optimizer beside it.
    """

    def __init__(self, network: Network):
        import torch

        super().__init__(network)
        parameters = {name: p.detach() for name, p in self.model.named_parameters()}
        compiled = torch.compile(self.update, dynamic=False)
        self.step = partial(compiled, parameters)

    def update(self, parameters, x, y):
        import torch

        def loss(parameters):
            return self.loss(torch.func.functional_call(self.model, parameters, (x,)), y)

        grads, value = torch.func.grad_and_value(loss)(parameters)
        for name, parameter in parameters.items():
            parameter.sub_(grads[name], alpha=self.network.learning_rate)
        return value


def torch_model(network: Network):
    """nn.Sequential up to the last layer's logits, with the network's weights."""
    import torch
    from torch import nn

    pairs = list(pairwise(network.widths))
    linears = [nn.Linear(i, o, dtype=getattr(torch, network.dtype)) for i, o in pairs]
    with torch.no_grad():
        for linear, (kernel, bias) in zip(linears, network.weights(), strict=True):
            linear.weight.copy_(torch.from_numpy(kernel).T)
            linear.bias.copy_(torch.from_numpy(bias))
    return nn.Sequential(*[m for linear in linears for m in (linear, nn.Sigmoid())][:-1])


class JaxLoop:
    """An epoch is one jitted function: lax.scan over the full batches, then the short one."""

    def __init__(self, network: Network):
        import jax

        jax.config.update("jax_enable_x64", network.dtype == "float64")
        self.network, self.rate = network, network.learning_rate
        self.weights = jax.tree.map(jax.numpy.array, network.weights())
        arrays = [jax.numpy.array(array) for array in network.data()]
        count, size = network.samples // network.batch_size, network.batch_size
        self.full = [a[: count * size].reshape(count, size, -1) for a in arrays]
        self.rest = [a[count * size :] for a in arrays]
        self.epoch = jax.jit(self.epoch, donate_argnums=0)

    def fit(self, epochs: int) -> list[float]:
        return [self.next_epoch() for _ in range(epochs)]

    def next_epoch(self) -> float:
        self.weights, loss = self.epoch(self.weights, self.full, self.rest)
        return float(loss)

    def epoch(self, weights, full, rest):
        import jax

        weights, losses = jax.lax.scan(self.step, weights, full)
        total, short = losses.sum() * self.network.batch_size, len(rest[0])
        if short:
            weights, loss = self.step(weights, rest)
            total += loss * short
        return weights, total / self.network.samples

    def step(self, weights, batch):
        import jax

        loss, grads = jax.value_and_grad(self.loss)(weights, *batch)
        return jax.tree.map(lambda w, grad: w - self.rate * grad, weights, grads), loss

    @staticmethod
    def loss(weights, x, y):
        from jax import nn
        from jax import numpy as jnp

        for kernel, bias in weights[:-1]:
            x = nn.sigmoid(x @ kernel + bias)
        kernel, bias = weights[-1]
        z = x @ kernel + bias
        return jnp.mean(jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z))))
