"""How many samples are enough: to see a latent active, and to measure or find a correlation.

Changes when a run is planned by another question. Nothing here looks at data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

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
        samples: the smallest number of samples at which the planned r is significant; None
            without one.
    """

    comparisons: int
    alpha: float
    smallest: dict[int, float]
    samples: int | None


@dataclass(frozen=True)
class Plan:
    """Answers to all three questions; `width` is None where no correlation was planned for."""

    activations: Activations
    width: Width | None
    detection: Detection


def plan(
    frequency: float,
    k: int = 10,
    delta: float = 0.05,
    correlation: float | None = None,
    width: float = 0.2,
    comparisons: int = COMPARISONS,
    alpha: float = 0.05,
    samples: tuple[int, ...] = SAMPLES,
) -> Plan:
    """How many samples are enough.

    Args:
        frequency: share of samples on which the latent looked for is active.
        k: activations wanted.
        delta: accepted chance of fewer.
        correlation: the r expected, or None.
        width: of its 95 % interval, at most.
        comparisons: latents compared over all layers.
        alpha: family-wise level of significance.
        samples: numbers of samples to give the smallest significant |r| for.

    Raises:
        SettingsError: a value out of its range.
    """
    found = Detection(
        comparisons,
        alpha,
        {n: smallest_correlation(n, comparisons, alpha) for n in samples},
        None if correlation is None else detecting_samples(correlation, comparisons, alpha),
    )
    return Plan(
        Activations(
            frequency,
            k,
            delta,
            exact_samples(frequency, k, delta),
            hoeffding_samples(frequency, k, delta),
            printed_samples(frequency, k, delta),
        ),
        None
        if correlation is None
        else Width(correlation, width, samples_for_width(correlation, width)),
        found,
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


def detecting_samples(correlation: float, comparisons: int = 1, alpha: float = 0.05) -> int:
    """The smallest N at which an observed r is significant at family-wise level `alpha`.

    Raises:
        SettingsError: r is 0 or |r| not below 1, no comparison, or alpha outside (0, 1).
    """
    _check_correlation(correlation)
    _check("correlation", correlation, abs(correlation) >= 1e-4, "1e-4 or more in size")
    size = abs(correlation)
    return _fewest(lambda n: smallest_correlation(n, comparisons, alpha) <= size, MIN_SAMPLES)


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
