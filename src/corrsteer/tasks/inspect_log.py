"""Rows of an Inspect log, read by Inspect itself.

Changes when a log tells of samples in another way.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from corrsteer.errors import DataError
from corrsteer.tasks.fields import PlacedRow

log = logging.getLogger(__name__)

MARKS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""Inspect's letters: correct, partly so, incorrect, no answer."""


def inspect_rows(path: Path) -> list[PlacedRow]:
    """Chats with the replies that were scored, one a sample and epoch.

    Raises:
        DataError: inspect_ai is not there, or cannot read the log; no sample was scored.
    """
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        raise DataError(
            f"{path} is a log of Inspect, which inspect_ai reads; pip install 'corrsteer[inspect]'"
        ) from error
    try:
        samples = read_eval_log(str(path)).samples or []
    except Exception as error:  # pydantic's, zipfile's and its own
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(f"cannot read {path}: {reason}; is it a log of Inspect?") from error
    scorers = list(dict.fromkeys(name for each in samples for name in each.scores or {}))
    if not scorers:
        raise DataError(f"{path}: no sample was scored; score it by `inspect score {path.name}`")
    log.info("a log of Inspect: the score is that of its scorer %s", scorers[0])
    return [
        (f"{path}, sample {sample.id} of epoch {sample.epoch}", _row(sample, scorers[0]))
        for sample in samples
        if sample.error is None and sample.output.choices
    ]


def _row(sample: Any, scorer: str) -> dict[str, Any]:
    last = sample.output.choices[0].message
    before = [each for each in sample.messages if each.id != last.id]
    row: dict[str, Any] = {
        "id": f"{sample.id} {sample.epoch}",
        "group": str(sample.id),
        "messages": [{"role": each.role, "content": each.text} for each in before],
        "reply": sample.output.completion,
    }
    if sample.target and sample.target != [""]:
        row["target"] = sample.target
    score = (sample.scores or {}).get(scorer)
    if score is not None:
        value = score.value
        row["score"] = MARKS.get(value, value) if isinstance(value, str) else value
    return row
