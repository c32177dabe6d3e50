"""Rows of what lm-evaluation-harness logs, by `--log_samples`.

Changes when the harness logs samples in another way.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from corrsteer.errors import DataError
from corrsteer.tasks.fields import PlacedRow

log = logging.getLogger(__name__)

OWN = {"doc_id", "doc", "arguments", "resps"}
"""Fields that every logged sample has, and hardly any other row."""


def lm_eval_rows(rows: Sequence[PlacedRow]) -> list[PlacedRow]:
    """The rows as they are; of a log of the harness, prompts with the replies that it scored.

    A sample stands there once for each of a task's filters, of which the first is taken. The reply
    of a multiple-choice sample is the likeliest option.

    Raises:
        DataError: a logged sample has no prompt, reply or metric that can be read.
    """
    if not all(row.keys() >= OWN for _, row in rows):
        return list(rows)
    first = rows[0][1].get("filter")
    taken = [(where, row) for where, row in rows if row.get("filter") == first]
    metrics = _metrics(taken[0][1])
    if not metrics:
        raise DataError(
            f"{taken[0][0]}: the sample has no metric; evaluate a task that has metrics, with "
            "--log_samples"
        )
    named = f", of filter {first}" if len(taken) < len(rows) else ""
    log.info(
        "a log of lm-evaluation-harness: the score is its metric %s%s; --score-field takes another",
        *(metrics[0], named),
    )
    return [(where, _row(row, metrics[0], where)) for where, row in taken]


def _metrics(row: dict[str, Any]) -> list[str]:
    """Names of a sample's metrics that are numbers."""
    given = row.get("metrics")
    names = given if isinstance(given, list) else [n for n in ("exact_match", "acc") if n in row]
    return [name for name in names if isinstance(row.get(name), int | float)]


def _row(row: dict[str, Any], metric: str, where: str) -> dict[str, Any]:
    requests = row["arguments"]
    if isinstance(requests, dict):
        requests = [list(each.values()) for each in requests.values() if isinstance(each, dict)]
    try:
        reply = row["resps"][0][0]
        chosen = 0
        if not isinstance(reply, str):  # log-probabilities of options
            scores = [float(each[0][0]) for each in row["resps"]]
            chosen = scores.index(max(scores))
            reply = requests[chosen][1]
        prompt = requests[chosen][0]
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: no prompt and reply in `arguments` and `resps`; expected a sample that "
            "lm-evaluation-harness logged of a task of texts"
        ) from error
    others = {name: row[name] for name in _metrics(row)}
    kept = {"prompt": prompt, "reply": reply, "score": row.get(metric), "id": row["doc_id"]}
    if isinstance(row["resps"][0][0], str) and isinstance(row.get("target"), str | list):
        kept |= {"target": row["target"]} if row["target"] else {}  # of options it is an index
    return {**others, **kept}
