"""The scorer `numeric`: the number that a reply gives as its answer.

Changes when models state their results in other words; `numerals` has the ways of writing them.
"""

from __future__ import annotations

import re
from fractions import Fraction

from corrsteer.errors import ScorerError
from corrsteer.samples import Sample
from corrsteer.scoring.base import Score, unread
from corrsteer.scoring.numerals import Numeral, numerals, spelled_out, written
from corrsteer.scoring.replies import before_next_question, without_thinking


def numeric(reply: str, sample: Sample) -> Score:
    """1 iff the number that the reply gives equals a target; `72`, `72.0` and `$72` are equal.

    25 % equals 25 as well as 0.25. There is no tolerance: 0.33 is not 1/3.

    Raises:
        ScorerError: a target is no number.
    """
    targets = target_numbers(sample)
    answer = _stated(reply)
    if answer is None or answer.value is None:
        return unread("no number in the reply")
    return Score(float(any(map(answer.equals, targets))), written(answer.value))


def read_number(reply: str) -> Fraction | None:
    r"""The number that a reply gives as its answer; None if there is none.

    The last statement counts, of the first kind that there is:

    1. A marked answer: `#### 72`, `\boxed{72}`, `<answer>72</answer>`, `Final answer: 72`. Of
       several after `####` the first, as GSM8K's authors read it, since a base model goes on to
       questions of its own; a later one only behind words of correction (`wait`, `actually`).
    2. `the answer is 72`, `Answer: 72`, `so x = 72`, or a first line that is nothing but a number.
    3. The last number that is not in brackets, behind `not`, or in a circumstance (`in 5 hours`,
       `per 3 boxes`); if all are, the last.

    In a sentence with an equals sign the number behind the last one counts. Thoughts that the
    model marks are dropped, and so is all from the announcement of another question. Times, dates,
    ratios, roots and multiples of pi are no numbers.
    """
    answer = _stated(reply)
    return None if answer is None else answer.value


def target_numbers(sample: Sample) -> list[Numeral]:
    """The numbers that a sample's targets are.

    Raises:
        ScorerError: a target is no number, or more than one.
    """
    return [_target(target, sample) for target in sample.target]


_WORKED = re.compile(r".*####", re.S)
_BEYOND = re.compile(r"[\d\\^+*!\u221a\u03c0\u221e<>]|\b(?:not|or|nan|inf)\b", re.I)
"""What a target may not hold beside its number."""


def _target(target: str, sample: Sample) -> Numeral:
    text = _WORKED.sub("", _unboxed(spelled_out(target))).strip()
    found = list(numerals(text))
    if len(found) == 1 and found[0].value is not None:
        (number,) = found
        if not _BEYOND.search(text[: number.start] + text[number.end :]):
            return number
    raise ScorerError(
        f"sample {sample.id!r}: target {target[:80]!r} is not one number; write it in digits, as "
        "72, -0.5, 3/4, 1e-5 or 25%, or take --scorer contains"
    )


_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_MARKED = re.compile(
    rf"####(?P<hashes>[^\n]*)|{_BOXED.pattern}|<answer>(?P<tagged>[^<]*)"
    r"|\bfinal answer\b[^\n:.]{0,20}?(?::|\bis\b)(?P<final>[^\n]*)",
    re.I,
)
_CORRECTS = re.compile(
    r"\b(?:wait|actually|correction|mistake|wrong|oops|hold on|let me re\w+|re-?check|sorry)\b",
    re.I,
)
_STATES = re.compile(
    r"(?:\b(?:answer|result|solution|antwort|r\u00e9ponse|respuesta|resposta|risposta)\b"
    r"|\u043e\u0442\u0432\u0435\u0442|\u7b54\u6848|\u7b54\u3048)"
    r"[^\n.(\d]{0,40}?(?:\b(?:is|be|are|ist|est|es|equals)\b|[=:]|\u662f|\u306f)"
    r"(?!\s*not\b)[^\n.\d]{0,30}$"
    r"|(?:^|\b(?:so|thus|hence|therefore)\b,?)[^\n.\d]{0,12}\b[a-z]\s*=\s*$"
    r"|\bmust be\s*$",
    re.I,
)
_CIRCUMSTANCE = re.compile(
    r"\b(?:in|after|for|over|per|within|since|during|at|from|with|than|every|on|step|confidence)\b"
    r":?\s*(?:(?:the|about|only|another|all|last)\s+)*$",
    re.I,
)
_BEFORE_YEAR = re.compile(r"\b(?:by|until|before|of|year)\s+$", re.I)
_YEARS = range(1900, 2101)
_DENIED = re.compile(
    r"\b(?:not|cannot be|isn't|wasn't|rather than|instead of)\s+(?:\w+\s+)?$", re.I
)
_ITEM = re.compile(r"[.)]\s+\S")
_JOINS = re.compile(r"\b(?:and|or|with|where|which|since|because|as)\b", re.I)
_BRACKETS = re.compile(r"\([^()\n]*\)")
_SENTENCE_END = re.compile(r"\n|[.;!?](?=\s|$)|,(?=\s)")


