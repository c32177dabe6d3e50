"""Arms of a comparison on the same samples: the baseline once, and steered ones beside it.

Changes when arms are run in another way. Everything that asks "what would the model reply under
this steering?" asks here: validation, guards, controls and the final evaluation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from copy import copy
from functools import cached_property
from itertools import chain
from typing import Literal, Protocol, TypedDict, Unpack, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from corrsteer.errors import DataError
from corrsteer.execution.jobs import ArmDecoding, Decoding, Judging, Likelihoods
from corrsteer.execution.units import IN_PROCESS, AnyResult, AnyUnit, Execution, RememberedJob
from corrsteer.lm.decoding import length_batches
from corrsteer.lm.given_replies import Passage, passages_of
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.shared_prefix import Vectors
from corrsteer.runs.comparison import (
    Comparison,
    PairedOutcomes,
    Responses,
    SampleRows,
    outcomes_of,
)
from corrsteer.runs.steer import check_fit
from corrsteer.runs.steering import Steering
from corrsteer.samples import RatedReply, Sample, group_ids
from corrsteer.scoring.base import Score
from corrsteer.stats.metrics import Labels
from corrsteer.stats.preference import preference_outcomes
from corrsteer.tasks import Task


def limited(
    samples: Sequence[Sample], limit: int | None, seed: int, shuffled: bool = False
) -> tuple[Sample, ...]:
    """At most `limit` samples, drawn by the seed; all, in their order, if they are fewer.

    The first ones if they are in the seed's order already (see `Task.shuffled`).
    """
    if limit is None or limit >= len(samples):
        return tuple(samples)
    drawn = list(samples)
    if not shuffled:
        random.Random(seed).shuffle(drawn)
    return tuple(drawn[:limit])


class RunnerKeywords(TypedDict, total=False):
    """How a split is run.

    Attributes:
        limit: at most this many samples, drawn by `seed` (42 by default); all if None.
        seed: of that draw.
        batch_size: prompts run at once; 32 by default.
        execution: how passes are done; in this process by default.
        force: steer a model that the steering was not made for; `Evaluation.forced` then says why
            it is not.
    """

    limit: int | None
    seed: int
    batch_size: int
    execution: Execution
    force: bool


@runtime_checkable
class Arms(Protocol):
    """What tries steerings: an `ArmRunner`, or something that stands in for one.

    Attributes:
        lm, task: what is steered, and on what.
        groups: a label a sample, the same for samples that belong together.
    """

    lm: LanguageModel
    task: Task
    groups: Labels

    def outcomes(
        self,
        steerings: Sequence[Steering],
        name: str = "steered",
        rows: SampleRows | None = None,
    ) -> list[PairedOutcomes]:
        """Each steering's outcomes with the baseline's, on some of the samples or on all."""
        ...


class ArmRunner:
    """One split of a task under one model.

    The baseline is run once, when it is first asked for; steered arms share one more run over the
    same samples.

    Attributes:
        task: the task; `samples`: those of the split, after the limit.
        baseline: the unsteered arm.
        groups: a label a sample, the same for samples that belong together.
    """

    def __init__(
        self,
        lm: LanguageModel,
        task: Task,
        split: Literal["select", "test"],
        **passes: Unpack[RunnerKeywords],
    ):
        self.lm, self.task = lm, task
        limit, seed = passes.get("limit"), passes.get("seed", 42)
        self.samples = limited(getattr(task, split), limit, seed, task.shuffled)
        self.groups = np.array(group_ids(self.samples), dtype=np.int64)
        self._execution = passes.get("execution", IN_PROCESS)
        self._batch_size = passes.get("batch_size", 32)
        self._split, self._baseline_name = split, "baseline"
        self._force = passes.get("force", False)
        if not self.samples:
            raise DataError(
                f"the {split} split of {task.name} is empty; give it rows, "
                "or leave `split` out of all rows to have it cut"
            )

    @cached_property
    def baseline(self) -> Responses:
        """The unsteered model's replies."""
        if not self.task.generates:
            return self._moved(self._unmoved)
        return self._responses(self._drafts)

    def steered(self, steerings: Sequence[Steering], name: str = "steered") -> list[Responses]:
        """The replies under each steering, at its own strength.

        All are run together: they share the prompts' prefixes, and the baseline's replies are
        their drafts. A baseline that was not run before is one more of them.
        A steering that adds nothing gives the baseline's own replies, as it does bitwise.
        """
        for steering in steerings:
            check_fit(self.lm, steering, self._force)
        if not self.task.generates:
            return self._rated(steerings, name)
        active = [index for index, steering in enumerate(steerings) if steering.scaled()]
        together = [index for index in active if steerings[index].positions == "generated"]
        arms = [steerings[index].scaled() for index in together]
        replies = self._arm_replies(arms, name) if arms else []
        responses = [self.baseline] * len(steerings)
        for index, ids in zip(together, replies, strict=True):
            responses[index] = self._responses(ids)
        for index in sorted(set(active) - set(together)):
            responses[index] = self._responses(self._greedy(name, steerings[index]))
        return responses

    def _rated(self, steerings: Sequence[Steering], name: str) -> list[Responses]:
        """The replies that came with the samples, as each steering moves their probability."""
        found = [self.baseline] * len(steerings)
        for positions in dict.fromkeys(steering.positions for steering in steerings):
            active = [
                index
                for index, steering in enumerate(steerings)
                if steering.positions == positions and steering.scaled()
            ]
            arms = [steerings[index].scaled() for index in active]
            moved = self._likelihoods(Likelihoods(arms, positions), name) if arms else ()
            for index, likelihoods in zip(active, moved, strict=True):
                found[index] = self._moved(likelihoods)
        return found

    @cached_property
    def _unmoved(self) -> NDArray[np.float64]:
        """The unsteered model's mean log-probability per token of each rated reply."""
        (found,) = self._likelihoods(Likelihoods([{}], "generated"), "baseline")
        return np.asarray(found)

    def _likelihoods(self, job: Likelihoods, name: str) -> NDArray[np.float64]:
        """One number a sample, a row an arm; NaN for a reply without tokens."""
        units = [
            [
                [(self._passages[i].prompt, self._passages[i].reply or ()) for i in batch]
                for batch in unit
            ]
            for unit in self._units
        ]
        found = np.full((len(job.arms), len(self.samples)), np.nan)
        for indices, by_arm in self._passed(name, job, units):
            found[:, indices] = np.array(by_arm, dtype=np.float64)
        return found

    def _moved(self, likelihoods: NDArray[np.float64]) -> Responses:
        rated = [sample.rated or RatedReply("") for sample in self.samples]
        marks = np.array([np.nan if r.outcome is None else r.outcome for r in rated])
        outcomes = preference_outcomes(self._unmoved, likelihoods, marks, self.groups)
        scores = (
            Score(None if np.isnan(outcome) else float(outcome), f"{likelihood:.3f}")
            for outcome, likelihood in zip(outcomes, likelihoods, strict=True)
        )
        return Responses(tuple(r.text for r in rated), tuple(scores), likelihoods)

    def outcomes(
        self,
        steerings: Sequence[Steering],
        name: str = "steered",
        rows: SampleRows | None = None,
    ) -> list[PairedOutcomes]:
        """Each steering's outcomes with the baseline's, on some of the samples or on all."""
        if rows is not None and not rows.all():
            return self._part(rows).outcomes(steerings, name)
        arms = self.steered(steerings, name)
        return [outcomes_of(self.baseline, arm, self.groups) for arm in arms]

    def posed(self, samples: Sequence[Sample], name: str) -> ArmRunner:
        """The same samples, as they are posed among those given, by their ids.

        They are tokenized at once, so that what is too long is refused before anything is run.
        """
        other, by_id = copy(self), {sample.id: sample for sample in samples}
        for kept in ("baseline", "_drafts", "_prompts", "_units"):
            vars(other).pop(kept, None)
        other.samples = tuple(by_id[sample.id] for sample in self.samples)
        other._baseline_name = name
        _ = other._prompts
        return other

    def _part(self, rows: SampleRows) -> ArmRunner:
        """The same on some of the samples; the baseline is not run again."""
        kept = np.flatnonzero(rows).tolist()
        part, whole = copy(self), self.baseline
        for name in ("_units", "baseline"):
            vars(part).pop(name, None)
        part.samples = tuple(self.samples[index] for index in kept)
        part.groups = self.groups[rows]
        part._passages = [self._passages[index] for index in kept]
        if self.task.generates:
            part._drafts = [self._drafts[index] for index in kept]
            part.baseline = Responses(
                tuple(whole.texts[index] for index in kept),
                tuple(whole.scores[index] for index in kept),
            )
        else:  # outcomes of rated replies are relative to one another
            part._unmoved = self._unmoved[rows]
        return part

    def compare(self, steerings: Sequence[Steering], name: str = "steered") -> list[Comparison]:
        """Each steering beside the baseline."""
        return [each.comparison() for each in self.outcomes(steerings, name)]

    @cached_property
    def _passages(self) -> list[Passage]:
        what = f"{self.task.name} {self._split}"
        given = not self.task.generates
        return passages_of(self.lm, self.samples, self.task.max_new_tokens, what, given)

    @property
    def _prompts(self) -> list[Sequence[int]]:
        return [passage.prompt for passage in self._passages]

    @cached_property
    def _drafts(self) -> list[list[int]]:
        """The unsteered replies' token ids."""
        return self._greedy(self._baseline_name)

    @cached_property
    def _units(self) -> list[list[Sequence[int]]]:
        """The samples' indices in batches, and those in units."""
        batches = length_batches([each.length for each in self._passages], self._batch_size)
        return self._execution.units_of(batches)

    def _greedy(self, name: str, steering: Steering | None = None) -> list[list[int]]:
        """One pass over all samples, with the steering at its positions."""
        job = Decoding(self.task.allowed_replies, self.task.max_new_tokens, steering, self._force)
        units = [[[self._prompts[i] for i in batch] for batch in unit] for unit in self._units]
        replies: list[list[int]] = [[] for _ in self.samples]
        for indices, decoded in self._passed(name, job, units):
            for index, reply in zip(indices, decoded, strict=True):
                replies[index] = reply
        return replies

    def _arm_replies(self, arms: Sequence[Vectors], name: str) -> list[list[list[int]]]:
        """Every arm's replies, by arm and then by sample."""
        first = "_drafts" not in vars(self)
        arms = [{}, *arms] if first else arms
        drafts = [[]] * len(self.samples) if first else self._drafts
        job = ArmDecoding(self.task.allowed_replies, self.task.max_new_tokens, arms)
        units = [
            [[(self._prompts[i], drafts[i]) for i in batch] for batch in unit]
            for unit in self._units
        ]
        replies: list[list[list[int]]] = [[[] for _ in self.samples] for _ in arms]
        for indices, decoded in self._passed(name, job, units):
            for arm, of_arm in enumerate(decoded):
                for index, reply in zip(indices, of_arm, strict=True):
                    replies[arm][index] = reply
        if first:
            self._drafts = replies.pop(0)
        return replies

    def _passed(
        self, name: str, job: RememberedJob[AnyUnit, AnyResult], units: Sequence[AnyUnit]
    ) -> Iterator[tuple[list[int], AnyResult]]:
        """The result of each unit, with the samples that it is of."""
        stage = f"{self.task.name} {self._split}: {name}"
        with self._execution.progress.stage(stage, len(self.samples)) as advance:
            results = self._execution.remembered(self.lm, job, units)
            for unit, result in zip(self._units, results, strict=True):
                indices = list(chain.from_iterable(unit))
                yield indices, result
                advance(len(indices))

    def _responses(self, ids: Sequence[Sequence[int]]) -> Responses:
        texts = tuple(self.lm.decode(reply) for reply in ids)
        pairs = list(zip(texts, self.samples, strict=True))
        size = self._execution.unit_samples
        units = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        scored = self._execution.remembered(self.lm, Judging(self.task.scorer), units)
        scores = tuple(Score(**score) for unit in scored for score in unit)
        return Responses(texts, scores)


@runtime_checkable
class Drawing(Protocol):
    """Settings of how samples are drawn and batched."""

    @property
    def seed(self) -> int:
        """Of the draw."""
        ...

    @property
    def batch_size(self) -> int:
        """Prompts run at once."""
        ...


def runners_of(
    lm: LanguageModel,
    tasks: Sequence[Task],
    split: Literal["select", "test"],
    limit: int | None,
    settings: Drawing,
    execution: Execution,
) -> list[ArmRunner]:
    """One split of several tasks under one model.

    Raises:
        DataError: the split of one of them is empty.
    """
    seed, size = settings.seed, settings.batch_size
    return [
        ArmRunner(lm, task, split, limit=limit, seed=seed, batch_size=size, execution=execution)
        for task in tasks
    ]
