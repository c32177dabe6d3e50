"""Permutations, split halves and resamples of correlations over many sparse latents.

Changes when correlations are judged by another kind of resampling. Activations come as SciPy
sparse matrices [d_sae, samples]; everything is seeded. What is permuted, cut and drawn are samples,
or groups of them where some belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from corrsteer.errors import InsufficientDataError
from corrsteer.stats.groups import BLOCK, Floats, Groups, Ints

PERMUTATIONS = 1000
RESAMPLES = 200
"""In which it is counted how often a feature is chosen again; a share is known to 0.035 by them."""
DENSE = 0.2
"""Share of nonzero values from which a dense product is faster than a sparse one."""
TIE = 1e-9
"""Correlations nearer than this count as equal: sums in another order differ by rounding."""


@dataclass(frozen=True)
class Latents:
    """The latents of one hook point that vary over the samples, standardised.

    Attributes:
        index: which of the d_sae latents they are.
        scaled: activations over the root of their sum of squared deviations from the mean;
            times outcomes of mean 0 and norm 1 that gives r. [latents, samples].
    """

    index: Ints
    scaled: sparse.csr_array | Floats

    @classmethod
    def of(cls, activations: sparse.csr_array, least: float = 0.0) -> Latents:
        """The latents that vary, and are active on a share of at least `least` of the samples.

        Args:
            activations: [d_sae, samples].
            least: frequency below which a latent is left out.
        """
        n = activations.shape[1]
        highest = activations.max(axis=1).toarray().ravel()
        lowest = activations.min(axis=1).toarray().ravel()
        active = np.asarray((activations > 0).sum(axis=1)).ravel()
        index = np.flatnonzero((highest > lowest) & (active / n >= least))
        kept = activations[index]
        counts = np.diff(kept.indptr)
        mean = np.asarray(kept.sum(axis=1)).ravel() / n
        deviation = np.square(kept.data - np.repeat(mean, counts))
        row = np.repeat(np.arange(len(index)), counts)
        squares = np.bincount(row, deviation, minlength=len(index)) + (n - counts) * mean**2
        kept.data /= np.repeat(np.sqrt(squares), counts)
        dense = kept.nnz > DENSE * max(kept.shape[0] * n, 1)
        return cls(index, kept.toarray() if dense else kept)

    def correlations(self, outcomes: Floats) -> Floats:
        """Pearson r of every latent with every column of outcomes, [latents, columns].

        Args:
            outcomes: [samples, columns], mean 0 and norm 1 (see `unit`).
        """
        found: Floats = self.scaled @ outcomes
        return found


def unit(outcomes: Floats) -> Floats:
    """Outcomes of mean 0 and norm 1.

    Raises:
        InsufficientDataError: all are equal.
    """
    if np.ptp(outcomes) == 0:
        raise InsufficientDataError(
            f"all {len(outcomes)} outcomes equal {outcomes[0]:g}, so no correlation exists; "
            "take a task on which the model is sometimes right and sometimes wrong"
        )
    centred: Floats = outcomes - outcomes.mean()
    return centred / float(np.linalg.norm(centred))


@dataclass(frozen=True)
class MaxT:
    """What the largest |r| of all latents is where none goes with the outcome.

    Single-step max-T by Westfall & Young (1993): the p-value of a latent is the share of
    permutations of the outcomes under which any latent of any hook point reaches its |r|. It holds
    whatever the latents' distributions and dependence, for all of them at once. Outcomes of samples
    that belong together move together (`Groups.exchanged`).

    Attributes:
        null: the largest |r| under each permutation.
        comparisons: latents compared, those that never vary not counted.
    """

    null: Floats
    comparisons: int

    def p_adjusted(self, r: Floats | float) -> Floats:
        """Family-wise p-values, (1 + permutations that reach |r|) / (1 + permutations).

        Args:
            r: observed correlations of any shape; NaN gives NaN.
        """
        ordered = np.sort(self.null)
        reaching = len(ordered) - np.searchsorted(ordered, np.abs(r) - TIE)
        p = (1 + reaching) / (1 + len(ordered))
        return np.where(np.isnan(r), np.nan, p)

    def threshold(self, alpha: float) -> float:
        """The |r| above which the p-value is at most alpha; 1 with too few permutations for it."""
        reaching = int(alpha * (1 + len(self.null)) + TIE)
        return float(np.sort([0.0, *self.null])[-reaching]) if reaching else 1.0


def max_t(
    hook_points: Iterable[Latents],
    outcomes: Floats,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    groups: Groups | None = None,
) -> MaxT:
    """The null distribution of the largest |r| over all latents of all hook points.

    Args:
        hook_points: latents of each; taken one after the other, so that one is in memory.
        outcomes: [samples].
        permutations: of the outcomes.
        seed: of the permutations, which are the same for every hook point.
        groups: of the samples; None where each is by itself.

    Raises:
        InsufficientDataError: all outcomes are equal.
    """
    outcomes, groups = unit(outcomes), groups or Groups.of(None, len(outcomes))
    null, comparisons = np.zeros(permutations), 0
    for latents in hook_points:
        comparisons += len(latents.index)
        if not len(latents.index):
            continue
        for start, permuted in _permuted(outcomes, permutations, seed, groups):
            r = latents.correlations(permuted)
            part = null[start : start + permuted.shape[1]]
            np.maximum(part, np.maximum(r.max(axis=0), -r.min(axis=0)), out=part)
    return MaxT(null, comparisons)


def _permuted(
    outcomes: Floats, permutations: int, seed: int, groups: Groups
) -> Iterator[tuple[int, Floats]]:
    """Blocks of permuted outcomes, [samples, <= BLOCK], with the number of the first.

    Permutations of single samples have the mean and norm that the outcomes have; those of groups
    repeat some outcomes and leave some out.
    """
    for start in range(0, permutations, BLOCK):
        rng = np.random.default_rng([seed, start])
        permuted = groups.permuted(outcomes, min(BLOCK, permutations - start), rng)
        yield start, permuted if groups.single else _units(permuted)


def _units(outcomes: Floats) -> Floats:
    """Columns of mean 0 and norm 1; of zeros where a column is constant."""
    centred = outcomes - outcomes.mean(axis=0)
    varies = np.ptp(outcomes, axis=0) > 0
    scaled: Floats = np.where(
        varies, centred / np.where(varies, np.linalg.norm(centred, axis=0), 1), 0
    )
    return scaled


def split_half_agreement(
    latents: Latents,
    outcomes: Floats,
    sign: int = 1,
    repeats: int = 50,
    seed: int = 0,
    groups: Groups | None = None,
) -> float | None:
    """How often both halves of the samples have the same latent of highest r.

    Args:
        latents: of one hook point.
        outcomes: [samples].
        sign: 1 for the highest r, -1 for the lowest, 0 for the highest |r|.
        repeats: random cuts into halves.
        seed: of the cuts.
        groups: of the samples, which are not cut; None where each is by itself.

    Returns:
        the share of cuts; None where a half never has a latent with such an r.
    """
    if not len(latents.index):
        return None
    groups = groups or Groups.of(None, len(outcomes))
    n, rng = len(groups.sizes), np.random.default_rng(seed)
    halves = np.zeros((n, repeats))
    halves[: n // 2] = 1.0
    halves = rng.permuted(halves, axis=0)[groups.codes]
    one, other = (_best(latents, outcomes, half, sign) for half in (halves, 1 - halves))
    valid = (one >= 0) & (other >= 0)
    return float(np.mean(one[valid] == other[valid])) if valid.any() else None


def best_again(
    latents: Latents,
    outcomes: Floats,
    groups: Groups,
    sign: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Ints:
    """Which latent is the best in samples drawn with replacement, group by group.

    Args:
        latents: of one hook point.
        outcomes: [samples].
        groups: of the samples.
        sign: see `split_half_agreement`.
        resamples: draws of as many groups as there are.
        seed: of the draws, which are the same for every hook point.

    Returns:
        its index into d_sae, -1 where none has such an r; [resamples].
    """
    best = np.full(resamples, -1)
    if len(latents.index):
        for start, drawn in groups.drawn(resamples, seed):
            index = _best(latents, outcomes, drawn.T[groups.codes], sign)
            found = np.where(index >= 0, latents.index[index], -1)
            best[start : start + len(drawn)] = found
    return best


def _best(latents: Latents, outcomes: Floats, weight: Floats, sign: int) -> Ints:
    """The best latent among weighted samples, [repeats]; -1 where none is defined.

    Args:
        latents: of one hook point.
        outcomes: [samples].
        weight: how often a sample counts, 0 or more; [samples, repeats].
        sign: see `split_half_agreement`.
    """
    z, size = latents.scaled, weight.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = outcomes[:, None] - (outcomes[:, None] * weight).sum(axis=0) / size
        centred = deviation * weight
        squared = np.square(z) if isinstance(z, np.ndarray) else z.power(2)
        total, squares = z @ weight, squared @ weight
        spread = squares - total**2 / size
        r = (z @ centred) / np.sqrt(spread * (deviation * centred).sum(axis=0))
        score = np.abs(r) if sign == 0 else sign * r
        # what varies by less than this share of its squares is constant but for rounding
        score = np.where((spread > 1e-9 * squares) & (score > 0), score, -np.inf)
    best: Ints = np.where(np.isfinite(score.max(axis=0)), score.argmax(axis=0), -1)
    return best
