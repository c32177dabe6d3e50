"""Strength against gain and side effects, on the select split where strengths are chosen.

Changes when the search tells more of its trials.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from corrsteer.report.drawing import (
    LIGHT,
    WIDE,
    axes,
    canvas,
    mark,
    ring,
    title,
)
from corrsteer.report.findings import Findings
from corrsteer.report.text import number, points
from corrsteer.runs.search import SearchRecord, Trial

_APART = 0.14
"""Distance between strategies at the same strength, so that their intervals do not overlap."""

_CONTROL = "best random control (test split)"


def draw(
    search: SearchRecord, vetoed: Collection[Trial], control: float | None, width: float
) -> Figure:
    """Change of accuracy above, SER below, over the strengths tried.

    Args:
        search: what was tried.
        vetoed: trials with open marks.
        control: change of accuracy by the best random control, or None.
        width: of the figure.
    """
    narrow = width < WIDE
    trials = [trial for trial in search.trials if trial.steers]
    strengths = sorted({trial.strength for trial in trials})
    strategies = list(dict.fromkeys(trial.strategy for trial in trials))
    figure = canvas(width, 500)
    left, right = (40, 8) if narrow else (52, 16)
    gain = axes(figure, left, 84 if narrow else 66, right, 204)
    effects = axes(figure, left, 334, right, 54)
    for index, strategy in enumerate(strategies):
        shift = (index - (len(strategies) - 1) / 2) * _APART
        of_it = [trial for trial in trials if trial.strategy == strategy]
        at = [strengths.index(trial.strength) + shift for trial in of_it]
        _draw_trials(gain, effects, at, of_it, vetoed)
        chosen = search.recommended
        if chosen is not None and chosen.strategy == strategy:
            x = strengths.index(chosen.strength) + shift
            ring(gain, x, 100 * chosen.delta.value)
            if chosen.side_effects.ser is not None:
                ring(effects, x, chosen.side_effects.ser)
    if control is not None:
        gain.axhline(100 * control, color=LIGHT["control"], lw=1.4, ls=(0, (4, 3)), label=_CONTROL)
    _finish(gain, effects, strengths)
    _legends(figure, gain, left / width, narrow)
    return figure


def _legends(figure: Figure, gain: Axes, left: float, narrow: bool) -> None:
    """Strategies and the random control in one row, or in two where it is narrow."""
    handles, names = gain.get_legend_handles_labels()
    split = len(names) - (_CONTROL in names) if narrow else len(names)
    for row, part in enumerate((slice(split), slice(split, None))):
        if names[part]:
            figure.legend(
                handles[part],
                names[part],
                loc="upper left",
                bbox_to_anchor=(left, 1 - 0.048 * row),
                ncols=len(names),
                borderpad=0.4,
                borderaxespad=0,
                handletextpad=0.5,
                columnspacing=1.4,
            )


def label(search: SearchRecord) -> str:
    """The figure in words."""
    best = max(search.trials, key=lambda trial: trial.delta.value)
    text = (
        f"Change of accuracy and SER on the select split over {len(search.trials)} trials; the "
        f"largest change is {points(best.delta.value)} points, by {best.strategy} at strength "
        f"{best.strength:g}."
    )
    chosen = search.recommended
    if chosen is None:
        return text + " None is recommended."
    return text + f" Recommended: {chosen.strategy} at strength {chosen.strength:g}."


def control_level(findings: Findings) -> float | None:
    """Change of test accuracy by the best random control; None where there is none."""
    evaluated = findings.evaluated
    best = findings.controls.best
    return None if evaluated is None or best is None else best - evaluated.baseline.accuracy


def _draw_trials(
    gain: Axes,
    effects: Axes,
    at: Sequence[float],
    trials: Sequence[Trial],
    vetoed: Collection[Trial],
) -> None:
    """The trials of one strategy: lines, intervals, and a mark each."""
    strategy = trials[0].strategy
    colour = LIGHT[strategy]
    gains = [100 * trial.delta.value for trial in trials]
    sers = [math.nan if (ser := t.side_effects.ser) is None else ser for t in trials]
    lows, highs = ([100 * trial.delta.ci[end] for trial in trials] for end in (0, 1))
    gain.vlines(at, lows, highs, color=colour, lw=1.4, alpha=0.55)
    gain.plot(at, gains, color=colour, lw=1.6, label=strategy, **mark(strategy, 7))
    effects.plot(at, sers, color=colour, lw=1.6, **mark(strategy, 7))
    for x, y, ser, trial in zip(at, gains, sers, trials, strict=True):
        if trial in vetoed:
            gain.plot(x, y, **mark(strategy, 6.5, filled=False))
            effects.plot(x, ser, **mark(strategy, 6.5, filled=False))


def _finish(gain: Axes, effects: Axes, strengths: Sequence[float]) -> None:
    for plot in (gain, effects):
        plot.set_xlim(-0.5, len(strengths) - 0.5)
        plot.grid(axis="x", visible=False)
        plot.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
    gain.axhline(0, color=LIGHT["muted"], lw=1.2, zorder=1)
    gain.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    gain.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 0)))
    gain.tick_params(axis="x", labelbottom=False)
    gain.spines["bottom"].set_visible(False)
    title(gain, "change of accuracy on the select split, points")
    effects.set_ylim(-0.14, 1.08)
    effects.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    effects.set_xlabel("strength", labelpad=8)
    title(effects, "side effect ratio (SER) on the select split")
