import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import sparse, stats

import corrsteer as cs
from corrsteer.cli import cli, main
from corrsteer.errors import SettingsError
from corrsteer.execution.journal import Journal
from corrsteer.method.arms import ArmRunner
from corrsteer.runs.activation_log import ActivationLog
from corrsteer.runs.steering import Steering
from corrsteer.settings import FitSettings
from corrsteer.studies.null import (
    Band,
    Exchanged,
    Share,
    _coverages,
    _intervals,
    correlated_probabilities,
    null_study,
)

SCORER = r"regex:^\s*[n-zN-Z0-4]"


def test_a_share_has_its_exact_interval():
    share = Share.of([True] * 7 + [False] * 193)
    assert (share.count, share.runs, share.share) == (7, 200, 0.035)
    # Clopper & Pearson by quantiles of the beta distribution
    assert share.ci == pytest.approx(
        (stats.beta.ppf(0.025, 7, 194), stats.beta.ppf(0.975, 8, 193)), abs=1e-9
    )
    assert Share.of([]) == Share(0, 0, None, None)


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("frequency", [0.02, 0.5, 1.0])
def test_outcomes_correlate_with_a_population_as_is_said(correlation, frequency):
    rng = np.random.default_rng(0)
    z = rng.lognormal(size=500) * (rng.random(500) < frequency)
    p, true = correlated_probabilities(z, 0.3, correlation)
    assert p.min() >= -1e-12
    assert p.max() <= 1 + 1e-12
    assert 0 <= true <= correlation + 1e-12
    assert true == pytest.approx(correlation) or p.max() == pytest.approx(1)
    # every member of the population twice, right and wrong, weighted by its probability
    both, y = np.concatenate([z, z]), np.repeat([1.0, 0.0], 500)
    covariance = np.cov(both, y, aweights=np.concatenate([p, 1 - p]), ddof=0)
    r = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert r == pytest.approx(true, abs=1e-12)


def test_intervals_of_normal_like_activations_cover_as_promised(tmp_path):
    rng = np.random.default_rng(0)
    z = rng.uniform(1, 2, size=(1, 300))
    ids = tuple(map(str, range(300)))
    log = ActivationLog(tmp_path, {"a": 1}, ids, rng.integers(0, 2, 300).astype(np.float64), ids)
    bands = [Band(0.8, 1.0, sparse.csr_array(z))]
    found = [_intervals(bands, log, np.random.default_rng(seed)) for seed in range(30)]
    *cells, everything = _coverages([each for intervals in found for each in intervals])
    assert [cell.correlation for cell in cells] == [0.0, 0.3, 0.6]
    assert [cell.true for cell in cells] == pytest.approx([0.0, 0.3, cells[2].true])
    for share in (everything.fisher, everything.bootstrap):
        assert share.runs == 90
        assert share.count >= 78  # 95 % of 90, less what chance takes once in 1,000
        assert share.count < 90  # the true r is not in every interval


@pytest.fixture(scope="module")
def task(task_file):
    return cs.load_task(task_file, scorer=SCORER, max_new_tokens=2)


SETTINGS = FitSettings(permutations=99, batch_size=16, near_ties=1, strengths=(1.0,), alpha=0.5)


def study(lm, task, path, runs=3, settings=SETTINGS):
    return null_study(lm, task, settings, runs, lambda header: Journal(path, header))


def test_the_exchange_swaps_arms_and_keeps_pairs(lm, task):
    runner = ArmRunner(lm, task, "select", batch_size=16)
    run = cs.fit(lm, task, strategy="A", batch_size=16)
    nothing = Steering({}, (), lm.id, lm.revision)
    arms = Exchanged(runner)
    steerings = [run.steering.at(8.0), nothing]
    real, still = (replace(each, unread=None) for each in runner.compare(steerings))
    assert real.side_effects.ser is not None, "the steering changes something"
    assert arms.compare(steerings) == [real, still]  # nothing is exchanged yet
    assert len(arms.news()) == 2
    arms._swapped[:] = True
    turned, still = arms.compare(steerings)
    assert arms.news() == {}
    assert (turned.baseline, turned.steered) == (real.steered, real.baseline)
    assert turned.delta.value == -real.delta.value
    assert turned.delta.p_value == real.delta.p_value
    assert still.delta.value == 0
    changes = set()
    for seed in range(20):
        arms.draw(np.random.default_rng(seed))
        drawn = arms.compare(steerings)[0]
        effects = drawn.side_effects
        assert effects.improved + effects.worsened == (
            real.side_effects.improved + real.side_effects.worsened
        )
        changes.add(drawn.delta.value)
    assert min(changes) <= 0 <= max(changes)
    assert len(changes) > 1


