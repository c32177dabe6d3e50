"""The figures of a study, drawn from its tables.

Changes when a study is to be seen in another picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from corrsteer.report.drawing import (
    LIGHT,
    SMALL,
    WIDE,
    axes,
    canvas,
    name_rows,
)
from corrsteer.report.figures import Chart
from corrsteer.report.text import number, short
from corrsteer.studies.paper.results import Study
from corrsteer.studies.paper.tables import PAPER, Table, Value

Record = Mapping[str, Value]

LOOKS: Mapping[str, tuple[str, str, bool]] = {
    "baseline": ("|", "ink", True),
    "S": ("o", "S", True),
    "A": ("s", "A", True),
    "P": ("^", "P", True),
    "G": ("D", "G", True),
    "dense": ("v", "dense", True),
    "denoised": ("p", "denoised", True),
    "recommended": ("o", "ink", False),
    "fine-tuning": ("X", "worse", True),
    "A" + PAPER: ("s", "A", False),
    "max": ("s", "A", True),
    "mean": ("o", "P", True),
    "all": ("^", "G", True),
    "SAE latents": ("s", "A", True),
    "residual dimensions": ("o", "worse", True),
    "on right": ("o", "better", True),
    "on wrong": ("o", "worse", False),
    "a seed": ("o", "control", False),
    "mean of seeds": ("s", "A", True),
    "r": ("s", "A", True),
    "r, contrastive coefficient": ("s", "A", False),
    "r, both signs": ("D", "G", True),
    "r, negative": ("v", "worse", True),
    "mutual information": ("o", "S", True),
    "Fisher ratio": ("^", "P", True),
    "contrast": ("P", "control", True),
}
"""Marker, role of its colour, and whether it is filled."""

CHANGE_AXIS = "change of test accuracy, points"

METHODS: Mapping[tuple[Value, ...], str] = {
    ("corr", "positive", "positive"): "r",
    ("corr", "positive", "contrast"): "r, contrastive coefficient",
    ("corr", "both", "positive"): "r, both signs",
    ("corr", "negative", "positive"): "r, negative",
    ("mi", "positive", "positive"): "mutual information",
    ("fisher", "positive", "positive"): "Fisher ratio",
    ("contrast", "positive", "positive"): "contrast",
}


STRIPS = {
    "accuracy": (
        "test accuracy, %",
        "Test accuracy of every method; the upright line is the baseline.",
    ),
    "side-effects": ("SER", "Side Effect Ratio of every method."),
    "frequency": (
        "share of fit samples, %",
        "How often the best feature of each layer is active, on samples answered right and wrong.",
    ),
    "pooling": (CHANGE_AXIS, "Change by A, by the way activations are pooled."),
    "raw": (CHANGE_AXIS, "Change by A, from SAE latents and from residual dimensions."),
    "methods": (CHANGE_AXIS, "Change by A, by the way features are selected."),
    "seeds": (CHANGE_AXIS, "Change by A for every seed, with mean and standard deviation."),
}
"""Figure -> its axis, and what it shows."""


@dataclass(frozen=True)
class Mark:
    """One value in a row.

    Attributes:
        look: key of `LOOKS`; what the legend says.
        value: where it is.
        spread: half the length of a bar through it, or None.
    """

    look: str
    value: float
    spread: float | None = None


Strips = Mapping[str, Sequence[Mark]]
"""Task -> its marks."""


def charts(study: Study, made: Sequence[Table]) -> dict[str, Chart]:
    """The figures that the tables have data for, by name."""
    rows = {table.name: table.records() for table in made}
    arms, of_a = rows.get("arms", []), partial(_only, strategy="A")
    strips = {
        "accuracy": _accuracy(arms, rows.get("accuracy", [])),
        "side-effects": _by(arms, "method", "SER", 1),
        "frequency": _frequency(rows.get("frequency", [])),
        "pooling": _by(of_a(rows.get("pooling", [])), "pooling", "change"),
        "raw": _by(of_a(rows.get("raw", [])), "features", "change"),
        "methods": _methods(of_a(rows.get("methods", []))),
        "seeds": _seeds(study, rows.get("seeds", [])),
    }
    found = [
        Chart(name, STRIPS[name][1], partial(_draw_strips, each, STRIPS[name][0]))
        for name, each in strips.items()
        if any(each.values())
    ]
    found += _lines(study, rows.get("samples", []))
    pairs = rows.get("transfer-detail", [])
    found += _matrix("transfer", "A at strength 1", of_a(pairs))
    recommended = _only(pairs, strategy="recommended")
    found += _matrix("transfer-recommended", "what is recommended", recommended)
    return {chart.name: chart for chart in found}


def _accuracy(arms: Sequence[Record], wide: Sequence[Record]) -> Strips:
    """Every method's, and A's in the paper."""
    found = _by(arms, "method", "accuracy")
    for row in wide:
        for task, marks in found.items():
            value = row.get(task + PAPER)
            if row["method"] == "A" and isinstance(value, float):
                marks.append(Mark("A" + PAPER, 100 * value))
    return found


def _only(rows: Sequence[Record], **labels: str) -> list[Record]:
    return [row for row in rows if all(row[name] == value for name, value in labels.items())]


def _by(rows: Sequence[Record], look: str, value: str, scale: float = 100) -> dict[str, list[Mark]]:
    """Task -> a mark for each of its rows that has a value and a look."""
    found: dict[str, list[Mark]] = {}
    for row in rows:
        number, name = row[value], str(row[look])
        if isinstance(number, float) and name in LOOKS:
            found.setdefault(str(row["task"]), []).append(Mark(name, scale * number))
    return found


def _frequency(rows: Sequence[Record]) -> Strips:
    right = [{**row, "look": "on right", "value": row["on right"]} for row in rows]
    wrong = [{**row, "look": "on wrong", "value": row["on wrong"]} for row in rows]
    return _by([*right, *wrong], "look", "value")


def _methods(rows: Sequence[Record]) -> Strips:
    named = [
        {**row, "look": METHODS.get((row["method"], row["sign"], row["coefficient"]), "")}
        for row in rows
    ]
    return _by(named, "look", "change")


def _seeds(study: Study, rows: Sequence[Record]) -> Strips:
    found: dict[str, list[Mark]] = {}
    for row in _only(rows, method="A"):
        task, change, spread = str(row["task"]), row["change"], row["change sd"]
        marks = found.setdefault(task, [])
        for seed in study.settings.seeds:
            for arm in (study.get(f"seed-{seed}", task) or {"arms": ()})["arms"]:
                if arm["strategy"] == "A":
                    marks.append(Mark("a seed", 100 * arm["delta"]["value"]))
        if isinstance(change, float):
            half = 100 * spread if isinstance(spread, float) else None
            marks.append(Mark("mean of seeds", 100 * change, half))
    return found


def _draw_strips(strips: Strips, axis: str, width: float) -> Figure:
    """A row a task, a mark a value, and a legend above."""
    narrow = width < WIDE
    looks = [look for look in LOOKS if any(m.look == look for ms in strips.values() for m in ms)]
    columns = 2 if narrow else 7 if len(looks) < 7 or max(map(len, looks)) < 14 else 4
    top = 14 + 22 * math.ceil(len(looks) / columns)
    figure = canvas(width, 36 * len(strips) + top + 54)
    plot = axes(figure, 138 if narrow else 170, top, 14, 54)
    if "points" in axis:
        plot.axvline(0, color=LIGHT["muted"], lw=1.2, ls=(0, (3, 3)))
    for row, marks in enumerate(strips.values()):
        plot.axhline(row, color=LIGHT["rule"], lw=1, zorder=0)
        for mark in marks:
            if mark.spread is not None:
                ends = [mark.value - mark.spread, mark.value + mark.spread]
                plot.plot(ends, [row, row], color=LIGHT[LOOKS[mark.look][1]], lw=2.4)
            plot.plot(mark.value, row, ls="none", clip_on=False, **_look(mark.look))
    name_rows(plot, [_plain(task) for task in strips])
    plot.xaxis.set_major_locator(MaxNLocator(4 if narrow else 8))
    plot.set_xlabel(axis, labelpad=8)
    handles = [plot.plot([], [], ls="none", label=look, **_look(look))[0] for look in looks]
    figure.legend(
        handles=handles, loc="upper left", ncols=columns, columnspacing=1.2, handletextpad=0.2
    )
    return figure


def _look(name: str) -> dict[str, Any]:
    marker, role, filled = LOOKS[name]
    colour = LIGHT[role]
    size = 15.0 if name in ("baseline", "recommended") else 8.5
    face = colour if filled else "none"
    edge = LIGHT["paper"] if filled and marker != "|" else colour
    return {"marker": marker, "ms": size, "mfc": face, "mec": edge, "mew": 1.0 if filled else 1.6}


def _lines(study: Study, rows: Sequence[Record]) -> list[Chart]:
    """What fewer samples give: accuracy, and how much of the selection is that of all."""
    if not rows:
        return []
    base = {task: 100 * main["baseline"]["accuracy"] for task, main in study.each("main")}
    accuracy = {"S": "accuracy of S", "A": "accuracy of A"}
    return [
        Chart(
            "samples",
            "Test accuracy, %, of S and A chosen from the first samples of one pass; the dashed "
            "line is the baseline.",
            partial(_draw_lines, rows, accuracy, base),
        ),
        Chart(
            "stability",
            "Share of layers, %, whose best feature is that of all samples.",
            partial(_draw_lines, rows, {"A": "same best of layers"}, {}),
        ),
    ]


def _draw_lines(
    rows: Sequence[Record], series: Mapping[str, str], base: Mapping[str, float], width: float
) -> Figure:
    """A panel a task: values over the number of samples."""
    tasks = list(dict.fromkeys(str(row["task"]) for row in rows))
    across = 2 if width < WIDE else 4
    down = math.ceil(len(tasks) / across)
    panel, tall, top = width / across, 170.0, 30.0
    figure = canvas(width, top + down * tall)
    for index, task in enumerate(tasks):
        left, above = index % across * panel, top + index // across * tall
        right, below = width - left - panel, (down - 1 - index // across) * tall
        plot = axes(figure, left + 34, above + 30, right + 10, below + 36)
        _draw_panel(plot, _only(rows, task=task), series)
        if task in base:
            plot.axhline(base[task], color=LIGHT["muted"], lw=1.2, ls=(0, (3, 3)))
        plot.set_title(_plain(task), loc="left", fontsize=SMALL, color=LIGHT["ink"], pad=6)
    if len(series) > 1:
        handles = [plot.plot([], [], label=look, **_line_look(look))[0] for look in series]
        figure.legend(handles=handles, loc="upper left", ncols=len(series))
    return figure


def _draw_panel(plot: Axes, rows: Sequence[Record], series: Mapping[str, str]) -> None:
    at = [float(row["samples"] or 0) for row in rows]
    for look, column in series.items():
        values = [100 * float(row[column] or 0) for row in rows]
        plot.plot(at, values, clip_on=False, **_line_look(look))
    plot.set_xscale("log")
    plot.set_ylim(-2, 102)
    plot.yaxis.set_major_locator(MaxNLocator(4))
    plot.xaxis.set_minor_locator(NullLocator())
    plot.set_xticks([at[0], at[-1]] if len(at) < 4 else [at[0], at[len(at) // 2], at[-1]])
    plot.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _line_look(name: str) -> dict[str, Any]:
    return {**_look(name), "ms": 5.5, "color": LIGHT[LOOKS[name][1]], "lw": 1.6}


def _matrix(name: str, what: str, rows: Sequence[Record]) -> list[Chart]:
    if not rows:
        return []
    label = (
        f"Change of test accuracy, points, by {what}: steering for the task of the row, tested on "
        "that of the column. In bold where the 95 % interval excludes zero."
    )
    return [Chart(name, label, partial(_draw_matrix, rows))]


def _draw_matrix(rows: Sequence[Record], width: float) -> Figure:
    """A square a pair of tasks, coloured by the change."""
    narrow = width < WIDE
    sources = list(dict.fromkeys(str(row["source"]) for row in rows))
    targets = list(dict.fromkeys(str(row["target"]) for row in rows))
    left, top = 138.0 if narrow else 170.0, 12.0 + 7.4 * max(len(_plain(each)) for each in targets)
    tall = 34.0
    figure = canvas(width, top + tall * len(sources) + 10)
    plot = axes(figure, left, top, 12, 10)
    largest = max(max(abs(float(row["change"] or 0)) for row in rows), 0.01)
    for row in rows:
        x, y = targets.index(str(row["target"])), sources.index(str(row["source"]))
        change = float(row["change"] or 0)
        low, high = float(row["change low"] or 0), float(row["change high"] or 0)
        role = "better" if change > 0 else "worse"
        shade: dict[str, Any] = {
            "color": LIGHT[role],
            "lw": 0,
            "alpha": 0.55 * abs(change) / largest,
        }
        plot.fill_between([x - 0.48, x + 0.48], y - 0.46, y + 0.46, **shade)
        weight = "bold" if low > 0 or high < 0 else "normal"
        size = SMALL - 2 if narrow else SMALL
        look: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "fontsize": size,
            "fontweight": weight,
        }
        plot.text(x, y, number(100 * change, 0 if narrow else 1), color=LIGHT["ink"], **look)
    name_rows(plot, [_plain(source) for source in sources])
    plot.set_xlim(-0.5, len(targets) - 0.5)
    plot.set_xticks(range(len(targets)), [_plain(target) for target in targets], rotation=90)
    plot.xaxis.tick_top()
    plot.spines["bottom"].set_visible(False)
    plot.grid(visible=False)
    return figure


def _plain(name: str) -> str:
    """A task's name, none of which is taken for mathematics."""
    return short(name, 24).replace("$", r"\$")
