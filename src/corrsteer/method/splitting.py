"""How a task's samples are spent: what fits, what selects, what builds a setting and confirms it.

Changes when samples are spent in another way.
"""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corrsteer.execution.units import Execution
from corrsteer.lm.models import LanguageModel
from corrsteer.method.arms import ArmRunner, Arms, limited, runners_of
from corrsteer.progress import ON_TERMINAL
from corrsteer.samples import Sample, group_ids
from corrsteer.settings import FitSettings
from corrsteer.stats.metrics import Labels
from corrsteer.stats.sample_size import detectable_gain, least_gain
from corrsteer.tasks import Task

SELECT_SHARE = 0.55
"""Share of the fit and select samples that select at most, where a split is topped up. A feature
worth steering by is found by few samples; that it helps is shown by the samples it is tried on."""

LEAST_POOL = 100
"""Fit and select samples below which none are moved: there are too few for either."""

SMALL = 120
"""Select samples below which all confirm, and settings are built on fit samples: those have had
their say in which features there are, but none in whether steering by them helps. 6 samples that
improve and none that gets worse are significant, which a gain of 10 points gives in 60."""

BUILDING = 200
"""Fit samples that settings are built on then, if there are as many."""

GUARD_BUILDING = 150
"""Fit samples of a guard task, which nothing else uses, on which harm is looked for while settings
are chosen, so that all of its select samples confirm that there is none."""

log = logging.getLogger(__name__)

Rows = NDArray[np.bool_]


def topped_up(task: Task, settings: FitSettings) -> Task:
    """The task with as many samples to select on as the settings ask for, taken from its fit split.

    Groups move whole. Nothing moves where the select split has enough, or there are few samples.
    """
    pool = len(task.fit) + len(task.select)
    wanted = min(settings.least_select, round(SELECT_SHARE * pool))
    if settings.val_limit is not None:
        wanted = min(wanted, settings.val_limit)
    missing = wanted - len(task.select)
    if missing <= 0 or pool < LEAST_POOL:
        return task
    members = defaultdict(list)
    for index, group in enumerate(group_ids((*task.fit, *task.select))):
        if index < len(task.fit):
            members[group].append(index)
    order = list(members)
    if task.shuffled:
        order.reverse()  # a limit on fit samples takes the first ones
    else:
        random.Random(settings.seed).shuffle(order)
    moved: set[int] = set()
    for group in order:
        if len(moved) >= missing:
            break
        moved |= {*members[group]}
    log.info(
        "%s: %d of %d fit samples select, whose split has %d; --least-select 0 leaves them",
        task.name,
        len(moved),
        len(task.fit),
        len(task.select),
    )
    return replace(
        task,
        fit=tuple(sample for index, sample in enumerate(task.fit) if index not in moved),
        select=(*task.select, *(task.fit[index] for index in sorted(moved))),
    )


@dataclass(frozen=True)
class Halves:
    """A split in two parts, groups whole.

    Attributes:
        build: samples that settings are built and chosen on.
        confirm: samples that the chosen ones are confirmed on.
    """

    build: Rows
    confirm: Rows

    @classmethod
    def of(cls, groups: Labels, seed: int) -> Halves:
        """Halves of a split of these groups."""
        n = len(groups)
        confirm = np.zeros(n, dtype=bool)
        for group in np.random.default_rng(seed).permutation(np.unique(groups)):
            if 2 * confirm.sum() >= n:
                break
            confirm |= groups == group
        return cls(~confirm, confirm)

    @classmethod
    def whole(cls, n: int) -> Halves:
        """All samples for both, where there is one setting and so nothing to choose."""
        every = np.ones(n, dtype=bool)
        return cls(every, every)

    @property
    def apart(self) -> bool:
        """Whether no sample is in both."""
        return not (self.build & self.confirm).any()


@dataclass(frozen=True)
class Proving:
    """Where settings are tried.

    Attributes:
        runner: runs the samples.
        halves: which of them build, and which confirm.
    """

    runner: Arms
    halves: Halves


@dataclass(frozen=True)
class SelectSplit(Proving):
    """A select split to try settings on.

    Attributes:
        n_select: samples of the select split; fit samples may come to them.
    """

    runner: ArmRunner
    n_select: int

    def tell_what_can_be_seen(self, settings: FitSettings) -> None:
        """Say, before anything is collected, which gain those who confirm could show at best."""
        if not self.runner.task.generates:  # any movement of likelihoods, however small, could be
            return
        n = len(np.unique(self.runner.groups[self.halves.confirm]))
        least = least_gain(n, settings.alpha)
        if least > 1:
            log.warning(
                "%s: %d select samples confirm a setting, which cannot show any gain, so nothing "
                "can be recommended; give more, or take fit samples by a larger --least-select",
                self.runner.task.name,
                n,
                extra=ON_TERMINAL,
            )
            return
        found = detectable_gain(n, settings.power, alpha=settings.alpha)
        often = (
            ""
            if found is None
            else f"; one of {100 * found:.0f} is, in {settings.power:.0%} of cases"
        )
        log.info(
            "%s: %d select samples confirm a setting: a gain below %.0f points cannot be "
            "significant%s",
            self.runner.task.name,
            n,
            100 * least,
            often,
            extra=ON_TERMINAL,
        )

    @classmethod
    def of(
        cls, lm: LanguageModel, task: Task, settings: FitSettings, execution: Execution
    ) -> SelectSplit:
        """The select split of a task, with fit samples to build on where it is small.

        Raises:
            DataError: it is empty.
        """
        few = len(task.select) < SMALL
        return cls._built_on(lm, task, BUILDING if few else 0, settings, execution)

    @classmethod
    def of_guard(
        cls, lm: LanguageModel, task: Task, settings: FitSettings, execution: Execution
    ) -> SelectSplit:
        """The select split of a guard task, with fit samples to build on, if it has enough.

        Raises:
            DataError: it is empty.
        """
        building = GUARD_BUILDING if len(task.fit) >= LEAST_POOL else 0
        return cls._built_on(lm, task, building, settings, execution)

    @classmethod
    def _built_on(
        cls,
        lm: LanguageModel,
        task: Task,
        building: int,
        settings: FitSettings,
        execution: Execution,
    ) -> SelectSplit:
        """The split with so many fit samples to build on; with halves of its own for none."""
        more: tuple[Sample, ...] = ()
        if building and settings.chooses and settings.val_limit is None:
            more = limited(task.fit, building, settings.seed, task.shuffled)
        if task.select:  # else it is refused as empty
            task = replace(task, select=(*more, *task.select))
        (runner,) = runners_of(lm, [task], "select", settings.val_limit, settings, execution)
        n = len(runner.samples)
        if not settings.chooses:
            return cls(runner, Halves.whole(n), n)
        if not more:
            return cls(runner, Halves.of(runner.groups, settings.seed), n)
        build = np.arange(n) < len(more)
        return cls(runner, Halves(build, ~build), n - len(more))
