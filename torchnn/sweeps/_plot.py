"""A sweep as a picture: what the best settings have learned, and the score against each setting."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from torchnn.sweeps._table import told

LINES = 5  # settings whose curves are drawn
ACROSS = 3  # panels of settings in a row
MOST_VALUES = 12  # of a setting, to have a tick each
MOST_LETTERS = 32  # beside each other below an axis
LOGARITHMIC = 8  # an axis may be if the largest number is so many times the smallest
WORST = 0.9  # this part of the scores is in sight: those that diverged are not
COLOURS = ("#1b6ca8", "#d1495b", "#3d8b5f", "#b98a00", "#7a5ea8")
GREY = "0.6"


def draw(result: Any) -> Any:
    """Returns a figure of a SweepResult: see SweepResult.plot."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("plot needs matplotlib: pip install matplotlib") from error
    names = result._columns_told_apart()
    down, across = math.ceil(len(names) / ACROSS), min(len(names), ACROSS)
    figure = Figure(figsize=(10, 3.8 + 3.2 * down), layout="constrained")
    groups = result._groups(names)
    if not names:
        _draw_curves(figure.subplots(), result, groups, names)
        return figure
    parts: Any = figure.subfigures(2, 1, height_ratios=(3.8, 3.2 * down), hspace=0.04)
    top, below = parts
    _draw_curves(top.subplots(), result, groups, names)
    panels = below.subplots(down, across, squeeze=False, sharey=True)
    scores = [_mean(result, group) for group in groups]
    for axes, name in zip(panels.flat, names, strict=False):
        _draw_scores(axes, name, [result.rows[group[0]].get(name) for group in groups], scores)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel(result.monitor)
    title = "Against each setting: all combinations, and the best of each value"
    panels[0, 0].set_title(title, loc="left", fontsize=12)
    _look_at(panels[0, 0], scores, result.mode)
    return figure


def _draw_curves(axes: Any, result: Any, groups: Sequence[list[int]], names: Sequence[str]) -> None:
    """The means of the best settings' networks after each epoch, and the spread of the best."""
    in_sight = []
    for colour, group in zip(COLOURS, groups, strict=False):
        epochs, curves = _curves(result, group)
        mean, spread = np.nanmean(curves, axis=0), np.nanstd(curves, axis=0)
        label = ", ".join(f"{name} {told(result.rows[group[0]][name])}" for name in names)
        axes.plot(epochs, mean, color=colour, linewidth=2, label=label or "mean")
        in_sight.append(mean)
        if group is groups[0]:
            axes.fill_between(epochs, mean - spread, mean + spread, color=colour, alpha=0.15, lw=0)
            in_sight += [mean - spread, mean + spread]
    others = [index for group in groups[LINES:] for index in group]
    if others:
        epochs, curves = _curves(result, others)
        label = f"median of {len(groups) - LINES:,} other settings"
        middle = np.nanmedian(curves, axis=0)
        axes.plot(epochs, middle, color=GREY, linewidth=1.5, linestyle="--", label=label)
    _look_at(axes, np.concatenate(in_sight), result.mode)
    title = f"Means of the {min(LINES, len(groups))} best settings, and the spread of the best"
    axes.set_title(title if names else "Mean and spread", loc="left", fontsize=12)
    axes.set(xlabel="epoch", ylabel=result.monitor)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(framealpha=0.85, edgecolor="none", fontsize=9)
    _plain(axes)


def _draw_scores(axes: Any, name: str, values: Sequence[Any], scores: Sequence[float]) -> None:
    """A dot for each combination of settings; a line through the best ones of each value."""
    pairs = [pair for pair in zip(values, scores, strict=True) if pair[0] is not None]
    values, scores = zip(*pairs, strict=True)
    is_number = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    distinct = list(dict.fromkeys(values if is_number else map(told, values)))
    if is_number:
        distinct.sort()
        places = list(map(float, values))
        ticks = list(map(float, distinct))
        if _is_logarithmic(distinct):
            axes.set_xscale("log")
    else:
        places = [float(distinct.index(told(value))) for value in values]
        ticks = list(map(float, range(len(distinct))))
    axes.plot(places, scores, "o", color=GREY, alpha=0.6, markersize=4, markeredgewidth=0)
    if len(distinct) <= MOST_VALUES:
        # Groups come best first: the first of a value is its best.
        best = dict(reversed(list(zip(places, scores, strict=True))))
        axes.plot(ticks, [best[tick] for tick in ticks], "-o", color=COLOURS[0], markersize=6)
        axes.set_xticks(ticks, list(map(told, distinct)))
        axes.minorticks_off()
        if sum(len(told(value)) for value in distinct) > MOST_LETTERS:
            axes.tick_params(axis="x", rotation=30)
    axes.plot(places[:1], scores[:1], "o", color=COLOURS[1], markersize=9, zorder=5)
    axes.set_xlabel(name)
    _plain(axes)


def _is_logarithmic(values: Sequence[float]) -> bool:
    """Whether numbers are spaced by their ratios rather than by their differences."""
    if values[0] <= 0 or values[-1] < LOGARITHMIC * values[0]:
        return False

    def skew(numbers: Any) -> float:
        return abs((np.median(numbers) - numbers[0]) / (numbers[-1] - numbers[0]) - 0.5)

    return skew(np.log(values)) <= skew(np.array(values))


def _look_at(axes: Any, scores: Iterable[float], mode: str) -> None:
    """Turns to the better scores; a few networks that diverged would flatten all others."""
    finite = np.array([score for score in scores if math.isfinite(score)])
    if not len(finite):
        return
    low, high = np.quantile(finite, (0, WORST) if mode == "min" else (1 - WORST, 1))
    margin = 0.08 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)


def _curves(result: Any, group: Sequence[int]) -> tuple[Any, Any]:
    """Epochs, and what is monitored of a group's networks after each: a row each, NaN where one was
    trained no further."""
    curves = [result.history(index).get(result.monitor, []) for index in group]
    filled = np.full((len(curves), max(map(len, curves))), np.nan)
    for row, curve in zip(filled, curves, strict=True):
        row[: len(curve)] = curve
    filled[~np.isfinite(filled)] = np.nan
    known = ~np.isnan(filled).all(axis=0)
    return np.arange(1, filled.shape[1] + 1)[known], filled[:, known]


def _mean(result: Any, group: Sequence[int]) -> float:
    return float(np.mean([result._outcomes[index].at(result.monitor) for index in group]))


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
