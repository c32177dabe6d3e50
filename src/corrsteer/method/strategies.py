"""From ranked features to sets and strengths that prove themselves on the select split.

Changes when a strategy is added, or the rule by which one is recommended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from corrsteer.features import Feature
from corrsteer.lm.models import LanguageModel
from corrsteer.method.ranking import Ranking
from corrsteer.method.splitting import Halves
from corrsteer.runs.comparison import PairedOutcomes
from corrsteer.runs.search import GuardAccuracy, Search, SearchRecord, Trial
from corrsteer.runs.steering import Steering, combine
from corrsteer.settings import FitSettings, Strategy
from corrsteer.stats.metrics import Delta, Labels
from corrsteer.stats.sample_size import detectable_gain, least_gain, samples_without_loss
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
    """What tries steerings: an `ArmRunner`, or something that stands in for one.

    Attributes:
        lm, task: what is steered, and on what.
        groups: a label a sample, the same for samples that belong together.
    """

    lm: LanguageModel
    task: Task
    groups: Labels

    def outcomes(
        self, steerings: Sequence[Steering], name: str = "steered"
    ) -> list[PairedOutcomes]:
        """Each steering's outcomes with the baseline's."""
        ...


class Searcher:
    """Tries sets of features on the select split, each once.

    What is built and chosen on some samples would flatter itself if it were judged on the same. So
    P, G and every strength are chosen on one part of them; each strategy's best setting that no
    guard task speaks against is then confirmed on the other part, the better first. As long as one
    is significant the next may be asked at the same level (Maurer, Hothorn & Lehmacher 1995), so
    that the error of the whole search is `alpha`, however many settings were tried.
    """

    def __init__(
        self,
        runner: Arms,
        guards: Sequence[Arms],
        ranking: Ranking,
        rows: Mapping[tuple[str, int], Tensor],
        settings: FitSettings,
        halves: Halves | None = None,
    ):
        self._runner, self._guards = runner, guards
        self._ranking, self._rows, self._settings = ranking, rows, settings
        self._tried: dict[Key, PairedOutcomes] = {}
        self._guarded: dict[Key, dict[str, PairedOutcomes]] = {}
        self._confirmed: dict[Setting, Delta] = {}
        self._halves = halves or self._parts(runner)

    def run(self) -> Search:
        """All strategies asked for, and the one to recommend."""
        strategy = self._settings.strategy
        wanted = STRATEGIES if strategy == "auto" else (strategy,)
        sets = {name: self._features(name) for name in wanted}
        settings = [
            Setting(name, features, strength)
            for name, features in sets.items()
            for strength in self._settings.searched_strengths
        ]
        self._try([(each.features, each.strength) for each in settings])
        best = self._best_of_strategies(settings)
        recommended = self._confirm(sorted(best.values(), key=self._preference))
        chosen: dict[Strategy, Steering] = {
            name: self._steering(features, self._settings.strength)
            for name, features in sets.items()
        }
        if "G" in chosen:
            of_g = best.get("G")
            chosen["G"] = (
                self._steering(of_g.features, of_g.strength)
                if of_g
                else self._steering((), self._settings.strength)
            )
        steering = None
        if recommended is not None:
            steering = self._steering(recommended.features, recommended.strength)
        return Search(self._record(settings, recommended), chosen, steering)

    def _record(self, settings: Sequence[Setting], recommended: Setting | None) -> SearchRecord:
        confirming = self._runner.groups[self._halves.confirm]
        n, whole = len(np.unique(confirming)), self._runner.task.generates
        return SearchRecord(
            comparisons=len(self._tried),
            baseline=self._tried[settings[0].key].comparison().baseline,
            recommended=None if recommended is None else self._trial(recommended),
            trials=tuple(self._trial(each) for each in settings),
            n_built=int(self._halves.build.sum()),
            n_confirmed=len(confirming),
            least_gain=least_gain(n, self._settings.alpha) if whole else None,
            detectable_gain=detectable_gain(n, self._settings.power, alpha=self._settings.alpha)
            if whole
            else None,
        )

    def _parts(self, runner: Arms) -> Halves:
        if self._settings.chooses:
            return Halves.of(runner.groups, self._settings.seed)
        return Halves.whole(len(runner.groups))

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
        outcomes = self._runner.outcomes(steerings, f"{len(new)} settings")
        self._tried.update(zip(new, outcomes, strict=True))

    def _gain(self, features: Sequence[Feature], strength: float) -> float:
        """The change of accuracy on the samples that sets are built on."""
        self._try([(features, strength)])
        outcomes = self._tried[_key(features, strength)]
        return outcomes.comparison(self._halves.build).delta.value

    def _trial(self, setting: Setting) -> Trial:
        """What is recorded of a setting that was tried."""
        comparison = self._tried[setting.key].comparison()
        asked = list(self._confirmed)
        before = asked[: asked.index(setting) + 1] if setting in asked else []
        return Trial(
            strategy=setting.strategy,
            strength=setting.strength,
            features=tuple(feature.key for feature in setting.features),
            steered=comparison.steered,
            delta=comparison.delta,
            p_adjusted=max((self._confirmed[each].p_value for each in before), default=1.0),
            side_effects=comparison.side_effects,
            guards=self._guard_accuracies(setting),
            confirmed=self._confirmed.get(setting),
        )

    def _best_of_strategies(self, settings: Sequence[Setting]) -> dict[Strategy, Setting]:
        """Each strategy's best setting on what builds, of those that harmed no guard there."""
        gaining = [s for s in settings if s.features and self._gain(s.features, s.strength) > 0]
        self._guard(gaining)
        best: dict[Strategy, Setting] = {}
        for setting in sorted(gaining, key=self._preference):
            if setting.strategy not in best and not self._loses(setting):
                best[setting.strategy] = setting
        return best

    def _confirm(self, candidates: Sequence[Setting]) -> Setting | None:
        """The first that is significant where it was not chosen, and harms no guard there."""
        for setting in candidates:
            found = self._tried[setting.key].comparison(self._halves.confirm).delta
            if not self._halves.apart:  # P was built on these samples
                p_value = bonferroni(found.p_value, len(self._tried))
                found = replace(found, p_value=p_value)
            self._confirmed[setting] = found
            if found.value <= 0 or found.p_value >= self._settings.alpha:
                return None
            if not self._trial(setting).harmed(self._settings.guard_tolerance):
                return setting
        return None

    def _guard(self, settings: Sequence[Setting]) -> None:
        """Run the guard tasks under settings that they were not run under before."""
        new = {each.key: each for each in settings if each.key not in self._guarded}
        steerings = [self._steering(each.features, each.strength) for each in new.values()]
        for key in new:
            self._guarded[key] = {}
        for runner in self._guards if new else ():
            outcomes = runner.outcomes(steerings, f"guard, {len(new)} settings")
            for key, each in zip(new, outcomes, strict=True):
                self._guarded[key][runner.task.name] = each

    def _loses(self, setting: Setting) -> bool:
        """Whether a guard task lost more than is tolerated where sets are built."""
        return any(
            found.comparison(self._parts(runner).build).delta.value
            < -self._settings.guard_tolerance - 1e-9
            for runner in self._guards
            for found in [self._guarded[setting.key][runner.task.name]]
        )

    def _guard_accuracies(self, setting: Setting) -> dict[str, GuardAccuracy]:
        """What guard tasks lost, and may have lost by what nothing was chosen on."""
        if setting.key not in self._guarded:
            return {}
        tolerance = self._settings.guard_tolerance
        found = {}
        for runner in self._guards:
            outcomes = self._guarded[setting.key][runner.task.name]
            whole, part = outcomes.comparison(), self._parts(runner).confirm
            groups = len(np.unique(runner.groups[part]))
            enough = 0 < tolerance < 1 and groups >= samples_without_loss(tolerance)
            found[runner.task.name] = GuardAccuracy(
                whole.baseline.accuracy,
                whole.steered.accuracy,
                outcomes.comparison(part).delta.most_lost
                if enough and setting in self._confirmed
                else None,
                None if enough or not 0 < tolerance < 1 else 2 * samples_without_loss(tolerance),
            )
        return found

    def _preference(self, setting: Setting) -> tuple[float, int, float]:
        """Sorts the better first: larger gain, then fewer features, then lower strength."""
        gain = self._gain(setting.features, setting.strength)
        return -gain, len(setting.features), setting.strength


def _key(features: Sequence[Feature], strength: float) -> Key:
    return frozenset(feature.key for feature in features), strength
