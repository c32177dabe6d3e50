"""How time and memory of collection grow with samples, reply length, layers and latents.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --d-model 2304 --d-sae 16384 --layers 26 --device cuda

One of the four is varied at a time, a few steps up from the sizes given, in a process of its own
for each; one batch warms it up. Prints Markdown: seconds of collecting and peak memory, all of the
process's on a CPU and all that is allocated on a GPU; then the exponents of both from a straight
line through their logarithms: 1 is linear, 0 flat. Model, SAEs and libraries are in the memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from random_model import Shape, make_model, make_task

from corrsteer.lm.sae_placement import load_coders
from corrsteer.method.collect import collect
from corrsteer.settings import FitSettings

VARIED = ("samples", "tokens", "layers", "d_sae")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of one collection, and the peak memory in MB."""
    lm = make_model(Shape.of(options), options.device, options.dtype)
    coders = load_coders(lm.saes, lm)
    settings = FitSettings(batch_size=options.batch_size, log=False)
    tasks = [
        make_task(samples, options.prompt, options.tokens)
        for samples in (options.batch_size, options.samples)
    ]
    for task in tasks:
        start = time.perf_counter()
        collect(lm, task, task.fit, coders, settings)
        if lm.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    if lm.device.type == "cuda":
        return {"seconds": seconds, "mb": torch.cuda.max_memory_allocated() / 2**20}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "mb": peak / 1024}


def in_own_process(arguments: list[str], **sizes: int) -> dict[str, float]:
    """The measurement with some sizes replaced."""
    changed = [part for name, value in sizes.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, __file__, *arguments, *changed, "--only"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def exponent(sizes: list[int], costs: list[float]) -> float:
    """That of the power law through the costs."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def main() -> None:
    """Print a table of each of the four, then the exponents."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    Shape.add_to(parser)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=16, help="reply length")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--factors", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--vary", nargs="*", choices=VARIED, default=VARIED)
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(layers=4, d_sae=4096)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options)))
        return
    print("| varied | size | seconds | MB |\n|---|---|---|---|")
    fitted = []
    for name in options.vary:
        sizes = [getattr(options, name) * factor for factor in options.factors]
        found = []
        for size in sizes:
            found.append(in_own_process(sys.argv[1:], **{name.replace("_", "-"): size}))
            row = f"{found[-1]['seconds']:.2f} | {found[-1]['mb']:.0f}"
            print(f"| {name} | {size} | {row} |", flush=True)
        exponents = (exponent(sizes, [each[cost] for each in found]) for cost in ("seconds", "mb"))
        fitted.append(f"| {name} | " + " | ".join(f"{each:.2f}" for each in exponents) + " |")
    print("\n| varied | exponent of time | of memory |\n|---|---|---|")
    print("\n".join(fitted))


if __name__ == "__main__":
    main()
