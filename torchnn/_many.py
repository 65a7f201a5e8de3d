"""fit_many: many models trained at once, each as by itself."""

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from torchnn import _checks
from torchnn._console.progress import check_verbose
from torchnn._engine.building import able_to_learn, is_built
from torchnn._engine.interrupts import HeldInterrupt
from torchnn._engine.parts import taken
from torchnn._engine.run import Samples
from torchnn._training.arrays import as_tensor
from torchnn._training.batches import ArrayFeed, gives_batches
from torchnn._training.many import TOGETHER, Many
from torchnn._training.members import Member, Rows, order_seed, own_noise
from torchnn._training.turns import check_free, fitting
from torchnn.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    History,
    ModelCheckpoint,
    TensorBoard,
)
from torchnn.callbacks._base import CallbackList
from torchnn.model import Model

# What writes into files of the name that it has been given, and what has that name.
FILES: dict[type[Callback], str] = {
    BackupAndRestore: "backup_dir",
    CSVLogger: "filename",
    ModelCheckpoint: "filepath",
    TensorBoard: "log_dir",
}


def fit_many(
    models: Sequence[Model],
    x: Any,
    y: Any = None,
    *,
    epochs: int | Sequence[int],
    batch_size: int | Sequence[int] | None = 32,
    rows: Sequence[Any] | None = None,
    validation_rows: Sequence[Any] | None = None,
    validation_data: Any = None,
    sample_weight: Any = None,
    class_weight: Any = None,
    callbacks: Any = None,
    shuffle: bool = True,
    verbose: Any = "auto",
) -> list[History]:
    """Trains many compiled models at once, each as `fit` would train it alone.

    models = [build(learning_rate) for learning_rate in (0.01, 0.03, 0.1, 0.3)]
    histories = torchnn.fit_many(models, x, y, epochs=10)

    Small networks of dense layers train side by side, one in each lane of a register, whatever
    their weights, widths, learning rates, optimizer's numbers, penalties, dropout and rows are;
    what differs in loss, update rule, activations or batch size is trained in other calls. What a
    model comes to there does not depend on which others are trained with it, on how many they are,
    or on the number of threads, to the last bit; it is what `fit` comes to within rounding. What
    these kernels cannot train goes through `fit`, one after the other: `History.engine` tells
    which, and why. What such a model draws there, dropout and noise, does not depend on the others
    either: each begins with PyTorch's generator as the call finds it, its next fit_many goes on
    where it has paused, and the generator does not move by it.

    Args:
        models: Compiled models. No two may share a parameter or an optimizer.
        x: Features, as in fit, of all models; or a list of one such array for each. Several inputs
            or outputs are a dict.
        y: Targets likewise.
        epochs: How many, of all or of each.
        batch_size: Samples a step, of all or of each; 32 if None.
        rows: For each model the numbers of the rows of x that it trains on, such as those of a fold
            or of a bootstrap, shape (samples,), or a mask, (N,); None for all rows.
        validation_rows: The same of those to measure it on after each epoch.
        validation_data: What to measure all models on instead: (x, y) or (x, y, sample_weight); or
            a list of one such tuple for each.
        sample_weight: As in fit, of all models; or a list of one for each.
        class_weight: The same.
        callbacks: One or several, of which each model has copies; or a list of those of each model,
            as they are. One that may change the model between epochs, by its model_access, or comes
            between steps makes its model go through fit.
        shuffle: As in fit.
        verbose: 1 or "auto" shows how many models are done, how fast, and the best loss; 2 when
            all are; 0 nothing.

    Returns:
        Each model's History, with `engine`.

    Raises:
        ValueError, TypeError: An argument is wrong; nothing has been trained then.
        RuntimeError: fit is at work on one of the models.
        KeyboardInterrupt: On Ctrl-C: each model is whole, what it has been trained counts, and its
            next fit goes on from there.
    """
    models = _models(models)
    count, verbose = len(models), check_verbose(verbose)
    shuffle = _checks.truth("shuffle", shuffle)
    sizes = _numbers(
        "batch_size", 32 if batch_size is None else batch_size, count, _checks.positive_int
    )
    spans = _numbers("epochs", epochs, count, _checks.non_negative_int)
    heard = _callbacks(callbacks, count)
    if validation_rows is not None and validation_data is not None:
        raise ValueError("validation_rows and validation_data were both given: pass one of them")
    xs, ys = _arrays("x", x, count, 2), _arrays("y", y, count, 1)
    weights = _arrays("sample_weight", sample_weight, count, 1)
    classes = _each("class_weight", class_weight, count, (list, tuple))
    with ExitStack() as stack:
        for model in models[:1]:  # for all: _models has looked at each
            stack.enter_context(able_to_learn(model))
        read = _Samples()
        given = list(zip(xs, ys, weights, classes, strict=True))
        data = [read(i, models[i], *own) for i, own in enumerate(given)]
        train = _rows("rows", rows, data)
        validation: list[Any] = [None] * count
        if validation_rows is not None:  # classes are weighted to learn alone
            pairs = zip(data, classes, strict=True)
            plain = [own if c is None else read.unweighted(own) for own, c in pairs]
            validation = _rows("validation_rows", validation_rows, plain)
        elif validation_data is not None:
            triples = enumerate(_triples(validation_data, count))
            data = [read(i, models[i], *own, None, " of validation_data") for i, own in triples]
            validation = _rows("validation_data", None, data)
        seeds = [order_seed(model) for model in models]
        members = [
            Member(
                number=i,
                model=model,
                recipe=model._compiled("fit_many"),
                train=train[i],
                validation=validation[i],
                batch_size=sizes[i],
                epochs=spans[i],
                seed=seeds[i] if shuffle else None,
                drops_by=seeds[i],
                callbacks=heard[i],
            )
            for i, model in enumerate(models)
        ]
        return _train(members, verbose)


