"""How foreign replies are to a model that did not make them.

Changes when foreign replies are told apart by something else.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from corrsteer.lm.decoding import greedy
from corrsteer.lm.given_replies import Passage
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.teacher_forcing import log_probabilities
from corrsteer.samples import Sample

log = logging.getLogger(__name__)

PROMPTS, TOKENS = 16, 32
"""Replies that are compared with the model's own, and how far its own go."""

FAR = 2.0
"""Nats a token by which replies of another model, or under another template, are typically off."""


@dataclass(frozen=True)
class Foreignness:
    """Mean log-probability per token under the model.

    Attributes:
        given: of the replies that came with samples.
        own: of the model's greedy replies to the same prompts.
        n: samples compared.
    """

    given: float
    own: float
    n: int


def foreignness(
    lm: LanguageModel, samples: Sequence[Sample], passages: Sequence[Passage], what: str
) -> Foreignness | None:
    """How likely the model finds some of the given replies, and its own; said in a line.

    None where there are no such replies, or all are empty.

    Args:
        lm: the model.
        samples: of which the first are compared.
        passages: theirs.
        what: the samples are called.
    """
    given = [
        (sample, passage.prompt, passage.reply)
        for sample, passage in zip(samples, passages, strict=True)
        if passage.reply
    ][:PROMPTS]
    if not given:
        return None
    prompts, replies = [p for _, p, _ in given], [r for _, _, r in given]
    own = greedy(lm.decoder, prompts, TOKENS)
    found = Foreignness(_mean(lm, prompts, replies), _mean(lm, prompts, own), len(given))
    told = log.warning if found.own - found.given > FAR else log.info
    told(
        "%s: replies have a mean log-probability of %.2f a token under %s, its own greedy replies "
        "one of %.2f (%d prompts)%s",
        *(what, found.given, lm.id, found.own, found.n),
        "; the model would hardly say them: check that prompts, chat template and spaces are those "
        "that they were made with"
        if found.own - found.given > FAR
        else "",
    )
    _tell_missing_space([s.rated.text for s, *_ in given if s.rated], [*map(lm.decode, own)], what)
    return found


def _mean(
    lm: LanguageModel, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]
) -> float:
    rows = log_probabilities(lm.decoder, prompts, replies)
    return fmean(fmean(row) for row in rows if row) if any(rows) else 0.0


def _tell_missing_space(given: Sequence[str], own: Sequence[str], what: str) -> None:
    if any(text[:1].isspace() for text in given):
        return
    if sum(text[:1].isspace() for text in own) > 0.8 * len(own):
        log.warning(
            "%s: replies follow their prompts without the space that the model puts there; write "
            "it before the reply, or end prompts with it, as it was when they were made",
            what,
        )
