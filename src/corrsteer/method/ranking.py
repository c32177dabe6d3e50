"""Choosing features from statistics: pure functions of sufficient statistics, no model needed.

Changes when there is another way to rank features or to make a set of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from corrsteer.errors import InsufficientDataError
from corrsteer.features import NEURONPEDIA, Feature
from corrsteer.hook_points import HookPoint
from corrsteer.settings import Coefficient, Method, Sign
from corrsteer.stats.correlation import StreamingCorrelation
from corrsteer.stats.outcome_sums import MeanPooled
from corrsteer.stats.significance import (
    bonferroni,
    correlation_interval,
    correlation_p_value,
    correlation_standard_error,
    false_discovery_rate,
)

Statistics = Mapping[HookPoint, StreamingCorrelation]
TOP = 20
"""Features of every layer that a run records."""
MOST_CONTRASTS = 50
"""Latents of largest contrast of every layer that a direction may be rebuilt from."""


@dataclass(frozen=True)
class SAEPlace:
    """What is known of the SAE at a hook point.

    Attributes:
        layer: the layer it is named by; the hook point's own but for `hook_shift`.
        page: `model/source` of its pages on Neuronpedia, or None.
    """

    layer: int
    page: str | None = None


@dataclass(frozen=True)
class Ranking:
    """Every layer's best features, best first; ties go to the lower latent.

    Attributes:
        by_layer: hook point -> its features of the sign asked for, at most `TOP`, best first. A
            hook point without one has an empty tuple.
        comparisons: latents, over all hook points, that could have been selected: whose r is
            defined, and that are active often enough.
        n: samples that the correlations are over.
        by_contrast: hook point -> the latents whose activation differs most between right and
            wrong answers, the largest first, with that difference as coefficient; empty where it
            was not asked for. See `with_contrasts`.
    """

    by_layer: Mapping[HookPoint, tuple[Feature, ...]]
    comparisons: int
    n: int
    by_contrast: Mapping[HookPoint, tuple[Feature, ...]] = field(default_factory=dict)

    def best(self) -> tuple[Feature, ...]:
        """S: the one best feature; ties go to the lower layer."""
        return tuple(sorted(self.best_per_layer(), key=lambda f: -f.merit)[:1])

    def best_per_layer(self) -> tuple[Feature, ...]:
        """A: the best feature of every hook point, in the order of layers."""
        return tuple(features[0] for features in self.by_layer.values() if features)

    def near_ties(self, most: int) -> tuple[Feature, ...]:
        """Features whose |r| is within one standard error of their layer's best, best first.

        Args:
            most: at most this many a layer, its best included.
        """
        near = []
        for features in self.by_layer.values():
            for feature in features[:most]:
                r = abs(features[0].correlation)
                if abs(feature.correlation) >= r - correlation_standard_error(r, self.n):
                    near.append(feature)
        return tuple(sorted(near, key=lambda f: -f.merit))


def rank(
    statistics: Statistics,
    coefficient: Coefficient = "positive",
    places: Mapping[HookPoint, SAEPlace] | None = None,
    min_frequency: float = 0.0,
    method: Method = "corr",
    sign: Sign = "positive",
) -> Ranking:
    """Features that go with the outcome, best first, with their evidence.

    Args:
        statistics: of one or more hook points.
        coefficient: see `StreamingCorrelation.coefficient`.
        places: what is known of the SAE at a hook point.
        min_frequency: share of samples on which a latent must be active to be considered.
        method: what to rank by. Mutual information and the Fisher ratio have no sign of their
            own and take that of r.
        sign: of the features wanted. A negative one is steered away from: its coefficient is
            minus the size of the mean (a contrast has its own sign).

    Raises:
        InsufficientDataError: too few samples, or all outcomes equal.
        ArtifactError: the statistics are of before there were other methods.
    """
    n = min((s.n for s in statistics.values()), default=0)
    if n < 4:
        raise InsufficientDataError(
            f"only {n} fit samples could be judged; a correlation needs 4 or more: "
            "raise --samples or check the scorer"
        )
    for stats in statistics.values():
        if stats.m2_y == 0:
            raise InsufficientDataError(
                f"all {stats.n} fit outcomes equal {stats.first_y:g}, so no correlation exists; "
                "take a task on which the model is sometimes right and sometimes wrong, "
                "or check --scorer"
            )
    hooks = sorted(statistics, key=lambda hook: hook.order)
    correlations = {hook: _considered(statistics[hook], min_frequency) for hook in hooks}
    evidence = _evidence(statistics, correlations)
    comparisons = sum(int(np.isfinite(r).sum()) for r in correlations.values())
    by_layer = {}
    for hook, r in correlations.items():
        score = scores(statistics[hook], method, r)
        by_layer[hook] = tuple(
            _feature(
                hook,
                latent,
                float(score[latent]),
                statistics[hook],
                evidence[hook],
                coefficient,
                (places or {}).get(hook, SAEPlace(hook.layer)),
            )
            for latent in _highest(score, sign, TOP)
        )
    return Ranking(by_layer, comparisons, n)


def with_contrasts(
    ranking: Ranking,
    statistics: Statistics,
    means: Mapping[HookPoint, MeanPooled],
    places: Mapping[HookPoint, SAEPlace],
    min_frequency: float = 0.0,
) -> Ranking:
    """The ranking with the latents of largest contrast of every hook point.

    The contrast is the difference of the mean activation on right and on wrong answers, activations
    pooled by mean over positions whatever the run pools by, as the residual is of which this is the
    part that latents make. At most half of a layer's active latents are among them: more would be
    no selection.

    Args:
        ranking: of the statistics.
        statistics: over the fit samples.
        means: what was pooled by mean over the same; without it the ranking stays as it is.
        places: what is known of the SAE at a hook point.
        min_frequency: see `rank`.

    Raises:
        InsufficientDataError: all outcomes are above 0, or none is.
    """
    correlations = {hook: _considered(statistics[hook], min_frequency) for hook in means}
    evidence = _evidence(statistics, correlations) if means else {}
    found = {}
    for hook in sorted(means, key=lambda hook: hook.order):
        contrast = means[hook].latents.contrast().cpu().numpy()
        size = np.where(np.isfinite(correlations[hook]), contrast, 0.0)
        most = min(MOST_CONTRASTS, int((statistics[hook].active > 0).sum()) // 2)
        place = places.get(hook, SAEPlace(hook.layer))
        found[hook] = tuple(
            replace(
                _feature(
                    hook,
                    latent,
                    float(contrast[latent]),
                    statistics[hook],
                    evidence[hook],
                    "positive",
                    place,
                ),
                coefficient=float(contrast[latent]),
            )
            for latent in _highest(size, "both", most)
        )
    return replace(ranking, by_contrast=found)


@dataclass(frozen=True)
class _LatentEvidence:
    """Per latent of a hook point: r, and what Student's p-value makes of it over all of them."""

    r: NDArray[np.float64]
    p_adjusted: NDArray[np.float64]
    q_value: NDArray[np.float64]


