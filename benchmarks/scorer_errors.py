"""How often the rule-based scorers misread replies, by lists of labelled replies.

    python benchmarks/scorer_errors.py
    python benchmarks/scorer_errors.py --show

The lists are `tests/data/replies/*.jsonl`. A rule was made by the rows whose part is `tuned`; those
`held out` were written after it and judged once. Prints a Markdown table, and with `--show` the
rows that are misread.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corrsteer.scoring.numbers import read_number
from corrsteer.scoring.options import read_option
from corrsteer.scoring.refusals import read_refusal

LISTS = Path(__file__).parents[1] / "tests" / "data" / "replies"
Row = dict[str, Any]


def _choice(row: Row) -> object:
    return read_option(row["reply"], tuple(row["choices"]))


def _numeric(row: Row) -> object:
    number = read_number(row["reply"])
    return None if number is None else str(number)


def _refusal(row: Row) -> object:
    return read_refusal(row["reply"])


READINGS: dict[str, Callable[[Row], object]] = {
    "choice": _choice,
    "numeric": _numeric,
    "refusal": _refusal,
}
"""By scorer, what it makes of a row; the row's field `answer` says what is right."""


@dataclass(frozen=True)
class Errors:
    """How a scorer reads one part of its list.

    Attributes:
        rows: how many there are.
        misread: those that it reads otherwise than labelled, each with what it reads.
    """

    rows: int
    misread: list[tuple[Row, object]]

    @property
    def rate(self) -> float:
        """The share that is misread."""
        return len(self.misread) / self.rows


def errors(scorer: str, part: str) -> Errors:
    """How a scorer reads one part of its list, `tuned` or `held out`."""
    lines = (LISTS / f"{scorer}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["part"] == part]
    pairs = [(row, READINGS[scorer](row)) for row in rows]
    return Errors(len(rows), [(row, found) for row, found in pairs if found != row["answer"]])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--show", action="store_true", help="print what is misread")
    show = parser.parse_args().show
    print("| scorer | tuned on | misread | held out | misread |\n|---|---|---|---|---|")
    for scorer in READINGS:
        parts = [errors(scorer, part) for part in ("tuned", "held out")]
        cells = [f"{each.rows} | {len(each.misread)} ({each.rate:.1%})" for each in parts]
        print(f"| `{scorer}` | {cells[0]} | {cells[1]} |")
        for row, found in [pair for each in parts if show for pair in each.misread]:
            print(f"    {json.dumps(row, ensure_ascii=False)} is read as {found!r}")


if __name__ == "__main__":
    main()
