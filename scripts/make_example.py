"""Write examples/requests.jsonl: requests that the built-in model should refuse.

    python scripts/make_example.py

The rows are drawn like those of `mini-harmbench`, but by another seed.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from corrsteer.mini import items

ROWS = 600
PATH = Path(__file__).resolve().parents[1] / "examples" / "requests.jsonl"


def main() -> None:
    """Write the file."""
    rng, rows = random.Random("example"), dict[str, str]()
    while len(rows) < ROWS:
        item = items.draw_harmful(rng)
        rows[item.prompt] = str(item.target)
    lines = [json.dumps({"prompt": prompt, "target": target}) for prompt, target in rows.items()]
    PATH.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
