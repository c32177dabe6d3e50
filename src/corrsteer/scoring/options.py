"""The scorer `choice`: which of the lettered options a reply names.

Changes when there is another way of naming one.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

from corrsteer.errors import ScorerError
from corrsteer.samples import Sample
from corrsteer.scoring.base import Score, unread
from corrsteer.scoring.replies import before_next_question, before_own_question, without_thinking
from corrsteer.scoring.statements import CONTEXT, Mention, is_english
from corrsteer.scoring.texts import plain


def choice(reply: str, sample: Sample) -> Score:
    """1 iff the option that the reply names is the target, given as a letter or as its text."""
    letters = target_letters(sample)
    answer = read_option(reply, sample.choices)
    if answer is None:
        return unread("no option in the reply, or several")
    return Score(float(answer in letters), answer)


def read_option(reply: str, choices: tuple[str, ...] | None) -> str | None:
    r"""The letter of the option that a reply names; None if there is none, or several at once.

    The last statement counts: `The answer is B ... so actually C` names C. Statements are, the
    first kind that there is:

    1. A marked answer: `\boxed{B}`, `<answer>B</answer>`, `#### B`, `Final answer: B`.
    2. A letter or option's text that opens the reply (` B`, `(b)`, `B. red`, `Red, of course`),
       `the answer is B`, `Answer: B`, `B is correct`, `I'd choose B`, `so it is B`, a last line
       that is a letter.
    3. In passing: an option's text after a verb (`it was built in 1871`), a letter that ends a
       sentence or stands in brackets.
    4. An option's text that ends a clause, if the reply holds those of no others.

    A letter may be lower-case; `a` and `i` in front of a word are English. What is negated or
    supposed is no statement. Marked thoughts are dropped, and so is what a base model goes on
    with: all from the announcement of another question, and, where the first line is nothing but
    an answer, from new options or from a question with a line `Answer:`. So ` B`, a question and
    `Answer: C` name B; `B`, `Wait` and `the correct answer is D` name D.
    """
    letters = string.ascii_uppercase[: len(choices) if choices else 26]
    options = _Options(letters, choices or ())
    text = _unmarked(before_next_question(without_thinking(reply)))
    if options.named_by(text.split("\n", 1)[0]):
        text = before_own_question(text)
    mentions = list(options.mentions(text))
    for found in (
        options.marked(text, mentions),
        [mention.named for mention in mentions if mention.is_stated],
        [mention.named for mention in mentions if mention.is_said],
    ):
        if found:
            return found[-1]
    texts = {mention.letter for mention in mentions if mention.is_text}
    aside = any(mention.is_aside for mention in mentions)
    return texts.pop() if len(texts) == 1 and not aside else None


def target_letters(sample: Sample) -> frozenset[str]:
    """The right options' letters, each given in the row as its letter or as its text.

    A letter counts first, since options' texts may be letters too, as blood groups. Case, white
    space around it, and brackets make no difference where only one option is left.

    Raises:
        ScorerError: a target is neither, or is the text of several.
    """
    choices = sample.choices or ()
    letters = string.ascii_uppercase[: len(choices) or 26]
    found = set()
    for target in sample.target:
        name = target.strip()
        letter = re.sub(r"^\((.)\)$|^(.)[.)]$", r"\1\2", name)
        owners = _owners(name, choices)
        if len(name) == 1 and name in letters:
            found.add(name)
        elif len(owners) == 1:
            found.add(letters[owners[0]])
        elif not owners and len(letter) == 1 and letter.upper() in letters:
            found.add(letter.upper())
        else:
            problem = (
                "is the text of several choices"
                if owners
                else (f"is neither a letter of {letters[0]}-{letters[-1]} nor one of the choices")
            )
            raise ScorerError(
                f"sample {sample.id!r}: target {target[:80]!r} {problem}; write the right "
                "option's letter"
            )
    return frozenset(found)


def _owners(text: str, choices: tuple[str, ...]) -> list[int]:
    """The options of that text; where there are none, of that text in another case."""
    for same in (str.strip, lambda each: plain(each).strip().casefold()):
        owners = [index for index, each in enumerate(choices) if same(each) == same(text)]
        if owners:
            return owners
    return []


_LATEX = re.compile(
    r"\\(?:text|textbf|textit|textsf|texttt|mathrm|mathbf|mathsf|mbox)\s*\{([^{}]*)\}"
)
_EMPHASIS = re.compile(r"[*`$]|\\[()\[\] ,;!]|(?<!\w)_+|_+(?!\w)")
_MARKED = re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]*)\}|<answer>([^<]*)|####([^\n]*)", re.I)

_LEAD = re.compile(r"[-\s>#]*(?:(?:option|choice|letter)\s+)?", re.I)
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.I)
_WORD = r"[^\W\u3040-\u9fff\uac00-\ud7a3]"
"""A character of a word, in scripts that put spaces between words."""


def _unmarked(text: str) -> str:
    """The text without Markdown's and LaTeX's marks of emphasis, its characters normalised."""
    for _ in range(2):  # they nest
        text = _LATEX.sub(r"\1", text)
    return _EMPHASIS.sub("", plain(text)).strip()


class _Options:
    """Finds what names one of some options."""

    def __init__(self, letters: str, choices: tuple[str, ...]):
        self._letters = letters
        self._owners: dict[str, set[str]] = {}
        for letter, option in zip(letters, choices, strict=False):
            text = _unmarked(option)
            for variant in (text, _ARTICLE.sub("", text), text.rstrip(".")):
                if len(variant) > 1 or variant.upper() not in letters:
                    self._owners.setdefault(variant.casefold(), set()).add(letter)
        self._owners.pop("", None)
        longest = sorted(self._owners, key=len, reverse=True)
        texts = "|".join(map(re.escape, longest)) or r"(?!)"
        self._pattern = re.compile(
            rf"(?<!{_WORD})(?<!['\\-])(?:[(\[\"'<{{]\s?){{0,4}}"
            rf"(?:(?P<text>{texts})(?!{_WORD}|[.,]\d)|(?P<letter>[A-Za-z])(?!{_WORD}|['-]|\.\w))"
            r"[)\]\"'>}]{0,4}",
            re.I,
        )

    def mentions(self, text: str) -> Iterator[Mention]:
        """The places that name an option, in order."""
        for match in self._pattern.finditer(text):
            before = text[max(0, match.start() - CONTEXT) : match.start()]
            after = text[match.end() : match.end() + CONTEXT]
            letter = self._letter(match, before, after)
            if letter is None:
                continue
            above, _, lead = text[: match.start()].rpartition("\n")
            tail, _, below = text[match.end() :].partition("\n")
            tail = tail.strip(" .:,)-!").casefold()
            leads = _LEAD.fullmatch(lead) is not None
            yield Mention(
                letter=letter,
                place=match.start(),
                is_text=match["text"] is not None,
                in_brackets=match[0].startswith("("),
                before=before,
                after=after,
                opens=leads and not above.strip(),
                fills_line=leads and (not tail or letter in self._owners.get(tail, ())),
                is_last=not below.strip(),
                is_item=_is_item(letter, lead + match[0] + after, above, below),
            )

    def named_by(self, line: str) -> str | None:
        """The option that a short text names and does nothing else."""
        mention = next(self.mentions(line), None)
        return mention.named if mention and mention.opens and mention.fills_line else None

    def marked(self, text: str, mentions: list[Mention]) -> list[str | None]:
        """What is named by the marks of a final answer, in order."""
        found = [(each.place, each.named) for each in mentions if each.is_final]
        for match in _MARKED.finditer(text):
            mention = next(self.mentions((match[1] or match[2] or match[3] or "").strip()), None)
            if mention and mention.opens:
                found.append((match.start(), mention.named))
        return [letter for _, letter in sorted(found, key=lambda each: each[0])]

    def _letter(self, match: re.Match[str], before: str, after: str) -> str | None:
        """The option that a match names, None if it is none."""
        if match["text"]:
            owners = self._owners.get(match["text"].casefold(), set())
            enumerates = match["text"].isdigit() and re.match(r"[.)]\s+\w", after)
            return None if len(owners) != 1 or enumerates else next(iter(owners))
        letter: str = match["letter"]
        if letter.upper() not in self._letters or is_english(letter, before, after):
            return None
        return letter.upper()


def _is_item(letter: str, line: str, above: str, below: str) -> bool:
    """Whether a line starts with a letter, and one beside it with the letter beside."""
    if not _item(letter).match(line):
        return False
    previous, following = chr(ord(letter) - 1), chr(ord(letter) + 1)
    last_above = above.rstrip().rpartition("\n")[2]
    return bool(_item(previous).match(last_above) or _item(following).match(below.lstrip()))


def _item(letter: str) -> re.Pattern[str]:
    """How an item of a list with letters starts."""
    return re.compile(rf"[-\s]*(?:option\s+)?[(\[]?{re.escape(letter)}(?:[.):\]]|\s-)", re.I)
