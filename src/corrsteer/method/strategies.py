"""From ranked features to sets and strengths that prove themselves on the select split.

Changes when a strategy is added, or the rule by which one is recommended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from corrsteer.features import Feature
from corrsteer.lm.models import LanguageModel
from corrsteer.method.ranking import Ranking
from corrsteer.runs.comparison import Comparison
from corrsteer.runs.search import GuardAccuracy, Search, SearchRecord, Trial
from corrsteer.runs.steering import Steering, combine
from corrsteer.settings import FitSettings, Strategy
from corrsteer.stats.significance import bonferroni
from corrsteer.tasks import Task

STRATEGIES: tuple[Strategy, ...] = ("S", "A", "P", "G")

Key = tuple[frozenset[tuple[str, int]], float]
"""A set of features, and a strength."""


@dataclass(frozen=True)
class Setting:
    """A strategy's set of features at a strength."""

    strategy: Strategy
    features: tuple[Feature, ...]
    strength: float

    @property
    def key(self) -> Key:
        """What tells steerings apart, whichever strategy made them."""
        return _key(self.features, self.strength)


@runtime_checkable
class Arms(Protocol):
    """What tries steerings: an `ArmRunner`, or something that stands in for one."""

    lm: LanguageModel
    task: Task

    def compare(self, steerings: Sequence[Steering], name: str = "steered") -> list[Comparison]:
        """Each steering beside the baseline."""
        ...


class Searcher:
    """Tries sets of features on the select split, each once."""

    def __init__(
        self,
        runner: Arms,
        guards: Sequence[Arms],
        ranking: Ranking,
        rows: Mapping[tuple[str, int], Tensor],
        settings: FitSettings,
    ):
        self._runner, self._guards = runner, guards
        self._ranking, self._rows, self._settings = ranking, rows, settings
        self._tried: dict[Key, Comparison] = {}
        self._guarded: dict[Key, dict[str, GuardAccuracy]] = {}

    def run(self) -> Search:
        """All strategies asked for, and the one to recommend."""
        strategy = self._settings.strategy
        wanted = STRATEGIES if strategy == "auto" else (strategy,)
        sets = {name: self._features(name) for name in wanted}
        settings = [
            Setting(name, features, strength)
            for name, features in sets.items()
            for strength in self._strengths(name)
        ]
        self._try([(each.features, each.strength) for each in settings])
        recommended = self._recommend(settings)
        chosen: dict[Strategy, Steering] = {
            name: (
                self._strongest_unharmful([each for each in settings if each.strategy == "G"])
                if name == "G"
                else self._steering(features, self._settings.strength)
            )
            for name, features in sets.items()
        }
        return Search(
            record=SearchRecord(
                comparisons=len(self._tried),
                baseline=self._tried[settings[0].key].baseline,
                recommended=None if recommended is None else self._trial(recommended),
                trials=tuple(self._trial(each) for each in settings),
            ),
            chosen=chosen,
            recommended=(
                None
                if recommended is None
                else self._steering(recommended.features, recommended.strength)
            ),
        )

    def _strengths(self, strategy: Strategy) -> tuple[float, ...]:
        """Strengths tried: all of them under `auto` and for G, else the one that was set."""
        settings = self._settings
        if settings.strategy == "auto" or strategy == "G":
            return tuple(sorted({*settings.strengths, settings.strength}))
        return (settings.strength,)

    def _features(self, strategy: Strategy) -> tuple[Feature, ...]:
        if strategy == "S":
            return self._ranking.best()
        if strategy == "A":
            return self._ranking.best_per_layer()
        return self._proven_alone() if strategy == "P" else self._proven_together()

    def _proven_alone(self) -> tuple[Feature, ...]:
        """P: the features of A that raise accuracy above the baseline's, each by itself."""
        best, strength = self._ranking.best_per_layer(), self._settings.strength
        self._try([((feature,), strength) for feature in best])
        return tuple(feature for feature in best if self._gain((feature,), strength) > 0)

    def _proven_together(self) -> tuple[Feature, ...]:
        """G: near-ties in order of r, each kept only if the set so far plus it does better."""
        kept: tuple[Feature, ...] = ()
        gain = 0.0
        for feature in self._ranking.near_ties(self._settings.near_ties):
            with_it = self._gain((*kept, feature), self._settings.strength)
            if with_it > gain:
                kept, gain = (*kept, feature), with_it
        return kept

    def _steering(self, features: Sequence[Feature], strength: float) -> Steering:
        steering = combine(features, self._rows, self._runner.lm, self._settings.positions)
        return steering.at(strength)

    def _try(self, settings: Sequence[tuple[Sequence[Feature], float]]) -> None:
        """Compare sets at strengths with the baseline, those not tried before, all together."""
        new = {_key(*setting): setting for setting in settings if _key(*setting) not in self._tried}
        steerings = [self._steering(*setting) for setting in new.values()]
        comparisons = self._runner.compare(steerings, f"{len(new)} settings")
        self._tried.update(zip(new, comparisons, strict=True))

    def _gain(self, features: Sequence[Feature], strength: float) -> float:
        self._try([(features, strength)])
        return self._tried[_key(features, strength)].delta.value

    def _trial(self, setting: Setting) -> Trial:
        """What is recorded of a setting that was tried."""
        comparison = self._tried[setting.key]
        return Trial(
            strategy=setting.strategy,
            strength=setting.strength,
            features=tuple(feature.key for feature in setting.features),
            steered=comparison.steered,
            delta=comparison.delta,
            p_adjusted=bonferroni(comparison.delta.p_value, len(self._tried)),
            side_effects=comparison.side_effects,
            guards=self._guarded.get(setting.key, {}),
        )

    def _recommend(self, settings: Sequence[Setting]) -> Setting | None:
        """The best on the select split that is significant there and harms no guard."""
        for setting in sorted(settings, key=self._preference):
            trial = self._trial(setting)
            if trial.delta.value <= 0 or trial.p_adjusted >= self._settings.alpha:
                continue
            if not self._harms(setting):
                return setting
        return None

    def _strongest_unharmful(self, settings: Sequence[Setting]) -> Steering:
        """A set at its best strength that no guard vetoes; without features if there is none."""
        for setting in sorted(settings, key=self._preference):
            if self._tried[setting.key].delta.value > 0 and not self._harms(setting):
                return self._steering(setting.features, setting.strength)
        return self._steering((), self._settings.strength)

    def _harms(self, setting: Setting) -> bool:
        """Whether a guard task loses too much; guards are run if they were not."""
        if setting.key not in self._guarded:
            steering = self._steering(setting.features, setting.strength)
            self._guarded[setting.key] = {
                runner.task.name: GuardAccuracy(
                    comparison.baseline.accuracy, comparison.steered.accuracy
                )
                for runner in self._guards
                for comparison in runner.compare([steering], "guard")
            }
        return bool(self._trial(setting).harmed(self._settings.guard_tolerance))

    def _preference(self, setting: Setting) -> tuple[float, int, float]:
        """Sorts the better first: higher accuracy, then fewer features, then lower strength."""
        accuracy = self._tried[setting.key].steered.accuracy
        return -accuracy, len(setting.features), setting.strength


def _key(features: Sequence[Feature], strength: float) -> Key:
    return frozenset(feature.key for feature in features), strength
