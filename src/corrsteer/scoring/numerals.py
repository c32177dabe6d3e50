r"""The numbers that are written in a text: in digits, in LaTeX, in English words.

Changes when there is another way of writing numbers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from corrsteer.scoring.texts import plain

MOST_DIGITS = 300
"""A number of more digits is none: nobody means it, and it would take long to compare."""


@dataclass(frozen=True)
class Numeral:
    """What is written like a number, where it stands in a text.

    Attributes:
        value: the number; None for what is none: a time, a date, a ratio, a root, a multiple of pi.
        start, end: its place.
        percent: whether the value is in percent.
    """

    value: Fraction | None
    start: int
    end: int
    percent: bool = False

    def equals(self, other: Numeral) -> bool:
        """Whether both are one number; 25 % is 25 as well as 0.25."""
        if self.value is None or other.value is None:
            return False
        if self.percent == other.percent:
            return self.value == other.value
        share, number = (self.value, other.value) if self.percent else (other.value, self.value)
        return number in (share, share / 100)


def written(value: Fraction) -> str:
    """The number in decimal digits; as a fraction where those do not end."""
    digits = next((n for n in range(MOST_DIGITS) if 10**n % value.denominator == 0), None)
    if digits is None:
        return str(value)
    scaled = str(abs(value.numerator) * 10**digits // value.denominator).rjust(digits + 1, "0")
    whole, decimals = scaled[: len(scaled) - digits], scaled[len(scaled) - digits :]
    return f"{'-' if value < 0 else ''}{whole}{'.' if decimals else ''}{decimals}"


def spelled_out(text: str) -> str:
    r"""The text with each number in one way of writing, for `numerals`.

    `\frac{1}{2}` and its kin become `1/2`, powers are written with `^`, digits of all scripts are 0
    to 9. Currency signs, marks of emphasis and of LaTeX's spacing are dropped.
    """
    text = _VULGAR.sub(lambda found: f" {unicodedata.normalize('NFKC', found[0])} ", text)
    text = _RAISED.sub(lambda found: f"^{unicodedata.normalize('NFKC', found[0])}", text)
    text = plain(text).replace("\u2044", "/")
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    for _ in range(2):  # they nest
        text = _LATEX_TEXT.sub(r" \1 ", text)
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    return text


_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_RAISED = re.compile("[\u207b]?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")
_LATEX_TEXT = re.compile(r"\\(?:text\w{0,2}|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}")
_CURRENCY = "[$\u20ac\u00a3\u00a5\u20b9]"
_REWRITTEN = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\{,\}", ","),
        (r"\\([%$])", r"\1"),
        (r"\\!|\\left|\\right|[*_]{2}|`", ""),
        (r"\\[,;: ]|~", " "),
        (r"\\(?:times|cdot)(?![a-z])", "\u00d7"),
        (r"\^\{?\\circ\}?", "\u00b0"),
        (r"\\[dtc]?frac\s*(?:\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d))", r" \1\3/\2\4 "),
        (r"(?<=[\s(\[{=\u2212-])-\s+(?=\d+/\d)|^-\s+(?=\d+/\d)", "-"),
        (r"(\d) {2,}(?=\d+/\d)", r"\1 "),
        (r"\^[{(](-?\d+)[})]", r"^\1"),
        (rf"(?<=-)\s?{_CURRENCY}\s?", ""),
        (_CURRENCY, " "),
    )
]

_SCALES = {
    **{"hundred": 100, "thousand": 10**3, "k": 10**3, "million": 10**6, "M": 10**6},
    **{"billion": 10**9, "bn": 10**9, "trillion": 10**12, "dozen": 12},
}
_NOT_A_NUMBER = r"""
    \d+:\d+(?::\d+)?                                  # a time, a ratio
    | \d{4}-\d\d?-\d\d?(?!\d) | \d+/\d+/\d+           # a date
    | \d*\s?(?:\\sqrt\s*(?:\[\d+\])?\{[^{}]*\}|\u221a\s?\d+)
    | [\d.]+\s?(?:\\pi|\u03c0|pi\b)
