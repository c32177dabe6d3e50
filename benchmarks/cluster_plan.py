"""What a large run over a cluster asks of its coordinator, from slopes measured here.

    python benchmarks/cluster_plan.py --samples 1000000 --gpus 100 --unit-samples 4096

Measures how long the coordinator takes to read and add one layer's statistics of one unit, and
multiplies. The rate of a GPU is an assumption of yours.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import torch

from corrsteer.runs.activation_log import Entries, entries_bytes
from corrsteer.runs.statistics_file import statistics_bytes
from corrsteer.stats.correlation import StreamingCorrelation

HOOK = "blocks.0.hook_resid_post"
ROUNDS = 7


def measured(d_sae: int, active: int) -> tuple[float, float, float]:
    """Bytes of one layer's statistics, seconds to add them, and bytes of a sample's log entries."""
    generator = torch.Generator().manual_seed(0)
    z = torch.zeros(32, d_sae)
    for row in z:
        row[torch.randperm(d_sae, generator=generator)[:active]] = 1 + torch.rand(
            active, generator=generator
        )
    y = (torch.rand(32, generator=generator) < 0.5).double()
    part = StreamingCorrelation(d_sae).update(z, y)
    state = part.state()
    total, seconds = StreamingCorrelation(d_sae), []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        total.merge(StreamingCorrelation.from_state(state))
        seconds.append(time.perf_counter() - begun)
    entries = Entries.of([str(row) for row in range(32)], y.tolist(), {HOOK: z})
    size = len(statistics_bytes({HOOK: part}))
    return size, statistics.median(seconds), len(entries_bytes([entries])) / 32


def main() -> None:
    """Print the plan, one line a figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--gpus", type=int, default=100)
    parser.add_argument("--unit-samples", type=int, default=4096)
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--d-sae", type=int, default=16_384)
    parser.add_argument("--active", type=int, default=300, help="nonzero latents of a sample")
    parser.add_argument("--rate", type=float, default=50.0, help="samples a second of one GPU")
    options = parser.parse_args()
    size, seconds, entry_bytes = measured(options.d_sae, options.active)
    units = math.ceil(options.samples / options.unit_samples)
    working = options.samples / (options.gpus * options.rate)
    sums, logged = size * options.layers, entry_bytes * options.layers
    adding = seconds * options.layers * units
    rate = sums * units / working
    lines = {
        "units": f"{units:,}, {units / options.gpus:.1f} a GPU",
        "statistics of a unit": f"{sums / 1e6:.0f} MB",
        "log of a sample": f"{logged / 1e3:.1f} kB",
        "statistics sent": f"{sums * units / 1e9:.0f} GB",
        "log sent, unless --no-log": f"{logged * options.samples / 1e9:.0f} GB",
        "its memory": f"{(2 * sums + logged * options.unit_samples) / 1e9:.2f} GB, any number "
        "of samples",
        "adding one unit": f"{seconds * options.layers:.3f} s (measured)",
        "adding all": f"{adding:.0f} s",
        "GPUs at work": f"{working:.0f} s at {options.rate:g} samples a second each (assumed)",
        "coordinator busy": f"{adding / working:.0%} of that, at {rate / 1e6:.0f} MB/s",
        "lost with a worker": f"{options.unit_samples / options.rate:.0f} s of one GPU",
    }
    for name, told in lines.items():
        print(f"{name:28}{told}")


if __name__ == "__main__":
    main()
