"""What `export` and `verify` do.

Changes when an option of theirs means something else.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence

from corrsteer.cli.options import ExportOptions, VerifyOptions
from corrsteer.cli.output import print_json, say
from corrsteer.cli.terminal import print_verification
from corrsteer.demo.space import write_space
from corrsteer.errors import SettingsError
from corrsteer.export import export, find_consumer
from corrsteer.export.verify import Installation, verify
from corrsteer.lm.models import LanguageModel, load_model
from corrsteer.method.provenance import check_own_model
from corrsteer.runs.folder import load_run
from corrsteer.runs.run import Run
from corrsteer.samples import Sample

SPACE = "space"
"""What `--to` takes for a run as a Space: no program that steers, but a page that shows it."""

PROMPTS = 4
"""Of the run's test split, tried where none are given."""


def run_export(options: ExportOptions) -> None:
    """`corrsteer export`."""
    if options.to == SPACE:
        strength, notes = _export_space(options)
    else:
        strength, notes = _export_steering(options)
    document = {
        "schema": "corrsteer.export/1",
        "run": options.run,
        "to": options.to,
        "out": str(options.out),
        "strength": strength,
        "notes": notes,
    }
    if options.as_json:
        print_json(document)
    else:
        say((f"{options.out} (strength {strength:g})", *notes))


def _export_steering(options: ExportOptions) -> tuple[float, tuple[str, ...]]:
    """Write the steering for a consumer; gives its strength, and what is not as in the run."""
    find_consumer(options.to, others=(SPACE,))
    steering = load_run(options.run).described()
    if options.strength is not None:
        steering = steering.at(options.strength)
    exported = export(steering, options.to, options.out, options.drop_block_0)
    return steering.strength, exported.notes


def _export_space(options: ExportOptions) -> tuple[float, tuple[str, ...]]:
    """Write the run as a Space; gives its strength, and what to do with it."""
    if options.strength is not None or options.drop_block_0:
        raise SettingsError(
            "--to space shows the whole run, and its page has layers and strength to change; "
            "leave out --strength and --drop-block-0"
        )
    run = load_run(options.run)
    folder = write_space(run, options.out)
    place = shlex.quote(str(folder))
    notes = (
        f"see it here: cd {place} && python app.py",
        f"publish it: hf upload YOU/NAME {place} --repo-type space",
    )
    return run.steering.strength, notes


def run_verify(options: VerifyOptions) -> None:
    """`corrsteer verify`."""
    consumer = find_consumer(options.consumer)
    run = load_run(options.run)
    name = options.model or run.steering.model
    if not name:
        raise SettingsError("which model? the steering does not say; give --model NAME")
    own = run.steering.revision if options.model is None else None
    if options.model is None:
        check_own_model(run)
    lm = load_model(
        name,
        dtype="float32",
        device="cpu",
        revision=options.revision or own,
        prepend_bos=run.provenance.prepend_bos,
    )
    steering = run.described()
    if options.strength is not None:
        steering = steering.at(options.strength)
    found = verify(
        lm,
        steering,
        consumer,
        _prompts(lm, run, options.prompts),
        max_new_tokens=options.max_new_tokens,
        installation=Installation(options.python or sys.executable, options.model_path),
        drop_block_0=options.drop_block_0,
        tolerance=options.tolerance,
    )
    document = {
        "schema": "corrsteer.verify/1",
        "run": options.run,
        "model": {"id": lm.id, "revision": lm.revision},
        "strength": steering.strength,
        **dataclasses.asdict(found),
        "passed": found.passed,
    }
    if options.as_json:
        print_json(document)
    else:
        print_verification(document)
    sys.exit(0 if found.passed else 1)


def _prompts(lm: LanguageModel, run: Run, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of the prompts given, or of some of the run's test split."""
    texts = texts or [row.prompt for row in run.predictions[:PROMPTS]]
    if not texts:
        raise SettingsError("the run has no test samples to try; give --prompt TEXT")
    return [lm.prompt_ids(Sample(str(index), text)) for index, text in enumerate(texts)]
