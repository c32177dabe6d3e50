"""Run a task greedily and stream statistics of the SAE activations behind each generated token.

Changes when activations are captured or pooled differently. Memory is that of one batch and of the
statistics, whatever the number of samples and the length of replies: residuals wait in a buffer of
bounded size until they are encoded and pooled.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from corrsteer.activation_log import ActivationLog, LogWriter
from corrsteer.bench import judge
from corrsteer.config import FitSettings
from corrsteer.correlation import StreamingCorrelation
from corrsteer.errors import DataError, NonFiniteError, UnknownNameError
from corrsteer.generation import Residuals, greedy_with_residuals, length_batches
from corrsteer.hook_points import HookPoint
from corrsteer.models import LanguageModel
from corrsteer.pooling import RunningPool
from corrsteer.progress import SILENT, Progress
from corrsteer.saes import SAEHandle, SparseCoder
from corrsteer.samples import Sample
from corrsteer.tasks import Task

log = logging.getLogger(__name__)

RESERVE = 0.3
"""Share of a GPU's memory kept for the cache of keys and values, residuals and statistics."""

BUFFER_BYTES = 64 * 2**20
"""Activations of one hook point encoded at once, at most (unless one step alone is larger)."""


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


def load_coders(handles: Sequence[SAEHandle], lm: LanguageModel) -> dict[HookPoint, SparseCoder]:
    """The SAEs of some handles, loaded one at a time, each where its block is.

    Once a GPU has too little room left, further SAEs wait in main memory and visit it in turn,
    which costs their transfer for every block of residuals.
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
    return coders


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
    progress: Progress = SILENT,
) -> Collection:
    """Statistics of every latent at every hook point over the samples' greedy replies.

    Raises:
        DataError: there are no samples.
        NonFiniteError: the model or an SAE gave NaN or infinity.
        ScorerError: the scorer raises, or leaves [0, 1].
        ArtifactError: the log cannot be written.
    """
    if not samples:
        raise DataError(f"the fit split of {task.name} is empty; give it rows")
    statistics = {
        hook: StreamingCorrelation(coder.d_sae, lm.device_of(hook))
        for hook, coder in coders.items()
    }
    widths = {hook.name: coder.d_sae for hook, coder in coders.items()}
    writer = LogWriter(widths) if settings.log else None
    prompts = [lm.prompt_ids(sample) for sample in samples]
    decoder = lm.decoder_for(task.allowed_replies)
    unscored = 0
    with progress.stage(f"{task.name} fit: collect", len(samples)) as advance:
        for batch in length_batches([len(ids) for ids in prompts], settings.batch_size):
            pooler = BatchPooler(coders, len(batch), settings, lm)
            replies = greedy_with_residuals(
                decoder,
                [prompts[index] for index in batch],
                task.max_new_tokens,
                list(coders),
                settings.positions,
                pooler.receive,
            )
            texts = [lm.decode(reply) for reply in replies]
            scores = judge(task.scorer, texts, [samples[index] for index in batch])
            outcomes = [score.outcome for score in scores]
            unscored += outcomes.count(None)
            ids = [samples[index].id for index in batch]
            _update(statistics, pooler, ids, outcomes, writer)
            advance(len(batch))
    if writer is None:
        return Collection(statistics, len(samples), unscored)
    return Collection(statistics, len(samples), unscored, writer.close(), writer.given_up)


def _update(
    statistics: Mapping[HookPoint, StreamingCorrelation],
    pooler: BatchPooler,
    ids: Sequence[str],
    outcomes: Sequence[float | None],
    writer: LogWriter | None,
) -> None:
    judged = [row for row, outcome in enumerate(outcomes) if outcome is not None]
    known = [outcome for outcome in outcomes if outcome is not None]
    y = torch.tensor(known, dtype=torch.float64)
    pooled = pooler.result()
    for hook, (z, z_steer) in pooled.items():
        try:
            statistics[hook].update(z[judged], y.to(z.device), z_steer[judged])
        except NonFiniteError as error:
            raise NonFiniteError(f"{hook}: {error}") from error
    if writer is not None:
        of_judged = {hook.name: z[judged] for hook, (z, _) in pooled.items()}
        writer.add([ids[row] for row in judged], known, of_judged)


class BatchPooler:
    """Encodes and pools the residuals of one batch as they come.

    Residuals are encoded in blocks of many positions, since one large matrix product is faster
    than many small ones.
    """

    def __init__(
        self,
        coders: Mapping[HookPoint, SparseCoder],
        batch: int,
        settings: FitSettings,
        lm: LanguageModel,
    ):
        self._coders = coders
        self._buffer: list[Residuals] = []
        widest = max(coder.d_sae for coder in coders.values())
        self._most_rows = max(BUFFER_BYTES // (4 * widest), 1)
        kinds = dict.fromkeys((settings.pool, settings.steer_pool))
        self._pools = {
            hook: {
                kind: RunningPool(kind, batch, coder.d_sae, lm.device_of(hook)) for kind in kinds
            }
            for hook, coder in coders.items()
        }
        self._kinds = settings.pool, settings.steer_pool

    def receive(self, residuals: Residuals) -> None:
        """Take one position of some samples."""
        # a copy, for it may be a view that would keep the whole prompt's residuals alive
        copied = {hook: hidden.clone() for hook, hidden in residuals.at.items()}
        self._buffer.append(Residuals(residuals.rows, copied))
        if sum(len(step.rows) for step in self._buffer) >= self._most_rows:
            self._flush()

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
        if not self._buffer:
            return
        lengths = [len(step.rows) for step in self._buffer]
        for hook, coder in self._coders.items():
            encoded = coder.encode(torch.cat([step.at[hook] for step in self._buffer]))
            for step, z in zip(self._buffer, torch.split(encoded, lengths), strict=True):
                for pool in self._pools[hook].values():
                    pool.update(step.rows.to(z.device), z)
        self._buffer.clear()


def _ranges(layers: Sequence[int]) -> str:
    """Layers in words: `0..25` where they are consecutive, else a list."""
    low, high = min(layers), max(layers)
    if sorted(layers) == list(range(low, high + 1)):
        return f"{low}..{high}"
    return ", ".join(map(str, sorted(layers)))
