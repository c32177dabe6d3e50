"""What `corrsteer sft` does.

Changes when an option of it means something else.
"""

from __future__ import annotations

from typing import Literal

from corrsteer.cli.common import emit, guards_of, model_asked, new_folder, quietly, task_of
from corrsteer.cli.declare import settings_in
from corrsteer.cli.options import SftOptions
from corrsteer.cli.terminal import TerminalProgress, print_tuning
from corrsteer.studies.fine_tuning import (
    TuningSettings,
    check_installed,
    claim_new_folder,
    fine_tune,
)
from corrsteer.timing import Stopwatch


def run_sft(options: SftOptions) -> None:
    """`corrsteer sft`."""
    check_installed()
    method: Literal["lora", "full"] = "lora" if options.lora else "full"
    settings = TuningSettings(method=method, **settings_in(options, TuningSettings))
    task = task_of(options.task, options.setup)
    guards = guards_of(options.guard, task, options.setup)
    out = options.out or new_folder(task)
    claim_new_folder(out)
    watch = Stopwatch()
    with quietly(), TerminalProgress() as progress:
        with watch.timing("load"), progress.stage("load model", None):
            lm = model_asked(options.model, options.task)
        document = fine_tune(lm, task, guards, settings, out, progress=progress, watch=watch)
    emit(document, options.as_json, print_tuning)
