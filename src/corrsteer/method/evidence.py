"""What can be believed of ranked features: p-values, intervals and stability by resampling.

Changes when another question is asked of the log of activations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from corrsteer.features import Feature
from corrsteer.hook_points import HookPoint
from corrsteer.method.ranking import Ranking, SAEPlace, Statistics, rank, with_contrasts
from corrsteer.runs.activation_log import ActivationLog
from corrsteer.runs.evidence import Evidence
from corrsteer.settings import FitSettings, Sign
from corrsteer.stats.intervals import (
    CARRIERS,
    bootstrap_intervals,
    carriers,
    effective_samples,
)
from corrsteer.stats.outcome_sums import MeanPooled
from corrsteer.stats.resampling import (
    Latents,
    MaxT,
    best_again,
    max_t,
    split_half_agreement,
    unit,
)
from corrsteer.stats.sample_size import smallest_correlation
from corrsteer.stats.significance import correlation_interval

_SIGNS: Mapping[Sign, int] = {"positive": 1, "negative": -1, "both": 0}


def ranked(
    statistics: Statistics,
    log: ActivationLog | None,
    settings: FitSettings,
    places: Mapping[HookPoint, SAEPlace],
    note: str | None = None,
    means: Mapping[HookPoint, MeanPooled] | None = None,
) -> tuple[Ranking, Evidence]:
    """Features ranked as the settings say, and judged by the log where there is one.

    Args:
        statistics: over the fit samples.
        log: their pooled activations, or None.
        settings: of the fit.
        places: what is known of the SAE at a hook point.
        note: why there is no log.
        means: what was pooled by mean, where latents are to be ranked by their contrast too.

    Raises:
        InsufficientDataError: too few samples, or outcomes that do not vary.
        ArtifactError: the log cannot be read, or the statistics lack what the method needs.
    """
    ranking = rank(
        statistics,
        settings.coefficient,
        places,
        settings.min_frequency,
        settings.method,
        settings.sign,
    )
    ranking = with_contrasts(ranking, statistics, means or {}, places, settings.min_frequency)
    return infer(ranking, log, settings, note)


def infer(
    ranking: Ranking, log: ActivationLog | None, settings: FitSettings, note: str | None = None
) -> tuple[Ranking, Evidence]:
    """The ranking with what resampling says of its features, and how that was done.

    Without a log the p-values stay as they are, by Bonferroni.

    Args:
        ranking: of statistics over the log's samples.
        log: pooled activations, or None.
        settings: of the fit.
        note: why there is no log.

    Raises:
        ArtifactError: the log cannot be read.
    """
    if log is None:
        bound = _bound(ranking, settings.alpha)
        return ranking, Evidence("Bonferroni", ranking.comparisons, bound, note=note)
    null = permuted_null(log, settings) if settings.permutations else None
    by_layer, by_contrast = {}, dict(ranking.by_contrast)
    stability: dict[str, float | None] = {}
    for hook, features in ranking.by_layer.items():
        activations = log.activations(hook.name)
        latents = Latents.of(activations, settings.min_frequency)
        if settings.method == "corr":
            sign = _SIGNS[settings.sign]
            stability[hook.name] = split_half_agreement(
                latents, log.outcomes, sign, seed=settings.seed, groups=log.groups
            )
            again = best_again(latents, log.outcomes, log.groups, sign, seed=settings.seed)
            features = tuple(
                replace(feature, chosen_again=float(np.mean(again == feature.latent)))
                for feature in features
            )
        if null is not None:
            r = _observed(latents, log.outcomes, log.widths[hook.name])
            features = tuple(_tested(feature, null, r[feature.latent]) for feature in features)
            by_contrast[hook] = tuple(
                _tested(feature, null, r[feature.latent]) for feature in by_contrast.get(hook, ())
            )
        by_layer[hook] = _with_intervals(features, activations, log, settings.seed)
    ranking = replace(ranking, by_layer=by_layer, by_contrast=by_contrast)
    known = [share for share in stability.values() if share is not None]
    return ranking, Evidence(
        p_method="max-T permutation" if null else "Bonferroni",
        comparisons=null.comparisons if null else ranking.comparisons,
        threshold=null.threshold(settings.alpha) if null else _bound(ranking, settings.alpha),
        permutations=settings.permutations,
        stability=float(np.mean(known)) if known else None,
        stability_by_hook_point=stability,
    )


def permuted_null(
    log: ActivationLog, settings: FitSettings, outcomes: NDArray[np.float64] | None = None
) -> MaxT:
    """The largest |r| of any selectable latent of any layer under permuted outcomes.

    Args:
        log: pooled activations; one hook point is in memory at a time.
        settings: number of permutations, seed and least frequency.
        outcomes: in place of the log's own, as for a null study; in the order of its samples.
    """

    def hook_points() -> Iterator[Latents]:
        for name in log.widths:
            yield Latents.of(log.activations(name), settings.min_frequency)

    y = log.outcomes if outcomes is None else outcomes
    return max_t(hook_points(), y, settings.permutations, settings.seed, log.groups)


def family_wise(
    log: ActivationLog, settings: FitSettings, outcomes: NDArray[np.float64] | None = None
) -> dict[str, NDArray[np.float64]]:
    """The adjusted p-value of every latent, [d_sae] a hook point; NaN where it is not compared.

    Args:
        log: pooled activations.
        settings: see `permuted_null`; one permutation or more.
        outcomes: see `permuted_null`.
    """
    y = log.outcomes if outcomes is None else outcomes
    null, found = permuted_null(log, settings, y), {}
    for name, width in log.widths.items():
        latents = Latents.of(log.activations(name), settings.min_frequency)
        found[name] = null.p_adjusted(_observed(latents, y, width))
    return found


def _observed(latents: Latents, outcomes: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Every latent's r, [width]; NaN where it is not compared."""
    r = np.full(width, np.nan)
    r[latents.index] = latents.correlations(unit(outcomes)[:, None])[:, 0]
    return r


