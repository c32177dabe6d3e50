"""How the features of a run were judged.

Changes when another question is asked of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from corrsteer.features import PMethod


@dataclass(frozen=True)
class Evidence:
    """How the features of a run were judged.

    Attributes:
        p_method: what their `p_adjusted` is; None where no features were chosen.
        comparisons: latents compared over all layers.
        threshold: the |r| above which `p_adjusted` is at most the run's alpha, or None.
        permutations: of the outcomes; 0 where p-values are analytic.
        stability: share of random cuts of the fit samples into halves for which the best feature
            of a layer is the same in both, mean over layers; None without a log, and for another
            method than `corr`.
        stability_by_hook_point: the same for every hook point.
        note: why there is no log of activations, or None.
    """

    p_method: PMethod | None = None
    comparisons: int = 0
    threshold: float | None = None
    permutations: int = 0
    stability: float | None = None
    stability_by_hook_point: dict[str, float | None] = field(default_factory=dict)
    note: str | None = None
