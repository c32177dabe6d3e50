"""Parts of the fit samples, collected apart and merged later.

Changes when the fit samples are divided in another way.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from corrsteer.errors import DataError, SettingsError
from corrsteer.execution.units import IN_PROCESS, Execution
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.sae_placement import choose_handles
from corrsteer.method.arms import limited
from corrsteer.method.fit import collected_now
from corrsteer.method.provenance import provenance_of
from corrsteer.method.splitting import topped_up
from corrsteer.runs.content import Extent
from corrsteer.runs.evidence import Evidence
from corrsteer.runs.run import Counts, Run
from corrsteer.runs.steering import Steering
from corrsteer.samples import Sample
from corrsteer.settings import FitSettings
from corrsteer.tasks import Task
from corrsteer.timing import Stopwatch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """One part of the fit samples: every `count`-th, from the `number`-th on.

    Attributes:
        number: from 1 to `count`.
        count: of all parts.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that `2/8` names.

        Raises:
            SettingsError: it names none.
        """
        number, _, count = text.partition("/")
        if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise SettingsError(f"--shard is {text!r}; expected a part of all, as 2/8")

    def of(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Its samples.

        Raises:
            DataError: there are none.
        """
        own = samples[self.number - 1 :: self.count]
        if not own:
            raise DataError(f"{len(samples)} samples have no part {self}; choose fewer shards")
        return own

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def collect_shard(
    lm: LanguageModel,
    task: Task,
    shard: Shard,
    settings: FitSettings,
    *,
    execution: Execution = IN_PROCESS,
    watch: Stopwatch | None = None,
) -> Run:
    """Statistics of one part of the fit samples, which `reselect.merge` adds to the others'.

    Args:
        lm: a model with SAEs.
        task: its fit split is used.
        shard: which part.
        settings: of the fit.
        execution: how its passes are done.
        watch: adds up seconds a stage.

    Returns:
        a run with neither features nor a steering.

    Raises:
        CorrSteerError: a setting, the model, the SAEs or the data cannot be used.
    """
    watch = watch or Stopwatch()
    handles = choose_handles(lm, settings.layers)
    every = limited(topped_up(task, settings).fit, settings.samples, settings.seed, task.shuffled)
    collection = collected_now(lm, task, shard.of(every), handles, settings, execution, watch)
    return Run(
        provenance=provenance_of(lm.facts, task, (), handles),
        settings=settings,
        statistics={hook.name: stats for hook, stats in collection.statistics.items()},
        means={hook.name: means for hook, means in collection.means.items()},
        features=(),
        top_features={},
        steering=Steering({}, (), lm.id, lm.revision, settings.positions),
        counts=Counts(
            n_fit=collection.n,
            unscored_fit=collection.unscored,
            seconds=watch.seconds,
            shard=str(shard),
            repeats=task.repeats,
        ),
        extent=Extent(execution.unit_samples, "", evaluated=False, explained=False),
        inference=Evidence(note=f"one of {shard.count} shards; merge them to choose features"),
        log=collection.log,
    )
