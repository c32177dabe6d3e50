"""What `corrsteer select` and `corrsteer merge` do.

Changes when an option of theirs means something else.
"""

from __future__ import annotations

from pathlib import Path

from corrsteer.cli.common import emit, quietly
from corrsteer.cli.declare import settings_in
from corrsteer.cli.options import MergeOptions, SelectOptions
from corrsteer.cli.terminal import print_run
from corrsteer.method.reselect import merge, select
from corrsteer.report import write as write_report
from corrsteer.runs.document import run_document
from corrsteer.runs.folder import claim_folder, load_run
from corrsteer.runs.run import Run
from corrsteer.settings import FitSettings


def run_select(options: SelectOptions) -> None:
    """`corrsteer select`."""
    out, run = options.out, load_run(options.run)
    if out is not None:
        claim_folder(out)
    with quietly():
        _finish(select(run, **settings_in(options, FitSettings)), out, options.as_json)


def run_merge(options: MergeOptions) -> None:
    """`corrsteer merge`."""
    claim_folder(options.out)
    runs = {name: load_run(name) for name in options.runs}
    with quietly():
        _finish(merge(runs, **settings_in(options, FitSettings)), options.out, options.as_json)


def _finish(run: Run, out: Path | None, as_json: bool) -> None:
    """Write the run, if it is to be, and tell of it."""
    if out is not None:
        run.save(out)
        write_report(run, out)
    emit(run_document(run, None if out is None else str(out), None), as_json, print_run)
