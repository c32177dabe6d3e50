import json
import shlex
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import D_SAE

import corrsteer as cs
from corrsteer.cli import cli
from corrsteer.errors import ArtifactError, DataError, SAEError, SettingsError
from corrsteer.execution.units import Execution
from corrsteer.method.reselect import merge, select
from corrsteer.method.shards import Shard, collect_shard
from corrsteer.progress import Silent
from corrsteer.report.command import reproduce
from corrsteer.runs.document import run_document
from corrsteer.settings import FitSettings
from corrsteer.stats.correlation import StreamingCorrelation

SCORER = r"regex:^\s*[n-zN-Z0-4]"


def write_task(path, fit):
    """A task whose fit split is some rows; select and test are always the same."""
    rows = [{"id": f"f{i}", "prompt": f"say {i} {chr(97 + i % 26)}", "split": "fit"} for i in fit]
    rows += [{"id": f"s{i}", "prompt": f"tell {i}", "split": "select"} for i in range(8)]
    rows += [{"id": f"t{i}", "prompt": f"show {i}", "split": "test"} for i in range(8)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return cs.load_task(path, scorer=SCORER, max_new_tokens=3)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("task") / "whole.jsonl", range(40))


@pytest.fixture(scope="module")
def saved(lm, task, tmp_path_factory):
    """The folder of a run by correlation."""
    run = cs.fit(lm, task, strategy="A", batch_size=8)
    return run.save(tmp_path_factory.mktemp("runs") / "run")


def assert_same(one, other):
    """Two runs say the same, to the bit."""
    assert one.settings == other.settings
    assert one.provenance == other.provenance
    assert one.features == other.features
    assert one.top_features == other.top_features
    assert one.inference == other.inference
    assert repr(one.steering) == repr(other.steering)
    assert list(one.steering.vectors) == list(other.steering.vectors)
    for hook, vector in one.steering.vectors.items():
        assert torch.equal(vector, other.steering.vectors[hook])


@pytest.mark.parametrize("strategy", ["S", "A"])
@pytest.mark.parametrize(
    "changes",
    [
        {"method": "corr"},
        {"method": "mi"},
        {"method": "fisher"},
        {"method": "contrast", "coefficient": "contrast"},
        {"method": "corr", "sign": "negative", "coefficient": "active"},
        {"method": "mi", "sign": "both"},
        {"min_frequency": 0.3, "strength": 0.5},
    ],
    ids=str,
)
def test_selecting_again_is_what_training_so_gives(lm, task, saved, strategy, changes):
    trained = cs.fit(lm, task, strategy=strategy, batch_size=8, **changes)
    assert trained.features
    assert_same(select(cs.load_run(saved), strategy=strategy, **changes), trained)


def test_methods_do_not_all_choose_the_same(saved):
    run = cs.load_run(saved)
    kinds = ({"method": "corr"}, {"method": "mi"}, {"sign": "negative"})
    chosen = [tuple(f.key for f in select(run, **changes).features) for changes in kinds]
    assert len(set(chosen)) == 3


def test_without_a_log_the_selection_is_the_same_and_its_p_values_are_bounds(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "bare")
    for name in ("activations.parquet", "outcomes.parquet"):
        (tmp_path / "bare" / name).unlink()
    whole, bare = (select(cs.load_run(path)) for path in (saved, tmp_path / "bare"))
    assert [f.key for f in bare.features] == [f.key for f in whole.features]
    assert bare.inference.p_method == "Bonferroni"
    assert bare.inference.note == "the run has no log"


def test_strategies_that_need_the_model_are_refused(saved):
    for strategy in ("P", "G", "auto"):
        with pytest.raises(SettingsError, match=f"strategy {strategy} tries features on the model"):
            select(cs.load_run(saved), strategy=strategy)


def test_a_steering_alone_cannot_be_selected_from(saved, tmp_path):
    shutil.copy(saved / "steering.safetensors", tmp_path)
    with pytest.raises(ArtifactError, match="a steering alone"):
        select(cs.load_run(tmp_path))


