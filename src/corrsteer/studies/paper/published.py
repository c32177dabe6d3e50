"""What the paper published, to stand beside what was measured for the same model and task.

Changes when the paper has other numbers. They are in `published.json`: accuracies and standard
deviations in percent, SER and correlations as they are.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from corrsteer.errors import unknown
from corrsteer.lm.known_models import canonical_name
from corrsteer.runs.run import Run


@cache
def _document() -> dict[str, Any]:
    text = files("corrsteer.studies.paper").joinpath("published.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def source() -> tuple[str, str]:
    """The paper, and its address."""
    return _document()["source"], _document()["address"]


def published(model: str) -> dict[str, Any]:
    """The paper's numbers for a model, by kind and task; empty for a model that it has none of.

    Args:
        model: a known name, hub id or folder.
    """
    for name, numbers in _document()["models"].items():
        if canonical_name(name) == canonical_name(model):
            found: dict[str, Any] = numbers
            return found
    return {}


def paper_latents(model: str, task: str) -> list[tuple[int, int, float]]:
    """The best feature of every layer that the paper has: layer, latent, coefficient.

    Args:
        model: a known name, hub id or folder.
        task: a known name.

    Raises:
        UnknownNameError: the paper has none of that model, or of that task.
    """
    text = files("corrsteer.studies.paper").joinpath("features.json").read_text(encoding="utf-8")
    by_model = json.loads(text)["models"]
    for name, tasks in by_model.items():
        if canonical_name(name) == canonical_name(model):
            if task in tasks:
                return [(layer, latent, c) for layer, latent, c, _ in tasks[task]]
            raise unknown("task", task, list(tasks), f"the paper has {', '.join(tasks)}")
    raise unknown("model", model, list(by_model), f"the paper has {', '.join(by_model)}")


def published_features(model: str, task: str, run: Run) -> list[dict[str, Any]]:
    """The features that the paper names for a task, with their r there and in a run.

    Args:
        model: of the run.
        task: of the run.
        run: its SAEs are taken to be the paper's, Gemma Scope's of 16k latents.
    """
    named = published(model).get("features", {}).get(task, [])
    layers = {each[0].layer: name for name, each in run.top_features.items() if each}
    found = []
    for layer, latent, theirs in named:
        statistics = run.statistics.get(layers.get(layer, ""))
        known = statistics is not None and latent < statistics.d_sae
        ours = float(statistics.correlation()[latent]) if statistics and known else None
        found.append({"layer": layer, "latent": latent, "published": theirs, "measured": ours})
    return found
