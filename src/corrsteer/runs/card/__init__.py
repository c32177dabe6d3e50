"""The model card of a shared steering, and the script beside it.

Changes when a card says more. `steer.py` is copied as it is; nothing here runs it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

SCRIPT = "steer.py"


def script() -> bytes:
    """A script that steers with nothing but transformers and safetensors."""
    return Path(__file__).with_name(SCRIPT).read_bytes()


def facts(
    model: str,
    hub_id: str | None,
    revision: str | None,
    positions: str,
    strength: float,
    features: Sequence[Mapping[str, Any]],
    about: Mapping[str, str],
) -> dict[str, Any]:
    """What a card says, from a steering's fields and the run's facts in its metadata.

    Folders are named by their last part only: where they lie is nobody else's business.
    """
    evidence = json.loads(about.get("evidence") or "null")
    return {
        "model": public_name(model) or "unknown",
        "hub_id": hub_id,
        "revision": revision,
        "positions": positions,
        "strength": strength,
        "features": features,
        "sae": public_name(about.get("sae", "")),
        "task": public_name(about.get("task", "")),
        "strategy": about.get("strategy", ""),
        "version": about.get("corrsteer", ""),
        "verdict": evidence and evidence["verdict"],
        "evidence": evidence,
    }


def render(card_data: str, facts: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        card_data: its YAML block.
        facts: see `facts`.
    """
    environment = Environment(
        loader=PackageLoader("corrsteer.runs.card", "."),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": _code, "percent": _percent}
    return str(environment.get_template("card.md.j2").render(card_data=card_data, **facts))


def public_name(name: str) -> str:
    """A name without the folder it lies in; hub ids stay whole."""
    path = PurePath(name)
    return path.name if path.is_absolute() or name.startswith(".") else name


def _code(text: str) -> str:
    """Text as inline code that stays one cell of a table."""
    return "`" + " ".join(text.replace("`", "'").replace("|", "/").split()) + "`"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
