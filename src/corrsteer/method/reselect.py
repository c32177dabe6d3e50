"""Runs made of saved runs, without the model: features chosen again, and runs added up.

Changes when another thing can be done with what a run saved.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from corrsteer.errors import ArtifactError, SettingsError
from corrsteer.features import Feature
from corrsteer.hook_points import HookPoint
from corrsteer.lm.models import saes_of
from corrsteer.lm.saes import SAEHandle
from corrsteer.method.evidence import ranked
from corrsteer.method.fit import check_coefficient, rows_of
from corrsteer.method.provenance import sae_digests
from corrsteer.method.ranking import SAEPlace
from corrsteer.runs.activation_log import ActivationLog, LogWriter
from corrsteer.runs.content import Extent
from corrsteer.runs.evidence import Evidence
from corrsteer.runs.identity import Identity, check_alike, difference
from corrsteer.runs.run import Counts, Run
from corrsteer.runs.steering import Steering, summed
from corrsteer.settings import FitSettings
from corrsteer.stats.correlation import StreamingCorrelation
from corrsteer.stats.outcome_sums import MeanPooled
from corrsteer.tasks.repeats import Repeats

log = logging.getLogger(__name__)


def select(run: Run, **changes: Any) -> Run:
    """The run with its features chosen again from its statistics and its log.

    It is what `fit` with those settings gives, but for what is tried on the select split: P, G
    and recommendations need the model.

    Args:
        run: saved or not.
        changes: fields of `FitSettings`; the rest stays as it was. Without a strategy it is the
            run's own if that is S or A, else A.

    Raises:
        SettingsError: a value that is not allowed, or a strategy that needs the model.
        ArtifactError: a steering alone, or statistics that lack what the method needs.
        SAEError: the SAEs are not there any more.
    """
    if not run.statistics:
        raise ArtifactError(
            "the run is a steering alone, without statistics to choose from; give a run that "
            "`train` wrote"
        )
    own = run.settings.strategy if run.settings.strategy in ("S", "A") else "A"
    changes = {"strategy": own, **changes}
    settings = FitSettings.of(**{**dataclasses.asdict(run.settings), **changes})
    if settings.strategy not in ("S", "A"):
        raise SettingsError(
            f"strategy {settings.strategy} tries features on the model; choose S or A, or use "
            f"corrsteer train --strategy {settings.strategy} --collected RUN"
        )
    check_coefficient(settings, run.provenance.sae_source)
    statistics = {HookPoint.parse(name): each for name, each in run.statistics.items()}
    handles = _handles(run)
    places = {hook: SAEPlace(each.layer, each.neuronpedia) for hook, each in handles.items()}
    note = None if run.log else run.log_note
    ranking, inference = ranked(statistics, run.log, settings, places, note)
    features = ranking.best() if settings.strategy == "S" else ranking.best_per_layer()
    steering = _steering(features, handles, run, settings)
    return Run(
        provenance=run.provenance,
        settings=settings,
        statistics=run.statistics,
        means=run.means,
        features=features,
        top_features={hook.name: each for hook, each in ranking.by_layer.items()},
        steering=steering,
        candidates={settings.strategy: steering},
        counts=run.counts,
        extent=Extent(evaluated=False, explained=False),
        inference=inference,
        log=run.log,
    )


def merge(runs: Mapping[str, Run], **changes: Any) -> Run:
    """One run over the fit samples of several, collected apart; features are chosen again.

    Its statistics are those of one run over all samples, to 1e-12. It has a log if all have one.

    Args:
        runs: name or folder -> run; two or more.
        changes: see `select`.

    Raises:
        ArtifactError: fewer than two, a steering alone, or runs of different models, SAEs, tasks
            or poolings.
        CorrSteerError: see `select`.
    """
    if len(runs) < 2:
        raise ArtifactError(f"{len(runs)} run given; a merge needs two or more different folders")
    names, first = list(runs), next(iter(runs.values()))
    for name, run in runs.items():
        if not run.statistics:
            raise ArtifactError(f"{name} is a steering alone, without statistics to add")
        check_alike(names[0], Identity.of(first), list(first.statistics), name, run)
    statistics = {
        hook: _added([run.statistics[hook] for run in runs.values()]) for hook in first.statistics
    }
    joined, note = _joined(runs)
    n_fit = sum(run.counts.n_fit for run in runs.values())
    together = dataclasses.replace(
        first,
        settings=dataclasses.replace(first.settings, samples=max(1, n_fit)),
        statistics=statistics,
        means=_added_means([run.means for run in runs.values()]),
        log=joined,
        counts=Counts(
            n_fit=n_fit,
            unscored_fit=sum(run.counts.unscored_fit for run in runs.values()),
            merged=tuple(names),
            twice=_twice(runs),
            repeats=_common_repeats(runs),
        ),
        inference=Evidence(note=note),
    )
    return select(together, **changes)


def _common_repeats(runs: Mapping[str, Run]) -> Repeats | None:
    """How many of the task's samples are not by themselves, of runs of one task."""
    first = next(iter(runs.values()))
    alike = all(run.counts.repeats == first.counts.repeats for run in runs.values())
    return first.counts.repeats if alike else None