def _stated(reply: str) -> Numeral | None:
    text = spelled_out(before_next_question(without_thinking(reply)))
    marks = list(_MARKED.finditer(text))
    if marks:
        marked = _of_marks(text, marks)
        if marked is not None or marks[-1][0].lower().startswith(("\\", "<")):
            return marked
    text = _unboxed(text)
    return _Statements(text).last()


def _of_marks(text: str, marks: list[re.Match[str]]) -> Numeral | None:
    """The number of the mark that counts."""
    found: tuple[int, Numeral] | None = None
    for match in marks:
        content = next((part for part in match.groups() if part is not None), "")
        number = _result(content)
        if number is None:
            continue
        hashes = match["hashes"] is not None
        if found is None or not hashes or _CORRECTS.search(text, found[0], match.start()):
            found = match.end(), number
    return found and found[1]


def _result(text: str) -> Numeral | None:
    """The first number of a short text, behind its last equals sign if there is one."""
    text = _unboxed(text)
    behind = text.rfind("=")
    found = [each for each in numerals(text) if each.value is not None]
    return next((each for each in found if each.start > behind), found[0] if found else None)


def _unboxed(text: str) -> str:
    return _BOXED.sub(r" \1 ", text)


class _Statements:
    """Finds what a text without marks states."""

    def __init__(self, text: str):
        self._text = text
        self._first = len(text) - len(text.lstrip())
        brackets = [match.span() for match in _BRACKETS.finditer(text)]
        self._numbers = [
            each for each in numerals(text) if each.value is not None and not self._is_item(each)
        ]
        self._in_brackets = {
            each
            for each in self._numbers
            if any(start <= each.start < end for start, end in brackets)
        }

    def last(self) -> Numeral | None:
        """The number of the last statement; else the last that is the matter of a sentence."""
        stated = [each for each in self._numbers if self._is_stated(each)]
        if stated and not self._is_corrected(stated[-1]):
            return self._behind_equals(stated[-1])
        told = [each for each in self._numbers if self._is_matter(each)]
        return next(reversed(told or self._numbers), None)

    def _is_item(self, number: Numeral) -> bool:
        """Whether it numbers an item of a list."""
        line = self._text.rfind("\n", 0, number.start)
        starts = line > self._first and not self._text[line : number.start].strip()
        return starts and bool(_ITEM.match(self._text, number.end))

    def _is_stated(self, number: Numeral) -> bool:
        if number.start == self._first:
            line = self._text[number.end :].partition("\n")[0]
            if len(line.split()) <= 2 and not re.search(r"[=\d]", line):
                return True
        before = self._text[max(0, number.start - 100) : number.start]
        return _STATES.search(before) is not None

    def _is_corrected(self, number: Numeral) -> bool:
        correction = _CORRECTS.search(self._text, number.end)
        if correction is None:
            return False
        return any(each.start > correction.start() for each in self._numbers)

    def _behind_equals(self, number: Numeral) -> Numeral:
        """The number that the sentence goes on to equate it with."""
        end = _SENTENCE_END.search(self._text, number.end)
        stop = end.start() if end else len(self._text)
        behind = self._text.rfind("=", number.end, stop)
        if behind < 0 or _JOINS.search(self._text, number.end, behind):
            return number
        later = [each for each in self._numbers if behind < each.start < stop]
        return later[0] if later else number

    def _is_matter(self, number: Numeral) -> bool:
        before = self._text[max(0, number.start - 40) : number.start]
        aside = _CIRCUMSTANCE.search(before) or _DENIED.search(before)
        dates = number.value in _YEARS and _BEFORE_YEAR.search(before)
        return number not in self._in_brackets and not aside and not dates
