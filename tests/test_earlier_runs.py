"""Runs in tests/data, written by earlier commits, are read and used as those of today.

tests/data/README.md says how they were made; the tiny model that they are of is conftest's.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import corrsteer as cs
from corrsteer.cli import main
from corrsteer.errors import ArtifactError
from corrsteer.json_text import to_json
from corrsteer.method.reselect import merge, select
from corrsteer.report import render
from corrsteer.runs.records import as_json

STORED = sorted((Path(__file__).parent / "data").glob("run-*"))
EARLY = "run-1-early"


@pytest.fixture
def here(hub, tmp_path, monkeypatch):
    """A working directory in which the runs' model, SAEs and task are where the runs say."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hub").symlink_to(hub)
    rows = [
        {"id": f"q{i}", "prompt": f"say {i} {chr(97 + i % 26)}{chr(97 + i * 7 % 26)}:"}
        for i in range(60)
    ]
    (tmp_path / "letters.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.fixture(params=STORED, ids=lambda path: path.name)
def stored(request, here):
    """A copy of a stored run."""
    return shutil.copytree(request.param, here / request.param.name)


def test_there_is_one_of_today_and_one_of_the_first_that_ran():
    assert [path.name for path in STORED] == ["run-1", EARLY]


def test_an_earlier_run_is_read_whole(stored):
    run = cs.load_run(stored)
    assert (run.provenance.model, run.provenance.task) == ("hub/model", "letters.jsonl")
    assert (run.settings.strategy, run.settings.method, run.settings.seed) == ("A", "corr", 42)
    assert [(f.layer, f.latent) for f in run.features] == [(0, 15), (1, 17), (2, 21)]
    assert run.steering.features == run.features
    assert len(run.predictions) == run.evaluation.task.n_test == 18
    for feature in run.features:
        statistics = run.statistics[feature.hook_point]
        assert statistics.n == run.counts.n_fit == 30
        r = statistics.correlation()[feature.latent].item()
        assert r == pytest.approx(feature.correlation, abs=1e-12)
    assert (run.log is None) == (stored.name == EARLY)


def test_an_earlier_run_has_a_report(stored):
    page = render(cs.load_run(stored))
    assert "letters.jsonl" in page
    assert "blocks.2.hook_resid_post" in page or "2/21" in page


def test_an_earlier_run_evaluates_to_what_it_was(stored, capfd):
    before = cs.load_run(stored)
    main(["eval", stored.name, "--task", "letters.jsonl", "--json"])
    document = json.loads(capfd.readouterr().out)
    told = json.loads(to_json(as_json(before.evaluation)))
    for arm in ("baseline", "steered", "delta", "side_effects"):
        now, then = ({**each[arm], "ci": None} for each in (document, told))  # by other formulas
        assert now == then


def test_features_are_chosen_again_from_an_earlier_run(stored):
    run = cs.load_run(stored)
    again = select(run)
    assert [(f.layer, f.latent) for f in again.features] == [(0, 15), (1, 17), (2, 21)]
    for hook, vector in run.steering.vectors.items():
        np.testing.assert_allclose(again.steering.vectors[hook], vector, rtol=1e-6)


def test_what_early_statistics_lack_is_said(here):
    early = cs.load_run(shutil.copytree(STORED[1], here / EARLY))
    for method in ("mi", "fisher"):
        with pytest.raises(ArtifactError, match="collect again"):
            select(early, method=method)
    today = cs.load_run(shutil.copytree(STORED[0], here / "run-1"))
    merged = merge({"early": early, "today": today})
    assert merged.counts.n_fit == 60
    with pytest.raises(ArtifactError, match="collect again"):
        select(merged, method="mi")
