"""Hooks of the documentation's build: a page that would ask another host for anything stops it.

Changes when pages load something in another way.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click

ELSEWHERE = re.compile(r"(?:https?:)?//")
LINKS = {"a", "form"}
"""Elements whose address is followed when somebody asks for it, not when the page is shown."""
NOT_LOADED = {"canonical", "prev", "next", "alternate"}
"""What a `<link>` may stand for without being fetched."""
CSS_URL = re.compile(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//")


class Requests(HTMLParser):
    """Collects the addresses on other hosts that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what this element loads."""
        given = dict(attrs)
        if tag in LINKS or given.get("rel") in NOT_LOADED:
            return
        addresses = (given.get(name) for name in ("src", "href", "srcset", "data", "poster"))
        self.found += [each for each in addresses if each and ELSEWHERE.match(each)]


def on_post_build(config: Any) -> None:
    """Check every page and style sheet of the site.

    Raises:
        click.ClickException: one loads something from another host.
    """
    site = Path(config["site_dir"])
    for page in sorted(site.rglob("*.html")):
        requests = Requests()
        requests.feed(page.read_text(encoding="utf-8"))
        if requests.found:
            raise click.ClickException(
                f"{page.relative_to(site)} loads {', '.join(requests.found)}"
            )
    for sheet in sorted(site.rglob("*.css")):
        if CSS_URL.search(sheet.read_text(encoding="utf-8")):
            raise click.ClickException(f"{sheet.relative_to(site)} loads from another host")
