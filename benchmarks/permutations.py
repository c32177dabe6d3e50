"""What max-T permutation costs: over 6 x 1024 latents and 2,000 samples, and by a slope 26 x 16k.

    python benchmarks/permutations.py
    python benchmarks/permutations.py --samples 4000 --frequency 0.02

Activations are drawn with frequencies spread around the mean by a log-normal factor, as SAEs have
them, and go through the log on disk as in a run. Prints Markdown: the seconds of the whole, those
a permutation, how many times one pass over the log (reading it, and one correlation each) that is,
and what the cost a latent at growing widths says of 26 layers of 16,384.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from corrsteer.method.evidence import permuted_null
from corrsteer.runs.activation_log import ActivationLog, Entries, LogWriter
from corrsteer.settings import FitSettings
from corrsteer.stats.resampling import Latents, unit

LARGE = (26, 16_384)


def draw_log(layers: int, width: int, samples: int, frequency: float) -> ActivationLog:
    """A log of random activations."""
    generator = torch.Generator().manual_seed(0)
    writer = LogWriter({f"blocks.{layer}.hook_resid_post": width for layer in range(layers)})
    spread = torch.exp(torch.randn(layers, width, generator=generator))
    often = (frequency * spread / spread.mean()).clamp(max=1.0)
    for start in range(0, samples, 32):
        count = min(32, samples - start)
        pooled = {
            f"blocks.{layer}.hook_resid_post": torch.rand(count, width, generator=generator)
            * (torch.rand(count, width, generator=generator) < often[layer])
            for layer in range(layers)
        }
        y = (torch.rand(count, generator=generator) < 0.5).double().tolist()
        writer.add(Entries.of([str(start + i) for i in range(count)], y, pooled))
    log = writer.close()
    assert log is not None
    return log


def one_pass(log: ActivationLog) -> float:
    """Seconds to read the log once and correlate every latent with the outcome."""
    start = time.perf_counter()
    y = unit(log.outcomes)[:, None]
    for name in log.widths:
        Latents.of(log.activations(name)).correlations(y)
    return time.perf_counter() - start


def permuting(log: ActivationLog, permutations: int) -> float:
    """Seconds of all permutations."""
    start = time.perf_counter()
    permuted_null(log, FitSettings(permutations=permutations))
    return time.perf_counter() - start


def main() -> None:
    """Print the table, a row as soon as it is measured, then the estimate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--frequency", type=float, default=0.05, help="mean over latents")
    arguments = parser.parse_args()
    print("| latents | values in the log | seconds | ms a permutation | passes a permutation |")
    print("|---|---|---|---|---|")
    sizes, seconds = [], []
    permuting(draw_log(1, 64, arguments.samples, arguments.frequency), 10)  # warm up
    for factor in (1, 2, 4, 8):
        width = arguments.width * factor
        log = draw_log(arguments.layers, width, arguments.samples, arguments.frequency)
        values = sum(log.activations(name).nnz for name in log.widths)
        alone, took = one_pass(log), permuting(log, arguments.permutations)
        each = took / arguments.permutations
        print(
            f"| {arguments.layers} x {width} | {values:,} | {took:.2f} | {1000 * each:.2f} | "
            f"{each / alone:.3f} |",
            flush=True,
        )
        sizes.append(arguments.layers * width)
        seconds.append(took)
    slope, intercept = np.polyfit(sizes, seconds, 1)
    latents = LARGE[0] * LARGE[1]
    print(
        f"\n{LARGE[0]} x {LARGE[1]:,} latents at that frequency: about "
        f"{intercept + slope * latents:.0f} s, by {1e6 * slope:.1f} microseconds a latent"
    )


if __name__ == "__main__":
    main()
