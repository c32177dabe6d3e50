"""A run as one self-contained HTML page, and its figures as files.

Changes when a report is asked for in another way. The page loads nothing and runs no script; what
models and data sets wrote is shown as text.
"""

from __future__ import annotations

from pathlib import Path

from corrsteer.files import write_whole
from corrsteer.report.drawing import WIDE, house_style, png_file, svg_file
from corrsteer.report.figures import charts
from corrsteer.report.findings import Findings
from corrsteer.report.page import page
from corrsteer.runs.folder import REPORT_FILE
from corrsteer.runs.run import Run

__all__ = ["render", "write", "write_figures"]


def render(run: Run) -> str:
    """The report of a run as one HTML document; the same run gives the same text.

    Sections that there is no data for say so.

    Raises:
        ArtifactError: the run's JSON is not of this version.
    """
    return page(Findings(run))


def write(run: Run, folder: str | Path) -> Path:
    """Write the report into a folder, as `report.html`.

    Returns:
        the file written.

    Raises:
        ArtifactError: the run's JSON is not of this version, or the folder cannot be written to.
    """
    path = Path(folder) / REPORT_FILE
    write_whole(path, render(run))
    return path


def write_figures(run: Run, folder: str | Path) -> list[Path]:
    """Write the report's figures into a folder, each as SVG and as PNG.

    Returns:
        the files written; none where the run has no data for figures.

    Raises:
        ArtifactError: the run's JSON is not of this version, or the folder cannot be written to.
    """
    written = []
    for chart in charts(Findings(run)).values():
        with house_style():
            figure = chart.draw(WIDE)
            for suffix, content in ((".svg", svg_file(figure)), (".png", png_file(figure))):
                path = Path(folder) / (chart.name + suffix)
                write_whole(path, content)
                written.append(path)
    return written
