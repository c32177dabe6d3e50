"""What a consumer of a steering is, and what consumers have in common.

Changes when consumers are asked for something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from corrsteer.errors import ConsumerError
from corrsteer.runs.steering import Steering
from corrsteer.settings import Positions


@dataclass(frozen=True)
class Exported:
    """A steering in a consumer's format.

    Attributes:
        content: of the file; for a folder, file name -> content.
        steering: what the consumer then does: its vectors, and the positions it steers at.
        notes: what is not as in the run, a sentence each.
    """

    content: bytes | Mapping[str, bytes]
    steering: Steering
    notes: tuple[str, ...] = ()


@runtime_checkable
class Consumer(Protocol):
    """A program that steers by a file of its own format.

    Attributes:
        name: what `--to` takes.
        suffix: how the name of its file ends; empty for a folder.
        checks: what `verify` does inside it: check -> the positions that are steered there, or
            None for those that the steering says.
        probe: the script of `probes` that does it, by a Python which has the consumer.
        install: the make target that sets up such a Python; empty where none is needed.
        takes_model_path: whether it needs the model in a format of its own.
        tolerances: type of model -> the difference of logits that is the consumer's own rounding,
            where `verify.TOLERANCES` is too strict for it.
    """

    name: str
    suffix: str
    checks: Mapping[str, Positions | None]
    probe: str
    install: str
    takes_model_path: bool
    tolerances: Mapping[str, float]

    def render(self, steering: Steering, drop_block_0: bool = False) -> Exported:
        """The steering, at its own strength, in the consumer's format.

        Args:
            steering: with at least one vector that is not zero.
            drop_block_0: leave out a vector of block 0 where the consumer cannot take it.

        Raises:
            ConsumerError: the consumer cannot do what the steering says.
        """


def block_outputs(steering: Steering, consumer: str) -> dict[int, Tensor]:
    """What is added to the output of each block: block -> vector times strength, [d_model].

    The residual before block L is the one after block L-1. Vectors that meet add.

    Raises:
        ConsumerError: a vector is for a place that is no block's output.
    """
    added: dict[int, Tensor] = {}
    for hook_point, vector in steering.scaled().items():
        if hook_point.site == "mlp_out" or hook_point.order == (0, 0):
            raise ConsumerError(
                f"{consumer} adds to the output of blocks, and {hook_point} is not one; "
                "export --to torch instead"
            )
        block = hook_point.layer - (hook_point.site == "resid_pre")
        added[block] = added[block] + vector if block in added else vector
    return dict(sorted(added.items()))


def scope_note(steering: Steering, consumer: str) -> tuple[str, ...]:
    """A note for a consumer that steers at all positions, where the steering means fewer."""
    if steering.positions == "all":
        return ()
    return (
        f"{consumer} steers at every position, the prompt's too; "
        "this run was evaluated at generated positions only",
    )
