"""Token ids of replies that came with their prompts.

Changes when a reply is read as other tokens, or something else of replies is told.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from corrsteer.lm.models import LanguageModel
from corrsteer.samples import Sample

log = logging.getLogger(__name__)

ENDS = tuple(".!?:;)]}\"'`*>\u2026\u3002\uff01\uff1f\u201d\u2019")
"""What a text that has come to its end may end with."""
LONG, MANY = 8, 5
"""Tokens from which on, and replies of which so many, a common length is no accident."""
TEMPLATE_MARKS = re.compile(
    r"<\|[a-z_]{2,20}\|>|</?(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|<\uff5c[A-Za-z]+\uff5c>"
)
"""What chat templates write between turns."""


@dataclass(frozen=True)
class Passage:
    """What a model is given of a sample.

    Attributes:
        prompt: token ids.
        reply: those of the reply that came with it; None where it is to be generated.
    """

    prompt: Sequence[int]
    reply: Sequence[int] | None = None

    @property
    def length(self) -> int:
        """Of both together."""
        return len(self.prompt) + len(self.reply or ())


def passages_of(
    lm: LanguageModel,
    samples: Sequence[Sample],
    max_new_tokens: int,
    what: str,
    given: bool = True,
) -> list[Passage]:
    """What the model is given of each sample: its prompt, and its reply if all came with one.

    Args:
        lm: the model.
        samples: in any order.
        max_new_tokens: longest reply.
        what: the samples are called.
        given: whether replies that came with samples are read, rather than generated anew.

    Raises:
        ModelError: see `LanguageModel.prompt_ids`.
    """
    if not given or not all(sample.rated for sample in samples):
        return [Passage(ids) for ids in lm.prompts_of(samples, max_new_tokens, what)]
    prompts = [lm.prompt_ids(sample) for sample in samples]
    replies = replies_of(lm, samples, prompts, max_new_tokens, what)
    return [Passage(*pair) for pair in zip(prompts, replies, strict=True)]


def replies_of(
    lm: LanguageModel,
    samples: Sequence[Sample],
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    what: str,
) -> list[list[int]]:
    """Token ids of the samples' rated replies, as they continue the prompts; says what is cut.

    A reply's tokens are those that prompt and reply together have behind the prompt's own. Where
    its beginning would merge with the prompt's end it is read as a text by itself. It ends before
    an EOS that stands in it, where the longest reply does, and where the model has no more
    positions.

    Args:
        lm: the model.
        samples: each with a rated reply.
        prompts: their prompts' token ids.
        max_new_tokens: longest reply.
        what: the samples are called.
    """
    found, lengths, apart, cut = [], [], 0, 0
    for sample, prompt in zip(samples, prompts, strict=True):
        ids = _continuation(lm, sample, prompt)
        if ids is None:
            apart += 1
            ids = _alone(lm, sample)
        ended = next((n for n, token in enumerate(ids) if token in lm.decoder.eos_ids), len(ids))
        room = lm.decoder.room(prompt, max_new_tokens)
        cut += ended > room
        lengths.append(ended)
        found.append(ids[: min(ended, room)])
    _tell_ends(samples, lengths, what)
    _tell_foreign_marks(lm, samples, what)
    if apart:
        log.info(
            "%s: %d of %d replies begin with what would merge with the prompt's last token; they "
            "are read as texts by themselves",
            *(what, apart, len(found)),
        )
    if cut:
        log.info(
            "%s: %d of %d replies are longer than %d tokens, or than there are positions, and are "
            "read up to there; --max-new-tokens sets how far",
            *(what, cut, len(found), max_new_tokens),
        )
    return found


def reply_ids(lm: LanguageModel, sample: Sample, prompt: Sequence[int]) -> list[int]:
    """The same of one sample, whole and untold, as of a reply that the model made itself."""
    ids = _continuation(lm, sample, prompt)
    return _alone(lm, sample) if ids is None else ids


def _tell_ends(samples: Sequence[Sample], lengths: Sequence[int], what: str) -> None:
    """Say so where many replies end in the middle at one and the same length, the longest."""
    longest = max(lengths, default=0)
    texts = [_text(s).rstrip() for s, n in zip(samples, lengths, strict=True) if n == longest]
    middle = sum(not text.endswith(ENDS) for text in texts)
    if longest >= LONG and middle >= max(MANY, len(samples) / 20) and 2 * middle > len(texts):
        log.warning(
            "%s: %d of %d replies end in the middle of a sentence after exactly %d tokens: what "
            "made them cut them, and their scores may be of something else than is read",
            *(what, middle, len(samples), longest),
        )


def _tell_foreign_marks(lm: LanguageModel, samples: Sequence[Sample], what: str) -> None:
    """Say so where texts hold marks of a chat template that is not the model's."""
    found = Counter(
        mark for s in samples for mark in {*TEMPLATE_MARKS.findall(f"{s.text} {_text(s)}")}
    )
    template, unknown = str(lm.tokenizer.chat_template or ""), lm.tokenizer.unk_token_id
    for mark, count in found.most_common():
        known = lm.tokenizer.convert_tokens_to_ids(mark) not in (None, unknown)
        if not known and mark not in template:
            log.warning(
                "%s: %d of %d samples hold %s, which neither the vocabulary nor the chat template "
                "of %s has: they were made with another model's; give chats as `messages`, and "
                "replies without it",
                *(what, count, len(samples), mark, lm.id),
            )
            return


def _text(sample: Sample) -> str:
    return "" if sample.rated is None else sample.rated.text


def _continuation(lm: LanguageModel, sample: Sample, prompt: Sequence[int]) -> list[int] | None:
    """What the reply adds to the prompt's tokens; None where it changes them."""
    whole = lm.tokens(sample, _text(sample))
    return whole[len(prompt) :] if whole[: len(prompt)] == list(prompt) else None


def _alone(lm: LanguageModel, sample: Sample) -> list[int]:
    return [
        int(each) for each in lm.tokenizer(_text(sample), add_special_tokens=False)["input_ids"]
    ]
