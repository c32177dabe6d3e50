"""How often CorrSteer finds something where there is nothing, measured on a model and a task.

Changes when another claim is calibrated. The model is run once over the fit split; what follows of
it is resampled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats
from torch import Tensor

from corrsteer.errors import ArtifactError, SettingsError
from corrsteer.execution.journal import Journal
from corrsteer.execution.units import Execution, fingerprint
from corrsteer.lm.models import LanguageModel
from corrsteer.lm.sae_placement import choose_handles, load_coders
from corrsteer.method.arms import ArmRunner, limited
from corrsteer.method.candidates import Grids
from corrsteer.method.collect import collect
from corrsteer.method.evidence import family_wise
from corrsteer.method.fit import check_coefficient, contrasts_asked, decoder_rows, grids_of
from corrsteer.method.provenance import provenance_of
from corrsteer.method.ranking import Ranking, SAEPlace, rank, with_contrasts
from corrsteer.method.splitting import Proving, SelectSplit, topped_up
from corrsteer.method.strategies import Searcher
from corrsteer.progress import SILENT, Progress
from corrsteer.runs.activation_log import ActivationLog
from corrsteer.runs.comparison import Comparison, PairedOutcomes, SampleRows
from corrsteer.runs.content import Extent
from corrsteer.runs.identity import Identity
from corrsteer.runs.steering import Steering
from corrsteer.settings import FitSettings
from corrsteer.stats.intervals import bootstrap_intervals
from corrsteer.stats.significance import LEVEL, correlation_interval
from corrsteer.tasks import Task

SCHEMA = "corrsteer.null/1"
FREQUENCIES = (0.01, 0.05, 0.2, 0.8, 1.0)
"""Bounds of the bands of frequency that intervals are tried in; a latent of each band a run."""
CORRELATIONS = (0.0, 0.3, 0.6)
"""The true r that intervals are tried at, or the most that a latent's activations allow."""

Floats = NDArray[np.float64]
Arm = tuple[list[float | None], list[bool]]
"""One steering's outcomes, and where its reply is the baseline's."""


@dataclass(frozen=True)
class Share:
    """How many of some runs something happened in.

    Attributes:
        count: runs in which it did; `runs`: all.
        share: count / runs; None without a run.
        ci: exact binomial 95 % interval, Clopper & Pearson (1934); None without a run.
    """

    count: int
    runs: int
    share: float | None
    ci: tuple[float, float] | None

    @classmethod
    def of(cls, happened: Sequence[bool]) -> Share:
        """The share of what is true."""
        count, runs = sum(happened), len(happened)
        if not runs:
            return cls(0, 0, None, None)
        interval = stats.binomtest(count, runs).proportion_ci(LEVEL, method="exact")
        return cls(count, runs, count / runs, (float(interval.low), float(interval.high)))


@dataclass(frozen=True)
class Coverage:
    """How often 95 % intervals of r hold the true r.

    Attributes:
        frequency: band of the latents' frequency, (least, most); None for all.
        correlation: the r aimed at; None for all.
        true: mean of the true r, which is lower where activations do not allow as much.
        fisher: Fisher's intervals; `bootstrap`: BCa ones, where they are defined.
    """

    frequency: tuple[float, float] | None
    correlation: float | None
    true: float
    fisher: Share
    bootstrap: Share


@dataclass(frozen=True)
class NullStudy:
    """What was found where there is nothing.

    Attributes:
        family_wise: runs in which any feature of any layer was called significant.
        recommended: runs in which any setting of any arm was recommended.
        uncorrected: those in which one would have been without Bonferroni's correction.
        coverage: of intervals of r, by frequency and r; the last is over all of them.
        settings_tried: different sets and strengths that the model was run with.
        n_fit: samples logged; `n_select`: samples of the search.
    """

    family_wise: Share
    recommended: Share
    uncorrected: Share
    coverage: tuple[Coverage, ...]
    settings_tried: int
    n_fit: int
    n_select: int


