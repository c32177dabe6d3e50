"""How many samples are enough: to see a latent active, and to measure or find a correlation.

Changes when a run is planned by another question. Nothing here looks at data.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from corrsteer.errors import SettingsError
from corrsteer.settings import MIN_SAMPLES
from corrsteer.stats.means import unchanged_limit
from corrsteer.stats.significance import LEVEL

COMPARISONS = 26 * 16_384
"""Latents of Gemma Scope 16k over the 26 layers of Gemma-2 2B, the paper's first model."""
SAMPLES = (108, 400, 1000, 4000)
"""Where the smallest correlation that can be told from none is given: the paper's sample sizes
and two between."""


@dataclass(frozen=True)
class Questions:
    """What a plan is for.

    Attributes:
        frequency: share of samples on which the latent looked for is active.
        k: activations wanted.
        delta: accepted chance of fewer.
        right: share of outcomes that are right.
        correlation: the r expected, or None.
        width: of its 95 % interval, at most.
        comparisons: latents compared over all layers.
        alpha: level of significance, family-wise for correlations.
        samples: numbers of samples to give the smallest significant |r| for.
        gain: of accuracy, expected from steering.
        worse: share of samples that steering is expected to make worse.
        power: the chance to find a correlation or a gain that is there.
        tolerance: loss of a guard task that has to be ruled out.
    """

    frequency: float
    k: int = 10
    delta: float = 0.05
    right: float = 0.5
    correlation: float | None = None
    width: float = 0.2
    comparisons: int = COMPARISONS
    alpha: float = 0.05
    samples: tuple[int, ...] = SAMPLES
    gain: float = 0.1
    worse: float = 0.0
    power: float = 0.8
    tolerance: float = 0.03


@dataclass(frozen=True)
class Activations:
    """Samples on which a latent is active at least `k` times, with probability 1 - `delta`.

    Attributes:
        frequency: share of samples on which the latent is active.
        k: activations wanted; `delta`: the chance of fewer that is accepted.
        exact: the smallest such number of samples, by the binomial distribution.
        hoeffding: what Hoeffding's inequality guarantees it for, `hoeffding_samples`.
        printed: what the paper prints, `printed_samples`; it guarantees nothing.
    """

    frequency: float
    k: int
    delta: float
    exact: int
    hoeffding: int
    printed: int


@dataclass(frozen=True)
class Width:
    """Samples for which Fisher's 95 % interval of r is no wider than `width`.

    Attributes:
        correlation: the r measured.
        width: high minus low.
        samples: the smallest such number.
    """

    correlation: float
    width: float
    samples: int


@dataclass(frozen=True)
class Detection:
    """What can be told from no correlation when many latents are compared.

    Attributes:
        comparisons: latents compared over all layers.
        alpha: the chance that any of them is called significant where none correlates, at most.
        smallest: number of samples -> the smallest |r| that is significant then.
        power: the chance to find the planned r that was asked for.
        samples: the smallest number of samples with that chance; None without an r.
        largest: the largest r that a latent of the planned frequency can have with outcomes of 0
            and 1, of which the planned share is right.
        possible: whether the planned r is within that; None without an r.
    """

    comparisons: int
    alpha: float
    smallest: dict[int, float]
    power: float
    samples: int | None
    largest: float
    possible: bool | None


@dataclass(frozen=True)
class Change:
    """Samples that show a gain of accuracy, and that rule out a loss of a guard task.

    Attributes:
        gain: share of samples that improve, less those that get worse.
        worse: share of samples that get worse.
        power: the chance that the gain is significant.
        samples: to confirm on, that give that chance; a search needs as many again to choose on.
        tolerance: loss of a guard task that has to be ruled out.
        guard_samples: the fewest that rule it out, where none changes at all.
    """

    gain: float
    worse: float
    power: float
    samples: int
    tolerance: float
    guard_samples: int


@dataclass(frozen=True)
class Plan:
    """Answers to all four questions; `width` is None where no correlation was planned for."""

    activations: Activations
    width: Width | None
    detection: Detection
    change: Change


def plan(questions: Questions) -> Plan:
    """How many samples are enough.

    Raises:
        SettingsError: a value out of its range.
    """
    q = questions
    r, largest = q.correlation, largest_correlation(q.frequency, q.right)
    found = Detection(
        q.comparisons,
        q.alpha,
        {n: smallest_correlation(n, q.comparisons, q.alpha) for n in q.samples},
        q.power,
        None if r is None else detecting_samples(r, q.comparisons, q.alpha, q.power),
        largest,
        None if r is None else abs(r) <= largest,
    )
    return Plan(
        Activations(
            q.frequency,
            q.k,
            q.delta,
            exact_samples(q.frequency, q.k, q.delta),
            hoeffding_samples(q.frequency, q.k, q.delta),
            printed_samples(q.frequency, q.k, q.delta),
        ),
        None if r is None else Width(r, q.width, samples_for_width(r, q.width)),
        found,
        Change(
            q.gain,
            q.worse,
            q.power,
            samples_for_gain(q.gain, q.power, q.worse, q.alpha),
            q.tolerance,
            samples_without_loss(q.tolerance),
        ),
    )


