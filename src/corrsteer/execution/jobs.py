"""The jobs of a comparison: greedy replies, many arms' replies, and their judgement.

Changes when replies are made or judged in another way. Their results are JSON, so that they can be
kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from corrsteer.execution.units import Halving, fingerprint
from corrsteer.lm.decoding import greedy
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.shared_prefix import Vectors, decode_arms
from corrsteer.lm.teacher_forcing import log_probabilities
from corrsteer.runs.steer import steer
from corrsteer.runs.steering import Steering
from corrsteer.samples import Sample
from corrsteer.scoring.base import Scorer, score_batch
from corrsteer.settings import Positions

Ids = Sequence[int]


@dataclass(frozen=True)
class Decoding:
    """Greedy replies to units of batches of prompts.

    Attributes:
        letters: see `LanguageModel.decoder_for`.
        max_new_tokens: longest reply.
        steering: what steers them, at its own strength and positions, or None.
        force: steer a model that the steering was not made for.
    """

    letters: str
    max_new_tokens: int
    steering: Steering | None = None
    force: bool = False
    halving: Halving = field(default_factory=Halving)

    def __call__(self, lm: LanguageModel, unit: Sequence[Sequence[Ids]]) -> list[list[int]]:
        """The replies' token ids, one after the other."""
        decoder, steering = lm.decoder_for(self.letters), self.steering
        around = nullcontext() if steering is None else steer(lm, steering, force=self.force)
        with around:
            parts = [
                part
                for batch in unit
                for part in self.halving.run(
                    lambda prompts: greedy(decoder, prompts, self.max_new_tokens), batch
                )
            ]
        return [reply for part in parts for reply in part]

    def fingerprint(self) -> str:
        """What it decodes with."""
        steering = self.steering
        added = None if steering is None else (steering.scaled(), steering.positions)
        return fingerprint("decode", self.letters, self.max_new_tokens, added)


@dataclass(frozen=True)
class ArmDecoding:
    """Every arm's replies to units of batches of prompts with their drafts; see `branch`."""

    letters: str
    max_new_tokens: int
    arms: Sequence[Vectors]
    halving: Halving = field(default_factory=Halving)

    def __call__(
        self, lm: LanguageModel, unit: Sequence[Sequence[tuple[Ids, Ids]]]
    ) -> list[list[list[int]]]:
        """By arm, the replies' token ids, one after the other."""
        decoder = lm.decoder_for(self.letters)

        def replies(pairs: Sequence[tuple[Ids, Ids]]) -> list[list[list[int]]]:
            prompts, drafts = zip(*pairs, strict=True)
            return decode_arms(decoder, prompts, drafts, self.arms, self.max_new_tokens)

        parts = [part for batch in unit for part in self.halving.run(replies, batch)]
        return [[reply for part in parts for reply in part[arm]] for arm in range(len(self.arms))]

    def fingerprint(self) -> str:
        """What it decodes with."""
        return fingerprint("branch", self.letters, self.max_new_tokens, list(self.arms))


@dataclass(frozen=True)
class Likelihoods:
    """Mean log-probability per token, by arm, of units of batches of prompts with given replies.

    Attributes:
        arms: what each adds to the residuals.
        positions: that are steered.
    """

    arms: Sequence[Vectors]
    positions: Positions
    halving: Halving = field(default_factory=Halving)

    def __call__(
        self, lm: LanguageModel, unit: Sequence[Sequence[tuple[Ids, Ids]]]
    ) -> list[list[float | None]]:
        """By arm, one number a reply; None for one without tokens."""
        return [self._means(lm, unit, arm) for arm in self.arms]

    def _means(
        self, lm: LanguageModel, unit: Sequence[Sequence[tuple[Ids, Ids]]], arm: Vectors
    ) -> list[float | None]:
        def rows(pairs: Sequence[tuple[Ids, Ids]]) -> list[list[float]]:
            prompts, replies = zip(*pairs, strict=True)
            return log_probabilities(lm.decoder, prompts, replies, arm, self.positions)

        parts = [part for batch in unit for part in self.halving.run(rows, batch)]
        return [fmean(row) if row else None for part in parts for row in part]

    def fingerprint(self) -> str:
        """What it steers with."""
        return fingerprint("likelihoods", self.positions, list(self.arms))


@dataclass(frozen=True)
class Judging:
    """Scores of units of replies, each with its sample."""

    scorer: Scorer

    def __call__(
        self, lm: LanguageModel, unit: Sequence[tuple[str, Sample]]
    ) -> list[dict[str, Any]]:
        """Each score, as JSON."""
        replies, samples = zip(*unit, strict=True)
        return [dataclasses.asdict(each) for each in score_batch(self.scorer, replies, samples)]

    def fingerprint(self) -> str:
        """The scorer's name, and the source of a user's own."""
        return fingerprint("judge", self.scorer.name, getattr(self.scorer, "source", ""))
