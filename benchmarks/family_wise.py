"""How often pure noise is called significant: Bonferroni's bound beside max-T permutation.

    python benchmarks/family_wise.py
    python benchmarks/family_wise.py --runs 1000 --samples 2000

Latents have frequencies and activations as spread as SAEs have them, and outcomes are drawn without
regard to them. Prints Markdown: the share of runs in which any latent has an adjusted p-value of at
most 0.05, which should be no more than 0.05, by the share of samples that are right.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import sparse

from corrsteer.resampling import Latents, max_t, unit
from corrsteer.significance import bonferroni, correlation_p_value

ALPHA = 0.05


def draw_latents(width: int, samples: int, rng: np.random.Generator) -> Latents:
    """Latents of log-normal frequencies, median 2 %, and log-normal activations."""
    often = np.clip(np.exp(rng.normal(-4, 1.5, size=(width, 1))), 1 / samples, 1)
    active = rng.random((width, samples)) < often
    return Latents.of(sparse.csr_array(active * rng.lognormal(size=active.shape)))


def main() -> None:
    """Print the table, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--width", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--permutations", type=int, default=199)
    arguments = parser.parse_args()
    n, rng = arguments.samples, np.random.default_rng(0)
    latents = draw_latents(arguments.width, n, rng)
    print("| samples | right | Bonferroni | max-T permutation |")
    print("|---|---|---|---|")
    for right in (0.5, 0.2, 0.05):
        bound, permuted = 0, 0
        for seed in range(arguments.runs):
            y = (rng.random(n) < right).astype(np.float64)
            r = latents.correlations(unit(y)[:, None])[:, 0]
            null = max_t([latents], y, arguments.permutations, seed)
            bound += bool(bonferroni(correlation_p_value(r, n), len(r)).min() <= ALPHA)
            permuted += bool(null.p_adjusted(r).min() <= ALPHA)
        shares = f"{bound / arguments.runs:.3f} | {permuted / arguments.runs:.3f}"
        print(f"| {n} | {right:.0%} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
