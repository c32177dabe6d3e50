"""What `export` and `verify` do.

Changes when an option of theirs means something else.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from corrsteer.artifacts import load_run, to_json
from corrsteer.export import export, find_consumer

Options = Mapping[str, Any]


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
