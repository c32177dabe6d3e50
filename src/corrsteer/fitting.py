"""The method, top to bottom: collect, rank, search, and the run that comes of it.

Changes when the order of its steps does.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor

from corrsteer.artifacts import Counts, Provenance, Run
from corrsteer.bench import benches_of, limited
from corrsteer.collect import Collection, choose_handles, collect, load_coders
from corrsteer.config import FitSettings
from corrsteer.errors import ArtifactError, DataError, SettingsError
from corrsteer.hook_points import HookPoint
from corrsteer.inference import ranked
from corrsteer.models import RAW, LanguageModel
from corrsteer.saes import SAEHandle
from corrsteer.samples import Sample
from corrsteer.search import Search, Searcher, Trial
from corrsteer.selection import Feature, Place, Ranking
from corrsteer.steering import Steering
from corrsteer.tasks import Task
from corrsteer.timing import Stopwatch
from corrsteer.work import WORK, Work

LIBRARIES = ("corrsteer", "torch", "transformers", "sae-lens", "numpy", "scipy", "safetensors")

SAME_PROVENANCE = (
    "model",
    "revision",
    "sae_source",
    "sae_ids",
    "hook_shift",
    "scorer",
    "max_new_tokens",
)
SAME_TASK = ("few", "chat", "select_token")
SAME_SETTINGS = ("pool", "steer_pool", "positions")
"""What runs must have in common for their statistics to be of the same thing."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """One part of the fit samples: every `count`-th, from the `number`-th on.

    Attributes:
        number: from 1 to `count`.
        count: of all parts.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that `2/8` names.

        Raises:
            SettingsError: it names none.
        """
        number, _, count = text.partition("/")
        if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise SettingsError(f"--shard is {text!r}; expected a part of all, as 2/8")

    def of(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Its samples.

        Raises:
            DataError: there are none.
        """
        own = samples[self.number - 1 :: self.count]
        if not own:
            raise DataError(f"{len(samples)} samples have no part {self}; choose fewer shards")
        return own

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def fit(
    lm: LanguageModel,
    task: Task,
    *,
    guards: Sequence[Task] = (),
    collected: Run | None = None,
    work: Work = WORK,
    watch: Stopwatch | None = None,
    **settings: Any,
) -> Run:
    """Find the features that go with success on a task, and the steering made of them.

    Args:
        lm: a model with SAEs.
        task: where features are found (fit split) and validated (select split).
        guards: tasks that the recommendation must not harm.
        collected: a run, as of shards that were merged, whose statistics are taken in place of
            running the fit split; it decides how many samples there are.
        work: how its passes are done.
        watch: adds up seconds a stage.
        settings: fields of `FitSettings`.

    Returns:
        a run that is not evaluated yet. Its steering is what the strategy made; under `auto` the
        recommended one, or one without features where there is no reliable effect.

    Raises:
        CorrSteerError: a setting, the model, the SAEs or the data cannot be used.
    """
    chosen = FitSettings.of(**settings)
    check_coefficient(chosen, lm.sae_source)
    watch = watch or Stopwatch()
    handles = choose_handles(lm, chosen.layers)
    bench, *guard_benches = benches_of(
        lm, (task, *guards), "select", chosen.val_limit, chosen, work
    )
    made = provenance_of(lm, task, guards, handles)
    if collected is None:
        samples = limited(task.fit, chosen.samples, chosen.seed, task.shuffled)
        collection = _collected(lm, task, samples, handles, chosen, work, watch)
    else:
        chosen = dataclasses.replace(chosen, samples=collected.settings.samples)
        collection = _collected_before(collected, made, chosen, handles, task)
    with watch.timing("select"):
        places = {h.hook_point: Place(h.layer, h.neuronpedia) for h in handles}
        ranking, inference = ranked(
            collection.statistics, collection.log, chosen, places, collection.log_note
        )
        rows = decoder_rows(ranking, handles, chosen.near_ties)
    with watch.timing("validate"):
        search = Searcher(bench, guard_benches, ranking, rows, chosen).run()
    steering = _steering(search, chosen, lm)
    return Run(
        provenance=made,
        settings=chosen,
        statistics={hook.name: stats for hook, stats in collection.statistics.items()},
        features=steering.features,
        top_features={hook.name: features for hook, features in ranking.by_layer.items()},
        steering=steering,
        candidates=search.chosen,
        search=_search_document(search),
        counts=Counts(collection.n, len(bench.samples), collection.unscored, watch.seconds),
        inference=dataclasses.asdict(inference),
        log=collection.log,
    )


