"""What a run is, told from others by content: finished, unfinished, or taken over."""

import json
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_sae
from safetensors.torch import load_file, save_file

import corrsteer as cs
from corrsteer.cli import main
from corrsteer.errors import ArtifactError
from corrsteer.execution.checkpoint import Checkpoint
from corrsteer.lm import models
from corrsteer.method.provenance import data_digest
from corrsteer.runs.digests import WHOLE, file_digest, model_files
from corrsteer.runs.folder import load_run
from corrsteer.runs.identity import Identity, known_difference
from corrsteer.studies.paper.cells import Cells

SCORER = "def judge(reply, sample):\n    return float(sum(map(ord, reply)) % 2)\n"
ROWS = [{"prompt": f"say {i}:", "target": "AB"[i % 2]} for i in range(60)]
ASKED = {
    "model": "model",
    "sae": "saes",
    "task": "rows.jsonl",
    "guard": "guard.jsonl",
    "scorer": "own_scorer:judge",
    "max-new-tokens": 3,
    "strategy": "A",
    "controls": 1,
    "permutations": 10,
    "unit-samples": 16,
    "out": "run",
}
STOPPED_AFTER = 3
"""Units of the run that is left unfinished."""


def write_rows(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))


def words(*more, **options):
    options = ASKED | {name.replace("_", "-"): value for name, value in options.items()}
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return ["train", *given, *more]


def forget_the_scorer():
    """Have it imported again, from the folder that is the working directory then."""
    sys.modules.pop("own_scorer", None)


@contextmanager
def stopping(patch, count):
    """The process is interrupted as it keeps the result of a unit."""
    remember, left = Checkpoint.remember, [count]

    def stop(self, key, result):
        remember(self, key, result)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with patch.context() as within:
        within.setattr(Checkpoint, "remember", stop)
        yield


