import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from click.testing import CliRunner

import corrsteer as cs
from corrsteer.cli import cli
from corrsteer.errors import ArtifactError
from corrsteer.method.evidence import permuted_null
from corrsteer.studies.sample_efficiency import _sizes, sample_efficiency

SCORER = r"regex:^\s*[n-zN-Z0-4]"


@pytest.fixture(scope="module")
def saved(lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    rows = [
        {"id": f"{split}{i}", "prompt": f"say {i} {chr(97 + i % 26)}", "split": split}
        for split, count in (("fit", 70), ("select", 4), ("test", 4))
        for i in range(count)
    ]
    (folder / "task.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = cs.load_task(folder / "task.jsonl", scorer=SCORER, max_new_tokens=3)
    return cs.fit(lm, task, strategy="A", batch_size=8, permutations=99).save(folder / "run")


def test_numbers_double_up_to_all():
    assert _sizes(100) == [25, 50, 100]
    assert _sizes(101) == [25, 50, 100, 101]
    assert _sizes(4) == [4]


def test_the_last_snapshot_is_the_run(saved):
    run = cs.load_run(saved)
    *fewer, last = sample_efficiency(run)
    assert [each.samples for each in fewer] == [25, 50]
    assert last.samples == 70
    assert (last.agreement, last.same_best) == (1.0, True)
    assert [f.key for f in last.features] == [f.key for f in run.features]
    for one, other in zip(last.features, run.features, strict=True):
        assert one.correlation == pytest.approx(other.correlation, abs=1e-3)
    best = max(np.nanmax(abs(each.correlation().numpy())) for each in run.statistics.values())
    assert last.largest == pytest.approx(best, abs=1e-3)
    # the same bound but for the order that is permuted
    bound = permuted_null(run.log, run.settings).threshold(run.settings.alpha)
    assert last.threshold == pytest.approx(bound, abs=0.1)
    assert fewer[0].threshold > last.threshold, "fewer samples need a larger r"


def test_a_snapshot_is_what_its_samples_alone_give(saved):
    run = cs.load_run(saved)
    first = sample_efficiency(run)[0]
    drawn = np.random.default_rng(run.settings.seed).permutation(70)[:25]
    y = run.log.outcomes[drawn]
    for feature in first.features:
        z = run.log.activations(feature.hook_point).toarray()[:, drawn]
        varies = np.ptp(z, axis=1) > 0
        r = np.array(
            [np.corrcoef(row, y)[0, 1] if on else -1 for row, on in zip(z, varies, strict=True)]
        )
        assert feature.correlation == pytest.approx(r.max(), abs=1e-9)
        assert r[feature.latent] == pytest.approx(r.max(), abs=1e-9)
    final = {f.key for f in run.features}
    assert first.agreement == len({f.key for f in first.features} & final) / len(final)


def test_samples_that_are_all_right_choose_nothing(saved):
    run = cs.load_run(saved)
    outcomes = np.ones(70)
    outcomes[np.random.default_rng(run.settings.seed).permutation(70)[-1]] = 0
    run.log = replace(run.log, outcomes=outcomes)
    *fewer, last = sample_efficiency(run)
    assert all((each.features, each.largest, each.agreement) == ((), None, 0) for each in fewer)
    assert last.features


def test_a_run_without_a_log_is_refused(saved):
    run = cs.load_run(saved)
    run.log = None
    with pytest.raises(ArtifactError, match="no log of activations"):
        sample_efficiency(run)


def test_the_command_says_the_same(saved):
    done = CliRunner().invoke(cli, ["study", "samples", str(saved), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["schema"] == "corrsteer.samples/1"
    expected = [asdict(each) for each in sample_efficiency(cs.load_run(saved))]
    assert document["snapshots"] == json.loads(json.dumps(expected))
    done = CliRunner().invoke(cli, ["study", "samples", str(saved)])
    assert done.exit_code == 0, done.output
    for words in ("samples", "largest |r|", "significant above", "70", "100 %"):
        assert words in done.output


def test_the_command_tries_the_choices_on_the_test_split(saved):
    given = ["study", "samples", str(saved), "--accuracy"]
    done = CliRunner().invoke(cli, [*given, "--json"])
    assert done.exit_code == 0, done.output
    *_, last = json.loads(done.stdout)["snapshots"]
    run = cs.load_run(saved)
    found = cs.evaluate(
        cs.load_model(run.provenance.model, sae=run.provenance.sae_source),
        cs.load_task(run.provenance.task, scorer=SCORER, max_new_tokens=3),
        run.steering,
    )
    assert last["A"]["steered"] == json.loads(json.dumps(asdict(found.steered)))
    assert last["A"]["baseline"] == json.loads(json.dumps(asdict(found.baseline)))
    assert last["S"]["features"][0] in last["A"]["features"]
    shown = CliRunner().invoke(cli, given)
    assert "accuracy of A" in shown.output
    plain = CliRunner().invoke(cli, given[:3])
    assert "accuracy" not in plain.output