def _handles(run: Run) -> dict[HookPoint, SAEHandle]:
    """The SAEs of the run's hook points.

    Raises:
        ArtifactError: the source has another SAE there now, or none.
    """
    made = run.provenance
    found = saes_of(made.model, made.sae_source, made.hook_shift)
    handles = {each.hook_point: each for each in found if each.hook_point.name in run.statistics}
    for name, sae_id in made.sae_ids.items():
        there = handles.get(HookPoint.parse(name))
        if there is None or there.source != sae_id:
            raise ArtifactError(
                f"the run used SAE {sae_id} at {name}, but {made.sae_source} has "
                f"{there.source if there else 'none'} there now; bring it back, or train again"
            )
    now = sae_digests(list(handles.values()))
    changed = difference({"saes": made.content.saes}, {"saes": now})
    if made.content.saes and changed is not None:
        raise ArtifactError(
            f"an SAE is not the one any more that the run was made with ({changed}); bring it "
            "back, or train again"
        )
    return handles


def _steering(
    features: tuple[Feature, ...],
    handles: Mapping[HookPoint, SAEHandle],
    run: Run,
    settings: FitSettings,
) -> Steering:
    made, about = run.provenance, run.steering.metadata
    return Steering(
        summed(features, rows_of(set(features), list(handles.values()))),
        features,
        made.model,
        made.revision,
        settings.positions,
        settings.strength,
        {key: about[key] for key in ("model_type",) if key in about},
    )


def _added(parts: list[StreamingCorrelation]) -> StreamingCorrelation:
    total = StreamingCorrelation(parts[0].d_sae)
    for part in parts:
        total.merge(part)
    return total


def _added_means(parts: list[dict[str, MeanPooled]]) -> dict[str, MeanPooled]:
    """Of all runs; none where a run from before they were kept has none."""
    if not all(parts):
        return {}
    total = {hook: each.like() for hook, each in parts[0].items()}
    if any(each.kept is None for part in parts for each in part.values()):
        total = {hook: dataclasses.replace(each, kept=None) for hook, each in total.items()}
    for part in parts:
        for hook, each in part.items():
            total[hook].merge(each)
    return total


def _joined(runs: Mapping[str, Run]) -> tuple[ActivationLog | None, str | None]:
    """The logs of all runs, one after the other; or why there is none."""
    for name, run in runs.items():
        if run.log is None:
            return None, f"{name} has no log"
    widths = {hook: each.d_sae for hook, each in next(iter(runs.values())).statistics.items()}
    writer = LogWriter(widths)
    for run in runs.values():
        if run.log is not None:
            writer.append(run.log)
    return writer.close(), writer.given_up


def _twice(runs: Mapping[str, Run]) -> int | None:
    """Samples of one task that several runs hold, with a warning; None where it is not known."""
    if any(run.log is None for run in runs.values()):
        return None
    seen = Counter(
        (run.provenance.task, sample)
        for run in runs.values()
        for sample in (run.log.ids if run.log else ())
    )
    twice = sum(count > 1 for count in seen.values())
    if twice:
        log.warning(
            "%d samples are in more than one of the runs: they count twice, so that intervals "
            "and p-values promise too much",
            twice,
        )
    return twice
