"""The same run over several seeds: how much of what came out is one cut's doing.

Changes when another thing is compared over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from corrsteer.runs.records import RunDocument, as_json
from corrsteer.runs.verdict import Kind
from corrsteer.stats.significance import LEVEL

SCHEMA = "corrsteer.seeds/1"
RECOMMENDED = "recommended"


@dataclass(frozen=True)
class ArmOverSeeds:
    """An arm's change of test accuracy over seeds.

    Attributes:
        arm: a strategy at the run's strength, or `recommended`: what each run recommends, and the
            baseline itself where it recommends nothing.
        changes: seed -> change.
        mean: of the changes; `sd`: their standard deviation, None of one.
        ci: Student's 95 % interval of the mean, None of one. It is of the seeds' cuts, draws and
            controls. The runs share their rows, so it says nothing of other rows.
    """

    arm: str
    changes: Mapping[int, float]
    mean: float
    sd: float | None
    ci: tuple[float, float] | None

    @classmethod
    def of(cls, arm: str, changes: Mapping[int, float]) -> ArmOverSeeds:
        """The arm with these changes, one or more."""
        values = np.array([*changes.values()])
        mean, n = float(values.mean()), len(values)
        if n < 2:
            return cls(arm, changes, mean, None, None)
        sd = float(values.std(ddof=1))
        half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / n**0.5
        return cls(arm, changes, mean, sd, (max(-1.0, mean - half), min(1.0, mean + half)))


@dataclass(frozen=True)
class SeedsDocument:
    """What is told of runs over several seeds.

    Attributes:
        runs: seed -> its run's document.
        arms: the strategies that every run evaluated, and what the runs recommend.
        recommended: how many of the runs recommend a steering.
        verdicts: kind -> in how many runs.
    """

    runs: Mapping[int, RunDocument]
    arms: tuple[ArmOverSeeds, ...]
    recommended: int
    verdicts: Mapping[Kind, int]

    @classmethod
    def of(cls, runs: Mapping[int, RunDocument]) -> SeedsDocument:
        """The documents of evaluated runs side by side."""
        documents: Sequence[RunDocument] = [*runs.values()]
        names = [
            name
            for name in documents[0].strategies
            if all(name in document.strategies for document in documents)
        ]
        arms = [
            ArmOverSeeds.of(
                name, {seed: run.strategies[name].delta.value for seed, run in runs.items()}
            )
            for name in names
        ]
        changes = {seed: run.outcome.delta.value for seed, run in runs.items() if run.outcome}
        if changes:
            arms.append(ArmOverSeeds.of(RECOMMENDED, changes))
        kinds = [document.verdict.kind for document in documents]
        return cls(
            runs,
            tuple(arms),
            sum(document.recommended is not None for document in documents),
            {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        )

    def as_json(self) -> dict[str, Any]:
        """The document as a JSON object."""
        return {
            "schema": SCHEMA,
            "runs": {str(seed): as_json(run) for seed, run in self.runs.items()},
            "arms": {arm.arm: asdict(arm) for arm in self.arms},
            "recommended": self.recommended,
            "verdicts": dict(self.verdicts),
        }