def _train(members: list[Member], verbose: int) -> list[History]:
    """Trains those together that can be, and the others one after the other."""
    together, alone = _sorted(members)
    for member in alone:
        check_free(member.model)
    with ExitStack() as stack, HeldInterrupt() as interrupt:
        for member in together:
            stack.enter_context(fitting(member.model))
        many = Many(together, interrupt, verbose, len(members))
        with many.progress:
            many.progress.begin(many.label)
            many.run()
            for member in alone:
                many.progress.draw(many.label)
                with own_noise(member.model, member.begun):
                    interrupt.meanwhile(_fit, member)
                many.models_done += 1
            many.progress.end(many.so_far(), many.label)
    return [member.history for member in members]


def _sorted(members: list[Member]) -> tuple[list[Member], list[Member]]:
    """Those that can be trained together, and those that cannot, whose history says why.

    Each model is rehearsed and built as in fit; of models that are alike, one.
    """
    together: list[Member] = []
    alone: list[Member] = []
    known = set()
    begun = torch.default_generator.get_state()
    for member in members:
        is_ready = is_built(member.model)
        if not is_ready:
            _prepare(member)
        reason = member.look()
        kind = None
        if reason is None:
            data = member.train, member.validation
            kind = (*member.kind, *(id(own.samples) for own in data if own is not None))
        if is_ready and (kind is None or kind not in known):
            _prepare(member)
        known.add(kind)
        shape = tuple(member.train.samples.x.shape[1:])
        vars(member.model)["sample_shape"] = shape  # without __setattr__'s searches
        member.history.engine = TOGETHER if reason is None else f"through fit, since {reason}"
        if reason is not None:
            member.begun = begun if is_ready else torch.default_generator.get_state()
        (together if reason is None else alone).append(member)
    return together, alone


def _prepare(member: Member) -> None:
    data = member.train, member.validation
    feeds = [ArrayFeed(own.samples, member.batch_size) for own in data if own is not None]
    member.model._prepare(member.recipe, *feeds)


def _fit(member: Member) -> None:
    """Trains a model by itself."""
    model, own, validation = member.model, member.train.taken(), member.validation
    engine, before = member.history.engine, model.history
    data = None if validation is None else validation.taken()
    try:
        model.fit(
            *map(taken, (own.x, own.y)),
            batch_size=member.batch_size,
            epochs=member.epochs,
            verbose=0,
            callbacks=member.callbacks,
            validation_data=data and tuple(map(taken, (data.x, data.y, data.weight))),
            shuffle=member.seed is not None,
            sample_weight=taken(own.weight),
        )
    finally:
        if model.history is not before:
            member.history = model.history
            member.history.engine = engine


# ---- arguments ----


def _models(models: Any) -> list[Model]:
    """The models, of which no two share anything that training changes."""
    if isinstance(models, Model) or not isinstance(models, Iterable):
        raise TypeError(f"models must be a list of models, got {type(models).__name__}")
    models = list(models)
    owners: dict[int, int] = {}
    for i, model in enumerate(models):
        if not isinstance(model, Model):
            raise TypeError(f"models[{i}] must be a torchnn model, got {type(model).__name__}")
        with _of_model(i):
            recipe = model._compiled("fit_many")
        own = [p for p in model.parameters() if not is_lazy(p)]
        if any(p.is_inference() for p in own):
            with _of_model(i), able_to_learn(model):  # which says why it cannot
                pass
        for thing, name in (
            (id(model), "are the same model"),
            (id(recipe.optimizer), "have the same optimizer: make one for each"),
            *((p.data_ptr(), "share a parameter") for p in own if p.numel()),
        ):
            first = owners.setdefault(thing, i)
            if first != i:
                raise ValueError(f"models[{first}] and models[{i}] {name}")
    return models


