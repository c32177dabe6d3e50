"""Tasks by name or file: one module a family of tasks, and the registry of their names.

Changes when a task gets a name.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from corrsteer.errors import DataError, SettingsError, unknown
from corrsteer.samples import Sample
from corrsteer.scoring import load_scorer
from corrsteer.tasks import jsonl, mini
from corrsteer.tasks.base import Task

__all__ = ["Sample", "Task", "known_tasks", "load_task"]


def known_tasks() -> dict[str, str]:
    """Name -> description of every task that is known by name."""
    return {name: mini.DESCRIPTIONS[name] for name in mini.NAMES}


def load_task(
    name: str | Path,
    scorer: str | None = None,
    seed: int = 42,
    max_new_tokens: int | None = None,
) -> Task:
    """The task of that name, or the one that a `.jsonl` file describes.

    Args:
        name: a known name, or the path of a `.jsonl` file.
        scorer: judges replies in place of the task's own; see `scoring.load_scorer`.
        seed: of splits that are cut here.
        max_new_tokens: longest reply, in place of the task's own.

    Raises:
        UnknownNameError: nothing is known under that name.
        DataError: the file cannot be used.
        ScorerError: the scorer cannot be loaded.
    """
    if max_new_tokens is not None and max_new_tokens < 1:
        raise SettingsError(f"max_new_tokens is {max_new_tokens}; choose 1 or more")
    judge = load_scorer(scorer) if scorer is not None else None
    path = Path(name)
    if path.suffix == ".jsonl":
        return jsonl.load(path, judge, seed, max_new_tokens)
    if str(name) not in known_tasks():
        if path.exists():
            raise DataError(f"{name} is no .jsonl file; expected JSON Lines, one object a line")
        remedy = "see `corrsteer tasks`, or give a .jsonl file"
        raise unknown("task", str(name), list(known_tasks()), remedy)
    task = mini.load(str(name))
    if judge is not None:
        task = replace(task, scorer=judge)
    if max_new_tokens is not None:
        task = replace(task, max_new_tokens=max_new_tokens)
    return task
