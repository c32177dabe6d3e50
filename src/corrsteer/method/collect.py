"""Run a task greedily and stream statistics of the SAE activations behind each generated token.

Where replies came with the samples they are read in place of being generated.

Changes when activations are captured or pooled differently. Memory is that of one batch and of the
statistics, whatever the number of samples and the length of replies: residuals wait in a buffer of
bounded size until they are encoded and pooled.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from pydantic import NonNegativeInt, TypeAdapter, ValidationError
from torch import Tensor

from corrsteer.errors import ArtifactError, DataError, NonFiniteError
from corrsteer.execution.checkpoint import Checkpoint
from corrsteer.execution.units import IN_PROCESS, Execution, Halving
from corrsteer.files import write_whole
from corrsteer.hook_points import HookPoint
from corrsteer.lm.decoding import greedy_with_residuals, length_batches
from corrsteer.lm.given_replies import Passage, passages_of
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.sae_placement import settled
from corrsteer.lm.saes import SparseCoder
from corrsteer.lm.teacher_forcing import read_replies
from corrsteer.method.foreign import foreignness
from corrsteer.method.pooling import BatchPooler
from corrsteer.runs.activation_log import (
    ActivationLog,
    Entries,
    LogWriter,
    entries_bytes,
    read_entries,
)
from corrsteer.runs.statistics_file import STATISTICS_FILE, read_statistics, statistics_bytes
from corrsteer.samples import Sample, group_labels
from corrsteer.scoring.base import Scorer, score_batch
from corrsteer.settings import FitSettings
from corrsteer.stats.correlation import StreamingCorrelation
from corrsteer.stats.outcome_sums import MeanPooled
from corrsteer.tasks import Task

log = logging.getLogger(__name__)

PART_FILE = "activations-{:05}.safetensors"
"""Of a checkpoint: the log's entries since the one before."""


@dataclass(frozen=True)
class Collection:
    """What collecting leaves behind.

    Attributes:
        statistics: hook point -> sufficient statistics over the fit samples.
        means: hook point -> what dense directions are made of; empty where it was not collected.
        n: samples run; `unscored`: those of them that could not be judged and were left out.
        log: their pooled activations, or None.
        log_note: why there is no log, or None.
    """

    statistics: Mapping[HookPoint, StreamingCorrelation]
    n: int
    unscored: int
    log: ActivationLog | None = None
    log_note: str | None = "the run was collected with --no-log"
    means: Mapping[HookPoint, MeanPooled] = field(default_factory=dict)


def collect(
    lm: LanguageModel,
    task: Task,
    samples: Sequence[Sample],
    coders: Mapping[HookPoint, SparseCoder],
    settings: FitSettings,
    execution: Execution = IN_PROCESS,
) -> Collection:
    """Statistics of every latent at every hook point over the samples' greedy replies.

    Units of samples are collected apart and added in their order, so it makes no difference to any
    bit who collects them, or whether a death lies between.

    Raises:
        DataError: there are no samples.
        NonFiniteError: the model or an SAE gave NaN or infinity.
        ScorerError: the scorer raises, or leaves [0, 1].
        ArtifactError: the log cannot be written, or what was collected before cannot be read.
    """
    if not samples:
        raise DataError(f"the fit split of {task.name} is empty; give it rows")
    passages = passages_of(lm, samples, task.max_new_tokens, f"{task.name} fit")
    foreignness(lm, samples, passages, f"{task.name} fit")
    batches = length_batches([each.length for each in passages], settings.batch_size)
    units = execution.units_of(
        [[(samples[index], passages[index]) for index in batch] for batch in batches]
    )
    groups = group_labels([*{s.id: s for s in (*task.fit, *samples)}.values()])
    total = _Total.empty(coders, lm, settings, groups if settings.log else None)
    if execution.checkpoint is not None:
        total.restore(execution.checkpoint, [sum(map(len, unit)) for unit in units])
    job = Collecting(coders, task.fit_scorer, task.allowed_replies, task.max_new_tokens, settings)
    with execution.progress.stage(f"{task.name} fit: collect", len(samples)) as advance:
        advance(sum(len(batch) for unit in units[: total.units] for batch in unit))
        rest = units[total.units :]
        for unit, part in zip(rest, execution.executor.map(lm, job, rest), strict=True):
            total.add(part)
            advance(sum(map(len, unit)))
            if execution.checkpoint is not None:
                total.unsaved += part.entries
                if execution.checkpoint.due():
                    total.save(execution.checkpoint)
    return total.collection(len(samples))


