"""The figures of a report, one a file, each a function of the findings and a width.

Changes when a report gets another figure. Every text in a figure is ours: names and numbers, none
of it from a model or a data set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from corrsteer.report.figures import accuracy, layers, samples, side_effects, strength
from corrsteer.report.findings import Findings


@dataclass(frozen=True)
class Chart:
    """A figure that there is data for.

    Attributes:
        name: of its files.
        label: what it shows, in words, for those who do not see it.
        draw: the figure at a width in CSS pixels.
    """

    name: str
    label: str
    draw: Callable[[float], Figure]


def charts(findings: Findings) -> dict[str, Chart]:
    """The figures that the findings have data for, by name."""
    found = []
    if (evaluated := findings.evaluated) is not None:
        draw = partial(accuracy.draw, findings, evaluated)
        found.append(Chart("accuracy", accuracy.label(findings, evaluated), draw))
        if findings.setting is not None:
            draw = partial(side_effects.draw, evaluated.side_effects, findings.flows)
            label = side_effects.label(evaluated.side_effects)
            found.append(Chart("side-effects", label, draw))
    search = findings.run.search
    if search is not None and any(trial.steers for trial in search.trials):
        control = strength.control_level(findings)
        draw = partial(strength.draw, search, findings.vetoed, control)
        found.append(Chart("strength", strength.label(search), draw))
    if findings.best_per_layer:
        draw = partial(layers.draw, findings)
        found.append(Chart("layers", layers.label(findings.best_per_layer), draw))
    if findings.snapshots:
        draw = partial(samples.draw, findings.snapshots)
        found.append(Chart("samples", samples.label(findings.snapshots), draw))
    return {chart.name: chart for chart in found}
