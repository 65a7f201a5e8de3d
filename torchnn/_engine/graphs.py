"""Many steps a replay of a CUDA graph, for networks on CUDA that train layer by layer.

A step of such a network is some 20 kernels, each of which the host may take longer to launch than
the GPU to run. A graph that is recorded once launches those of many steps together.
"""

import threading
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from torchnn import ops
from torchnn.ops._transfer import to_device

STEPS = 32  # a graph
UNRECORDED = 2  # times that a part is trained as it is, before a graph of it is worth while

# What a graph reads anew in each replay, or counts. The rest is as it was when it was recorded.
READ_ANEW = ("order", "learning_rates", "steps_before", "steps_done")
SETTINGS = ("batch_size", "loss", "update", "options", "activations", "keep_predictions")

_recording = threading.Lock()  # a process may record one graph at a time

Arguments = dict[str, Any]  # of ops.train_
Results = tuple[Tensor, Tensor]
Recorder = Callable[[Callable[[], Results]], tuple[Callable[[], None], Results]]


def record(function: Callable[[], Results]) -> tuple[Callable[[], None], Results]:
    """Returns what repeats the function's work on the GPU, and where its results will then be."""
    graph = torch.cuda.CUDAGraph()
    # The current stream is set here, too, so that it comes back even if nothing can be recorded.
    with (
        _recording,
        torch.cuda.stream(torch.cuda.current_stream()),
        torch.cuda.graph(
            graph,
            stream=_recording_stream(torch.cuda.current_device()),
            capture_error_mode="thread_local",
        ),
    ):
        results = function()
    return graph.replay, results


@cache
def _recording_stream(device: int) -> torch.cuda.Stream:
    """PyTorch's own is of one device only."""
    return torch.cuda.Stream(device)


class Trainer:
    """Calls `ops.train_` again and again for one network, in replays if that is layer by layer.

    Args:
        record: For tests without a GPU, which then record every network.
    """

    def __init__(self, record: Recorder | None = None) -> None:
        self._record, self._can_record = record, True
        self._as_recorded: Any = None
        self._seen: dict[tuple[int, int], int] = {}
        self._graphs: dict[tuple[int, int], _Graph] = {}

    def train_(self, **arguments: Any) -> Results:
        """Does what ops.train_ does with the same arguments, of which order is not None."""
        if not self._is_recorded(arguments):
            return ops.train_(**arguments)
        self._forget_if_new(arguments)
        results = [self._train_part(part) for part in _parts(arguments)]
        if len(results) == 1:
            return results[0]
        losses, predictions = zip(*results, strict=True)
        return torch.cat(losses), torch.cat(predictions)

    def _is_recorded(self, arguments: Arguments) -> bool:
        """Whether the network trains layer by layer, and nobody else is recording."""
        x, weights, samples = arguments["x"], arguments["weights"], len(arguments["order"])
        if self._record is not None or not samples:
            return samples > 0
        if not x.is_cuda or torch.cuda.is_current_stream_capturing():
            return False
        widths = weights[0].shape[1], *(weight.shape[0] for weight in weights)
        batch_size = min(arguments["batch_size"], arguments["epoch_size"], samples)
        return _trains_by_layers(widths, x.dtype, batch_size, x.device)

    def _forget_if_new(self, arguments: Arguments) -> None:
        """Drops all graphs if anything that they have as it was is no longer so."""
        found = _in_place(arguments), torch.backends.cuda.matmul.fp32_precision
        if found != self._as_recorded:
            self._as_recorded, self._seen, self._graphs = found, {}, {}

    def _train_part(self, arguments: Arguments) -> Results:
        """Trains a part of a run: as it is, or by a graph once there have been some of its kind."""
        kind = len(arguments["order"]), arguments["epoch_size"]
        self._seen[kind] = self._seen.get(kind, 0) + 1
        with torch.cuda.device_of(arguments["order"]):
            if self._seen[kind] > UNRECORDED and kind not in self._graphs and self._can_record:
                self._record_part(kind, arguments)
            if kind in self._graphs:
                return self._graphs[kind].train_(arguments)
            return ops.train_(**arguments)

    def _record_part(self, kind: tuple[int, int], arguments: Arguments) -> None:
        """Makes a graph, or says why there is none."""
        try:
            self._graphs[kind] = _Graph(self._record or record, arguments)
        except RuntimeError as error:
            self._can_record = False
            warnings.warn(
                "training goes on, more slowly, without a CUDA graph, which could not be "
                f"recorded: {error}",
                RuntimeWarning,
                stacklevel=2,
            )