def null_study(
    lm: LanguageModel,
    task: Task,
    settings: FitSettings,
    runs: int,
    journal: Callable[[Mapping[str, Any]], Journal],
    progress: Progress = SILENT,
) -> tuple[NullStudy, Journal]:
    """How often something is found in runs where there is nothing to find.

    Every run has a seed of its own, made of the settings' seed and the run's number.

    - Family-wise: the outcomes of the fit samples are permuted, those of a group together, and
      every latent of every layer is judged by max-T permutation with permutations of its own, as
      in a fit.
    - Recommended: the search is run on the select split with the real features, their real
      steering and the model's real replies, but on a random half of the samples the outcomes of
      the baseline and of the steered arm are exchanged. The same samples for all settings, so the
      settings keep their dependence; each change has mean 0 given the replies, so no setting is
      any better than the baseline. (Random features in place of the exchange would not do: some
      really help.) Guard tasks could only veto, and are left out. Replies are kept between runs:
      what costs is a set that no run before has tried.
    - Coverage: a latent of each band of frequency is drawn, and its logged activations are a
      population. Outcomes of 0 and 1 have a probability linear in the activation, so the
      population's r is known. As many samples as were logged are drawn from it.

    Args:
        lm: a model with SAEs.
        task: its fit and select splits are used.
        settings: of the fit; `val_limit` caps the samples of the search.
        runs: of each part.
        journal: opens the record of what was done before, given what the study is of.
        progress: told how far it is.

    Raises:
        SettingsError: a strategy alone, or no log or permutations: the study needs them.
        ArtifactError: the log was given up, or the journal is of another study.
        InsufficientDataError: outcomes that do not vary.
    """
    _check(settings, runs)
    check_coefficient(settings, lm.sae_source)
    made = provenance_of(lm.facts, task, (), choose_handles(lm, settings.layers))
    identity = Identity(made, settings, Extent())
    records = journal({**_header(lm, task, settings), "identity": identity.document()})
    runs_of = _collected(lm, task, settings, Execution(progress))
    for record in records.records:
        runs_of.exchanged.known |= record.get("arms", {})
    parts = {
        "family_wise": runs_of.family_wise,
        "coverage": runs_of.coverage,
        "recommended": runs_of.recommended,
    }
    for name, part in parts.items():
        done = sum(record["part"] == name for record in records.records)
        with progress.stage(f"null runs: {name.replace('_', '-')}", runs) as advance:
            advance(min(done, runs))
            for run in range(done, runs):
                records.add({"part": name, **part(run)})
                advance(1)
    n_select = runs_of.select.n_select
    return _study(records, runs, settings, len(runs_of.log.ids), n_select), records


def _collected(lm: LanguageModel, task: Task, settings: FitSettings, execution: Execution) -> _Runs:
    """What every null run is made from: the log, the ranking and the select split.

    Raises:
        ArtifactError: the log was given up.
    """
    task = topped_up(task, settings)
    select = SelectSplit.of(lm, task, settings, execution)
    handles = choose_handles(lm, settings.layers)
    samples = limited(task.fit, settings.samples, settings.seed, task.shuffled)
    coders = load_coders(handles, lm, settings.sae_dtype)
    collection = collect(lm, task, samples, coders, settings, execution)
    log = collection.log
    if log is None:
        raise ArtifactError(f"{collection.log_note}; choose fewer --samples")
    places = {h.hook_point: SAEPlace(h.layer, h.neuronpedia) for h in handles}
    ranking = rank(
        collection.statistics,
        settings.coefficient,
        places,
        settings.min_frequency,
        settings.method,
        settings.sign,
    )
    contrasted = contrasts_asked(collection, settings)
    ranking = with_contrasts(
        ranking, collection.statistics, contrasted, places, settings.min_frequency
    )
    rows = decoder_rows(ranking, handles, settings)
    return _Runs(
        settings,
        log,
        frequency_bands(log),
        Exchanged(select.runner),
        select,
        ranking,
        rows,
        grids_of(collection, ranking, rows, settings),
    )


@dataclass(frozen=True)
class _Runs:
    """The three parts of a null run, by its number; what each found, as JSON."""

    settings: FitSettings
    log: ActivationLog
    bands: Sequence[Band]
    exchanged: Exchanged
    select: SelectSplit
    ranking: Ranking
    rows: Mapping[tuple[str, int], Tensor]
    grids: Grids

    def family_wise(self, run: int) -> dict[str, Any]:
        rng = self._rng(run, "family_wise")
        outcomes = self.log.groups.permuted(self.log.outcomes, 1, rng)[:, 0]
        seeded = dataclasses.replace(self.settings, seed=(self.settings.seed + 1 + run) % 2**32)
        found = family_wise(self.log, seeded, outcomes).values()
        p = min((float(np.nanmin(each)) for each in found if not np.isnan(each).all()), default=1.0)
        return {"p": p}

    def coverage(self, run: int) -> dict[str, Any]:
        return {"intervals": _intervals(self.bands, self.log, self._rng(run, "coverage"))}

    def recommended(self, run: int) -> dict[str, Any]:
        self.exchanged.draw(self._rng(run, "recommended"))
        proving = Proving(self.exchanged, self.select.halves)
        search = Searcher(proving, [], self.ranking, self.rows, self.settings, self.grids).run()
        changes = [trial.delta for trial in search.record.trials]
        alpha = self.settings.alpha
        return {
            "recommended": search.recommended is not None,
            "uncorrected": any(d.value > 0 and d.p_value < alpha for d in changes),
            "arms": self.exchanged.news(),
        }

    def _rng(
        self, run: int, part: Literal["family_wise", "coverage", "recommended"]
    ) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, run, *part.encode()])


