"""Model: a module that can be compiled, fitted, evaluated and asked."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from torchnn import _checks, _saving, _warnings, activations, regularizers
from torchnn._config import Configured, CustomObjects, found, known, plain
from torchnn._console.progress import check_verbose
from torchnn._engine import building as _building
from torchnn._engine.choice import Chosen, choose, recall, remember
from torchnn._engine.evaluating import evaluating
from torchnn._engine.parts import Parts
from torchnn._engine.recipe import Recipe, settle
from torchnn._engine.run import Form, Samples
from torchnn._engine.several import of_each, settle_several
from torchnn._network import Network
from torchnn._training import batches as _batches
from torchnn._training import data as _data
from torchnn._training import loops as _loops
from torchnn._training import ranks as _ranks
from torchnn._training import turns as _turns
from torchnn._training.batches import ArrayFeed, Feed, LoaderFeed
from torchnn._training.fit import Fit
from torchnn.callbacks import Callback, History
from torchnn.callbacks._base import CallbackList
from torchnn.layers import Activation, Dense, Layer, _names, _variables
from torchnn.layers._graph import Graph
from torchnn.layers._values import mode
from torchnn.losses import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    FunctionLoss,
    Loss,
    SparseCategoricalCrossentropy,
    TorchLoss,
)
from torchnn.metrics import Metric
from torchnn.optimizers._base import Place

__all__ = ["Model"]

Self = TypeVar("Self", bound="Model")

TORCH_COMPILE_ARGUMENTS = {"fullgraph", "dynamic", "backend", "mode", "options", "disable"}

# Losses of outputs that stand for themselves, and of outputs that stand for classes.
BINARY = (BinaryCrossentropy, BinaryFocalCrossentropy, nn.BCELoss)
OF_CLASSES = (CategoricalCrossentropy, SparseCategoricalCrossentropy, nn.CrossEntropyLoss)

# Methods of Keras's Model whose place compile's loss and optimizer take: nothing would call them.
STEPS = (
    *("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics"),
    *("make_train_function", "make_test_function", "make_predict_function"),
)

Callbacks = Callback | Iterable[Callback] | None
Array = np.ndarray[Any, Any]


class Model(Configured, Network):
    """A module with Keras's compile, fit, evaluate and predict, which can be called on arrays, too.

    Attributes:
        stop_training: A callback sets it to True to stop fit.
        history: The History of the latest fit, or None.
        sample_shape: The axes of a sample that the model has seen last, or None.
    """

    trainable = Layer.trainable
    stop_training = False
    _stopped_fit: str | None = None  # the name of the last fit, if an error or Ctrl-C ended it
    history: History | Any = None  # type checkers need not be told that fit has been called
    sample_shape: tuple[int, ...] | None = None
    _recipe: Recipe | None = None
    _order_seed: int | None = None  # what the samples' order follows from; torch's seed if None
    # By TorchScript, which compiles forward, and would all properties.
    __jit_ignored_attributes__ = (
        *("history", "sample_shape", "_recipe", "_input_shape", "_told", "_graph"),
    )
    __jit_unused_properties__ = (
        *_variables.PROPERTIES,
        *("_chain", "_head", "inputs", "input_names", "layers", "outputs", "output_names"),
        "loss",
        "metrics",
        "metrics_names",
        "optimizer",
        "built",
        "epochs_trained",
    )

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        metrics: Any = None,
        engine: str = "auto",
        weighted_metrics: Any = None,
        run_eagerly: Any = None,
        steps_per_execution: Any = None,
        jit_compile: Any = None,
        auto_scale_loss: Any = None,
        loss_weights: Any = None,
        **unknown: NoReturn,  # an error to type checkers, and a better one when it runs
    ) -> None:
        """Settles how the model is trained. All names are looked up now, so typos fail here.

        It takes the place of `nn.Module.compile`; PyTorch's compiler is `torch.compile(model)`.
        A model may be compiled before it has layers; what they decide is looked at when it is used.

        Args:
            optimizer: A name, an object of torchnn.optimizers, or a torch optimizer or a function
                that makes one of parameters. None is gradient descent with a learning rate of 0.01,
                where Keras takes RMSprop; fit says so once.
            loss: A name, an object of torchnn.losses, or a function of (y_true, y_pred); or an
                `nn.Module`, which gets (y_pred, y_true).
            metrics: Names, objects or functions of (y_true, y_pred), to report beside the loss; or
                `nn.Module`s, and metrics of torchmetrics, which get (y_pred, y_true). "accuracy"
                means what goes with the loss: see metrics.LossAccuracy.
            engine: "fused" trains whole epochs in one native call; "autograd" goes step by step
                through PyTorch; "auto" takes the fused one if the model, the loss and the optimizer
                are ones that it knows. Both train the same network; summary() says which does.
            weighted_metrics: As metrics, but weighted by sample_weight and class_weight.
            run_eagerly, steps_per_execution, jit_compile, auto_scale_loss: Keras's, for engines
                that are not ours; they change nothing.
            loss_weights: How much the loss of each output counts, in a list or a dict; all as much
                if None.

        Of a model with several outputs, loss may be one for all, a list, or a dict by the outputs'
        names, and metrics a list of lists or a dict of lists. Each loss and metric is reported with
        the name of its output: "out_loss", "out_accuracy". The lists and dicts may be of one
        output, too; that of a Sequential is called what its last layer is.

        Raises:
            ValueError: An unknown name, or no loss, or a model that engine="fused" cannot train.
            TypeError: Something else than these, such as arguments of torch.compile; or the class
                has a train_step or the like, which nothing would call.
        """
        _check_steps(self)
        _refuse(unknown)
        _variables.settle(self)
        settled = self._settled(optimizer, loss, metrics, engine, weighted_metrics, loss_weights)
        trained = [p.requires_grad for p in self.parameters()]
        settled.is_frozen = bool(trained) and not any(trained)
        if not self._is_empty():
            self._check_recipe(settled)
        if self._recipe is not None:
            settled.owner = self._recipe.owner  # an optimizer that is given again knows the model
            if settled.optimizer.place == Place():
                settled.optimizer.place = Place(self.epochs_trained)
        settled.given = {
            "loss": loss,
            "metrics": metrics,
            "engine": engine,
            "weighted_metrics": weighted_metrics,
            "loss_weights": loss_weights,
        }
        self._recipe = settled

    @_ranks.settled
    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Callbacks = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Iterable[int] = 1,
        max_queue_size: Any = None,
        workers: Any = None,
        use_multiprocessing: Any = None,
    ) -> History:
        """Trains the model, and goes on from where an earlier fit stopped.

        The loss of an epoch is the mean over its samples, measured while the weights change.

        If the program has initialised torch.distributed, its processes train together: each passes
        the same arguments and takes its share of every batch, and rank 0's callbacks are called.

        Args:
            x: Features, shape (N, ...): an array, a tensor, a data frame or lists; for a model with
                several inputs, a list of these or a dict by the inputs' names. Or what gives
                batches, (x, y) or (x, y, sample_weight), and so rules batch_size and shuffle: a
                DataLoader, a generator, an object with len() and batches by number, such as a
                utils.PyDataset, or any other that can be iterated over.
            y: Targets, shape (N,) or (N, ...); for several outputs, a list or a dict likewise.
            batch_size: Samples a step, 32 if None; the last batch of an epoch may be shorter.
            epochs: The number of the last epoch; it counts from initial_epoch.
            verbose: 1 or "auto" shows a line an epoch, live in a terminal; 2 plain lines; 0 none.
            callbacks: One or several. They may change the model, the settings of its loss and of
                its optimizer, and tensors x and y in place: the next step goes by what it finds.
            validation_split: This part of the samples, the last ones before any shuffling, is not
                trained on but measured after each epoch.
            validation_data: What to measure instead: (x, y), (x, y, sample_weight) or what gives
                batches.
            shuffle: Whether each epoch has an order of its own, which follows from torch's seed;
                of batches by number, their order.
            class_weight: From labels in y to weights; 1 for a label that is not in it.
            sample_weight: A factor of each sample's loss, shape (N,).
            initial_epoch: The number of the first epoch, to go on with an earlier run.
            steps_per_epoch: Batches an epoch; the next one begins where this one ended, and after
                all the first follows again. A generator that goes on for ever needs it.
            validation_steps: Measure no more than so many batches.
            validation_batch_size: Samples to measure at once; batch_size if None.
            validation_freq: Measure after every so many epochs; or after those of these numbers,
                the first being 1.
            max_queue_size, workers, use_multiprocessing: Keras's of old; they change nothing. A
                DataLoader has num_workers.

        Returns:
            The History, with a list of one float an epoch for "loss", each metric, and their
            "val_" twins.

        Raises:
            ValueError, TypeError: An argument is wrong; nothing has been trained then. Or a
                callback has made the model one that does not fit the data or engine="fused".
            RuntimeError: Another fit is at work on the model.
            KeyboardInterrupt: On Ctrl-C, between two steps.

        Whatever ends a fit, all steps that it took count: on_train_end is told, model.history has
        the epochs that were trained, and the next fit first trains the rest of an epoch that was
        interrupted, if batch_size and the number of samples are the same. Interrupted or not, the
        weights come out the same.
        """
        recipe = self._compiled("fit")
        batch_size = _batch_size(batch_size)
        steps_per_epoch = _steps("steps_per_epoch", steps_per_epoch)
        validation_steps = _steps("validation_steps", validation_steps)
        validation_size = _batch_size(validation_batch_size, batch_size, "validation_batch_size")
        frequency = _frequency(validation_freq)
        epochs = _checks.non_negative_int("epochs", epochs)
        initial_epoch = _checks.non_negative_int("initial_epoch", initial_epoch)
        verbose = check_verbose(verbose)
        listeners = CallbackList(callbacks)
        shuffle = _checks.truth("shuffle", shuffle)
        with _turns.fitting(self), _building.able_to_learn(self):
            feed = self._feed(recipe, batch_size, x, y, sample_weight, class_weight)
            if shuffle:
                own = self._order_seed
                feed.shuffle(torch.initial_seed() if own is None else own)
            feed, validation = self._validation(
                recipe, feed, validation_split, validation_data, validation_size
            )
            if class_weight is not None and validation_split and isinstance(validation, ArrayFeed):
                validation = validation.unweighted()  # classes are weighted to learn alone
            span = range(initial_epoch, epochs)
            _batches.check_end(feed, len(span), "x", "steps_per_epoch", steps_per_epoch)
            feed.limit(steps_per_epoch, repeats=True)
            if validation is not None:
                named = "validation_data", "validation_steps", validation_steps
                _batches.check_end(validation, len(span), *named)
                validation.limit(validation_steps)
            self._prepare(recipe, feed, *([validation] if validation else []))
            fit = Fit(self, recipe, feed, validation, listeners, span, verbose, frequency)
            return fit.run()

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        callbacks: Callbacks = None,
        return_dict: bool = False,
        steps: int | None = None,
        max_queue_size: Any = None,
        workers: Any = None,
        use_multiprocessing: Any = None,
    ) -> Any:
        """Returns the loss, or [loss, *metrics] if there are metrics.

        Args:
            x: As in fit.
            y: As in fit.
            batch_size: Samples to measure at once.
            verbose: 1, "auto" or 2 shows a line; 0 nothing.
            sample_weight: A factor of each sample's loss, shape (N,).
            callbacks: One or several.
            return_dict: Return them by their names instead.
            steps: Measure no more than so many batches.
            max_queue_size, workers, use_multiprocessing: As in fit.
        """
        recipe = self._compiled("evaluate")
        return_dict = _checks.truth("return_dict", return_dict)
        batch_size, steps = _batch_size(batch_size), _steps("steps", steps)
        listeners, verbose = CallbackList(callbacks), check_verbose(verbose)
        feed = self._feed(recipe, batch_size, x, y, sample_weight)
        _batches.check_end(feed, 1, "x", "steps", steps)
        feed.limit(steps)
        self._prepare(recipe, feed)
        logs = _loops.evaluate(self, recipe, feed, listeners, verbose)
        return _reported(logs, return_dict)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        callbacks: Callbacks = None,
        steps: int | None = None,
        max_queue_size: Any = None,
        workers: Any = None,
        use_multiprocessing: Any = None,
    ) -> Any:
        """Returns the model's output as a numpy array, shape (N, units); several outputs in a list
        or a dict.

        Args:
            x: Features, shape (N, ...), or what gives batches, whose targets are ignored.
            batch_size: Samples to compute at once.
            verbose: 1 or "auto" shows a line while it takes long, in a terminal; 0 nothing.
            callbacks: One or several.
            steps: Compute no more than so many batches.
            max_queue_size, workers, use_multiprocessing: As in fit.
        """
        _check_steps(self)
        self._check_layers()
        batch_size, steps = _batch_size(batch_size), _steps("steps", steps)
        listeners, verbose = CallbackList(callbacks), check_verbose(verbose)
        feed = _batches.feed(self._form(), batch_size, x)
        _batches.check_end(feed, 1, "x", "steps", steps)
        feed.limit(steps)
        chosen = self._rehearsed(feed)
        output = _loops.predict(self, self._recipe, feed, listeners, verbose, chosen)
        return _arrays(output)

    def train_on_batch(
        self,
        x: Any,
        y: Any,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Takes one step on all of x; returns what evaluate returns, measured before the step."""
        step, weights = _loops.train_on_batch, (sample_weight, class_weight)
        with _building.able_to_learn(self):
            return self._on_batch(step, x, y, *weights, return_dict)

    def test_on_batch(
        self, x: Any, y: Any, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Returns what evaluate returns, with all of x as one batch."""
        return self._on_batch(_loops.test_on_batch, x, y, sample_weight, None, return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """Returns what predict returns, with all of x as one batch."""
        self._check_layers()
        form = self._form()
        _building.check_device(form)
        x = _data.all_features("x", x, form, may_be_empty=True)
        self._rehearsed(ArrayFeed(Samples(x), max(len(x), 1)))
        return _arrays(_building.run_once(self, x))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of __init__, by their names, in plain values; of a model that was
        made of a graph, its layers and the calls of these.

        Raises:
            TypeError: An argument is not kept as an attribute of its name; or the model has layers
                that no argument tells of.
        """
        if type(self).__init__ is not Model.__init__:
            config, of_graphs = super().get_config(), {"inputs", "outputs"}
            is_open = self._is_open()  # and what an __init__ passes on says nothing of a graph
            return {n: v for n, v in config.items() if not (is_open and n in of_graphs)}
        if self._graph is not None:
            return {"name": self.name, **self._graph.to_plain(self.layers)}
        if any(True for _ in self.children()):
            raise TypeError(
                f"this {type(self).__name__} has layers that its class does not make, which no "
                "config tells: torchnn.models.clone_model copies it"
            )
        return {"name": self.name}

    @classmethod
    def from_config(
        cls: type[Self], config: Mapping[str, Any], custom_objects: CustomObjects = None
    ) -> Self:
        """Returns a new model of what get_config returns, with first values of its own.

        Args:
            config: Arguments by their names; of a model that was made of a graph, that.
            custom_objects: From names to classes and functions of one's own.

        Raises:
            ValueError: The config names something that nobody knows.
        """
        if cls.__init__ is not Model.__init__ or "steps" not in config:
            return super().from_config(config, custom_objects)
        with known(custom_objects):
            return cls(*Graph.of_plain(config), name=config["name"])

    def to_json(self, **options: Any) -> str:
        """Returns the model's class and its config as text, for models.model_from_json.

        Args:
            options: Of json.dumps, such as indent=2.
        """
        return json.dumps(plain(self), **options)

    def get_compile_config(self) -> dict[str, Any] | None:
        """Returns the arguments of compile in plain values, the optimizer's settings as they are
        now; None before compile.

        Raises:
            TypeError: The optimizer holds the parameters of this model, and is not PyTorch's own.
        """
        recipe = self._recipe
        return None if recipe is None else plain({"optimizer": recipe.optimizer, **recipe.given})

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Compiles the model as get_compile_config says."""
        self.compile(**found(dict(config)))

    def save(
        self,
        filepath: Any,
        overwrite: bool = True,
        include_optimizer: bool = True,
        save_format: Any = None,
        zipped: Any = None,
    ) -> None:
        """Writes a file from which models.load_model makes this model again, to go on training
        with the same bits: layers, weights, compile's arguments, the optimizer with its place in
        the epoch, and the History.

        It is of one kind, safetensors, whatever its name ends in. One that is there already is
        replaced as a whole, or stays whole if anything goes wrong.

        Args:
            filepath: Where to.
            overwrite: Whether to replace a file that is there.
            include_optimizer: Whether to keep how the model is trained.
            save_format, zipped: Keras's, for formats that are not ours; they change nothing.

        Raises:
            TypeError: A layer cannot tell what it was made with.
            FileExistsError: There is such a file, and overwrite is False.
            OSError: The folder is missing, the disk is full, or the like.

        A loss, a metric or an optimizer that no name or config tells, such as a lambda, is left
        out with a warning.

            model.save("model.keras")
            model = torchnn.models.load_model("model.keras")
        """
        _saving.save(
            self, filepath, overwrite, _checks.truth("include_optimizer", include_optimizer)
        )

    def save_weights(self, filepath: Any, overwrite: bool = True, save_format: Any = None) -> None:
        """Writes the state dict, as safetensors: for load_weights, and for any program of PyTorch's
        by `safetensors.torch.load_file`.

        Args:
            filepath: Where to, such as "model.weights.h5".
            overwrite: Whether to replace a file that is there.
            save_format: Keras's of old; it changes nothing.

        Raises:
            FileExistsError: There is such a file, and overwrite is False.
            OSError: The folder is missing, the disk is full, or the like.
        """
        _saving.save_weights(self, filepath, overwrite)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False) -> None:
        """Takes the weights of a file: what save_weights or save has written, safetensors with the
        names of the state dict, or what Keras has written (see models.load_model).

        A model that is not built is built first, if the file tells the shape of its samples.

        Args:
            filepath: The file.
            skip_mismatch: Whether to leave out weights that the model lacks, or has in another
                shape, and to keep those that the file lacks.

        Raises:
            OSError: There is no such file.
            ValueError: It is damaged or of another kind, or its weights are not this model's;
                nothing has changed then.
        """
        _saving.load_weights(self, filepath, _checks.truth("skip_mismatch", skip_mismatch))

    def export(
        self,
        filepath: Any,
        format: str | None = None,
        verbose: Any = None,
        input_signature: Any = None,
    ) -> None:
        """Writes a program that computes the model for any number of samples, without torchnn.

        Args:
            filepath: Where to, "model.onnx" or "model.pt2".
            format: "onnx", or "pt2" for torch.export.load; None for what filepath ends in.
            verbose, input_signature: Keras's; they change nothing.

        Raises:
            ValueError: The model is not built, or filepath tells no such format.
            ModuleNotFoundError: onnx or onnxscript is missing.
            OSError: The folder is missing, the disk is full, or the like.
        """
        _saving.export(self, filepath, format)

    @property
    def epochs_trained(self) -> int:
        """Epochs that all fits took together. The order of the samples in the next one follows from
        this number and torch's seed. The optimizer keeps it, and its state dict."""
        return 0 if self._recipe is None else self._recipe.optimizer.place.epochs

    @epochs_trained.setter
    def epochs_trained(self, value: int) -> None:
        optimizer = self._compiled("epochs_trained").optimizer
        optimizer.place = Place(_checks.non_negative_int("epochs_trained", value))

    @property
    def optimizer(self) -> Any:  # each kind has attributes of its own
        """The optimizer that compile was given or made, or None before."""
        return None if self._recipe is None else self._recipe.optimizer

    @property
    def loss(self) -> Any:
        """The loss that compile was given or made, or None before."""
        return None if self._recipe is None else self._recipe.loss

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that compile was given or made."""
        return self._recipe.metrics if self._recipe else []

    @property
    def metrics_names(self) -> list[str]:
        """What evaluate returns, in its order: "loss" and the metrics; nothing before compile."""
        return ["loss", *(metric.name for metric in self.metrics)] if self._recipe else []

    @property
    def built(self) -> bool:
        """Whether all weights have their shapes."""
        return _building.is_built(self)

    @built.setter
    def built(self, value: bool) -> None:
        """Takes what a build of one's own says at its end, as Keras's do."""

    def reset_metrics(self) -> None:
        """Does nothing: what a call measures is forgotten when it returns."""

    def _in_mode(self, training: bool) -> AbstractContextManager[nn.Module]:
        return mode(self, True) if training else evaluating(self)  # others may be at work with it

    @property
    def losses(self) -> list[Tensor]:
        """The penalties of regularizers: on weights, and on outputs of the latest call. They are
        part of the loss that is trained and reported."""
        return regularizers.losses(self)

    def _form(self) -> Form:
        """What the model eats."""
        form, graph = _building.form(self), self._graph
        if graph is None:
            return replace(form, is_open=self._is_open())
        shapes = zip(self.input_names, graph.shapes, strict=False)  # those of the inputs
        inputs = {name: replace(form, shape=shape, exact=True) for name, shape in shapes}
        return replace(next(iter(inputs.values())), inputs=inputs)

    def _form_for(self, recipe: Recipe) -> Form:
        """The same, with the names of the outputs and what the loss compares these with."""
        own = self.output_names if self._graph is not None else ()
        outputs = tuple(getattr(recipe.loss, "outputs", own))
        return replace(self._form(), outputs=outputs, labels=recipe.loss.takes_labels)

    def _is_empty(self) -> bool:
        """Whether there are no layers yet."""
        return False

    def _check_layers(self) -> None:
        """Raises ValueError if there is nothing to run."""

    def _check_recipe(self, recipe: Recipe) -> None:
        """Looks at a recipe and the layers together, once."""
        self._check_layers()
        if recipe.engine == "fused":
            choose(self, recipe, self.sample_shape)  # raises if it cannot be
        _warn_of_the_end(self, recipe.loss)
        recipe.is_checked = True

    def _compiled(self, action: str) -> Recipe:
        """The recipe, or a ValueError if there is none yet."""
        self._check_layers()
        if self._recipe is None:
            raise ValueError(f"{action} needs a compiled model: call compile(loss=...) first")
        if not self._recipe.is_checked:
            _variables.settle(self)
            self._check_recipe(self._recipe)
        return self._recipe

    def _prepare(self, recipe: Recipe | None, *feeds: Feed) -> None:
        """Rehearses with the first samples, and builds what is not built."""
        axes = _building.prepare(self, recipe, *[feed.first for feed in feeds])
        self.sample_shape = tuple(feeds[0].first.x.shape[1:])
        if recipe is not None:
            recipe.rehearsed.update(self._rehearsal(feed.first) for feed in feeds)
        for feed in feeds:
            if not isinstance(feed, LoaderFeed):
                continue
            # The form is of what has been built meanwhile.
            feed.form = self._form() if recipe is None else self._form_for(recipe)
            if recipe is not None:
                feed.check_batch = _building.Rehearsed(self, recipe, feeds[-1].first, axes)

    def _rehearsal(self, samples: Samples) -> tuple[Any, ...]:
        """What a rehearsal with such samples goes by."""
        return (*_building.axes_of(samples), *map(id, self._modules.values()))

    def _rehearsed(self, feed: Feed) -> Chosen:
        """Rehearses what predict needs, unless nothing has changed since, and chooses the engine
        for it."""
        shape = tuple(feed.first.x.shape[1:])
        chosen = recall(self, self._recipe, shape) if self.sample_shape == shape else None
        if chosen is None:
            self._prepare(None, feed)
            chosen = remember(self, self._recipe, shape)
        return chosen

    def _settled(
        self,
        optimizer: Any,
        loss: Any,
        metrics: Any,
        engine: str,
        weighted_metrics: Any,
        loss_weights: Any,
    ) -> Recipe:
        """What compile settles, for one output or for several."""
        outputs = self._names_of_outputs(loss)
        if len(outputs) > 1:
            return settle_several(
                outputs, optimizer, loss, metrics, engine, weighted_metrics, loss_weights
            )
        _check_weight(_of_one("loss_weights", loss_weights, outputs))
        if isinstance(loss, (list, tuple, dict)):
            loss = _of_one("loss", loss, outputs)
        metrics = _metrics_of_one("metrics", metrics, outputs)
        weighted_metrics = _metrics_of_one("weighted_metrics", weighted_metrics, outputs)
        return settle(optimizer, loss, metrics, engine, weighted_metrics)

    def _names_of_outputs(self, loss: Any) -> list[str]:
        """What compile's dicts call the outputs; none if nobody knows yet."""
        if self._graph is not None:
            return self.output_names
        if not self._is_open():
            return _names.of(self.layers)[-1:]
        if isinstance(loss, dict):
            return list(loss)
        return _numbered(len(loss)) if isinstance(loss, (list, tuple)) else []

    def _is_open(self) -> bool:
        """Whether only the forward of the model's class knows what it takes and returns."""
        return self._graph is None and not isinstance(self, nn.Sequential)

    def _feed(
        self,
        recipe: Recipe,
        batch_size: int,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        origin: str = "",
    ) -> Feed:
        """x, y and weights, checked for this model and its loss."""
        form, check_targets = self._form_for(recipe), recipe.loss.check_targets
        return _batches.feed(
            form, batch_size, x, y, sample_weight, class_weight, check_targets, origin
        )

    def _validation(
        self,
        recipe: Recipe,
        feed: Feed,
        validation_split: float,
        validation_data: Any,
        batch_size: int,
    ) -> tuple[Feed, Feed | None]:
        """What to train on and what to validate on."""
        validation_split = _checks.fraction("validation_split", validation_split)
        if _batches.gives_batches(validation_data):
            validation_data = (validation_data,)
        elif validation_data is not None and not _is_pair(validation_data):
            raise ValueError(
                "validation_data must be (x, y), (x, y, sample_weight) or what gives batches, "
                f"got {type(validation_data).__name__}"
            )
        if validation_data is not None:
            x, y, sample_weight = (*validation_data, None, None)[:3]
            origin = " of validation_data"
            return feed, self._feed(recipe, batch_size, x, y, sample_weight, None, origin)
        return feed.split(validation_split, batch_size) if validation_split else (feed, None)

    def _on_batch(
        self,
        function: Callable[[nn.Module, Recipe, Samples], dict[str, float]],
        x: Any,
        y: Any,
        sample_weight: Any,
        class_weight: Any,
        return_dict: bool,
    ) -> Any:
        """Runs a function on all of x as one batch."""
        recipe = self._compiled(function.__name__)
        return_dict = _checks.truth("return_dict", return_dict)
        form = self._form_for(recipe)
        _building.check_device(form)
        samples = _data.samples(form, x, y, sample_weight, class_weight)
        if samples.y is None:
            raise ValueError("y must be given, got None")
        recipe.loss.check_targets(samples.y)
        # A function of one's own may need more samples than the one of a rehearsal.
        is_own = isinstance(recipe.loss, FunctionLoss)
        is_new = not is_own and self._rehearsal(samples) not in recipe.rehearsed
        if is_new or recipe.loss.takes_labels or not _building.is_built(self):
            self._prepare(recipe, ArrayFeed(samples, len(samples)))
        self.sample_shape = tuple(samples.x.shape[1:])
        return _reported(function(self, recipe, samples), return_dict)


def _numbered(count: int) -> list[str]:
    """What outputs are called that have no names."""
    return [f"output_{i + 1}" for i in range(count)]


def _of_one(name: str, value: Any, outputs: Sequence[str]) -> Any:
    """What an argument says of the only output, from a list or a dict; None if it says nothing.

    Args:
        name: What messages call the argument.
        value: The argument.
        outputs: The output's name; nothing if nobody knows it yet.
    """
    if not outputs:
        outputs = list(value)[:1] if isinstance(value, Mapping) else _numbered(1)
    return of_each(name, value, outputs or _numbered(1), may_lack=name != "loss")[0]


def _metrics_of_one(name: str, value: Any, outputs: Sequence[str]) -> Any:
    """The metrics of the only output: as they are, or by its name, or in a list of its list."""
    many = (list, tuple)
    is_nested = isinstance(value, many) and any(isinstance(each, many) for each in value)
    return _of_one(name, value, outputs) if is_nested or isinstance(value, Mapping) else value


def _check_weight(value: Any) -> None:
    """Raises ValueError if the loss of the only output is to count other than once."""
    if value is not None and _checks.number("loss_weights", value) != 1:
        raise ValueError(
            f"loss_weights of a model with one output must be 1, got {value!r}: change the "
            "learning rate or the loss instead"
        )


def _batch_size(value: Any, default: int = 32, name: str = "batch_size") -> int:
    return default if value is None else _checks.positive_int(name, value)


def _steps(name: str, value: Any) -> int | None:
    return None if value is None else _checks.positive_int(name, value)


def _frequency(value: Any) -> int | set[int]:
    """Every so many epochs, or the numbers of some."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return {_checks.positive_int("validation_freq", each) for each in value}
    return _checks.positive_int("validation_freq", value)


def _refuse(unknown: dict[str, Any]) -> None:
    """Raises TypeError for arguments that compile does not take."""
    if TORCH_COMPILE_ARGUMENTS & unknown.keys():
        raise TypeError(
            f"compile got {', '.join(unknown)}, of PyTorch's compiler: that is "
            "torch.compile(model, ...); model.compile takes optimizer, loss and metrics"
        )
    if unknown:
        raise TypeError(
            f"compile got unknown {', '.join(unknown)}; it takes optimizer, loss and metrics"
        )


def _check_steps(model: nn.Module) -> None:
    """Raises TypeError if a class says how to take a step, as Keras's may."""
    own = {**vars(model), **model._modules}
    for name in STEPS:
        if callable(getattr(type(model), name, own.get(name))):
            raise TypeError(
                f"{name} of {type(model).__name__} would never be called: fit, evaluate and "
                "predict go by the loss, the optimizer and the metrics of compile alone. Write a "
                "loop of your own, with tf.GradientTape, PyTorch or train_on_batch, under another "
                f"name than {name}; a loss may be a function of (y_true, y_pred)"
            )


def _warn_of_the_end(model: nn.Module, loss: Loss) -> None:
    """Warns of a last activation that makes a constant, or does not go with the loss."""
    *rest, last = [nn.Identity(), *_chain(model)]
    before = None if isinstance(last, Dense) or not rest else _activation(rest[-1])
    if message := _misfit(_activation(last), before, _units(model), loss):
        _warnings.warn(message)


def _misfit(end: str | None, before: str | None, units: int | None, loss: Loss) -> str | None:
    """What is wrong with a last activation, the one before it, and the number of outputs."""
    kind = loss.function if isinstance(loss, TorchLoss) else loss
    called = type(kind).__name__
    if end == "softmax" and units == 1:
        return (
            "the model ends in a softmax over one output, which is always 1: make it a sigmoid, "
            "or give each class an output"
        )
    if end == before == "softmax":
        return "the model ends in a softmax of a softmax: leave one of them out"
    if end in ("sigmoid", "softmax") and (wanted := _wants(loss)):
        return (
            f"{wanted[0]} takes its input for {wanted[1]}, but the model ends in a {end}: "
            f"{wanted[2]}"
        )
    if end == "softmax" and isinstance(kind, BINARY):
        return (
            f"{called} takes every output by itself, but the model ends in a softmax, whose "
            "outputs sum to 1: make the loss categorical_crossentropy, or "
            "sparse_categorical_crossentropy for class numbers, or the last activation a sigmoid"
        )
    if isinstance(kind, OF_CLASSES) and (end == "sigmoid" or units == 1):
        ending = "ends in a sigmoid" if end == "sigmoid" else "has one output"
        return (
            f"{called} compares classes, each with an output of its own, but the model {ending}: "
            "make the last activation a softmax over the classes, or the loss binary_crossentropy"
        )
    return None


def _wants(loss: Loss) -> tuple[str, str, str] | None:
    """What a loss is called, what it wants other than probabilities, and what to do about it."""
    linear = "make the last activation linear"
    if isinstance(loss, TorchLoss) and isinstance(loss.function, nn.NLLLoss):
        return "NLLLoss", "logarithms of probabilities", "make the last activation log_softmax"
    if not loss.from_logits:
        return None
    if isinstance(loss, TorchLoss):
        return type(loss.function).__name__, "logits", linear
    called = f"{type(loss).__name__}(from_logits=True)"
    return called, "logits", f"leave out from_logits=True, or {linear}"


def _chain(model: nn.Module) -> list[nn.Module]:
    """The modules that a model calls one after the other, as far as that is known."""
    if isinstance(model, Network) and model._chain is not None:
        return [module for layer in model._chain for module in _chain(layer)]
    if not isinstance(model, nn.Sequential) or type(model).forward is not nn.Sequential.forward:
        return [model]
    return [module for layer in model for module in _chain(layer)]


def _activation(module: nn.Module) -> str | None:
    """The name of a module's activation, or None."""
    if isinstance(module, nn.Softmax):
        return "softmax"
    if isinstance(module, (Dense, Activation)):
        return activations.name_of(module.activation)
    return activations.name_of(module)


def _units(model: nn.Module) -> int | None:
    """How many outputs a model has, if its last layer of weights tells."""
    for module in reversed(_chain(model)):
        units = getattr(module, "units", getattr(module, "out_features", None))
        if units is not None or _activation(module) is None:
            return units
    return None


def _is_pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) in (2, 3)


def _reported(logs: dict[str, float], return_dict: bool) -> Any:
    """The loss, [loss, *metrics], or all by their names."""
    values = list(logs.values())
    return logs if return_dict else values if len(values) > 1 else values[0]


def _arrays(output: Any) -> Any:
    """A numpy array, or several in a list or a dict."""
    return output.map(_array).given if isinstance(output, Parts) else _array(output)


def _array(tensor: Tensor) -> Array:
    """A numpy array; bfloat16, which numpy lacks, becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
