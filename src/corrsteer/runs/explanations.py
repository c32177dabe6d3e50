"""What Neuronpedia says a feature stands for: the only place that asks it.

Changes when explanations come from another source, or are kept elsewhere.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from corrsteer.features import NEURONPEDIA, Feature
from corrsteer.files import write_whole
from corrsteer.progress import SILENT, Progress

API = f"{NEURONPEDIA}/api/feature"
SECONDS = 10
"""How long one answer may take."""

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
    reachable = not constants.HF_HUB_OFFLINE
    if pages and not reachable:
        log.info("HF_HUB_OFFLINE is set: only explanations fetched before are shown")
    with progress.stage("explanations", len(pages)) as advance:
        for url, page in pages.items():
            file = folder / f"{page}.json"
            text = _kept(file)
            if text is None and reachable:
                try:
                    text = _fetched(page)
                    write_whole(file, json.dumps(text))
                except (OSError, ValueError) as error:
                    reachable = False
                    log.info("no explanations: %s cannot be reached (%s)", NEURONPEDIA, error)
            if text:
                found[url] = text
            advance(1)
    return found


def with_explanations(features: Sequence[Feature], found: dict[str, str]) -> tuple[Feature, ...]:
    """The features, with the explanations that were found for them."""
    return tuple(replace(f, explanation=found.get(f.url or "", f.explanation)) for f in features)


def _kept(file: Path) -> str | None:
    """The answer on disk, "" if there is no explanation; None if it was never asked for."""
    try:
        text = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return text if isinstance(text, str) else None


def _fetched(page: str) -> str:
    """The explanation of one page, "" if it has none.

    Raises:
        OSError: it cannot be reached.
        ValueError: the answer is no JSON.
    """
    request = Request(f"{API}/{page}", headers={"User-Agent": "corrsteer"})
    try:
        with urlopen(request, timeout=SECONDS) as answer:
            content: Any = json.loads(answer.read())
    except HTTPError as error:
        if error.code == 404:
            return ""
        raise
    explanations = content.get("explanations") if isinstance(content, dict) else None
    first = explanations[0] if isinstance(explanations, list) and explanations else None
    text = first.get("description") if isinstance(first, dict) else None
    return " ".join(text.split()) if isinstance(text, str) else ""
