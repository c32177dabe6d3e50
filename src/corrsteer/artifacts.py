"""Run folders: the only writer and reader of what a run leaves on disk.

Changes when a run records more. Every file is written whole or not at all, `run.json` last, so a
folder with a `run.json` is a whole run. Nothing read from a folder is ever executed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open

from corrsteer.activation_log import LOG_FILE, OUTCOMES_FILE, ActivationLog, open_log
from corrsteer.config import FitSettings
from corrsteer.correlation import StreamingCorrelation
from corrsteer.errors import ArtifactError, CorrSteerError
from corrsteer.files import cannot_write, write_whole
from corrsteer.hook_points import HookPoint
from corrsteer.notebook import overview
from corrsteer.selection import FEATURE_COLUMNS, FEATURES, Feature, feature_rows
from corrsteer.steering import FILE_NAME, Steering
from corrsteer.tasks import TaskOptions
from corrsteer.tensor_files import tensor_bytes

SCHEMA = "corrsteer.run/1"
RUN_FILE = "run.json"
STATISTICS_FILE = "statistics.safetensors"
FEATURES_FILE = "features.json"
EVALUATION_FILE = "evaluation.json"
PREDICTIONS_FILE = "predictions.parquet"
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

EVIDENCE = (
    "strength",
    "baseline",
    "steered",
    "delta",
    "side_effects",
    "controls",
    "guards",
    "verdict",
)
"""What of an evaluation goes with the steering."""


@dataclass(frozen=True)
class Provenance:
    """What a run was made from.

    Attributes:
        model: name or id; `revision`: its commit, or None.
        sae_source: release, folder or `raw`; `sae_ids`: hook point -> SAE id.
        hook_shift: see `load_model`.
        task: name or path; `scorer`: its name.
        max_new_tokens: longest reply.
        guards: names of guard tasks.
        versions: library -> version.
        task_options: how the task was asked for.
        prepend_bos: whether prompts began with BOS also where the tokenizer adds none.
    """

    model: str
    revision: str | None
    sae_source: str | None
    sae_ids: Mapping[str, str]
    hook_shift: int
    task: str
    scorer: str
    max_new_tokens: int
    guards: tuple[str, ...]
    versions: Mapping[str, str]
    task_options: TaskOptions = field(default_factory=TaskOptions)
    prepend_bos: bool = False


@dataclass(frozen=True)
class Counts:
    """Samples and times of a fit.

    Attributes:
        n_fit: samples run; `unscored_fit`: those of them that could not be judged.
        n_select: samples that settings were tried on.
        seconds: stage -> seconds.
        shard: which part of the fit samples these are, as `2/8`; None for all.
        merged: names of the runs that were added up.
        twice: samples that several of them hold; None where it is not known.
        collected: the run that the fit samples were taken from, or None.
    """

    n_fit: int = 0
    n_select: int = 0
    unscored_fit: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    shard: str | None = None
    merged: tuple[str, ...] = ()
    twice: int | None = None
    collected: str | None = None


@dataclass
class Run:
    """A fitted run: everything needed to steer, select again and report.

    Attributes:
        provenance: model, SAEs, task and versions.
        settings: how it was fitted.
        statistics: hook point name -> sufficient statistics over the fit samples.
        features: the features of `steering`.
        top_features: hook point name -> its best features by correlation.
        steering: what the run recommends, or what its strategy made.
        candidates: strategy -> its steering, for those tried.
        search: what was tried on the select split, as JSON.
        counts: samples and times of the fit.
        inference: how its features were judged, as JSON; empty in runs before it was recorded.
        log: pooled activations of the fit samples, read from disk when asked for, or None.
        evaluation: what `--json` prints, or None before evaluation.
        predictions: a row a test sample, or empty.
    """

    provenance: Provenance
    settings: FitSettings
    statistics: dict[str, StreamingCorrelation]
    features: tuple[Feature, ...]
    top_features: dict[str, tuple[Feature, ...]]
    steering: Steering
    candidates: dict[str, Steering] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    inference: dict[str, Any] = field(default_factory=dict)
    log: ActivationLog | None = None
    evaluation: dict[str, Any] | None = None
    predictions: list[dict[str, Any]] = field(default_factory=list)

    def save(self, path: str | Path) -> Path:
        """Write the run into a folder, whole or not at all.

        Raises:
            ArtifactError: the folder holds another run or something else, or cannot be written.
        """
        folder = claim_folder(path, self)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
                self._write(Path(temporary))
                _move_files(Path(temporary), folder)
        except OSError as error:
            raise cannot_write(folder, error) from error
        return folder

    def described(self) -> Steering:
        """The steering with what made it, and how it fared, in its metadata."""
        if not self.provenance.task:  # a steering alone has brought its own
            return self.steering
        evidence = {key: self.evaluation[key] for key in EVIDENCE} if self.evaluation else None
        recommended = self.search.get("recommended") or {}
        about = {
            "sae": self.provenance.sae_source or "",
            "task": self.provenance.task,
            "strategy": recommended.get("strategy", self.settings.strategy),
            "corrsteer": self.provenance.versions.get("corrsteer", ""),
            "evidence": json.dumps(_finite(evidence)),
        }
        return replace(self.steering, metadata={**self.steering.metadata, **about})

    def _write(self, folder: Path) -> None:
        write_whole(folder / STATISTICS_FILE, statistics_bytes(self.statistics))
        self.described().save(folder)
        if self.log is not None:
            self.log.save(folder)
        features = {
            "schema": SCHEMA,
            "selected": [feature.to_dict() for feature in self.features],
            "top": {
                hook: [feature.to_dict() for feature in features]
                for hook, features in self.top_features.items()
            },
        }
        write_whole(folder / FEATURES_FILE, to_json(features))
        if self.evaluation is not None:
            write_whole(folder / EVALUATION_FILE, to_json(self.evaluation))
            write_whole(folder / PREDICTIONS_FILE, parquet_bytes(self.predictions))
        write_whole(folder / RUN_FILE, to_json(self._document()))

    def _document(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            **dataclasses.asdict(self.provenance),
            "settings": dataclasses.asdict(self.settings),
            "search": self.search,
            "counts": dataclasses.asdict(self.counts),
            "inference": self.inference,
        }

    def __repr__(self) -> str:
        names = ", ".join(f"{f.layer}/{f.latent}" for f in self.features)
        return (
            f"Run(model={self.provenance.model!r}, task={self.provenance.task!r}, "
            f"strategy={self.settings.strategy!r}, features=[{names}], "
            f"strength={self.steering.strength:g}, evaluated={self.evaluation is not None})"
        )

    def _repr_html_(self) -> str:
        evaluation = self.evaluation or {}
        facts = {
            "model": self.provenance.model,
            "task": self.provenance.task or None,
            "strategy": self.settings.strategy,
            "strength": f"{self.steering.strength:g}",
            "verdict": evaluation.get("verdict", "not evaluated"),
        }
        return overview("Run", facts, FEATURE_COLUMNS, feature_rows(self.features))


def is_run(path: str | Path) -> bool:
    """Whether a folder holds a whole run."""
    return os.path.isfile(Path(path) / RUN_FILE)  # noqa: PTH113 - false for a name that cannot be


def claim_folder(path: str | Path, run: Run | None = None) -> Path:
    """The folder, checked to be a place where a run may be written.

    That is a new or empty folder, one that holds nothing but a steering, or, for `run` itself, the
    folder it was saved in before.

    Raises:
        ArtifactError: it is a file, holds another run or other files, or cannot be written to.
    """
    folder = Path(path)
    try:
        folder.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise cannot_write(folder, error) from error
    except ValueError as error:
        raise ArtifactError(f"--out {str(path)!r} is no name of a file ({error})") from error
    if folder.is_file():
        raise ArtifactError(f"{folder} is a file; choose a folder for --out")
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ArtifactError(f"cannot write to {existing}; choose another --out")
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if RUN_FILE in names:
        saved = load_run(folder)
        if run is None or (saved.provenance, saved.settings) != (run.provenance, run.settings):
            raise ArtifactError(
                f"{folder} holds a run already ({saved.provenance.task}, strategy "
                f"{saved.settings.strategy}); choose another --out, or remove it"
            )
    elif names - {FILE_NAME}:
        raise ArtifactError(f"{folder} holds other files; choose a new or empty --out")
    return folder


def write_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Make a new folder, or fill an empty one, whole or not at all.

    Args:
        folder: where it is to be.
        write: given another folder beside it, which then takes its place.

    Raises:
        ArtifactError: it cannot be written, or holds something by now.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            made = Path(temporary) / folder.name
            made.mkdir()
            write(made)
            made.replace(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _move_files(source: Path, target: Path) -> None:
    """Move every file of a folder into another, `run.json` last."""
    target.mkdir(exist_ok=True)
    for path in sorted(source.iterdir(), key=lambda path: path.name == RUN_FILE):
        path.replace(target / path.name)


def load_run(path: str | Path) -> Run:
    """The run in a folder.

    A folder that holds a steering alone is a run without statistics.

    Raises:
        ArtifactError: no run there, or it is corrupt, truncated, or of another schema.
    """
    folder = Path(path)
    if not os.path.isdir(folder):  # noqa: PTH112
        raise ArtifactError(f"no run at {str(path)[:300]!r}; expected a folder that `train` wrote")
    for name in FILES:  # a pipe or a device would be read without end
        if os.path.lexists(folder / name) and not (folder / name).is_file():
            raise ArtifactError(f"{folder / name} is not a file; remove it, or train again")
    if not (folder / RUN_FILE).exists() and (folder / FILE_NAME).exists():
        return _bare_run(Steering.load(folder))
    try:
        document = _read_json(folder / RUN_FILE)
        features = _read_json(folder / FEATURES_FILE)
        evaluation = folder / EVALUATION_FILE
        statistics, _ = read_statistics(folder / STATISTICS_FILE)
        return Run(
            provenance=TypeAdapter(Provenance).validate_python(document),
            settings=TypeAdapter(FitSettings).validate_python(document["settings"]),
            statistics=statistics,
            features=_read_features(features["selected"]),
            top_features={
                HookPoint.parse(hook).name: _read_features(rows)
                for hook, rows in features["top"].items()
            },
            steering=Steering.load(folder),
            search=dict(document["search"]),
            counts=TypeAdapter(Counts).validate_python(document["counts"]),
            inference=dict(document.get("inference", {})),
            log=_read_log(folder, statistics),
            evaluation=_read_json(evaluation) if evaluation.exists() else None,
            predictions=_read_predictions(folder / PREDICTIONS_FILE),
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
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else None
        raise ArtifactError(f"{path} has schema {found!r}, expected {SCHEMA!r}; train again")
    return document


def _read_features(rows: Any) -> tuple[Feature, ...]:
    features = FEATURES.validate_python(rows)
    for feature in features:
        HookPoint.parse(feature.hook_point)
        if feature.latent < 0:
            raise ArtifactError(f"{FEATURES_FILE} has latent {feature.latent}; train again")
    return features


def statistics_bytes(
    statistics: Mapping[str, StreamingCorrelation], about: Mapping[str, Any] | None = None
) -> bytes:
    """Statistics by hook point name as one safetensors file, which `read_statistics` reads.

    Args:
        statistics: hook point name -> statistics.
        about: kept beside them, as JSON.
    """
    tensors = {
        f"{hook}/{name}": tensor
        for hook, each in statistics.items()
        for name, tensor in each.state().items()
    }
    metadata = {"schema": SCHEMA}
    if about is not None:
        metadata["about"] = json.dumps(about)
    return tensor_bytes(tensors, metadata)


def read_statistics(path: Path) -> tuple[dict[str, StreamingCorrelation], dict[str, Any]]:
    """Statistics by hook point name in the order of layers, and what was kept beside them.

    Raises:
        ArtifactError: the file is missing, corrupt, or holds what no samples have.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = json.loads((file.metadata() or {}).get("about", "{}"))
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path} is corrupt or missing ({reason}); train again") from error
    states: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        hook, _, statistic = name.rpartition("/")
        state = states.setdefault(HookPoint.parse(hook).name, {})
        if statistic in state:
            raise ArtifactError(f"{path} has {statistic} of {hook} twice; train again")
        state[statistic] = tensor
    hooks = sorted(states, key=lambda name: HookPoint.parse(name).order)
    return {hook: StreamingCorrelation.from_state(states[hook]) for hook in hooks}, about


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


def parquet_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    return bytes(sink.getvalue())


def _read_predictions(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path} is corrupt ({reason[:200]}); train again") from error
    return rows


def to_json(document: Mapping[str, Any]) -> str:
    """Indented JSON; numbers that are not finite become null, as JSON has none."""
    return json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