def test_saes_that_are_not_there_any_more_are_named(saved):
    run = cs.load_run(saved)
    ids = dict(run.provenance.sae_ids) | {"blocks.1.hook_resid_post": "other"}
    run.provenance = replace(run.provenance, sae_ids=ids)
    with pytest.raises(ArtifactError, match=r"used SAE other at blocks\.1\.hook_resid_post"):
        select(run)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sign": "negative"}, True),
        ({"sign": "both", "coefficient": "active"}, True),
        ({"sign": "both", "coefficient": "contrast"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_means_of_negative_features_are_told_to_be_near_zero(saved, caplog, changes, told):
    with caplog.at_level("INFO", "corrsteer"):
        select(cs.load_run(saved), **changes)
    assert ("--coefficient contrast" in caplog.text) == told


def test_residual_dimensions_have_no_mean_over_active_samples(hub, task):
    raw = cs.load_model(str(hub / "model"), sae="raw")
    with pytest.raises(SettingsError, match="--coefficient active is not defined"):
        cs.fit(raw, task, coefficient="active")
    run = cs.fit(raw, task, strategy="A", batch_size=8)
    with pytest.raises(SettingsError, match="--coefficient active is not defined"):
        select(run, coefficient="active")
    assert_same(
        select(run, method="fisher"), cs.fit(raw, task, strategy="A", method="fisher", batch_size=8)
    )


@pytest.fixture(scope="module")
def parts(lm, tmp_path_factory):
    """Runs over two parts of the fit samples, and over all; samples one by one."""
    folder = tmp_path_factory.mktemp("parts")
    fits = {"first": range(25), "second": range(25, 40), "whole": range(40)}
    for name, fit in fits.items():
        task = write_task(folder / f"{name}.jsonl", fit)
        run = cs.fit(lm, task, strategy="A", batch_size=1, samples=len(fit))
        run.save(folder / name)
    return folder


def load(folder, *names):
    return {name: cs.load_run(folder / name) for name in names}


def test_merged_runs_are_one_run_over_all_samples(parts):
    merged = merge(load(parts, "first", "second"))
    whole = cs.load_run(parts / "whole")
    for hook, statistics in whole.statistics.items():
        for name, tensor in statistics.state().items():
            got = merged.statistics[hook].state()[name]
            if name in ("first_z", "mean_z", "scalars") or name.startswith("mean_"):
                continue  # relative to the first sample seen
            torch.testing.assert_close(got, tensor, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(
            merged.statistics[hook].correlation(), statistics.correlation(), atol=1e-12
        )
    assert [f.key for f in merged.features] == [f.key for f in whole.features]
    for one, other in zip(merged.features, whole.features, strict=True):
        for name in ("coefficient", "correlation", "frequency", "q_value"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-12)
        assert one.p_adjusted == pytest.approx(other.p_adjusted, abs=0.05)  # other orders
        assert one.p_method == "max-T permutation"
    for at, vector in whole.steering.vectors.items():
        torch.testing.assert_close(merged.steering.vectors[at], vector, rtol=1e-6, atol=1e-6)
    assert sorted(merged.log.ids) == sorted(whole.log.ids)
    assert merged.counts.n_fit == 40
    assert merged.counts.merged == ("first", "second")
    assert merged.counts.twice == 0


def test_samples_that_count_twice_are_told_of(parts, caplog):
    runs = load(parts, "first", "second") | {"again": cs.load_run(parts / "first")}
    merged = merge(runs)
    assert merged.counts.twice == 25
    assert "25 samples are in more than one of the runs" in caplog.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "other"),
        ("revision", "abc"),
        ("sae_source", "other"),
        ("hook_shift", 1),
        ("task", "mmlu"),
        ("scorer", "exact"),
        ("max_new_tokens", 9),
        ("few", 2),
        ("chat", True),
        ("pool", "mean"),
        ("steer_pool", "mean"),
        ("positions", "all"),
    ],
)
def test_runs_of_different_things_do_not_merge(parts, field, value):
    runs = load(parts, "first", "second")
    second = runs["second"]
    if field in asdict(second.settings):
        second.settings = replace(second.settings, **{field: value})
    elif field in ("few", "chat"):
        asked = replace(second.provenance.task_options, **{field: value})
        second.provenance = replace(second.provenance, task_options=asked)
    else:
        second.provenance = replace(second.provenance, **{field: value})
    with pytest.raises(ArtifactError, match=f"second has {field} {value!r}, but first has"):
        merge(runs)


def test_other_layers_and_single_runs_do_not_merge(parts):
    runs = load(parts, "first", "second")
    runs["second"].statistics.popitem()
    with pytest.raises(ArtifactError, match="second has hook points"):
        merge(runs)
    with pytest.raises(ArtifactError, match="1 run given; a merge needs two or more"):
        merge(load(parts, "first"))


