"""Permutations, bootstraps and split halves of correlations over many sparse latents.

Changes when correlations are judged by another kind of resampling. Activations come as SciPy
sparse matrices [d_sae, samples]; everything is seeded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from corrsteer.errors import InsufficientDataError
from corrsteer.stats.significance import LEVEL

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PERMUTATIONS = 1000
BLOCK = 128
"""Permutations that one matrix product is over."""
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
    whatever the latents' distributions and dependence, for all of them at once.

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
) -> MaxT:
    """The null distribution of the largest |r| over all latents of all hook points.

    Args:
        hook_points: latents of each; taken one after the other, so that one is in memory.
        outcomes: [samples].
        permutations: of the outcomes.
        seed: of the permutations, which are the same for every hook point.

    Raises:
        InsufficientDataError: all outcomes are equal.
    """
    outcomes = unit(outcomes)
    null, comparisons = np.zeros(permutations), 0
    for latents in hook_points:
        comparisons += len(latents.index)
        if not len(latents.index):
            continue
        for start, permuted in _permuted(outcomes, permutations, seed):
            r = latents.correlations(permuted)
            part = null[start : start + permuted.shape[1]]
            np.maximum(part, np.maximum(r.max(axis=0), -r.min(axis=0)), out=part)
    return MaxT(null, comparisons)


def _permuted(outcomes: Floats, permutations: int, seed: int) -> Iterator[tuple[int, Floats]]:
    """Blocks of permuted outcomes, [samples, <= BLOCK], with the number of the first."""
    for start in range(0, permutations, BLOCK):
        count = min(BLOCK, permutations - start)
        rng = np.random.default_rng([seed, start])
        yield start, rng.permuted(np.repeat(outcomes[:, None], count, axis=1), axis=0)


def split_half_agreement(
    latents: Latents, outcomes: Floats, sign: int = 1, repeats: int = 50, seed: int = 0
) -> float | None:
    """How often both halves of the samples have the same latent of highest r.

    Args:
        latents: of one hook point.
        outcomes: [samples].
        sign: 1 for the highest r, -1 for the lowest, 0 for the highest |r|.
        repeats: random cuts into halves.
        seed: of the cuts.

    Returns:
        the share of cuts; None where a half never has a latent with such an r.
    """
    if not len(latents.index):
        return None
    n, rng = len(outcomes), np.random.default_rng(seed)
    halves = np.zeros((n, repeats))
    halves[: n // 2] = 1.0
    halves = rng.permuted(halves, axis=0)
    best = [_best(latents, outcomes, half, sign) for half in (halves, 1 - halves)]
    valid = (best[0] >= 0) & (best[1] >= 0)
    return float(np.mean(best[0][valid] == best[1][valid])) if valid.any() else None


def _best(latents: Latents, outcomes: Floats, half: Floats, sign: int) -> Ints:
    """The best latent of each half, [repeats]; -1 where none is defined.

    Args:
        latents: of one hook point.
        outcomes: [samples].
        half: 1 where a sample belongs to the half, else 0; [samples, repeats].
        sign: see `split_half_agreement`.
    """
    z, size, y = latents.scaled, half.sum(axis=0), outcomes[:, None] * half
    mean_y = y.sum(axis=0) / size
    centred = (outcomes[:, None] - mean_y) * half
    squared = np.square(z) if isinstance(z, np.ndarray) else z.power(2)
    total, squares = z @ half, squared @ half
    spread = squares - total**2 / size
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (z @ centred) / np.sqrt(spread * np.square(centred).sum(axis=0))
    score = np.abs(r) if sign == 0 else sign * r
    # what varies by less than this share of its squares is constant but for rounding
    score = np.where((spread > 1e-9 * squares) & (score > 0), score, -np.inf)
    best: Ints = np.where(np.isfinite(score.max(axis=0)), score.argmax(axis=0), -1)
    return best


def bootstrap_intervals(
    activations: Floats, outcomes: Floats, resamples: int = 2000, seed: int = 0
) -> Floats:
    """Bias-corrected and accelerated (BCa) 95 % intervals of r, Efron (1987).

    Samples are drawn with replacement, activation and outcome together. All latents share the
    draws, whose sums are matrix products of how often each sample was drawn. The acceleration is
    that of the jackknife. It equals `scipy.stats.bootstrap(..., paired=True)` with the same draws.

    Args:
        activations: [latents, samples].
        outcomes: [samples].
        resamples: draws of all samples.
        seed: of the draws.

    Returns:
        [latents, 2], low and high; NaN where r is undefined, or is in some draw.
    """
    n = len(outcomes)
    z, y = _standardised(activations), _standardised(outcomes[None])[0]
    r = z @ y / n
    columns = np.concatenate([z, z**2, z * y, [y, y**2, np.ones(n)]]).T
    draws = np.empty((resamples, len(z)))
    for start, drawn in _drawn(n, resamples, seed):
        draws[start : start + len(drawn)] = _correlations_of_sums(drawn @ columns)
    jackknife = _correlations_of_sums(columns.sum(axis=0) - columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        below = (draws < r).mean(axis=0) + (draws <= r).mean(axis=0)
        bias = stats.norm.ppf(below / 2)
        skew = jackknife.mean(axis=0) - jackknife
        acceleration = (skew**3).sum(axis=0) / (6 * (skew**2).sum(axis=0) ** 1.5)
        tail = stats.norm.ppf((1 - LEVEL) / 2)
        ends = []
        for quantile in (tail, -tail):
            shifted = bias + quantile
            level = stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))
            ends.append([_quantile(draws[:, i], level[i]) for i in range(len(z))])
    return np.asarray(ends, dtype=np.float64).T.reshape(-1, 2)


def _standardised(values: Floats) -> Floats:
    """Rows of mean 0 and variance 1, for the sake of rounding; NaN where a row is constant."""
    centred = values - values.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.square(centred).mean(axis=1, keepdims=True))
    spread[np.ptp(values, axis=1) == 0] = np.nan
    standardised: Floats = centred / spread
    return standardised


def _drawn(n: int, resamples: int, seed: int) -> Iterator[tuple[int, Floats]]:
    """Blocks of how often each sample is drawn, [<= BLOCK, n], with the number of the first."""
    index = np.random.default_rng(seed)
    for start in range(0, resamples, BLOCK):
        count = min(BLOCK, resamples - start)
        drawn = index.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n)
        yield start, counts.astype(np.float64)


def _correlations_of_sums(sums: Floats) -> Floats:
    """Correlation of each latent from sums of z, z^2, zy, then y, y^2 and 1, in the last axis."""
    latents = (sums.shape[1] - 3) // 3
    z, zz, zy = (sums[:, i * latents : (i + 1) * latents] for i in range(3))
    y, yy, n = (sums[:, [column]] for column in (-3, -2, -1))
    spread_z, spread_y = zz - z**2 / n, yy - y**2 / n
    defined = (spread_z > 1e-9 * zz) & (spread_y > 1e-9 * yy)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(defined, (zy - z * y / n) / np.sqrt(spread_z * spread_y), np.nan)


def _quantile(draws: Floats, level: float) -> float:
    return float(np.quantile(draws, level)) if np.isfinite(level) else float("nan")
