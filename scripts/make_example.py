"""Write examples/requests.jsonl: requests that the built-in model should refuse or answer.

    python scripts/make_example.py

The rows are drawn like those of `mini-harmbench` and `mini-xstest`, but by another seed.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from corrsteer.mini import items

ROWS = 240
PATH = Path(__file__).resolve().parents[1] / "examples" / "requests.jsonl"


def main() -> None:
    """Write the file."""
    rng, rows = random.Random("example"), dict[str, str]()
    while len(rows) < ROWS:
        item = rng.choice((items.draw_harmful, items.draw_harmful, items.draw_lookalike))(rng)
        rows[item.prompt] = str(item.target)
    lines = [json.dumps({"prompt": prompt, "target": target}) for prompt, target in rows.items()]
    PATH.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