def exact_samples(frequency: float, k: int, delta: float) -> int:
    """The smallest N with P[Bin(N, frequency) >= k] >= 1 - delta.

    The samples before the k-th activation that are without one follow the negative binomial
    distribution, and N - k must reach its 1 - delta quantile.

    Raises:
        SettingsError: frequency outside [1e-9, 1], k below 1, or delta outside (0, 1).
    """
    _check_activations(frequency, k, delta)
    return k + int(stats.nbinom.isf(delta, k, frequency))


def hoeffding_samples(frequency: float, k: int, delta: float) -> int:
    """The smallest N for which Hoeffding's inequality gives P[Bin(N, s) < k] <= delta.

    exp(-2 (N s - k)^2 / N) <= delta with N s >= k is quadratic in sqrt(N), whose positive root is
    (a + sqrt(a^2 + 4 s k)) / (2 s), a = sqrt(ln(1 / delta) / 2). For small s it grows as 1 / s^2,
    where the exact answer grows as k / s.

    Raises:
        SettingsError: see `exact_samples`.
    """
    _check_activations(frequency, k, delta)
    a = math.sqrt(math.log(1 / delta) / 2)
    root = (a + math.sqrt(a * a + 4 * frequency * k)) / (2 * frequency)
    return math.ceil(root * root)


def printed_samples(frequency: float, k: int, delta: float) -> int:
    """What the paper's Proposition 1 prints: k / s + sqrt(ln(1 / delta) / (2 s^2)).

    It is said to follow from Hoeffding's inequality, but is not its solution, which needs more.

    Raises:
        SettingsError: see `exact_samples`.
    """
    _check_activations(frequency, k, delta)
    return math.ceil((k + math.sqrt(math.log(1 / delta) / 2)) / frequency)


def samples_for_width(correlation: float, width: float) -> int:
    """The smallest N for which Fisher's 95 % interval of r is no wider than `width`.

    With u = tanh(z / sqrt(N - 3)) the width is 2 u (1 - r^2) / (1 - r^2 u^2), which is solved
    for u. The paper's Proposition 2, Var(r) ~ (1 - r^2)^2 / (n - 3), is its limit for narrow
    intervals; there n counts the samples on which the latent is active, here all of them, since
    r is over all of them.

    Raises:
        SettingsError: |correlation| is not below 1, or width outside [1e-6, 2).
    """
    _check_correlation(correlation)
    _check("width", width, 1e-6 <= width < 2, "from 1e-6 to below 2")
    rest = 1 - correlation**2
    u = width / (rest + math.hypot(rest, correlation * width))
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    return math.ceil(3 + (z / math.atanh(u)) ** 2)


def smallest_correlation(samples: int, comparisons: int = 1, alpha: float = 0.05) -> float:
    """The smallest |r| that is significant at family-wise level `alpha`, by Bonferroni.

    Two-sided Student's t with N - 2 degrees of freedom at level alpha / comparisons, in units
    of r: t / sqrt(N - 2 + t^2).

    Raises:
        SettingsError: fewer than 4 samples, no comparison, or alpha outside (0, 1).
    """
    _check("samples", samples, samples >= MIN_SAMPLES, f"{MIN_SAMPLES} or more")
    _check("comparisons", comparisons, comparisons >= 1, "1 or more")
    _check("alpha", alpha, 0 < alpha < 1, "above 0 and below 1")
    t = float(stats.t.isf(alpha / (2 * comparisons), samples - 2))
    return t / math.hypot(math.sqrt(samples - 2), t)


def detecting_samples(
    correlation: float, comparisons: int = 1, alpha: float = 0.05, power: float = 0.5
) -> int:
    """The smallest N at which an r is found at family-wise level `alpha`, with a chance of `power`.

    What is observed is about r, in half of the cases below it, so that a power of 0.5 is where r
    itself is significant. Fisher's transform of it is normal with variance 1 / (N - 3).

    Raises:
        SettingsError: r is 0 or |r| not below 1, no comparison, or alpha or power outside (0, 1).
    """
    _check_correlation(correlation)
    _check("correlation", correlation, abs(correlation) >= 1e-4, "1e-4 or more in size")
    _check("power", power, 0 < power < 1, "above 0 and below 1")
    size, z = math.atanh(abs(correlation)), float(stats.norm.ppf(power))

    def found(n: int) -> bool:
        least = math.atanh(smallest_correlation(n, comparisons, alpha))
        return size - least >= z / math.sqrt(n - 3)

    return _fewest(found, MIN_SAMPLES)


