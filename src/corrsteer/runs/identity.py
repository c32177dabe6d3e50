"""Whether two runs are the same: made of the same content with the same settings.

Changes when runs are told apart by something else. Finished runs, unfinished ones and parts that
are to be added up are all compared here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corrsteer.errors import ArtifactError
from corrsteer.runs.content import Content, Extent
from corrsteer.runs.run import Provenance, Run
from corrsteer.settings import FitSettings
from corrsteer.tasks.rows import is_task_file

LABELS = {
    "sae_ids": "the SAE at {}",
    "files": "{} of the model",
    "data_files": "{}",
    "saes": "the SAE at {}",
    "scorer_source": "the source of the scorer",
    "rows": "the {} samples",
    "scorer_sources": "the source of the scorer of {}",
    "collected": "what was collected",
    "neutral": "the neutral text",
    "template_options": "the chat template's option {}",
}
"""What is called otherwise than by its own name."""

DIGESTS = (
    *("files", "saes", "scorer_source", "rows", "collected", "neutral"),
    *("data_files", "scorer_sources"),  # of studies
)
"""What is compared by digests, which say nothing to people."""

OF_STATISTICS = (
    *("model", "revision", "files", "sae_source", "sae_ids", "saes", "hook_shift", "dtype"),
    *("scorer", "scorer_source", "max_new_tokens", "few", "chat", "select_token"),
    *("template_options", "good_above"),
    *("pool", "steer_pool", "positions", "sae_dtype"),
)
"""What runs must have in common for their statistics to be of the same thing."""


@dataclass(frozen=True)
class Difference:
    """The first thing that two documents differ in.

    Attributes:
        what: it is.
        there: its value in the one.
        here: its value in the other.
        by_digest: whether these are digests.
    """

    what: str
    there: object
    here: object
    by_digest: bool = False

    def __str__(self) -> str:
        what, there, here = self.what[:300], repr(self.there)[:300], repr(self.here)[:300]
        if not self.by_digest:
            return f"{what} is {there} there, {here} here"
        if self.there is None:
            return f"{what}: new"
        return f"{what}: gone" if self.here is None else f"{what}: changed"


@dataclass(frozen=True)
class Identity:
    """What a run is: two that are alike have the same results, but for times."""

    provenance: Provenance
    settings: FitSettings
    extent: Extent
    shard: str | None = None

    @classmethod
    def of(cls, run: Run) -> Identity:
        """That of a run."""
        return cls(run.provenance, run.settings, run.extent, run.counts.shard)

    def document(self) -> dict[str, Any]:
        """All that is compared, as JSON; what is not known is left out.

        Versions of libraries are not: they tell what made a finished run, not what it is. Nor are
        generation settings, which are of the model's files.
        """
        made = dataclasses.asdict(self.provenance)
        content, options, sae_ids = (made.pop(n) for n in ("content", "task_options", "sae_ids"))
        del made["versions"], made["switched_off"]
        named = {
            "dtype": content["dtype"],
            "files": content["model"],
            "saes": content["saes"],
            "scorer_source": content["scorer"],
            "rows": content["samples"],
        }
        extent = dataclasses.asdict(self.extent)
        document = {
            **{"shard": self.shard, **made, **options, **dataclasses.asdict(self.settings)},
            "sae_ids": sae_ids,
            **{name: value for name, value in named.items() if value},
            **{name: value for name, value in extent.items() if value is not None},
        }
        found: dict[str, Any] = json.loads(json.dumps(document))
        return found


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> Difference | None:
    """The first thing in which two JSON documents differ, or None."""
    for key in {**one, **other}:
        there, here = one.get(key), other.get(key)
        if there == here:
            continue
        by_digest = key in DIGESTS
        if not isinstance(there, dict) or not isinstance(here, dict):
            return Difference(LABELS.get(key, key), there, here, by_digest)
        within = difference(there, here)
        if within is not None and key in LABELS:
            what = LABELS[key].format(within.what)
            return replace(within, what=what, by_digest=by_digest)
        return within
    return None


def known_difference(
    there: Identity, here: Identity, names: Collection[str] | None = None
) -> Difference | None:
    """The first thing, of those named or of all, that is known of both and differs."""
    one, other = there.document(), here.document()
    common = [name for name in one if name in other and (names is None or name in names)]
    return difference({name: one[name] for name in common}, {n: other[n] for n in common})


def check_alike(
    name: str, made: Identity, hooks: Sequence[str], other_name: str, other: Run
) -> None:
    """Refuse a run whose statistics are not of the same thing.

    Files of a user's own may have different names: parts of one data set do.

    Args:
        name: of what is made.
        made: its identity.
        hooks: names of its hook points.
        other_name: of the other.
        other: a run with statistics.

    Raises:
        ArtifactError: they differ; names what in.
    """
    theirs = Identity.of(other)
    task, another = made.provenance.task, theirs.provenance.task
    names = {*OF_STATISTICS}
    if not (is_task_file(task) and is_task_file(another)):
        names.add("task")
    found = known_difference(theirs, made, names)
    if found is None and task == another and made.settings.seed == theirs.settings.seed:
        found = _other_rows(theirs.provenance.content, made.provenance.content)
    if list(hooks) != list(other.statistics):
        found = Difference("hook points", list(other.statistics), list(hooks))
    if found is None:
        return
    told = f"{other_name} has {found.what} {found.there!r}, but {name} has {found.here!r}"
    if found.by_digest:
        told = f"{other_name} is of something else than {name}: {found}"
    raise ArtifactError(
        f"{told}; only what was collected with the same model, SAEs, task and pooling goes together"
    )


def _other_rows(one: Content, other: Content) -> Difference | None:
    """Whether two runs of one task and seed had different fit samples, where both tell."""
    there, here = ({"fit": each.samples.get("fit")} for each in (one, other))
    known = there["fit"] is not None and here["fit"] is not None
    return difference({"rows": there}, {"rows": here}) if known else None


def check_same(folder: Path, there: Identity, here: Identity) -> None:
    """Refuse a folder that holds another run.

    Raises:
        ArtifactError: names what differs.
    """
    found = known_difference(there, here)
    if found is not None:
        raise ArtifactError(
            f"{folder} holds a run already, of something else ({found}); give the same options "
            "again, choose another --out, or remove it"
        )
