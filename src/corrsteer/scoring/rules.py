"""The rule-based scorers by name.

Changes when there is another rule: it has a module of its own, and a place in `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from corrsteer.samples import Sample
from corrsteer.scoring.base import Score
from corrsteer.scoring.numbers import numeric, target_numbers
from corrsteer.scoring.options import choice, target_letters
from corrsteer.scoring.refusals import refusal, should_refuse
from corrsteer.scoring.texts import check_texts, contains, exact


@dataclass(frozen=True)
class RuleScorer:
    """A scorer that is a plain function of reply and sample.

    Attributes:
        name: what `--scorer` calls it.
        rule: the function.
        needs_target: whether a sample without a target cannot be judged at all.
        source: digest of the source of a user's own function; "" for a rule of ours.
    """

    name: str
    rule: Callable[[str, Sample], Score]
    needs_target: bool = True
    source: str = ""

    def __call__(self, reply: str, sample: Sample) -> Score:
        """The score of `reply` to `sample`."""
        return self.rule(reply, sample)


@dataclass(frozen=True)
class TargetRule(RuleScorer):
    """A rule that reads targets.

    Attributes:
        targets: what the rule makes of a sample's targets; a `ScorerError` if it cannot.
    """

    targets: Callable[[Sample], object] = check_texts

    def check_target(self, sample: Sample) -> None:
        """Refuse targets that the rule cannot read.

        Raises:
            ScorerError: names the target and what could be written.
        """
        self.targets(sample)


RULES: dict[str, TargetRule] = {
    rule.__name__: TargetRule(rule.__name__, rule, rule is not refusal, targets=targets)
    for rule, targets in (
        (exact, check_texts),
        (choice, target_letters),
        (contains, check_texts),
        (numeric, target_numbers),
        (refusal, should_refuse),
    )
}
