"""The model card of a shared steering, and the script beside it.

Changes when a card says more. `steer.py` is copied, with what it imports of ours written out;
nothing here runs it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import TypeAdapter, ValidationError

from corrsteer.errors import ArtifactError
from corrsteer.json_text import visible
from corrsteer.lm import conventions
from corrsteer.stats.metrics import Accuracy, Delta, SideEffects

SCRIPT = "steer.py"

_MARKUP = re.compile(r"[\\`*_\[\]<>|&~#]|^[-+]")


@dataclass(frozen=True)
class _Draws:
    draws: int
    mean: float | None
    best: float | None


@dataclass(frozen=True)
class _Controls:
    random: _Draws


@dataclass(frozen=True)
class _Guard:
    baseline: float
    steered: float


@dataclass(frozen=True)
class _Verdict:
    text: str


@dataclass(frozen=True)
class _Evidence:
    """What a card reads of the evidence in a steering's metadata."""

    verdict: str | _Verdict
    strength: float
    baseline: Accuracy | None
    steered: Accuracy | None
    delta: Delta | None
    side_effects: SideEffects | None
    controls: _Controls | None
    guards: Mapping[str, _Guard]


_EVIDENCE = TypeAdapter(_Evidence | None)


def script() -> bytes:
    """A script that steers with nothing but transformers and safetensors."""
    own = Path(__file__).with_name(SCRIPT).read_text(encoding="utf-8")
    *_, shared = inspect.getsource(conventions).partition("import annotations\n\n")
    before, _, after = own.partition("from corrsteer.lm.conventions import")
    return (before + shared + after.partition(")\n")[2]).encode()


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

    Raises:
        ArtifactError: the metadata hold evidence that is none.
    """
    try:
        evidence = _EVIDENCE.validate_json(about.get("evidence") or "null")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise ArtifactError(
            f"the steering's evidence cannot be read ({place}: {first['msg']}); train again"
        ) from error
    verdict = evidence and evidence.verdict
    return {
        "model": public_name(model) or "unknown",
        "hub_id": hub_id,
        "revision": revision,
        "positions": positions,
        "strength": strength,
        "features": features,
        "described": about.get("described", ""),
        "sae": public_name(about.get("sae", "")),
        "task": public_name(about.get("task", "")),
        "strategy": about.get("strategy", ""),
        "version": about.get("corrsteer", ""),
        "verdict": verdict.text if isinstance(verdict, _Verdict) else verdict,
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
    environment.filters |= {"code": code, "escaped": escaped, "percent": _percent}
    return str(environment.get_template("card.md.j2").render(card_data=card_data, **facts))


def public_name(name: str) -> str:
    """A name without the folder it lies in; hub ids stay whole."""
    path = PurePath(name)
    return path.name if path.is_absolute() or name.startswith(".") else name


def code(text: str) -> str:
    """Text as inline code of Markdown that stays one line, and one cell of a table."""
    return f"`{one_line(text.replace('`', chr(39)).replace('|', '/'))}`"


def escaped(text: str) -> str:
    """Text as one line of Markdown that is no markup."""
    return _MARKUP.sub(lambda mark: f"\\{mark[0]}", one_line(text))


def one_line(text: str) -> str:
    """Text whose every character is seen, on one line."""
    return visible(" ".join(text.split()))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
