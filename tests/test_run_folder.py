import errno
import json
import os
import signal
import subprocess
import sys

import pytest

import corrsteer as cs
from corrsteer.errors import ArtifactError
from corrsteer.files import contents
from corrsteer.json_text import to_json

FILES = [
    "activations.parquet",
    "features.json",
    "outcomes.parquet",
    "run.json",
    "statistics.safetensors",
    "steering.safetensors",
]


@pytest.fixture(scope="module")
def run(lm, tmp_path_factory):
    rows = [{"prompt": f"say {i}"} for i in range(40)]
    path = tmp_path_factory.mktemp("task") / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    task = cs.load_task(path, scorer=r"regex:^\s*[n-zN-Z0-4]", max_new_tokens=3)
    return cs.fit(lm, task, strategy="A")


@pytest.fixture
def folder(run, tmp_path):
    return run.save(tmp_path / "run")


def test_a_run_folder_holds_whole_files_only(folder):
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert sorted(path.name for path in folder.parent.iterdir()) == ["run"]
    document = json.loads((folder / "run.json").read_text())
    assert document["schema"] == "corrsteer.run/1"
    assert document["settings"]["seed"] == 42
    assert document["sae_ids"]["blocks.1.hook_resid_post"] == "layer_1"
    assert document["versions"]["torch"]


def test_saving_the_same_run_again_is_fine_and_another_is_refused(run, folder, lm):
    before = (folder / "run.json").read_bytes()
    run.save(folder)
    assert (folder / "run.json").read_bytes() == before
    other = cs.load_run(folder)
    other.settings = cs.FitSettings(strategy="S")
    with pytest.raises(
        ArtifactError, match=r"holds a run already, .*strategy is 'A' there, 'S' here"
    ):
        other.save(folder)
    assert (folder / "run.json").read_bytes() == before


def test_a_folder_of_other_files_is_refused(run, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ArtifactError, match="holds other files"):
        run.save(tmp_path)
    with pytest.raises(ArtifactError, match="is a file"):
        run.save(tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_may_join_its_own_steering(run, tmp_path):
    run.steering.save(tmp_path / "r")
    assert cs.load_run(tmp_path / "r").features == run.features
    run.save(tmp_path / "r")
    assert cs.load_run(tmp_path / "r").statistics


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(folder, name, share):
    path = folder / name
    content = path.read_bytes()
    path.unlink()  # it may be a link to the log that the run itself holds
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArtifactError) as refusal:
        cs.load_run(folder)
    assert "\n" not in str(refusal.value)
    assert str(folder) in str(refusal.value)


@pytest.mark.parametrize("name", FILES[:5])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    if name == "run.json":
        assert cs.load_run(folder).statistics == {}  # a steering alone
    else:
        with pytest.raises(ArtifactError):
            cs.load_run(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "corrsteer.run/99"},
        {"schema": None},
        {"settings": {"strategy": "Z"}},
        {"settings": [1]},
        {"model": 5},
        {"guards": "x"},
        {"search": None},
    ],
)
def test_a_run_of_another_kind_is_refused(folder, change):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError):
        cs.load_run(folder)


@pytest.mark.parametrize("text", ["[]", "null", "{", "[" * 100_000, '{"schema": "x"}', "\udcff"])
def test_json_that_is_not_a_run_is_refused(folder, text):
    (folder / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError):
        cs.load_run(folder)


def test_no_run_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no run at"):
        cs.load_run(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match=r"has no run\.json"):
        cs.load_run(tmp_path)


def test_a_full_disk_leaves_nothing_behind(run, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match="No space left on device; free some space"):
        run.save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys
from pathlib import Path
import corrsteer as cs
run, moves = cs.load_run(sys.argv[1]), []
moved = Path.replace
def replace(path, to):
    if Path(to).parent == Path(sys.argv[2]):
        moves.append(path)
        if len(moves) == 3:
            import os
            os.kill(os.getpid(), 9)
    moved(path, to)
Path.replace = replace
run.save(sys.argv[2])
"""


def test_a_save_that_was_killed_between_its_files_can_be_done_again(run, folder, tmp_path):
    (tmp_path / "there").mkdir()
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "there")]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert not (tmp_path / "there" / "run.json").exists()
    assert len(contents(tmp_path / "there")) == 2
    run.save(tmp_path / "there")
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == FILES
    assert cs.load_run(tmp_path / "there").features == run.features


def test_json_has_no_nan():
    assert json.loads(to_json({"a": float("nan"), "b": (1.0, float("inf"))})) == {
        "a": None,
        "b": [1.0, None],
    }