class Exchanged:
    """The select split with the arms' outcomes exchanged on some samples; see `null_study`.

    Attributes:
        lm: the model.
        task: the task; `samples`: those of its select split; `groups`: a label each.
        known: what each steering did to each sample, kept between runs.
    """

    def __init__(self, runner: ArmRunner):
        self.lm, self.task = runner.lm, runner.task
        self.known: dict[str, Arm] = {}
        self._runner = runner
        self.samples, self.groups = runner.samples, runner.groups
        self._new: dict[str, Arm] = {}
        self._swapped = np.zeros(len(runner.samples), dtype=bool)

    def draw(self, rng: np.random.Generator) -> None:
        """Choose other samples, or groups of them, whose outcomes are exchanged."""
        groups = self._runner.groups
        self._swapped = (rng.random(groups.max() + 1) < 0.5)[groups]

    def news(self) -> dict[str, Arm]:
        """What the model was run for since this was last asked."""
        news, self._new = self._new, {}
        return news

    def outcomes(
        self,
        steerings: Sequence[Steering],
        name: str = "steered",
        rows: SampleRows | None = None,
    ) -> list[PairedOutcomes]:
        """Each steering's outcomes with the baseline's, after the exchange."""
        if rows is not None:  # all are run, and kept: the next run asks for others of them
            return [each.part(rows) for each in self.outcomes(steerings, name)]
        baseline = self._runner.baseline  # first, so that a continued study batches alike
        keys = [_arm_key(steering) for steering in steerings]
        missing = {key: s for key, s in zip(keys, steerings, strict=True) if key not in self.known}
        for key, arm in zip(
            missing, self._runner.steered(list(missing.values()), name), strict=True
        ):
            outcomes = [None if np.isnan(y) else float(y) for y in arm.outcomes]
            same = [a == b for a, b in zip(baseline.texts, arm.texts, strict=True)]
            self.known[key] = self._new[key] = (outcomes, same)
        return [self._exchanged(baseline.outcomes, *self.known[key]) for key in keys]

    def compare(self, steerings: Sequence[Steering], name: str = "steered") -> list[Comparison]:
        """Each steering beside the baseline, after the exchange."""
        return [each.comparison() for each in self.outcomes(steerings, name)]

    def _exchanged(
        self, baseline: Floats, outcomes: list[float | None], same: list[bool]
    ) -> PairedOutcomes:
        steered = np.array(outcomes, dtype=np.float64)
        swapped = self._swapped
        return PairedOutcomes(
            np.where(swapped, steered, baseline),
            np.where(swapped, baseline, steered),
            np.array(same, dtype=bool),
            self._runner.groups,
        )


@dataclass(frozen=True)
class Band:
    """Latents of a band of frequency.

    Attributes:
        least: the lowest frequency; `most`: the highest, itself only in the last band.
        activations: theirs, of all hook points, [latents, samples].
    """

    least: float
    most: float
    activations: sparse.csr_array


def frequency_bands(log: ActivationLog) -> list[Band]:
    """The latents of a log that vary, by their frequency; bands without any are left out."""
    together = sparse.vstack([log.activations(name) for name in log.widths]).tocsr()
    n = together.shape[1]
    frequency = np.asarray((together > 0).sum(axis=1)).ravel() / n
    varies = together.max(axis=1).toarray().ravel() > together.min(axis=1).toarray().ravel()
    bands = []
    for least, most in pairwise(FREQUENCIES):
        below = frequency <= most if most == FREQUENCIES[-1] else frequency < most
        index = np.flatnonzero(varies & (frequency >= least) & below)
        if len(index):
            bands.append(Band(least, most, together[index]))
    return bands


