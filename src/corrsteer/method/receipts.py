"""Receipts: what each arm's steering costs the model.

Changes when another cost is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from corrsteer.errors import DataError
from corrsteer.lm.decoding import length_batches
from corrsteer.lm.given_replies import reply_ids
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.teacher_forcing import log_probabilities
from corrsteer.lm.texts import Documents, divergences
from corrsteer.method.arms import ArmRunner
from corrsteer.method.neutral import neutral_texts
from corrsteer.runs.receipts import Receipts
from corrsteer.runs.steering import Steering
from corrsteer.samples import RatedReply, Sample

REPLIES = 100
"""Of each arm that are read again; the first of the samples."""

PIECE = 128
"""Tokens of a piece of neutral text."""

RUN = 4
"""Tokens of a run that may be repeated."""

Ids = Sequence[int]


def receipts_of(
    runner: ArmRunner,
    arms: Sequence[tuple[Steering, Sequence[str]]],
    neutral: Sequence[str] = (),
) -> list[Receipts | None]:
    """The receipts of each arm; None for one that adds nothing, and where no reply was generated.

    Args:
        runner: of the split that was replied to.
        arms: a steering, with its reply to each sample.
        neutral: texts that steering should leave as they are; ours if there are none.

    Raises:
        DataError: the neutral text has no position to read behind the first ones.
        ModelError: the neutral text cannot be read by this model.
        NonFiniteError: the model's logits hold NaN.
    """
    steering = [index for index, (arm, _) in enumerate(arms) if arm.scaled()]
    found: list[Receipts | None] = [None] * len(arms)
    if steering and runner.task.generates:
        measured = _measured(runner, [arms[index] for index in steering], neutral)
        for index, receipts in zip(steering, measured, strict=True):
            found[index] = receipts
    return found


def _measured(
    runner: ArmRunner, arms: Sequence[tuple[Steering, Sequence[str]]], neutral: Sequence[str]
) -> list[Receipts]:
    lm, plain = runner.lm, runner.baseline.texts
    pieces = [ids for text in neutral_texts(lm, neutral) for ids in lm.pieces_of(text, PIECE)]
    documents = Documents(pieces, skip=1)
    if not documents.positions:
        raise DataError("the neutral text has one token a paragraph at most; give a longer one")
    moved = divergences(lm, documents, [arm.scaled() for arm, _ in arms])
    replies = _Replies(lm, runner.samples)
    before = replies.measured(plain)
    receipts = []
    for (_, texts), divergence in zip(arms, moved, strict=True):
        after = replies.measured(texts)
        changed = sum(one != other for one, other in zip(plain, texts, strict=True))
        receipts.append(
            Receipts(
                dose={hook.name: dose for hook, dose in divergence.dose.items()},
                kl=divergence.kl,
                perplexity=(before[0], after[0]),
                repetition=(before[1], after[1]),
                length=(before[2], after[2]),
                changed=changed / len(texts),
            )
        )
    return receipts


class _Replies:
    """Measures of replies to the same samples."""

    def __init__(self, lm: LanguageModel, samples: Sequence[Sample]):
        self._lm, self._samples = lm, samples[:REPLIES]
        self._prompts = [lm.prompt_ids(sample) for sample in self._samples]

    def measured(self, texts: Sequence[str]) -> tuple[float | None, float, float]:
        """Perplexity under the unsteered model, repetition, and mean length."""
        ids = [
            reply_ids(self._lm, replace(sample, rated=RatedReply(text)), prompt)
            for sample, text, prompt in zip(self._samples, texts, self._prompts, strict=False)
        ]
        ids = [
            reply[: self._lm.decoder.room(prompt, len(reply))]
            for reply, prompt in zip(ids, self._prompts, strict=True)
        ]
        return self._perplexity(ids), repetition(ids), sum(map(len, ids)) / len(ids)

    def _perplexity(self, replies: Sequence[Ids]) -> float | None:
        total, count = 0.0, 0
        lengths = [len(p) + len(r) for p, r in zip(self._prompts, replies, strict=True)]
        for indices in length_batches(lengths, 32):
            batch = [self._prompts[i] for i in indices], [replies[i] for i in indices]
            for row in log_probabilities(self._lm.decoder, *batch):
                total, count = total + sum(row), count + len(row)
        return math.exp(-total / count) if count else None


def repetition(replies: Iterable[Ids]) -> float:
    """Share of runs of four tokens that stood in their reply before; 0 where there are no runs."""
    repeated = runs = 0
    for ids in replies:
        found = [tuple(ids[start : start + RUN]) for start in range(len(ids) - RUN + 1)]
        repeated, runs = repeated + len(found) - len(set(found)), runs + len(found)
    return repeated / runs if runs else 0.0
