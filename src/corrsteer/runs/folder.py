"""Run folders: the only writer and reader of what a run leaves on disk.

Changes when a run records more. Every file is written whole or not at all, `run.json` last, so a
folder with a `run.json` is a whole run. Nothing read from a folder is ever executed.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from corrsteer.errors import ArtifactError, CorrSteerError
from corrsteer.features import FEATURES, Feature
from corrsteer.files import check_place, contents, was_interrupted, whole_folder, write_whole
from corrsteer.hook_points import HookPoint
from corrsteer.json_text import is_whole, to_json
from corrsteer.runs.activation_log import LOG_FILE, OUTCOMES_FILE, ActivationLog, open_log
from corrsteer.runs.content import Extent
from corrsteer.runs.evidence import Evidence
from corrsteer.runs.identity import Identity, check_same
from corrsteer.runs.location import RUN_FILE, check_folder
from corrsteer.runs.predictions_file import (
    PREDICTIONS_FILE,
    predictions_bytes,
    read_predictions,
)
from corrsteer.runs.records import RUN_SCHEMA, RunDocument, as_json, read_run_document
from corrsteer.runs.run import Counts, Provenance, Run
from corrsteer.runs.search import SearchRecord
from corrsteer.runs.statistics_file import STATISTICS_FILE, read_statistics, statistics_bytes
from corrsteer.runs.steering import FILE_NAME, Steering
from corrsteer.settings import FitSettings
from corrsteer.stats.correlation import StreamingCorrelation

FEATURES_FILE = "features.json"
EVALUATION_FILE = "evaluation.json"
REPORT_FILE = "report.html"
FILES = (
    RUN_FILE,
    FEATURES_FILE,
    EVALUATION_FILE,
    STATISTICS_FILE,
    FILE_NAME,
    PREDICTIONS_FILE,
    LOG_FILE,
    OUTCOMES_FILE,
)
"""What is read of a run."""


def claim_folder(path: str | Path, run: Run | None = None) -> Path:
    """The folder, checked to be a place where a run may be written.

    That is a new or empty folder, one that holds nothing but a steering, one whose saving was
    interrupted, or, for `run` itself, the folder it was saved in before.

    Raises:
        ArtifactError: it is a file, holds another run or other files, or cannot be written to.
    """
    folder = check_place(path)
    if folder.is_file():
        raise ArtifactError(f"{folder} is a file; choose a folder for --out")
    names = contents(folder)
    if RUN_FILE in names:
        saved = load_run(folder)
        if run is not None:
            check_same(folder, Identity.of(saved), Identity.of(run))
        else:
            raise ArtifactError(
                f"{folder} holds a run already ({saved.provenance.task}, strategy "
                f"{saved.settings.strategy}); choose another --out, or remove it"
            )
    elif names - ({*FILES} if was_interrupted(folder) else {FILE_NAME}):
        raise ArtifactError(f"{folder} holds other files; choose a new or empty --out")
    return folder


def save_run(run: Run, path: str | Path) -> Path:
    """Write a run into a folder, whole or not at all.

    Raises:
        ArtifactError: the folder holds another run or something else, or cannot be written.
    """
    folder = claim_folder(path, run)
    with whole_folder(folder, last=RUN_FILE) as whole:
        _write(run, whole)
    return folder


def _write(run: Run, folder: Path) -> None:
    write_whole(folder / STATISTICS_FILE, statistics_bytes(run.statistics, run.means))
    run.described().save(folder)
    if run.log is not None:
        run.log.save(folder)
    features = {
        "schema": RUN_SCHEMA,
        "selected": [feature.to_dict() for feature in run.features],
        "top": {
            hook: [feature.to_dict() for feature in features]
            for hook, features in run.top_features.items()
        },
    }
    write_whole(folder / FEATURES_FILE, to_json(features))
    if run.evaluation is not None:
        write_whole(folder / EVALUATION_FILE, to_json(as_json(run.evaluation)))
        write_whole(folder / PREDICTIONS_FILE, predictions_bytes(run.predictions))
    write_whole(folder / RUN_FILE, to_json(_document(run)))


def _document(run: Run) -> dict[str, Any]:
    return {
        "schema": RUN_SCHEMA,
        **dataclasses.asdict(run.provenance),
        "settings": dataclasses.asdict(run.settings),
        "search": dataclasses.asdict(run.search) if run.search else {},
        "counts": dataclasses.asdict(run.counts),
        "extent": dataclasses.asdict(run.extent),
        "inference": dataclasses.asdict(run.inference) if run.inference else {},
    }


def load_run(path: str | Path) -> Run:
    """The run in a folder.

    A folder that holds a steering alone is a run without statistics.

    Raises:
        ArtifactError: no run there, or it is corrupt, truncated, or of another schema.
    """
    folder = check_folder(path)
    for name in FILES:  # a pipe or a device would be read without end
        if os.path.lexists(folder / name) and not (folder / name).is_file():
            raise ArtifactError(f"{folder / name} is not a file; remove it, or train again")
    if not (folder / RUN_FILE).exists() and (folder / FILE_NAME).exists():
        return _bare_run(Steering.load(folder))
    try:
        document = _read_json(folder / RUN_FILE)
        features = _read_json(folder / FEATURES_FILE)
        provenance = TypeAdapter(Provenance).validate_python(document)
        stored = read_statistics(folder / STATISTICS_FILE)
        statistics = stored.statistics
        _check_places(folder, provenance, statistics)
        return Run(
            provenance=provenance,
            settings=_read_settings(document["settings"]),
            statistics=statistics,
            means=stored.means,
            features=_read_features(features["selected"]),
            top_features={
                HookPoint.parse(hook).name: _read_features(rows)
                for hook, rows in features["top"].items()
            },
            steering=Steering.load(folder),
            search=_stored(_SEARCH, document["search"]),
            counts=TypeAdapter(Counts).validate_python(document["counts"]),
            extent=TypeAdapter(Extent).validate_python(document.get("extent", {})),
            inference=_stored(_read_evidence, document.get("inference", {})),
            log=_read_log(folder, statistics),
            evaluation=_read_evaluation(folder / EVALUATION_FILE),
            predictions=read_predictions(folder / PREDICTIONS_FILE),
        )
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        reason = " ".join(repr(error).split())[:300]
        raise ArtifactError(
            f"{folder} is not a run that this version reads ({reason}); train again"
        ) from error
    except ArtifactError:
        raise
    except CorrSteerError as error:
        raise ArtifactError(
            f"{folder} is not a run that this version reads: {str(error)[:300]}; train again"
        ) from error


def _check_places(
    folder: Path, provenance: Provenance, statistics: Mapping[str, StreamingCorrelation]
) -> None:
    """Refuse statistics of other hook points than those of the run's SAEs."""
    named = {HookPoint.parse(name).name for name in provenance.sae_ids}
    for name in sorted(named ^ set(statistics) if statistics else ()):
        has, lacks = ("statistics", "SAE") if name in statistics else ("SAE", "statistics")
        raise ArtifactError(f"{folder} has {has} at {name} and no {lacks} there; train again")


