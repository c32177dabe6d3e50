"""The rule-based scorers by name.

Changes when there is another rule: it has a module of its own, and a place in `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from corrsteer.samples import Sample
from corrsteer.scoring.base import Score
from corrsteer.scoring.numbers import numeric
from corrsteer.scoring.options import choice
from corrsteer.scoring.refusals import refusal
from corrsteer.scoring.texts import contains, exact


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


RULES: dict[str, RuleScorer] = {
    rule.__name__: RuleScorer(rule.__name__, rule, needs_target=rule is not refusal)
    for rule in (exact, choice, contains, numeric, refusal)
}
