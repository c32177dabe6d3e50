"""The page of a study: its sections, and what the template is given.

Changes when the page has another section.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from corrsteer.report.drawing import DARK, LIGHT
from corrsteer.report.figures import Chart
from corrsteer.report.page import environment, figures
from corrsteer.report.study.files import LEFT, shown_columns
from corrsteer.studies.paper.published import published, source
from corrsteer.studies.paper.results import Study
from corrsteer.studies.paper.tables import Table

TEMPLATE = "study.html.j2"
FOLDED = 16
"""Rows above which a table is unfolded by a click."""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page: figures, then tables.

    Attributes:
        id: of its heading's address.
        title: its heading.
        charts: names of figures.
        tables: names of tables.
    """

    id: str
    title: str
    charts: tuple[str, ...]
    tables: tuple[str, ...]


SECTIONS = (
    Section("accuracy", "Accuracy", ("accuracy",), ("accuracy", "arms")),
    Section("side-effects", "Side effects", ("side-effects",), ("side-effects", "guards")),
    Section("features", "Discovered features", (), ("features", "paper-features")),
    Section("frequency", "Frequency", ("frequency",), ("frequency",)),
    Section("samples", "Sample efficiency", ("samples", "stability"), ("samples",)),
    Section(
        "transfer",
        "Transfer",
        ("transfer", "transfer-recommended"),
        ("transfer", "transfer-recommended", "transfer-detail"),
    ),
    Section("pooling", "Pooling", ("pooling",), ("pooling",)),
    Section("raw", "SAE latents and raw dimensions", ("raw",), ("raw",)),
    Section("methods", "Ways to select", ("methods",), ("methods",)),
    Section("seeds", "Spread over seeds", ("seeds",), ("seeds",)),
    Section("fine-tuning", "Fine-tuning", (), ("fine-tuning",)),
    Section("left-out", "Left out", (), ("left-out",)),
)


def page(study: Study, made: Sequence[Table], drawn: Mapping[str, Chart]) -> str:
    """The study as one HTML document; the same study gives the same text."""
    by_name = {table.name: table for table in made}
    paper, address = source()
    first = next((result for _, result in study.each("main")), None)
    html: str = (
        environment()
        .get_template(TEMPLATE)
        .render(
            study=study,
            sections=[each for each in SECTIONS if any(name in by_name for name in each.tables)],
            tables=by_name,
            charts=drawn,
            figure=figures(dict(drawn)),
            columns=shown_columns,
            left=LEFT,
            folded=FOLDED,
            first=first,
            paper=paper,
            address=address,
            compared=bool(published(study.model)),
            settings=[
                (name.replace("_", " "), _value(value))
                for name, value in dataclasses.asdict(study.settings).items()
            ],
            light=LIGHT,
            dark=DARK,
        )
    )
    return html


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "all" if value is None else str(value)
