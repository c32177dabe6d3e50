"""How objects show in a notebook: small tables in which every value is text.

Changes when a notebook is to show objects in another way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from corrsteer.selection import Feature

NO_VALUE = "\u2013"
FEATURE_COLUMNS = ("layer", "latent", "coefficient", "r [95 %]", "adjusted p", "active")


def overview(title: str, facts: Mapping[str, object], features: Sequence[Feature] = ()) -> str:
    """An object as HTML: its title, what is to be known of it, and its features if it has any."""
    parts = [Markup("<div><p><strong>{}</strong></p>").format(title)]
    parts.append(_table([[_header(name), _cell(value)] for name, value in facts.items()]))
    if features:
        head = [_header(column) for column in FEATURE_COLUMNS]
        parts.append(_table([head, *map(_feature, features)]))
    return str(Markup("").join(parts) + Markup("</div>"))


def accuracy(value: float, interval: tuple[float, float]) -> str:
    """A share with its interval, in percent."""
    low, high = interval
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _feature(feature: Feature) -> list[Markup]:
    low, high = feature.correlation_ci
    latent = Markup("<td>{}</td>").format(feature.latent)
    if feature.url and feature.url.startswith("https://"):
        latent = Markup('<td><a href="{}">{}</a></td>').format(feature.url, feature.latent)
    return [
        _cell(feature.layer),
        latent,
        _cell(f"{feature.coefficient:.3f}"),
        _cell(f"{feature.correlation:.3f} [{low:.2f}, {high:.2f}]"),
        _cell(f"{feature.p_adjusted:.2g}"),
        _cell(f"{feature.frequency:.0%}"),
    ]


def _table(rows: Sequence[Sequence[Markup]]) -> Markup:
    lines = [Markup("<tr>") + Markup("").join(row) + Markup("</tr>") for row in rows]
    return Markup("<table>") + Markup("").join(lines) + Markup("</table>")


def _header(name: object) -> Markup:
    return Markup("<th>{}</th>").format(name)


def _cell(value: object) -> Markup:
    return Markup("<td>{}</td>").format(NO_VALUE if value is None else value)
