"""Arms of a comparison on the same samples: the baseline once, and steered ones beside it.

Changes when arms are run in another way. Everything that asks "what would the model reply under
this steering?" asks here: validation, guards, controls and the final evaluation.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from corrsteer import metrics
from corrsteer.errors import DataError
from corrsteer.generation import greedy, length_batches
from corrsteer.metrics import Accuracy, Delta, Outcomes, SideEffects
from corrsteer.models import LanguageModel
from corrsteer.progress import SILENT, Advance, Progress
from corrsteer.samples import Sample
from corrsteer.scoring import Score, Scorer, score
from corrsteer.steering import Steering, steer
from corrsteer.tasks import Task


@dataclass(frozen=True)
class Responses:
    """What one arm replied, in the order of the samples.

    Attributes:
        texts: the replies.
        scores: their judgements.
    """

    texts: tuple[str, ...]
    scores: tuple[Score, ...]

    @cached_property
    def outcomes(self) -> Outcomes:
        """One outcome a sample; NaN where the reply could not be judged."""
        return np.array([np.nan if s.outcome is None else s.outcome for s in self.scores])


@dataclass(frozen=True)
class Comparison:
    """A steered arm beside the baseline, over the samples that both could be judged on.

    Attributes:
        baseline: accuracy without steering; `steered`: with it.
        delta: steered minus baseline.
        side_effects: SER with its counts.
        unscored: samples left out because a reply could not be judged.
    """

    baseline: Accuracy
    steered: Accuracy
    delta: Delta
    side_effects: SideEffects
    unscored: int


def compare(baseline: Responses, steered: Responses) -> Comparison:
    """The comparison of two arms on the same samples in the same order.

    Raises:
        InsufficientDataError: no sample could be judged in both.
    """
    judged = ~(np.isnan(baseline.outcomes) | np.isnan(steered.outcomes))
    before, after = baseline.outcomes[judged], steered.outcomes[judged]
    same: NDArray[np.bool_] = np.array(
        [a == b for a, b in zip(baseline.texts, steered.texts, strict=True)], dtype=bool
    )[judged]
    return Comparison(
        baseline=metrics.accuracy(before),
        steered=metrics.accuracy(after),
        delta=metrics.delta(before, after),
        side_effects=metrics.side_effects(before, after, same),
        unscored=int((~judged).sum()),
    )


def limited(samples: Sequence[Sample], limit: int | None, seed: int) -> tuple[Sample, ...]:
    """At most `limit` samples, drawn by the seed; all, in their order, if they are fewer."""
    if limit is None or limit >= len(samples):
        return tuple(samples)
    shuffled = list(samples)
    random.Random(seed).shuffle(shuffled)
    return tuple(shuffled[:limit])


class Bench:
    """One split of a task under one model.

    The baseline is run once, when it is first asked for; each steered arm is one more run over the
    same samples.

    Attributes:
        task: the task; `samples`: those of the split, after the limit.
        baseline: the unsteered arm.
    """

    def __init__(
        self,
        lm: LanguageModel,
        task: Task,
        split: Literal["select", "test"],
        *,
        limit: int | None = None,
        seed: int = 42,
        batch_size: int = 32,
        progress: Progress = SILENT,
    ):
        self.lm, self.task, self.progress = lm, task, progress
        self.samples = limited(getattr(task, split), limit, seed)
        self._batch_size = batch_size
        self._split = split
        if not self.samples:
            raise DataError(
                f"the {split} split of {task.name} is empty; give it rows, "
                "or leave `split` out of all rows to have it cut"
            )

    @cached_property
    def baseline(self) -> Responses:
        """The unsteered model's replies."""
        with self._stage("baseline") as advance:
            return self._respond(advance)

    def steered(self, steering: Steering, name: str = "steered") -> Responses:
        """The replies under a steering, at its own strength.

        A steering that adds nothing gives the baseline's own replies, as it does bitwise.
        """
        if not steering.scaled():
            return self.baseline
        with self._stage(name) as advance, steer(self.lm, steering):
            return self._respond(advance)

    def compare(self, steering: Steering, name: str = "steered") -> Comparison:
        """A steering beside the baseline."""
        return compare(self.baseline, self.steered(steering, name))

    def _stage(self, name: str) -> AbstractContextManager[Advance]:
        return self.progress.stage(f"{self.task.name} {self._split}: {name}", len(self.samples))

    @cached_property
    def _prompts(self) -> list[list[int]]:
        return [self.lm.prompt_ids(sample) for sample in self.samples]

    def _respond(self, advance: Advance) -> Responses:
        texts = [""] * len(self.samples)
        for batch in length_batches([len(ids) for ids in self._prompts], self._batch_size):
            prompts = [self._prompts[index] for index in batch]
            replies = greedy(self.lm.decoder, prompts, self.task.max_new_tokens)
            for index, reply in zip(batch, replies, strict=True):
                texts[index] = self.lm.decode(reply)
            advance(len(batch))
        return Responses(tuple(texts), tuple(judge(self.task.scorer, texts, self.samples)))


def judge(scorer: Scorer, texts: Sequence[str], samples: Sequence[Sample]) -> list[Score]:
    """The score of every reply.

    Raises:
        ScorerError: the scorer raises, or leaves [0, 1].
    """
    return [score(scorer, text, sample) for text, sample in zip(texts, samples, strict=True)]
