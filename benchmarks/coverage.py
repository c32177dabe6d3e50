"""Whether intervals of accuracy and of its change hold what they should, and what guards let pass.

    python benchmarks/coverage.py
    python benchmarks/coverage.py --runs 4000

Of outcomes of 0 and 1 on samples that are by themselves, every number of improved and worsened
samples is gone through with its probability, so that the coverage is exact. Graded outcomes and
groups are drawn: a group's samples share one draw, each with the probability that gives the
intraclass correlation (ICC). Prints Markdown: coverage in %, beside that of Student's t interval of
the plain mean. Each is the lowest over what a row does not name: one-sided and mixed changes in the
first table (and in its rows "any" 0.25 to 20 changes expected), shares of changed samples and
numbers of samples in the second. The third is about a guard with a tolerance of 3 points.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from corrsteer.stats.groups import Groups
from corrsteer.stats.means import mean_interval
from corrsteer.stats.metrics import accuracy, delta

Floats = NDArray[np.float64]
Interval = tuple[float, float]
Draw = Callable[[np.random.Generator, int], Floats]
"""Draws changes of so many samples."""
SAMPLES = (30, 100, 500)
CHANGED = (0.01, 0.03, 0.1)
IMPROVED = (1.0, 0.8, 0.5)
"""Shares of the samples that change, and of those which improve."""
TOLERANCE = 0.03


def students(values: Floats) -> Interval:
    """Student's 95 % interval of a mean."""
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return float(values.mean()) - half, float(values.mean()) + half


@cache
def intervals(n: int, up: int, down: int) -> tuple[Interval, Interval]:
    """Student's interval and ours, where `up` samples of n improved and `down` worsened."""
    change = np.repeat([1.0, -1.0, 0.0], [up, down, n - up - down])
    return students(change), delta(np.zeros(n), change).ci


def outcomes(n: int, gain: float, loss: float) -> Iterator[tuple[int, int, float]]:
    """Numbers of improved and worsened samples with their probability, but for 1e-6 of it."""
    if gain + loss == 0:
        yield 0, 0, 1.0
        return
    most = int(stats.binom.isf(1e-7, n, gain + loss)) + 1
    for changed in range(min(most, n) + 1):
        up = np.arange(changed + 1)
        chance = stats.binom.pmf(changed, n, gain + loss)
        for k, p in zip(up, stats.binom.pmf(up, changed, gain / (gain + loss)), strict=True):
            yield int(k), changed - int(k), float(chance * p)


def exact_coverage(n: int, changed: float, improved: float) -> list[float]:
    """Coverage of Student's interval and of ours."""
    gain, loss = changed * improved, changed * (1 - improved)
    covered = np.zeros(2)
    for up, down, p in outcomes(n, gain, loss):
        for i, (low, high) in enumerate(intervals(n, up, down)):
            covered[i] += p * (low - 1e-12 <= gain - loss <= high + 1e-12)
    return covered.tolist()


def passing(n: int, gain: float, loss: float) -> list[float]:
    """The chance that a guard passes by its point estimate, and by the limit of its loss."""
    passed = np.zeros(2)
    for up, down, p in outcomes(n, gain, loss):
        passed[0] += p * (down - up <= TOLERANCE * n + 1e-9)
        passed[1] += p * (-intervals(n, up, down)[1][0] <= TOLERANCE)
    return passed.tolist()


def binary(changed: float, improved: float) -> Draw:
    """Changes of outcomes of 0 and 1."""
    shares = [changed * improved, changed * (1 - improved), 1 - changed]
    return lambda rng, n: rng.choice([1.0, -1.0, 0.0], n, p=shares)


def graded(changed: float, improved: float) -> Draw:
    """Changes by 1 to 4 quarters."""
    whole = binary(changed, improved)
    return lambda rng, n: whole(rng, n) * rng.integers(1, 5, n) / 4


def in_groups(
    draw: Draw, groups: NDArray[np.int64], icc: float, rng: np.random.Generator
) -> Floats:
    """Changes of samples whose groups have that intraclass correlation."""
    shared = rng.random(len(groups)) < np.sqrt(icc)
    return np.where(shared, draw(rng, groups.max() + 1)[groups], draw(rng, len(groups)))


def drawn_coverage(
    draw: Draw, mean: float, groups: NDArray[np.int64], icc: float, runs: int
) -> list[float]:
    """Coverage of Student's interval and of ours, for the change and then for the accuracy."""
    rng, covered = np.random.default_rng(0), np.zeros(4)
    for _ in range(runs):
        change = in_groups(draw, groups, icc, rng)
        right = np.abs(change)  # outcomes in [0, 1] of the same dependence
        found = (
            (students(change), mean),
            (mean_interval(change, Groups.of(groups, len(groups)), -1.0, 1.0), mean),
            (students(right), abs(mean)),
            (accuracy(right, groups).ci, abs(mean)),
        )
        covered += [low - 1e-12 <= true <= high + 1e-12 for (low, high), true in found]
    return [float(count / runs) for count in covered]


def percent(*shares: float) -> str:
    """Cells of a table."""
    return " | ".join(f"{100 * share:.1f}" for share in shares)


def main() -> None:
    """Print the tables, a row as soon as it is known."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=500, help="of each cell that is drawn")
    runs = parser.parse_args().runs
    print("| samples | changed | Student's t | ours |\n|---|---|---|---|")
    for n in SAMPLES:
        few = tuple(np.arange(0.25, min(20, n / 2), 0.25) / n)
        for name, shares in [*((f"{c:.0%}", (c,)) for c in CHANGED), ("any", few)]:
            cells = [exact_coverage(n, c, improved) for c in shares for improved in IMPROVED]
            print(f"| {n} | {name} | {percent(*np.min(cells, axis=0))} |", flush=True)
    print("\n| outcomes | group size | ICC | change: Student's t | ours", end="")
    print(" | accuracy: Student's t | ours |\n|---|---|---|---|---|---|---|")
    for name, kind, rate in (("0 and 1", binary, 1.0), ("graded", graded, 0.625)):
        for size, icc in ((1, 0.0), (2, 0.2), (2, 0.5), (5, 0.2), (5, 0.5), (10, 0.2), (10, 0.5)):
            cells = [
                drawn_coverage(kind(c, 1.0), c * rate, np.arange(n) // size, icc, runs)
                for c in CHANGED
                for n in SAMPLES
            ]
            worst = percent(*np.min(cells, axis=0))
            print(f"| {name} | {size} | {icc:g} | {worst} |", flush=True)
    print("\n| guard samples | worsened | improved | passes by its point | by its limit |")
    print("|---|---|---|---|---|")
    for n in (30, 100, 300, 1000):
        for loss, gain in ((0.045, 0.0), (0.065, 0.02), (0.02, 0.02), (0.0, 0.0)):
            passed = percent(*passing(n, gain, loss))
            print(f"| {n} | {loss:.1%} | {gain:.0%} | {passed} |", flush=True)


if __name__ == "__main__":
    main()
