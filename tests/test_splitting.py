import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import SCORER

import corrsteer as cs
from corrsteer.method.arms import ArmRunner
from corrsteer.method.splitting import Halves, topped_up
from corrsteer.runs.search import GuardAccuracy
from corrsteer.runs.steering import Steering
from corrsteer.samples import Sample, group_ids
from corrsteer.scoring.rules import RULES
from corrsteer.settings import FitSettings
from corrsteer.stats.metrics import accuracy
from corrsteer.stats.sample_size import least_gain
from corrsteer.tasks import Task


def task(n_fit, n_select, per_group=1):
    def samples(name, n):
        return tuple(
            Sample(f"{name}{i}", f"{name} {i}", ("x",), group=f"{name}{i // per_group}")
            for i in range(n)
        )

    parts = samples("f", n_fit), samples("s", n_select), samples("t", 9)
    return Task("t", *parts, RULES["exact"], 1)


def test_a_small_select_split_is_topped_up_from_the_fit_split():
    before = task(108, 12, per_group=4)
    after = topped_up(before, FitSettings())
    assert len(after.fit) + len(after.select) == 120
    assert 66 <= len(after.select) <= 69
    assert {s.group for s in after.fit}.isdisjoint({s.group for s in after.select})
    assert after.test == before.test
    assert topped_up(after, FitSettings()) == after  # as often as one likes
    assert topped_up(before, FitSettings(seed=1)).fit != after.fit


def test_nothing_is_moved_where_it_is_not_asked_for_or_would_not_help():
    for before, settings in (
        (task(1000, 250), FitSettings()),
        (task(108, 12), FitSettings(least_select=0)),
        (task(108, 12), FitSettings(val_limit=12)),
        (task(40, 12), FitSettings()),
    ):
        assert topped_up(before, settings) is before


def test_halves_keep_groups_whole():
    groups = np.array(group_ids(task(60, 1, per_group=5).fit))
    halves = Halves.of(groups, seed=3)
    assert halves.apart
    assert halves.build.sum() == halves.confirm.sum() == 30
    assert set(groups[halves.build]).isdisjoint(groups[halves.confirm])
    assert not Halves.whole(4).apart


@pytest.mark.parametrize(("n", "least"), [(60, 0.1), (12, 0.5), (4, 1.5)])
def test_the_least_gain_is_that_of_the_exact_test(n, least):
    assert least_gain(n, 0.05) == pytest.approx(least)


def test_a_loss_that_may_be_too_large_is_a_loss():
    assert GuardAccuracy(0.9, 0.89, most_lost=0.05).harmed(0.03)
    assert not GuardAccuracy(0.9, 0.89, most_lost=0.02).harmed(0.03)
    assert GuardAccuracy(0.9, 0.8).harmed(0.03)
    assert not GuardAccuracy(0.9, 0.87, needed=200).harmed(0.03)


def test_a_fit_says_where_it_built_and_confirmed(lm, task_file, caplog):
    from conftest import SCORER

    own = cs.load_task(task_file, scorer=SCORER, max_new_tokens=6)
    with caplog.at_level("INFO", "corrsteer"):
        search = cs.fit(lm, own).search
    assert (search.n_built, search.n_confirmed) == (30, 12)
    assert search.least_gain == pytest.approx(0.5)
    assert search.detectable_gain == pytest.approx(0.578)
    assert (
        "a gain below 50 points cannot be significant; one of 58 is, in 80% of cases" in caplog.text
    )
    assert all(trial.confirmed is None or trial.p_adjusted <= 1 for trial in search.trials)


def test_a_rows_group_reaches_the_interval(lm, tmp_path):
    rows = [{"prompt": f"say {i} {chr(97 + i % 26)}:", "group": i // 5} for i in range(60)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row | {"split": "test"}) for row in rows))
    grouped = cs.load_task(path, scorer=SCORER, max_new_tokens=2)
    single = replace(grouped, test=tuple(replace(each, group=None) for each in grouped.test))
    steering = Steering({}, (), lm.id, lm.revision)
    found = [cs.evaluate(lm, task, steering).baseline for task in (grouped, single)]
    outcomes = ArmRunner(lm, single, "test").baseline.outcomes
    labels = [index // 5 for index in range(60)]
    assert found == [accuracy(outcomes, np.array(labels)), accuracy(outcomes)]
    assert found[0].ci != found[1].ci


def test_the_tasks_own_groups_are_their_keys_and_cross_no_split():
    task = cs.load_task("mini-mmlu")
    keys = [{sample.group for sample in part} for part in (task.fit, task.select, task.test)]
    assert [len(each) for each in keys] == [186, 48, 94]
    assert not keys[0] & keys[1] | keys[0] & keys[2] | keys[1] & keys[2]
    assert len({*group_ids(task.test)}) == 94
