"""Files for TensorBoard."""

import os
from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from torch import Tensor, nn

from torchnn import _checks
from torchnn.callbacks._base import Callback, Logs
from torchnn.layers import _names
from torchnn.layers._graph import has_graph
from torchnn.layers._variables import Variable, variables


class TensorBoard(Callback):
    """Writes what is logged for TensorBoard, through torch.utils.tensorboard.

    model.fit(x, y, epochs=20, validation_split=0.2, callbacks=[TensorBoard("logs")])
    tensorboard --logdir logs

    The folder gets Keras's two, train and validation, with Keras's names: epoch_loss and the like,
    and epoch_learning_rate, by the epoch, the first being 0; batch_loss by the batch, the first
    being 1; and evaluation_loss_vs_iterations. It needs the package tensorboard, which comes with
    `pip install torchnn-fused[tensorboard]`.

    Args:
        log_dir: The folder.
        histogram_freq: Write histograms of the weights after every so many epochs, from the first
            on; 0 for none.
        write_graph: Whether to show the layers of a Sequential, or of a Model(inputs, outputs).
        write_images: Whether to show weights also as images, when their histograms are written.
        write_steps_per_second: Whether to write the number of steps a second.
        update_freq: "epoch"; or a number, to write means of the epoch so far after every so many
            batches, too; "batch" is 1. Then fit takes its steps one by one.
        profile_batch: 0: profiles are the business of torch.profiler.
        embeddings_freq: 0: there are no layers of embeddings.
        embeddings_metadata: None.

    Raises:
        TypeError, ValueError: An argument is wrong.
        ImportError: The package tensorboard is missing.
        OSError: When fit begins, the folder cannot be made.
    """

    model_access = "read"

    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: int | str = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
    ):
        if not isinstance(log_dir, (str, os.PathLike)):
            raise TypeError(f"log_dir must be a path, got {log_dir!r}")
        self.log_dir = os.fspath(log_dir)
        self.histogram_freq = _checks.non_negative_int("histogram_freq", histogram_freq)
        self.write_graph = _checks.truth("write_graph", write_graph)
        self.write_images = _checks.truth("write_images", write_images)
        self.write_steps_per_second = _checks.truth(
            "write_steps_per_second", write_steps_per_second
        )
        self.update_freq = _frequency(update_freq)
        if profile_batch:
            raise ValueError(
                f"profile_batch must be 0, got {profile_batch!r}: torch.profiler has a "
                "tensorboard_trace_handler, which writes what TensorBoard shows"
            )
        if embeddings_freq or embeddings_metadata is not None:
            raise ValueError("embeddings_freq must be 0: there are no layers of embeddings")
        _package()
        self._writers: dict[str, Any] = {}
        self._batches = 0  # of the fit
        self._is_in_fit = False
        self._listen_to_batches()

    def _listen_to_batches(self) -> None:
        """A hook that is there costs time with every batch or epoch."""
        hooks: dict[str, Any] = {}
        if self.write_steps_per_second:
            hooks["on_epoch_begin"] = self._begin_epoch
        if self.update_freq != "epoch":
            hooks["on_train_batch_end"] = self._end_batch
            if self.write_steps_per_second:
                hooks["on_train_batch_begin"] = self._begin_batch
        for name, hook in hooks.items():
            setattr(self, name, hook)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_writers": {}}

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self._batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._batches = state["batches"]

    def on_train_begin(self, logs: Logs = None) -> None:
        self._close()
        os.makedirs(Path(self.log_dir, "train"), exist_ok=True)
        self._batches, self._is_in_fit = 0, True

    def on_train_end(self, logs: Logs = None) -> None:
        self._is_in_fit = False
        self._close()

    def _begin_epoch(self, epoch: int, logs: Logs = None) -> None:
        self._begun = self.model.optimizer.iterations, perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        logs = logs or {}
        measured = {name: value for name, value in logs.items() if name.startswith("val_")}
        trained = {name: value for name, value in logs.items() if name not in measured}
        trained["learning_rate"] = self.model.optimizer.current_learning_rate()
        if self.write_steps_per_second:
            steps, seconds = self._begun
            steps = self.model.optimizer.iterations - steps
            trained["steps_per_second"] = steps / (perf_counter() - seconds)
        self._scalars("train", "epoch_{}", trained, epoch)
        measured = {name.removeprefix("val_"): value for name, value in measured.items()}
        self._scalars("validation", "epoch_{}", measured, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._weights(epoch)

    def on_test_end(self, logs: Logs = None) -> None:
        steps = self.model.optimizer.iterations
        self._scalars("validation", "evaluation_{}_vs_iterations", logs or {}, steps)
        if not self._is_in_fit:
            self._close()

    def _begin_batch(self, batch: int, logs: Logs = None) -> None:
        self._batch_begun = perf_counter()

    def _end_batch(self, batch: int, logs: Logs = None) -> None:
        self._batches += 1
        if self._batches % int(self.update_freq) == 0:
            logs = {**(logs or {})}
            if self.write_steps_per_second:
                logs["steps_per_second"] = 1 / (perf_counter() - self._batch_begun)
            self._scalars("train", "batch_{}", logs, self._batches)

    def _scalars(self, folder: str, tag: str, logs: Mapping[str, Any], step: int) -> None:
        for name, value in logs.items():
            if isinstance(value, (Real, Tensor, np.ndarray)):  # whatever else callbacks may log
                self._writer(folder).add_scalar(tag.format(name), float(value), step)

    def _weights(self, epoch: int) -> None:
        writer = self._writer("train")
        for path, weight in _named_weights(self.model):
            values = weight.numpy()
            finite = values[np.isfinite(values)]
            if finite.size:  # there are no histograms of nothing
                writer.add_histogram(f"{path}/histogram", finite, epoch)
            if self.write_images and (image := _image(values)) is not None:
                writer.add_image(f"{path}/image", image, epoch, dataformats="HW")
        writer.flush()

    def _writer(self, folder: str) -> Any:
        """That of a folder, opened when there is something to write."""
        if folder not in self._writers:
            writer = _package().SummaryWriter(os.path.join(self.log_dir, folder))
            self._writers[folder] = writer
            if folder == "train" and self.write_graph:
                _write_graph(writer, self.model)
        return self._writers[folder]

    def _close(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()


def _package() -> Any:
    try:
        from torch.utils import tensorboard
    except ImportError as error:
        raise ImportError(
            "TensorBoard needs the package tensorboard: pip install torchnn-fused[tensorboard]"
        ) from error
    return tensorboard


def _frequency(value: Any) -> int | str:
    if isinstance(value, str) and value in ("epoch", "batch"):
        return 1 if value == "batch" else value
    if isinstance(value, str):
        raise ValueError(
            f'update_freq must be "epoch", "batch" or a positive integer, got {value!r}'
        )
    return _checks.positive_int("update_freq", value)


def _named_weights(model: Any) -> Iterator[tuple[str, Variable]]:
    """Yields paths such as "sequential/dense/kernel", and the weights."""
    for name, layer in zip(_names.of(model.layers), model.layers, strict=True):
        for weight in variables(layer):
            yield f"{model.name}/{name}/{weight.path.removeprefix(f'{name}/')}", weight


def _image(values: Any) -> Any:
    """Weights as Keras shows them, a row or lying down; None for those of more axes."""
    values = np.squeeze(values)
    if values.ndim == 2 and values.shape[0] > values.shape[1]:
        values = values.T
    return np.atleast_2d(values) if values.ndim in (1, 2) else None


def _write_graph(writer: Any, model: Any) -> None:
    """Shows the layers of a model, where it is known what each is called on."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.node_def_pb2 import NodeDef

    nodes = [NodeDef(name=name, op=kind, input=before) for name, kind, before in _nodes(model)]
    if nodes:
        writer.file_writer.add_event(Event(graph_def=GraphDef(node=nodes).SerializeToString()))


def _nodes(model: Any) -> Iterator[tuple[str, str, list[str]]]:
    """Yields the name and the kind of each layer, and the names of those that it is called on."""
    layers = model.layers
    names = [f"{model.name}/{name}" for name in _names.of(layers)]
    for number, layer in enumerate(layers):
        if has_graph(model):
            before = model._graph.sources(number)
        elif isinstance(model, nn.Sequential):
            before = [number - 1] if number else []
        else:
            return
        yield names[number], type(layer).__name__, [names[each] for each in before]
