import json
from dataclasses import asdict, replace

import pytest
from click.testing import CliRunner

import corrsteer as cs
from corrsteer.cli import cli, main
from corrsteer.errors import ArtifactError
from corrsteer.method.arms import ArmRunner
from corrsteer.studies.transfer import transfer

SCORER = r"regex:^\s*[n-zN-Z0-4]"
OTHER = r"regex:^\s*[a-mA-M5-9]"


def write_task(path, words):
    rows = [{"id": f"{words}{i}", "prompt": f"{words} {i} {chr(97 + i % 26)}"} for i in range(50)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    return [write_task(folder / f"{words}.jsonl", words) for words in ("say", "tell")]


@pytest.fixture(scope="module")
def folders(lm, files, tmp_path_factory):
    """Saved runs of both tasks, each judged in its own way, and one without features."""
    root = tmp_path_factory.mktemp("runs")
    for name, file, scorer in (("one", files[0], SCORER), ("two", files[1], OTHER)):
        task = cs.load_task(file, scorer=scorer, max_new_tokens=3)
        run = cs.fit(lm, task, strategy="A", batch_size=8, strength=4.0, permutations=0)
        run.save(root / name)
    return [root / "one", root / "two"]


def test_every_cell_is_what_an_evaluation_gives(lm, files, folders, monkeypatch):
    runs = {path.name: cs.load_run(path) for path in folders}
    runs["nothing"] = cs.load_run(folders[0])
    runs["nothing"].steering = replace(runs["one"].steering, vectors={}, features=())
    tasks = [
        cs.load_task(file, scorer=scorer, max_new_tokens=3)
        for file, scorer in zip(files, (SCORER, OTHER), strict=True)
    ]
    passes = []
    passed = ArmRunner._passed

    def counted(self, *given):
        passes.append(self.task.name)
        return passed(self, *given)

    monkeypatch.setattr(ArmRunner, "_passed", counted)
    found = transfer(lm, runs, tasks, batch_size=8)
    assert passes == [task.name for task in tasks], "one pass a task, the baseline in it"
    changes = []
    for name, run in runs.items():
        for task in tasks:
            cell = found.cells[name][task.name]
            alone = cs.evaluate(lm, task, run.steering, batch_size=8)
            for field in ("baseline", "steered", "delta", "side_effects", "unscored"):
                assert getattr(cell, field) == getattr(alone, field)
            assert found.baselines[task.name] == alone.baseline
            changes.append(cell.delta.value)
    assert changes[-2:] == [0, 0]
    assert len(set(changes)) > 2


def test_runs_of_different_models_are_refused(lm, folders, task):
    runs = {path.name: cs.load_run(path) for path in folders}
    two = runs["two"]
    for changes in ({"model": "other"}, {"revision": "abc"}):
        two.provenance = replace(runs["one"].provenance, **changes)
        with pytest.raises(ArtifactError, match=r"two was made on .*, but one on .*one model only"):
            transfer(lm, runs, [task])


def invoke(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_the_command_tries_runs_on_their_own_tasks(files, folders):
    done = invoke("transfer", *folders, "--batch-size=8", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["schema"] == "corrsteer.transfer/1"
    assert list(document["tasks"]) == [str(file) for file in files]
    assert [about["scorer"] for about in document["tasks"].values()] == [SCORER, OTHER]
    pairs = [(cell["run"], cell["source"], cell["target"]) for cell in document["cells"]]
    expected = [
        (str(folder), str(source), str(target))
        for folder, source in zip(folders, files, strict=True)
        for target in files
    ]
    assert pairs == expected
    run = cs.load_run(folders[0])
    lm = cs.load_model(run.provenance.model)
    alone = cs.evaluate(
        lm, cs.load_task(files[1], scorer=OTHER, max_new_tokens=3), run.steering, batch_size=8
    )
    cell = document["cells"][1]
    assert cell["delta"] == json.loads(json.dumps(asdict(alone.delta)))
    assert cell["side_effects"] == json.loads(json.dumps(asdict(alone.side_effects)))


def test_the_command_prints_source_by_target(files, folders):
    done = invoke("transfer", *folders, "--tasks", files[1], "--test-limit=6")
    assert done.exit_code == 0, done.output
    for words in ("source", "excludes zero", "6 samples", "baseline", "one x 4", "two x 4", "SER"):
        assert words in done.output.replace("\n", " ")


def refusal(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_the_command_refuses_in_one_line(lm, files, folders, tmp_path, capsys):
    run = cs.load_run(folders[1])
    run.settings = replace(run.settings, seed=7)
    run.save(tmp_path / "seed")
    assert "the runs have seeds 42" in refusal(capsys, "transfer", folders[0], tmp_path / "seed")
    run = cs.load_run(folders[0])
    run.provenance = replace(run.provenance, max_new_tokens=9)
    run.save(tmp_path / "longer")
    error = refusal(capsys, "transfer", folders[0], tmp_path / "longer")
    assert "in different ways" in error
    run.provenance = replace(run.provenance, model="mini")
    run.save(tmp_path / "model")
    assert "one model only" in refusal(capsys, "transfer", folders[0], tmp_path / "model")
    run.steering.save(tmp_path / "bare")
    assert "give --tasks" in refusal(capsys, "transfer", tmp_path / "bare")
