"""A study's final files: tables as CSV and Markdown, figures, one HTML page, and its JSON.

Changes when a study leaves other files. All of them follow from the cells' results alone, so that
they are the same bytes however often the study was stopped.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from corrsteer.files import write_whole
from corrsteer.json_text import to_json
from corrsteer.report.drawing import WIDE, house_style, png_file, svg_file
from corrsteer.report.study.figures import charts
from corrsteer.report.study.files import as_csv, as_markdown
from corrsteer.report.study.page import page
from corrsteer.studies.paper.cells import SCHEMA
from corrsteer.studies.paper.published import source
from corrsteer.studies.paper.results import Study
from corrsteer.studies.paper.tables import Table, tables

__all__ = ["document", "write"]

PAGE_FILE, JSON_FILE = "index.html", "study.json"


def document(study: Study, made: tuple[Table, ...]) -> dict[str, Any]:
    """The study as JSON holds it."""
    return {
        "schema": SCHEMA,
        "model": study.model,
        "tasks": list(study.tasks),
        "settings": dataclasses.asdict(study.settings),
        "published": source()[0],
        "notes": list(study.notes),
        "tables": {
            table.name: {"title": table.title, "note": table.note, "rows": table.records()}
            for table in made
        },
    }


def write(study: Study, folder: Path) -> dict[str, Any]:
    """Write a study's final files into its folder, in place of those of an earlier call.

    Returns:
        its JSON document.

    Raises:
        ArtifactError: the folder cannot be written to.
    """
    made = tables(study)
    found = document(study, made)
    written = set()
    for table in made:
        for suffix, content in ((".csv", as_csv(table)), (".md", as_markdown(table))):
            written.add(_write(folder / "tables" / (table.name + suffix), content))
    drawn = charts(study, made)
    for chart in drawn.values():
        with house_style():
            figure = chart.draw(WIDE)
            for suffix, image in ((".svg", svg_file(figure)), (".png", png_file(figure))):
                written.add(_write(folder / "figures" / (chart.name + suffix), image))
    _write(folder / PAGE_FILE, page(study, made, drawn))
    _write(folder / JSON_FILE, to_json(found))
    for kind in ("tables", "figures"):
        for path in (folder / kind).glob("*"):
            if path not in written:
                path.unlink()
    return found


def _write(path: Path, content: bytes | str) -> Path:
    write_whole(path, content)
    return path
