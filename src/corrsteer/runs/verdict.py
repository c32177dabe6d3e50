"""The outcome of a run as data: its kind, a sentence, and the reasons.

Changes when a verdict follows another rule. Every place that says what came of a run asks here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from corrsteer.features import Feature
from corrsteer.runs.comparison import Comparison
from corrsteer.runs.evaluation import Evaluation
from corrsteer.runs.search import GuardAccuracy, SearchRecord, Trial
from corrsteer.scoring.rated import NOT_SHOWN, measured
from corrsteer.settings import FitSettings
from corrsteer.stats.metrics import Delta

Kind = Literal[
    "helps",
    "harms",
    "harms-guard",
    "no-effect",
    "cannot-tell",
    "not-attributable",
    "not-evaluated",
]
"""What came of a run:

- `helps`: accuracy on the test split rises beyond chance, more than under random controls.
- `harms`: it falls beyond chance.
- `harms-guard`: a guard task loses more than is tolerated.
- `no-effect`: nothing tried proved itself on the select split.
- `cannot-tell`: the change may be nothing.
- `not-attributable`: it helps, but so do random directions.
- `not-evaluated`: there is nothing to judge yet.
"""


@dataclass(frozen=True)
class Verdict:
    """The outcome of a run.

    Attributes:
        kind: see `Kind`.
        text: one sentence.
        reasons: further facts that it rests on, each a sentence without its full stop.
    """

    kind: Kind
    text: str
    reasons: tuple[str, ...] = ()

    @classmethod
    def read(cls, stored: Mapping[str, Any] | str) -> Verdict:
        """A verdict as JSON holds it; runs of before have the sentence alone."""
        if isinstance(stored, str):
            kind = next((k for lead, k in _LEADS.items() if stored.startswith(lead)), None)
            return cls(kind or "not-evaluated", stored)
        return cls(stored["kind"], stored["text"], tuple(stored["reasons"]))


_LEADS: Mapping[str, Kind] = {
    "Steering helps": "helps",
    "Not specific": "not-attributable",
    "Not confirmed": "cannot-tell",
    "No reliable effect": "no-effect",
}
"""How sentences begin in runs that were written before verdicts had a kind."""


NAMED = 3
"""Features named one by one; of more, so many as examples."""

WORTHWHILE = 0.05
"""A gain below which nobody would steer: where larger ones are ruled out, there is no effect."""


TOWARDS = "the preference for held-out replies that were rated good"
"""What changes in place of accuracy where rated replies alone judge."""


def judge(
    search: SearchRecord | None,
    evaluation: Evaluation | None,
    features: Sequence[Feature],
    settings: FitSettings,
    shard: str | None = None,
    scorer: str = "",
) -> Verdict:
    """The verdict on a run.

    Args:
        search: what was tried on the select split, or None where nothing was.
        evaluation: of the run's steering on the test split, or None.
        features: of that steering.
        settings: of the fit.
        shard: which part of the fit samples the run is, or None.
        scorer: name of the task's.
    """
    found = _judged(search, evaluation, features, settings, shard)
    if measured(scorer) == "accuracy" or found.kind == "not-evaluated":
        return found
    moved = () if evaluation is None else (str(evaluation.likelihoods),)
    text = found.text.replace("test accuracy", TOWARDS).replace("accuracy", TOWARDS)
    return replace(found, text=text, reasons=(*moved, *found.reasons, NOT_SHOWN))


def _judged(
    search: SearchRecord | None,
    evaluation: Evaluation | None,
    features: Sequence[Feature],
    settings: FitSettings,
    shard: str | None,
) -> Verdict:
    """The verdict in terms of accuracy."""
    if shard is not None:
        return Verdict(
            "not-evaluated", f"Part {shard} is collected: `corrsteer merge` adds up all parts."
        )
    if search is None:
        return Verdict(
            "not-evaluated",
            "Not tried yet: chosen from saved statistics; `corrsteer eval` says what it does.",
        )
    chosen = search.recommended
    if chosen is None:
        return _nothing_recommended(search, settings)
    setting = named(chosen)
    if evaluation is None:
        return Verdict(
            "not-evaluated",
            f"Recommended on the select split: {setting}; not evaluated on the test split yet.",
        )
    return _evaluated(setting, evaluation, features, settings)


def _nothing_recommended(search: SearchRecord, settings: FitSettings) -> Verdict:
    """Why nothing is recommended: no effect, one that could not have been seen, or a guard's."""
    vetoes = _vetoes(search.trials, settings.guard_tolerance)
    if search.least_gain is None:
        return Verdict(
            "no-effect",
            "No reliable effect: no setting tried is significantly above the baseline on the "
            "select split without harming a guard task.",
            vetoes,
        )
    least, n = search.least_gain, search.n_confirmed
    asked = [trial for trial in search.trials if trial.confirmed is not None]
    tried = asked or search.trials
    if not tried:
        return Verdict(
            "no-effect",
            "No reliable effect: whatever gained anything where settings are chosen harms a guard "
            "task, or nothing did.",
        )
    best = max(tried, key=lambda trial: (trial.confirmed or trial.delta).value)
    change = best.confirmed or best.delta
    if asked and change.value > 0 and change.p_value < settings.alpha:
        return Verdict(
            "harms-guard",
            f"Nothing is recommended: {named(best)} changes accuracy by {in_points(change)} on "
            f"the {n} select samples kept to confirm it, but a guard task speaks against it.",
            vetoes,
        )
    seen = f"a gain below {100 * least:.0f} points could not have been significant there"
    if search.detectable_gain is not None:
        seen += (
            f", and one of {100 * search.detectable_gain:.0f} would have been in "
            f"{settings.power:.0%} of cases"
        )
    if least > 1:
        seen = "so few samples cannot show any gain"
    told = (
        f"{named(best)} changes accuracy by {in_points(change)} on the {n} select samples kept "
        "to confirm it"
        if asked
        else "no setting gained anything where settings are chosen"
    )
    reasons = (seen, *vetoes)
    if least <= WORTHWHILE and change.ci[1] < WORTHWHILE:
        return Verdict("no-effect", f"No reliable effect: {told}.", reasons)
    needed = math.ceil(2 * least * n / WORTHWHILE)
    more = f"{needed:,} select samples or more would show a gain of {100 * WORTHWHILE:.0f} points"
    return Verdict("cannot-tell", f"Cannot tell: {told}, which may be chance.", (*reasons, more))


