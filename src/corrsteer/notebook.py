"""How objects show in a notebook: small tables in which every value is text.

Changes when a notebook is to show objects in another way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

NO_VALUE = "\u2013"


def overview(
    title: str,
    facts: Mapping[str, object],
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[object]] = (),
) -> str:
    """An object as HTML: its title, what is to be known of it, and a table where it has rows."""
    parts = [Markup("<div><p><strong>{}</strong></p>").format(title)]
    parts.append(_table([[_header(name), _cell(value)] for name, value in facts.items()]))
    if rows:
        cells = [[_cell(value) for value in row] for row in rows]
        parts.append(_table([[_header(column) for column in columns], *cells]))
    return str(Markup("").join(parts) + Markup("</div>"))


def link(text: object, url: str | None) -> object:
    """The text, linked where the address is one of the web."""
    if url is None or not url.startswith("https://"):
        return text
    return Markup('<a href="{}">{}</a>').format(url, text)


def accuracy(value: float, interval: tuple[float, float]) -> str:
    """A share with its interval, in percent."""
    low, high = interval
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _table(rows: Sequence[Sequence[Markup]]) -> Markup:
    lines = [Markup("<tr>") + Markup("").join(row) + Markup("</tr>") for row in rows]
    return Markup("<table>") + Markup("").join(lines) + Markup("</table>")


def _header(name: object) -> Markup:
    return Markup("<th>{}</th>").format(name)


def _cell(value: object) -> Markup:
    return Markup("<td>{}</td>").format(NO_VALUE if value is None else value)
