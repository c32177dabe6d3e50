"""The page: what the template is given, and the environment that renders it.

Changes when the template asks for something else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from corrsteer.json_text import visible
from corrsteer.report import text
from corrsteer.report.command import beyond_options, reproduce
from corrsteer.report.drawing import (
    DARK,
    LIGHT,
    NARROW,
    WIDE,
    house_style,
    inline_svg,
)
from corrsteer.report.figures import Chart, charts
from corrsteer.report.findings import Findings
from corrsteer.runs.evaluation import Prediction
from corrsteer.settings import FitSettings

TEMPLATE = "report.html.j2"
EXAMPLES, OPEN_EXAMPLES = 25, 6
"""Flipped examples of each direction, and those of them that a click need not unfold."""


@dataclasses.dataclass(frozen=True)
class ShownExample:
    """A flipped sample as it is shown.

    Attributes:
        row: the sample.
        prompt: its prompt, cut.
        baseline, steered: the replies side by side, cut, with their differences marked.
    """

    row: Prediction
    prompt: text.Segments
    baseline: text.Segments
    steered: text.Segments

    @classmethod
    def of(cls, row: Prediction) -> ShownExample:
        """The sample, cut and compared."""
        return cls(
            row, text.cut(row.prompt), *text.side_by_side(row.baseline_text, row.steered_text)
        )


@dataclasses.dataclass(frozen=True)
class Direction:
    """Flipped samples of one direction.

    Attributes:
        name: improved or worsened; `total`: how many there are.
        shown: those that open with the page; `more`: those that a click unfolds.
    """

    name: str
    total: int
    shown: Sequence[ShownExample]
    more: Sequence[ShownExample]

    @classmethod
    def of(cls, name: str, rows: Sequence[Prediction]) -> Direction:
        """The first `EXAMPLES` samples."""
        examples = [ShownExample.of(row) for row in rows[:EXAMPLES]]
        return cls(name, len(rows), examples[:OPEN_EXAMPLES], examples[OPEN_EXAMPLES:])


def page(findings: Findings) -> str:
    """The report as one HTML document."""
    run = findings.run
    template = environment().get_template(TEMPLATE)
    html: str = template.render(
        f=findings,
        run=run,
        made=run.provenance,
        evaluated=findings.evaluated,
        search=run.search,
        figure=figures(charts(findings)),
        directions=[
            Direction.of("improved", findings.improved),
            Direction.of("worsened", findings.worsened),
        ],
        settings=setting_rows(run.settings),
        origin=origin_rows(findings),
        costs=cost_rows(findings),
        command=reproduce(run),
        beyond_options=beyond_options(run),
        light=LIGHT,
        dark=DARK,
    )
    return html


@cache
def environment() -> Environment:
    """Renders templates so that every string in them is shown as text, whatever it holds."""
    made = Environment(
        loader=PackageLoader("corrsteer.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    names = ("percent", "points", "p_value", "number", "short", "web_url")
    made.filters |= {name: getattr(text, name) for name in names}
    made.filters |= {
        "percent_interval": partial(text.interval, show=text.percent),
        "points_interval": partial(text.interval, show=text.points),
        "interval": partial(text.interval, show=partial(text.number, digits=2)),
    }
    return made


def _finalize(value: Any) -> Any:
    """Strings without characters that act; what is markup already is left alone."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return visible(value) if is_text else value


def figures(found: dict[str, Chart]) -> Callable[[str], Markup]:
    """What gives the figure of a name as markup, empty where there is none.

    Each is drawn for wide pages and for narrow ones; the style sheet shows one of them.
    """

    def figure(name: str) -> Markup:
        chart = found.get(name)
        if chart is None:
            return Markup("")
        with house_style("text"):
            return Markup("\n").join(
                inline_svg(chart.draw(width), f"{name}-{kind}", chart.label, kind)
                for kind, width in (("wide", WIDE), ("narrow", NARROW))
            )

    return figure


def origin_rows(findings: Findings) -> list[tuple[str, str]]:
    """Name and value of what the run was made from, as far as it is recorded."""
    made, counts, told = findings.run.provenance, findings.run.counts, findings.told
    rows = {"model": made.model, "revision": made.revision, "SAEs": made.sae_source}
    if made.hook_shift:
        rows["hook shift"] = f"{made.hook_shift} blocks"
    if made.task:
        rows |= {
            "task": made.task,
            "scorer": made.scorer,
            "longest reply": f"{made.max_new_tokens} tokens",
            "guards": ", ".join(made.guards) or "none",
            "samples": str(counts.repeats or ""),
            "fit samples": _samples(counts.n_fit, counts.unscored_fit),
            "select samples": f"{counts.n_select:,}",
        }
    if told is not None:
        unscored = told.task.unscored_test
        rows["test samples"] = _samples(told.task.n_test + unscored, unscored)
    return [(name, text.short(value, 200)) for name, value in rows.items() if value]


def _samples(run: int, unscored: int) -> str:
    return f"{run:,}" + (f", {unscored:,} not judged" if unscored else "")


def cost_rows(findings: Findings) -> list[tuple[str, str]]:
    """Name and value of what the run took, as far as it is recorded."""
    seconds = findings.run.counts.seconds
    rows = [(name, f"{spent:,.1f} s") for name, spent in seconds.items()]
    if len(rows) > 1:
        rows.append(("together", f"{sum(seconds.values()):,.1f} s"))
    if findings.told is not None:
        rows.append(("peak memory", f"{findings.told.peak_memory_mb:,.0f} MB"))
    return rows


def setting_rows(settings: FitSettings) -> list[tuple[str, str, bool]]:
    """Name, value, and whether it is not the default, of every setting."""
    rows = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        rows.append((field.name.replace("_", " "), _value(value), value != field.default))
    return rows


def _value(value: Any) -> str:
    if value is None:
        return "all"
    if isinstance(value, tuple):
        return ", ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