@dataclass(frozen=True)
class Part:
    """What was collected of one unit.

    Attributes:
        statistics: hook point -> sufficient statistics of its samples.
        means: hook point -> sums of what was pooled by mean.
        entries: their nonzero activations, a batch at a time; none where no log is kept.
        unscored: samples that could not be judged.
    """

    statistics: Mapping[HookPoint, StreamingCorrelation]
    means: Mapping[HookPoint, MeanPooled]
    entries: Sequence[Entries]
    unscored: int


@dataclass(frozen=True)
class Collecting:
    """Collects units of batches of samples with their token ids.

    Attributes:
        coders: SAE of each hook point.
        scorer: judges the replies.
        letters: see `LanguageModel.decoder_for`.
        max_new_tokens: longest reply.
        settings: how activations are pooled, and whether they are logged.
    """

    coders: Mapping[HookPoint, SparseCoder]
    scorer: Scorer
    letters: str
    max_new_tokens: int
    settings: FitSettings
    halving: Halving = field(default_factory=Halving)

    def placed(self, lm: LanguageModel) -> Collecting:
        """The job with its SAEs where the model is."""
        return replace(self, coders=settled(self.coders, lm))

    def __call__(self, lm: LanguageModel, unit: Sequence[Sequence[tuple[Sample, Passage]]]) -> Part:
        """What is collected of one unit.

        Raises:
            NonFiniteError: the model or an SAE gave NaN or infinity.
            ScorerError: the scorer raises, or leaves [0, 1].
        """
        statistics = {
            hook: StreamingCorrelation(coder.d_sae, lm.device_of(hook))
            for hook, coder in self.coders.items()
        }
        means = _empty_means(self.coders, lm, self.settings)
        entries, unscored = [], 0
        for batch in unit:
            for pooled in self.halving.run(lambda some: self._pooled(lm, some), batch):
                unscored += pooled.unscored
                y = torch.tensor(pooled.outcomes, dtype=torch.float64)
                for hook, (z, z_steer) in pooled.at.items():
                    try:
                        statistics[hook].update(z, y.to(z.device), z_steer)
                        means[hook].update(*pooled.means[hook], y, pooled.ids)
                    except NonFiniteError as error:
                        raise NonFiniteError(f"{hook}: {error}") from error
                if self.settings.log:
                    at = {hook.name: z for hook, (z, _) in pooled.at.items()}
                    entries.append(Entries.of(pooled.ids, pooled.outcomes, at))
        return Part(statistics, means, entries, unscored)

    def _pooled(self, lm: LanguageModel, batch: Sequence[tuple[Sample, Passage]]) -> _Pooled:
        pooler = BatchPooler(self.coders, len(batch), self.settings, lm)
        replies = self._replies(lm, batch, pooler)
        samples = [sample for sample, _ in batch]
        scores = score_batch(self.scorer, replies, samples)
        judged = [row for row, score in enumerate(scores) if score.outcome is not None]
        return _Pooled(
            ids=[samples[row].id for row in judged],
            outcomes=[score.outcome for score in scores if score.outcome is not None],
            at={
                hook: (z[judged], z_steer[judged]) for hook, (z, z_steer) in pooler.result().items()
            },
            means={
                hook: (residual[judged], z[judged])
                for hook, (residual, z) in pooler.means().items()
            },
            unscored=len(samples) - len(judged),
        )

    def _replies(
        self, lm: LanguageModel, batch: Sequence[tuple[Sample, Passage]], pooler: BatchPooler
    ) -> list[str]:
        """The replies that came with the samples, or those generated; the pooler sees the pass."""
        decoder, prompts = lm.decoder_for(self.letters), [passage.prompt for _, passage in batch]
        reading = list(self.coders), self.settings.positions, pooler.receive
        given = [(s.rated.text, p.reply) for s, p in batch if s.rated and p.reply is not None]
        if len(given) == len(batch):
            read_replies(decoder, prompts, [ids for _, ids in given], *reading)
            return [text for text, _ in given]
        found = greedy_with_residuals(decoder, prompts, self.max_new_tokens, *reading)
        return [lm.decode(reply) for reply in found]


@dataclass(frozen=True)
class _Pooled:
    """What was pooled of the judged samples of a batch; see `BatchPooler.result` and `means`."""

    ids: Sequence[str]
    outcomes: Sequence[float]
    at: Mapping[HookPoint, tuple[Tensor, Tensor]]
    means: Mapping[HookPoint, tuple[Tensor, Tensor]]
    unscored: int


