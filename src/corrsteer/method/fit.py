"""The method, top to bottom: collect, rank, search, and the run that comes of it.

Changes when the order of its steps does.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Unpack

from torch import Tensor

from corrsteer.errors import ArtifactError, SettingsError
from corrsteer.execution.units import IN_PROCESS, Execution
from corrsteer.features import Feature
from corrsteer.hook_points import HookPoint
from corrsteer.lm.known_models import RAW
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.sae_placement import choose_handles, load_coders
from corrsteer.lm.saes import SAEHandle
from corrsteer.method.arms import limited
from corrsteer.method.candidates import (
    BEST_OF_LAYER,
    Candidate,
    Grids,
    Rows,
    best_of_layers,
    denoised,
    dense,
    probe,
)
from corrsteer.method.collect import Collection, collect
from corrsteer.method.evidence import ranked
from corrsteer.method.provenance import provenance_of
from corrsteer.method.ranking import Ranking, SAEPlace
from corrsteer.method.splitting import SelectSplit, topped_up
from corrsteer.method.strategies import Searcher
from corrsteer.progress import ON_TERMINAL
from corrsteer.runs.content import Extent
from corrsteer.runs.identity import Identity, check_alike
from corrsteer.runs.run import Counts, Provenance, Run
from corrsteer.runs.search import Search
from corrsteer.runs.steering import Steering
from corrsteer.samples import Sample
from corrsteer.settings import FitKeywords, FitSettings, Strategy
from corrsteer.stats.outcome_sums import MeanPooled
from corrsteer.tasks import Task, own_guards
from corrsteer.timing import Stopwatch

log = logging.getLogger(__name__)


def fit(
    lm: LanguageModel,
    task: Task,
    *,
    guards: Sequence[Task] | None = None,
    collected: Run | None = None,
    execution: Execution = IN_PROCESS,
    watch: Stopwatch | None = None,
    **settings: Unpack[FitKeywords],
) -> Run:
    """Find the features that go with success on a task, and the steering made of them.

    Args:
        lm: a model with SAEs.
        task: where features are found (fit split) and validated (select split).
        guards: tasks that the recommendation must not harm; the task's own if None.
        collected: a run, as of shards that were merged, whose statistics are taken in place of
            running the fit split; it decides how many samples there are.
        execution: how its passes are done.
        watch: adds up seconds a stage.
        settings: fields of `FitSettings`.

    Returns:
        a run that is not evaluated yet. Its steering is what the strategy made; under `auto` the
        recommended one, or one without features where there is no reliable effect.

    Raises:
        CorrSteerError: a setting, the model, the SAEs or the data cannot be used.
    """
    chosen = FitSettings.of(**settings)
    guards = own_guards(task, chosen.seed) if guards is None else guards
    return fit_with(lm, task, guards, chosen, collected=collected, execution=execution, watch=watch)


def fit_with(
    lm: LanguageModel,
    task: Task,
    guards: Sequence[Task],
    settings: FitSettings,
    *,
    collected: Run | None = None,
    execution: Execution = IN_PROCESS,
    watch: Stopwatch | None = None,
) -> Run:
    """The same as `fit`, with the settings as one value.

    Raises:
        CorrSteerError: a setting, the model, the SAEs or the data cannot be used.
    """
    chosen = settings
    check_coefficient(chosen, lm.sae_source)
    watch = watch or Stopwatch()
    handles = choose_handles(lm, chosen.layers)
    made = provenance_of(lm.facts, task, guards, handles)  # of the task as it was given
    task = spent(task, chosen, collected)
    select = SelectSplit.of(lm, task, chosen, execution)
    select.tell_what_can_be_seen(chosen)
    guarding = [SelectSplit.of_guard(lm, each, chosen, execution) for each in guards]
    if collected is None:
        samples = limited(task.fit, chosen.samples, chosen.seed, task.shuffled)
        collection = collected_now(lm, task, samples, handles, chosen, execution, watch)
    else:
        chosen = dataclasses.replace(chosen, samples=collected.settings.samples)
        collection = _collected_before(collected, made, chosen, handles, task)
    with watch.timing("select"):
        places = {h.hook_point: SAEPlace(h.layer, h.neuronpedia) for h in handles}
        contrasted = contrasts_asked(collection, chosen)
        ranking, inference = ranked(
            collection.statistics, collection.log, chosen, places, collection.log_note, contrasted
        )
        rows = decoder_rows(ranking, handles, chosen)
        grids = grids_of(collection, ranking, rows, chosen)
    with watch.timing("validate"):
        search = Searcher(select, guarding, ranking, rows, chosen, grids).run()
    steering = _steering(search, chosen, lm)
    return Run(
        provenance=made,
        settings=chosen,
        statistics={hook.name: stats for hook, stats in collection.statistics.items()},
        means={hook.name: means for hook, means in collection.means.items()},
        features=steering.features,
        top_features={hook.name: features for hook, features in ranking.by_layer.items()},
        steering=steering,
        candidates=dict(search.chosen),
        search=search.record,
        counts=Counts(
            collection.n,
            select.n_select,
            collection.unscored,
            watch.seconds,
            repeats=task.repeats,
        ),
        extent=Extent(execution.unit_samples, evaluated=False, explained=False),
        inference=inference,
        log=collection.log,
    )


def spent(task: Task, settings: FitSettings, collected: Run | None = None) -> Task:
    """The task with its samples as a fit spends them; see `topped_up`.

    They stay as they are where samples that were collected before would select.
    """
    topped = topped_up(task, settings)
    known = set(collected.log.ids) if collected and collected.log else set()
    return topped if known.isdisjoint(sample.id for sample in topped.select) else task


def collected_now(
    lm: LanguageModel,
    task: Task,
    samples: Sequence[Sample],
    handles: Sequence[SAEHandle],
    settings: FitSettings,
    execution: Execution,
    watch: Stopwatch,
) -> Collection:
    """What is collected over samples, with the SAEs loaded for it."""
    with watch.timing("load"):
        coders = load_coders(handles, lm, settings.sae_dtype)
    with watch.timing("collect"):
        return collect(lm, task, samples, coders, settings, execution)


def _collected_before(
    run: Run,
    made: Provenance,
    settings: FitSettings,
    handles: Sequence[SAEHandle],
    task: Task,
) -> Collection:
    """What a run has collected, for a fit of these things.

    Raises:
        ArtifactError: it is a steering alone, or of something else.
        SettingsError: it was collected over samples that are now in another split.
    """
    if not run.statistics:
        raise ArtifactError(
            "what was collected is a steering alone, without statistics; give a run that `train` "
            "or `merge` wrote"
        )
    hooks = [handle.hook_point.name for handle in handles]
    own = Identity(made, settings, Extent())
    check_alike("this run", own, hooks, "what was collected", run)
    if run.log is None:
        moved = settings.seed != run.settings.seed
    else:
        moved = not {s.id for s in (*task.select, *task.test)}.isdisjoint(run.log.ids)
    if moved:
        raise SettingsError(
            "samples of the select or test split may be among those collected; give --seed "
            f"{run.settings.seed}, by which that run was split"
        )
    return Collection(
        {HookPoint.parse(name): statistics for name, statistics in run.statistics.items()},
        run.counts.n_fit,
        run.counts.unscored_fit,
        run.log,
        None if run.log else run.log_note,
        {HookPoint.parse(name): means for name, means in run.means.items()},
    )


def check_coefficient(settings: FitSettings, sae_source: str | None) -> None:
    """Refuse a coefficient that the activations cannot have, and tell of one that adds little.

    Raises:
        SettingsError: `active` for residual dimensions, which are always active.
    """
    if settings.coefficient == "active" and sae_source == RAW:
        raise SettingsError(
            "residual dimensions (--raw) are active on every sample, so --coefficient active is "
            "not defined; use positive or contrast"
        )
    if settings.sign != "positive" and settings.coefficient != "contrast":
        log.info(
            "a latent of negative r is hardly active where the outcome is right, so that its "
            "coefficient, a mean over those samples, is near 0; --coefficient contrast has the "
            "difference to the others"
        )


def contrasts_asked(
    collection: Collection, settings: FitSettings
) -> Mapping[HookPoint, MeanPooled]:
    """What latents are ranked by contrast from; nothing where no arm asks, or one outcome lacks."""
    both = all(
        each.latents.n_positive and each.latents.n_zero for each in collection.means.values()
    )
    return collection.means if both and "denoised" in settings.tried_arms else {}


def grids_of(collection: Collection, ranking: Ranking, rows: Rows, settings: FitSettings) -> Grids:
    """The candidates of every arm that chooses from some by trying them.

    Args:
        collection: its residuals make dense directions.
        ranking: its features make the others.
        rows: theirs.
        settings: which arms are asked for.

    Raises:
        SettingsError: no arm is left, as what was collected has no residuals.
    """
    made: dict[Strategy, Callable[[], Sequence[Candidate]]] = {
        "dense": lambda: dense(collection.means),
        "denoised": lambda: denoised(ranking, rows),
        "probe": lambda: probe(collection.means),
        "topk": lambda: best_of_layers(ranking, rows),
    }
    grids = {arm: made[arm]() for arm in settings.tried_arms if arm in made}
    offered: Grids = {arm: found for arm, found in grids.items() if found}
    missing = [arm for arm in grids if arm not in offered]
    if not missing:
        return offered
    kept = any(each.kept for each in collection.means.values())
    why = (
        "what was collected has no residuals for it; collect again"
        if not collection.means or (missing == ["probe"] and not kept)
        else "no fit outcome is 0, or none above"
    )
    if len(missing) == len(settings.tried_arms):
        raise SettingsError(f"{', '.join(missing)} cannot be tried: {why}")
    log.warning("%s cannot be tried: %s", ", ".join(missing), why, extra=ON_TERMINAL)
    return offered


def decoder_rows(
    ranking: Ranking, handles: Sequence[SAEHandle], settings: FitSettings
) -> dict[tuple[str, int], Tensor]:
    """W_dec of every feature that an arm may use, each [d_model]."""
    features = {*ranking.best_per_layer(), *ranking.near_ties(settings.near_ties)}
    features |= {each for of_layer in ranking.by_contrast.values() for each in of_layer}
    if "topk" in settings.tried_arms:
        most = max(BEST_OF_LAYER)
        features |= {each for best in ranking.by_layer.values() for each in best[:most]}
    return rows_of(features, handles)


def rows_of(features: Set[Feature], handles: Sequence[SAEHandle]) -> dict[tuple[str, int], Tensor]:
    """W_dec of some features, by `Feature.key`."""
    rows: dict[tuple[str, int], Tensor] = {}
    for handle in handles:
        hook = handle.hook_point.name
        latents = [feature.latent for feature in features if feature.hook_point == hook]
        if latents:
            keys = [(hook, latent) for latent in latents]
            rows |= zip(keys, handle.decoder_rows(latents), strict=True)
    return rows


def _steering(search: Search, settings: FitSettings, lm: LanguageModel) -> Steering:
    if settings.strategy != "auto":
        return search.chosen[settings.strategy]
    if search.recommended is not None:
        return search.recommended
    return Steering({}, (), lm.id, lm.revision, settings.positions)
