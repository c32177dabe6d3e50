"""Rows with replies that were rated already, whatever their fields are called.

Changes when other tools write replies and scores in other fields. Rows become ones with `prompt` or
`messages`, `reply` and `score`; nothing is guessed where two fields may be meant.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from corrsteer.errors import DataError, SettingsError
from corrsteer.json_text import excerpt
from corrsteer.samples import RatedReply
from corrsteer.tasks.base import Task
from corrsteer.tasks.fields import PlacedRow
from corrsteer.tasks.marks import outcomes_of
from corrsteer.tasks.rows import is_task_file

log = logging.getLogger(__name__)

REPLY, SCORE = "reply", "score"
REPLIES = ("completion", "response", "output", "answer", "generation", "model_output")
SCORES = ("rating", "label", "reward", "feedback", "mark", "grade", "thumbs", "outcome")
PROMPTS = ("instruction", "question", "query", "input", "conversation")
"""What other tools call these fields."""
NO_REPLIES = "none"
"""Given as the reply's field: replies in the rows are left aside."""


class ReplyFields(TypedDict, total=False):
    """Where rows hold replies that were rated, and what is good.

    Attributes:
        reply_field: name of the field with the reply; `none` to leave replies aside.
        score_field: name of the field with its score.
        good_above: scores above it are good, others bad.
    """

    reply_field: str | None
    score_field: str | None
    good_above: float | None


@dataclass(frozen=True)
class Names:
    """The fields that hold a reply and its score; `score` is None where only replies are given."""

    reply: str | None
    score: str | None


def rated_rows(
    rows: Sequence[PlacedRow], fields: ReplyFields
) -> tuple[list[PlacedRow], list[RatedReply] | None]:
    """Rows of prompts, and the rated reply that came with each; None where none did.

    Raises:
        DataError: replies or scores are missing, or may be in several fields.
        SettingsError: a field or threshold is named for rows that hold no reply.
    """
    if fields.get("reply_field") == NO_REPLIES:
        return list(rows), None
    if all(row.keys() >= {"chosen", "rejected"} for _, row in rows):
        pairs = [pair for where, row in rows for pair in _pair(row, where)]
        return _taken(pairs, Names(REPLY, SCORE), fields)
    names = _names(rows, fields)
    if names is None:
        asked = [name for name, value in fields.items() if value is not None]
        if asked:
            raise SettingsError(
                f"--{_option(asked[0])} is for rows with a reply and a score, which {_file(rows)} "
                "has not"
            )
        return list(rows), None
    return _taken(rows, names, fields)


def check_rated(task: Task, fields: ReplyFields) -> None:
    """Refuse a task whose replies should have been rated and were not.

    Raises:
        DataError: its scorer is `rated`, and its samples have no such replies.
        SettingsError: a field is named, and the task is no file.
    """
    asked = [name for name, value in fields.items() if value is not None]
    if asked and not is_task_file(task.name):
        raise SettingsError(f"--{_option(asked[0])} is for files of rows; {task.name} is none")
    if not task.generates and not any(each.rated for each in task.fit):
        raise DataError(
            f"{task.name} has no replies that were rated; --scorer rated is for rows with `reply` "
            "and `score`"
        )


def _taken(
    rows: Sequence[PlacedRow], names: Names, fields: ReplyFields
) -> tuple[list[PlacedRow], list[RatedReply]]:
    opened = [(where, *_opened(row, names, where)) for where, row in rows]
    marked = outcomes_of(
        [(where, row.get(names.score or "")) for where, row, _ in opened],
        fields.get("good_above"),
        names.score or SCORE,
    )
    replies = [
        RatedReply(reply, outcome)
        for (_, _, reply), outcome in zip(opened, marked.outcomes, strict=True)
    ]
    _tell(_file(rows), names, replies, marked.scale)
    own = {names.reply, names.score}
    bare = [(at, {k: v for k, v in row.items() if k not in own}) for at, row, _ in opened]
    return bare, replies


def _tell(path: str, names: Names, replies: Sequence[RatedReply], scale: str) -> None:
    held = f"`{names.reply}`" if names.reply else "the last message"
    if names.score is None:
        log.info("%s: %d replies came with the rows, in %s", path, len(replies), held)
        return
    unrated = sum(each.outcome is None for each in replies)
    left = f"; {unrated} have no score and are left out" if unrated else ""
    log.info(
        "%s: %d replies, in %s, were rated already, in `%s`: %s%s; --reply-field none leaves them "
        "aside",
        *(path, len(replies), held, names.score, scale, left),
    )


