"""Training loops as one writes them by hand: NumPy, PyTorch, JAX.

Each class takes a network, does what need be done once, and has `fit(epochs)`, which trains on and
returns the mean loss of every epoch.
"""

from functools import partial
from itertools import pairwise

import numpy as np

from benchmarks.networks import Network

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7  # of Adam


class NumpyLoop:
    """Back-propagation in NumPy."""

    def __init__(self, network: Network):
        self.network, self.weights = network, network.weights()
        self.x, self.y = network.data()
        if network.has_classes:
            self.y = np.eye(network.widths[-1], dtype=network.dtype)[self.y]
        self.random = np.random.default_rng(2)
        self.moments = [[np.zeros_like(w) for w in (*pair, *pair)] for pair in self.weights]
        self.steps = 0

    def fit(self, epochs: int) -> list[float]:
        with np.errstate(over="ignore"):  # exp(-z) of a saturated sigmoid, which is 0 then
            return [self.epoch() for _ in range(epochs)]

    def epoch(self) -> float:
        total, size = 0.0, self.network.batch_size
        for start in range(0, len(self.x), size):
            x, y = self.x[start : start + size], self.y[start : start + size]
            total += self.step(x, y) * len(x)
        return total / len(self.x)

    def step(self, x: np.ndarray, y: np.ndarray) -> float:
        network, activations, kept = self.network, [x], []
        is_relu = network.activation == "relu"
        *hidden, (kernel, bias) = self.weights
        for inner, shift in hidden:
            z = activations[-1] @ inner + shift
            a, scale = np.maximum(z, 0) if is_relu else 1 / (1 + np.exp(-z)), None
            if network.dropout:
                is_kept = self.random.random(a.shape, np.float32) >= network.dropout
                scale = is_kept.astype(a.dtype) / (1 - network.dropout)
            kept.append((a, scale))
            activations.append(a if scale is None else a * scale)
        loss, grad = self.loss_and_gradient(activations[-1] @ kernel + bias, y)
        loss += network.l2 * sum((kernel**2).sum() for kernel, _ in self.weights)
        self.steps += 1
        for layer in range(len(self.weights) - 1, -1, -1):
            kernel, bias = self.weights[layer]
            inputs = activations[layer]
            grad_kernel, grad_bias = inputs.T @ grad, grad.sum(axis=0)
            if layer:
                a, scale = kept[layer - 1]
                grad = grad @ kernel.T * (a > 0 if is_relu else a * (1 - a))
                grad = grad if scale is None else grad * scale
            if network.l2:
                grad_kernel += 2 * network.l2 * kernel
            self.update(layer, (kernel, bias), (grad_kernel, grad_bias))
        return float(loss)

    def loss_and_gradient(self, z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
        if self.network.loss == "mse":
            off = z - y
            return (off * off).mean(), 2 / off.size * off
        if not self.network.has_classes:
            loss = np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))
            return loss.mean(), (1 / (1 + np.exp(-z)) - y) / len(z)
        z = z - z.max(axis=1, keepdims=True)
        e = np.exp(z)
        total = e.sum(axis=1, keepdims=True)
        return ((np.log(total) - z) * y).sum() / len(z), (e / total - y) / len(z)

    def update(self, layer: int, weights: tuple, grads: tuple) -> None:
        rate, t = self.network.learning_rate, self.steps
        if not self.network.adam:
            for w, grad in zip(weights, grads, strict=True):
                w -= rate * grad
            return
        rate *= np.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
        for place, (w, grad) in enumerate(zip(weights, grads, strict=True)):
            m, v = self.moments[layer][place], self.moments[layer][place + 2]
            m += (grad - m) * (1 - BETA_1)
            v += (grad * grad - v) * (1 - BETA_2)
            w -= rate * m / (np.sqrt(v) + EPSILON)


class TorchLoop:
    """nn.Sequential and torch.optim.SGD; the batches are slices of tensors, or a DataLoader's.

    Args:
        where: "cpu" or "cuda", the place of everything.
    """

    def __init__(
        self,
        network: Network,
        threads: int | None = None,
        loader: bool = False,
        where: str = "cpu",
    ):
        import torch

        if threads:
            torch.set_num_threads(threads)
        self.network = network
        self.x, self.y = (torch.from_numpy(array).to(where) for array in network.data())
        self.model = torch_model(network).to(where)
        self.loss = torch_loss(network)
        parameters, rate = self.model.parameters(), network.learning_rate
        # Where it can be, the number of steps is on the device, so that a CUDA graph counts them.
        adam = partial(torch.optim.Adam, eps=EPSILON, capturable=where == "cuda")
        self.optimizer = (adam if network.adam else torch.optim.SGD)(parameters, lr=rate)
        self.kernels = [p for p in self.model.parameters() if p.ndim == 2]
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
        if self.network.l2:
            loss = loss + self.network.l2 * sum(kernel.square().sum() for kernel in self.kernels)
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
        needs_a_plain_one(network)
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
    activation = nn.ReLU() if network.activation == "relu" else nn.Sigmoid()
    after = [activation, *([nn.Dropout(network.dropout)] if network.dropout else [])]
    chain = [m for linear in linears for m in (linear, *after)]
    return nn.Sequential(*chain[: -len(after)])


