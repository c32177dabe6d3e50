"""What collecting over recorded replies costs beside generating them.

    python benchmarks/recorded.py
    python benchmarks/recorded.py --samples 320

Both sides collect the same statistics of the same prompts and alternate in one run: one decodes
replies of `--tokens` tokens, the other reads as long ones that came with the rows.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace

from random_model import Shape, alternately, make_model, make_task

from corrsteer.lm.sae_placement import load_coders
from corrsteer.method.collect import collect
from corrsteer.samples import RatedReply
from corrsteer.settings import FitSettings


def main() -> None:
    """Print the ratio of times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    Shape.add_to(parser)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=32, help="of a reply")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    lm = make_model(Shape.of(options), options.device, options.dtype)
    task = make_task(options.samples, options.prompt, options.tokens)
    words = make_task(options.samples, options.tokens + 1, options.tokens, seed=1).fit
    rows = tuple(
        replace(sample, rated=RatedReply(reply.prompt, float(index % 2)))
        for index, (sample, reply) in enumerate(zip(task.fit, words, strict=True))
    )
    recorded = replace(task, fit=rows)
    coders = load_coders(lm.saes, lm)
    settings = FitSettings(batch_size=options.batch_size, log=False)
    took = alternately(
        options.rounds,
        {
            "generate": lambda: collect(lm, task, task.fit, coders, settings),
            "read": lambda: collect(lm, recorded, recorded.fit, coders, settings),
        },
    )
    print(
        f"{options.samples:,} rows of {options.tokens} tokens: generated {took['generate']:.1f} s, "
        f"read {took['read']:.1f} s, ratio {took['read'] / took['generate']:.2f}"
    )


if __name__ == "__main__":
    main()
