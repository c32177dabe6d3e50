"""A feature: a latent chosen at a hook point, with the evidence for it.

Changes when a feature carries more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from corrsteer.notebook import link

PMethod = Literal["max-T permutation", "Bonferroni"]
"""Where a family-wise p-value comes from."""
NEURONPEDIA = "https://www.neuronpedia.org"


@dataclass(frozen=True)
class Feature:
    """A latent chosen at a hook point, with the evidence for it.

    Attributes:
        hook_point: where it is read and steered.
        layer: the SAE's layer; the hook point's own but for `hook_shift`.
        latent: index into d_sae.
        coefficient: what `W_dec[latent]` is multiplied with, in units of SAE activation.
        correlation: Pearson r of its pooled activation with the outcome.
        correlation_ci: Fisher's 95 % interval of r, not corrected for selection. Where samples
            belong together it is that of fewer independent ones (`effective_samples`).
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
            or where too few samples carry the feature's variance (`carriers`).
        score: what it was ranked by: r, or where the run's method says so the contrast, or mutual
            information or the Fisher ratio with the sign of r. None in runs from before there was
            another.
        chosen_again: share of resamples of the fit samples, or groups of them, in which it is the
            best of its layer; None without a log, and for another method than `corr`.
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
    chosen_again: float | None = None

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
