"""What became of each test sample: flows between right and wrong, or counts where graded.

Changes when side effects are to be seen in another way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from corrsteer.report.drawing import (
    LIGHT,
    SMALL,
    WIDE,
    axes,
    canvas,
    name_rows,
    row_value,
)
from corrsteer.report.findings import Flows
from corrsteer.stats.metrics import SideEffects

_HEIGHT, _TOP, _BOTTOM = 330.0, 44.0, 12.0
"""Pixels of the figure, and those above and below the ribbons."""

_GAP = 22.0
"""Pixels between what is right and what is wrong."""


@dataclass(frozen=True)
class _Ribbon:
    """Samples that went the same way.

    Attributes:
        text: what became of them; `count`: how many; `colour`: of the ribbon.
        was_right: without steering; `is_right`: with it.
        start, end: upper edge on the left and on the right, in pixels from the top.
        thickness: in pixels.
    """

    text: str
    count: int
    colour: str
    was_right: bool
    is_right: bool
    start: float
    end: float
    thickness: float

    @property
    def flips(self) -> bool:
        """Whether the outcome changed."""
        return self.was_right != self.is_right


def draw(counts: SideEffects, flows: Flows | None, width: float) -> Figure:
    """The flows where there are any, else the four counts."""
    return _draw_counts(counts, width) if flows is None else _draw_flows(flows, width)


def label(counts: SideEffects) -> str:
    """The figure in words."""
    n = counts.improved + counts.worsened + counts.changed_equal + counts.unchanged
    return (
        f"Of {n} test samples, {counts.improved} improved, {counts.worsened} worsened, "
        f"{counts.changed_equal} changed with equal outcome and {counts.unchanged} are unchanged."
    )


def _draw_flows(flows: Flows, width: float) -> Figure:
    left, right = (64.0, width - 130.0) if width < WIDE else (120.0, width - 190.0)
    figure = canvas(width, _HEIGHT)
    plot = axes(figure, 0, 0, 0, 0)
    plot.set(xlim=(0, width), ylim=(_HEIGHT, 0))
    plot.axis("off")
    ribbons = _ribbons(flows)
    for ribbon in ribbons:
        shape = _shape(left + 5, right - 5, ribbon)
        alpha = 0.9 if ribbon.flips else 0.6
        plot.add_patch(PathPatch(shape, fc=ribbon.colour, lw=0, alpha=alpha))
    plot.text(left + 4, 20, "baseline", color=LIGHT["muted"], fontsize=SMALL, ha="right")
    plot.text(right - 4, 20, "steered", color=LIGHT["muted"], fontsize=SMALL)
    _draw_departures(plot, ribbons, left)
    _draw_arrivals(plot, ribbons, right)
    return figure


def _ribbons(flows: Flows) -> list[_Ribbon]:
    """Every way that a sample went, from the top of the left side down."""
    ways = [
        ("same reply", flows.right_same, LIGHT["band"], True, True),
        ("another reply", flows.right_other, LIGHT["band2"], True, True),
        ("worsened", flows.worsened, LIGHT["worse"], True, False),
        ("improved", flows.improved, LIGHT["better"], False, True),
        ("another reply", flows.wrong_other, LIGHT["band2"], False, False),
        ("same reply", flows.wrong_same, LIGHT["band"], False, False),
    ]
    scale = (_HEIGHT - _TOP - _BOTTOM - _GAP) / sum(count for _, count, *_ in ways)
    heights = [scale * count for _, count, *_ in ways]
    starts = _stacked(heights, [was_right for *_, was_right, _ in ways])
    arriving = [0, 1, 3, 2, 4, 5]  # on arrival, those improved come before those worsened
    stacked = _stacked([heights[i] for i in arriving], [ways[i][-1] for i in arriving])
    ends = [stacked[i] for i in arriving]  # the order is its own inverse
    return [
        _Ribbon(*way, start, end, height)
        for way, start, end, height in zip(ways, starts, ends, heights, strict=True)
        if way[1]
    ]


def _stacked(heights: Sequence[float], rightness: Sequence[bool]) -> list[float]:
    """Upper edges of what is stacked, with a gap where right ends."""
    edges, at, above = [], _TOP, True
    for height, right in zip(heights, rightness, strict=True):
        at += _GAP if above and not right else 0.0
        above = right
        edges.append(at)
        at += height
    return edges


def _shape(x0: float, x1: float, ribbon: _Ribbon) -> Path:
    y0, y1, thick = ribbon.start, ribbon.end, ribbon.thickness
    bend = (x1 - x0) / 2
    there = [(x0, y0), (x0 + bend, y0), (x1 - bend, y1), (x1, y1)]
    back = [(x, y + thick) for x, y in reversed(there)]
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    return Path([*there, *back, (x0, y0)], codes)


def _draw_departures(plot: Axes, ribbons: Sequence[_Ribbon], x: float) -> None:
    """Right and wrong without steering, with their totals, left of the ribbons."""
    for name, right in (("right", True), ("wrong", False)):
        group = [ribbon for ribbon in ribbons if ribbon.was_right is right]
        if group:
            tall = sum(ribbon.thickness for ribbon in group)
            _bar(plot, x, group[0].start, tall)
            middle = group[0].start + tall / 2
            plot.text(x - 10, middle - 1, name, ha="right", va="bottom", fontweight="bold")
            total = sum(ribbon.count for ribbon in group)
            plot.text(x - 10, middle + 1, f"{total:,}", ha="right", va="top")


def _draw_arrivals(plot: Axes, ribbons: Sequence[_Ribbon], x: float) -> None:
    """Right and wrong with steering, and every way there, right of the ribbons."""
    texts: list[tuple[float, str, str, str]] = []
    for name, right in (("right", True), ("wrong", False)):
        arrived = [ribbon for ribbon in ribbons if ribbon.is_right is right]
        group = sorted(arrived, key=lambda ribbon: ribbon.end)
        if group:
            _bar(plot, x - 4, group[0].end, sum(ribbon.thickness for ribbon in group))
            total = sum(ribbon.count for ribbon in group)
            texts.append((group[0].end + 4, f"{name} {total:,}", LIGHT["ink"], "bold"))
        for ribbon in group:
            colour = ribbon.colour if ribbon.flips else LIGHT["muted"]
            middle = ribbon.end + ribbon.thickness / 2
            texts.append((middle, f"{ribbon.text} {ribbon.count:,}", colour, "normal"))
    heights = _apart([height for height, *_ in texts], least=17.0, lowest=_HEIGHT - _BOTTOM)
    for height, (_, text, colour, weight) in zip(heights, texts, strict=True):
        plot.text(x + 10, height, text, color=colour, va="center_baseline", fontweight=weight)


def _bar(plot: Axes, x: float, top: float, tall: float) -> None:
    plot.add_patch(Rectangle((x, top), 4, max(tall, 1.0), fc=LIGHT["ink"], lw=0))


def _apart(heights: Sequence[float], least: float, lowest: float) -> list[float]:
    """The heights, in their order, moved until neighbours are at least so far apart."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + least) if moved else height)
    below = range(len(moved) - 1, -1, -1)
    return [min(at, lowest - least * rest) for at, rest in zip(moved, below, strict=True)]


def _draw_counts(counts: SideEffects, width: float) -> Figure:
    narrow = width < WIDE
    equal = "equal outcome" if narrow else "changed, equal outcome"
    rows = [
        ("improved", counts.improved, LIGHT["better"]),
        ("worsened", counts.worsened, LIGHT["worse"]),
        (equal, counts.changed_equal, LIGHT["band2"]),
        ("unchanged", counts.unchanged, LIGHT["band"]),
    ]
    figure = canvas(width, 30 * len(rows) + 16)
    plot = axes(figure, 112 if narrow else 190, 8, 62 if narrow else 76, 8)
    for row, (_, count, colour) in enumerate(rows):
        plot.barh(row, count, height=0.56, color=colour, lw=0)
        row_value(plot, row, f"{count:,}")
    name_rows(plot, [name for name, *_ in rows])
    plot.set_xlim(0, sum(count for _, count, _ in rows))
    plot.set_xticks([])
    plot.spines["bottom"].set_visible(False)
    return figure
