"""What a steering costs the model, beside what it gains.

Changes when another cost is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corrsteer.hook_points import in_words


@dataclass(frozen=True)
class Receipts:
    """What a steering does to the residual stream, to neutral text and to its own replies.

    Pairs are without and with the steering.

    Attributes:
        dose: hook point -> mean of |strength * v| / |h| over the positions of neutral text, h being
            the residual there without steering.
        kl: mean over the same positions of KL(unsteered || steered), in nats, of the next token's
            distribution, all of them steered.
        perplexity: of the replies under the unsteered model, over their tokens; None without any.
        repetition: share of a reply's runs of four tokens that stood in it before, over all replies
            that have such runs; 0 where none has.
        length: mean tokens of a reply.
        changed: share of replies that steering changed.
    """

    dose: Mapping[str, float]
    kl: float
    perplexity: tuple[float | None, float | None]
    repetition: tuple[float, float]
    length: tuple[float, float]
    changed: float

    @property
    def dose_in_words(self) -> str:
        """The largest dose, and where it is given."""
        hook = max(self.dose, key=lambda name: self.dose[name])
        return f"{self.dose[hook]:.2f} at {in_words([hook])}"

    def __str__(self) -> str:
        """All of it, in one line."""
        before, after = ("-" if each is None else f"{each:.3g}" for each in self.perplexity)
        short, long = self.length
        return (
            f"{self.changed:.0%} of replies changed; {self.kl:.2g} nats from the unsteered model "
            f"on neutral text, largest dose {self.dose_in_words}; replies: perplexity {before} "
            f"-> {after}, repetition {self.repetition[0]:.0%} -> {self.repetition[1]:.0%}, "
            f"{short:.1f} -> {long:.1f} tokens"
        )
