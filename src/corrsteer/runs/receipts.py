"""What a steering costs the model, beside what it gains.

Changes when another cost is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Receipts:
    """What a steering does to the residual stream, to neutral text and to its own replies.

    Pairs are without and with the steering.

    Attributes:
        dose: hook point -> mean of |strength * v| / |h| over the positions of neutral text, h being
            the residual there without steering.
        kl: mean over the same positions of KL(unsteered || steered), in nats, of the next token's
            distribution, all of them steered.
        perplexity: of the replies under the unsteered model, over their tokens; NaN without any.
        repetition: share of a reply's runs of four tokens that stood in it before, over all replies
            that have such runs; 0 where none has.
        length: mean tokens of a reply.
        changed: share of replies that steering changed.
    """

    dose: Mapping[str, float]
    kl: float
    perplexity: tuple[float, float]
    repetition: tuple[float, float]
    length: tuple[float, float]
    changed: float