def _read_settings(stored: Any) -> FitSettings:
    """Settings from JSON; before select splits were topped up, they were as the task had them.

    And before there were dense directions, four arms were tried.
    """
    return TypeAdapter(FitSettings).validate_python(
        {"least_select": 0, "arms": ("S", "A", "P", "G"), **stored}
    )


def _bare_run(steering: Steering) -> Run:
    provenance = Provenance(steering.model, steering.revision, None, {}, 0, "", "", 0, (), {})
    return Run(provenance, FitSettings(), {}, steering.features, {}, steering)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{path.parent} has no {path.name}; expected a folder that `train` wrote"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is corrupt ({error}); train again") from error
    if not is_whole(document):
        raise ArtifactError(f"{path} holds half of a surrogate pair; train again")
    if not isinstance(document, dict) or document.get("schema") != RUN_SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else None
        raise ArtifactError(f"{path} has schema {found!r}, expected {RUN_SCHEMA!r}; train again")
    return document


def _read_features(rows: Any) -> tuple[Feature, ...]:
    features = FEATURES.validate_python(rows)
    for feature in features:
        HookPoint.parse(feature.hook_point)
        if feature.latent < 0:
            raise ArtifactError(f"{FEATURES_FILE} has latent {feature.latent}; train again")
    return features


def _read_log(folder: Path, statistics: Mapping[str, StreamingCorrelation]) -> ActivationLog | None:
    """The log of activations, if there is one and it is of the samples of the statistics."""
    log = open_log(folder)
    widths = {hook: each.d_sae for hook, each in statistics.items()}
    if log is not None and (
        log.widths != widths or {len(log.ids)} != {each.n for each in statistics.values()}
    ):
        raise ArtifactError(
            f"{folder / LOG_FILE} is not of the samples that the run's statistics are of; train "
            f"again, or remove it and {OUTCOMES_FILE}"
        )
    return log


def _read_evaluation(path: Path) -> RunDocument | None:
    if not path.exists():
        return None
    document = _read_json(path)
    try:
        return read_run_document(document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(
            f"{path} is not what this version reads ({reason}); train again"
        ) from error


Stored = TypeVar("Stored")


def _stored(read: Callable[[object], Stored], value: object) -> Stored | None:
    """A value from JSON; None where an empty object stands for nothing."""
    return None if value == {} else read(value)


def _read_evidence(value: object) -> Evidence:
    """Evidence from JSON, refused where it says nothing that evidence says."""
    if not isinstance(value, dict) or value.keys().isdisjoint({"p_method", "note"}):
        raise ArtifactError(f"{RUN_FILE} has no p_method and no note of inference; train again")
    return _EVIDENCE.validate_python(value)


_SEARCH = TypeAdapter(SearchRecord).validate_python
_EVIDENCE = TypeAdapter(Evidence)