def collect_shard(
    lm: LanguageModel,
    task: Task,
    shard: Shard,
    *,
    work: Work = WORK,
    watch: Stopwatch | None = None,
    **settings: Any,
) -> Run:
    """Statistics of one part of the fit samples, for `derive.merge` to add to those of the others.

    Args:
        lm: a model with SAEs.
        task: its fit split is used.
        shard: which part.
        work: how its passes are done.
        watch: adds up seconds a stage.
        settings: fields of `FitSettings`.

    Returns:
        a run with neither features nor a steering.

    Raises:
        CorrSteerError: a setting, the model, the SAEs or the data cannot be used.
    """
    chosen = FitSettings.of(**settings)
    watch = watch or Stopwatch()
    handles = choose_handles(lm, chosen.layers)
    every = limited(task.fit, chosen.samples, chosen.seed, task.shuffled)
    collection = _collected(lm, task, shard.of(every), handles, chosen, work, watch)
    return Run(
        provenance=provenance_of(lm, task, (), handles),
        settings=chosen,
        statistics={hook.name: stats for hook, stats in collection.statistics.items()},
        features=(),
        top_features={},
        steering=Steering({}, (), lm.id, lm.revision, chosen.positions),
        counts=Counts(
            n_fit=collection.n,
            unscored_fit=collection.unscored,
            seconds=watch.seconds,
            shard=str(shard),
        ),
        inference={"note": f"one of {shard.count} shards; merge them to choose features"},
        log=collection.log,
    )


def _collected(
    lm: LanguageModel,
    task: Task,
    samples: Sequence[Sample],
    handles: Sequence[SAEHandle],
    settings: FitSettings,
    work: Work,
    watch: Stopwatch,
) -> Collection:
    with watch.timing("load"):
        coders = load_coders(handles, lm, settings.sae_dtype)
    with watch.timing("collect"):
        return collect(lm, task, samples, coders, settings, work)


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
    check_alike("this run", made, settings, hooks, "what was collected", run)
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
        None if run.log else run.inference.get("note") or "the run has no log",
    )


def check_alike(
    name: str,
    provenance: Provenance,
    settings: FitSettings,
    hooks: Sequence[str],
    other_name: str,
    other: Run,
) -> None:
    """Refuse a run whose statistics are not of the same thing.

    Files of a user's own may have different names: parts of one data set do.

    Args:
        name: of what is made of the next three.
        provenance: what it is made from.
        settings: of its fit.
        hooks: names of its hook points.
        other_name: of the other.
        other: a run with statistics.

    Raises:
        ArtifactError: they differ; names what in.
    """
    theirs = other.provenance
    pairs: dict[str, tuple[Any, Any]] = {"hook points": (list(hooks), list(other.statistics))}
    for fields, one, two in (
        (SAME_PROVENANCE, provenance, theirs),
        (SAME_TASK, provenance.task_options, theirs.task_options),
        (SAME_SETTINGS, settings, other.settings),
    ):
        pairs |= {field: (getattr(one, field), getattr(two, field)) for field in fields}
    if not (provenance.task.endswith(".jsonl") and theirs.task.endswith(".jsonl")):
        pairs["task"] = (provenance.task, theirs.task)
    for field, (own, another) in pairs.items():
        if own != another:
            raise ArtifactError(
                f"{other_name} has {field} {another!r}, but {name} has {own!r}; only what was "
                "collected with the same model, SAEs, task and pooling goes together"
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


def decoder_rows(
    ranking: Ranking, handles: Sequence[SAEHandle], near_ties: int
) -> dict[tuple[str, int], Tensor]:
    """W_dec of every feature that a strategy may use, each [d_model]."""
    features = {*ranking.best_per_layer(), *ranking.near_ties(near_ties)}
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
        return search.recommended.steering
    return Steering({}, (), lm.id, lm.revision, settings.positions)


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


def _search_document(search: Search) -> dict[str, Any]:
    recommended = search.recommended
    return {
        "comparisons": search.comparisons,
        "baseline": dataclasses.asdict(search.baseline),
        "recommended": None if recommended is None else trial_document(recommended),
        "trials": [trial_document(trial) for trial in search.trials],
    }


def trial_document(trial: Trial) -> dict[str, Any]:
    """A trial as JSON holds it."""
    comparison = trial.comparison
    return {
        "strategy": trial.strategy,
        "strength": trial.steering.strength,
        "features": [[f.hook_point, f.latent] for f in trial.steering.features],
        "steered": dataclasses.asdict(comparison.steered),
        "delta": dataclasses.asdict(comparison.delta),
        "p_adjusted": trial.p_adjusted,
        "side_effects": dataclasses.asdict(comparison.side_effects),
        "guards": {
            name: {"baseline": before.accuracy, "steered": after.accuracy}
            for name, (before, after) in trial.guards.items()
        },
    }
