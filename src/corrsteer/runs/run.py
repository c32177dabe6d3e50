"""A run: everything that a fit found, as one typed value.

Changes when a run holds more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from corrsteer.features import FEATURE_COLUMNS, Feature, feature_rows
from corrsteer.json_text import finite
from corrsteer.notebook import overview
from corrsteer.runs.activation_log import ActivationLog
from corrsteer.runs.content import Content, Extent
from corrsteer.runs.evaluation import Prediction
from corrsteer.runs.evidence import Evidence
from corrsteer.runs.records import RunDocument, as_json
from corrsteer.runs.search import SearchRecord
from corrsteer.runs.steering import Steering
from corrsteer.settings import FitSettings, Strategy
from corrsteer.stats.correlation import StreamingCorrelation
from corrsteer.stats.outcome_sums import MeanPooled
from corrsteer.tasks import TaskOptions
from corrsteer.tasks.repeats import Repeats

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
        content: what these names stood for.
        switched_off: generation settings of the model that would have changed greedy replies.
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
    content: Content = field(default_factory=Content)
    switched_off: tuple[str, ...] = ()


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
        repeats: how many of the task's samples are not by themselves, where it was counted.
    """

    n_fit: int = 0
    n_select: int = 0
    unscored_fit: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    shard: str | None = None
    merged: tuple[str, ...] = ()
    twice: int | None = None
    collected: str | None = None
    repeats: Repeats | None = None


@dataclass
class Run:
    """A fitted run: everything needed to steer, select again and report.

    Attributes:
        provenance: model, SAEs, task and versions.
        settings: how it was fitted.
        statistics: hook point name -> sufficient statistics over the fit samples.
        means: hook point name -> what was pooled by mean, by outcome, over the same samples; empty
            in runs from before it was kept.
        features: the features of `steering`.
        top_features: hook point name -> its best features by correlation.
        steering: what the run recommends, or what its strategy made.
        candidates: strategy -> its steering, for those tried.
        search: what was tried on the select split, or None.
        counts: samples and times of the fit.
        extent: what of it was asked for.
        inference: how its features were judged, or None in runs from before it was recorded.
        log: pooled activations of the fit samples, read from disk when asked for, or None.
        evaluation: what `--json` prints, or None before evaluation.
        predictions: one a test sample, or empty.
    """

    provenance: Provenance
    settings: FitSettings
    statistics: dict[str, StreamingCorrelation]
    features: tuple[Feature, ...]
    top_features: dict[str, tuple[Feature, ...]]
    steering: Steering
    candidates: dict[Strategy, Steering] = field(default_factory=dict)
    search: SearchRecord | None = None
    counts: Counts = field(default_factory=Counts)
    extent: Extent = field(default_factory=Extent)
    inference: Evidence | None = None
    log: ActivationLog | None = None
    evaluation: RunDocument | None = None
    predictions: tuple[Prediction, ...] = ()
    means: dict[str, MeanPooled] = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Write the run into a folder, whole or not at all; see `folder.save_run`."""
        from corrsteer.runs.folder import save_run

        return save_run(self, path)

    @property
    def log_note(self) -> str:
        """Why it has no log of activations."""
        return (self.inference and self.inference.note) or "the run has no log"

    def described(self) -> Steering:
        """The steering with what made it, and how it fared, in its metadata."""
        if not self.provenance.task:  # a steering alone has brought its own
            return self.steering
        told = as_json(self.evaluation) if self.evaluation else None
        evidence = {key: told[key] for key in EVIDENCE} if told else None
        chosen = self.search.recommended if self.search else None
        about = {
            "sae": self.provenance.sae_source or "",
            "task": self.provenance.task,
            "strategy": chosen.strategy if chosen else self.settings.strategy,
            "corrsteer": self.provenance.versions.get("corrsteer", ""),
            "evidence": json.dumps(finite(evidence)),
            **({"prepend_bos": "yes"} if self.provenance.prepend_bos else {}),
        }
        return replace(self.steering, metadata={**self.steering.metadata, **about})

    def __repr__(self) -> str:
        names = ", ".join(f"{f.layer}/{f.latent}" for f in self.features)
        names = names or (self.steering.described if self.steering.direction else "")
        return (
            f"Run(model={self.provenance.model!r}, task={self.provenance.task!r}, "
            f"strategy={self.settings.strategy!r}, features=[{names}], "
            f"strength={self.steering.strength:g}, evaluated={self.evaluation is not None})"
        )

    def _repr_html_(self) -> str:
        facts = {
            "model": self.provenance.model,
            "task": self.provenance.task or None,
            "strategy": self.settings.strategy,
            "strength": f"{self.steering.strength:g}",
            **({"steers by": self.steering.described} if self.steering.direction else {}),
            "verdict": self.evaluation.verdict.text if self.evaluation else "not evaluated",
        }
        return overview("Run", facts, FEATURE_COLUMNS, feature_rows(self.features))
