"""What a person sees in the terminal: progress on stderr, tables on stdout.

Changes when a table or the progress display looks different.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from corrsteer.cli.output import VisibleConsole
from corrsteer.features import Feature
from corrsteer.progress import Advance
from corrsteer.runs.evidence import Evidence
from corrsteer.runs.records import (
    EvaluationDocument,
    GuardChange,
    Outcome,
    RunDocument,
    SteeredOutcome,
    TaskCounts,
    TuningDocument,
    vectors_in_words,
)
from corrsteer.runs.verdict import Verdict
from corrsteer.scoring.rated import NOT_SHOWN, RATED, measured
from corrsteer.stats.metrics import Accuracy
from corrsteer.studies.seeds import SeedsDocument

MOST_FEATURES = 30
"""Features that the table names; a denoised direction may have hundreds."""
NARROW = 60
"""Columns below which a progress line goes without its bar."""


class RateColumn(ProgressColumn):
    """Samples a second; nothing before it is known."""

    def render(self, task: Task) -> Text:
        """The rate of a stage."""
        return Text(
            "" if task.speed is None else f"{task.speed:.3g}/s", style="progress.data.speed"
        )


class TimeLeftColumn(TimeRemainingColumn):
    """Time left, said to be that; the time gone where no total is known."""

    def render(self, task: Task) -> Text:
        """The time of a stage."""
        if task.total is None:
            return Text(f"{task.elapsed or 0:.0f} s", style="progress.elapsed")
        return super().render(task) + Text(" left", style="progress.remaining")


class TerminalProgress:
    """One line a stage on stderr, with rate and time left; nothing when stderr is no terminal."""

    def __init__(self) -> None:
        console = VisibleConsole(stderr=True)
        bar = [] if console.width < NARROW else [BarColumn(bar_width=24)]
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            *bar,
            MofNCompleteColumn(),
            RateColumn(),
            TimeLeftColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> TerminalProgress:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """A stage with its own line, which goes away with it."""
        task = self._progress.add_task(name, total=total)
        try:
            yield lambda samples: self._progress.advance(task, samples)
        finally:
            self._progress.remove_task(task)


def print_run(document: RunDocument) -> None:
    """The result of `train`, as tables and a verdict."""
    console, task = VisibleConsole(), document.task
    counts = f"{task.n_fit} fit, {task.n_select} select, {task.n_test} test samples"
    console.print(_heading(document.model.id, task.name, counts))
    if document.outcome is not None:
        print_arms(console, _arms(document, document.outcome))
        _print_habit(console, task)
        _print_controls(console, document.outcome)
        _print_guards(console, document.outcome.guards)
        _print_receipts(console, document.outcome)
    for name, arm in document.strategies.items():
        if arm.prompting:
            console.print(Text(f"{name} (no steering): {arm.prompting}"))
    if document.features:
        print_table(console, _features(document.features))
        if (more := len(document.features) - MOST_FEATURES) > 0:
            console.print(f"and {more} more; --json and features.json have them all")
        print_inference(console, document.inference)
    elif made_of := vectors_in_words(document.direction, document.vectors):
        console.print(Text(f"Steers by: {made_of}"))
    print_verdict(console, document.verdict)
    if document.run is not None:
        console.print(Text(f"Run folder: {document.run}"), soft_wrap=True)


def print_seeds(document: SeedsDocument, out: Path) -> None:
    """What runs over several seeds say together."""
    console, seeds = VisibleConsole(), list(document.runs)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("change of test accuracy")
    for seed in seeds:
        table.add_column(f"seed {seed}", justify="right")
    table.add_column("mean [95 % of seeds]", justify="right")
    for arm in document.arms:
        cells = [f"{100 * arm.changes[seed]:+.1f}" if seed in arm.changes else "" for seed in seeds]
        mean = f"{100 * arm.mean:+.1f}"
        if arm.ci is not None:
            mean += f" [{100 * arm.ci[0]:+.1f}, {100 * arm.ci[1]:+.1f}]"
        table.add_row(arm.arm, *cells, mean)
    print_table(console, table)
    kinds = ", ".join(f"{kind} in {count}" for kind, count in document.verdicts.items())
    n = len(seeds)
    console.print(Text(f"A steering is recommended in {document.recommended} of {n} runs: {kinds}"))
    console.print(Text(f"Run folders: {out}"), soft_wrap=True)


def print_verdict(console: Console, verdict: Verdict) -> None:
    """What came of a run, and the reasons."""
    console.print(Text(verdict.text, style="bold"))
    for reason in verdict.reasons:
        if reason not in verdict.text:
            console.print(Text(f"- {reason}"))


def print_evaluation(document: EvaluationDocument) -> None:
    """The result of `eval`: the baseline, and the steered arm at each strength."""
    console, task = VisibleConsole(), document.task
    console.print(_heading(document.model.id, task.name, f"{task.n_test} test samples"))
    table = arm_table(document.baseline, task.unread_test, task.scorer)
    for arm in document.strengths:
        add_arm(table, f"steered x {arm.strength:g}", arm)
    print_arms(console, table)
    if task.scorer == RATED.name:
        console.print(Text(f"{NOT_SHOWN[0].upper()}{NOT_SHOWN[1:]}."))
    _print_habit(console, task)
    _print_receipts(console, document.outcome)
    if document.forced:
        console.print(Text(f"Forced: {document.forced}."))


def print_tuning(document: TuningDocument) -> None:
    """The result of `sft`: the model before and after, and its guards."""
    console, task, training = VisibleConsole(), document.task, document.training
    counts = f"{task.n_fit} fit, {task.n_test} test samples"
    console.print(_heading(document.model.id, task.name, counts))
    table = arm_table(document.outcome.baseline, task.unread_test)
    add_arm(table, f"fine-tuned ({training.method})", document.outcome)
    print_arms(console, table)
    _print_guards(console, document.outcome.guards)
    console.print(
        f"{training.steps} steps, {training.epochs:.3g} epochs at learning rate "
        f"{training.learning_rate:.2g}, {training.trained_parameters:,} parameters; "
        f"loss {training.losses[0]:.3g} -> {training.losses[-1]:.3g}",
        highlight=False,
    )
    print_verdict(console, document.verdict)
    console.print(Text(f"Folder: {document.run}"), soft_wrap=True)


def print_verification(document: Mapping[str, Any]) -> None:
    """What a consumer does beside what we do."""
    console = VisibleConsole()
    names = (document["version"], " beside transformers on ", document["model"]["id"])
    console.print(
        Text.assemble(*((name, "bold") for name in names), f": {document['prompts']} prompts")
    )
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("check", "steers at"):
        table.add_column(column, no_wrap=True)
    for column in ("tokens", "difference", "text", "steering", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for finding in document["findings"]:
        table.add_row(
            finding["check"],
            finding["scope"],
            str(finding["tokens"]),
            f"{finding['max_difference']:.1e}",
            "same" if finding["same_text"] else "differs",
            f"{finding['effect']:.2g}",
            "passed" if finding["passed"] else "FAILED",
        )
    print_table(console, table)
    for finding in document["findings"]:
        if finding["scope_effect"]:
            console.print(
                f"{finding['check']}: its positions instead of the run's own change the first "
                f"token's logits by up to {finding['scope_effect']:.2g}.",
                highlight=False,
            )
    for note in document["notes"]:
        console.print(Text(f"Note: {note}."))
    verdict = "does the same" if document["passed"] else "does not do the same"
    console.print(
        Text(f"{document['consumer']} {verdict}; tolerance {document['tolerance']:g}.", "bold")
    )


def print_table(console: Console, table: Table) -> None:
    """A table; where it is wider than the screen, a paragraph a row, so that nothing is cut."""
    unlimited = console.options.update(max_width=10_000)
    if Measurement.get(console, unlimited, table).maximum <= console.width:
        console.print(table)
        return
    headers = [str(column.header) for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        named = zip(headers, map(str, row), strict=True)
        cells = (f"{header} {cell}".strip() for header, cell in named if cell)
        console.print(Text("; ".join(cells)))


def _heading(model: str, task: str, counts: str) -> Text:
    return Text.assemble((model, "bold"), (" on ", "bold"), (task, "bold"), f": {counts}")


def _arms(document: RunDocument, outcome: SteeredOutcome) -> Table:
    table = arm_table(outcome.baseline, document.task.unread_test, document.task.scorer)
    for name, arm in document.strategies.items():
        layers = {each.layer for each in arm.vectors} if arm.direction else ()
        where = f" L{min(layers)}" if len(layers) == 1 else ""
        add_arm(table, arm.named(name) + where, arm if arm.acts else None)
    chosen = document.recommended
    if chosen is None:
        table.add_row("recommended", "none")
    else:
        add_arm(table, f"recommended {chosen.strategy} x {chosen.strength:g}", outcome)
    return table


def arm_table(baseline: Accuracy, unread: int | None = None, scorer: str = "") -> Table:
    """A table of arms, with the baseline's row and how many of its replies were not read."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("arm", no_wrap=True)
    for column in (f"{measured(scorer)} % [95 %]", "change [95 %]", "p", "SER", "unread"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row("baseline", accuracy_text(baseline), "", "", "", f"{unread or ''}")
    return table


def add_arm(table: Table, name: str, arm: Outcome | None) -> None:
    """A steered arm's row; None for one that adds nothing."""
    if arm is None:
        table.add_row(name, "nothing to add")
        return
    delta, ser = arm.delta, arm.side_effects.ser
    low, high = (100 * bound for bound in delta.ci)
    table.add_row(
        name,
        accuracy_text(arm.steered),
        f"{100 * delta.value:+.1f} [{low:+.1f}, {high:+.1f}]",
        f"{delta.p_value:.2g}",
        "-" if ser is None else f"{ser:.2f}",
        f"{arm.unread or ''}",
    )


def print_arms(console: Console, table: Table) -> None:
    """A table of arms, and what `unread` means; without that column where all were read."""
    if any(table.columns[-1].cells):
        print_table(console, table)
        console.print("unread: nothing could be read out of the reply, so it counts as wrong")
        return
    del table.columns[-1]
    print_table(console, table)


def accuracy_text(accuracy: Accuracy) -> str:
    """An accuracy with its interval, in percent."""
    low, high = (100 * bound for bound in accuracy.ci)
    return f"{100 * accuracy.accuracy:.1f} [{low:.1f}, {high:.1f}]"


def _print_controls(console: Console, outcome: SteeredOutcome) -> None:
    random = outcome.controls.random if outcome.controls else None
    if random is not None and random.best is not None and random.mean is not None:
        console.print(
            f"{random.draws} random controls: mean {100 * random.mean:.1f} %, "
            f"best {100 * random.best:.1f} %",
            highlight=False,
        )


def _print_guards(console: Console, guards: Mapping[str, GuardChange]) -> None:
    for name, guard in guards.items():
        low, high = (100 * bound for bound in guard.delta.ci)
        console.print(
            f"guard {name}: {100 * guard.baseline:.1f} % -> {100 * guard.steered:.1f} % "
            f"({100 * guard.delta.value:+.1f} [{low:+.1f}, {high:+.1f}])",
            highlight=False,
        )


def _print_habit(console: Console, task: TaskCounts) -> None:
    if told := str(task.commonest or ""):
        console.print(Text(told))


def _print_receipts(console: Console, outcome: Outcome | None) -> None:
    if outcome is not None and outcome.receipts is not None:
        console.print(Text(f"costs: {outcome.receipts}"))


def print_inference(console: Console, found: Evidence | None) -> None:
    """How features were judged, in one line; nothing for a run that does not say."""
    if found is None or found.p_method is None or found.threshold is None:
        return
    line = (
        f"adjusted p: {found.p_method} over {found.comparisons:,} latents; "
        f"|r| above {found.threshold:.3f} is significant"
    )
    if found.stability is not None:
        line += f"; halves of the samples agree on a layer's best in {found.stability:.0%}"
    console.print(line if found.note is None else f"{line} ({found.note})", highlight=False)


def _features(features: Sequence[Feature]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("layer", "latent", "coefficient", "r [95 %]", "adjusted p", "active"):
        table.add_column(column, justify="right", no_wrap=True)
    for feature in features[:MOST_FEATURES]:
        low, high = feature.correlation_ci
        table.add_row(
            str(feature.layer),
            str(feature.latent),
            f"{feature.coefficient:.3f}",
            f"{feature.correlation:.3f} [{low:.2f}, {high:.2f}]",
            f"{feature.p_adjusted:.2g}",
            f"{feature.frequency:.0%}",
        )
    return table