def _considered(stats: StreamingCorrelation, min_frequency: float) -> NDArray[np.float64]:
    """Every latent's r; NaN where it is undefined, or the latent is active too rarely."""
    often = stats.frequency() >= min_frequency
    r: NDArray[np.float64] = torch.where(often, stats.correlation(), torch.nan).cpu().numpy()
    return r


def _evidence(
    statistics: Statistics, correlations: Mapping[HookPoint, NDArray[np.float64]]
) -> dict[HookPoint, _LatentEvidence]:
    """p- and q-values over the latents of all hook points together."""
    p = [correlation_p_value(r, statistics[hook].n) for hook, r in correlations.items()]
    together = np.concatenate(p)
    adjusted = bonferroni(together, int(np.isfinite(together).sum()))
    ends = np.cumsum([len(part) for part in p])[:-1]
    parts = zip(
        correlations.items(),
        np.split(adjusted, ends),
        np.split(false_discovery_rate(together), ends),
        strict=True,
    )
    return {hook: _LatentEvidence(r, p_adjusted, q) for (hook, r), p_adjusted, q in parts}


def scores(
    stats: StreamingCorrelation, method: Method, r: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What `method` ranks latents by, negative for those that go with failure.

    Args:
        stats: of one hook point.
        method: what to rank by.
        r: of every latent, NaN where it must not be selected.

    Returns:
        NaN where r is.

    Raises:
        ArtifactError, InsufficientDataError: see `StreamingCorrelation`.
    """
    if method == "corr":
        return r
    size = {
        "mi": stats.mutual_information,
        "fisher": stats.fisher_ratio,
        "contrast": stats.contrast,
    }[method]()
    found: NDArray[np.float64] = size.cpu().numpy()
    return np.where(np.isfinite(r), found if method == "contrast" else found * np.sign(r), np.nan)


def _highest(score: NDArray[np.float64], sign: Sign, most: int) -> list[int]:
    """Latents of that sign, best first, ties by lower latent; NaN is never among them."""
    wanted = {"positive": score, "negative": -score, "both": np.abs(score)}[sign]
    wanted = np.where(wanted > 0, wanted, -np.inf)
    order = np.argsort(-wanted, kind="stable")[:most]
    return [int(latent) for latent in order if wanted[latent] > 0]


def _feature(
    hook: HookPoint,
    latent: int,
    score: float,
    stats: StreamingCorrelation,
    evidence: _LatentEvidence,
    coefficient: Coefficient,
    place: SAEPlace,
) -> Feature:
    r = float(evidence.r[latent])
    incorrect = float(stats.frequency("rest")[latent])
    correct = float(stats.frequency("positive")[latent])
    amount = float(stats.coefficient(coefficient)[latent])
    return Feature(
        hook_point=hook.name,
        layer=place.layer,
        latent=latent,
        coefficient=-abs(amount) if score < 0 and coefficient != "contrast" else amount,
        correlation=r,
        correlation_ci=correlation_interval(r, stats.n),
        p_adjusted=float(evidence.p_adjusted[latent]),
        frequency=float(stats.frequency()[latent]),
        frequency_correct=None if correct != correct else correct,
        frequency_incorrect=None if incorrect != incorrect else incorrect,
        url=place.page and f"{NEURONPEDIA}/{place.page}/{latent}",
        q_value=float(evidence.q_value[latent]),
        score=score,
    )
