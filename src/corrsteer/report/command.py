"""The command line that makes a run again.

Changes when `train` gets another option.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from corrsteer.runs.run import Run
from corrsteer.settings import FitSettings
from corrsteer.tasks.chats import written_option

ALWAYS = ("strategy", "samples", "seed")
"""Settings that are written out even where they are the default."""

NO_OPTION = ("near_ties", "guard_tolerance", "alpha")
"""Settings that only Python can change."""

OF_MERGE = ("strategy", "method", "sign", "coefficient", "min_frequency", "strength")
"""Settings that a merge may change; the others are those of its runs."""


def reproduce(run: Run) -> str | None:
    """The `corrsteer train` that makes the run again, or `merge`, quoted for a shell.

    Returns:
        None for a steering alone, which does not say what it was fitted on.
    """
    made = run.provenance
    if not made.task:
        return None
    if run.counts.merged:
        return _merge(run)
    options = {"model": made.model, **_sae_options(run), "task": made.task}
    options |= {"scorer": made.scorer, "max_new_tokens": made.max_new_tokens}
    asked = dataclasses.asdict(made.task_options)
    options |= {name: value for name, value in asked.items() if value or isinstance(value, float)}
    given = options.pop("template_options", {})
    options["template_option"] = [written_option(*option) for option in given.items()]
    options |= {"guard": ",".join(made.guards) or "none"}
    if run.counts.collected:
        options["collected"] = run.counts.collected
    for name, value in changed_settings(run.settings).items():
        if name not in NO_OPTION:
            options[name] = value
    words = ["corrsteer", "train", *_words(options)]
    if run.evaluation is None:
        words.append("--no-eval")
    return shlex.join(words)


def _merge(run: Run) -> str:
    changed = changed_settings(run.settings)
    options = {name: changed[name] for name in OF_MERGE if name in changed}
    words = ["corrsteer", "merge", *run.counts.merged, *_words(options)]
    return shlex.join([*words, "--out", "runs/merged"])


def _words(options: Mapping[str, Any]) -> list[str]:
    """An option for each, and one for each of a list."""
    words = []
    for name, value in options.items():
        for each in value if isinstance(value, list) else [value]:
            words.append(("--no-" if each is False else "--") + name.replace("_", "-"))
            if not isinstance(each, bool):
                words.append(_text(each))
    return words


def beyond_options(run: Run) -> dict[str, Any]:
    """Changed settings that the command line cannot ask for."""
    changed = changed_settings(run.settings)
    return {name: changed[name] for name in NO_OPTION if name in changed}


def changed_settings(settings: FitSettings) -> dict[str, Any]:
    """Settings that are not the default, and those of `ALWAYS`."""
    return {
        field.name: value
        for field in dataclasses.fields(settings)
        for value in [getattr(settings, field.name)]
        if field.name in ALWAYS or value != field.default
    }


def _sae_options(run: Run) -> dict[str, Any]:
    made = run.provenance
    options: dict[str, Any] = {}
    if made.sae_source == "raw":
        options["raw"] = True
    elif made.sae_source not in (None, made.model):
        options["sae"] = made.sae_source
    if made.hook_shift:
        options["hook_shift"] = made.hook_shift
    return options


def _text(value: Any) -> str:
    return ",".join(map(_text, value)) if isinstance(value, tuple) else str(value)
