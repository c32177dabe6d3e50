"""What `corrsteer report` does.

Changes when an option of it means something else.
"""

from __future__ import annotations

from pathlib import Path

from corrsteer.cli.options import ReportOptions
from corrsteer.cli.output import say
from corrsteer.report import write, write_figures
from corrsteer.runs.folder import load_run


def run_report(options: ReportOptions) -> None:
    """`corrsteer report`."""
    run, folder = load_run(options.run), Path(options.out or options.run)
    paths = [write(run, folder)]
    if options.figures:
        paths += write_figures(run, folder / "figures")
    say(map(str, paths))
