"""Collect in a loop, and see whether memory or open files grow.

    python benchmarks/soak.py --minutes 20

Prints a line a minute, and what was held after the last collection in units of what was held after
the first tenth of the time, when every cache is filled.
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path

import corrsteer as cs
from corrsteer.lm.sae_placement import choose_handles, load_coders
from corrsteer.method.collect import collect
from corrsteer.settings import FitSettings


def held() -> tuple[float, int]:
    """Memory that is this process's own in MB of 10^6 bytes, swapped out or not, and open files.

    Pages of files, such as the model's weights, come and go as the system likes.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines)
    kilobytes = sum(int(told[name].split()[0]) for name in ("RssAnon", "VmSwap"))
    return kilobytes * 1024 / 1e6, len(list(Path("/proc/self/fd").iterdir()))


def main() -> None:
    """Print what is held over time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args()
    lm, tasks = cs.load_model("mini"), [cs.load_task("mini-mmlu"), cs.load_task("mini-gsm8k")]
    coders = load_coders(choose_handles(lm, None), lm)
    begun = told = time.monotonic()
    rounds, after_tenth = 0, None
    while time.monotonic() - begun < 60 * options.minutes:
        for task in tasks:
            collect(lm, task, task.fit[: options.samples], coders, FitSettings())
        rounds += 1
        gc.collect()
        memory, files = held()
        if after_tenth is None and time.monotonic() - begun > 6 * options.minutes:
            after_tenth = memory, files
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(f"{rounds:5} rounds: {memory:7.1f} MB, {files} files", flush=True)
    first_memory, first_files = after_tenth or held()
    memory, files = held()
    print(f"{rounds} rounds of {len(tasks)} x {options.samples} samples")
    print(f"memory: x {memory / first_memory:.4f}; open files: {files - first_files:+d}")


if __name__ == "__main__":
    main()
