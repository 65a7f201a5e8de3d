"""Many models at once, epoch after epoch.

    group   models of one kind: their calls can be shared
    wave    some of a group, trained together from their first epoch to their last
    call    as many epochs of a wave as take about 0.1 s, or one if a callback looks at each; or a
            part of one that takes longer

A model's result follows from its own numbers and rows alone: how groups, waves and calls are cut is
a matter of speed.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import accumulate
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from torchnn import _warnings, ops
from torchnn._console.progress import Progress
from torchnn._engine.autograd import Result
from torchnn._engine.building import mode
from torchnn._engine.fused import rates_of
from torchnn._engine.interrupts import HeldInterrupt
from torchnn._engine.plan import FLAT
from torchnn._engine.run import Batches, Run, Samples
from torchnn._training.ahead import is_pure
from torchnn._training.batches import LONGEST, seed_of_order
from torchnn._training.members import Member, Rows
from torchnn._training.tally import Figures, Tally
from torchnn.callbacks import InvalidLossWarning
from torchnn.ops._network import shuffle_
from torchnn.ops._transfer import float64
from torchnn.ops.reference import StoppingState

TOGETHER = "many models in one native call"
PAUSE = 0.1  # seconds a call: twice fit's, since each call reads the tensors of all models
# Of a wave: more would not stay in a CPU's caches between two calls, and fewer leave a GPU idle.
MOST_MODELS = {"cpu": 256, "cuda": 1024}
MOST_BYTES = 1 << 26  # of what a call is given and returns beside the weights
MOST_SAMPLES = 1 << 28  # bytes of samples that the models of a wave do not share
FIRST_PACE = 1e-10  # seconds for a multiply-add on one thread, while nobody has measured it
MANY_ORDERS = 256  # that a GPU makes sooner, each by a slow thread: estimated from latencies
LANES = {"baseline": 16, "avx2": 32, "avx512": 64}  # bytes of a register


class Many:
    """Trains models whose calls can be shared.

    Args:
        members: The models; each has been looked at.
        interrupt: Holds Ctrl-C back, and lets it through between two calls.
        verbose: As in Progress.
        total: How many models there are, with those that go by themselves.
    """

    def __init__(
        self, members: Sequence[Member], interrupt: HeldInterrupt, verbose: Any, total: int
    ) -> None:
        self.members, self.interrupt, self.total = members, interrupt, total
        self.progress = Progress(self, self, None, verbose=verbose)
        self.steps_done = self.models_done = 0
        self.steps, self.seconds = 0, 0.0  # of all models together, when they are done
        self.best: tuple[str, float] | None = None
        self.invalid: list[tuple[Member, int, float]] = []
        self.counter = torch.zeros(1, dtype=torch.int64, device="cpu")
        self._prepared: dict[Any, Samples] = {}

    # ---- what progress asks ----

    def so_far(self) -> dict[str, float]:
        """The best value of any model."""
        return {} if self.best is None else {f"best {self.best[0]}": self.best[1]}

    @property
    def label(self) -> str:
        """How many models are done."""
        total = f"{self.total:,}"
        return f"Models {self.models_done:>{len(total)},}/{total}"

    # ---- the work ----

    def run(self) -> None:
        """Trains all of them."""
        self.progress.steps = sum(m.steps * m.epochs for m in self.members) or None
        began = perf_counter()
        try:
            for wave in self._waves():
                wave.run()
        finally:
            self.steps, self.seconds = self.steps_done, perf_counter() - began
            self._warn()

    def _waves(self) -> "Iterator[Wave]":
        groups: dict[Any, list[Member]] = {}
        for member in self.members:
            groups.setdefault(member.kind, []).append(member)
        for group in groups.values():
            # Those of a size and of an order side by side share most.
            group.sort(key=lambda m: ([-len(w) for w in m.weights], id(m.train.numbers)))
            pace, first = FIRST_PACE / torch.get_num_threads(), 0
            while first < len(group):
                count = _wave_size(group[first], pace)
                wave = Wave(self, _with_room(group[first : first + count]), pace)
                count = len(wave.members)
                yield wave
                pace, first = wave.pace, first + count

    def prepared(self, member: Member, rows: Rows) -> Samples:
        """Returns all of a model's samples as the kernels take them: those of others, if it is the
        same that comes of them."""
        network, loss = member.network, member.network.loss
        is_known = type(loss).__module__.startswith("torchnn.")
        front = tuple(map(_front, network.front)) if is_known else id(member)
        key = id(rows.samples), front, member.comparison
        if key not in self._prepared:
            self._prepared[key] = network.prepare(rows.samples)
        return self._prepared[key]

    def forget(self) -> None:
        """Drops what has been made of the samples."""
        self._prepared.clear()

    def count(self, columns: dict[str, Any]) -> None:
        """Takes the losses of some epochs into the best."""
        name = "val_loss" if "val_loss" in columns else "loss"
        least = float(np.nanmin(columns[name], initial=np.inf))
        if self.best is None or least < self.best[1]:
            self.best = name, least

    def _warn(self) -> None:
        if not self.invalid:
            return
        member, epoch, loss = self.invalid[0]
        which = "the loss of a model" if len(self.invalid) == 1 else "the losses of models"
        rate = member.recipe.optimizer.current_learning_rate()
        _warnings.warn(
            f"{which} became NaN or infinite, of {len(self.invalid):,} in {self.total:,}: that of "
            f"models[{member.number}] became {loss} at epoch {epoch + 1}. Try a smaller "
            f"learning_rate (it is {rate:g}), "
            "features scaled to mean 0 and variance 1, or another loss; the callback "
            "TerminateOnNaN() stops such a model",
            InvalidLossWarning,
        )


def _front(layer: nn.Module) -> Any:
    """What makes a layer in front of the dense ones do the same as another."""
    if type(layer) in FLAT:
        return None
    config: Any = layer
    return (
        type(layer),
        repr(config.get_config()),
        *(b.cpu().numpy().tobytes() for b in layer.buffers()),
    )


def _wave_size(member: Member, pace: float) -> int:
    """How many models like this: so many that an epoch takes as long as a call should, and that
    all lanes of all threads have one."""
    weight = member.weights[0]
    lanes = LANES[ops.cpu_capability()] // weight.element_size()
    least = lanes * torch.get_num_threads()
    wanted = int(PAUSE / (pace * member.work)) // least * least
    return min(max(wanted, least), max(MOST_MODELS[weight.device.type], least))


def _with_room(members: list[Member]) -> list[Member]:
    """As many of them as there is memory for a copy of their samples, if they share none."""
    seen: set[int] = set()
    size = 0
    for i, member in enumerate(members):
        for rows in (member.train, member.validation):
            if rows is not None and id(rows.samples.x) not in seen:
                seen.add(id(rows.samples.x))
                size += rows.samples.x.nbytes
        if len(seen) > 2 and size > MOST_SAMPLES:  # of two, one is for validation
            return members[:i]
    return members


class Wave:
    """Models that are trained together, each from its first epoch to its last.

    Args:
        many: What they are a part of.
        members: The models, of one kind.
        pace: Seconds for a multiply-add.

    Attributes:
        pace: The same, as measured since.
    """

    def __init__(self, many: Many, members: list[Member], pace: float) -> None:
        self.many, self.members, self.pace = many, members, pace
        first = members[0]
        self.network, self.batch_size, self.steps = first.network, first.batch_size, first.steps
        self.size, self.device = len(first.train), first.weights[0].device
        self.measured = 0 if first.validation is None else len(first.validation)  # rows
        # A metric of somebody else's may look at the model, or fail.
        self.looks = any(m.looks for m in members) or not all(map(is_pure, first.recipe.metrics))
        # Whether the kernels say when a model ends early: else its callbacks do.
        self.stops = not self.looks and any(m.stopper for m in members)
        self.keeps_predictions = bool(first.recipe.metrics)
        self._tables: dict[str, Any] = {}
        self._measures: dict[str, Any] = {}
        self._rules: dict[str, Any] = {}
        self._tables_of: list[Member] = []

    def run(self) -> None:
        """Trains them."""
        many = self.many
        with ExitStack() as stack:
            for member in self.members:
                if member.callbacks.callbacks:
                    stack.enter_context(mode(member.model, training=True))
                member.begin()
                stack.callback(member.finish)  # whatever happens
            self.pool = Pool(many, {member: member.train for member in self.members})
            if self.measured:
                own: Any = {member: member.validation for member in self.members}
                self.validation = Pool(many, own)
            active = [member for member in self.members if member.epochs]
            many.models_done += len(self.members) - len(active)
            while active:
                many.interrupt.release()
                if epochs := self._epochs_a_call(active):
                    self._epochs(active, epochs)
                else:
                    self._epoch_in_parts(active)
                active = self._still_active(active)
        many.forget()

    def _still_active(self, active: list[Member]) -> list[Member]:
        many, left = self.many, [member for member in active if member.left]
        for member in active:
            if not member.left:
                many.models_done += 1
                if many.progress.steps:  # it may have stopped early
                    many.progress.steps -= (member.epochs - member.epoch) * self.steps
        many.progress.draw(many.label)
        return left

    # ---- how much at a time ----

    def _seconds(self, active: list[Member]) -> float:
        """Of an epoch."""
        return self.pace * sum(member.work for member in active)

    def _epochs_a_call(self, active: list[Member]) -> int:
        """How many; 0 for less than one."""
        seconds = self._seconds(active)
        if seconds > LONGEST * PAUSE and self.steps > 1:
            return 0
        if self.looks:
            return 1
        last = self.network.weights[-1]
        rows = (self.measured + self.size) * self.keeps_predictions
        size = rows * len(last) * last.element_size() + 8 * (self.size + 2 * self.steps)
        most = min(int(PAUSE / seconds), MOST_BYTES // (size * len(active)))
        return max(1, min([most, *(member.left for member in active)]))

    def _epochs(self, active: list[Member], epochs: int) -> None:
        """Trains some whole epochs."""
        self._begin_epoch(active)
        call = self._call(active, self.pool.orders(active, self.size, epochs), epochs, self.stops)
        self._learn(active, call.seconds, epochs)
        self._end_epochs(active, epochs, call)

    def _epoch_in_parts(self, active: list[Member]) -> None:
        """Trains an epoch, of some batches at a time."""
        self._begin_epoch(active)
        orders, of = self.pool.orders(active, self.size)
        done, calls = 0, []
        try:
            while done < self.size:
                self.many.interrupt.release()
                batches = max(int(PAUSE / self._seconds(active) * self.steps), 1)
                stop = min(done + batches * self.batch_size, self.size)
                calls.append(self._call(active, (orders[:, done:stop].contiguous(), of)))
                self._learn(active, calls[-1].seconds, (stop - done) / self.size)
                done = stop
                self.many.progress.draw()
            if self.measured and len(calls) > 1:
                calls.append(self._call(active, (orders[:, :0].contiguous(), of)))
        except BaseException:
            self._keep_place(active, done, calls)
            raise
        self._end_epochs(active, 1, Call.joined(calls))

    def _learn(self, active: list[Member], seconds: float, epochs: float) -> None:
        self.pace = seconds / epochs / sum(member.work for member in active)

    def _keep_place(self, active: list[Member], done: int, calls: "list[Call]") -> None:
        """Lets the next fit of each model go on with the rest of the epoch."""
        if not done:
            return
        call, steps = Call.joined(calls), Batches(done, self.size, self.batch_size).count
        run = self._run(self.pool, active, call.orders[call.order_of], 1, done)
        tallies = self._tallies(active, run, call.losses, call.predictions)
        for member, tally in zip(active, tallies, strict=True):
            optimizer = member.recipe.optimizer
            place = optimizer.place.after(steps)
            optimizer.place = replace(place, seed=member.seed, sums=tally.sums())

    def _begin_epoch(self, active: list[Member]) -> None:
        for member in active:
            member.callbacks("on_epoch_begin", member.epoch, {})

    # ---- a call ----

    def _call(
        self,
        active: list[Member],
        orders: tuple[Tensor, Tensor],
        epochs: int = 1,
        stops: bool = False,
    ) -> "Call":
        """Trains whole epochs, and measures after each, or a part of one; or measures alone, if
        there are no rows. A model may end early only if the call is told so."""
        if self._tables_of != active:
            self._tables, self._tables_of = self._new_tables(active), active
            self._measures = self._new_measures(active) if self.measured else {}
            self._rules = _rules(active) if self.stops else {}
        orders = orders[0].to(self.device), orders[1]
        rows = orders[0].shape[1]
        steps = Batches(rows, self.size, self.batch_size).count
        is_measured = rows in (0, self.size * epochs)
        states = float64([member.stopping_state for member in active] if stops else [])
        states = states.to(self.device)
        job = ops.Trials(
            **self._tables,
            **(self._measures if is_measured else {}),
            **(self._rules if stops else {}),
            stopping_state=states,
            orders=orders[0],
            order_of=orders[1],
            learning_rates=_rates(active, steps).to(self.device),
            steps_before=_int64([m.recipe.optimizer.iterations for m in active]),
        )
        began = perf_counter()
        results = ops.train_many_(job)
        losses = results[0].cpu()  # a GPU has done its work then
        seconds = perf_counter() - began
        trained = [epochs] * len(active)
        for i, state in enumerate(map(StoppingState._make, states.tolist())):
            if active[i].stopper is not None:
                trained[i] = int(state.epochs) - active[i].epoch
                active[i].take(state)
        for member, count in zip(active, trained, strict=True):
            own = count * self.steps if stops else steps
            member.recipe.optimizer.iterations += own
            self.many.steps_done += own
        call = Call(*orders, losses, *results[1:], trained, stops, seconds)
        return call.without_the_rest(epochs) if stops else call

    def _new_tables(self, active: list[Member]) -> dict[str, Any]:
        """What stays as it is as long as the models are the same."""
        first, network = active[0], self.network
        y, weight = self.pool.targets(active)
        none = [(0.0,) * 5] * len(network.weights)
        regularization = [member.regularization or none for member in active]
        is_regularized = any(member.regularization for member in active)
        return {
            "x": self.pool.x,
            "y": y,
            "sample_weight": weight,
            "epoch_size": self.size,
            "batch_size": self.batch_size,
            "loss": first.loss.name,
            "update": first.rule.name,
            "options": {name: [m.options[name] for m in active] for name in first.options},
            "activations": network.in_training,
            "slopes": network.slopes,
            "regularization": float64(regularization if is_regularized else []),
            "seeds": _int64([member.seeds for member in active]),
            "input_dropout": float64([member.input_dropout for member in active]),
            "weights": [t for member in active for t in member.weights],
            "biases": [t for member in active for t in member.biases],
            "slots": [t for member in active for t in member.slots],
            "keep_predictions": self.keeps_predictions,
            "steps_done": self.many.counter,
        }

    def _new_measures(self, active: list[Member]) -> dict[str, Any]:
        """The same of the validation rows."""
        rows, of = self.validation.orders(active, self.measured)
        y, weight = self.validation.targets(active)
        return {
            "validation_x": self.validation.x,
            "validation_y": y,
            "validation_weight": weight,
            "validation_rows": rows.to(self.device),
            "validation_of": of,
        }

    # ---- what comes of it ----

    def _end_epochs(self, active: list[Member], epochs: int, call: "Call") -> None:
        """Counts epochs, and tells of them."""
        losses = call.losses.double().reshape(len(active), epochs, -1).numpy()
        rest = np.arange(epochs) >= np.array(call.trained)[:, None]
        columns = {"loss": np.where(rest, np.nan, _means(losses, self.size, self.batch_size))}
        metrics: list[dict[str, Any]] = [{}] * (len(active) * epochs)
        try:
            if self.keeps_predictions:
                run = self._run(self.pool, active, call.orders[call.order_of], epochs, self.size)
                metrics = self._metrics(active, run, call.losses, call.predictions)
            self._find_invalid(active, losses)
            if self.measured:
                values = call.measured.double().cpu().numpy()
                means = _means(values, self.measured, self.batch_size)
                columns["val_loss"] = np.where(rest, np.nan, means)
            if self.measured and self.keeps_predictions:
                rows = self._measures["validation_rows"][self._measures["validation_of"]]
                order = rows.repeat(1, epochs)
                run = self._run(self.validation, active, order, epochs, self.measured)
                more = self._metrics(active, run, call.measured, call.outputs)
                metrics = [
                    own | {f"val_{name}": value for name, value in other.items()}
                    for own, other in zip(metrics, more, strict=True)
                ]
        except BaseException:  # a metric's, or a callback's: what has been trained counts
            self._tell(active, call.trained, columns, metrics, tells=False)
            raise
        self.many.count(columns)
        tells = (self.looks or self.stops) and not call.stops
        self._tell(active, call.trained, columns, metrics, tells)

    def _run(
        self, pool: "Pool", active: list[Member], orders: Tensor, epochs: int, size: int
    ) -> Run:
        """The rows of all models, one after the other, as epochs of one run."""
        shift = _int64([pool.shift[member] for member in active]).to(orders.device)
        order, count = (orders + shift[:, None]).reshape(-1), len(active) * epochs
        return Run(pool.measured, self.batch_size, 0, count * size, order, count)

    def _metrics(
        self, active: list[Member], run: Run, losses: Tensor, outputs: Tensor
    ) -> list[dict[str, Any]]:
        """Those of each epoch of each model."""
        tallies = self._tallies(active, run, losses, outputs)
        return [
            {name: value for name, value in tally.logs().items() if name != "loss"}
            for tally in tallies
        ]

    def _tallies(
        self, active: list[Member], run: Run, losses: Tensor, outputs: Tensor
    ) -> Iterator[Tally]:
        """Yields a tally as it is after each epoch of each model."""
        tally, units = active[0].tally, self.network.weights[-1].shape[0]
        with torch.no_grad():
            own = None
            if self.keeps_predictions:
                own = self.network.predictions(outputs.reshape(-1, units))
            for numbers in Figures(tally.metrics, run, Result(losses.reshape(-1), own)).wait():
                tally.reset()
                tally.add(*numbers)
                yield tally

    def _find_invalid(self, active: list[Member], losses: Any) -> None:
        """Tells of models whose loss has become NaN or infinite, once of each."""
        finite = np.isfinite(losses)
        if finite.all():
            return
        for i in np.flatnonzero(~finite.all((1, 2))):
            member = active[i]
            if member.has_warned:
                continue
            member.has_warned = True
            epoch, batch = (int(each) for each in np.argwhere(~finite[i])[0])
            loss, epoch = float(losses[i, epoch, batch]), member.epoch + epoch
            self.many.invalid.append((member, epoch, loss))
            member.callbacks("on_invalid_loss", epoch, batch, {"loss": loss})

    def _tell(
        self,
        active: list[Member],
        trained: list[int],
        columns: dict[str, Any],
        metrics: list[dict[str, Any]],
        tells: bool,
    ) -> None:
        """Counts the epochs of each model, so many of those there are, and tells its callbacks."""
        values = {name: column.tolist() for name, column in columns.items()}
        if not (tells or self.keeps_predictions):
            for i, (member, count) in enumerate(zip(active, trained, strict=True)):
                member.end_epochs({name: value[i][:count] for name, value in values.items()})
            return
        epochs = len(metrics) // len(active)
        failure: BaseException | None = None
        for i, (member, count) in enumerate(zip(active, trained, strict=True)):
            for epoch in range(count):
                own = {name: value[i][epoch] for name, value in values.items()}
                more = metrics[i * epochs + epoch]
                # As in fit: those of training first.
                logs = {"loss": own.pop("loss")}
                logs |= {name: value for name, value in more.items() if not name.startswith("val_")}
                try:
                    member.end_epoch(logs | own | more, tells=tells and failure is None)
                except BaseException as error:
                    failure = error  # the others have been trained, too
        if failure is not None:
            raise failure


class Call(NamedTuple):
    """What a call was given of the samples, and what came of it."""

    orders: Tensor  # (orders, samples)
    order_of: Tensor  # (models)
    losses: Tensor  # (models, steps)
    predictions: Tensor  # (models, samples, units)
    measured: Tensor  # losses of the validation rows, (models, epochs, batches)
    outputs: Tensor  # of these, (models, epochs, rows, units)
    trained: list[int]  # epochs of each model, a part of one included
    stops: bool  # whether models may have ended early
    seconds: float

    def without_the_rest(self, epochs: int) -> "Call":
        """Returns it with zeros for the epochs behind a model's last one, of which nobody knows."""
        count = len(self.trained)
        losses, predictions = (
            told.view(count, epochs, told.shape[1] // epochs, *told.shape[2:])
            for told in (self.losses, self.predictions)
        )
        for i, last in enumerate(self.trained):
            if last < epochs:
                for told in (losses, predictions, self.measured, self.outputs):
                    told[i, last:] = 0
        return self

    @staticmethod
    def joined(calls: "list[Call]") -> "Call":
        """Several calls of an epoch as one."""
        along = [(each.orders, each.losses, each.predictions) for each in calls]
        orders, losses, predictions = (torch.cat(parts, 1) for parts in zip(*along, strict=True))
        last = calls[-1]
        return Call(orders, last.order_of, losses, predictions, *last[4:-1], 0.0)


class Pool:
    """The samples of some models as one set: those that all share, or one behind the other.

    Attributes:
        x: As the kernels take it.
        measured: The targets as they were given, and weights, of all sets one behind the other.
        shift: From a row's number in x to that of its target there.
    """

    def __init__(self, many: Many, rows: dict[Member, Rows]) -> None:
        self._rows = rows
        prepared = {member: many.prepared(member, own) for member, own in rows.items()}
        sets = list({id(each): each for each in prepared.values()}.values())
        self._shares_x = all(_are_same(each.x, sets[0].x) for each in sets)
        self.x = sets[0].x if self._shares_x else torch.cat([each.x for each in sets])
        begins = dict(zip(map(id, sets), _begins(sets), strict=True))
        self._first = {
            member: 0 if self._shares_x else begins[id(each)] for member, each in prepared.items()
        }
        self._prepared, self._sets = prepared, sets
        given = list({id(own.samples): own.samples for own in rows.values()}.values())
        y = _cat([each.y for each in given])
        self.measured = Samples(y, y, _weights(given))
        begins = dict(zip(map(id, given), _begins(given), strict=True))
        self.shift = {m: begins[id(own.samples)] - self._first[m] for m, own in rows.items()}

    def targets(self, members: list[Member]) -> tuple[Tensor, Tensor | None]:
        """y and sample_weight of all, or of each of these members."""
        if not self._shares_x or len(self._sets) == 1:
            return _cat([each.y for each in self._sets]), _weights(self._sets)
        own = [self._prepared[member] for member in members]
        weights = [_weights([each]) for each in own]
        if all(weight is None for weight in weights):
            weight = None
        else:
            ones = self.x.new_ones(len(self.x))
            weight = torch.stack([ones if w is None else w for w in weights])
        return torch.stack([each.y for each in own]), weight  # type: ignore[misc]

    def orders(self, members: list[Member], size: int, epochs: int = 1) -> tuple[Tensor, Tensor]:
        """The orders of rows in so many epochs, and the number of each model's.

        Validation is in the order of the rows.
        """
        sets: dict[Any, tuple[int, Tensor]] = {}  # of rows, and their numbers among these
        found: dict[Any, int] = {}
        set_of, seeds, of = [], [], []
        for member in members:
            own, first = self._rows[member], self._first[member]
            seed = member.seed if own is member.train else None
            begun = 0 if seed is None else member.recipe.optimizer.place.epochs
            rows = first, id(own.numbers)
            key = *rows, seed, begun
            if key not in found:
                found[key] = len(found)
                if rows not in sets:
                    sets[rows] = len(sets), own.order + first
                set_of += [sets[rows][0]] * epochs
                if seed is not None:
                    seeds += [seed_of_order(seed, begun + i) for i in range(epochs)]
            of.append(found[key])
        orders = torch.stack([rows for _, rows in sets.values()])[set_of]
        if seeds:
            orders = self._shuffled(orders, _int64(seeds))
        return orders.reshape(len(found), epochs * size), _int64(of)

    def _shuffled(self, orders: Tensor, seeds: Tensor) -> Tensor:
        """Each by its seed, where that is quicker."""
        if self.x.is_cuda and len(orders) >= MANY_ORDERS:
            orders, seeds = orders.to(self.x.device), seeds.to(self.x.device)
        shuffle_(orders, seeds)
        return orders


def _cat(tensors: Sequence[Any]) -> Tensor:
    """Tensors one behind the other; a single one as it is."""
    only: Tensor = tensors[0]
    return only if len(tensors) == 1 else torch.cat([*tensors])


def _begins(sets: Sequence[Samples]) -> list[int]:
    """Where each of them begins when one lies behind the other."""
    return [0, *accumulate(map(len, sets))][:-1]


def _weights(sets: Sequence[Samples]) -> Tensor | None:
    """Those of sets one behind the other; None if there are none."""
    if all(each.weight is None for each in sets):
        return None
    return _cat(
        [each.x.new_ones(len(each)) if each.weight is None else each.weight for each in sets]
    )


def _are_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same memory."""
    return (one.data_ptr(), one.shape, one.stride()) == (
        other.data_ptr(),
        other.shape,
        other.stride(),
    )


def _rates(members: list[Member], steps: int) -> Tensor:
    """The learning rates of the next steps, (models, steps)."""
    rates = [member.recipe.optimizer.learning_rate for member in members]
    if not any(map(callable, rates)):
        return float64(rates)[:, None].expand(-1, steps).contiguous()
    first = [member.recipe.optimizer.iterations for member in members]
    each = [
        rates_of(rate, range(i, i + steps), torch.device("cpu"))
        for rate, i in zip(rates, first, strict=True)
    ]
    return torch.stack(each)


def _rules(members: list[Member]) -> dict[str, Any]:
    """When each ends early, and where it keeps the weights of its best epoch."""
    best = [p for m in members for p in m.best or [None] * (len(m.weights) + len(m.biases))]
    return {"stopping": float64([m.stopping for m in members]), "best": best}


def _means(losses: Any, size: int, batch_size: int) -> Any:
    """The mean over the samples of each epoch: (models, epochs) of (models, epochs, batches)."""
    sizes = Batches(size, size, batch_size).sizes
    return np.add.accumulate(losses * sizes, 2)[..., -1] / size


def _int64(values: Any) -> Tensor:
    """On the CPU, whichever device is the default."""
    return torch.tensor(values, dtype=torch.int64, device="cpu")
