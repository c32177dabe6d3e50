"""The outcome of a run as data: its kind, a sentence, and the reasons.

Changes when a verdict follows another rule. Every place that says what came of a run asks here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from corrsteer.runs.comparison import Comparison
from corrsteer.runs.evaluation import Evaluation
from corrsteer.runs.search import SearchRecord, Trial
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


def judge(
    search: SearchRecord | None,
    evaluation: Evaluation | None,
    tolerance: float,
    shard: str | None = None,
) -> Verdict:
    """The verdict on a run.

    Args:
        search: what was tried on the select split, or None where nothing was.
        evaluation: of the run's steering on the test split, or None.
        tolerance: accuracy that a guard task may lose.
        shard: which part of the fit samples the run is, or None.
    """
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
        return Verdict(
            "no-effect",
            "No reliable effect: no setting tried is significantly above the baseline on the "
            "select split without harming a guard task.",
            _vetoes(search.trials, tolerance),
        )
    setting = f"strategy {chosen.strategy} at strength {chosen.strength:g}"
    if evaluation is None:
        return Verdict(
            "not-evaluated",
            f"Recommended on the select split: {setting}; not evaluated on the test split yet.",
        )
    change = f"{setting} changes test accuracy by {in_points(evaluation.delta)}"
    losses = guard_losses(evaluation.guards, tolerance)
    if evaluation.delta.ci[0] <= 0:
        return Verdict("cannot-tell", f"Not confirmed: {change}, which may be nothing.", losses)
    if losses:
        return Verdict("harms-guard", f"Harms a guard task: {change}, but {losses[0]}.", losses)
    if evaluation.controls and max(evaluation.controls) >= evaluation.steered.accuracy:
        return Verdict(
            "not-attributable",
            f"Not specific: {change}, but a random control of the same size does as well.",
        )
    return Verdict("helps", f"Steering helps: {change}.")


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
    if not setting.features:
        return "has no features"
    if recommended is not None and setting.setting == recommended.setting:
        return "recommended"
    harmed = _vetoes([setting], tolerance)
    if harmed:
        return harmed[0]
    if setting.delta.value <= 0:
        return "gains nothing on the select split"
    if setting.p_adjusted >= alpha:
        return f"its gain on the select split may be chance (adjusted p {setting.p_adjusted:.2g})"
    if recommended is not None:
        return f"{recommended.strategy} x {recommended.strength:g} does better on the select split"
    return "was not checked further"


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


def _vetoes(trials: tuple[Trial, ...] | list[Trial], tolerance: float) -> tuple[str, ...]:
    """What guard tasks lost by trials that were turned down for it."""
    return tuple(
        f"{trial.strategy} x {trial.strength:g} loses "
        f"{100 * (guard.baseline - guard.steered):.1f} points on {name}"
        for trial in trials
        for name in trial.harmed(tolerance)
        for guard in [trial.guards[name]]
    )