def invoke(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_the_commands_write_runs_that_can_be_used(parts, tmp_path):
    done = invoke("merge", parts / "first", parts / "second", "--out", tmp_path / "both", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["task"]["n_fit"] == 40
    assert cs.load_run(tmp_path / "both").log is not None
    done = invoke(
        "select", tmp_path / "both", "--method=mi", "--strategy=S", "--out", tmp_path / "mi"
    )
    assert done.exit_code == 0, done.output
    assert "Not tried yet" in done.output
    run = cs.load_run(tmp_path / "mi")
    assert (run.settings.method, run.settings.strategy, len(run.features)) == ("mi", "S", 1)
    assert "max-T permutation over" in (tmp_path / "mi" / "report.html").read_text()
    command = shlex.split(reproduce(run))
    assert command[:2] == ["corrsteer", "merge"]
    command[-1] = str(tmp_path / "again")
    assert invoke(*command[1:]).exit_code == 0
    assert_same(cs.load_run(tmp_path / "again"), run)


def test_select_without_out_writes_nothing(parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke("select", parts / "whole", "--sign", "negative", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["run"] is None
    assert all(feature["correlation"] < 0 for feature in document["features"])
    assert document["inference"]["p_method"] == "max-T permutation"
    assert list(tmp_path.iterdir()) == []


def test_no_model_is_loaded(parts, monkeypatch):
    import transformers

    def refuse(*arguments, **options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
    assert select(cs.load_run(parts / "whole"), method="fisher").features


def test_shards_merged_are_one_collection(lm, task, tmp_path):
    whole = cs.fit(lm, task, strategy="A", batch_size=4)
    runs = {}
    for number in (1, 2, 3):
        shard = Shard.parse(f"{number}/3")
        run = collect_shard(lm, task, shard, FitSettings(batch_size=4))
        assert run_document(run, None, None).verdict.text == f"Part {number}/3 is collected: " + (
            "`corrsteer merge` adds up all parts."
        )
        runs[str(number)] = cs.load_run(run.save(tmp_path / str(number)))
    together = merge(runs)
    assert sorted(together.log.ids) == sorted(whole.log.ids)
    for hook, statistics in whole.statistics.items():
        for name, tensor in statistics.state().items():
            if name.startswith(("first", "mean", "scalars")):  # are told apart from the first z
                continue
            torch.testing.assert_close(
                together.statistics[hook].state()[name], tensor, atol=1e-5, rtol=1e-5
            )
        assert together.statistics[hook].n == statistics.n
    assert [f.key for f in together.features] == [f.key for f in whole.features]


class Stages(Silent):
    """Notes the stages that a run goes through."""

    def __init__(self):
        self.names = []

    def stage(self, name, total):
        self.names.append(name)
        return super().stage(name, total)


@pytest.mark.parametrize("strategy", ["auto", "P"])
def test_a_fit_to_what_was_collected_is_the_whole_fit(lm, task, saved, strategy):
    whole = cs.fit(lm, task, strategy=strategy, batch_size=8)
    stages = Stages()
    after = cs.fit(
        lm,
        task,
        collected=cs.load_run(saved),
        strategy=strategy,
        batch_size=8,
        execution=Execution(stages),
    )
    assert_same(whole, after)
    assert after.search == whole.search
    assert after.search.trials
    assert after.counts.n_fit == 40
    assert stages.names
    assert not [name for name in stages.names if "collect" in name]


def test_a_fit_to_what_was_collected_of_something_else_is_refused(lm, task, saved):
    run = cs.load_run(saved)

    def refused(match, error=ArtifactError, task=task, **settings):
        with pytest.raises(error, match=match):
            cs.fit(lm, task, collected=run, **settings)

    refused("what was collected has pool 'max', but this run has 'mean'", pool="mean")
    refused("what was collected has hook points", layers=(1,))
    shorter = replace(task, max_new_tokens=2)
    refused("what was collected has max_new_tokens 3, but this run has 2", task=shorter)
    tested = replace(task, test=(*task.test, task.fit[0]))
    refused("give --seed 42, by which", SettingsError, task=tested)
    run.log = None
    refused("give --seed 42, by which", SettingsError, seed=1)
    run.statistics = {}
    refused("what was collected is a steering alone, without statistics")


def test_statistics_of_a_wider_sae_are_refused(lm, task, saved):
    run = cs.load_run(saved)
    for hook, statistics in run.statistics.items():
        wider = {
            name: tensor if name == "scalars" else torch.cat([torch.zeros_like(tensor), tensor])
            for name, tensor in statistics.state().items()
        }
        run.statistics[hook] = StreamingCorrelation.from_state(wider)
    run.log, run.means = None, {}
    with pytest.raises(SAEError, match=f"has {D_SAE} latents and none of number"):
        select(run)
    with pytest.raises(SAEError, match=f"has {D_SAE} latents and none of number"):
        cs.fit(lm, task, collected=run)


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/3"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(SettingsError, match="expected a part of all, as 2/8"):
        Shard.parse(text)


def test_more_shards_than_samples_are_refused(lm, task):
    with pytest.raises(DataError, match="40 samples have no part 41/41; choose fewer shards"):
        collect_shard(lm, task, Shard(41, 41), FitSettings())
