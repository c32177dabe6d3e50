"""Steer the built-in model on every mini task, with one or more sets of SAEs.

    python benchmarks/mini_tasks.py                                  # the shipped SAEs
    python benchmarks/mini_tasks.py --saes /tmp/mini-1/saes /tmp/mini-2/saes

Each row is one `corrsteer train` with its defaults. Prints Markdown: the baseline, S, A and P at
strength 1, the other arms at their own, what was recommended, its change with interval, SER, the
random controls and the guards, all on the test split.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from corrsteer import FitSettings, load_model, load_task
from corrsteer.errors import InsufficientDataError
from corrsteer.method.train import train
from corrsteer.mini import SAE_DIR
from corrsteer.mini.corpus import FAMILIES
from corrsteer.runs.records import as_json
from corrsteer.settings import DEFAULT_ARMS

COLUMNS = (
    "SAEs", "task", "baseline", *DEFAULT_ARMS, "recommended", "steered", "change [95 %]",
    "SER", "random mean / best", "guards",
)  # fmt: skip


def row(saes: str, document: dict[str, Any]) -> list[str]:
    """One line of the table."""
    recommended, random = document["recommended"], document["controls"]["random"]
    strategies = [
        f"{document['strategies'][name]['steered']['accuracy']:.3f}" for name in DEFAULT_ARMS
    ]
    head = [saes, document["task"]["name"], f"{document['baseline']['accuracy']:.3f}", *strategies]
    if recommended is None:
        return [*head, "none", "-", "-", "-", "-", "-"]
    delta, ser = document["delta"], document["side_effects"]["ser"]
    guards = [
        f"{n} {g['baseline']:.3f} -> {g['steered']:.3f}" for n, g in document["guards"].items()
    ]
    return [
        *head,
        f"{recommended['strategy']} x {recommended['strength']:g}",
        f"{document['steered']['accuracy']:.3f}",
        f"{delta['value']:+.3f} [{delta['ci'][0]:+.3f}, {delta['ci'][1]:+.3f}]",
        "-" if ser is None else f"{ser:.2f}",
        f"{random['mean']:.3f} / {random['best']:.3f}",
        ", ".join(guards) or "-",
    ]


def main() -> None:
    """Print the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--saes", nargs="*", default=[str(SAE_DIR)], help="folders of SAEs")
    parser.add_argument("--tasks", nargs="*", default=list(FAMILIES))
    parser.add_argument("--json", type=Path, help="also write every run's document here")
    options = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    documents = []
    for folder in options.saes:
        lm = load_model("mini", sae=folder)
        for name in options.tasks:
            task = load_task(name)
            guards = [load_task(guard) for guard in task.guards]
            label = "shipped" if Path(folder) == SAE_DIR else Path(folder).parent.name
            try:
                with tempfile.TemporaryDirectory() as out:
                    _, document = train(lm, task, guards, FitSettings(), Path(out) / "run")
            except InsufficientDataError as error:  # a task without failures is a row too
                print(f"| {label} | {name} | refused: {error} |", flush=True)
                continue
            told = as_json(document)
            documents.append(told)
            print("| " + " | ".join(row(label, told)) + " |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(documents, indent=2))


if __name__ == "__main__":
    main()
