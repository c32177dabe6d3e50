"""Tasks by name or file: one module a benchmark, and the registry of their names.

Changes when a task gets a name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Unpack

from corrsteer.errors import DataError, SettingsError, unknown
from corrsteer.everyday.families import FAMILIES as EVERYDAY
from corrsteer.files import expanded
from corrsteer.samples import Sample
from corrsteer.scoring.base import Scorer
from corrsteer.scoring.registry import load_scorer
from corrsteer.tasks import bbq, everyday, hub, jsonl, mini
from corrsteer.tasks.base import Task, TaskOptions
from corrsteer.tasks.chats import as_chat
from corrsteer.tasks.examples import with_examples
from corrsteer.tasks.gsm8k import GSM8K
from corrsteer.tasks.harmbench import HARMBENCH
from corrsteer.tasks.mmlu import MMLU
from corrsteer.tasks.mmlu_pro import MMLU_PRO
from corrsteer.tasks.rated import ReplyFields, check_rated
from corrsteer.tasks.repeats import told_repeats
from corrsteer.tasks.rows import TASK_FILES, check_there, is_task_file
from corrsteer.tasks.simpleqa import SIMPLEQA
from corrsteer.tasks.xstest import XSTEST

__all__ = ["Sample", "Task", "TaskOptions", "check_task_name", "known_tasks", "load_task"]

_BENCHMARKS = {
    each.name: each
    for each in (
        MMLU,
        MMLU_PRO,
        bbq.AMBIG,
        bbq.DISAMBIG,
        HARMBENCH,
        XSTEST,
        SIMPLEQA,
        GSM8K,
    )
}


def known_tasks() -> dict[str, str]:
    """Name -> description of every task that is known by name."""
    built_in = {name: mini.DESCRIPTIONS[name] for name in mini.NAMES}
    built_in |= {name: family.description for name, family in EVERYDAY.items()}
    return built_in | {name: each.description for name, each in _BENCHMARKS.items()}


def load_task(
    name: str | Path,
    scorer: str | None = None,
    seed: int = 42,
    max_new_tokens: int | None = None,
    data: str | Path | None = None,
    few: int = 0,
    chat: bool | Mapping[str, Any] = False,
    select_token: bool = False,
    **fields: Unpack[ReplyFields],
) -> Task:
    """The task of that name, or the one that a file of rows describes.

    Args:
        name: a known name, or the path of a file: JSON Lines, JSON, CSV, Parquet, or a log of
            lm-evaluation-harness or Inspect.
        scorer: judges replies in place of the task's own; see `scoring.load_scorer`.
        seed: of splits that are cut here, and of the order of those that are not.
        max_new_tokens: longest reply, in place of the task's own.
        data: a folder with a local copy of a benchmark, read in place of the hub.
        few: number of solved examples in front of every prompt.
        chat: whether prompts are rendered by the model's own chat template; a mapping says so too,
            and is what the template is given beside the messages, as `{"enable_thinking": False}`.
        select_token: whether a reply is chosen among the options' letters alone, whatever else
            the model would rather say.
        fields: where rows hold replies that were rated; see `ReplyFields`.

    Raises:
        UnknownNameError: nothing is known under that name.
        DataError: the file or data set cannot be had or used.
        ScorerError: the scorer cannot be loaded.
        SettingsError: an option has a value that is not allowed for this task.
    """
    if max_new_tokens is not None and max_new_tokens < 1:
        raise SettingsError(f"max_new_tokens is {max_new_tokens}; choose 1 or more")
    judge = load_scorer(scorer) if scorer is not None else None
    path, own = expanded(name), is_task_file(name)
    if data is not None and str(name) not in _BENCHMARKS:
        raise SettingsError(f"--data is for benchmarks of the hub ({', '.join(_BENCHMARKS)})")
    if own:
        task = jsonl.load(path, judge, seed, max_new_tokens, fields)
    else:
        task = _load_known(str(name), seed, None if data is None else expanded(data), judge)
        if max_new_tokens is not None:
            task = replace(task, max_new_tokens=max_new_tokens)
    if select_token and (not task.letters or task.max_new_tokens != 1):
        raise SettingsError(
            f"{task.name} is not answered by one letter; --select-token is for multiple choice "
            "of one token"
        )
    check_rated(task, fields)
    splits = {"fit": task.fit, "select": task.select, "test": task.test}
    task = replace(task, repeats=told_repeats(task.name, splits, near=own))
    task = with_examples(task, few)
    is_chat, asked = (chat, {}) if isinstance(chat, bool) else (True, dict(chat))
    folder = None if data is None else str(data)
    options = TaskOptions(few, is_chat, select_token, folder, asked, **fields)
    return replace(as_chat(task, asked) if is_chat else task, options=options)


def data_files(name: str, data: Path) -> list[Path]:
    """The files that `load_task` reads of a local copy of a benchmark; none of another task.

    Raises:
        DataError: the folder does not exist.
    """
    known = _BENCHMARKS.get(name)
    return [] if known is None else hub.files_read(known.source, known.splits, data)


def own_guards(
    task: Task, seed: int = 42, data: Mapping[str, str | None] = MappingProxyType({})
) -> list[Task]:
    """The guards that a task has by itself.

    Args:
        task: steering is for it.
        seed: see `load_task`.
        data: name of a guard -> folder with a local copy.

    Raises:
        DataError: the data of one cannot be had.
    """
    guards = []
    for name in task.guards:
        try:
            guards.append(load_task(name, seed=seed, data=data.get(name)))
        except DataError as error:
            raise DataError(
                f"{task.name} is guarded by {name}, whose data cannot be had: {error}; give them "
                f"by --data {name}=FOLDER, or go without by --guard none (guards=())"
            ) from error
    return guards


def check_task_name(name: str) -> None:
    """Refuse what can be no task, before anything is loaded.

    Raises:
        UnknownNameError: nothing is known under that name.
        DataError: a file that is not there, or not a `.jsonl` file.
    """
    if is_task_file(name):
        check_there(expanded(name))
        return
    if name in _BENCHMARKS or name in mini.NAMES or name in EVERYDAY:
        return
    if os.path.exists(name):  # noqa: PTH110
        raise DataError(f"{name!r} is no .jsonl file; expected rows in {TASK_FILES}")
    remedy = "see `corrsteer tasks`, or give a .jsonl file"
    raise unknown("task", name, list(known_tasks()), remedy)


def _load_known(name: str, seed: int, data: Path | None, scorer: Scorer | None) -> Task:
    check_task_name(name)
    if name in _BENCHMARKS:
        return _BENCHMARKS[name].load(seed, data, scorer)
    if name in EVERYDAY:
        return everyday.load(name, seed, scorer)
    return mini.load(name, scorer)
