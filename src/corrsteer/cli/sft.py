"""What `corrsteer sft` does.

Changes when an option of it means something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corrsteer.cli.run import (
    _emit,
    _load_guards,
    _load_model,
    _load_task,
    _new_folder,
    _quietly,
    _seeded,
)
from corrsteer.cli.terminal import TerminalProgress, print_tuning
from corrsteer.studies.fine_tuning import (
    TuningSettings,
    check_installed,
    claim_new_folder,
    fine_tune,
)
from corrsteer.timing import Stopwatch

Options = Mapping[str, Any]

SAME = (
    "samples",
    "epochs",
    "steps",
    "learning_rate",
    "train_batch_size",
    "lora_rank",
    "refusal_text",
    "answer_text",
    "test_limit",
    "seed",
    "batch_size",
)
"""Options that are settings of the same name."""


def run_sft(options: Options) -> None:
    """`corrsteer sft`."""
    check_installed()
    options = _seeded(options, TuningSettings.seed)
    given = {name: options[name] for name in SAME if options[name] is not None}
    settings = TuningSettings(method="lora" if options["lora"] else "full", **given)
    task = _load_task(options["task"], options)
    guards = _load_guards(options["guard"], task, options)
    out = options["out"] or _new_folder(task)
    claim_new_folder(out)
    watch = Stopwatch()
    with _quietly(), TerminalProgress() as progress:
        with watch.timing("load"), progress.stage("load model", None):
            lm = _load_model(options)
        document = fine_tune(lm, task, guards, settings, out, progress=progress, watch=watch)
    _emit(document, options["as_json"], print_tuning)