@contextmanager
def _of_model(i: int) -> Iterator[None]:
    """Lets errors say which model they are of."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"models[{i}]: {error}") from error


def _numbers(name: str, value: Any, count: int, check: Callable[[str, Any], int]) -> list[int]:
    """A number for each model, from one for all or one for each."""
    each = _each(name, _plain(value), count, (list, tuple, range, np.ndarray, Tensor))
    return [check(name, _plain(n)) for n in each]


def _plain(value: Any) -> Any:
    """A number as Python's, where it is an array."""
    is_number = isinstance(value, (np.ndarray, Tensor)) and value.ndim == 0
    return value.item() if is_number else value


def _each(name: str, value: Any, count: int, kinds: tuple[type, ...]) -> list[Any]:
    """The value for each model; of one of these kinds, one for each."""
    if not isinstance(value, kinds):
        return [value] * count
    each: Any = value
    if len(each) != count:
        raise ValueError(
            f"{name} must be one for all or one for each of {count} models, got {len(each)}"
        )
    return list(each)


def _arrays(name: str, value: Any, count: int, axes: int) -> list[Any]:
    """The array of each model, from one for all or a list of one for each.

    A list whose items are arrays of so many axes is one for each; any other is an array itself.
    """
    if not isinstance(value, (list, tuple)) or not value:
        return [value] * count
    is_array = [each is None or getattr(each, "ndim", 0) >= axes for each in value]
    if not all(is_array) or all(each is None for each in value):
        return [value] * count
    if len(value) != count:
        raise ValueError(
            f"{name} must be one array, or a list of one for each of {count} models, got a list of "
            f"{len(value)}"
        )
    return list(value)


def _triples(value: Any, count: int) -> list[tuple[Any, Any, Any]]:
    """x, y and weights to validate each model on."""
    if not isinstance(value, list) or not any(isinstance(own, tuple) for own in value):
        allowed = "(x, y) or (x, y, sample_weight), or a list of one such tuple for each model"
        return [_triple("validation_data", value, allowed)] * count
    if len(value) != count:
        raise ValueError(
            f"validation_data must be one tuple, or one for each of {count} models, got "
            f"{len(value)}"
        )
    allowed = "(x, y) or (x, y, sample_weight)"
    return [_triple(f"validation_data[{i}]", own, allowed) for i, own in enumerate(value)]


def _triple(name: str, value: Any, allowed: str) -> tuple[Any, Any, Any]:
    if not isinstance(value, (tuple, list)) or len(value) not in (2, 3):
        kind = "None" if value is None else type(value).__name__
        got = f"{len(value)} of them" if isinstance(value, (tuple, list)) else kind
        raise ValueError(f"{name} must be {allowed}, got {got}")
    x, y, *weight = value
    return x, y, weight[0] if weight else None


def _callbacks(callbacks: Any, count: int) -> list[CallbackList]:
    """Those of each model: copies, or its own."""
    each: Any = callbacks if isinstance(callbacks, (list, tuple)) else []
    if each and all(map(_are_several, each)):
        if len(each) != count:
            raise ValueError(
                f"callbacks must be those of all models, or a list for each of {count}, got "
                f"{len(each)} lists"
            )
        return _own([CallbackList(own) for own in each])
    for_all = CallbackList(callbacks)
    if count > 1:
        check_files(for_all, "pass a list for each model, each with a name of its own")
    # A callback may have the model of an earlier fit, which needs no copies.
    models = {id(each.model): None for each in for_all.callbacks}
    return [CallbackList(copy.deepcopy(for_all.callbacks, dict(models))) for _ in range(count)]


def _are_several(own: Any) -> bool:
    """Whether these are the callbacks of a model, rather than one of all models."""
    if isinstance(own, (Callback, type, str)):
        return False
    return own is None or isinstance(own, (CallbackList, Iterable))


def check_files(callbacks: CallbackList, remedy: str) -> None:
    """Raises ValueError if copies of a callback would write into the same file."""
    for callback in callbacks.callbacks:
        if isinstance(callback, tuple(FILES)):
            raise ValueError(
                f"callbacks hold a {type(callback).__name__}, whose copies would write into one "
                f"file: {remedy}"
            )


