"""All networks of a sweep, trained chunk by chunk, round by round, and kept in between."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from torchnn import _saving
from torchnn.sweeps._chunks import Chunk, Data, Network, Outcome
from torchnn.sweeps._files import Backup
from torchnn.sweeps._halving import Halving
from torchnn.sweeps._making import Maker
from torchnn.sweeps._result import SweepResult, key
from torchnn.sweeps._workers import Workers


@dataclass
class Rounds:
    """One fit of a sweep.

    Attributes:
        maker: Makes the models.
        data: What they are trained on.
        networks: By their numbers.
        monitor: What they are ranked by.
        mode: "min" or "max".
        workers: Who trains.
        chunk_size: Networks in a chunk; None to choose.
        backup: Keeps what has been trained, or None.
        verbose: As in fit.
        outcomes: What came of the networks so far.
    """

    maker: Maker
    data: Data
    networks: Mapping[int, Network]
    monitor: str
    mode: str
    workers: Workers
    chunk_size: int | None
    backup: Backup | None
    verbose: int
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def result(self) -> SweepResult:
        """Returns what there is by now."""
        finished = list(self.outcomes.values())
        return SweepResult(self.maker, self.networks, finished, self.monitor, self.mode)

    def all_at_once(self) -> None:
        """Trains every network to its end."""
        self._train(0, {number: each.epochs for number, each in self.networks.items()}, True)

    def halving(self, rule: Halving, ends: Sequence[int]) -> None:
        """Trains all settings to the end of the first round, the best of them to that of the next.

        Args:
            rule: How many go on.
            ends: After how many epochs each round ends.
        """
        alive = list(self.networks)
        for rung, end in enumerate(ends):
            is_last = rung == len(ends) - 1
            self._train(rung, dict.fromkeys(alive, end), is_last)
            if not is_last:
                going_on = set(self._best(rule, alive))
                for number in set(alive) - going_on:
                    kept = self.outcomes[number]
                    weights = _saving.without_optimizer(kept.weights)
                    self.outcomes[number] = replace(kept, weights=weights)
                alive = [number for number in alive if number in going_on]

    def _best(self, rule: Halving, alive: Sequence[int]) -> list[int]:
        """The networks of the settings that are kept, by their means over seeds and folds."""
        groups: dict[Any, list[int]] = {}
        for number in alive:
            own = self.networks[number].settings.items()
            name = tuple((n, key(value)) for n, value in own if n != "seed")
            groups.setdefault(name, []).append(number)

        def score(group: list[int]) -> float:
            scores = [self.outcomes[number].at(self.monitor) for number in group]
            mean = float(np.mean(scores))
            return math.inf if math.isnan(mean) else -mean if self.mode == "max" else mean

        best = sorted(groups.values(), key=score)[: rule.kept(len(groups))]
        return [number for group in best for number in group]

    def _train(self, rung: int, ends: Mapping[int, int], is_last: bool) -> None:
        """Trains networks until each has been trained for so many epochs, chunk by chunk."""
        kept = {} if self.backup is None else self.backup.kept(rung)
        done = {number: kept[number] for number in ends if number in kept}
        for number in ends:
            before = self.outcomes.get(number)
            if before is not None and before.has_stopped:
                done[number] = replace(before, rung=rung)
        self.outcomes |= done
        left = [self.networks[number] for number in ends if number not in done]
        cut = self.workers.cut(left, self.chunk_size)
        chunks = [self._chunk(some, ends, rung, not is_last) for some in cut]
        count = 0
        for chunk, found in self.workers.train(self.maker, self.data, chunks, self.verbose):
            found = [each.after(self.outcomes.get(each.number)) for each in found]
            self.outcomes |= {each.number: each for each in found}
            if self.backup is not None:
                self.backup.keep(rung, found)
            count += len(chunk.networks)
            if self.verbose and len(chunks) > 1:
                print(f"{count:,} of {len(left):,} networks, {self._told_best()}")

    def _chunk(
        self, networks: Sequence[Network], ends: Mapping[int, int], rung: int, goes_on: bool
    ) -> Chunk:
        before = [self.outcomes.get(network.number) for network in networks]
        return Chunk(
            list(networks),
            [None if each is None else each.weights for each in before],
            [
                ends[network.number] - (0 if each is None else each.epochs)
                for network, each in zip(networks, before, strict=True)
            ],
            goes_on,
            rung,
        )

    def _told_best(self) -> str:
        scores = [each.at(self.monitor) for each in self.outcomes.values()]
        best = np.nanmax if self.mode == "max" else np.nanmin
        is_known = not np.isnan(scores).all()
        return f"best {self.monitor} {best(scores):.4g}" if is_known else f"no {self.monitor} yet"
