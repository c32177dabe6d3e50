"""What it costs to try many steerings, beside one evaluation and beside one pass for each.

    python benchmarks/interventions.py
    python benchmarks/interventions.py --tokens 32 --strength 0.3 --inert 0.5

(c) the best feature of every layer, S and A, all validated together, over one unsteered evaluation
of the same samples, and one batched pass for every candidate over that; and a steered evaluation
by `generate` over an unsteered one. `changed` is the share of candidates' replies that differ from
the baseline's: drafts save most where few do. `--strength` moves it, and of `--inert`, a share of
the candidates, the strength is so small that they change nothing.
"""

from __future__ import annotations

import argparse

import torch
from random_model import Shape, alternately, make_model, make_task

from corrsteer.hook_points import HookPoint
from corrsteer.lm.decoding import greedy, length_batches
from corrsteer.lm.hooks import adding
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.shared_prefix import decode_arms
from corrsteer.method.arms import ArmRunner
from corrsteer.runs.steering import Steering
from corrsteer.tasks import Task

INERT = 1e-6
"""A strength that is not zero, so that the candidate is run, and changes no reply."""


def candidates(
    lm: LanguageModel, shape: Shape, strength: float, inert: float = 0.0
) -> list[Steering]:
    """One random direction a layer, alone; the first of them again as S; and all together as A.

    The strength of the first ones, a share `inert` of all, is `INERT`.
    """
    generator = torch.Generator().manual_seed(1)
    vectors = {
        HookPoint(layer, "resid_post"): torch.randn(shape.d_model, generator=generator)
        for layer in range(shape.layers)
    }
    sets = [{hook: vector} for hook, vector in vectors.items()]
    sets += [sets[0], vectors]
    few = round(inert * len(sets))
    return [
        Steering(each, model=lm.id, strength=INERT if index < few else strength)
        for index, each in enumerate(sets)
    ]


def one_pass_each(lm: LanguageModel, task: Task, steerings: list[Steering], size: int) -> None:
    """The same candidates, each by a batched generation of its own."""
    prompts = [lm.prompt_ids(sample) for sample in task.test]
    for steering in steerings:
        with adding(lm.model, steering.scaled()):
            for batch in length_batches([len(ids) for ids in prompts], size):
                greedy(lm.decoder, [prompts[i] for i in batch], task.max_new_tokens)


def changed_share(lm: LanguageModel, task: Task, steerings: list[Steering], size: int) -> float:
    """Share of the first batch's replies that differ from the unsteered ones, token by token."""
    prompts = [lm.prompt_ids(sample) for sample in task.test[:size]]
    arms = [{}, *(steering.scaled() for steering in steerings)]
    drafts, *others = decode_arms(
        lm.decoder, prompts, [[]] * len(prompts), arms, task.max_new_tokens
    )
    changed = [
        after != before for replies in others for before, after in zip(drafts, replies, strict=True)
    ]
    return sum(changed) / len(changed)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    Shape.add_to(parser)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=1, help="reply length")
    parser.add_argument("--strength", type=float, default=0.05)
    parser.add_argument("--inert", type=float, default=0.0, help="share of the candidates")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    shape = Shape.of(options)
    lm = make_model(shape, options.device, options.dtype)
    task = make_task(options.samples, options.prompt, options.tokens)
    steerings = candidates(lm, shape, options.strength, options.inert)

    def runner() -> ArmRunner:
        return ArmRunner(lm, task, "test", batch_size=options.batch_size)

    def steered_generation() -> None:
        with adding(lm.model, steerings[-1].scaled()):
            _ = runner().baseline

    changed = changed_share(lm, task, steerings, options.batch_size)
    took = alternately(
        options.rounds,
        {
            "baseline": lambda: runner().baseline,
            "together": lambda: runner().steered(steerings),
            "one pass each": lambda: one_pass_each(lm, task, steerings, options.batch_size),
            "steered generation": steered_generation,
        },
    )
    # `together` begins with the baseline that it drafts from; the one evaluation is part of it
    print(f"{len(steerings)} candidates, replies of {options.tokens}, {changed:.0%} changed")
    print(
        f"(c) baseline and all candidates / one baseline: {took['together'] / took['baseline']:.2f}"
    )
    print(
        f"(c) one pass each / all candidates together: "
        f"{(took['one pass each'] + took['baseline']) / took['together']:.2f}"
    )
    print(f"steered / unsteered evaluation: {took['steered generation'] / took['baseline']:.2f}")
    print(f"seconds: {', '.join(f'{name} {s:.2f}' for name, s in took.items())}")


if __name__ == "__main__":
    main()
