"""How figures are drawn: colours, lettering, and their ways out as SVG, PNG and inline SVG.

Changes when figures look different. Matplotlib is used through its objects alone, under default
settings that hold while a figure is drawn; nobody's own settings are read or changed for good.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from markupsafe import Markup, escape
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corrsteer.settings import ArmName

LIGHT: Mapping[str, str] = {
    "ink": "#1c2530",
    "muted": "#566373",
    "rule": "#dfe4ea",
    "paper": "#ffffff",
    "card": "#f2f4f7",
    "added": "#d3ebe7",
    "dropped": "#fae0cd",
    "band": "#c3ccd6",
    "band2": "#94a2b1",
    "better": "#12796f",
    "worse": "#c2540a",
    "S": "#7b52ab",
    "A": "#2563b8",
    "P": "#a3670b",
    "G": "#12796e",
    "dense": "#b3266d",
    "denoised": "#5f6b00",
    "probe": "#8a4b2a",
    "topk": "#0b6e8a",
    "prompt": "#4a4f9c",
    "few-shot": "#7a4a7d",
    "control": "#6b7786",
}
"""Colour of each role. No two are equal, so that a colour in an SVG names its role."""

DARK: Mapping[str, str] = {
    "ink": "#e6eaef",
    "muted": "#a3aebb",
    "rule": "#2f3842",
    "paper": "#14191f",
    "card": "#1d242c",
    "added": "#1c4a45",
    "dropped": "#5a3519",
    "band": "#3d4854",
    "band2": "#5f6d7c",
    "better": "#43c0b0",
    "worse": "#f08c4a",
    "S": "#bb9af0",
    "A": "#76a9f5",
    "P": "#dcae4e",
    "G": "#43c0af",
    "dense": "#f07fb4",
    "denoised": "#b9c552",
    "probe": "#dca07c",
    "topk": "#5fc4de",
    "prompt": "#a3a8ee",
    "few-shot": "#d3a0d6",
    "control": "#93a0ae",
}
"""The same roles on a dark page."""

_MARKERS: Mapping[ArmName, tuple[str, float]] = {
    "S": ("o", 1.0),
    "A": ("s", 1.0),
    "P": ("^", 1.3),
    "G": ("D", 0.95),
    "dense": ("v", 1.3),
    "denoised": ("p", 1.2),
    "probe": ("<", 1.2),
    "topk": ("h", 1.2),
    "prompt": ("P", 1.1),
    "few-shot": ("X", 1.1),
}
"""Mark of each strategy, for those who do not tell it by its colour, and what makes them alike in
size."""

WIDE, NARROW = 820.0, 350.0
"""Widths of a figure on a desktop and on a phone, in CSS pixels."""

TEXT, SMALL = 13.0, 12.0
"""Sizes of lettering, in CSS pixels."""

_POINTS_PER_INCH = 72
_PNG_DPI = 2.5 * _POINTS_PER_INCH
_HTTP_FREE: Mapping[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
_STYLE = {
    "font.size": TEXT,
    "font.family": "DejaVu Sans",  # comes with Matplotlib
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["band"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.labelsize": SMALL,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.unicode_minus": True,
    "grid.color": LIGHT["rule"],
    "grid.linewidth": 1.0,
    "xtick.color": LIGHT["band"],
    "ytick.color": LIGHT["band"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "lines.solid_capstyle": "round",
    "figure.facecolor": LIGHT["paper"],
    "svg.hashsalt": "corrsteer",  # ids inside an SVG are random without it
}


@contextmanager
def house_style(lettering: Literal["text", "outlines"] = "outlines") -> Iterator[None]:
    """While inside, Matplotlib's own defaults with our colours; nothing of it stays.

    Args:
        lettering: how an SVG holds text: as `text`, which a page can recolour, or as `outlines`,
            which look alike wherever the file is opened.
    """
    fonts = {"svg.fonttype": "none" if lettering == "text" else "path"}
    with style.context({**_STYLE, **fonts}, after_reset=True):
        yield


def canvas(width: float, height: float) -> Figure:
    """An empty figure; one unit of its SVG is one CSS pixel."""
    return Figure(figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH))


def axes(figure: Figure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Axes that leave margins of so many pixels."""
    width, height = figure.get_size_inches() * _POINTS_PER_INCH
    return figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    )


def name_rows(plot: Axes, names: Sequence[str]) -> None:
    """Name the rows of a plot whose first row is at the top."""
    plot.set_yticks(range(len(names)), names, color=LIGHT["ink"], fontsize=TEXT)
    plot.set_ylim(len(names) - 0.5, -0.5)
    plot.grid(axis="y", visible=False)


def row_value(plot: Axes, row: int, text: str) -> None:
    """Write a number into the margin to the right of a row."""
    plot.annotate(
        text,
        (1, row),
        xycoords=("axes fraction", "data"),
        xytext=(8, 0),
        textcoords="offset points",
        va="center_baseline",
        annotation_clip=False,
    )


def mark(strategy: ArmName, size: float, filled: bool = True) -> dict[str, Any]:
    """How `Axes.plot` is to mark a point of a strategy."""
    marker, scale = _MARKERS[strategy]
    colour, paper = LIGHT[strategy], LIGHT["paper"]
    face, edge, thick = (colour, paper, 1.0) if filled else (paper, colour, 1.6)
    return {"marker": marker, "ms": size * scale, "mfc": face, "mec": edge, "mew": thick}


def ring(plot: Axes, x: float, y: float) -> None:
    """Mark a point as the one that is used."""
    plot.plot(x, y, "o", ms=16, color="none", mec=LIGHT["ink"], mew=1.6, zorder=5, clip_on=False)


def title(plot: Axes, text: str) -> None:
    """Say above a plot what its vertical axis is."""
    plot.set_title(text, loc="left", fontsize=SMALL, color=LIGHT["muted"], pad=10)


def svg_file(figure: Figure) -> bytes:
    """The figure as an SVG file; the same figure gives the same bytes."""
    return _saved(figure, format="svg", metadata=dict(_HTTP_FREE))


def png_file(figure: Figure) -> bytes:
    """The figure as a PNG file; the same figure gives the same bytes."""
    return _saved(figure, format="png", dpi=_PNG_DPI, metadata={"Software": None})


def inline_svg(figure: Figure, name: str, label: str, css_class: str) -> Markup:
    """The figure as an `<svg>` element whose colours and fonts are those of the page.

    Args:
        figure: drawn under `house_style("text")`.
        name: sets its ids apart from those of the page's other figures.
        label: what a screen reader says.
        css_class: of the element.
    """
    text = _saved(figure, format="svg", metadata=dict(_HTTP_FREE), transparent=True).decode()
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    body = re.sub(r"<defs>\s*<style.*?</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r' id="', f' id="{name}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', body)
    body = body.replace("url(#", f"url(#{name}-")
    for role, colour in LIGHT.items():
        body = body.replace(colour, f"var(--{role})")
    width, height = figure.get_size_inches() * _POINTS_PER_INCH
    opening = Markup(
        '<svg class="{}" viewBox="0 0 {:g} {:g}" width="{:g}" height="{:g}" role="img" '
        'aria-label="{}">'
    ).format(css_class, width, height, width, height, escape(label))
    return opening + Markup(body) + Markup("</svg>")


def _saved(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()
