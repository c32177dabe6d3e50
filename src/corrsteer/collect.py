"""Run a task greedily and stream statistics of the SAE activations behind each generated token.

Changes when activations are captured or pooled differently. Memory is that of one batch and of the
statistics, whatever the number of samples and the length of replies: residuals wait in a buffer of
bounded size until they are encoded and pooled.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from corrsteer.activation_log import (
    ActivationLog,
    Entries,
    LogWriter,
    entries_bytes,
    read_entries,
)
from corrsteer.artifacts import STATISTICS_FILE, read_statistics, statistics_bytes
from corrsteer.checkpoint import Checkpoint
from corrsteer.config import FitSettings, SAEDtype
from corrsteer.correlation import StreamingCorrelation
from corrsteer.errors import DataError, NonFiniteError, SAEError, UnknownNameError
from corrsteer.files import write_whole
from corrsteer.generation import Residuals, greedy_with_residuals, length_batches
from corrsteer.hook_points import HookPoint
from corrsteer.models import LanguageModel
from corrsteer.pooling import RunningPool
from corrsteer.saes import LensSAE, SAEHandle, SparseCoder, VisitingSAE
from corrsteer.samples import Sample
from corrsteer.scoring import Scorer, score_batch
from corrsteer.tasks import Task
from corrsteer.work import WORK, Halving, Work

log = logging.getLogger(__name__)

RESERVE = 0.3
"""Share of a GPU's memory kept for the cache of keys and values, residuals and statistics."""

PART_FILE = "activations-{:05}.safetensors"
"""Of a checkpoint: the log's entries since the one before."""

BLOCK_ROWS = {"cpu": 256, "gpu": 1024}
"""Positions encoded at once: enough for the product to run at full speed, few enough for its
result to stay in a CPU's cache. They are the same on every run, for products of other heights
differ in their last bits."""

VISITED_BLOCKS = 16
"""Blocks that an SAE encodes in one visit, if their residuals fit: it takes several for the
transfer not to count."""


@dataclass(frozen=True)
class Collection:
    """What collecting leaves behind.

    Attributes:
        statistics: hook point -> sufficient statistics over the fit samples.
        n: samples run; `unscored`: those of them that could not be judged and were left out.
        log: their pooled activations, or None.
        log_note: why there is no log, or None.
    """

    statistics: Mapping[HookPoint, StreamingCorrelation]
    n: int
    unscored: int
    log: ActivationLog | None = None
    log_note: str | None = "the run was collected with --no-log"


def choose_handles(lm: LanguageModel, layers: Sequence[int] | None) -> list[SAEHandle]:
    """The model's SAEs of some layers, or of all.

    Raises:
        UnknownNameError: there is no SAE at a layer asked for, or none at all.
    """
    if not lm.saes:
        raise UnknownNameError(f"{lm.id} has no SAEs; give --sae FOLDER, or --raw for none")
    if layers is None:
        return list(lm.saes)
    there = [handle.layer for handle in lm.saes]
    for layer in layers:
        if layer not in there:
            raise UnknownNameError(
                f"layer {layer} is not in {_ranges(there)} of {lm.id}; "
                "choose --layers from that range"
            )
    return [handle for handle in lm.saes if handle.layer in layers]


def load_coders(
    handles: Sequence[SAEHandle], lm: LanguageModel, dtype: SAEDtype = "float32"
) -> dict[HookPoint, SparseCoder]:
    """The SAEs of some handles, loaded one at a time, each where its block is.

    Once a GPU has too little room left, further SAEs wait in main memory and visit it in turn,
    which costs their transfer for every few blocks of residuals.

    Args:
        handles: the SAEs.
        lm: the model that they read.
        dtype: of their products, see `FitSettings.sae_dtype`.

    Raises:
        SAEError: one cannot be loaded, or has no bfloat16 products.
    """
    coders: dict[HookPoint, SparseCoder] = {}
    largest = visiting = 0
    for handle in handles:
        device = lm.device_of(handle.hook_point)
        free = _memory(device)
        if free is not None and handle.load_visiting and free.left - largest < RESERVE * free.total:
            coders[handle.hook_point] = handle.load_visiting()
            visiting += 1
            continue
        coders[handle.hook_point] = handle.load(device)
        if free is not None:
            largest = max(largest, free.left - (_memory(device) or free).left)
    if visiting:
        log.info("%d of %d SAEs do not fit beside the model and visit it", visiting, len(coders))
    if dtype == "bfloat16":
        for hook, coder in coders.items():
            if not isinstance(coder, LensSAE | VisitingSAE):
                raise SAEError(f"{hook} is read as it is; --sae-dtype bfloat16 is for SAEs")
            coder.multiply_in_bfloat16()
    return coders