def _evaluated(
    setting: str, evaluation: Evaluation, features: Sequence[Feature], settings: FitSettings
) -> Verdict:
    """The verdict on a recommended setting by the test split."""
    delta, alpha, tolerance = evaluation.delta, settings.alpha, settings.guard_tolerance
    change = f"{setting} changes test accuracy by {in_points(delta)}"
    losses = guard_losses(evaluation.guards, tolerance)
    open_guards = _open_guards(evaluation.guards, tolerance)
    unsure = [feature for feature in features if feature.p_adjusted >= alpha]
    by_chance = _by_chance(unsure)
    if losses:
        return Verdict("harms-guard", f"Harms a guard task: {change}, but {losses[0]}.", losses)
    if delta.value < 0 and delta.p_value < alpha:
        return Verdict("harms", f"Steering harms: {change}.", open_guards)
    if delta.value <= 0 or delta.p_value >= alpha:
        return Verdict(
            "cannot-tell", f"Not confirmed: {change}, which may be nothing.", open_guards
        )
    if features and len(unsure) == len(features):
        text = f"Not attributable: {change}, but every feature may go with the outcome by chance."
        return Verdict("not-attributable", text, (*by_chance, *open_guards))
    if evaluation.controls and max(evaluation.controls) >= evaluation.steered.accuracy:
        text = (
            f"Not specific: {change}, but a random control found by the same search does as well."
        )
        return Verdict("not-attributable", text, (*by_chance, *open_guards))
    return Verdict("helps", f"Steering helps: {change}.", (*by_chance, *open_guards))


def _by_chance(unsure: Sequence[Feature]) -> tuple[str, ...]:
    """What is said of features that may go with the outcome by chance, of many in one line."""
    if len(unsure) > NAMED:
        names = ", ".join(f"{each.layer}/{each.latent}" for each in unsure[:NAMED])
        least = min(each.p_adjusted for each in unsure)
        return (
            f"{len(unsure)} features may go with the outcome by chance (adjusted p {least:.2g} or "
            f"more): {names} and {len(unsure) - NAMED} more",
        )
    return tuple(
        f"feature {each.layer}/{each.latent} may go with the outcome by chance "
        f"(adjusted p {each.p_adjusted:.2g})"
        for each in unsure
    )


