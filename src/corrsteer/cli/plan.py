"""What `corrsteer plan` does and prints.

Changes when a plan answers more.
"""

from __future__ import annotations

import dataclasses

from rich.table import Table

from corrsteer.cli.declare import flat
from corrsteer.cli.options import PlanOptions
from corrsteer.cli.output import VisibleConsole, print_json
from corrsteer.stats.sample_size import SAMPLES, Plan, plan

SCHEMA = "corrsteer.plan/1"


def run_plan(options: PlanOptions) -> None:
    """`corrsteer plan`."""
    given = {name: value for name, value in flat(options).items() if name != "as_json"}
    answer = plan(**{**given, "samples": options.samples or SAMPLES})
    if options.as_json:
        document = {"schema": SCHEMA, **dataclasses.asdict(answer)}
        print_json(document)
    else:
        VisibleConsole().print(_table(answer), highlight=False)


def _table(answer: Plan) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("question", overflow="fold")
    table.add_column("answer", justify="right", no_wrap=True)
    seen, wide, found = answer.activations, answer.width, answer.detection
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
    table.add_row("latents compared, over all layers", f"{found.comparisons:,}")
    if found.samples is not None:
        table.add_row("samples until that r is significant among them", f"{found.samples:,}")
    for samples, r in found.smallest.items():
        table.add_row(f"smallest |r| significant among them at {samples:,} samples", f"{r:.3f}")
    return table
