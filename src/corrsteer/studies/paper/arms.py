"""Steerings of a study, and what they do on a test split.

Changes when a study records more of an arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from corrsteer.hook_points import HookPoint
from corrsteer.method.arms import ArmRunner
from corrsteer.runs.records import Outcome
from corrsteer.runs.steering import Steering


@dataclass(frozen=True)
class Arm:
    """A steering, and what tells it from the others of its cell.

    Attributes:
        labels: such as its strategy; JSON.
        steering: at its own strength.
    """

    labels: Mapping[str, Any]
    steering: Steering


def tried(runner: ArmRunner, arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Every arm beside the baseline, as JSON; equal steerings are run once."""
    different = {_key(arm.steering): arm.steering for arm in arms}
    found = runner.compare(list(different.values()), f"{len(different)} arms")
    comparisons = dict(zip(different, found, strict=True))
    return [
        {
            **arm.labels,
            "strength": arm.steering.strength,
            "features": [list(feature.key) for feature in arm.steering.features],
            **asdict(Outcome.of(comparisons[_key(arm.steering)])),
        }
        for arm in arms
    ]


def best_of(steering: Steering) -> Steering:
    """S of the steering that is A: its best feature alone; ties go to the lower layer."""
    features = tuple(sorted(steering.features, key=lambda feature: -feature.merit)[:1])
    hooks = [HookPoint.parse(feature.hook_point) for feature in features]
    return replace(
        steering, features=features, vectors={hook: steering.vectors[hook] for hook in hooks}
    )


def strategies(every_layer: Steering, **labels: Any) -> list[Arm]:
    """S and A, given A."""
    return [
        Arm({**labels, "strategy": "S"}, best_of(every_layer)),
        Arm({**labels, "strategy": "A"}, every_layer),
    ]


def _key(steering: Steering) -> tuple[Any, ...]:
    features = tuple((*feature.key, feature.coefficient) for feature in steering.features)
    return steering.positions, steering.strength, features