def largest_correlation(frequency: float, right: float) -> float:
    """The largest r that a latent can have with outcomes of 0 and 1.

    A latent that is active on a share s of the samples, with s no more than the share p that is
    right, goes with the outcome best where it has one value on right samples alone:
    r = sqrt(s (1 - p) / (p (1 - s))). Where s is above p its absence goes with failure, and s and p
    change places.

    Raises:
        SettingsError: frequency outside (0, 1], or right outside (0, 1).
    """
    _check("frequency", frequency, 0 < frequency <= 1, "above 0, up to 1")
    _check("right", right, 0 < right < 1, "above 0 and below 1")
    if frequency == 1.0:
        return 1.0  # no bound: it may be more active where the outcome is right
    rare, often = sorted((frequency, right))
    return math.sqrt(rare * (1 - often) / (often * (1 - rare)))


def least_gain(samples: int, alpha: float) -> float:
    """The smallest gain that the exact paired test calls significant, where nothing gets worse.

    k samples that improve have a p-value of 2^(1-k), so that it takes 1 + log2(1 / alpha) of them.

    Args:
        samples: to confirm on; of samples that belong together, the groups.
        alpha: significance level.
    """
    if not 0 < alpha < 1:
        return 0.0 if alpha else math.inf
    fewest = math.floor(1 + math.log2(1 / alpha)) + 1
    return fewest / max(samples, 1)


def gain_power(gain: float, samples: int, worse: float = 0.0, alpha: float = 0.05) -> float:
    """The chance that McNemar's exact test calls a gain of accuracy significant.

    The sum over the number m of samples that change, Binomial(samples, gain + 2 worse), of the
    chance that enough of them improve.

    Args:
        gain: share of samples that improve, less those that get worse.
        samples: on which steering is compared with the baseline.
        worse: share of samples that get worse.
        alpha: significance level.

    Raises:
        SettingsError: gain + 2 worse is not in (0, 1], or no samples.
    """
    changed = gain + 2 * worse
    _check("gain", gain, 0 < gain <= 1 - 2 * worse, "above 0, and at most 1 - 2 worse")
    _check("worse", worse, 0 <= worse < 0.5, "from 0 to below 0.5")
    _check("samples", samples, samples >= 1, "1 or more")
    m = np.arange(samples + 1)
    enough = stats.binom.isf(alpha / 2, m, 0.5) + 1
    improved = stats.binom.sf(enough - 1, m, (gain + worse) / changed)
    return float(stats.binom.pmf(m, samples, changed) @ improved)


def samples_for_gain(
    gain: float, power: float = 0.8, worse: float = 0.0, alpha: float = 0.05
) -> int:
    """The fewest samples with which a gain of accuracy is significant with a chance of `power`.

    Exact tests gain power in steps, so that a few more samples can have a little less.

    Raises:
        SettingsError: see `gain_power`; or a gain below 1e-3, or power outside (0, 1).
    """
    _check("gain", gain, gain >= 1e-3, "1e-3 or more")
    _check("power", power, 0 < power < 1, "above 0 and below 1")
    return _fewest(lambda n: gain_power(gain, n, worse, alpha) >= power, 2)


def detectable_gain(
    samples: int, power: float = 0.8, worse: float = 0.0, alpha: float = 0.05
) -> float | None:
    """The smallest gain that is significant with a chance of `power`; None where none is.

    To a tenth of a point.

    Args:
        samples: to confirm on; of samples that belong together, the groups.
        power: chance wanted.
        worse: share of samples that get worse.
        alpha: significance level.
    """
    tenths = range(1, math.floor(1000 * (1 - 2 * worse)) + 1)
    if not samples or not 0 < alpha < 1:
        return None
    found = bisect.bisect_left(
        tenths, power, key=lambda tenth: gain_power(tenth / 1000, samples, worse, alpha)
    )
    return tenths[found] / 1000 if found < len(tenths) else None


def samples_without_loss(tolerance: float) -> int:
    """The fewest samples that rule out a loss of `tolerance` where no outcome changes at all.

    Where some change more are needed. Of samples that belong together, count the groups.

    Raises:
        SettingsError: tolerance outside [1e-6, 1).
    """
    _check("tolerance", tolerance, 1e-6 <= tolerance < 1, "from 1e-6 to below 1")
    return _fewest(lambda n: unchanged_limit(n) <= tolerance, 2)


def _fewest(enough: Callable[[int], bool], least: int) -> int:
    """The smallest n from `least` on that is enough, where every larger one is too."""
    low, high = least - 1, least
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check_activations(frequency: float, k: int, delta: float) -> None:
    _check("frequency", frequency, 1e-9 <= frequency <= 1, "from 1e-9 to 1")
    _check("k", k, k >= 1, "1 or more")
    _check("delta", delta, 1e-300 <= delta < 1, "above 0 and below 1")


def _check_correlation(correlation: float) -> None:
    _check("correlation", correlation, abs(correlation) < 1, "above -1 and below 1")


def _check(name: str, value: float, allowed: bool, range_: str) -> None:
    if not allowed:
        raise SettingsError(f"{name} is {value:g}; choose a number {range_}")
