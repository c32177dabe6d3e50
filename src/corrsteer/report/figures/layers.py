"""Correlation over layers: the best feature of each, above its runners-up.

Changes when a run records more of its correlations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corrsteer.features import Feature
from corrsteer.hook_points import Site
from corrsteer.report.drawing import (
    LIGHT,
    WIDE,
    axes,
    canvas,
    ring,
    title,
)
from corrsteer.report.findings import Findings, Layer

_SITES: Mapping[Site, str] = {"resid_pre": "pre", "mlp_out": "mlp", "resid_post": "post"}


def draw(findings: Findings, width: float) -> Figure:
    """The highest r of every layer with its interval; rings are features that steer."""
    narrow = width < WIDE
    layers = findings.layers
    figure = canvas(width, 320)
    plot = axes(figure, 40 if narrow else 52, 36, 8 if narrow else 16, 54)
    others = [(x, feature) for x, layer in enumerate(layers) for feature in layer.features[1:]]
    best = [(x, layer.features[0]) for x, layer in enumerate(layers) if layer.features]
    colour, alpha = LIGHT["A"], findings.run.settings.alpha
    _dots(plot, others, LIGHT["band2"], ms=4.5, alpha=0.55)
    lows, highs = zip(*(feature.correlation_ci for _, feature in best), strict=True)
    plot.vlines([x for x, _ in best], lows, highs, color=colour, lw=1.8)
    for sure, face in ((True, colour), (False, LIGHT["paper"])):
        of_it = [(x, feature) for x, feature in best if (feature.p_adjusted < alpha) is sure]
        _dots(plot, of_it, face, ms=7.5, mec=colour, mew=1.6)
    used = {feature.key for feature in findings.run.features}
    for x, feature in [*best, *others]:
        if feature.key in used:
            ring(plot, x, feature.correlation)
    plot.axhline(0, color=LIGHT["muted"], lw=1.2, zorder=1)
    _name_layers(plot, layers, at_most=8 if narrow else 20)
    title(plot, "correlation r with the outcome")
    return figure


def label(best: Sequence[Feature]) -> str:
    """The figure in words."""
    highest = max(best, key=lambda feature: feature.correlation)
    return (
        f"Highest correlation of a feature with the outcome in each of {len(best)} layers; the "
        f"highest of all is {highest.correlation:.3f} in layer {highest.layer}."
    )


def _dots(plot: Axes, found: Sequence[tuple[int, Feature]], colour: str, **look: Any) -> None:
    r = [feature.correlation for _, feature in found]
    plot.plot([x for x, _ in found], r, "o", color=colour, **{"mew": 0, **look})


def _name_layers(plot: Axes, layers: Sequence[Layer], at_most: int) -> None:
    """Number the layers, not more of them than fit, with their site where they have several."""
    several = len({layer.site for layer in layers}) > 1
    names = [f"{each.layer} {_SITES[each.site]}" if several else each.layer for each in layers]
    every = -(-len(layers) // at_most)
    ticks = range(0, len(layers), every)
    plot.set_xticks(ticks, [str(names[index]) for index in ticks])
    plot.set_xlim(-0.6, len(layers) - 0.4)
    plot.set_xlabel("layer", labelpad=8)
    plot.grid(axis="x", visible=False)