def _bound(ranking: Ranking, alpha: float) -> float:
    """The |r| that is significant by Bonferroni; every one at alpha 1, and none at 0."""
    if not 0 < alpha < 1:
        return 1.0 - alpha
    return smallest_correlation(ranking.n, max(ranking.comparisons, 1), alpha)


def _tested(feature: Feature, null: MaxT, observed: float) -> Feature:
    """The feature with its p-value by permutation.

    Args:
        feature: as ranked.
        null: the null distribution.
        observed: r of the logged activations, which differ from the ranked ones by rounding to
            float16; NaN where rounding made them constant.
    """
    r = feature.correlation if np.isnan(observed) else float(observed)
    return replace(feature, p_adjusted=float(null.p_adjusted(r)), p_method="max-T permutation")


def _with_intervals(
    features: Sequence[Feature], activations: sparse.csr_array, log: ActivationLog, seed: int
) -> tuple[Feature, ...]:
    """Features of one hook point with their bootstrap intervals, and Fisher's where groups are."""
    rows = activations[np.array([f.latent for f in features], dtype=np.int64)].toarray()
    ends = bootstrap_intervals(rows, log.outcomes, seed=seed, groups=log.groups)
    ends[carriers(rows, log.groups) < CARRIERS] = np.nan
    independent = effective_samples(rows, log.outcomes, log.groups)
    found = []
    for feature, (low, high), n in zip(features, ends.tolist(), independent, strict=True):
        if not log.groups.single:
            fisher = correlation_interval(feature.correlation, float(n))
            feature = replace(feature, correlation_ci=fisher)
        bootstrap = None if np.isnan(low + high) else (low, high)
        found.append(replace(feature, correlation_ci_bootstrap=bootstrap))
    return tuple(found)
