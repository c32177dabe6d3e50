"""What a run is made from: model, SAEs, task and library versions.

Changes when a run records more of where it came from.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from corrsteer.lm.models import LanguageModel
from corrsteer.lm.saes import SAEHandle
from corrsteer.runs.run import Provenance
from corrsteer.tasks import Task

log = logging.getLogger(__name__)

LIBRARIES = ("corrsteer", "torch", "transformers", "sae-lens", "numpy", "scipy", "safetensors")


def provenance_of(
    lm: LanguageModel, task: Task, guards: Sequence[Task], handles: Sequence[SAEHandle]
) -> Provenance:
    """What a run on these SAEs is made from."""
    return Provenance(
        model=lm.id,
        revision=lm.revision,
        sae_source=lm.sae_source,
        sae_ids={handle.hook_point.name: handle.source for handle in handles},
        hook_shift=lm.hook_shift,
        task=task.name,
        scorer=task.scorer.name,
        max_new_tokens=task.max_new_tokens,
        guards=tuple(guard.name for guard in guards),
        task_options=task.options,
        prepend_bos=lm.prepend_bos,
        versions=library_versions(),
    )


def library_versions() -> dict[str, str]:
    """The versions of what computes a run's numbers, of those installed."""
    return {name: found for name in LIBRARIES if (found := _version(name))}


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
