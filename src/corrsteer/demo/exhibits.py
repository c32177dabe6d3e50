"""A run as the demo shows it: layers to switch, a strength to move, prompts to try.

Changes when the demo shows something else of a run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from corrsteer.errors import ArtifactError
from corrsteer.features import Feature
from corrsteer.hook_points import HookPoint
from corrsteer.json_text import visible
from corrsteer.report.findings import Findings
from corrsteer.report.text import short
from corrsteer.runs.evaluation import Prediction
from corrsteer.runs.folder import load_run
from corrsteer.runs.run import Run
from corrsteer.runs.steering import Steering
from corrsteer.samples import Sample
from corrsteer.settings import check_strength

EXAMPLES = 12
"""Flipped test samples of each direction that are offered as prompts."""

WIDEST_STRENGTH = 2.0
"""The strength can be moved up to this, or to twice the run's own where that is more."""

LABEL = 90
"""Characters of a prompt that name it in a list."""


@dataclass(frozen=True)
class FlippedExample:
    """A test sample whose outcome steering changed.

    Attributes:
        direction: what became of its outcome.
        row: the sample.
        chat: whether it was asked through the model's chat template.
    """

    direction: Literal["improved", "worsened"]
    row: Prediction
    chat: bool = False

    @property
    def prompt(self) -> str:
        """What was asked, without the name of the one who asked in a chat."""
        return self.row.prompt.removeprefix("user: ") if self.chat else self.row.prompt

    @property
    def label(self) -> str:
        """One line that names it in a list."""
        return f"{self.direction}: {short(visible(' '.join(self.prompt.split())), LABEL)}"


@dataclass(frozen=True)
class Switch:
    """A hook point that can be switched on and off.

    Attributes:
        hook_point: where it steers.
        label: what people call it.
        features: what its vector is made of.
    """

    hook_point: HookPoint
    label: str
    features: tuple[Feature, ...]


@dataclass(frozen=True)
class Exhibit:
    """A run in the demo.

    Attributes:
        name: tells it from the others.
        findings: the run, read.
    """

    name: str
    findings: Findings

    @classmethod
    def of(cls, run: Run, name: str) -> Exhibit:
        """The run, checked to be one that can be shown.

        Raises:
            ArtifactError: it was not evaluated, steers by no features, or is not of this version.
        """
        if run.evaluation is None:
            raise ArtifactError(
                f"{name} was not evaluated, so there are no examples to show; expected a run of "
                "`train` without --no-eval: train again"
            )
        if not run.steering.scaled(1.0):
            raise ArtifactError(
                f"{name} steers by no features, so there is nothing to switch; the demo needs a "
                "run that has some, such as one of `train --strategy A`"
            )
        return cls(name, Findings(run))

    @property
    def run(self) -> Run:
        """The run itself."""
        return self.findings.run

    @property
    def model(self) -> str:
        """Name or id of its model."""
        return self.run.provenance.model

    @property
    def chat(self) -> bool:
        """Whether prompts go through the model's chat template, as the run's own did."""
        return self.run.provenance.task_options.chat

    def sample(self, prompt: str) -> Sample:
        """A prompt as the run's own were made."""
        if not self.chat:
            return Sample("prompt", prompt)
        options = self.run.provenance.task_options.template_options
        message = {"role": "user", "content": prompt}
        return Sample("prompt", "", messages=(message,), template_options=options)

    @property
    def label(self) -> str:
        """One line that names it in a list of runs."""
        made = self.run.provenance
        return f"{short(self.name)}: {short(made.task)} on {short(made.model)}"

    @cached_property
    def switches(self) -> tuple[Switch, ...]:
        """Its hook points in the order of the forward pass."""
        hooks = sorted(self.run.steering.vectors, key=lambda hook: hook.order)
        layers = [hook.layer for hook in hooks]
        switches = []
        for hook in hooks:
            features = tuple(f for f in self.run.features if f.hook_point == hook.name)
            layer = features[0].layer if features else hook.layer
            site = f" {hook.site}" if layers.count(hook.layer) > 1 else ""
            switches.append(Switch(hook, f"Layer {layer}{site}", features))
        return tuple(switches)

    @cached_property
    def examples(self) -> tuple[FlippedExample, ...]:
        """Flipped samples of both directions, improved ones first."""
        improved, worsened = self.findings.improved[:EXAMPLES], self.findings.worsened[:EXAMPLES]
        return (
            *(FlippedExample("improved", row, self.chat) for row in improved),
            *(FlippedExample("worsened", row, self.chat) for row in worsened),
        )

    @property
    def widest_strength(self) -> float:
        """The most that the strength can be moved to."""
        return max(WIDEST_STRENGTH, 2 * abs(self.run.steering.strength))

    def steering(self, layers: Collection[str], strength: float) -> Steering:
        """Its steering by the hook points of these names alone, at this strength.

        Raises:
            SettingsError: no such strength is possible.
        """
        own = self.run.steering
        return replace(
            own,
            vectors={hook: each for hook, each in own.vectors.items() if hook.name in layers},
            features=tuple(f for f in own.features if f.hook_point in layers),
            strength=check_strength(strength),
        )


def open_exhibits(folders: Sequence[str | Path]) -> tuple[Exhibit, ...]:
    """The runs in some folders, named by their folders.

    Raises:
        ArtifactError: no run there, or it is not one that can be shown.
    """
    paths = [Path(folder) for folder in dict.fromkeys(map(str, folders))]
    names = [path.absolute().name for path in paths]
    return tuple(
        Exhibit.of(load_run(path), name if names.count(name) == 1 else str(path))
        for path, name in zip(paths, names, strict=True)
    )