def torch_loss(network: Network):
    """The loss of the last layer's logits, or of its numbers."""
    from torch import nn

    if network.loss == "mse":
        return nn.MSELoss()
    return nn.CrossEntropyLoss() if network.has_classes else nn.BCEWithLogitsLoss()


def needs_a_plain_one(network: Network) -> None:
    """Raises for whoever trains plain networks alone."""
    if not network.is_plain:
        raise NotImplementedError("it is written for sigmoids, one output, and gradient descent")


class JaxLoop:
    """An epoch is one jitted function: lax.scan over the full batches, then the short one."""

    def __init__(self, network: Network):
        import jax

        jax.config.update("jax_enable_x64", network.dtype == "float64")
        self.network, self.rate = network, network.learning_rate
        weights = jax.tree.map(jax.numpy.array, network.weights())
        zeros = partial(jax.tree.map, jax.numpy.zeros_like, weights)
        moments = (zeros(), zeros()) if network.adam else ()
        self.state = weights, moments, jax.random.key(2), jax.numpy.zeros((), jax.numpy.int32)
        arrays = [jax.numpy.array(array) for array in network.data()]
        count, size = network.samples // network.batch_size, network.batch_size
        shape = count, size
        self.full = [a[: count * size].reshape(*shape, *a.shape[1:]) for a in arrays]
        self.rest = [a[count * size :] for a in arrays]
        self.epoch = jax.jit(self.epoch, donate_argnums=0)

    def fit(self, epochs: int) -> list[float]:
        return [self.next_epoch() for _ in range(epochs)]

    def next_epoch(self) -> float:
        self.state, loss = self.epoch(self.state, self.full, self.rest)
        return float(loss)

    def epoch(self, state, full, rest):
        import jax

        state, losses = jax.lax.scan(self.step, state, full)
        total, short = losses.sum() * self.network.batch_size, len(rest[0])
        if short:
            state, loss = self.step(state, rest)
            total += loss * short
        return state, total / self.network.samples

    def step(self, state, batch):
        import jax

        weights, moments, key, t = state
        if self.network.dropout:
            key, own = jax.random.split(key)
        else:
            own = key
        loss, grads = jax.value_and_grad(self.loss)(weights, own, *batch)
        weights, moments = self.update(weights, moments, grads, t + 1)
        return (weights, moments, key, t + 1), loss

    def update(self, weights, moments, grads, t):
        import jax
        from jax import numpy as jnp

        if not self.network.adam:
            return jax.tree.map(lambda w, grad: w - self.rate * grad, weights, grads), moments
        rate = self.rate * jnp.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
        m = jax.tree.map(lambda m, grad: m + (grad - m) * (1 - BETA_1), moments[0], grads)
        v = jax.tree.map(lambda v, grad: v + (grad * grad - v) * (1 - BETA_2), moments[1], grads)

        def change(w, m, v):
            return w - rate * m / (jnp.sqrt(v) + EPSILON)

        return jax.tree.map(change, weights, m, v), (m, v)

    def loss(self, weights, key, x, y):
        import jax
        from jax import nn
        from jax import numpy as jnp

        activation = nn.relu if self.network.activation == "relu" else nn.sigmoid
        for layer, (kernel, bias) in enumerate(weights[:-1]):
            x = activation(x @ kernel + bias)
            if self.network.dropout:
                own = jax.random.fold_in(key, layer)
                is_kept = jax.random.bernoulli(own, 1 - self.network.dropout, x.shape)
                x = jnp.where(is_kept, x / (1 - self.network.dropout), 0)
        kernel, bias = weights[-1]
        z = x @ kernel + bias
        penalty = self.network.l2 * sum((kernel**2).sum() for kernel, _ in weights)
        if self.network.loss == "mse":
            return jnp.mean((z - y) ** 2) + penalty
        if self.network.has_classes:
            return -nn.log_softmax(z)[jnp.arange(len(y)), y].mean() + penalty
        return jnp.mean(jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z)))) + penalty
