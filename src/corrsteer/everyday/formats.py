"""Whether a reply has the form that was asked for.

Changes when there is another form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

from corrsteer.samples import Sample


def _is_word(reply: str) -> bool:
    return re.fullmatch(r"[A-Za-z][\w'-]*[.!]?", reply) is not None


def _is_json(reply: str) -> bool:
    try:
        return isinstance(json.loads(reply), dict)
    except (ValueError, RecursionError):
        return False


def _is_list(reply: str) -> bool:
    items = [item.strip() for item in reply.rstrip(".").split(",")]
    return len(items) == 3 and all(0 < len(item.split()) <= 3 for item in items)


def _is_question(reply: str) -> bool:
    return reply.endswith("?") and not re.search(r"[.!?:]\s", reply)


FORMS: Final[dict[str, Callable[[str], bool]]] = {
    "word": _is_word,
    "json": _is_json,
    "list": _is_list,
    "question": _is_question,
}
"""Form -> whether a stripped reply has it: one word; one JSON object; three items of at most three
words, with commas between; one question, with nothing before it."""


def follows(reply: str, sample: Sample) -> float:
    """1 if the reply has the form that the sample's target names, and nothing beside it."""
    return float(FORMS[sample.target[0]](reply.strip()))
