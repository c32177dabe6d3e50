"""Tasks from a user's own file.

Changes when a row may hold another field. Each row has `prompt` or `messages`, `target` (a string
or a list), optional `choices`, `id`, `group` and `split`, and a `reply` with its `score` if it was
rated already; other fields are kept as the sample's metadata, for function scorers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from corrsteer.errors import DataError
from corrsteer.json_text import excerpt
from corrsteer.samples import Sample
from corrsteer.scoring.base import Scorer
from corrsteer.scoring.rated import RATED
from corrsteer.scoring.rules import RULES
from corrsteer.tasks.base import Task, target_reply
from corrsteer.tasks.chats import read_messages
from corrsteer.tasks.fields import PlacedRow
from corrsteer.tasks.heeding import check_scorer_reads, tell_constant_groups
from corrsteer.tasks.rated import ReplyFields, rated_rows
from corrsteer.tasks.rows import read_rows
from corrsteer.tasks.splits import Splits, cut_groups
from corrsteer.tasks.targets import check_targets

Split = Literal["fit", "select", "test"]
SPLIT_NAMES: Mapping[str, Split] = {
    "fit": "fit",
    "train": "fit",
    "select": "select",
    "validation": "select",
    "val": "select",
    "dev": "select",
    "test": "test",
}

DEFAULT_MAX_NEW_TOKENS = 32
RATED_MAX_NEW_TOKENS = 256
"""The longest reply where replies came with the rows: as far as they are read."""
_FIELDS = {"prompt", "messages", "target", "choices", "id", "group", "split"}


def load(
    path: Path,
    scorer: Scorer | None,
    seed: int,
    max_new_tokens: int | None,
    fields: ReplyFields | None = None,
) -> Task:
    """The task that a file describes.

    Args:
        path: the file; texts in UTF-8.
        scorer: judges the replies; if None, `choice` where every row has choices, and `rated`
            where replies were rated already.
        seed: of the cut into 50 % fit, 20 % select and 30 % test, where rows name no split.
        max_new_tokens: longest reply; if None 32, or 256 where replies came with the rows.
        fields: which hold replies that were rated.

    Raises:
        DataError: the file cannot be read, or a line (named by its number) is malformed.
        SettingsError: a field is named that no row has a use for.
    """
    rows, replies = rated_rows(read_rows(path), fields or {})
    spare = _spare_ids(rows)
    samples = [_sample(row, where, own) for (where, row), own in zip(rows, spare, strict=True)]
    if replies is not None:
        samples = [replace(each, rated=r) for each, r in zip(samples, replies, strict=True)]
    _check_ids(samples, rows)
    scorer = scorer or _default_scorer(path, samples)
    longest = DEFAULT_MAX_NEW_TOKENS if replies is None else RATED_MAX_NEW_TOKENS
    places = (where for where, _ in rows)
    check_targets(zip(places, samples, strict=True), scorer)
    check_scorer_reads(scorer, samples)
    tell_constant_groups(str(path), samples)
    splits = _split(rows, samples, seed)
    return Task(
        name=str(path),
        fit=splits.fit,
        select=splits.select,
        test=splits.test,
        scorer=scorer,
        max_new_tokens=max_new_tokens or longest,
        description=f"{len(samples)} rows of {path.name}",
        reference=target_reply if _are_replies(samples, scorer) else None,
    )


def _sample(row: dict[str, Any], where: str, spare_id: str) -> Sample:
    if ("prompt" in row) == ("messages" in row):
        raise DataError(f"{where}: expected either `prompt` or `messages`")
    prompt = row.get("prompt", "")
    if "prompt" in row and (not isinstance(prompt, str) or not prompt):
        raise DataError(
            f"{where}: `prompt` is {excerpt(prompt)}; expected a text that is not empty"
        )
    choices = _texts(row["choices"], "choices", where) if "choices" in row else None
    if choices is not None and not 2 <= len(choices) <= 26:
        raise DataError(f"{where}: {len(choices)} choices; expected 2 to 26")
    return Sample(
        id=_name(row["id"], "id", where) if "id" in row else spare_id,
        prompt=prompt,
        target=_target(row.get("target"), choices, where),
        choices=choices,
        messages=read_messages(row["messages"], where) if "messages" in row else None,
        group=_name(row["group"], "group", where) if "group" in row else None,
        metadata={key: value for key, value in row.items() if key not in _FIELDS},
    )


def _name(value: Any, field: str, where: str) -> str:
    """A string or a whole number, as a string."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise DataError(f"{where}: `{field}` is {excerpt(value)}; expected a string or a number")
    return str(value)


def _spare_ids(rows: list[PlacedRow]) -> list[str]:
    """An id for each row, by its place, for those that have none: no row has it already."""
    given = {str(row["id"]) for _, row in rows if "id" in row}
    return [str(n) if str(n) not in given else f"row {n}" for n in range(len(rows))]


def _target(value: Any, choices: tuple[str, ...] | None, where: str) -> tuple[str, ...]:
    """The targets as strings; none of None."""
    if value is None:
        return ()
    for each in value if isinstance(value, list) else [value]:
        if choices and _is_also_an_index(each, choices):
            raise DataError(
                f"{where}: `target` {each} is the text of one choice and may be the index of "
                "another; write the right option's letter"
            )
    return _texts(value, "target", where)


def _is_also_an_index(value: Any, choices: tuple[str, ...]) -> bool:
    """Whether a number is the text of a choice, and the index from 0 of one with another text."""
    if isinstance(value, bool) or not isinstance(value, int) or str(value) not in choices:
        return False
    return 0 <= value < len(choices) and choices[value] != str(value)


def _texts(value: Any, field: str, where: str) -> tuple[str, ...]:
    """A string, a number, or a list of them, as strings."""
    values = value if isinstance(value, list) else [value]
    if not values or not all(map(_is_text_or_number, values)):
        raise DataError(f"{where}: `{field}` is {excerpt(value)}; expected a string or a list")
    return tuple(str(v) for v in values)


def _is_text_or_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int) and not isinstance(value, bool)


def _check_ids(samples: list[Sample], rows: list[PlacedRow]) -> None:
    seen: dict[str, str] = {}
    for (where, _), sample in zip(rows, samples, strict=True):
        if sample.id in seen:
            raise DataError(f"{where}: id {sample.id!r} was used before; ids must be unique")
        seen[sample.id] = where


def _default_scorer(path: Path, samples: list[Sample]) -> Scorer:
    if all(sample.choices for sample in samples):
        return RULES["choice"]
    if any(sample.rated and sample.rated.outcome is not None for sample in samples):
        return RATED
    raise DataError(
        f"{path}: which scorer? give --scorer {', '.join(RULES)}, regex:PATTERN "
        "or package.module:function"
    )


def _are_replies(samples: list[Sample], scorer: Scorer) -> bool:
    """Whether targets are replies, rather than `refuse` and `answer` or nothing at all."""
    return scorer.needs_target and all(sample.target for sample in samples)


def _split(rows: list[PlacedRow], samples: list[Sample], seed: int) -> Splits:
    named = [row.get("split") for _, row in rows]
    if all(name is None for name in named):
        return cut_groups(samples, seed)
    splits: dict[Split, list[Sample]] = {"fit": [], "select": [], "test": []}
    for (where, _), sample, name in zip(rows, samples, named, strict=True):
        if not isinstance(name, str) or name not in SPLIT_NAMES:
            raise DataError(
                f"{where}: `split` is {excerpt(name)}; expected fit, select or test "
                "on every line, or on none"
            )
        splits[SPLIT_NAMES[name]].append(sample)
    return Splits(*(tuple(part) for part in splits.values()))
