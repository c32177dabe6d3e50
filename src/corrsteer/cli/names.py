"""What `corrsteer models` and `corrsteer tasks` do.

Changes when a list of names says more. Nothing heavy is imported.
"""

from __future__ import annotations

import json
import sys

from corrsteer.cli.options import ListOptions
from corrsteer.cli.terminal import print_names
from corrsteer.lm.known_models import KNOWN_MODELS
from corrsteer.tasks import known_tasks


def list_models(options: ListOptions) -> None:
    """`corrsteer models`."""
    _emit("Models", {model.name: model.description for model in KNOWN_MODELS.values()}, options)


def list_tasks(options: ListOptions) -> None:
    """`corrsteer tasks`."""
    _emit("Tasks", known_tasks(), options)


def _emit(title: str, described: dict[str, str], options: ListOptions) -> None:
    rows = [{"name": name, "description": text} for name, text in described.items()]
    if options.as_json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        print_names(title, rows)
