"""How work is cut into units, who does them, and what is kept of it until it is finished.

A run is a few passes of the model over many samples. Each pass is a job done on units of some
batches, so that a death costs one unit and several machines can share a pass.

Changes when work is cut, spread or kept in another way.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch

from corrsteer.errors import DeviceMemoryError
from corrsteer.execution.checkpoint import Checkpoint
from corrsteer.lm.device_memory import NO_ROOM, is_out_of_memory
from corrsteer.lm.models import LanguageModel
from corrsteer.progress import SILENT, Progress

UNIT_SAMPLES = 64
"""Samples of a unit, at least, where there are as many: about what a death costs."""

Item = TypeVar("Item")
Unit = TypeVar("Unit", contravariant=True)
Result = TypeVar("Result", covariant=True)
AnyUnit = TypeVar("AnyUnit")
AnyResult = TypeVar("AnyResult")

log = logging.getLogger(__name__)


@runtime_checkable
class Job(Protocol[Unit, Result]):
    """What is done on every unit of a pass."""

    def __call__(self, lm: LanguageModel, unit: Unit) -> Result:
        """The result of one unit, which depends on nothing but the model, the job and the unit."""
        ...


@runtime_checkable
class RememberedJob(Job[Unit, Result], Protocol):
    """A job whose results are JSON, and kept until the run is finished."""

    def fingerprint(self) -> str:
        """What tells the job from others: equal ones give equal results on equal units."""
        ...


@runtime_checkable
class PlacedJob(Job[Unit, Result], Protocol):
    """A job that brings what it needs to the device of the model that it is done with."""

    def placed(self, lm: LanguageModel) -> Job[Unit, Result]:
        """The job there."""
        ...


@runtime_checkable
class Executor(Protocol):
    """Who does the units of a pass."""

    def map(
        self, lm: LanguageModel, job: Job[AnyUnit, AnyResult], units: Sequence[AnyUnit]
    ) -> Iterator[AnyResult]:
        """The result of each unit, in their order."""
        ...


class ThisProcess:
    """This process, one unit after the other."""

    def map(
        self, lm: LanguageModel, job: Job[AnyUnit, AnyResult], units: Sequence[AnyUnit]
    ) -> Iterator[AnyResult]:
        """The result of each unit, in their order."""
        return (job(lm, unit) for unit in units)


THIS_PROCESS = ThisProcess()


@dataclass(frozen=True)
class Execution:
    """How the passes of a run are done.

    Attributes:
        progress: told how far they are.
        executor: who does them.
        checkpoint: what has been done is kept there, if anywhere.
        unit_samples: samples of a unit, at least, where there are as many. Sums are rounded unit
            by unit, so another number may change last bits.
    """

    progress: Progress = SILENT
    executor: Executor = THIS_PROCESS
    checkpoint: Checkpoint | None = None
    unit_samples: int = UNIT_SAMPLES

    def units_of(self, batches: Sequence[Sequence[Item]]) -> list[list[Sequence[Item]]]:
        """Consecutive batches in units."""
        units: list[list[Sequence[Item]]] = []
        room = 0
        for batch in batches:
            if room <= 0:
                units.append([])
                room = self.unit_samples
            units[-1].append(batch)
            room -= len(batch)
        return units

    def remembered(
        self, lm: LanguageModel, job: RememberedJob[AnyUnit, AnyResult], units: Sequence[AnyUnit]
    ) -> Iterator[AnyResult]:
        """The result of each unit in their order, from the checkpoint where it is there."""
        kept = self.checkpoint
        if kept is None:
            yield from self.executor.map(lm, job, units)
            return
        name = job.fingerprint()
        keys = [_digest(name, json.dumps(unit, default=vars)) for unit in units]
        pairs = zip(keys, units, strict=True)
        missing = {key: unit for key, unit in pairs if key not in kept.results}  # like ones once
        fresh = self.executor.map(lm, job, list(missing.values()))
        for key in keys:
            if key not in kept.results:
                kept.remember(key, next(fresh))
            yield kept.results[key]


IN_PROCESS = Execution()
"""In this process, silently, and keeping nothing."""


def fingerprint(*parts: object) -> str:
    """A digest of numbers, texts, tensors, and of mappings and sequences of them."""
    return _digest(*map(_canonical, parts))


def _canonical(part: object) -> str:
    if isinstance(part, torch.Tensor):
        content = part.detach().cpu().contiguous()
        digest = hashlib.sha256(content.reshape(-1).view(torch.uint8).numpy().data).hexdigest()
        return f"{content.dtype} {list(content.shape)} {digest}"
    if isinstance(part, Mapping):
        return _digest(*(f"{key}={_canonical(value)}" for key, value in part.items()))
    if isinstance(part, list | tuple):
        return _digest(*map(_canonical, part))
    return repr(part)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass
class Halving:
    """Runs batches, cut in halves once they do not fit into the device's memory.

    Attributes:
        most: the most samples that are run at once from now on; None as long as all have fitted.
    """

    most: int | None = None

    def run(
        self, function: Callable[[Sequence[Item]], AnyResult], batch: Sequence[Item]
    ) -> list[AnyResult]:
        """What the function gives for the batch, or for each part of it, in order.

        Raises:
            DeviceMemoryError: one sample alone does not fit.
        """
        results: list[AnyResult] = []
        rest = batch
        while rest:
            size = min(self.most or len(rest), len(rest))
            try:
                results.append(function(rest[:size]))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise DeviceMemoryError(NO_ROOM) from error
                self.most = size // 2
                log.info("out of memory with %d samples at once: going on with %d", size, self.most)
            else:
                rest = rest[size:]
                continue
            # outside of the handler, whose traceback holds on to what the attempt had allocated
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return results
