"""What `export` and `verify` do.

Changes when an option of theirs means something else.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from corrsteer.artifacts import Run, load_run, to_json
from corrsteer.cli.terminal import print_verification
from corrsteer.errors import SettingsError
from corrsteer.export import export, find_consumer
from corrsteer.export.verify import verify
from corrsteer.models import LanguageModel, load_model
from corrsteer.samples import Sample

Options = Mapping[str, Any]

PROMPTS = 4
"""Of the run's test split, tried where none are given."""


def run_export(options: Options) -> None:
    """`corrsteer export`."""
    find_consumer(options["to"])
    steering = load_run(options["run"]).described()
    if options["strength"] is not None:
        steering = steering.at(options["strength"])
    exported = export(steering, options["to"], options["out"], options["drop_block_0"])
    document = {
        "schema": "corrsteer.export/1",
        "run": options["run"],
        "to": options["to"],
        "out": str(options["out"]),
        "strength": steering.strength,
        "notes": exported.notes,
    }
    if options["as_json"]:
        sys.stdout.write(to_json(document))
    else:
        lines = (f"{options['out']} (strength {steering.strength:g})", *exported.notes)
        sys.stdout.write("".join(f"{line}\n" for line in lines))


def run_verify(options: Options) -> None:
    """`corrsteer verify`."""
    consumer = find_consumer(options["consumer"])
    run = load_run(options["run"])
    name = options["model"] or run.steering.model
    if not name:
        raise SettingsError("which model? the steering does not say; give --model NAME")
    own = run.steering.revision if options["model"] is None else None
    lm = load_model(name, dtype="float32", device="cpu", revision=options["revision"] or own)
    steering = run.described()
    if options["strength"] is not None:
        steering = steering.at(options["strength"])
    found = verify(
        lm,
        steering,
        consumer,
        _prompts(lm, run, options["prompts"]),
        max_new_tokens=options["max_new_tokens"],
        python=options["python"] or sys.executable,
        model_path=options["model_path"],
        drop_block_0=options["drop_block_0"],
        tolerance=options["tolerance"],
    )
    document = {
        "schema": "corrsteer.verify/1",
        "run": options["run"],
        "model": {"id": lm.id, "revision": lm.revision},
        "strength": steering.strength,
        **dataclasses.asdict(found),
        "passed": found.passed,
    }
    if options["as_json"]:
        sys.stdout.write(to_json(document))
    else:
        print_verification(document)
    sys.exit(0 if found.passed else 1)


def _prompts(lm: LanguageModel, run: Run, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of the prompts given, or of some of the run's test split."""
    texts = texts or [row["prompt"] for row in run.predictions[:PROMPTS]]
    if not texts:
        raise SettingsError("the run has no test samples to try; give --prompt TEXT")
    return [lm.prompt_ids(Sample(str(index), text)) for index, text in enumerate(texts)]