@pytest.fixture(scope="module")
def made(hub, tmp_path_factory):
    """A model, SAEs, a task, a guard and a scorer; a finished run of them, and an unfinished."""
    place = tmp_path_factory.mktemp("made")
    for name in ("model", "saes"):
        shutil.copytree(hub / name, place / name)
    write_rows(place / "rows.jsonl", ROWS)
    write_rows(place / "guard.jsonl", [{**row, "choices": ["x", "y"]} for row in ROWS])
    (place / "own_scorer.py").write_text(SCORER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        forget_the_scorer()
        main(words())
        with stopping(patch, STOPPED_AFTER), pytest.raises(SystemExit):
            main(words(out="left"))
    assert (place / "left.partial").is_dir()
    return place


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of all that, as the working directory."""
    place = tmp_path / "place"
    shutil.copytree(made, place)
    monkeypatch.chdir(place)
    forget_the_scorer()
    return place


def other_model(place):
    shutil.copytree(place / "model", place / "other")


def other_saes(place):
    shutil.copytree(place / "saes", place / "others")


def other_weights(place):
    path = place / "model" / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    save_file(weights | {name: weights[name] + 0.01}, path, metadata={"format": "pt"})


def other_tokenizer(place):
    path = place / "model" / "tokenizer.json"
    path.write_text(path.read_text() + " ")


def other_sae(place):
    shutil.rmtree(place / "saes" / "layer_1")
    write_sae(place / "saes" / "layer_1", 1, seed=9)


def other_targets(place):
    write_rows(place / "rows.jsonl", [{**row, "target": "C"} for row in ROWS])


def other_guard(place):
    write_rows(place / "guard.jsonl", [{**row, "choices": ["x", "z"]} for row in ROWS])


def other_source(place):
    (place / "own_scorer.py").write_text(SCORER.replace("% 2", "% 3 > 0"))


def nothing(place):
    pass


CHANGES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "model": (other_model, {"model": "other"}, "model is 'model' there, 'other' here"),
    "raw": (nothing, {"sae": None, "raw": True}, "sae_source is 'saes' there, 'raw' here"),
    "hook shift": (nothing, {"hook_shift": -1}, "hook_shift is 0 there, -1 here"),
    "scorer": (nothing, {"scorer": "regex:a"}, "scorer is 'own_scorer:judge' there, 'regex:a'"),
    "length": (nothing, {"max_new_tokens": 2}, "max_new_tokens is 3 there, 2 here"),
    "guard": (nothing, {"guard": "none"}, "guards is ['guard.jsonl'] there, [] here"),
    "dtype": (nothing, {"dtype": "bfloat16"}, "dtype is 'float32' there, 'bfloat16' here"),
    "chat": (nothing, {"chat": True}, "chat is False there, True here"),
    "shard": (nothing, {"shard": "1/2"}, "shard is None there, '1/2' here"),
    "units": (nothing, {"unit_samples": 8}, "unit_samples is 16 there, 8 here"),
    "no SAEs": (nothing, {"sae": "nowhere"}, "no SAEs at 'nowhere'"),
    "other SAEs": (other_saes, {"sae": "others"}, "sae_source is 'saes' there, 'others' here"),
    "targets": (other_targets, {}, "the fit samples: changed"),
    "guard's rows": (other_guard, {}, "the guard.jsonl guard samples: changed"),
    "scorer's source": (other_source, {}, "the source of the scorer: changed"),
    "SAE": (other_sae, {}, "the SAE at blocks.1.hook_resid_post: changed"),
    "weights": (other_weights, {}, "model.safetensors of the model: changed"),
    "tokenizer": (other_tokenizer, {}, "tokenizer.json of the model: changed"),
    "no test split": (nothing, {"no_eval": True}, "evaluated is True there, False here"),
    "seed": (nothing, {"seed": 3}, "seed is 42 there, 3 here"),
    "spending": (nothing, {"least_select": 0}, "least_select is 200 there, 0 here"),
}
"""What is changed -> how, the options that go with it, and what is told."""


def changed(place, change, out):
    """The words of `train --resume` after a change, and what is told then."""
    do, options, told = CHANGES[change]
    do(place)
    flags = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is True]
    kept = {name: value for name, value in options.items() if value is not True}
    return words("--resume", *flags, **kept, out=out), told


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


@pytest.mark.parametrize("out", ["run", "left"])
@pytest.mark.parametrize("change", CHANGES)
def test_another_run_is_refused_by_what_differs(call, place, change, out):
    command, told = changed(place, change, out)
    folder = place / ("run" if out == "run" else "left.partial")
    before = contents(folder)
    code, printed, err = call(*command)
    assert (code, printed) == (2, ""), err
    (line,) = err.splitlines()
    assert told in line
    assert contents(folder) == before


def test_the_same_run_is_printed_again_without_loading_the_model(call, place, monkeypatch):
    loaded, load = [], models._load

    def seen(name, path, kind, **options):
        loaded.append(kind)
        return load(name, path, kind, **options)

    monkeypatch.setattr(models, "_load", seen)
    shutil.copytree("model", "elsewhere")
    shutil.rmtree("model")
    shutil.move("elsewhere", "model")  # other times and inodes, and the same bytes
    code, out, err = call(*words("--resume", "--json", "--device=cpu"))
    assert code == 0, err
    assert json.loads(out) == json.loads((place / "run" / "evaluation.json").read_text())
    assert loaded == ["AutoConfig"]


@pytest.mark.parametrize("shard", [None, "1/2"])
def test_a_run_whose_select_split_was_topped_up_is_what_was_asked_for(call, place, shard):
    rows = [{"prompt": f"say {i}:", "target": "x", "split": "fit"} for i in range(108)]
    rows += [{"prompt": f"ask {i}:", "target": "x", "split": "select"} for i in range(12)]
    rows += [{"prompt": f"tell {i}:", "target": "x", "split": "test"} for i in range(10)]
    write_rows(place / "small.jsonl", rows)
    options = {"task": "small.jsonl", "shard": shard, "out": "small"}
    code, _, err = call(*words("--json", **options))
    assert code == 0, err
    assert "fit samples select" in err
    fitted = cs.load_run(place / "small").counts.n_fit
    assert fitted == (27 if shard else 54)
    code, _, err = call(*words("--resume", "--json", **options))
    assert code == 0, err
    code, _, err = call(*words("--resume", **options, least_select=0))
    assert code == 2
    assert "least_select is 200 there, 0 here" in err


def test_unfinished_work_goes_on_after_a_refusal(call, place):
    assert call(*words("--resume", out="left", sae="nowhere"))[0] == 2
    code, _, err = call(*words("--resume", out="left"))
    assert code == 0, err
    one, two = (load_run(place / name) for name in ("run", "left"))
    assert known_difference(Identity.of(one), Identity.of(two)) is None
    assert (place / "left" / "statistics.safetensors").read_bytes() == (
        place / "run" / "statistics.safetensors"
    ).read_bytes()


def test_a_run_from_before_is_compared_on_what_it_tells(call, place):
    path = place / "run" / "run.json"
    document = json.loads(path.read_text())
    assert document.pop("content")["model"]
    assert document.pop("extent")["unit_samples"] == 16
    path.write_text(json.dumps(document))
    other_weights(place)
    assert call(*words("--resume", unit_samples=8))[0] == 0
    code, _, err = call(*words("--resume", max_new_tokens=2))
    assert code == 2
    assert "max_new_tokens is 3 there, 2 here" in err


@pytest.mark.parametrize("change", ["weights", "SAE", "scorer's source", "targets", "dtype"])
def test_what_other_content_gave_is_not_taken_over(call, place, change):
    do, options, told = CHANGES[change]
    do(place)
    code, _, err = call(*words(collected="run", out="new", **options))
    assert code == 2
    assert told.partition(" is ")[0] in err
    assert not (place / "new").exists()


@pytest.mark.parametrize("change", ["weights", "SAE", "scorer's source", "targets", "dtype"])
def test_parts_of_other_content_are_not_added_up(call, place, change):
    do, options, told = CHANGES[change]
    assert call(*words(shard="1/2", out="one"))[0] == 0
    do(place)
    forget_the_scorer()
    assert call(*words(shard="2/2", out="two", **options))[0] == 0
    code, _, err = call("merge", "one", "two", "--out", "all")
    assert code == 2
    assert "two" in err
    assert told.partition(" is ")[0] in err
    assert not (place / "all").exists()


def test_features_are_not_chosen_with_other_saes(call, place):
    assert call("select", "run")[0] == 0
    other_sae(place)
    code, _, err = call("select", "run", "--out", "again")
    assert code == 2
    assert "the SAE at blocks.1.hook_resid_post: changed" in err


@pytest.mark.parametrize(
    "command", ["eval run --scorer=own_scorer:judge", "verify run --with=torch"]
)
def test_a_run_is_not_tried_on_a_model_that_took_the_place_of_its_own(call, place, command):
    assert call(*command.split())[0] == 0
    other_weights(place)
    code, _, err = call(*command.split())
    assert code == 2
    assert "model is not the model any more" in err
    assert "model.safetensors of the model: changed" in err


def test_a_scorer_that_was_edited_judges_again(call, place, monkeypatch):
    command = ["eval", "run", "--scorer=own_scorer:judge", "--json", "--unit-samples=4"]
    with stopping(monkeypatch, 8):
        assert call(*command)[0] == 130
    other_source(place)
    forget_the_scorer()
    code, resumed, err = call(*command, "--resume")
    assert code == 0, err
    code, fresh, err = call(*command)
    assert code == 0, err
    one, two = (json.loads(text) for text in (resumed, fresh))
    assert one["baseline"] == two["baseline"]
    assert one["steered"] == two["steered"]


def test_a_run_made_in_python_says_what_it_was_made_from(lm, task, tmp_path):
    run = cs.fit(lm, task, strategy="S", permutations=0)
    content = load_run(run.save(tmp_path / "run")).provenance.content
    assert content.dtype == "float32"
    assert content.model == model_files(Path(lm.id))
    assert list(content.saes) == [f"blocks.{layer}.hook_resid_post" for layer in range(3)]
    assert list(content.samples) == ["fit", "select", "test"]
    assert run.save(tmp_path / "run")  # its own place


def test_a_study_is_told_by_its_content_where_it_was_recorded(tmp_path):
    made = {"seed": 1, "content": {"files": {"a.safetensors": "1"}}}
    other = {"seed": 1, "content": {"files": {"a.safetensors": "2"}}}
    Cells(tmp_path / "study", made)
    Cells(tmp_path / "study", made)
    with pytest.raises(ArtifactError, match=r"of other content \(a\.safetensors of the model"):
        Cells(tmp_path / "study", other)
    Cells(tmp_path / "before", {"seed": 1})
    Cells(tmp_path / "before", made)
    with pytest.raises(ArtifactError, match="with seed 1, not 2"):
        Cells(tmp_path / "before", {**made, "seed": 2})


def test_a_folder_of_rows_is_told_by_its_rows(tmp_path):
    (tmp_path / "data" / "more").mkdir(parents=True)
    rows = tmp_path / "data" / "more" / "test.jsonl"
    rows.write_text("{}")
    told = data_digest(tmp_path / "data")
    (tmp_path / "data" / "README.md").write_text("about")
    assert data_digest(tmp_path / "data") == told
    rows.write_text("[]")
    assert data_digest(tmp_path / "data") != told
    assert data_digest(rows) != told


def big_safetensors(path, changes=()):
    """Twelve tensors of 1 MB, of which some have one number changed."""
    weights = {f"t{index}": torch.arange(2**18) + index for index in range(12)}
    for name, place in changes:
        weights[name][place] += 1
    save_file(weights, path)


def test_a_large_file_is_told_by_blocks_of_every_tensor(tmp_path):
    path = tmp_path / "model.safetensors"
    big_safetensors(path)
    assert path.stat().st_size > WHOLE
    told = file_digest(path)
    for index in range(12):
        for place in (0, 2**18 - 1):
            big_safetensors(path, [(f"t{index}", place)])
            assert file_digest(path) != told
    big_safetensors(path)
    assert file_digest(path) == told


def test_a_large_file_of_another_kind_is_told_by_its_size_and_blocks(tmp_path):
    path = tmp_path / "rows.parquet"
    content = bytes(2 * WHOLE)
    path.write_bytes(content)
    told = file_digest(path)
    for other in (content[:-1], content + b"\0", b"\1" + content[1:], content[:-1] + b"\1"):
        path.write_bytes(other)
        assert file_digest(path) != told


@pytest.mark.parametrize(
    "change", [b"", b"{", b"[1]", b'{"a": 1}', b'{"a": {"data_offsets": [9]}}']
)
def test_a_large_file_with_a_broken_header_has_a_digest(tmp_path, change):
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(change).to_bytes(8, "little") + change + bytes(2 * WHOLE))
    assert len(file_digest(path)) == 16
    offsets = json.dumps({"a": {"data_offsets": [-(2**70), 2**70]}}).encode()
    path.write_bytes(len(offsets).to_bytes(8, "little") + offsets + bytes(2 * WHOLE))
    assert len(file_digest(path)) == 16


def test_a_small_file_is_read_whole(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b"\0" * WHOLE)
    told = file_digest(path)
    path.write_bytes(b"\0" * (WHOLE // 2) + b"\1" + b"\0" * (WHOLE // 2 - 1))
    assert file_digest(path) != told
