"""What collecting costs beside plain generation, and beside encoding inside the generation loop.

    python benchmarks/collection.py
    python benchmarks/collection.py --layers 26 --d-model 2304 --d-sae 16384 --device cuda

(a) collection over transformers' own `generate` on the same batches; (b) a straightforward
implementation that encodes every new token through all SAEs inside the loop, by sae-lens's own
`encode`, and keeps all activations until the reply has ended, over collection; and over nothing but
generation and the bare products of the SAEs, which no collection is faster than. All sides
alternate in one run. Memory is the peak of a process of its own, above what model and SAEs take,
without the holes that activations kept for long leave among other tensors.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from random_model import (
    Shape,
    alternately,
    as_tensor,
    generate_plainly,
    make_model,
    make_task,
    prompt_ids,
)
from torch import Tensor

from corrsteer.hook_points import HookPoint
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.sae_placement import load_coders
from corrsteer.lm.saes import LensSAE, SparseCoder
from corrsteer.method.collect import collect
from corrsteer.method.pooling import BLOCK_ROWS
from corrsteer.settings import FitSettings
from corrsteer.stats.correlation import StreamingCorrelation
from corrsteer.tasks import Task


@torch.no_grad()
def in_loop(
    lm: LanguageModel, task: Task, coders: dict[HookPoint, SparseCoder], size: int
) -> dict[HookPoint, StreamingCorrelation]:
    """Collection as one would write it first: encode in the hook, keep all, pool at the end."""
    found = {hook: StreamingCorrelation(coder.d_sae) for hook, coder in coders.items()}
    prompts = prompt_ids(lm, task)
    for start in range(0, len(prompts), size):
        kept: dict[HookPoint, list[Tensor]] = {hook: [] for hook in coders}
        hooks = [
            lm.model.model.layers[hook.layer].register_forward_hook(_keeper(coder, kept[hook]))
            for hook, coder in coders.items()
        ]
        try:
            generate_plainly(lm, prompts[start : start + size], size, task.max_new_tokens)
        finally:
            for hook in hooks:
                hook.remove()
        y = torch.arange(len(prompts[start : start + size])).remainder(2).double()
        for point, steps in kept.items():
            found[point].update(torch.stack(steps, 1).amax(1), y)
    return found


def _keeper(coder: SparseCoder, kept: list[Tensor]) -> Callable[..., None]:
    assert isinstance(coder, LensSAE)
    sae = coder._sae

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        kept.append(sae.encode(as_tensor(output)[:, -1]))

    return keep


def sides(options: argparse.Namespace, new_tokens: int) -> dict[str, Callable[[], object]]:
    """The three ways to run the same prompts."""
    lm = make_model(Shape.of(options), options.device, options.dtype)
    task = make_task(options.samples, options.prompt, new_tokens)
    coders = load_coders(lm.saes, lm, options.sae_dtype)  # the loop's are not lowered
    prompts = prompt_ids(lm, task)
    size = options.batch_size
    settings = FitSettings(batch_size=size, log=False)
    return {
        "generate": lambda: generate_plainly(lm, prompts, size, new_tokens),
        "collect": lambda: collect(lm, task, task.fit, coders, settings),
        "in loop": lambda: in_loop(lm, task, coders, size),
        "products": lambda: products(coders, len(prompts), size, new_tokens),
    }


@torch.no_grad()
def products(
    coders: dict[HookPoint, SparseCoder], samples: int, size: int, new_tokens: int
) -> None:
    """The matrix products of collection alone, in its blocks."""
    for coder in coders.values():
        assert isinstance(coder, LensSAE)
        weights = coder._sae.W_enc
        rows = BLOCK_ROWS["cpu" if weights.device.type == "cpu" else "gpu"]
        for _ in range(0, samples, size):
            for block in range(0, size * new_tokens, rows):
                height = min(rows, size * new_tokens - block)
                weights.new_ones(height, len(weights)) @ weights


def peak_mb(arguments: list[str], side: str, new_tokens: int) -> float:
    """Peak memory, in MB, of one side in a process of its own, above what loading leaves."""
    command = [sys.executable, __file__, *arguments, "--only", side, "--tokens", str(new_tokens)]
    # each tensor on pages of its own, which go back when it is freed
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**16)}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(run.stdout)


def peak_above_now(run: Callable[[], object], device: str) -> float:
    """Peak memory, in MB, while something runs, above that before; of a CPU on Linux only."""
    if device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def kilobytes(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what there is
    before = kilobytes("VmRSS")
    run()
    return (kilobytes("VmHWM") - before) / 1024


def main() -> None:
    """Print a row for every reply length."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    Shape.add_to(parser)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--sae-dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--tokens", type=int, nargs="*", default=[1, 32], help="reply lengths")
    parser.add_argument("--memory-tokens", type=int, default=512, help="0 for no memory row")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        options.samples = options.batch_size
        run = sides(options, options.tokens[0])[options.only]
        print(peak_above_now(run, options.device))
        return
    print(
        "| reply tokens | collect / generate | in loop / collect "
        "| in loop / (generate + products) | seconds of generate |"
    )
    print("|---|---|---|---|---|")
    for tokens in options.tokens:
        took = alternately(options.rounds, sides(options, tokens))
        print(
            f"| {tokens} | {took['collect'] / took['generate']:.2f} "
            f"| {took['in loop'] / took['collect']:.2f} "
            f"| {took['in loop'] / (took['generate'] + took['products']):.2f} "
            f"| {took['generate']:.2f} |",
            flush=True,
        )
    if options.memory_tokens:
        given = sys.argv[1:]
        ours, theirs = (
            peak_mb(given, side, options.memory_tokens) for side in ("collect", "in loop")
        )
        print(
            f"\npeak memory above what is loaded, {options.memory_tokens} tokens: collect "
            f"{ours:.0f} MB, in loop {theirs:.0f} MB, ratio {ours / theirs:.3f}"
        )


if __name__ == "__main__":
    main()
