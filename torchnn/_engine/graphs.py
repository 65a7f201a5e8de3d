"""Many steps a replay of a CUDA graph, for networks on CUDA that train layer by layer.

A step of such a network is some 20 kernels, each of which the host may take longer to launch than
the GPU to run. A graph that is recorded once launches those of many steps together.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from torchnn import _warnings, ops
from torchnn._engine.run import Batches
from torchnn.ops._network import only_by_layers, run
from torchnn.ops._transfer import float64, to_device
from torchnn.ops.reference import Results, Training

STEPS = 32  # a graph
UNRECORDED = 2  # times that a part is trained as it is, before a graph of it is worth while

# What is new with each replay, or tells graphs from each other.
READ_ANEW = ("order", "epoch_size", "learning_rates", "steps_before", "steps_done")

_recording = threading.Lock()  # a process may record one graph at a time

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

    def train_(self, *arguments: Any, **named: Any) -> Results:
        """Does what ops.train_ does with the same arguments, of which order is not None."""
        return self.train(Training(*arguments, **named))

    def train(self, job: Training) -> Results:
        """The same, for arguments that are there already."""
        if not self._is_recorded(job):
            return run(job)
        self._forget_if_new(job)
        results = [self._train_part(part) for part in _parts(job)]
        if len(results) == 1:
            return results[0]
        losses, predictions = zip(*results, strict=True)
        return torch.cat(losses), torch.cat(predictions)

    def _is_recorded(self, job: Training) -> bool:
        """Whether the network trains layer by layer, and nobody else is recording."""
        if self._record is not None or not job.samples:
            return job.samples > 0
        if not job.x.is_cuda or torch.cuda.is_current_stream_capturing():
            return False
        if only_by_layers(job.activations, job.regularization, job.options, job.input_dropout):
            return job.weights[0].ndim == 2
        widths = job.weights[0].shape[1], *(weight.shape[0] for weight in job.weights)
        batch_size = min(job.batch_size, job.epoch_size, max(len(job.x), job.samples))
        return _trains_by_layers(widths, job.x.dtype, batch_size, job.x.device)

    def _forget_if_new(self, job: Training) -> None:
        """Drops all graphs if anything that they have as it was is no longer so."""
        found = _in_place(job), torch.backends.cuda.matmul.fp32_precision
        if found != self._as_recorded:
            self._as_recorded, self._seen, self._graphs = found, {}, {}

    def _train_part(self, job: Training) -> Results:
        """Trains a part of a run: as it is, or by a graph once there have been some of its kind."""
        kind = job.samples, job.epoch_size
        self._seen[kind] = self._seen.get(kind, 0) + 1
        with torch.cuda.device_of(job.order):
            if self._seen[kind] > UNRECORDED and kind not in self._graphs and self._can_record:
                self._record_part(kind, job)
            if kind in self._graphs:
                return self._graphs[kind].train(job)
            return run(job)

    def _record_part(self, kind: tuple[int, int], job: Training) -> None:
        """Makes a graph, or says why there is none."""
        try:
            self._graphs[kind] = _Graph(self._record or record, job)
        except RuntimeError as error:
            self._can_record = False
            _warnings.warn(
                "training goes on, more slowly, without a CUDA graph, which could not be "
                f"recorded: {error}",
                RuntimeWarning,
            )


@cache  # asking takes as long as a launch
def _trains_by_layers(
    widths: tuple[int, ...], dtype: torch.dtype, batch_size: int, device: torch.device
) -> bool:
    """Whether a device has too little shared memory for a network, or one that is better used."""
    return not ops.cuda_plan(widths, dtype, batch_size, *ops.cuda_limits(device)).rows


class _Graph:
    """Some steps, recorded, with memory of their own for what they read anew."""

    def __init__(self, record: Recorder, job: Any) -> None:
        self._order = job.order.clone()
        self._rates = job.learning_rates.clone()
        self._before = torch.zeros_like(self._order[:1])
        recorded = replace(
            job,
            order=self._order,
            learning_rates=self._rates,
            steps_before=self._before,
            steps_done=torch.zeros(1, dtype=torch.int64, device="cpu"),
        )
        self._replay, self._results = record(lambda: run(recorded))

    def train(self, job: Any) -> Results:
        self._order.copy_(job.order)
        self._rates.copy_(job.learning_rates)
        self._before.fill_(job.steps_before)
        self._replay()
        ops.mark_changed(job.weights, job.biases, *job.slots)
        job.steps_done += len(self._rates)
        losses, predictions = self._results
        return losses.clone(), predictions.clone() if len(predictions) else predictions


def cut(samples: int, epoch_size: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Yields (start, stop) of the parts of a run, most of which have as many steps as a graph.

    A part is some whole epochs, if these are so short, and else some batches of one epoch. What is
    left in the end is halved and halved again, so that few graphs make up a run of any length.
    """
    steps = Batches(epoch_size, epoch_size, batch_size).count
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


def _parts(job: Any) -> Iterator[Training]:
    """Yields each part of a run, with the learning rates on the device."""
    order = job.order
    rates = to_device(float64(job.learning_rates), order.device)
    before = 0
    for start, stop in cut(len(order), job.epoch_size, job.batch_size):
        after = before + Batches(stop - start, job.epoch_size, job.batch_size).count
        yield replace(
            job,
            order=order[start:stop],
            learning_rates=rates[before:after],
            steps_before=job.steps_before + before,
        )
        before = after


def _in_place(job: Training) -> list[Any]:
    """What a graph has as it was: settings, and the place, shape and strides of each tensor."""
    return [_place(value) for name, value in vars(job).items() if name not in READ_ANEW]


def _place(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.data_ptr(), value.dtype, value.shape, value.stride()
    if isinstance(value, (list, tuple)):
        return [_place(each) for each in value]
    return value
