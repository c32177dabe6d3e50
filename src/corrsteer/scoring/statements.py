"""Whether the words around an option's mention say that it is the answer.

Changes when models state their answers in other words. Patterns for what stands in front of a
mention end in `$`; those for what follows are matched from its end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

CONTEXT = 120
"""How many characters around a mention are looked at."""

_ANSWER = (
    r"(?:\b(?:answer|option|choice|alternative|response|solution|one|selection|antwort|respuesta"
    r"|r\u00e9ponse|resposta|risposta|\u043e\u0442\u0432\u0435\u0442)\b"
    r"|\u7b54\u6848|\u9009\u9879|\u6b63\u89e3|\u7b54\u3048|\uc815\ub2f5)"
)
"""In English, German, Spanish, French, Portuguese, Italian, Russian, Chinese, Japanese, Korean."""
_IS = r"(?:\b(?:is|was|be|are|est|es|ist|\u00e8|\u00e9)\b|[:=]|\u662f|\u4e3a|\u306f|\uc740)"
_FILL = (
    r"(?:\s*\b(?:the|option|choice|letter|answer|clearly|indeed|therefore|thus|definitely|likely"
    r"|most|probably|simply|then|actually|still|only|just|either|it|is|that|be|with|for|on|my"
    r"|correct|right|best|one|la|el|le|die|das)\b[:,]?)*\s*$"
)
_INTRODUCES = re.compile(
    rf"{_ANSWER}[^\n]{{0,60}}?{_IS}{_FILL}"
    r"|\b(?:choose|chose|choosing|pick|picking|select|selected|selecting|go|going|went|vote|opt"
    rf"|say|guess|conclude|settle|change (?:my answer )?to|switch to)\b{_FILL}"
    rf"|\bonly(?: option| choice)?\s*$",
    re.I,
)
_CONCLUDES = re.compile(
    r"\b(?:so|therefore|thus|hence|actually|rather|instead|wait|no|but|sorry|correction|it's"
    r"|it is|must be|should be|that's|that is|which is|leaves|leaving|left with|namely|probably"
    r"|definitely|certainly|likely|surely|clearly|perhaps|maybe|think|believe"
    rf"|lean(?:ing)? towards?)\b[,:]?{_FILL}",
    re.I,
)
_HEADS = re.compile(rf"(?:^|\n)\W*(?:the |my |correct )*{_ANSWER}\s*$", re.I)
_FINAL = re.compile(r"\bfinal\b", re.I)
_SAYS = re.compile(r"\b(?:is|was|are|were|be|been|in|by|it's|that's)\s+(?:(?:an?|the)\s+)?$", re.I)
_DENIES = re.compile(
    r"\b(?:not|never|cannot|neither|nor|unless|mistake|misconception|at first|initially"
    r"|(?:claimed|said|believed|assumed) that"
    r"|thought (?:it|the|that))\b|n't\b",
    re.I,
)
_SUPPOSES = re.compile(
    r"\bif .*would\b|\b(?:might|may|could|would) (?:think|assume|guess|argue|believe|be tempted)\b"
    r"(?!.*,)",
    re.I | re.S,
)
_ENDS_SENTENCE = re.compile(r"\s*(?:[.!?]|$)")
_ENDS = re.compile(r"\s*(?:$|[.,;:!?\n(-]|(?:because|since|as|here)\b)")
_CONFIRMS = re.compile(
    r"[.:]?(?:(?!\b(?:is|are|not|but|and|[A-Z])\b)[^\n.!?]){0,60}?"
    r"(?:\b(?:is|was|must be|seems|looks|appears to be)\s|[:-]\s)\s*(?:\w+ly\s+)?(?:the\s+|my\s+)?"
    r"(?:only\s+|one\s+)?(?:correct|right|true|answer"
    r"|(?:best|better|most \w+)(?: answer| option| choice| one|(?P<alone>))\b)"
)
_VERB = re.compile(
    r"\s+(?:is|are|was|were|looks?|seems?|appears?|has|have|had|can|could|cannot|would|may|might"
    r"|does|must|should|will|\w+n't)\b"
)
_IS_THE = re.compile(r"\s+is the (?!wrong|incorrect|worst|opposite)")
_NEGATED = re.compile(
    r"\s+(?:(?:is|was|are|were|can|could|would) not|cannot|\w+n't)\b"
    r"|[^.\n]{0,20}\bbut (?:that|this|it) (?:is|was) (?:wrong|not|incorrect|a (?:myth|mistake))\b"
)
_SEVERAL = re.compile(
    r"\s*(?:,|/|&|\band\b|\bor\b)\s*(?:(?:and|or)\s+)?(?:option\s+)?[(\[]?[A-Z]\b"
    r"(?!'|\s+(?:is|was)\b|(?<=I)\s+[a-z])"
)
_SEVERAL_BEFORE = re.compile(r"\b[A-Z][)\]]?\s*(?:,|/|&|\band\b|\bor\b|,\s*(?:and|or)\b)\s*$")
_LABEL = re.compile(r"\b(?:only|option|choice|letter|answer)\s*$", re.I)
_ENGLISH = re.compile(r"\s+(?!(?:because|since|as|is|was|due|given|for|by|in|here|and|or)\b)[a-z]")
_CLAUSE_START = re.compile(r"[.!?](?=\s)|;|(?=\bbut\b)")


@dataclass(frozen=True)
class Mention:
    """A place that names an option.

    Attributes:
        letter: the option's.
        place: where it starts.
        is_text: whether it is the option's text, rather than its letter.
        in_brackets: whether it stands in brackets.
        before: the `CONTEXT` characters in front of it.
        after: the `CONTEXT` characters behind it.
        opens: whether it opens the whole.
        fills_line: whether nothing but the option's letter and text stands in the line.
        is_last: whether nothing follows the line.
        is_item: whether the line is one of several, each with its letter.
    """

    letter: str
    place: int
    is_text: bool
    in_brackets: bool
    before: str
    after: str
    opens: bool
    fills_line: bool
    is_last: bool
    is_item: bool

    @property
    def named(self) -> str | None:
        """The option; None where it is named together with others."""
        if self.is_text:
            return self.letter
        several = _SEVERAL.match(self.after) or _SEVERAL_BEFORE.search(self.before)
        return None if several else self.letter

    @property
    def is_final(self) -> bool:
        """Whether it is called the final answer."""
        return _FINAL.search(self._clause) is not None and self.is_stated

    @cached_property
    def is_stated(self) -> bool:
        """Whether it says that the option is the answer."""
        if self.opens and not self.is_item and self._can_open():
            return True
        if self.fills_line and not self.is_item and (self.is_last or _HEADS.search(self.before)):
            return True
        if self.is_denied:
            return False
        if _INTRODUCES.search(self._clause):
            return True
        if _CONCLUDES.search(self._clause) and (self.is_text or _ENDS.match(self.after)):
            return True
        confirms = _CONFIRMS.match(self.after)
        return confirms is not None and not (self.is_text and confirms["alone"] is not None)

    @property
    def is_said(self) -> bool:
        """Whether it is an option's text after a verb, or a letter that is meant as one."""
        if self.is_denied or self.is_item:
            return False
        if self.is_text:
            return _SAYS.search(self._clause) is not None
        return (
            self.in_brackets
            or is_label(self.before)
            or _ENDS_SENTENCE.match(self.after) is not None
        )

    @property
    def is_aside(self) -> bool:
        """Whether it is an option's text in the midst of something else."""
        return self.is_text and (self.is_denied or not _ENDS.match(self.after))

    @cached_property
    def is_denied(self) -> bool:
        """Whether it is negated or only supposed."""
        if _SUPPOSES.search(self._clause) or _NEGATED.match(self.after):
            return True
        return _DENIES.search(re.split(r"[,\n]", self._clause.rstrip())[-1]) is not None

    @cached_property
    def _clause(self) -> str:
        starts = [0, *(match.end() for match in _CLAUSE_START.finditer(self.before))]
        return self.before[starts[-1] :]

    def _can_open(self) -> bool:
        if self.is_text:
            return not _NEGATED.match(self.after)
        return not _VERB.match(self.after) or _IS_THE.match(self.after) is not None


def is_label(before: str) -> bool:
    """Whether what stands in front ends in `option`, `only` and the like."""
    return _LABEL.search(before) is not None


def is_english(letter: str, before: str, after: str) -> bool:
    """Whether a letter is the English word `a` or `I`, and no option's."""
    if letter not in "AaIi" or not _ENGLISH.match(after):
        return False
    return letter.islower() or not is_label(before)
