"""What `corrsteer plan` does and prints.

Changes when a plan answers more.
"""

from __future__ import annotations

import dataclasses

from rich.table import Table

from corrsteer.cli.declare import flat
from corrsteer.cli.options import PlanOptions
from corrsteer.cli.output import VisibleConsole, print_json
from corrsteer.stats.sample_size import SAMPLES, Plan, Questions, plan

SCHEMA = "corrsteer.plan/1"


def run_plan(options: PlanOptions) -> None:
    """`corrsteer plan`."""
    given = {name: value for name, value in flat(options).items() if name != "as_json"}
    answer = plan(Questions(**{**given, "samples": options.samples or SAMPLES}))
    if options.as_json:
        document = {"schema": SCHEMA, **dataclasses.asdict(answer)}
        print_json(document)
    else:
        VisibleConsole().print(_table(answer), highlight=False)


def _table(answer: Plan) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("question", overflow="fold")
    table.add_column("answer", justify="right", no_wrap=True)
    seen, wide, found, change = (
        answer.activations,
        answer.width,
        answer.detection,
        answer.change,
    )
    table.add_row(
        f"samples until a latent active on {seen.frequency:.3g} of them was active {seen.k} times, "
        f"with probability {1 - seen.delta:g}: exact",
        f"{seen.exact:,}",
    )
    table.add_row("the same by Hoeffding's inequality", f"{seen.hoeffding:,}")
    table.add_row("the same as the paper prints it (guarantees nothing)", f"{seen.printed:,}")
    if wide is not None:
        table.add_row(
            f"samples until the 95 % interval of r = {wide.correlation:g} is no wider than "
            f"{wide.width:g}",
            f"{wide.samples:,}",
        )
    beyond = "" if found.possible in (None, True) else ", less than asked for"
    table.add_row("largest r at that frequency", f"{found.largest:.3f}{beyond}")
    table.add_row("latents compared, over all layers", f"{found.comparisons:,}")
    if found.samples is not None:
        table.add_row(
            f"samples until that r is significant among them, with a power of {found.power:.0%}",
            f"{found.samples:,}",
        )
    for samples, r in found.smallest.items():
        table.add_row(f"smallest |r| significant among them at {samples:,} samples", f"{r:.3f}")
    worse = f" while {change.worse:.1%} get worse" if change.worse else ""
    table.add_row(
        f"samples to confirm a gain of {100 * change.gain:g} points{worse}, with a power of "
        f"{change.power:.0%}; a search chooses on as many again",
        f"{change.samples:,}",
    )
    table.add_row(
        f"guard samples that rule out a loss of {100 * change.tolerance:g} points, where none "
        "changes; a search takes half of them for it",
        f"{change.guard_samples:,}",
    )
    return table