def settled(
    coders: Mapping[HookPoint, SparseCoder], lm: LanguageModel
) -> dict[HookPoint, SparseCoder]:
    """SAEs that came in main memory, each where its block is, or visiting where there is no room.

    As `load_coders` leaves them, for a worker that they were sent to.
    """
    settled: dict[HookPoint, SparseCoder] = {}
    for hook, coder in coders.items():
        settled[hook], free = coder, _memory(lm.device_of(hook))
        if free is None or not isinstance(coder, LensSAE):
            continue
        weights = coder.weights()
        size = sum(weight.nbytes for weight in weights.values())
        if free.left - size < RESERVE * free.total:
            settled[hook] = VisitingSAE(coder)
        else:
            device = lm.device_of(hook)
            coder.put({name: weight.to(device) for name, weight in weights.items()})
    return settled


@dataclass(frozen=True)
class _Memory:
    """Bytes of a GPU: those free, and all."""

    left: int
    total: int


def _memory(device: torch.device) -> _Memory | None:
    """The memory of a GPU; None of any other device."""
    return _Memory(*torch.cuda.mem_get_info(device)) if device.type == "cuda" else None


def collect(
    lm: LanguageModel,
    task: Task,
    samples: Sequence[Sample],
    coders: Mapping[HookPoint, SparseCoder],
    settings: FitSettings,
    work: Work = WORK,
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
    pairs = [(sample, lm.prompt_ids(sample)) for sample in samples]
    batches = length_batches([len(ids) for _, ids in pairs], settings.batch_size)
    units = work.units_of([[pairs[index] for index in batch] for batch in batches])
    total = _Total.empty(coders, lm, settings.log)
    if work.checkpoint is not None:
        total.restore(work.checkpoint)
    job = Collecting(coders, task.scorer, task.allowed_replies, task.max_new_tokens, settings)
    with work.progress.stage(f"{task.name} fit: collect", len(samples)) as advance:
        advance(sum(len(batch) for unit in units[: total.units] for batch in unit))
        rest = units[total.units :]
        for unit, part in zip(rest, work.executor.map(lm, job, rest), strict=True):
            total.add(part)
            advance(sum(map(len, unit)))
            if work.checkpoint is not None:
                total.unsaved += part.entries
                if work.checkpoint.due():
                    total.save(work.checkpoint)
    return total.collection(len(samples))


@dataclass(frozen=True)
class Part:
    """What was collected of one unit.

    Attributes:
        statistics: hook point -> sufficient statistics of its samples.
        entries: their nonzero activations, a batch at a time; none where no log is kept.
        unscored: samples that could not be judged.
    """

    statistics: Mapping[HookPoint, StreamingCorrelation]
    entries: Sequence[Entries]
    unscored: int


@dataclass(frozen=True)
class Collecting:
    """Collects units of batches of samples with their prompts' token ids.

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

    def __call__(
        self, lm: LanguageModel, unit: Sequence[Sequence[tuple[Sample, Sequence[int]]]]
    ) -> Part:
        """What is collected of one unit.

        Raises:
            NonFiniteError: the model or an SAE gave NaN or infinity.
            ScorerError: the scorer raises, or leaves [0, 1].
        """
        statistics = {
            hook: StreamingCorrelation(coder.d_sae, lm.device_of(hook))
            for hook, coder in self.coders.items()
        }
        entries, unscored = [], 0
        for batch in unit:
            for pooled in self.halving.run(lambda some: self._pooled(lm, some), batch):
                unscored += pooled.unscored
                for hook, (z, z_steer) in pooled.at.items():
                    y = torch.tensor(pooled.outcomes, dtype=torch.float64)
                    try:
                        statistics[hook].update(z, y.to(z.device), z_steer)
                    except NonFiniteError as error:
                        raise NonFiniteError(f"{hook}: {error}") from error
                if self.settings.log:
                    at = {hook.name: z for hook, (z, _) in pooled.at.items()}
                    entries.append(Entries.of(pooled.ids, pooled.outcomes, at))
        return Part(statistics, entries, unscored)

    def _pooled(self, lm: LanguageModel, batch: Sequence[tuple[Sample, Sequence[int]]]) -> _Pooled:
        pooler = BatchPooler(self.coders, len(batch), self.settings, lm)
        replies = greedy_with_residuals(
            lm.decoder_for(self.letters),
            [prompt for _, prompt in batch],
            self.max_new_tokens,
            list(self.coders),
            self.settings.positions,
            pooler.receive,
        )
        samples = [sample for sample, _ in batch]
        scores = score_batch(self.scorer, [lm.decode(reply) for reply in replies], samples)
        judged = [row for row, score in enumerate(scores) if score.outcome is not None]
        return _Pooled(
            ids=[samples[row].id for row in judged],
            outcomes=[score.outcome for score in scores if score.outcome is not None],
            at={
                hook: (z[judged], z_steer[judged]) for hook, (z, z_steer) in pooler.result().items()
            },
            unscored=len(samples) - len(judged),
        )


@dataclass(frozen=True)
class _Pooled:
    """Pooled activations of the judged samples of a batch; see `BatchPooler.result`."""

    ids: Sequence[str]
    outcomes: Sequence[float]
    at: Mapping[HookPoint, tuple[Tensor, Tensor]]
    unscored: int


@dataclass
class _Total:
    """All that was collected so far, and what of it a checkpoint has not seen yet."""

    statistics: dict[HookPoint, StreamingCorrelation]
    writer: LogWriter | None
    units: int = 0
    unscored: int = 0
    saved_parts: int = 0
    unsaved: list[Entries] = field(default_factory=list)

    @classmethod
    def empty(cls, coders: Mapping[HookPoint, SparseCoder], lm: LanguageModel, log: bool) -> _Total:
        statistics = {
            hook: StreamingCorrelation(coder.d_sae, lm.device_of(hook))
            for hook, coder in coders.items()
        }
        widths = {hook.name: coder.d_sae for hook, coder in coders.items()}
        return cls(statistics, LogWriter(widths) if log else None)

    def add(self, part: Part) -> None:
        for hook, statistics in part.statistics.items():
            self.statistics[hook].merge(statistics)
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
            about = {"units": self.units, "unscored": self.unscored, "parts": self.saved_parts}
            named = {hook.name: each for hook, each in self.statistics.items()}
            write_whole(folder / STATISTICS_FILE, statistics_bytes(named, about))

    def restore(self, checkpoint: Checkpoint) -> None:
        path = checkpoint.folder / STATISTICS_FILE
        if not path.exists():
            return
        named, about = read_statistics(path)
        self.units, self.unscored, self.saved_parts = (
            int(about[name]) for name in ("units", "unscored", "parts")
        )
        self.statistics = {
            hook: StreamingCorrelation.from_state(named[hook.name].state(), each.mean_z.device)
            for hook, each in self.statistics.items()
        }
        for part in range(self.saved_parts):
            for entries in read_entries(checkpoint.folder / PART_FILE.format(part)):
                self._log(entries)

    def collection(self, n: int) -> Collection:
        if self.writer is None:
            return Collection(self.statistics, n, self.unscored)
        log = self.writer.close()
        return Collection(self.statistics, n, self.unscored, log, self.writer.given_up)


class BatchPooler:
    """Encodes and pools the residuals of one batch as they come.

    Residuals are encoded in blocks of many positions, since one large matrix product is faster
    than many small ones. Blocks depend on the order of what comes alone, so that no bit of the
    result depends on what memory is free: that decides how many blocks wait for SAEs that visit.
    """

    def __init__(
        self,
        coders: Mapping[HookPoint, SparseCoder],
        batch: int,
        settings: FitSettings,
        lm: LanguageModel,
    ):
        self._coders = coders
        self._devices = {hook: lm.device_of(hook) for hook in coders}
        self._visitors = [coder for coder in coders.values() if isinstance(coder, VisitingSAE)]
        on_cpu = all(device.type == "cpu" for device in self._devices.values())
        self._block_rows = BLOCK_ROWS["cpu" if on_cpu else "gpu"]
        self._blocks: list[list[Residuals]] = [[]]
        kinds = dict.fromkeys((settings.pool, settings.steer_pool))
        self._pools = {
            hook: {
                kind: RunningPool(kind, batch, coder.d_sae, self._devices[hook]) for kind in kinds
            }
            for hook, coder in coders.items()
        }
        self._kinds = settings.pool, settings.steer_pool

    def receive(self, residuals: Residuals) -> None:
        """Take one position of some samples."""
        # a copy, for it may be a view that would keep the whole prompt's residuals alive
        copied = {hook: hidden.clone() for hook, hidden in residuals.at.items()}
        self._blocks[-1].append(Residuals(residuals.rows, copied))
        if sum(len(step.rows) for step in self._blocks[-1]) >= self._block_rows:
            if self._more_may_wait():
                self._blocks.append([])
            else:
                self._flush()

    def _more_may_wait(self) -> bool:
        """Whether blocks gather for SAEs that visit, and there is room for one more."""
        if not self._visitors or len(self._blocks) >= VISITED_BLOCKS:
            return False
        for device in set(self._devices.values()):
            free = _memory(device)
            here = [hook for hook in self._coders if self._devices[hook] == device]
            size = sum(step.at[hook].nbytes for step in self._blocks[-1] for hook in here)
            if free is not None and free.left - size < RESERVE / 2 * free.total:
                return False
        return True

    def result(self) -> dict[HookPoint, tuple[Tensor, Tensor]]:
        """Hook point -> activations pooled for the correlation, and for the coefficient.

        Both are [batch, d_sae], float32, and 0 for a sample that had no position.
        """
        self._flush()
        pool, steer_pool = self._kinds
        return {
            hook: (pools[pool].result(), pools[steer_pool].result())
            for hook, pools in self._pools.items()
        }

    @torch.inference_mode()
    def _flush(self) -> None:
        blocks = [_runs(block) for block in self._blocks if block]
        self._blocks = [[]]
        hooks = list(self._coders) if blocks else []
        try:
            for index, hook in enumerate(hooks):
                for each in hooks[index : index + 2]:  # the next one comes while this one works
                    visitor = self._coders[each]
                    if isinstance(visitor, VisitingSAE):
                        visitor.fetch(self._devices[each])
                coder = self._coders[hook]
                for runs in blocks:
                    z = coder.encode(torch.cat([step.at[hook] for run in runs for step in run]))
                    self._pool(hook, runs, z)
                if isinstance(coder, VisitingSAE):
                    coder.leave()
        finally:
            for visitor in self._visitors:
                visitor.leave()

    def _pool(self, hook: HookPoint, runs: Sequence[Sequence[Residuals]], z: Tensor) -> None:
        """Add a block's activations, run by run."""
        start = 0
        for run in runs:
            rows = run[0].rows
            end = start + len(run) * len(rows)
            positions = z[start:end].view(len(run), len(rows), -1)
            for pool in self._pools[hook].values():
                pool.update(rows.to(z.device), positions)
            start = end


def _runs(block: Sequence[Residuals]) -> list[list[Residuals]]:
    """A block's positions in runs of the same samples, which are pooled at once."""
    runs: list[list[Residuals]] = []
    for step in block:
        if runs and torch.equal(runs[-1][0].rows, step.rows):
            runs[-1].append(step)
        else:
            runs.append([step])
    return runs


def _ranges(layers: Sequence[int]) -> str:
    """Layers in words: `0..25` where they are consecutive, else a list."""
    low, high = min(layers), max(layers)
    if sorted(layers) == list(range(low, high + 1)):
        return f"{low}..{high}"
    return ", ".join(map(str, sorted(layers)))
