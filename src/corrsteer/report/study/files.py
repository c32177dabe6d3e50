"""Tables as text: CSV with every number whole, and what people read.

Changes when a value is to be shown in another way.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Callable
from dataclasses import dataclass

from corrsteer.json_text import visible
from corrsteer.report.text import number as decimals
from corrsteer.report.text import percent, points
from corrsteer.studies.paper.tables import Kind, Row, Table, Value

LEFT: tuple[Kind, ...] = ("text", "page")
"""Kinds that are set to the left."""


@dataclass(frozen=True)
class Shown:
    """A column as people read it: one of a table, or one with the bounds of its interval.

    Attributes:
        name: its heading.
        kind: of its values.
        at: where its value is in a row.
        interval: whether the bounds are in the two places behind it.
    """

    name: str
    kind: Kind
    at: int
    interval: bool

    def text(self, row: Row) -> str:
        """The value with its interval; "" where there is none."""
        shown = as_text(row[self.at], self.kind)
        low, high = (
            (as_text(each, self.kind) for each in row[self.at + 1 : self.at + 3])
            if (self.interval)
            else ("", "")
        )
        unit = "\u00a0%"
        return f"{shown} [{low.removesuffix(unit)}, {high.removesuffix(unit)}]" if low else shown


def shown_columns(table: Table) -> list[Shown]:
    """The columns of a table, intervals joined to what they are of; empty ones are left out."""
    names = [column.name.split() for column in table.columns]
    found = []
    for at, column in enumerate(table.columns):
        bound = "low" in names[at] or "high" in names[at]
        if not bound and any(row[at] is not None for row in table.rows):
            interval = at + 1 < len(names) and "low" in names[at + 1]
            found.append(Shown(column.name, column.kind, at, interval))
    return found


def as_text(value: Value, kind: Kind) -> str:
    """A value as people read it; "" for none."""
    if value is None or isinstance(value, str):
        return visible(value or "")
    show: dict[Kind, Callable[[float], str]] = {
        "percent": percent,
        "points": points,
        "spread": lambda spread: decimals(100 * spread, 1),
        "number": lambda number: f"{number:.3g}".replace("-", "\u2212"),
        "p": lambda p: f"{p:.2g}",
        "count": lambda count: f"{count:,}",
    }
    return show[kind](value)


def as_csv(table: Table) -> str:
    """The table with every number as it is; empty where there is none."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([column.name for column in table.columns])
    for row in table.rows:
        writer.writerow(["" if value is None else _cell(value) for value in row])
    return buffer.getvalue()


def as_markdown(table: Table) -> str:
    """The table as people read it, with its title and note."""
    columns = shown_columns(table)
    rules = [":--" if column.kind in LEFT else "--:" for column in columns]
    lines = [
        _line([column.name for column in columns]),
        _line(rules),
        *(_line([column.text(row) for column in columns]) for row in table.rows),
    ]
    return f"## {table.title}\n\n{table.note}\n\n" + "\n".join(lines) + "\n"


def _line(values: list[str]) -> str:
    cells = [html.escape(value, quote=False).replace("|", "\\|") for value in values]
    return "| " + " | ".join(cell.replace("\n", " ") for cell in cells) + " |"


def _cell(value: str | float) -> str | float:
    """A value that no spreadsheet takes for a formula."""
    acts = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if acts else value