def correlated_probabilities(z: Floats, mean: float, correlation: float) -> tuple[Floats, float]:
    """P(y = 1 | z) such that a population of those z has a known correlation with y.

    p = mean + b (z - mean z), for which r = b sd(z) / sqrt(mean (1 - mean)); b is at most what
    keeps every p in [0, 1].

    Args:
        z: the population, not constant.
        mean: of y, in (0, 1).
        correlation: aimed at, 0 or more.

    Returns:
        p of every z, and the r that it gives.
    """
    centred, spread = z - z.mean(), float(np.sqrt(mean * (1 - mean)))
    steepest = min((1 - mean) / centred.max(), mean / -centred.min())
    slope = min(correlation * spread / z.std(), steepest)
    return mean + slope * centred, float(slope * z.std() / spread)


def _intervals(
    bands: Sequence[Band], log: ActivationLog, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """An interval of each kind for a latent of each band at each r: whether it holds the true r.

    None where there is none, as for a sample in which the latent or the outcome is constant.
    """
    n = len(log.ids)
    mean = float(np.clip(log.outcomes.mean(), 0.05, 0.95))
    found: list[dict[str, Any]] = []
    for band in bands:
        for correlation in CORRELATIONS:
            latent = rng.integers(band.activations.shape[0])
            z = band.activations[[latent]].toarray()[0]
            p, true = correlated_probabilities(z, mean, correlation)
            drawn = rng.integers(0, n, n)
            sample, outcomes = z[drawn], (rng.random(n) < p[drawn]).astype(np.float64)
            fisher = bootstrap = None
            if np.ptp(sample) and np.ptp(outcomes):
                low, high = correlation_interval(float(np.corrcoef(sample, outcomes)[0, 1]), n)
                fisher = low <= true <= high
                ends = bootstrap_intervals(sample[None], outcomes, seed=int(rng.integers(2**32)))[0]
                bootstrap = None if np.isnan(ends).any() else bool(ends[0] <= true <= ends[1])
            found.append(
                {
                    "frequency": [band.least, band.most],
                    "correlation": correlation,
                    "true": true,
                    "fisher": fisher,
                    "bootstrap": bootstrap,
                }
            )
    return found


def _coverages(intervals: Sequence[Mapping[str, Any]]) -> tuple[Coverage, ...]:
    """One a band and r, then one over all."""
    cells: dict[Any, list[Mapping[str, Any]]] = {}
    for each in intervals:
        band = (each["frequency"][0], each["frequency"][1])
        cells.setdefault((band, each["correlation"]), []).append(each)
    if intervals:
        cells[None, None] = list(intervals)
    return tuple(
        Coverage(
            frequency,
            correlation,
            float(np.mean([each["true"] for each in cell])),
            *(
                Share.of([each[kind] for each in cell if each[kind] is not None])
                for kind in ("fisher", "bootstrap")
            ),
        )
        for (frequency, correlation), cell in cells.items()
    )


def _study(
    journal: Journal, runs: int, settings: FitSettings, n_fit: int, n_select: int
) -> NullStudy:
    """The first runs of every part, added up."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for record in journal.records:
        parts.setdefault(record["part"], []).append(record)
    family, coverage, searches = (
        parts[name][:runs] for name in ("family_wise", "coverage", "recommended")
    )
    return NullStudy(
        family_wise=Share.of([record["p"] <= settings.alpha for record in family]),
        recommended=Share.of([record["recommended"] for record in searches]),
        uncorrected=Share.of([record["uncorrected"] for record in searches]),
        coverage=_coverages([each for record in coverage for each in record["intervals"]]),
        settings_tried=sum(len(record["arms"]) for record in searches),
        n_fit=n_fit,
        n_select=n_select,
    )


def _check(settings: FitSettings, runs: int) -> None:
    if runs < 1:
        raise SettingsError(f"runs is {runs}; choose 1 or more")
    if settings.strategy != "auto":
        raise SettingsError(
            f"strategy is {settings.strategy}; a null study tries all, as auto does"
        )
    if not settings.log or not settings.permutations:
        raise SettingsError("a null study permutes logged outcomes; leave log and permutations on")


def _header(lm: LanguageModel, task: Task, settings: FitSettings) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "model": {"id": lm.id, "revision": lm.revision, "hook_shift": lm.hook_shift},
        "sae": lm.sae_source,
        "task": {
            "name": task.name,
            "scorer": task.scorer.name,
            "max_new_tokens": task.max_new_tokens,
        },
        "settings": dataclasses.asdict(settings),
    }


def null_document(
    study: NullStudy, lm: LanguageModel, task: Task, settings: FitSettings
) -> dict[str, Any]:
    """The study as `null.json` holds it."""
    return {**_header(lm, task, settings), **dataclasses.asdict(study)}


def _arm_key(steering: Steering) -> str:
    return fingerprint("arm", steering.scaled(), steering.positions)