"""
_DIGITS = r"""
    \d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?                # 1,234.5
    | \d{1,2}(?:,\d\d)+,\d{3}(?!\d)(?:\.\d+)?         # 12,34,567 as in India
    | \d{1,3}(?:\.\d{3})+,\d+                         # 1.234,5
    | \d{1,3}(?:\.\d{3}){2,}(?!\d)                    # 1.234.567
    | \d{1,3}(?:[ ']\d{3})+(?![\d/])(?:[.,]\d+)?      # 1 234,5
    | 0,\d+ | \d+,(?:\d\d?|\d{4,})(?![\d,])           # 3,14
    | \d+(?:\.\d+)? | \.\d+
"""
_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_CARDINALS = {word: number for number, word in enumerate(_SMALL)}
_CARDINALS |= {word: 10 * tens for tens, word in enumerate(_TENS, start=2)}
_PARTS = {
    **{"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6},
    **{"seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10},
}
_LARGE = [word for word in _SCALES if len(word) > 2]
_CARDINAL = f"(?:{'|'.join([*_CARDINALS, *_LARGE])})"
_WORDS = rf"(?:an?\s+(?={'|'.join(_LARGE)}))?{_CARDINAL}(?:(?:[\s-]|\sand\s)+{_CARDINAL})*"
_PART = f"(?:{'|'.join(_PARTS)})s?"
_PATTERN = re.compile(
    rf"""
    (?P<none>(?<![\w^.]) (?:{_NOT_A_NUMBER}))
    | (?<![A-Za-z^_\d]) (?<!\d[.,]) (?<![A-Za-z]-)
      (?:(?P<minus>(?<![\w)\]%])-|\b(?:[Mm]inus|[Nn]egative)\s+))?
      (?P<digits>{_DIGITS})
      (?: (?P<mixed>\s\d+/\d+)(?![\d/]) | \s?/\s?(?P<below>\d+(?:\.\d+)?)(?![\d/])
        | [eE](?P<exponent>[-+]?\d+)(?!\w) | \s?[x\u00d7*\u00b7]\s?10\^(?P<power>-?\d+)
        | \^(?P<raised>-?\d+) )?
      (?:\s?(?P<scale>{"|".join(_SCALES)})(?![\w'/]))?
    | (?<![\w-]) (?P<word_minus>(?:[Mm]inus|[Nn]egative)\s+)?
      (?: (?i:(?P<words>{_WORDS}) (?:\sand\sa\s(?P<and_half>half)|[\s-](?P<part>{_PART}))?)
        | (?i:an?\s)?(?P<one_part>(?i:half|quarter)) ) (?!\w|-\w)
    """,
    re.VERBOSE,
)
_PERCENT = re.compile(r"\s?(?:%|per\s?cent\b|Prozent\b)", re.I)
_STANDS_ALONE = re.compile(r"(?:^|\b(?:is|are)|[=:(])\W*$", re.I)
_ENDS = re.compile(r"\W*(?:$|[.,;:!\n)])")


def numerals(text: str) -> Iterator[Numeral]:
    """What is written like a number in a text that `spelled_out` gave, in order.

    A hyphen counts as a minus unless it stands between digits or letters (`3-5` is 3 and 5).
    `1,234` is a thousand and more, `1.234` is one and a bit, `1,5` is one and a half. `one` and
    `half` are numbers only where they stand alone, as in `the answer is one.`
    """
    for match in _PATTERN.finditer(text):
        start, end = match.span()
        if match["none"]:
            yield Numeral(None, start, end)
            continue
        value = _in_digits(match) if match["digits"] else _in_words(match)
        if value is None or _is_pronoun(match, text):
            continue
        percent = _PERCENT.match(text, end)
        yield Numeral(value, start, percent.end() if percent else end, percent is not None)


def _is_pronoun(match: re.Match[str], text: str) -> bool:
    alone = (match["words"] or "").lower() == "one" and not match["part"] and not match["and_half"]
    if not alone and not match["one_part"]:
        return False
    before, after = text[: match.start()], text[match.end() :]
    return not (_STANDS_ALONE.search(before[-20:]) and _ENDS.match(after))


def _in_digits(match: re.Match[str]) -> Fraction | None:
    """The number that a match writes in digits; None if it has too many, or none can be."""
    powers = [int(match[name] or 0) for name in ("exponent", "power", "raised")]
    if sum(map(len, filter(None, match.groups()))) > MOST_DIGITS:
        return None
    if max(map(abs, powers)) > MOST_DIGITS:
        return None
    value = Fraction(_with_point(match["digits"]))
    if match["mixed"]:
        part = match["mixed"].strip().split("/")
        value += Fraction(int(part[0]), int(part[1])) if int(part[1]) else 0
    elif match["below"]:
        below = Fraction(match["below"])
        if not below:
            return None
        value /= below
    elif match["raised"]:
        if (not value and powers[2] < 0) or len(match["digits"]) * abs(powers[2]) > MOST_DIGITS:
            return None
        value **= powers[2]
    value *= Fraction(10) ** (powers[0] + powers[1]) * _SCALES.get(match["scale"] or "", 1)
    return -value if match["minus"] else value


def _with_point(digits: str) -> str:
    """The digits without marks of thousands, and with a decimal point."""
    digits = digits.replace(" ", "").replace("'", "")
    if "," in digits and "." in digits:
        thousands = "," if digits.rindex(",") < digits.rindex(".") else "."
        return digits.replace(thousands, "").replace(",", ".")
    if digits.count(".") > 1:
        return digits.replace(".", "")
    whole, comma, rest = digits.rpartition(",")
    is_decimal = comma and "," not in whole and (len(rest) != 3 or whole.strip("0") == "")
    return f"{whole}.{rest}" if is_decimal else digits.replace(",", "")


def _in_words(match: re.Match[str]) -> Fraction | None:
    """The number that a match writes in words; None where they make none."""
    if match["one_part"]:
        value = Fraction(1, _PARTS[match["one_part"].lower()])
        return -value if match["word_minus"] else value
    total, group = 0, 0
    previous: int | None = None
    for word in re.findall(r"[a-z]+", match["words"].lower()):
        if word in _CARDINALS:
            number = _CARDINALS[word]
            if previous is not None and not previous > max(number, 9):
                return None
            group, previous = group + number, number
        elif word in _LARGE:
            scale = _SCALES[word]
            group, previous = max(group, 1) * scale, scale
            if scale >= 1000:
                total, group = total + group, 0
    value = Fraction(total + group)
    if match["and_half"]:
        value += Fraction(1, 2)
    elif match["part"]:
        part = match["part"].lower()
        value /= _PARTS[part if part in _PARTS else part.removesuffix("s")]
    return -value if match["word_minus"] else value
