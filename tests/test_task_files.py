"""What a run names: read again where it is what it was, or where a person names it."""

import json
import shutil

import pytest
from conftest import SCORER

import corrsteer as cs


@pytest.fixture(scope="module")
def made(hub, tmp_path_factory):
    """A run on a file beside it; not to be changed."""
    root = tmp_path_factory.mktemp("made")
    rows = [{"prompt": f"say {i} {chr(97 + i % 26)}:"} for i in range(50)]
    (root / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lm = cs.load_model(str(hub / "model"), sae=str(hub / "saes"))
    task = cs.load_task(root / "own.jsonl", scorer=SCORER, max_new_tokens=2)
    cs.fit(lm, task, strategy="S", permutations=20).save(root / "run")
    return root


@pytest.fixture
def place(made, tmp_path):
    """A copy of both, the run naming the copy of the file."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    name(tmp_path / "run", tmp_path / "own.jsonl")
    return tmp_path


def name(run, task):
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(document | {"task": str(task)}))


def accuracy(call, *words):
    code, out, err = call(*words, "--json")
    assert code == 0, err
    return json.loads(out)["baseline"]["accuracy"]


def refused(call, *words):
    code, out, err = call(*words)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    return err


COMMANDS = (["eval"], ["transfer"], ["study", "samples", "--accuracy"])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[-1])
def test_a_file_that_only_a_run_names_is_not_read_for_another(call, place, command):
    secret = place / "secret.jsonl"
    secret.write_text('{"prompt": "my diary"}\n' * 9)
    name(place / "run", secret)
    told = refused(call, *command, place / "run")
    assert f"the run names the file {secret}, which is another one now; to read it, give" in told
    assert "diary" not in told


def test_a_file_that_was_changed_is_read_if_a_person_names_it(call, place):
    own = place / "own.jsonl"
    before = accuracy(call, "eval", place / "run")
    own.write_text(own.read_text().replace("say 1", "tell 1"))
    assert f"another one now; to read it, give --task {own}" in refused(call, "eval", place / "run")
    code, out, err = call("eval", place / "run", "--task", own, "--json")
    assert code == 0, err
    assert json.loads(out)["baseline"]["accuracy"] != before
    assert "its test split may hold what the run was fitted on" in err


def test_a_file_is_found_again_by_its_content(call, place):
    before = accuracy(call, "eval", place / "run")
    (place / "own.jsonl").rename(place / "moved.jsonl")
    told = refused(call, "eval", place / "run")
    assert "the run was made on it: give it by --task, wherever it is now" in told
    # judged by the run's own scorer, and cut by its own seed
    assert accuracy(call, "eval", place / "run", "--task", place / "moved.jsonl") == before
    (place / "moved.jsonl").write_text('{"prompt": "say"}\n' * 9)
    told = refused(call, "eval", place / "run", "--task", place / "moved.jsonl")
    assert "which scorer?" in told


def test_a_run_that_does_not_say_what_its_file_held_needs_it_named(call, place):
    document = json.loads((place / "run" / "run.json").read_text())
    del document["content"]["task_file"]
    (place / "run" / "run.json").write_text(json.dumps(document))
    assert "which it tells nothing of" in refused(call, "eval", place / "run")
    assert accuracy(call, "eval", place / "run", "--task", place / "own.jsonl") >= 0


@pytest.fixture(scope="module")
def made_of_copy(hub, tmp_path_factory):
    """A run on a local copy of a benchmark beside it; not to be changed."""
    root = tmp_path_factory.mktemp("copy")
    (root / "copy").mkdir()
    rows = [{"problem": f"who is {i} {chr(97 + i % 26)}?", "answer": "a"} for i in range(50)]
    (root / "copy" / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lm = cs.load_model(str(hub / "model"), sae=str(hub / "saes"))
    task = cs.load_task("simpleqa", data=root / "copy", scorer=SCORER, max_new_tokens=2)
    cs.fit(lm, task, strategy="S", permutations=20).save(root / "run")
    return root


def name_copy(run, folder, **content):
    document = json.loads((run / "run.json").read_text())
    document["task_options"]["data"] = str(folder)
    document["content"] |= content
    (run / "run.json").write_text(json.dumps(document))


@pytest.mark.parametrize("named", [[], ["--task", "simpleqa"]], ids=["", "task"])
@pytest.mark.parametrize("content", [{}, {"task_data": ""}], ids=["other", "untold"])
def test_a_local_copy_that_only_a_run_names_is_not_read_for_another(
    call, made_of_copy, tmp_path, named, content
):
    shutil.copytree(made_of_copy, tmp_path, dirs_exist_ok=True)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "test.jsonl").write_text('{"problem": "my diary", "answer": "x"}\n' * 50)
    name_copy(tmp_path / "run", secret, **content)
    told = refused(call, "eval", tmp_path / "run", *named, "--scorer", SCORER)
    why = "it tells nothing of" if content else "holds other rows now"
    assert f"the run names the folder {secret}, which {why}; to read it, give --data" in told


def test_a_local_copy_is_read_again_where_it_is_what_it_was_or_a_person_names_it(
    call, made_of_copy, tmp_path
):
    command = ["eval", tmp_path / "run", "--scorer", SCORER]
    shutil.copytree(made_of_copy, tmp_path, dirs_exist_ok=True)
    before = accuracy(call, "eval", tmp_path / "run", "--scorer", SCORER)
    (tmp_path / "copy").rename(tmp_path / "moved")
    name_copy(tmp_path / "run", tmp_path / "moved")
    assert accuracy(call, *command) == before
    rows = tmp_path / "moved" / "test.jsonl"
    rows.write_text(rows.read_text().replace("who is 1", "who was 1"))
    assert "holds other rows now" in refused(call, *command)
    assert accuracy(call, *command, "--data", tmp_path / "moved") >= 0
