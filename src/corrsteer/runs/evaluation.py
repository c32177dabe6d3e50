"""What a steering does to a test split.

Changes when an evaluation says more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from corrsteer.json_text import excerpt
from corrsteer.notebook import accuracy, overview
from corrsteer.runs.comparison import Comparison
from corrsteer.runs.receipts import Receipts
from corrsteer.stats.metrics import Accuracy, Delta, SideEffects

HABIT = 0.9
"""Share of replies that give one answer from which on a model is said to do it out of habit."""


@dataclass(frozen=True)
class Prediction:
    """A test sample with both arms' replies.

    Attributes:
        id, prompt, target: of the sample; a chat's prompt turn by turn.
        baseline_text, steered_text: the replies.
        baseline_answer, steered_answer: what the scorer read out of them, or None.
        baseline_outcome, steered_outcome: in [0, 1], or None where they cannot be judged.
    """

    id: str
    prompt: str
    target: tuple[str, ...]
    baseline_text: str
    baseline_answer: str | None
    baseline_outcome: float | None
    steered_text: str
    steered_answer: str | None
    steered_outcome: float | None

    @property
    def change(self) -> float:
        """Steered minus baseline outcome; 0 where one of them is not judged."""
        if self.baseline_outcome is None or self.steered_outcome is None:
            return 0.0
        return self.steered_outcome - self.baseline_outcome


@dataclass(frozen=True)
class CommonestAnswer:
    """The answer that unsteered replies give most often.

    Attributes:
        answer: what the scorer read out of them, or else their text.
        share: of all replies.
    """

    answer: str
    share: float

    @classmethod
    def of(cls, predictions: Sequence[Prediction]) -> CommonestAnswer | None:
        """That of some predictions; None of none."""
        answers = Counter(
            " ".join(each.baseline_text.split()).casefold()
            if each.baseline_answer is None
            else each.baseline_answer
            for each in predictions
        )
        return next((cls(a, n / answers.total()) for a, n in answers.most_common(1)), None)

    def __str__(self) -> str:
        """A warning, where hardly any reply gives another answer; else empty."""
        if self.share < HABIT:
            return ""
        return (
            f"Without steering {self.share:.0%} of the replies give one answer, "
            f"{excerpt(self.answer)}: accuracy is then how often that is right, and r tells the "
            "samples for which it is from the others."
        )


@dataclass(frozen=True)
class RatedLikelihoods:
    """The likelihood of rated replies: the mean of their tokens' geometric mean probabilities.

    Attributes:
        good: of replies rated above the mean, without steering and with it.
        others: of all others.
    """

    good: tuple[float, float]
    others: tuple[float, float]

    def __str__(self) -> str:
        (good, better), (other, worse) = self.good, self.others
        return (
            f"likelihood per token of replies rated good {good:.3f} -> {better:.3f}, of others "
            f"{other:.3f} -> {worse:.3f}"
        )


@dataclass(frozen=True)
class Evaluation:
    """What steering does to a task's test split.

    Attributes:
        baseline: accuracy without steering.
        steered: with it; the baseline's own where there is no steering.
        delta: steered minus baseline.
        side_effects: SER with its counts.
        unscored: samples left out because a reply could not be judged.
        controls: accuracies under random-feature controls.
        guards: guard task -> comparison on its own test split.
        predictions: one a sample, in the order of the samples.
        forced: why the steering is not for this model, where it was forced on it; else None.
        unread: see `Comparison`.
        likelihoods: of the replies that were rated, where these alone judge; else None.
        receipts: what the steering costs; None without one, and where no reply was generated.
    """

    baseline: Accuracy
    steered: Accuracy
    delta: Delta
    side_effects: SideEffects
    unscored: int
    controls: tuple[float, ...] = ()
    guards: Mapping[str, Comparison] = field(default_factory=dict)
    predictions: tuple[Prediction, ...] = field(default=(), repr=False)
    forced: str | None = None
    unread: tuple[int, int] | None = None
    likelihoods: RatedLikelihoods | None = None
    receipts: Receipts | None = None

    def _repr_html_(self) -> str:
        effects = self.side_effects
        facts = {
            "baseline": accuracy(self.baseline.accuracy, self.baseline.ci),
            "steered": accuracy(self.steered.accuracy, self.steered.ci),
            "change": f"{100 * self.delta.value:+.1f} points",
            "SER": None if effects.ser is None else f"{effects.ser:.2f}",
            "improved, worsened": f"{effects.improved}, {effects.worsened} of {self.baseline.n}",
        }
        if self.unread is not None and any(self.unread):
            facts["unread replies"] = f"{self.unread[0]}, steered {self.unread[1]}"
        if self.controls:
            facts["best of random controls"] = f"{100 * max(self.controls):.1f} %"
        return overview("Evaluation", facts)
