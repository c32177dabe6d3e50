"""Accuracy of every arm on the test split, beside the random controls.

Changes when arms are to be compared by another picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from corrsteer.report.drawing import (
    LIGHT,
    WIDE,
    axes,
    canvas,
    mark,
    name_rows,
    row_value,
)
from corrsteer.report.findings import Findings
from corrsteer.report.text import percent
from corrsteer.runs.records import SteeredOutcome
from corrsteer.settings import ArmName
from corrsteer.stats.metrics import Accuracy


@dataclass(frozen=True)
class _Line:
    name: str
    accuracy: Accuracy
    strategy: ArmName | None = None


def draw(findings: Findings, evaluated: SteeredOutcome, width: float) -> Figure:
    """A line an arm with its 95 % interval, and a mark a random control."""
    narrow = width < WIDE
    lines = _lines(findings, evaluated, narrow)
    controls = [100 * each for each in findings.controls.accuracies]
    rows = len(lines) + bool(controls)
    figure = canvas(width, 30 * rows + 62)
    plot = axes(figure, 112 if narrow else 180, 8, 62 if narrow else 70, 54)
    plot.axvline(100 * evaluated.baseline.accuracy, color=LIGHT["muted"], lw=1.2, ls=(0, (3, 3)))
    for row, line in enumerate(lines):
        colour = LIGHT[line.strategy or "ink"]
        plot.plot([100 * bound for bound in line.accuracy.ci], [row, row], color=colour, lw=2.4)
        look = mark(line.strategy, 8.5) if line.strategy else {"marker": "o", "ms": 8.5}
        plot.plot(100 * line.accuracy.accuracy, row, color=colour, **look)
        row_value(plot, row, percent(line.accuracy.accuracy))
    names = [line.name for line in lines]
    if controls:
        _draw_controls(plot, controls, rows - 1)
        names.append("random (mean)" if narrow else "random controls (mean)")
    name_rows(plot, names)
    plot.set_xlim(*_range(lines, controls))
    plot.xaxis.set_major_locator(MaxNLocator(4 if narrow else 8))
    plot.set_xlabel("accuracy on the test split, %", labelpad=8)
    return figure


def label(findings: Findings, evaluated: SteeredOutcome) -> str:
    """The figure in words."""
    parts = [f"baseline {percent(evaluated.baseline.accuracy)}"]
    parts += [
        f"{arm.named(name, 'at strength')} {percent(arm.steered.accuracy)}"
        for name, arm in findings.strategies.items()
        if arm.acts
    ]
    if findings.recommended is not None:
        parts.append(f"recommended {percent(evaluated.steered.accuracy)}")
    random = findings.controls
    if random.best is not None:
        parts.append(f"{random.draws} random controls of which the best {percent(random.best)}")
    return "Accuracy on the test split: " + ", ".join(parts) + "."


def _lines(findings: Findings, evaluated: SteeredOutcome, narrow: bool) -> list[_Line]:
    lines = [_Line("baseline", evaluated.baseline)]
    for strategy, arm in findings.strategies.items():
        if arm.acts:
            name = arm.named(strategy, "×")  # noqa: RUF001
            lines.append(_Line(name, arm.steered, strategy))
    chosen = findings.recommended
    if chosen is not None:
        setting = "" if narrow else f": {chosen.strategy} × {chosen.strength:g}"  # noqa: RUF001
        lines.append(_Line("recommended" + setting, evaluated.steered, chosen.strategy))
    return lines


def _draw_controls(plot: Axes, values: Sequence[float], row: int) -> None:
    """A mark each, and their range as a band behind all arms."""
    plot.axvspan(min(values), max(values), color=LIGHT["band"], alpha=0.35, lw=0)
    plot.plot(values, [row] * len(values), "o", color="none", mec=LIGHT["control"], mew=1.3, ms=7)
    row_value(plot, row, percent(sum(values) / len(values) / 100))


def _range(lines: Sequence[_Line], controls: Sequence[float]) -> tuple[float, float]:
    shown = [*controls, *(100 * bound for line in lines for bound in line.accuracy.ci)]
    low, high = min(shown), max(shown)
    pad = max(0.05 * (high - low), 2.0)
    return max(low - pad, -1.0), min(high + pad, 101.0)