@dataclass(frozen=True)
class _Saved:
    """How much a checkpoint has seen: units, unscored samples in them, and parts of the log."""

    units: NonNegativeInt
    unscored: NonNegativeInt
    parts: NonNegativeInt


_SAVED = TypeAdapter(_Saved)


@dataclass
class _Total:
    """All that was collected so far, and what of it a checkpoint has not seen yet."""

    statistics: dict[HookPoint, StreamingCorrelation]
    means: dict[HookPoint, MeanPooled]
    writer: LogWriter | None
    units: int = 0
    unscored: int = 0
    saved_parts: int = 0
    unsaved: list[Entries] = field(default_factory=list)

    @classmethod
    def empty(
        cls,
        coders: Mapping[HookPoint, SparseCoder],
        lm: LanguageModel,
        settings: FitSettings,
        logged: Mapping[str, str] | None,
    ) -> _Total:
        statistics = {
            hook: StreamingCorrelation(coder.d_sae, lm.device_of(hook))
            for hook, coder in coders.items()
        }
        widths = {hook.name: coder.d_sae for hook, coder in coders.items()}
        writer = None if logged is None else LogWriter(widths, logged)
        return cls(statistics, _empty_means(coders, lm, settings), writer)

    def add(self, part: Part) -> None:
        for hook, statistics in part.statistics.items():
            self.statistics[hook].merge(statistics)
            self.means[hook].merge(part.means[hook])
        self.unscored += part.unscored
        self.units += 1
        for entries in part.entries:
            self._log(entries)

    def _log(self, entries: Entries) -> None:
        if self.writer is not None:
            self.writer.add(entries)

    def save(self, checkpoint: Checkpoint) -> None:
        """Entries first: those that no statistics count are overwritten by the next process."""
        with checkpoint.saving() as folder:
            write_whole(folder / PART_FILE.format(self.saved_parts), entries_bytes(self.unsaved))
            self.saved_parts, self.unsaved = self.saved_parts + 1, []
            about = asdict(_Saved(self.units, self.unscored, self.saved_parts))
            named = {hook.name: each for hook, each in self.statistics.items()}
            means = {hook.name: each for hook, each in self.means.items()}
            write_whole(folder / STATISTICS_FILE, statistics_bytes(named, means, about))

    def restore(self, checkpoint: Checkpoint, samples: Sequence[int]) -> None:
        """Go on with what a checkpoint holds.

        Args:
            checkpoint: of this work.
            samples: of each unit.

        Raises:
            ArtifactError: what it holds cannot be read, or is not of these units.
        """
        path = checkpoint.folder / STATISTICS_FILE
        if not path.exists():
            return
        stored = read_statistics(path)
        named, means = stored.statistics, stored.means
        try:
            saved = _SAVED.validate_python(stored.about)
        except ValidationError as error:
            raise ArtifactError(
                f"{path} is corrupt; remove {checkpoint.folder} to start anew"
            ) from error
        found = {name: (each.d_sae, each.n) for name, each in named.items()}
        judged = sum(samples[: saved.units]) - saved.unscored
        expected = {hook.name: (each.d_sae, judged) for hook, each in self.statistics.items()}
        if saved.units > len(samples) or found != expected or means.keys() != named.keys():
            raise ArtifactError(
                f"{path} is not of this work's samples; remove {checkpoint.folder} to start anew"
            )
        self.units, self.unscored, self.saved_parts = saved.units, saved.unscored, saved.parts
        self.statistics = {
            hook: StreamingCorrelation.from_state(named[hook.name].state(), each.mean_z.device)
            for hook, each in self.statistics.items()
        }
        self.means = {
            hook: each.like().merge(means[hook.name]) for hook, each in self.means.items()
        }
        for part in range(self.saved_parts):
            for entries in read_entries(checkpoint.folder / PART_FILE.format(part)):
                self._log(entries)

    def collection(self, n: int) -> Collection:
        if self.writer is None:
            return Collection(self.statistics, n, self.unscored, means=self.means)
        log, note = self.writer.close(), self.writer.given_up
        return Collection(self.statistics, n, self.unscored, log, note, self.means)


def _empty_means(
    coders: Mapping[HookPoint, SparseCoder], lm: LanguageModel, settings: FitSettings
) -> dict[HookPoint, MeanPooled]:
    keeps = "probe" in settings.tried_arms
    return {
        hook: MeanPooled.empty(lm.d_model, coder.d_sae, lm.device_of(hook), keeps)
        for hook, coder in coders.items()
    }
