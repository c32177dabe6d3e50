"""What `corrsteer select` and `corrsteer merge` do.

Changes when an option of theirs means something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corrsteer.cli.run import _emit, _quietly
from corrsteer.cli.terminal import print_run
from corrsteer.method.reselect import merge, select
from corrsteer.report import write as write_report
from corrsteer.runs.document import run_document
from corrsteer.runs.folder import claim_folder, load_run
from corrsteer.runs.run import Run

Options = Mapping[str, Any]

CHANGES = ("method", "sign", "coefficient", "min_frequency", "strategy", "strength")
"""Options that are settings; what is not given stays as it was in the run."""


def run_select(options: Options) -> None:
    """`corrsteer select`."""
    out, run = options["out"], load_run(options["run"])
    if out is not None:
        claim_folder(out)
    with _quietly():
        _finish(select(run, **_changes(options)), out, options["as_json"])


def run_merge(options: Options) -> None:
    """`corrsteer merge`."""
    claim_folder(options["out"])
    runs = {name: load_run(name) for name in options["runs"]}
    with _quietly():
        _finish(merge(runs, **_changes(options)), options["out"], options["as_json"])


def _changes(options: Options) -> dict[str, Any]:
    return {name: options[name] for name in CHANGES if options[name] is not None}


def _finish(run: Run, out: Path | None, as_json: bool) -> None:
    """Write the run, if it is to be, and tell of it."""
    if out is not None:
        run.save(out)
        write_report(run, out)
    _emit(run_document(run, None if out is None else str(out), None), as_json, print_run)
