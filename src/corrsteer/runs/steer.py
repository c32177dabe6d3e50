"""Steering a model: whether a steering is for it, and adding it while one is inside.

Changes when a steering is tied to its model by something else, or is switched on in another way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corrsteer.errors import ModelError
from corrsteer.lm.hooks import adding, find_blocks, unwrapped
from corrsteer.lm.known_models import canonical_name
from corrsteer.lm.models import LanguageModel
from corrsteer.runs.steering import Steering


@contextmanager
def steer(
    lm: LanguageModel | Any,
    steering: Steering,
    strength: float | None = None,
    force: bool = False,
) -> Iterator[None]:
    """While inside, the model is steered; on leaving, also by an exception, it is itself again.

    Args:
        lm: a `LanguageModel`, a bare causal language model of transformers, or one inside the
            wrappers of peft, accelerate, torch.compile or parallel modules.
        steering: what to add.
        strength: the steering's own if None; 0 leaves the model bitwise as it is.
        force: steer a model that the steering was not made for, if its width and layers fit.

    Raises:
        ModelError: the steering is for another model.
    """
    check_fit(lm, steering, force)
    model = lm.model if isinstance(lm, LanguageModel) else lm
    with adding(model, steering.scaled(strength), steering.positions):
        yield


def check_fit(lm: LanguageModel | Any, steering: Steering, force: bool = False) -> None:
    """Refuse a steering that is not for this model.

    Args:
        lm: a `LanguageModel`, or a bare causal language model of transformers.
        steering: what is to be added to it.
        force: let pass what `mismatch` finds; width and layers must fit even so.

    Raises:
        ModelError: it does not fit.
    """
    model = unwrapped(lm.model if isinstance(lm, LanguageModel) else lm)
    d_model = int(model.config.get_text_config().hidden_size)
    n_layers = len(find_blocks(model))
    for hook_point, vector in steering.vectors.items():
        if len(vector) != d_model or not 0 <= hook_point.layer < n_layers:
            raise ModelError(
                f"the steering is for {steering.model or 'another model'}: {hook_point} with "
                f"d_model {len(vector)} does not fit {type(model).__name__} with {n_layers} "
                f"layers of d_model {d_model}; steer the model it was made on"
            )
    reason = None if force else mismatch(lm, steering)
    if reason is not None:
        raise ModelError(f"{reason}; steer the model it was made on, or give --force (force=True)")


def mismatch(lm: LanguageModel | Any, steering: Steering) -> str | None:
    """Why the steering is not for this model; None where nothing speaks against it.

    Names and commits of the hub are compared, and the kind of model. Of a folder nobody knows
    which model it holds, so a name never speaks against it.
    """
    if isinstance(lm, LanguageModel):
        config, name, revision = lm.model.config, lm.id, lm.revision
    else:
        config = unwrapped(lm).config
        name = config.name_or_path
        revision = getattr(config, "_commit_hash", None)
    made_for, given = canonical_name(steering.model), canonical_name(name)
    kind, given_kind = steering.metadata.get("model_type"), config.get_text_config().model_type
    if kind and kind != given_kind:
        return f"the steering is for a model of type {kind}, and this one is {given_kind}"
    if not made_for or not given or _is_folder(made_for) or _is_folder(given):
        return None
    if made_for != given:
        return f"the steering is for {made_for}, and this model is {given}"
    if steering.revision and revision and steering.revision != revision:
        return (
            f"the steering is for revision {steering.revision} of {made_for}, and this is "
            f"{revision}"
        )
    return None


def _is_folder(name: str) -> bool:
    return Path(name).is_absolute() or name.startswith(".") or os.path.isdir(name)  # noqa: PTH112
