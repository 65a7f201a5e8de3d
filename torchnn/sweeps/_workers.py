"""Chunks handed out: trained one after another in this process, or by joblib's workers.

joblib takes part if n_jobs asks for it, or if the program has entered a joblib.parallel_config,
which names the engine: processes of this machine, a dask or a ray cluster.
"""

import pickle
import sys
import traceback
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchnn import _checks, _warnings
from torchnn.sweeps._chunks import Chunk, Data, Network, Outcome, train
from torchnn.sweeps._making import Maker

MOST = 1024  # networks in a chunk
LANES = 16  # networks that the CPU trains side by side
A_WORKER = 4  # chunks, so that none waits long for the last one
TRIES = 3  # in a row that bring nothing


@dataclass(frozen=True)
class Failed:
    """An error of the work itself, not of who does it: it would come again.

    Attributes:
        error: What was raised.
        told: Its traceback.
    """

    error: Exception
    told: str


class RemoteError(Exception):
    """Tells the traceback of an error in a worker."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class Workers:
    """Who trains chunks.

    Attributes:
        count: How many workers there are; 0 for this process.
        n_jobs: What joblib is told; None for what the program has entered.
        use_gpus: Whether the networks are on GPUs, of which a machine may have several.
    """

    count: int
    n_jobs: int | None
    use_gpus: bool = False

    def cut(self, networks: Sequence[Network], size: int | None) -> list[Sequence[Network]]:
        """Returns the networks in chunks of a size; None to choose it."""
        if size is None and self.count:
            chunks = self.count * (1 if self.use_gpus else A_WORKER)  # many networks fill a GPU
            lanes = -(-len(networks) // (chunks * LANES))
            size = min(MOST, lanes * LANES)
        size = size or MOST
        return [networks[i : i + size] for i in range(0, len(networks), size)]

    def train(
        self, maker: Maker, data: Data, chunks: Sequence[Chunk], verbose: Any
    ) -> Iterator[tuple[Chunk, list[Outcome]]]:
        """Yields each chunk with what came of it, as they are finished.

        Raises:
            RuntimeError: Workers were lost again and again, and no chunk was finished in between.
        """
        if not self.count:
            for chunk in chunks:
                yield chunk, train(maker, data, chunk, verbose)
            return
        left, tries = dict(enumerate(chunks)), 0
        while left:
            before, lost = len(left), None
            with closing(self._round(maker, data, left)) as results:
                while left and lost is None:
                    try:
                        number, result = next(results)
                    except Exception as error:  # the engine's own: a worker was killed, or the like
                        lost = error
                        continue
                    if isinstance(result, Failed):
                        raise result.error from RemoteError(result.told)
                    yield left.pop(number), result
            if lost is None:
                return
            tries = tries + 1 if len(left) == before else 0
            told = f"{len(left)} of {len(chunks)} chunks of the sweep"
            if tries == TRIES:
                raise RuntimeError(f"{told} were lost {TRIES} times in a row") from lost
            reason = next(iter(str(lost).splitlines()), "")
            _warnings.warn(f"{told} are trained again: {type(lost).__name__}: {reason}")

    def _round(
        self, maker: Maker, data: Data, chunks: dict[int, Chunk]
    ) -> Generator[tuple[int, list[Outcome] | Failed], None, None]:
        """Hands out all chunks, and yields what comes back."""
        import joblib  # type: ignore[import-untyped, unused-ignore]

        backend, _ = joblib.parallel.get_active_backend()
        is_streamed = backend.supports_return_generator
        kind = "generator_unordered" if is_streamed else "list"
        parallel = joblib.Parallel(n_jobs=self.n_jobs, return_as=kind, batch_size=1)
        arrays = [_portable(each) for each in (data.x, data.y, data.sample_weight)]
        arrays += map(_portable, data.validation_data or ())
        rest = replace(data, x=None, y=None, sample_weight=None, validation_data=None)
        calls = [
            joblib.delayed(_train_far)(self, number, maker, rest, chunk, *arrays)
            for number, chunk in list(chunks.items())
        ]
        # Where nothing comes back before all has, less is handed out at a time.
        size = len(calls) if is_streamed else self.count
        for first in range(0, len(calls), size):
            results = parallel(calls[first : first + size])
            try:
                for each in results:  # noqa: UP028 (which would close them, with a warning)
                    yield each
            finally:
                _close(results)


def _close(results: Any) -> None:
    """Ends what joblib is at, after an error or Ctrl-C: it would warn that work was in vain."""
    if hasattr(results, "close"):  # and is no list
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.close()


def find(n_jobs: int | None) -> Workers:
    """Returns who trains: workers if n_jobs asks for them, or if the program has entered a
    joblib.parallel_config; else this process. No networks are on GPUs, as far as is known.

    Raises:
        TypeError, ValueError: n_jobs is no integer, or 0.
        ModuleNotFoundError: There is no joblib.
    """
    if n_jobs is not None and _checks.integer("n_jobs", n_jobs) == 0:
        raise ValueError("n_jobs must be a number of processes, or -1 for one a core, got 0")
    if n_jobs is None and "joblib" not in sys.modules:
        return Workers(0, None)
    try:
        import joblib  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("n_jobs needs joblib: pip install joblib") from error
    backend, _ = joblib.parallel.get_active_backend()
    count = joblib.effective_n_jobs(n_jobs)
    is_here = type(backend).__module__.startswith("joblib._parallel_backends")
    return Workers(0 if is_here and count == 1 else count, n_jobs)


def _train_far(
    workers: Workers, number: int, maker: Maker, data: Data, chunk: Chunk, *arrays: Any
) -> tuple[int, list[Outcome] | Failed]:
    """Trains a chunk in a worker.

    Args:
        workers: All of them. If there are others, one thread has to do.
        number: Which chunk it is.
        maker: Makes the models.
        data: All but the arrays.
        chunk: The networks.
        arrays: x, y, the weights and those of the validation data: each an argument of its own, as
            engines share large arrays among calls.
    """
    x, y, weight, *validation = arrays
    data = replace(data, x=x, y=y, sample_weight=weight, validation_data=tuple(validation) or None)
    threads = torch.get_num_threads()
    try:
        if workers.count > 1:
            torch.set_num_threads(1)
        with _gpu(number) if workers.use_gpus else nullcontext():
            return number, train(maker, data, chunk)
    except Exception as error:
        return number, Failed(_picklable(error), traceback.format_exc())
    finally:
        torch.set_num_threads(threads)


def _gpu(number: int) -> AbstractContextManager[Any]:
    """Lets "cuda" mean one of this machine's GPUs, in turn, as long as it is entered."""
    return torch.cuda.device(number % max(torch.cuda.device_count(), 1))


def _picklable(error: Exception) -> Exception:
    """An error that arrives at the other end."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever pickling somebody's class may raise
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _portable(value: Any) -> Any:
    """A tensor as an array, which engines share without copies where they can."""
    if isinstance(value, Tensor) and value.dtype != torch.bfloat16:
        return value.detach().cpu().numpy()
    return value
