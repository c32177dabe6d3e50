"""What the names in a run stand for, and how far it goes.

Changes when results depend on something else that settings do not say. What a run from before does
not tell is None or empty here, and counts for unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Content:
    """What the model, SAEs, scorer and data of a run were, by digests of their bytes.

    Attributes:
        dtype: of the model's weights.
        model: file -> digest, of a model in a folder; one of the hub is told by its commit.
        saes: hook point -> digest of the SAE's files, or the commit of its repository.
        scorer: digest of the source of the module that a function scorer is defined in.
        samples: split -> digest of the task's samples, and guard -> of all of its samples.
        task_file: digest of the file that the task was read from; it tells where the file lies now,
            and not what was made of it.
        task_data: digest of the files that a benchmark was read from in a local copy.
    """

    dtype: str = ""
    model: Mapping[str, str] = field(default_factory=dict)
    saes: Mapping[str, str] = field(default_factory=dict)
    scorer: str = ""
    samples: Mapping[str, str] = field(default_factory=dict)
    task_file: str = ""
    task_data: str = ""


@dataclass(frozen=True)
class Extent:
    """What of a run was asked for.

    Attributes:
        unit_samples: samples done together; sums are rounded unit by unit.
        collected: digest of the statistics that were taken in place of collecting; "" for none.
        evaluated: whether the test split was to be run.
        explained: whether features were to be looked up.
        neutral: digest of the neutral text that a user gave; "" for ours.
    """

    unit_samples: int | None = None
    collected: str | None = None
    evaluated: bool | None = None
    explained: bool | None = None
    neutral: str | None = None
