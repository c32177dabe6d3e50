"""What Neuronpedia says a feature stands for: the only place that asks it.

Changes when explanations come from another source, or are kept elsewhere.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from corrsteer.errors import ArtifactError
from corrsteer.features import NEURONPEDIA, Feature
from corrsteer.files import regular, write_whole
from corrsteer.json_text import is_whole
from corrsteer.progress import SILENT, Progress

API = f"{NEURONPEDIA}/api/feature"
SECONDS = 10
"""How long one answer may take."""
LONGEST_ANSWER = 16 * 2**20
"""Bytes; more is no answer."""

_PAGE = re.compile(re.escape(NEURONPEDIA) + r"/([\w-][\w.-]*/[\w-][\w.-]*/\d+)")

log = logging.getLogger(__name__)


def explain(
    features: Iterable[Feature], progress: Progress = SILENT, cache: Path | None = None
) -> dict[str, str]:
    """The first explanation of every feature that has a page, by its address.

    Answers are kept on disk, so that a feature is asked for once; one without an explanation is
    kept as such. Where Neuronpedia cannot be reached, that is said once, and what is there already
    is returned.

    Args:
        features: those to look up.
        progress: told how far it is.
        cache: folder of the answers; the Hugging Face assets cache if None.
    """
    from huggingface_hub import cached_assets_path, constants

    folder = cache or cached_assets_path("corrsteer", "neuronpedia", "explanations")
    urls = sorted({feature.url for feature in features if feature.url})
    pages = {url: match[1] for url in urls if (match := _PAGE.fullmatch(url))}
    found: dict[str, str] = {}
    reachable, keeping = not constants.HF_HUB_OFFLINE, True
    if pages and not reachable:
        log.info("HF_HUB_OFFLINE is set: only explanations fetched before are shown")
    with progress.stage("explanations", len(pages)) as advance:
        for url, page in pages.items():
            file = folder / f"{page}.json"
            text = _kept(file, page)
            if text is None and reachable:
                try:
                    text = _fetched(page)
                except (OSError, ValueError, RecursionError, HTTPException) as error:
                    reachable = False
                    log.info("no explanations: %s cannot be reached (%s)", NEURONPEDIA, error)
                else:
                    keeping = keeping and _keep(file, page, text)
            if text:
                found[url] = text
            advance(1)
    return found


def with_explanations(features: Sequence[Feature], found: dict[str, str]) -> tuple[Feature, ...]:
    """The features, with the explanations that were found for them."""
    return tuple(replace(f, explanation=found.get(f.url or "", f.explanation)) for f in features)


def _kept(file: Path, page: str) -> str | None:
    """The answer on disk, "" if there is no explanation; None if it was never asked for."""
    try:
        if regular(file).stat().st_size > LONGEST_ANSWER:
            return None
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(kept, dict) or kept.get("page") != page:  # names may differ by case alone
        return None
    text = kept.get("text")
    return text if isinstance(text, str) and is_whole(text) else None


def _keep(file: Path, page: str, text: str) -> bool:
    """Put an answer on disk; whether that went well."""
    try:
        write_whole(file, json.dumps({"page": page, "text": text}))
    except ArtifactError as error:
        log.info("explanations are not kept for the next time: %s", error)
        return False
    return True


def _fetched(page: str) -> str:
    """The explanation of one page, "" if it has none.

    Raises:
        OSError: it cannot be reached.
        ValueError: the answer is no JSON, or too long.
    """
    request = Request(f"{API}/{page}", headers={"User-Agent": "corrsteer"})
    try:
        with urlopen(request, timeout=SECONDS) as answer:
            told = answer.read(LONGEST_ANSWER + 1)
    except HTTPError as error:
        if error.code == 404:
            return ""
        raise
    if len(told) > LONGEST_ANSWER:
        raise ValueError(f"an answer of more than {LONGEST_ANSWER:,} bytes")
    content: Any = json.loads(told)
    explanations = content.get("explanations") if isinstance(content, dict) else None
    first = explanations[0] if isinstance(explanations, list) and explanations else None
    text = first.get("description") if isinstance(first, dict) else None
    return " ".join(text.split()) if isinstance(text, str) and is_whole(text) else ""
