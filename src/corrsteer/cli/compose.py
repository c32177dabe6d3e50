"""What `corrsteer compose` does.

Changes when an option of it means something else.
"""

from __future__ import annotations

from corrsteer.cli.common import facts_asked, quietly
from corrsteer.cli.options import ComposeOptions
from corrsteer.cli.output import print_json, say
from corrsteer.files import check_free
from corrsteer.method.compose import compose
from corrsteer.runs.named_latents import NamedLatent, named_latents
from corrsteer.runs.records import VectorRecord
from corrsteer.studies.paper.published import paper_latents

PAPER = "paper:"
"""How the paper's features are asked for, with the name of a task behind it."""


def run_compose(options: ComposeOptions) -> None:
    """`corrsteer compose`."""
    out = check_free(options.out)
    with quietly():
        facts = facts_asked(options.model, "")
        steering = compose(facts, _latents(options), options.positions, options.strength)
        steering.save(out)
    document = {
        "schema": "corrsteer.compose/1",
        "model": {"id": steering.model, "revision": steering.revision},
        "steering": str(out),
        "strength": steering.strength,
        "vectors": [vars(each) for each in VectorRecord.all_of(steering)],
        "direction": steering.direction,
    }
    if options.as_json:
        print_json(document)
    else:
        say((f"{out}: {steering.described}", f"try it by: corrsteer eval {out} --task T"))


def _latents(options: ComposeOptions) -> tuple[NamedLatent, ...]:
    named = options.features
    if not named.startswith(PAPER):
        return named_latents(named)
    found = paper_latents(options.model.model or "", named.removeprefix(PAPER))
    return tuple(NamedLatent(*each) for each in found)