def test_a_study_counts_what_its_runs_found(lm, task, tmp_path):
    found, journal = study(lm, task, tmp_path / "partial")
    records = {
        part: [each for each in journal.records if each["part"] == part]
        for part in ("family_wise", "coverage", "recommended")
    }
    assert {part: len(each) for part, each in records.items()} == dict.fromkeys(records, 3)
    p = [each["p"] for each in records["family_wise"]]
    assert all(0.01 <= each <= 1 for each in p)
    assert len(set(p)) > 1
    assert found.family_wise.count == sum(each <= 0.5 for each in p)
    assert found.recommended.runs == found.uncorrected.runs == 3
    assert found.recommended.count <= found.uncorrected.count
    assert found.coverage[-1].frequency is None
    assert found.coverage[-1].fisher.runs == sum(each.fisher.runs for each in found.coverage[:-1])
    assert found.settings_tried == len({key for r in records["recommended"] for key in r["arms"]})
    assert (found.n_fit, found.n_select) == (len(task.fit), len(task.select))


def test_a_killed_study_ends_as_one_that_was_not(lm, task, tmp_path):
    whole, journal = study(lm, task, tmp_path / "whole")
    lines = journal.path.read_bytes().splitlines(keepends=True)
    for cut in range(1, len(lines)):
        path = tmp_path / f"cut-{cut}"
        path.write_bytes(b"".join(lines[:cut]) + lines[cut][:7])
        again, continued = study(lm, task, path)
        assert again == whole
        assert continued.path.read_bytes() == journal.path.read_bytes()


def test_more_runs_go_on_from_fewer(lm, task, tmp_path):
    study(lm, task, tmp_path / "grown", runs=1)
    grown, _ = study(lm, task, tmp_path / "grown", runs=2)
    assert grown == study(lm, task, tmp_path / "once", runs=2)[0]
    fewer, _ = study(lm, task, tmp_path / "grown", runs=1)
    assert fewer.family_wise.runs == 1


@pytest.mark.parametrize(
    ("changes", "runs", "message"),
    [
        ({"strategy": "A"}, 1, "strategy is A"),
        ({"log": False}, 1, "leave log and permutations on"),
        ({"permutations": 0}, 1, "leave log and permutations on"),
        ({}, 0, "runs is 0; choose 1 or more"),
    ],
)
def test_what_cannot_be_studied_is_refused(lm, task, tmp_path, changes, runs, message):
    with pytest.raises(SettingsError, match=message):
        study(lm, task, tmp_path / "partial", runs, FitSettings(**changes))
    assert not (tmp_path / "partial").exists()


def arguments(hub, task_file, out):
    folders = ("--model", hub / "model", "--sae", hub / "saes", "--task", task_file, "--out", out)
    counts = ("--runs=1", "--permutations=19", "--max-new-tokens=1", "--scorer", SCORER)
    return [str(each) for each in ("study", "null", *folders, *counts)]


def test_the_command_writes_its_file_whole(hub, task_file, tmp_path, capsys):
    given = arguments(hub, task_file, tmp_path / "out")
    done = CliRunner().invoke(cli, [*given, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["null.json"]
    assert json.loads((tmp_path / "out" / "null.json").read_text()) == document
    assert document["schema"] == "corrsteer.null/1"
    assert document["settings"]["seed"] == 42
    assert document["family_wise"]["runs"] == document["recommended"]["runs"] == 1
    with pytest.raises(SystemExit) as stopped:
        main(given)
    assert stopped.value.code == 2
    assert "is of a finished study" in capsys.readouterr().err


def test_the_command_prints_tables(hub, task_file, tmp_path):
    done = CliRunner().invoke(cli, arguments(hub, task_file, tmp_path / "out"))
    assert done.exit_code == 0, done.output
    for words in ("any feature significant family-wise", "any setting recommended", "BCa %", "all"):
        assert words in done.output
