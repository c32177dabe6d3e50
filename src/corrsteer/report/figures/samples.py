"""What fewer samples would have chosen: the best correlation, and the layers that are settled.

Changes when more is said of a number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from corrsteer.report.drawing import LIGHT, WIDE, axes, canvas, title
from corrsteer.report.text import number, percent
from corrsteer.studies.sample_efficiency import Snapshot


def draw(snapshots: Sequence[Snapshot], width: float) -> Figure:
    """The strongest r above, the share of layers that have their final feature below."""
    narrow = width < WIDE
    figure = canvas(width, 400)
    left, right = (44, 8) if narrow else (52, 16)
    upper = axes(figure, left, 36, right, 200)
    lower = axes(figure, left, 262, right, 54)
    _draw_strongest(upper, snapshots)
    _draw_agreement(lower, snapshots)
    for plot in (upper, lower):
        plot.set_xlim(-0.5, len(snapshots) - 0.5)
        plot.set_xticks(range(len(snapshots)), _names(snapshots, at_most=6 if narrow else 12))
        plot.grid(axis="x", visible=False)
    upper.tick_params(axis="x", labelbottom=False)
    upper.spines["bottom"].set_visible(False)
    lower.set_xlabel("fit samples", labelpad=8)
    title(upper, "|r| of the strongest feature")
    title(lower, "layers with their final best feature, %")
    return figure


def label(snapshots: Sequence[Snapshot]) -> str:
    """The figure in words."""
    parts = [f"{each.samples:,} samples {percent(each.agreement, 0)}" for each in snapshots]
    return "Share of layers whose best feature is the final one: " + ", ".join(parts) + "."


def _draw_strongest(plot: Axes, snapshots: Sequence[Snapshot]) -> None:
    """The strongest r with its interval, and what is significant."""
    colour = LIGHT["A"]
    found = [(x, each.strongest) for x, each in enumerate(snapshots)]
    bounds = [
        (x, *sorted(map(abs, feature.correlation_ci)))
        for x, feature in found
        if feature is not None
    ]
    if bounds:
        plot.vlines(*zip(*bounds, strict=True), color=colour, lw=1.8)
    r = [math.nan if feature is None else abs(feature.correlation) for _, feature in found]
    plot.plot(r, "o-", color=colour, lw=1.6, ms=7.5, mew=0)
    bar = [math.nan if each.threshold is None else each.threshold for each in snapshots]
    plot.plot(bar, color=LIGHT["control"], lw=1.4, ls=(0, (4, 3)))
    plot.set_ylim(0, 1.02)
    plot.yaxis.set_major_locator(MultipleLocator(0.2))
    plot.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 1)))


def _draw_agreement(plot: Axes, snapshots: Sequence[Snapshot]) -> None:
    """The share of layers, filled where the best of all layers is the final one too."""
    colour = LIGHT["G"]
    share = [100 * each.agreement for each in snapshots]
    plot.plot(share, color=colour, lw=1.6)
    for x, (y, each) in enumerate(zip(share, snapshots, strict=True)):
        face = colour if each.same_best else LIGHT["paper"]
        plot.plot(x, y, "o", ms=7.5, mfc=face, mec=colour, mew=1.6, clip_on=False)
    plot.set_ylim(-6, 106)
    plot.set_yticks([0, 50, 100])


def _names(snapshots: Sequence[Snapshot], at_most: int) -> list[str]:
    """Numbers of samples; every other one, the last among them, where not all fit."""
    every = -(-len(snapshots) // at_most)
    last = len(snapshots) - 1
    return [
        f"{each.samples}" if (last - x) % every == 0 else "" for x, each in enumerate(snapshots)
    ]
