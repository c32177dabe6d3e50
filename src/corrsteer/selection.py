"""Choosing features from statistics: pure functions of sufficient statistics, no model needed.

Changes when there is another way to rank features or to make a set of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from corrsteer.config import Coefficient, Method, Sign
from corrsteer.correlation import StreamingCorrelation
from corrsteer.errors import InsufficientDataError
from corrsteer.hook_points import HookPoint
from corrsteer.notebook import link
from corrsteer.significance import (
    bonferroni,
    correlation_interval,
    correlation_p_value,
    correlation_standard_error,
    false_discovery_rate,
)

PMethod = Literal["max-T permutation", "Bonferroni"]
"""Where a family-wise p-value comes from."""

Statistics = Mapping[HookPoint, StreamingCorrelation]
NEURONPEDIA = "https://www.neuronpedia.org"
TOP = 20
"""Features of every layer that a run records."""


@dataclass(frozen=True)
class Feature:
    """A latent chosen at a hook point, with the evidence for it.

    Attributes:
        hook_point: where it is read and steered.
        layer: the SAE's layer; the hook point's own but for `hook_shift`.
        latent: index into d_sae.
        coefficient: what `W_dec[latent]` is multiplied with, in units of SAE activation.
        correlation: Pearson r of its pooled activation with the outcome.
        correlation_ci: Fisher's 95 % interval of r, not corrected for selection.
        p_adjusted: two-sided p-value of r = 0 that holds for all latents of all layers at once.
        frequency: share of fit samples on which it is active; `frequency_correct` of those with
            outcome > 0, `frequency_incorrect` of the rest, None where there are none.
        url: where the feature can be looked up, or None.
        explanation: what it is said to stand for there, or None if that was not looked up.
        p_method: what `p_adjusted` is: by permutations of the outcomes (see `MaxT`), or Student's
            p-value times the number of latents compared (Bonferroni).
        q_value: the false discovery rate (Benjamini & Hochberg) if this and everything of a lower
            p-value is called a discovery, by Student's p-values.
        correlation_ci_bootstrap: bootstrap (BCa) 95 % interval of r, which assumes no
            distribution; not corrected for selection either. None without a log of activations,
            or where the feature is too rarely active.
        score: what it was ranked by: r, or where the run's method says so the contrast, or mutual
            information or the Fisher ratio with the sign of r. None in runs from before there was
            another.
    """

    hook_point: str
    layer: int
    latent: int
    coefficient: float
    correlation: float
    correlation_ci: tuple[float, float]
    p_adjusted: float
    frequency: float
    frequency_correct: float | None
    frequency_incorrect: float | None
    url: str | None = None
    explanation: str | None = None
    p_method: PMethod = "Bonferroni"
    q_value: float | None = None
    correlation_ci_bootstrap: tuple[float, float] | None = None
    score: float | None = None

    @property
    def merit(self) -> float:
        """The size of what it was ranked by; the higher the better."""
        return abs(self.correlation if self.score is None else self.score)

    @property
    def key(self) -> tuple[str, int]:
        """What tells features apart: hook point and latent."""
        return self.hook_point, self.latent

    def to_dict(self) -> dict[str, Any]:
        """The feature as JSON holds it."""
        return asdict(self)


FEATURE_COLUMNS = ("layer", "latent", "coefficient", "r [95 %]", "adjusted p", "active")


def feature_rows(features: Sequence[Feature]) -> list[tuple[object, ...]]:
    """A row of `FEATURE_COLUMNS` a feature, as a notebook shows it."""
    return [
        (
            feature.layer,
            link(feature.latent, feature.url),
            f"{feature.coefficient:.3f}",
            f"{feature.correlation:.3f} [{low:.2f}, {high:.2f}]",
            f"{feature.p_adjusted:.2g}",
            f"{feature.frequency:.0%}",
        )
        for feature in features
        for low, high in [feature.correlation_ci]
    ]


FEATURES = TypeAdapter(tuple[Feature, ...])
"""Reads features back from JSON, refusing any that are malformed."""


@dataclass(frozen=True)
class Place:
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
    """

    by_layer: Mapping[HookPoint, tuple[Feature, ...]]
    comparisons: int
    n: int

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
    places: Mapping[HookPoint, Place] | None = None,
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
                (places or {}).get(hook, Place(hook.layer)),
            )
            for latent in _highest(score, sign, TOP)
        )
    return Ranking(by_layer, comparisons, n)


@dataclass(frozen=True)
class _Evidence:
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
) -> dict[HookPoint, _Evidence]:
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
    return {hook: _Evidence(r, p_adjusted, q) for (hook, r), p_adjusted, q in parts}


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
    evidence: _Evidence,
    coefficient: Coefficient,
    place: Place,
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
