"""What a run is made from: model, SAEs, task and library versions, by name and by content.

Changes when a run records more of where it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from corrsteer.errors import ArtifactError, DataError, ModelError
from corrsteer.files import expanded, regular
from corrsteer.lm.gguf import SUFFIX
from corrsteer.lm.known_models import model_folder
from corrsteer.lm.models import ModelFacts
from corrsteer.lm.saes import SAEHandle
from corrsteer.runs.content import Content
from corrsteer.runs.digests import (
    digest_of,
    file_digest,
    folder_digest,
    joint_digest,
    model_files,
    whole_digest,
)
from corrsteer.runs.identity import difference
from corrsteer.runs.run import Provenance, Run
from corrsteer.samples import Sample
from corrsteer.tasks import Task, data_files, hub
from corrsteer.tasks.rows import check_there, is_task_file

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
            task_file=task_file_digest(task.name),
            task_data=task_data_digest(task.name, task.options.data),
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
    """File -> digest of a model in files; empty for one of the hub, which has a commit.

    Raises:
        ArtifactError: a file cannot be read.
    """
    folder, file = model_folder(name), Path(name)
    try:
        if folder is None:  # a GGUF file, or a model of the hub
            return {file.name: file_digest(file)} if file.suffix == SUFFIX else {}
        return model_files(folder)
    except OSError as error:
        raise _unreadable(folder or file, error) from error


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


def task_file_digest(name: str) -> str:
    """The digest of a task's file; "" for a task that is known by name, or where none is.

    Raises:
        ArtifactError: it cannot be read.
    """
    path = expanded(name)
    try:
        return whole_digest(path) if is_task_file(path) and path.is_file() else ""
    except OSError as error:
        raise _unreadable(path, error) from error


def task_data_digest(name: str, data: str | None) -> str:
    """The digest of what a task reads of a local copy; "" where it reads none.

    Raises:
        DataError: the folder does not exist.
        ArtifactError: a file cannot be read.
    """
    if data is None:
        return ""
    folder = expanded(data)
    try:
        files = [regular(path) for path in data_files(name, folder)]
        return digest_of("".join(f"{path.name} {whole_digest(path)}\n" for path in files).encode())
    except OSError as error:
        raise _unreadable(folder, error) from error


def is_own_task(run: Run, name: str) -> bool:
    """Whether a task is what a run was made on, by its name or, wherever it lies, its file."""
    made = run.provenance
    if str(expanded(name)) == made.task:
        return True
    return bool(made.content.task_file) and task_file_digest(name) == made.content.task_file


def file_changed(run: Run) -> bool:
    """Whether the file that a run names is known not to be the one that it was made on."""
    recorded = run.provenance.content.task_file
    return bool(recorded) and task_file_digest(run.provenance.task) != recorded


def check_own_task(run: Run) -> None:
    """Refuse to read the file that a run names, unless it is the one that the run was made on.

    A run may come from anybody, and name any file.

    Raises:
        DataError: it is not there, is another one, or cannot be told from others.
    """
    name, recorded = run.provenance.task, run.provenance.content.task_file
    path = expanded(name)
    if not is_task_file(path):
        return
    check_there(path, "the run was made on it: give it by --task, wherever it is now")
    if recorded and not file_changed(run):
        return
    why = "is another one now" if recorded else "it tells nothing of"
    raise DataError(f"the run names the file {name}, which {why}; to read it, give --task {name}")


def check_own_data(run: Run) -> None:
    """Refuse to read the local copy that a run names, as `check_own_task` refuses its file.

    Raises:
        DataError: it is not there, is another one, or cannot be told from others.
        ArtifactError: a file of it cannot be read.
    """
    made, recorded = run.provenance, run.provenance.content.task_data
    data = made.task_options.data
    if data is None or (recorded and task_data_digest(made.task, data) == recorded):
        return
    why = "holds other rows now" if recorded else "it tells nothing of"
    raise DataError(f"the run names the folder {data}, which {why}; to read it, give --data {data}")


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
