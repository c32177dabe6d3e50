"""From candidates to the settings that prove themselves on the select split.

Changes when an arm is built in another way, or the rule by which one is recommended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from corrsteer.features import Feature
from corrsteer.method.candidates import Candidate, Grids, Key, Rows, Setting
from corrsteer.method.ladder import Ladder
from corrsteer.method.ranking import Ranking
from corrsteer.method.splitting import Proving
from corrsteer.runs.comparison import PairedOutcomes
from corrsteer.runs.search import GuardAccuracy, Search, SearchRecord, Trial
from corrsteer.runs.steering import Steering
from corrsteer.settings import FitSettings, Strategy
from corrsteer.stats.metrics import Accuracy, Delta
from corrsteer.stats.sample_size import detectable_gain, least_gain, samples_without_loss
from corrsteer.stats.significance import bonferroni

Part = Literal["build", "confirm"]

TRIES = 3
"""Settings of an arm that are asked to be confirmed, at most: the next one is where a guard task
speaks against the one before."""
GUARDED = (24, 72)
"""Samples of a guard task on which settings are tried before they leave a rung, others each."""


class Searcher:
    """Tries settings on the select split, each once.

    What is built and chosen on some samples would flatter itself if it were judged on the same. So
    sets, layers and strengths are chosen on one part of them, and settings that no guard task
    speaks against there are then confirmed on the other part, the better first. As long as one is
    significant the next may be asked at the same level (Maurer, Hothorn & Lehmacher 1995), so that
    the error of the whole search is `alpha`, however many settings were tried; and any of those
    that were confirmed may be recommended: the one that does best on all select samples is.
    """

    def __init__(
        self,
        select: Proving,
        guards: Sequence[Proving],
        ranking: Ranking,
        rows: Rows,
        settings: FitSettings,
        grids: Grids | None = None,
    ):
        self._select, self._guards = select, guards
        self._ranking, self._rows, self._settings = ranking, rows, settings
        self._grids = grids or {}
        self._tried: dict[Key, PairedOutcomes] = {}
        self._thinned = 0
        self._guarded: dict[tuple[Key, str, Part], PairedOutcomes] = {}
        self._confirmed: dict[Setting, Delta] = {}

    def run(self) -> Search:
        """All arms asked for, and the setting to recommend."""
        arms = [a for a in self._settings.tried_arms if a in self._grids or a in _FEATURES]
        sets = {arm: self._set(arm) for arm in arms if arm in _FEATURES}
        strengths = self._settings.searched_strengths
        settings = [Setting(each, strength) for each in sets.values() for strength in strengths]
        self._try(settings)
        settings += self._climbed([arm for arm in arms if arm not in sets])
        queues = self._admissible(settings)
        passed = self._confirm(queues)
        recommended = min(passed, key=self._merit, default=None)
        best = {arm: queue[0] for arm, queue in queues.items() if queue}
        best |= {setting.strategy: setting for setting in passed}
        shown = {
            arm: Setting(sets[arm], self._settings.strength)
            if arm in ("S", "A", "P")
            else best.get(arm, Setting(Candidate(arm, {}), self._settings.strength))
            for arm in arms
        }
        self._guard([each for each in shown.values() if self._gain(each) > 0], "confirm")
        chosen = {arm: self._steering(setting) for arm, setting in shown.items()}
        steering = None if recommended is None else self._steering(recommended)
        return Search(self._record(settings, recommended), chosen, steering)

    def _record(self, settings: Sequence[Setting], recommended: Setting | None) -> SearchRecord:
        halves, runner = self._select.halves, self._select.runner
        confirming = runner.groups[halves.confirm]
        n, whole = len(np.unique(confirming)), runner.task.generates
        return SearchRecord(
            comparisons=len(self._tried) + self._thinned,
            baseline=self._baseline(settings),
            recommended=None if recommended is None else self._trial(recommended),
            trials=tuple(self._trial(each) for each in settings),
            n_built=int(halves.build.sum()),
            n_confirmed=len(confirming),
            least_gain=least_gain(n, self._settings.alpha) if whole else None,
            detectable_gain=detectable_gain(n, self._settings.power, alpha=self._settings.alpha)
            if whole
            else None,
        )

    def _baseline(self, settings: Sequence[Setting]) -> Accuracy:
        """That of the first setting; of none where none is left."""
        first = settings[0] if settings else Setting(Candidate("S", {}), 0.0)
        self._try([first])
        return self._tried[first.key].comparison().baseline

    def _set(self, arm: Strategy) -> Candidate:
        """S, A, P or G."""
        if arm == "S":
            return self._of(arm, self._ranking.best())
        if arm == "A":
            return self._of(arm, self._ranking.best_per_layer())
        return self._of(arm, self._proven_alone() if arm == "P" else self._proven_together())

    def _of(self, arm: Strategy, features: Sequence[Feature]) -> Candidate:
        return Candidate.of(arm, features, self._rows)

    def _proven_alone(self) -> tuple[Feature, ...]:
        """P: the features of A that raise accuracy above the baseline's, each by itself."""
        strength = self._settings.strength
        alone = {f: Setting(self._of("P", [f]), strength) for f in self._ranking.best_per_layer()}
        self._try([*alone.values()])
        return tuple(feature for feature, setting in alone.items() if self._gain(setting) > 0)

    def _proven_together(self) -> tuple[Feature, ...]:
        """G: near-ties in order of r, each kept only if the set so far plus it does better."""
        kept: tuple[Feature, ...] = ()
        gain = 0.0
        for feature in self._ranking.near_ties(self._settings.near_ties):
            setting = Setting(self._of("G", (*kept, feature)), self._settings.strength)
            if self._gain(setting) > gain:
                kept, gain = (*kept, feature), self._gain(setting)
        return kept

    def _climbed(self, arms: Sequence[Strategy]) -> list[Setting]:
        """The settings of grids that are left when most were tried on some samples only."""
        ladder = Ladder(self._select.runner, self._select.halves.build, self._settings.seed)
        fields = [
            [
                Setting(candidate, strength)
                for candidate in self._grids[arm]
                for strength in self._settings.searched_strengths
            ]
            for arm in arms
        ]
        steerings = [[self._steering(setting) for setting in field] for field in fields]
        climbed = ladder.climb(steerings, harmless=self._harmless)
        left = [field[i] for field, own in zip(fields, climbed, strict=True) for i in own]
        self._thinned = sum(map(len, fields)) - len(left)
        self._try(left)
        return left

    def _harmless(self, steerings: Sequence[Steering], rung: int) -> list[bool]:
        """Whether no guard task loses more than is tolerated on some of its samples.

        One sample of them may be lost in any case, for there are few.
        """
        spared = np.ones(len(steerings), dtype=bool)
        before, more = sum(GUARDED[:rung]), GUARDED[rung]
        for guard in self._guards if steerings else ():
            number = np.cumsum(guard.halves.build)
            rows = guard.halves.build & (number > before) & (number <= before + more)
            if rows.any():
                name = f"guard, {len(steerings)} settings on {int(rows.sum())} samples"
                outcomes = guard.runner.outcomes(steerings, name, rows)
                spared &= [not self._loses(each, 1 / int(rows.sum())) for each in outcomes]
        return spared.tolist()

    def _loses(self, outcomes: PairedOutcomes, least: float = 0.0) -> bool:
        """Whether more than is tolerated was lost, or than `least` where that is more."""
        tolerated = max(self._settings.guard_tolerance, least)
        return outcomes.comparison().delta.value < -tolerated - 1e-9

    def _steering(self, setting: Setting) -> Steering:
        return setting.steering(self._select.runner.lm, self._settings.positions)

    def _try(self, settings: Sequence[Setting]) -> None:
        """Compare settings with the baseline, those not tried before, all together."""
        new = {each.key: each for each in settings if each.key not in self._tried}
        if new:
            steerings = [self._steering(each) for each in new.values()]
            outcomes = self._select.runner.outcomes(steerings, f"{len(new)} settings")
            self._tried.update(zip(new, outcomes, strict=True))

    def _gain(self, setting: Setting) -> float:
        """The change of accuracy on the samples that sets are built on."""
        self._try([setting])
        return self._tried[setting.key].comparison(self._select.halves.build).delta.value

    def _trial(self, setting: Setting) -> Trial:
        """What is recorded of a setting that was tried."""
        comparison = self._tried[setting.key].comparison()
        asked = list(self._confirmed)
        before = asked[: asked.index(setting) + 1] if setting in asked else []
        return Trial(
            strategy=setting.strategy,
            strength=setting.strength,
            features=tuple(feature.key for feature in setting.candidate.features),
            steered=comparison.steered,
            delta=comparison.delta,
            p_adjusted=max((self._confirmed[each].p_value for each in before), default=1.0),
            side_effects=comparison.side_effects,
            guards=self._guard_accuracies(setting),
            confirmed=self._confirmed.get(setting),
            hook_points=tuple(hook.name for hook in setting.candidate.vectors),
        )

    def _admissible(self, settings: Sequence[Setting]) -> dict[Strategy, list[Setting]]:
        """Each arm's settings that gain on what builds and harm no guard there, the best first."""
        gaining = [s for s in settings if s.candidate.vectors and self._gain(s) > 0]
        self._guard(gaining, "build")
        queues: dict[Strategy, list[Setting]] = {}
        for setting in sorted(gaining, key=self._preference):
            names = [guard.runner.task.name for guard in self._guards]
            of_guards = [self._guarded[setting.key, name, "build"] for name in names]
            if not any(map(self._loses, of_guards)):
                queues.setdefault(setting.strategy, []).append(setting)
        return queues

    def _confirm(self, queues: Mapping[Strategy, Sequence[Setting]]) -> list[Setting]:
        """An arm's setting each that is significant where it was not chosen, and harms no guard.

        The order in which they are asked follows from what builds and from the guard tasks, never
        from the outcomes that confirm.
        """
        waiting = {arm: list(queue[:TRIES]) for arm, queue in queues.items()}
        self._guard([queue[0] for queue in waiting.values()], "confirm")
        passed = []
        while any(waiting.values()):
            setting = min((q[0] for q in waiting.values() if q), key=self._preference)
            waiting[setting.strategy].remove(setting)
            if not self._significant(setting):
                break
            self._guard([setting], "confirm")
            if not self._trial(setting).harmed(self._settings.guard_tolerance):
                passed.append(setting)
                waiting[setting.strategy].clear()
        return passed

    def _significant(self, setting: Setting) -> bool:
        """Whether it gains where it was not chosen; that is recorded."""
        halves = self._select.halves
        found = self._tried[setting.key].comparison(halves.confirm).delta
        if not halves.apart:  # P was built on these samples
            found = replace(found, p_value=bonferroni(found.p_value, len(self._tried)))
        self._confirmed[setting] = found
        return bool(found.value > 0 and found.p_value < self._settings.alpha)

    def _guard(self, settings: Sequence[Setting], part: Part) -> None:
        """Run a part of the guard tasks under settings that it was not run under before."""
        for guard in self._guards:
            name = guard.runner.task.name
            own: Part = part if guard.halves.apart else "build"
            new = {s.key: s for s in settings if (s.key, name, own) not in self._guarded}
            if new:
                steerings = [self._steering(each) for each in new.values()]
                rows = getattr(guard.halves, own)
                told = f"guard, {len(new)} settings"
                for key, each in zip(
                    new, guard.runner.outcomes(steerings, told, rows), strict=True
                ):
                    self._guarded[key, name, own] = each

    def _guard_accuracies(self, setting: Setting) -> dict[str, GuardAccuracy]:
        """What guard tasks lost, and may have lost by what nothing was chosen on."""
        found, tolerance = {}, self._settings.guard_tolerance
        for guard in self._guards:
            name = guard.runner.task.name
            built, own = (self._guarded.get((setting.key, name, p)) for p in ("build", "confirm"))
            whole = built.with_more(own) if built and own else built or own
            if whole is None:
                continue
            own = own or whole
            groups = len(np.unique(guard.runner.groups[guard.halves.confirm]))
            enough = 0 < tolerance < 1 and groups >= samples_without_loss(tolerance)
            both = whole.comparison()
            found[name] = GuardAccuracy(
                both.baseline.accuracy,
                both.steered.accuracy,
                own.comparison().delta.most_lost if enough and setting in self._confirmed else None,
                None if enough or not 0 < tolerance < 1 else 2 * samples_without_loss(tolerance),
            )
        return found

    def _preference(self, setting: Setting) -> tuple[float, ...]:
        """Sorts the better first: larger gain, less lost on guards, fewer features, lower strength.

        All of it where settings are built.
        """
        return -self._gain(setting), *self._cost(setting)

    def _merit(self, setting: Setting) -> tuple[float, ...]:
        """The same by the gain on all select samples."""
        return -self._tried[setting.key].comparison().delta.value, *self._cost(setting)

    def _cost(self, setting: Setting) -> tuple[float, ...]:
        names = [guard.runner.task.name for guard in self._guards]
        of_guards = [self._guarded[setting.key, name, "build"].comparison() for name in names]
        lost = -sum(each.delta.value for each in of_guards)
        return lost, setting.candidate.size, setting.strength


_FEATURES: tuple[Strategy, ...] = ("S", "A", "P", "G")
"""Arms that are one set of features each, built of the ranking."""
