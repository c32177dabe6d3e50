"""How often pure noise is called significant: Bonferroni's bound beside max-T permutation.

    python benchmarks/family_wise.py
    python benchmarks/family_wise.py --runs 1000 --samples 2000
    python benchmarks/family_wise.py --log runs/mmlu --runs 4000 --permutations 1000
    python benchmarks/family_wise.py --clusters --runs 400

Latents have frequencies and activations as spread as SAEs have them, and outcomes are drawn without
regard to them. With `--log` the latents are those that a run logged, of all layers, and the
outcomes are the run's own, permuted. Prints Markdown: the share of null runs in which any latent
has an adjusted p-value of at most 0.05, which should be no more than 0.05, by the share of samples
that are right.

With `--clusters` samples come in groups of 2, 5, 10, or of 1 to 10, whose activations and outcomes
are alike (intraclass correlation 0.2 and 0.5): max-T with samples permuted one by one is beside
that with whole groups.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from corrsteer.runs.folder import load_run
from corrsteer.stats.groups import Groups
from corrsteer.stats.resampling import Latents, max_t, unit
from corrsteer.stats.significance import bonferroni, correlation_p_value
from corrsteer.studies.null import Share

ALPHA = 0.05


def draw_latents(width: int, samples: int, rng: np.random.Generator) -> Latents:
    """Latents of log-normal frequencies, median 2 %, and log-normal activations."""
    often = np.clip(np.exp(rng.normal(-4, 1.5, size=(width, 1))), 1 / samples, 1)
    active = rng.random((width, samples)) < often
    return Latents.of(sparse.csr_array(active * rng.lognormal(size=active.shape)))


def logged(run: Path) -> tuple[list[Latents], NDArray[np.float64]]:
    """The latents of all hook points of a run's log, and its outcomes."""
    log = load_run(run).log
    if log is None:
        raise SystemExit(f"{run} has no log of activations; train it without --no-log")
    return [Latents.of(log.activations(name)) for name in log.widths], log.outcomes


def called(
    hook_points: Sequence[Latents],
    outcomes: Callable[[], NDArray[np.float64]],
    runs: int,
    permutations: int,
) -> tuple[Share, Share]:
    """Null runs with a significant latent, by Bonferroni's bound and by max-T permutation."""
    bound, permuted = [], []
    for seed in range(runs):
        y = outcomes()
        r = np.concatenate([each.correlations(unit(y)[:, None])[:, 0] for each in hook_points])
        null = max_t(hook_points, y, permutations, seed)
        bound.append(bool(bonferroni(correlation_p_value(r, len(y)), len(r)).min() <= ALPHA))
        permuted.append(bool(null.p_adjusted(r).min() <= ALPHA))
    return Share.of(bound), Share.of(permuted)


def cluster_sizes(size: int, samples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The group of each sample; groups of one size, or of 1 to 10 where it is 0."""
    if size:
        return np.arange(samples) // size
    sizes = rng.integers(1, 11, samples)
    return np.repeat(np.arange(samples), sizes)[:samples]


def draw_alike(
    width: int, group: NDArray[np.int64], alike: float, rng: np.random.Generator
) -> Latents:
    """Latents as `draw_latents` has them, by normals of that intraclass correlation."""
    often = np.exp(rng.normal(-4, 1.5, size=(width, 1)))
    shape = width, len(group)
    of_group = rng.normal(size=(width, group.max() + 1))[:, group]
    normal = np.sqrt(alike) * of_group + np.sqrt(1 - alike) * rng.normal(size=shape)
    threshold = stats.norm.isf(np.clip(often, 2 / len(group), 0.99))
    active = np.maximum(normal - threshold, 0)
    return Latents.of(sparse.csr_array(np.expm1(active)))


def alike_outcomes(
    group: NDArray[np.int64], alike: float, right: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Outcomes of 0 and 1 whose chance of 1 is beta distributed over groups."""
    total = (1 - alike) / alike
    chance = rng.beta(right * total, (1 - right) * total, group.max() + 1)
    return np.asarray(rng.random(len(group)) < chance[group], dtype=np.float64)


def clusters(width: int, samples: int, runs: int, permutations: int) -> None:
    """Print the rows of clusters."""
    print("| samples | groups of | ICC | right | one by one | whole groups |")
    print("|---|---|---|---|---|---|")
    for size in (2, 5, 10, 0):
        for alike in (0.2, 0.5):
            for right in (0.5, 0.1):
                called = one_or_whole(width, samples, size, (alike, right), (runs, permutations))
                cells = " | ".join(cell(share) for share in called)
                of = size or "1 to 10"
                print(f"| {samples} | {of} | {alike} | {right:.0%} | {cells} |", flush=True)


def one_or_whole(
    width: int,
    samples: int,
    size: int,
    alike_right: tuple[float, float],
    counts: tuple[int, int],
) -> tuple[Share, Share]:
    """Null runs with a significant latent, by permutations of samples and of whole groups."""
    rng, (alike, right), (runs, permutations) = np.random.default_rng(0), alike_right, counts
    one: list[bool] = []
    whole: list[bool] = []
    for seed in range(runs):
        group = cluster_sizes(size, samples, rng)
        latents = draw_alike(width, group, alike, rng)
        y = alike_outcomes(group, alike, right, rng)
        r = latents.correlations(unit(y)[:, None])[:, 0]
        for found, groups in ((one, None), (whole, Groups.of(group, samples))):
            null = max_t([latents], y, permutations, seed, groups)
            found.append(bool(null.p_adjusted(r).min() <= ALPHA))
    return Share.of(one), Share.of(whole)


def cell(share: Share) -> str:
    """A share with its exact binomial 95 % interval."""
    low, high = share.ci or (0.0, 1.0)
    return f"{share.count} of {share.runs} [{low:.3f}, {high:.3f}]"


def row(samples: int, right: float, shares: tuple[Share, Share]) -> str:
    """A row of the table: shares with their exact binomial 95 % intervals."""
    return f"| {samples} | {right:.0%} | {' | '.join(map(cell, shares))} |"


def main() -> None:
    """Print the table, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--width", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--log", type=Path, metavar="RUN")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--clusters", action="store_true")
    arguments = parser.parse_args()
    n, rng = arguments.samples, np.random.default_rng(0)
    counts = arguments.runs, arguments.permutations
    if arguments.clusters:
        clusters(arguments.width, n, *counts)
        return
    print("| samples | right | Bonferroni | max-T permutation |")
    print("|---|---|---|---|")
    if arguments.log is not None:
        hook_points, y = logged(arguments.log)
        shares = called(hook_points, lambda: rng.permutation(y), *counts)
        print(row(len(y), y.mean(), shares))
        return
    hook_points = [draw_latents(arguments.width, n, rng)]
    for right in (0.5, 0.2, 0.05):
        draw = lambda right=right: (rng.random(n) < right).astype(np.float64)  # noqa: E731
        print(row(n, right, called(hook_points, draw, *counts)), flush=True)


if __name__ == "__main__":
    main()
