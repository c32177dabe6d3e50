"""How often a small task's run recommends what holds on its test split, and how often by chance.

The paper's HarmBench has 108 fit, 12 select and 280 test rows. Rows of mini-harmbench are drawn to
these sizes by seeds 0, 1, ...; with --permuted the fit outcomes are drawn by chance, so that
features mean nothing and "helps" would be an error, whatever their steering does.

    python benchmarks/small_splits.py --runs 20
    python benchmarks/small_splits.py --runs 100 --permuted
    python benchmarks/small_splits.py --runs 200 --null

With --null the select split's outcomes with and without steering are exchanged at random in every
run, so that no setting is better than the baseline; see `study null`.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from corrsteer.execution.journal import Journal
from corrsteer.lm.models import load_model
from corrsteer.method.train import train
from corrsteer.samples import Sample
from corrsteer.scoring.base import Score, Scorer
from corrsteer.settings import FitSettings
from corrsteer.studies.null import null_study
from corrsteer.tasks import Task, load_task, own_guards

SIZES = (108, 12, 280)


@dataclass(frozen=True)
class Permuted:
    """A scorer that gives each fit sample the outcome drawn for it, and judges all others.

    Attributes:
        scorer: judges the others.
        outcomes: id -> outcome.
    """

    scorer: Scorer
    outcomes: dict[str, float] = field(default_factory=dict)
    name: str = "permuted"
    needs_target: bool = False

    def __call__(self, reply: str, sample: Sample) -> Score:
        """The outcome of a reply."""
        if sample.id in self.outcomes:
            return Score(self.outcomes[sample.id])
        return self.scorer(reply, sample)


def drawn(task: Task, seed: int, share_right: float | None) -> Task:
    """The task with rows drawn to `SIZES`; with outcomes by chance where a share is given."""
    rows = [*task.fit, *task.select, *task.test]
    random.Random(seed).shuffle(rows)
    n_fit, n_select, n_test = SIZES
    fit, select = rows[:n_fit], rows[n_fit : n_fit + n_select]
    test = rows[n_fit + n_select : n_fit + n_select + n_test]
    scorer: Scorer = task.scorer
    if share_right is not None:
        rng = np.random.default_rng(seed)
        scorer = Permuted(task.scorer, {s.id: float(rng.random() < share_right) for s in fit})
    return replace(task, fit=tuple(fit), select=tuple(select), test=tuple(test), scorer=scorer)


def main() -> None:
    """Print a row a run, then the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--task", default="mini-harmbench")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--permuted", action="store_true")
    parser.add_argument("--null", action="store_true")
    parser.add_argument("--controls", type=int, default=3)
    options = parser.parse_args()
    lm, task = load_model("mini"), load_task(options.task)
    if options.null:
        settings = FitSettings(controls=0, permutations=1)
        with tempfile.TemporaryDirectory() as out:
            found, _ = null_study(
                lm,
                drawn(task, 0, None),
                settings,
                options.runs,
                lambda header: Journal(Path(out) / "null", header),
            )
        print("recommended", found.recommended, "of", found.n_select, "select samples")
        return
    guards = own_guards(task)
    kinds: Counter[str] = Counter()
    for seed in range(options.runs):
        own = drawn(task, seed, 0.5 if options.permuted else None)
        settings = FitSettings(seed=seed, controls=options.controls, permutations=200)
        with tempfile.TemporaryDirectory() as out:
            run, document = train(lm, own, guards, settings, Path(out) / "run")
        kinds[document.verdict.kind] += 1
        confirmed = run.search.n_confirmed if run.search else 0
        print(
            f"{seed:3} {document.verdict.kind:16} ({confirmed}) {document.verdict.text}", flush=True
        )
    print(dict(kinds))


if __name__ == "__main__":
    main()