def judge_tuning(evaluation: Evaluation, tolerance: float) -> Verdict:
    """The verdict on fine-tuning, by the same measures; there is no search and no control."""
    change = f"changes test accuracy by {in_points(evaluation.delta)}"
    losses = guard_losses(evaluation.guards, tolerance)
    low, high = evaluation.delta.ci
    if low <= 0 <= high:
        return Verdict(
            "cannot-tell", f"Not confirmed: fine-tuning {change}, which may be nothing.", losses
        )
    if high < 0:
        return Verdict("harms", f"Fine-tuning harms: it {change}.", losses)
    if losses:
        text = f"Fine-tuning harms a guard task: it {change}, but {losses[0]}."
        return Verdict("harms-guard", text, losses)
    return Verdict("helps", f"Fine-tuning helps: it {change}.")


def why(setting: Trial | None, recommended: Trial | None, alpha: float, tolerance: float) -> str:
    """Why a strategy's setting is or is not what is recommended, in a few words.

    Args:
        setting: the trial of that setting on the select split, or None if it was not tried.
        recommended: the recommended trial, or None.
        alpha: significance level of the search.
        tolerance: accuracy that a guard task may lose.
    """
    if setting is None:
        return "was not tried on the select split"
    if not setting.steers:
        return "has no features"
    if recommended is not None and setting.setting == recommended.setting:
        return "recommended"
    losses = _losses(setting, tolerance)
    if losses:
        return losses[0]
    if setting.delta.value <= 0:
        return "gains nothing on the select split"
    if setting.confirmed is not None and setting.p_adjusted >= alpha:
        return f"its gain on the select split may be chance (p {setting.p_adjusted:.2g})"
    if recommended is not None:
        return f"{recommended.strategy} x {recommended.strength:g} does better on the select split"
    return "was not checked further"


def named(trial: Trial) -> str:
    """A setting in words."""
    where = f" ({trial.where})" if trial.where else ""
    return f"strategy {trial.strategy}{where} at strength {trial.strength:g}"


def _open_guards(guards: Mapping[str, Comparison], tolerance: float) -> tuple[str, ...]:
    """Guard tasks on whose test split a loss beyond the tolerance cannot be ruled out."""
    return tuple(
        f"guard {name} may lose up to {100 * guard.delta.most_lost:.1f} points "
        f"({guard.baseline.n} samples)"
        for name, guard in guards.items()
        if guard.delta.value >= -tolerance - 1e-9 and guard.delta.most_lost > tolerance
    )


def guard_losses(guards: Mapping[str, Comparison], tolerance: float) -> tuple[str, ...]:
    """Guard tasks that lose more than is tolerated on their test splits, each with its change."""
    return tuple(
        f"guard {name} changes by {in_points(guard.delta)}"
        for name, guard in guards.items()
        if guard.delta.value < -tolerance - 1e-9
    )


def in_points(delta: Delta) -> str:
    """A change with its interval, in points."""
    value, low, high = (100 * number for number in (delta.value, *delta.ci))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def _vetoes(trials: Sequence[Trial], tolerance: float) -> tuple[str, ...]:
    """What guard tasks lost, or may have lost, by trials that were turned down for it."""
    return tuple(
        f"{trial.strategy} x {trial.strength:g} {told}"
        for trial in trials
        for told in _losses(trial, tolerance)
    )


def _losses(trial: Trial, tolerance: float) -> tuple[str, ...]:
    """What it loses, or may lose, on each guard task that speaks against it."""
    return tuple(f"{_lost(trial.guards[name])} on {name}" for name in trial.harmed(tolerance))


def _lost(guard: GuardAccuracy) -> str:
    lost = 100 * (guard.baseline - guard.steered)
    if guard.most_lost is None:
        return f"loses {lost:.1f} points"
    most = f"{100 * guard.most_lost:.1f}"
    return f"loses {lost:.1f} points (or up to {most})" if lost > 0 else f"may lose {most} points"