@cache  # asking takes as long as a launch
def _trains_by_layers(
    widths: tuple[int, ...], dtype: torch.dtype, batch_size: int, device: torch.device
) -> bool:
    """Whether a device has too little shared memory for a network, or one that is better used."""
    return not ops.cuda_plan(widths, dtype, batch_size, *ops.cuda_limits(device)).rows


class _Graph:
    """Some steps, recorded, with memory of their own for what they read anew."""

    def __init__(self, record: Recorder, arguments: Arguments) -> None:
        self._order = arguments["order"].clone()
        self._rates = arguments["learning_rates"].clone()
        self._before = torch.zeros_like(self._order[:1])
        own = (self._order, self._rates, self._before, torch.zeros(1, dtype=torch.int64))
        recorded = arguments | dict(zip(READ_ANEW, own, strict=True))
        self._replay, self._results = record(lambda: ops.train_(**recorded))

    def train_(self, arguments: Arguments) -> Results:
        self._order.copy_(arguments["order"])
        self._rates.copy_(arguments["learning_rates"])
        self._before.fill_(arguments["steps_before"])
        self._replay()
        ops.mark_changed(arguments["weights"], arguments["biases"], *arguments["slots"])
        arguments["steps_done"] += len(self._rates)
        losses, predictions = self._results
        return losses.clone(), predictions.clone() if len(predictions) else predictions


def count_steps(samples: int, epoch_size: int, batch_size: int) -> int:
    """Returns how many steps so many samples take: a batch ends where its epoch does."""
    epochs, rest = divmod(samples, epoch_size)
    return epochs * -(-epoch_size // batch_size) + -(-rest // batch_size)


def cut(samples: int, epoch_size: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Yields (start, stop) of the parts of a run, most of which have as many steps as a graph.

    A part is some whole epochs, if these are so short, and else some batches of one epoch. What is
    left in the end is halved and halved again, so that few graphs make up a run of any length.
    """
    steps = count_steps(epoch_size, epoch_size, batch_size)
    is_short = steps <= STEPS
    unit, most = (epoch_size, STEPS // steps) if is_short else (batch_size, STEPS)
    whole = samples if is_short else epoch_size
    for begin in range(0, samples, whole):
        start, end, size = begin, min(begin + whole, samples), most
        while start < end:
            while size > 1 and start + (size - 1) * unit >= end:
                size //= 2
            stop = min(start + size * unit, end)
            yield start, stop
            start = stop


def _parts(arguments: Arguments) -> Iterator[Arguments]:
    """Yields the arguments for each part of a run, with the learning rates on the device."""
    order, epoch_size = arguments["order"], arguments["epoch_size"]
    rates = torch.as_tensor(arguments["learning_rates"], dtype=torch.float64)
    rates = to_device(rates, order.device)
    before = 0
    for start, stop in cut(len(order), epoch_size, arguments["batch_size"]):
        size = min(epoch_size, stop - start)
        after = before + count_steps(stop - start, size, arguments["batch_size"])
        yield arguments | {
            "order": order[start:stop],
            "epoch_size": size,
            "learning_rates": rates[before:after],
            "steps_before": arguments["steps_before"] + before,
        }
        before = after


def _in_place(arguments: Arguments) -> list[Any]:
    """What a graph has as it was: settings, and the place, shape and strides of each tensor."""
    settings = [arguments[name] for name in SETTINGS]
    tensors = [
        *(arguments[name] for name in ("x", "y", "sample_weight")),
        *(tensor for name in ("weights", "biases") for tensor in arguments[name]),
        *(tensor for slot in arguments["slots"] for tensor in slot),
    ]
    return settings + [
        None if t is None else (t.data_ptr(), t.dtype, t.shape, t.stride()) for t in tensors
    ]
