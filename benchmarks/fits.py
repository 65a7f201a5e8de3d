"""Libraries that bring their own fit: torchnn, Keras, scikit-learn, skorch.

As in benchmarks.loops: a class takes a network, and `fit(epochs)` trains on and returns the mean
loss of every epoch. Here that is one call of the library's fit, with all it does around the
training: judging the data, callbacks, a history.
"""

import warnings
from itertools import pairwise

from benchmarks.loops import needs_a_plain_one, torch_model
from benchmarks.networks import Network


def _loss(network: Network) -> str:
    if network.loss == "mse":
        return "mean_squared_error"
    return "sparse_categorical_crossentropy" if network.has_classes else "binary_crossentropy"


class TorchnnFit:
    """Sequential.fit, on NumPy arrays."""

    def __init__(self, network: Network, verbose: int = 0):
        import torch

        import torchnn as tn

        self.network, self.verbose = network, verbose
        self.x, self.y = network.data()
        dtype = getattr(torch, network.dtype)
        penalty = tn.regularizers.L2(network.l2) if network.l2 else None
        options = {"dtype": dtype, "kernel_regularizer": penalty}
        layers = []
        for i, o in pairwise(network.widths):
            layers.append(tn.layers.Dense(o, network.activation, in_features=i, **options))
            layers += [tn.layers.Dropout(network.dropout)] if network.dropout else []
        if network.dropout:
            layers.pop()
        layers[-1].activation = network.last_activation
        self.model = tn.Sequential(layers)
        self.model.set_weights([array for layer in network.weights() for array in layer])
        kind = tn.optimizers.Adam if network.adam else tn.optimizers.SGD
        self.model.compile(kind(network.learning_rate), _loss(network))

    def fit(self, epochs: int) -> list[float]:
        history = self.model.fit(
            self.x,
            self.y,
            batch_size=self.network.batch_size,
            epochs=epochs,
            verbose=self.verbose,
            shuffle=False,
        )
        return history.history["loss"]


class TorchnnEngine(TorchnnFit):
    """The engine under that fit, one call for all epochs, on tensors known to be good."""

    def __init__(self, network: Network):
        super().__init__(network)
        from torch import from_numpy

        from torchnn._engine import choice, recipe
        from torchnn._engine.run import Samples

        settled = recipe.settle(self.model.optimizer, self.model.loss, None)
        settled.optimizer.build(self.model.parameters())
        self.engine = choice.choose(self.model, settled)
        if isinstance(self.engine, choice.AutogradEngine):
            raise RuntimeError("fit has no fused engine for this network")
        self.samples = Samples(from_numpy(self.x), from_numpy(self.y))

    def fit(self, epochs: int) -> list[float]:
        import torch

        from torchnn._engine.run import Run

        size, count = self.network.batch_size, self.network.samples
        order = torch.arange(count).repeat(epochs)
        run = Run(self.samples, size, 0, count * epochs, order, epochs)
        losses = self.engine.train(run).losses.reshape(epochs, -1)
        sizes = torch.tensor(run.sizes[: losses.shape[1]], dtype=losses.dtype)
        return (losses @ sizes / count).tolist()


class KerasFit:
    """keras.Sequential.fit, on NumPy arrays; the environment names the backend."""

    def __init__(self, network: Network, jit_compile: bool | str = "auto", fused_steps=False):
        import keras

        keras.config.set_floatx(network.dtype)
        keras.utils.clear_session()
        self.network = network
        self.x, self.y = network.data()
        penalty = keras.regularizers.L2(network.l2) if network.l2 else None
        layers = [keras.Input((network.widths[0],))]
        for units in network.widths[1:-1]:
            layers.append(keras.layers.Dense(units, network.activation, kernel_regularizer=penalty))
            layers += [keras.layers.Dropout(network.dropout)] if network.dropout else []
        last = network.last_activation
        layers.append(keras.layers.Dense(network.widths[-1], last, kernel_regularizer=penalty))
        self.model = keras.Sequential(layers)
        self.model.set_weights([array for layer in network.weights() for array in layer])
        kind = keras.optimizers.Adam if network.adam else keras.optimizers.SGD
        self.model.compile(
            optimizer=kind(network.learning_rate),
            loss=_loss(network),
            jit_compile=jit_compile,
            steps_per_execution=network.steps if fused_steps else 1,
        )

    def fit(self, epochs: int) -> list[float]:
        history = self.model.fit(
            self.x,
            self.y,
            batch_size=self.network.batch_size,
            epochs=epochs,
            verbose=0,
            shuffle=False,
        )
        return history.history["loss"]


class SklearnFit:
    """MLPClassifier without penalty, momentum and early stopping; each fit goes on (warm_start)."""

    def __init__(self, network: Network):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        needs_a_plain_one(network)
        warnings.simplefilter("ignore", ConvergenceWarning)  # it means: max_iter was reached
        self.x, y = network.data()
        self.y = y.ravel().astype(int)
        self.model = MLPClassifier(
            hidden_layer_sizes=network.widths[1:-1],
            activation="logistic",
            solver="sgd",
            alpha=0.0,
            batch_size=network.batch_size,
            learning_rate_init=network.learning_rate,
            momentum=0.0,
            nesterovs_momentum=False,
            shuffle=False,
            tol=0.0,
            n_iter_no_change=10**9,
            warm_start=True,
        )
        # The first call makes the weights, from one step that is undone here.
        self.model.partial_fit(self.x, self.y, classes=[0, 1])
        kernels, biases = zip(*network.weights(), strict=True)
        self.model.coefs_, self.model.intercepts_ = list(kernels), list(biases)

    def fit(self, epochs: int) -> list[float]:
        self.model.set_params(max_iter=epochs).fit(self.x, self.y)
        return self.model.loss_curve_[-epochs:]


class SkorchFit:
    """skorch.NeuralNet around the model of the PyTorch loops."""

    def __init__(self, network: Network):
        import torch
        from skorch import NeuralNet

        needs_a_plain_one(network)
        self.x, self.y = network.data()
        self.net = NeuralNet(
            torch_model(network),
            criterion=torch.nn.BCEWithLogitsLoss,
            optimizer=torch.optim.SGD,
            lr=network.learning_rate,
            batch_size=network.batch_size,
            iterator_train__shuffle=False,
            train_split=None,
            verbose=0,
            warm_start=True,
        )

    def fit(self, epochs: int) -> list[float]:
        self.net.set_params(max_epochs=epochs).fit(self.x, self.y)
        return self.net.history[-epochs:, "train_loss"]