def _names(rows: Sequence[PlacedRow], fields: ReplyFields) -> Names | None:
    """The fields that hold replies and scores; None where there are none to be read."""
    present = {name for _, row in rows for name in row}
    reply_asked, score_asked = fields.get("reply_field"), fields.get("score_field")
    for asked in (reply_asked, score_asked):
        if asked is not None and asked not in present:
            raise DataError(f"{_file(rows)}: no row has `{asked}`; its fields are {_list(present)}")
    other = not present.isdisjoint({"target", "choices"})
    reply = reply_asked or _one_of(REPLY, REPLIES, rows, "reply")
    if reply is None and _ends_in_reply(rows):
        reply = "messages"
    asks = reply_asked or fields.get("good_above") is not None or score_asked
    if reply is None:
        if SCORE in present and not asks:
            log.warning(
                "%s: rows have `score` and no `reply`, so nobody knows what was scored: replies "
                "are made and scored anew; give the replies that were scored as `reply`",
                _file(rows),
            )
        return None
    score = score_asked or _one_of(SCORE, SCORES, rows, "score")
    named = {reply, score} <= {REPLY, SCORE, "messages"}
    if score is None:
        return _unscored(reply, reply_asked)
    if other and not named and not asks:
        log.info(
            "%s: `%s` and `%s` are left aside, as rows have a target too; if they are a reply "
            "and its score, give --reply-field %s --score-field %s",
            *(_file(rows), reply, score, reply, score),
        )
        return None
    return Names(None if reply == "messages" else reply, score)


def _unscored(reply: str, asked: str | None) -> Names | None:
    """Replies without scores are read where they are asked for alone: a scorer judges them."""
    return Names(reply, None) if asked is not None else None


def _one_of(own: str, others: Sequence[str], rows: Sequence[PlacedRow], what: str) -> str | None:
    """Our own name where a row has it, else the only one of other tools' names.

    Raises:
        DataError: there are several, and no target that says what rows are for.
    """
    present = {name for _, row in rows for name in row}
    found = [name for name in (own, *others) if name in present]
    if own in found or len(found) < 2:
        return found[0] if found else None
    scored = what == "score" or not present.isdisjoint({SCORE, *SCORES})
    if scored and present.isdisjoint({"target", "choices"}):
        raise DataError(
            f"{_file(rows)}: which of {_list(found)} is the {what}? give --{what}-field {found[0]}"
        )
    return None


def _ends_in_reply(rows: Sequence[PlacedRow]) -> bool:
    """Whether every row is a chat whose last turn is the assistant's."""
    return all(_role(row.get("messages")) == "assistant" for _, row in rows)


def _role(messages: Any) -> Any:
    last = messages[-1] if isinstance(messages, list) and messages else None
    return last.get("role") if isinstance(last, dict) else None


def _opened(row: dict[str, Any], names: Names, where: str) -> tuple[dict[str, Any], str]:
    """The row with its prompt as `prompt` or `messages`, and its reply."""
    row = _prompted(row)
    given: Any = row.get(names.reply) if names.reply else row["messages"][-1]
    if given is None:
        raise DataError(f"{where}: no `{names.reply}`, which other rows have; add it")
    if not names.reply:
        row = {**row, "messages": row["messages"][:-1]}
    return row, _reply(given, where)


def _prompted(row: dict[str, Any]) -> dict[str, Any]:
    if "prompt" not in row and "messages" not in row:
        found = [name for name in PROMPTS if name in row]
        if len(found) == 1:
            row = {("prompt" if k == found[0] else k): v for k, v in row.items()}
    if isinstance(row.get("prompt"), list):
        row = {("messages" if name == "prompt" else name): value for name, value in row.items()}
    return row


def _reply(given: Any, where: str) -> str:
    """A reply as text; a chat of one turn is its content."""
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    if isinstance(given, dict) and given.get("role") == "assistant" and not given.get("tool_calls"):
        given = given.get("content")
    if not isinstance(given, str):
        raise DataError(f"{where}: the reply is {excerpt(given)}; expected a text")
    return given


def _pair(row: dict[str, Any], where: str) -> list[PlacedRow]:
    """A preference as two rows of one prompt: what was chosen is good, what was rejected is not."""
    others = {k: v for k, v in _prompted(row).items() if k not in ("chosen", "rejected")}
    chosen, rejected = row["chosen"], row["rejected"]
    if "prompt" not in others and "messages" not in others:
        if not (_role(chosen) == _role(rejected) == "assistant" and chosen[:-1] == rejected[:-1]):
            raise DataError(
                f"{where}: `chosen` and `rejected` without the prompt that both reply to; give it "
                "as `prompt`"
            )
        others["messages"], chosen, rejected = chosen[:-1], chosen[-1:], rejected[-1:]
    found = []
    for name, given in (("chosen", chosen), ("rejected", rejected)):
        own = {**others, REPLY: _reply(given, where), SCORE: name == "chosen"}
        if "id" in row:
            own["id"] = f"{row['id']} {name}"
        found.append((where, own))
    return found


def _option(field: str) -> str:
    return field.replace("_", "-")


def _file(rows: Sequence[PlacedRow]) -> str:
    return rows[0][0].rpartition(", ")[0]


def _list(names: Any) -> str:
    return ", ".join(sorted(names))
