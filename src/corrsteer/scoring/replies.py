"""The part of a reply that answers: what scorers read.

Changes when models mark their thoughts in another way, or go on to questions of their own in
another.
"""

from __future__ import annotations

import re

_NAMES = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis)"
_MARKS = [
    (rf"<\|?{_NAMES}\|?>", rf"<\|?/\|?{_NAMES}\|?>"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),
    (r"\[THINK\]", r"\[/THINK\]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    (r"<unused94>(?:thought)?", r"<unused95>"),
    (r"<\|channel\|>(?:analysis|commentary)", r"<\|channel\|>final(?:<\|message\|>)?"),
    (r"\Aanalysis(?=[A-Z])", r"assistantfinal"),  # the same where special tokens were left out
]
"""What opens and what closes a thought: of most models and their fine-tuned kin; Open Thoughts;
Command A; Magistral; Kimi; MedGemma; gpt-oss."""
_THOUGHTS = [
    (re.compile(start, re.IGNORECASE), re.compile(end, re.IGNORECASE)) for start, end in _MARKS
]
_MARKUP = re.compile(r"<\|(?:begin|end)_of_solution\|>|<\|(?:START|END)_RESPONSE\|>|<\|message\|>")


def without_thinking(reply: str) -> str:
    """The reply after the model's marked thoughts.

    Everything up to the last mark that closes a thought is dropped, also where the prompt opened
    it. A thought that was not closed within the reply leaves nothing behind its opening.
    """
    for start, end in _THOUGHTS:
        closings = list(end.finditer(reply))
        if closings:
            reply = reply[closings[-1].end() :]
        opening = start.search(reply)
        if opening:
            reply = reply[: opening.start()]
    return _MARKUP.sub("", reply)


_NEXT = re.compile(
    r"\n[ \t#*>]*(?:(?:next\s+)?(?:question|problem|exercise|q)\s*\d{0,4}\s*[*]*[:.)]"
    r"|(?:human|user|student|instructions?)\s*[*]*:|the following (?:is|are) |choose (?:one|the) "
    r"|<\|im_start\|>|<start_of_turn>|<\|start_header_id\|>|\[INST\])",
    re.IGNORECASE,
)
_OWN_ANSWER = re.compile(r"\n[ *]*(?:answer|a)[ *]*:", re.IGNORECASE)
_OWN_OPTIONS = re.compile(r"\n *\(?A[.):]\s[^\n]*\n+ *\(?B[.):]\s")


def before_next_question(text: str) -> str:
    """The text before a line that poses a question of its own, as base models go on.

    Such a line starts with `Question:`, `Q2.`, `Problem 3:`, `User:`, `The following are`, `Choose
    one`, or a mark of a chat's next turn. A text that starts so is left whole.
    """
    found = _NEXT.search(text)
    return text[: found.start()] if found and text[: found.start()].strip() else text


def before_own_question(text: str) -> str:
    """The text of a reply that opens with its answer, before a question that no word announces.

    That is before lettered options, or before a line that ends in a question mark where a line
    `Answer:` or `A:` follows.
    """
    options = _OWN_OPTIONS.search(text)
    if options:
        text = text[: options.start()]
    question = re.search(r"\n[^\n]*\? *\n", text)
    if question and _OWN_ANSWER.search(text, question.end() - 1):
        text = text[: question.start()]
    return text
