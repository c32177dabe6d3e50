"""What a run is made from: model, SAEs, task and library versions, by name and by content.

Changes when a run records more of where it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from corrsteer.errors import ArtifactError, ModelError
from corrsteer.lm.known_models import model_folder
from corrsteer.lm.models import ModelFacts
from corrsteer.lm.saes import SAEHandle
from corrsteer.runs.content import Content
from corrsteer.runs.digests import digest_of, folder_digest, joint_digest, model_files
from corrsteer.runs.identity import difference
from corrsteer.runs.run import Provenance, Run
from corrsteer.samples import Sample
from corrsteer.tasks import Task, hub

LIBRARIES = ("corrsteer", "torch", "transformers", "sae-lens", "numpy", "scipy", "safetensors")


def provenance_of(
    model: ModelFacts, task: Task, guards: Sequence[Task], handles: Sequence[SAEHandle]
) -> Provenance:
    """What a run on these SAEs is made from.

    Raises:
        ArtifactError: a file of the model or of an SAE cannot be read.
    """
    return Provenance(
        model=model.id,
        revision=model.revision,
        sae_source=model.sae_source,
        sae_ids={handle.hook_point.name: handle.source for handle in handles},
        hook_shift=model.hook_shift,
        task=task.name,
        scorer=task.scorer.name,
        max_new_tokens=task.max_new_tokens,
        guards=tuple(guard.name for guard in guards),
        task_options=task.options,
        prepend_bos=model.prepend_bos,
        switched_off=model.switched_off or (),
        versions=library_versions(),
        content=Content(
            dtype=model.dtype,
            model=model_digests(model.id),
            saes=sae_digests(handles),
            scorer=getattr(task.scorer, "source", ""),
            samples=sample_digests(task, guards),
        ),
    )


def reading_header(model: ModelFacts) -> dict[str, Any]:
    """What replies depend on beside prompts and steering, as JSON."""
    return {
        "model": model.id,
        "revision": model.revision,
        "files": model_digests(model.id),
        "dtype": model.dtype,
        "versions": library_versions(),
    }


def model_digests(name: str) -> dict[str, str]:
    """File -> digest of a model in a folder; empty for one of the hub, which has a commit.

    Raises:
        ArtifactError: a file cannot be read.
    """
    folder = model_folder(name)
    try:
        return {} if folder is None else model_files(folder)
    except OSError as error:
        raise _unreadable(folder, error) from error


def check_own_model(run: Run) -> None:
    """Refuse a run whose model's files are not what they were when it was made.

    Raises:
        ModelError: names the first that is not.
    """
    made = run.provenance
    now = model_digests(made.model)
    changed = difference({"files": made.content.model}, {"files": now})
    if made.content.model and now and changed is not None:  # one that is gone cannot be loaded
        raise ModelError(
            f"{made.model[:300]} is not the model any more that the run was made on ({changed}); "
            "bring that back, or train again"
        )


def data_digest(path: Path) -> str:
    """The digest of a file of rows, or of all in a folder.

    Raises:
        ArtifactError: one cannot be read.
    """
    try:
        return folder_digest(path, hub.READERS) if path.is_dir() else joint_digest([path])
    except OSError as error:
        raise _unreadable(path, error) from error


def sae_digests(handles: Sequence[SAEHandle]) -> dict[str, str]:
    """Hook point -> digest of the SAE's files, or its commit; of those that have either.

    Raises:
        ArtifactError: a file cannot be read.
    """
    found = {}
    for handle in handles:
        try:
            told = joint_digest(handle.files) if handle.files else handle.revision
        except OSError as error:
            raise _unreadable(handle.files[0].parent, error) from error
        if told is not None:
            found[handle.hook_point.name] = told
    return found


def sample_digests(task: Task, guards: Sequence[Task]) -> dict[str, str]:
    """Split -> digest of a task's samples, and guard -> of all of its own."""
    splits = {"fit": task.fit, "select": task.select, "test": task.test}
    of_guards = {f"{each.name} guard": (*each.fit, *each.select, *each.test) for each in guards}
    return {name: _samples_digest(samples) for name, samples in (splits | of_guards).items()}


def _samples_digest(samples: Sequence[Sample]) -> str:
    # empty fields are left out, so that another one in a later version changes nothing
    rows = [{key: value for key, value in vars(each).items() if value} for each in samples]
    return digest_of(repr(rows).encode())


def _unreadable(folder: Path | None, error: OSError) -> ArtifactError:
    return ArtifactError(f"{folder} cannot be read ({error.strerror or error}); check its files")


def library_versions() -> dict[str, str]:
    """The versions of what computes a run's numbers, of those installed."""
    return {name: found for name in LIBRARIES if (found := _version(name))}


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