def _own(lists: list[CallbackList]) -> list[CallbackList]:
    """The lists, if no two models share a callback, or a file of theirs."""
    owners: dict[Any, int] = {}
    for i, own in enumerate(lists):
        for callback in own.callbacks:
            name = type(callback).__name__
            if (first := owners.setdefault(id(callback), i)) != i:
                raise ValueError(
                    f"callbacks[{first}] and callbacks[{i}] hold the same {name}: make one for "
                    "each model"
                )
            path = _path(callback)
            if path is not None and (first := owners.setdefault(path, i)) != i:
                raise ValueError(
                    f"callbacks[{first}] and callbacks[{i}] would write into one file, "
                    f"{path[1]!r}: give each {name} a name of its own"
                )
    return lists


def _path(callback: Callback) -> tuple[str, str] | None:
    """Where a callback writes, and what; None if it does not, as far as is known."""
    for kind, name in FILES.items():
        if isinstance(callback, kind) and hasattr(callback, name):
            return name, os.path.realpath(getattr(callback, name))
    return None


class _Samples:
    """Reads samples, those that several models share once."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def __call__(
        self,
        i: int,
        model: Model,
        x: Any,
        y: Any,
        sample_weight: Any,
        class_weight: Any,
        origin: str = "",
    ) -> Samples:
        """Returns them, checked for a model, the i-th, and its loss."""
        if gives_batches(x):
            raise TypeError(f"x{origin} must be an array, got {type(x).__name__}: use fit for it")
        if y is None:
            raise ValueError(f"y{origin} must be given for models[{i}], got None")
        recipe = model._compiled("fit_many")
        form = model._form_for(recipe)
        given = (x, y, sample_weight, class_weight)
        of_x = id(x), repr(replace(form, labels=False, outputs=())), origin
        key = (*of_x, *map(id, given), repr(form), type(recipe.loss), repr(recipe.loss))
        if key not in self._known:
            x = self._known.get(of_x, (x,))[0]  # converted already, for whatever y
            with _of_model(i):
                feed: Any = model._feed(recipe, 32, x, *given[1:], origin)
            # What is given is held, so that no other has its id.
            self._known[of_x], self._known[key] = (feed.samples.x, given), (feed.samples, given)
        samples: Samples = self._known[key][0]
        return samples

    def unweighted(self, samples: Samples) -> Samples:
        """Returns the same samples without weights."""
        key = id(samples)
        if key not in self._known:
            self._known[key] = Samples(samples.x, samples.y, None, samples.origin), samples
        plain: Samples = self._known[key][0]
        return plain


def _rows(name: str, value: Any, data: list[Samples]) -> list[Rows]:
    """The rows of each model."""
    if value is None:
        shared: dict[int, Rows] = {}
        return [shared.setdefault(id(each), Rows(each)) for each in data]
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__") or len(value) != len(data):
        got = len(value) if hasattr(value, "__len__") else type(value).__name__
        raise ValueError(f"{name} must hold row numbers for each of {len(data)} models, got {got}")
    known: dict[Any, Any] = {}
    found = []
    for i, (own, samples) in enumerate(zip(value, data, strict=True)):
        key = id(own), len(samples)
        if key not in known:
            known[key] = (
                None if own is None else _row_numbers(f"{name}[{i}]", own, len(samples)),
                own,
            )
        found.append(Rows(samples, known[key][0]))
    return found


def _row_numbers(name: str, value: Any, count: int) -> Tensor:
    """Row numbers or a mask as numbers."""
    value = np.asarray(value) if isinstance(value, range) else value
    numbers = as_tensor(name, value).cpu()
    if numbers.shape == (0,):  # of whatever dtype
        raise ValueError(f"{name} must hold at least one row")
    if numbers.ndim != 1 or numbers.is_floating_point():
        raise ValueError(
            f"{name} must be row numbers, shape (samples,), or a mask, got shape "
            f"{tuple(numbers.shape)} of {numbers.dtype}"
        )
    if numbers.dtype == torch.bool:
        if len(numbers) != count:
            raise ValueError(
                f"{name} must have as many entries as x has rows, {count}, got {len(numbers)}"
            )
        numbers = numbers.nonzero().reshape(-1)
    numbers = numbers.long().contiguous()
    if not len(numbers):
        raise ValueError(f"{name} must hold at least one row")
    if int(numbers.min()) < 0 or int(numbers.max()) >= count:
        raise ValueError(
            f"{name} must be from 0 to {count - 1}, got from {int(numbers.min())} to "
            f"{int(numbers.max())}"
        )
    return numbers
