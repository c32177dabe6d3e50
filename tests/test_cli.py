"""The command line from outside: exit codes, the one line on stderr, and what was written."""

import json
import shutil

import pytest
import torch
from click.testing import CliRunner
from conftest import D_MODEL, write_sae
from safetensors.torch import load_file, save_file

from corrsteer import files
from corrsteer.cli import cli
from corrsteer.report.command import reproduce
from corrsteer.runs.folder import load_run

SCORER = r"regex:^\s*[n-zN-Z0-4]"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def letters(tmp_path):
    path = tmp_path / "letters.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"say {i}", "target": "x"}) for i in range(60)))
    return path


@pytest.fixture
def train(call, hub, letters):
    """`train` on the tiny model, with options replaced or added."""

    def train(*more, **options):
        options = {
            "model": hub / "model",
            "sae": hub / "saes",
            "task": letters,
            "scorer": SCORER,
            "max-new-tokens": 3,
        } | {name.replace("_", "-"): value for name, value in options.items()}
        given = [f"--{name}={value}" for name, value in options.items() if value is not None]
        return call("train", *given, *more)

    return train


def refused(result, here, *words):
    """The result is a user's mistake: exit 2, one line that has the words, nothing written."""
    code, out, err = result
    assert code == 2, err
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    for word in words:
        assert word in lines[0]
    assert list(here.iterdir()) == []


def test_train_writes_a_run_and_prints_one_json_object(train, here):
    code, out, err = train("--json", strategy="A", out=here / "run")
    assert code == 0, err
    document = json.loads(out)
    assert document["schema"] == "corrsteer.run/1"
    assert document["task"] | {"n_fit": 30, "n_select": 12, "n_test": 18} == document["task"]
    assert document["settings"]["seed"] == 42
    assert {"value", "ci", "p_value"} <= set(document["delta"])
    effects = document["side_effects"]
    counts = [effects[k] for k in ("improved", "worsened", "changed_equal", "unchanged")]
    assert sum(counts) == 18
    assert document["controls"]["random"]["draws"] == 10
    assert set(document["seconds"]) >= {"load", "collect", "select", "validate", "evaluate"}
    assert document["peak_memory_mb"] > 0
    assert json.loads((here / "run" / "evaluation.json").read_text()) == document
    names = {path.name for path in (here / "run").iterdir()}
    assert {"run.json", "statistics.safetensors", "steering.safetensors"} <= names
    assert {"features.json", "predictions.parquet"} <= names
    vectors = load_file(here / "run" / "steering.safetensors")
    assert set(vectors) == {f["hook_point"] for f in document["features"]}
    assert all(v.dtype == torch.float32 and v.shape == (D_MODEL,) for v in vectors.values())


def test_train_prints_a_table_and_where_the_run_is(train, here):
    code, out, _ = train()
    assert code == 0
    for word in ("baseline", "S x", "A x", "recommended", "SER", "Run folder: runs/"):
        assert word in out
    (folder,) = (here / "runs").iterdir()
    assert (folder / "run.json").exists()


@pytest.mark.parametrize(
    ("flags", "strategy", "layers"),
    [
        (["--layer=global"], "S", None),
        (["--layer", "foreach"], "A", None),
        (["--layer=foreach", "--validate"], "P", None),
        (["--layer=2"], "A", [2]),
        (["--strategy=G"], "G", None),
        (["--layers=0,2", "--strategy=A"], "A", [0, 2]),
        ([], "auto", None),
    ],
)
def test_the_papers_flags_name_strategies(train, here, flags, strategy, layers):
    code, out, err = train("--json", "--no-eval", *flags)
    assert code == 0, err
    document = json.loads(out)
    assert document["strategy"] == strategy
    assert document["settings"]["layers"] == layers
    assert document["baseline"] is None


def test_underscores_and_hyphens_are_alike(train, here):
    code, out, _ = train(
        "--json", "--num_samples=20", "--steer_pool=mean", "--mask=all", "--no_eval", strategy="S"
    )
    assert code == 0
    settings = json.loads(out)["settings"]
    assert (settings["samples"], settings["steer_pool"]) == (20, "mean")
    assert settings["positions"] == "all"


def test_eval_of_the_baseline_and_of_a_run(train, call, here, hub, letters):
    train("--no-eval", strategy="A", out=here / "run")
    code, out, err = call(
        "eval", "baseline", "--json", f"--model={hub / 'model'}", f"--task={letters}",
        f"--scorer={SCORER}", "--max-new-tokens=3",
    )  # fmt: skip
    assert code == 0, err
    baseline = json.loads(out)
    assert baseline["baseline"]["n"] == 18
    assert baseline["steered"] is None
    code, out, err = call("eval", here / "run", "--json", "--strength=0,1,2")
    assert code == 0, err
    document = json.loads(out)
    assert [arm["strength"] for arm in document["strengths"]] == [0, 1, 2]
    assert document["baseline"] == baseline["baseline"]
    assert document["strengths"][0]["side_effects"]["unchanged"] == 18
    code, out, _ = call("eval", here / "run", "--strength=2")
    assert "steered x 2" in out


@pytest.fixture
def reading(train, call, hub, here, monkeypatch):
    """`eval` of a run in `here/run`, as if only these folders could be written to."""
    code, _, err = train("--no-eval", strategy="S", out=here / "run")
    assert code == 0, err

    def reading(*writable, run="run"):
        monkeypatch.setattr(files, "can_write", lambda folder: folder in writable)
        return call("eval", run, "--json", f"--model={hub / 'model'}", f"--task={here / 't.jsonl'}",
                    f"--scorer={SCORER}")  # fmt: skip

    rows = [{"prompt": f"say {i}", "split": "test"} for i in range(20)]
    (here / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return reading


def test_eval_of_a_run_beside_which_nothing_can_be_written(reading, here, monkeypatch):
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    _, expected, _ = reading(here, run="../run")
    code, out, err = reading(here / "below", run="../run")
    assert (code, err) == (0, "")
    assert json.loads(out)["baseline"] == json.loads(expected)["baseline"]
    code, out, err = reading(run="../run")
    assert code == 0, err
    assert "what is done is not kept until all is done" in err
    assert json.loads(out)["baseline"] == json.loads(expected)["baseline"]
    assert list((here / "below").iterdir()) == []


def test_eval_of_a_run_beside_which_nothing_can_be_written_goes_on(reading, here, monkeypatch):
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    with monkeypatch.context() as interrupted:
        interrupted.setattr("corrsteer.cli.eval.evaluate_on", lambda runner, _: stop(runner))
        code, _, err = reading(here / "below", run="../run")
    assert code == 130
    (kept,) = (here / "below" / "runs").iterdir()
    assert kept.name.endswith(".partial")
    assert str(kept) in err


def stop(runner):
    _ = runner.baseline
    raise KeyboardInterrupt


def test_eval_in_the_runs_own_folder(reading, here, monkeypatch):
    monkeypatch.chdir(here / "run")
    code, _, err = reading(here, run=".")
    assert (code, err) == (0, "")


def test_home_is_followed_where_things_are_read(train, call, hub, letters, here, monkeypatch):
    monkeypatch.setenv("HOME", str(letters.parent))
    (letters.parent / "hub").symlink_to(hub)
    code, _, err = train(
        "--json", "--no-eval", model="~/hub/model", sae="~/hub/saes", task="~/letters.jsonl",
        strategy="S", out="~/run",
    )  # fmt: skip
    assert code == 0, err
    assert load_run("~/run").provenance.task == str(letters)
    assert call("select", "~/run", "--json")[0] == 0
    code, _, err = call("eval", "~/run", "--task", "~/letters.jsonl", "--json")
    assert code == 0, err
    assert list(here.iterdir()) == []


def test_report_writes_the_page_and_its_figures(train, call, here, tmp_path):
    train(strategy="A", out=here / "run")
    page = (here / "run" / "report.html").read_bytes()
    code, out, err = call("report", here / "run", "--out", tmp_path / "r", "--figures")
    assert code == 0, err
    assert (tmp_path / "r" / "report.html").read_bytes() == page
    assert {".svg", ".png"} <= {path.suffix for path in (tmp_path / "r" / "figures").iterdir()}
    assert len(out.splitlines()) > 2


def test_models_and_tasks_are_listed(call):
    for command, name in (("models", "mini"), ("tasks", "mini-harmbench")):
        code, out, _ = call(command, "--json")
        assert code == 0
        assert name in [row["name"] for row in json.loads(out)]
        assert name in call(command)[1]


@pytest.mark.parametrize("command", [[], ["train"], ["eval"], ["report"], ["models"], ["tasks"]])
def test_help_is_there(command):
    result = CliRunner().invoke(cli, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output
    if command[:1] in (["train"], ["eval"]):
        assert "Examples" in result.output


# --- bad input, each with the words that its one line must have ------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "gemini"}, ["unknown model 'gemini'", "mini"]),
        ({"model": "no/such-model"}, ["model 'no/such-model' cannot be loaded"]),
        ({"task": "mini-mmul"}, ["unknown task 'mini-mmul'", "mini-mmlu"]),
        ({"task": "none.jsonl"}, ["cannot read none.jsonl"]),
        ({"strategy": "Z"}, ["strategy is 'Z'", "'S', 'A', 'P'"]),
        ({"layer": "last"}, ["--layer is 'last'", "global"]),
        ({"layer": "7"}, ["layer 7 is not in 0..2"]),
        ({"layers": "0,9"}, ["layer 9 is not in 0..2"]),
        ({"layers": "one"}, ["--layers", "'one'"]),
        ({"layer": "1", "layers": "1"}, ["exclude each other"]),
        ({"layer": "global", "strategy": "A"}, ["both name a strategy"]),
        ({"scorer": "rouge"}, ["unknown scorer 'rouge'"]),
        ({"scorer": "regex:("}, ["no regular expression"]),
        ({"scorer": "no.module:f"}, ["cannot be imported"]),
        ({"scorer": None}, ["which scorer"]),
        ({"pool": "sum"}, ["pool is 'sum'", "'max', 'mean' or 'first'"]),
        ({"positions": "prompt"}, ["positions is 'prompt'"]),
        ({"samples": "2"}, ["samples is 2", "4 or more"]),
        ({"samples": "many"}, ["--samples", "many"]),
        ({"strength": "nan"}, ["strength has nan"]),
        ({"seed": "-1"}, ["seed is -1"]),
        ({"batch-size": "0"}, ["batch_size is 0"]),
        ({"controls": "-1"}, ["controls is -1"]),
        ({"test-limit": "0"}, ["test_limit is 0"]),
        ({"max-new-tokens": "0"}, ["max_new_tokens is 0"]),
        ({"sae": "nowhere"}, ["no SAEs at 'nowhere'"]),
        ({"sae": None}, ["has no SAEs", "--sae"]),
        ({"device": "cuda:77"}, ["device 'cuda:77' cannot be used"]),
        ({"dtype": "int7"}, ["unknown dtype 'int7'"]),
        ({"guard": "nothing"}, ["unknown task 'nothing'"]),
        ({"filter-value": "x"}, ["there is no task"]),
        ({"speed": "fast"}, ["--speed"]),
        ({"scorer": "regex:.*"}, ["all 30 fit outcomes equal 1"]),
        ({"scorer": "regex:(?!)"}, ["all 30 fit outcomes equal 0"]),
    ],
)
def test_a_mistake_gets_one_line_and_exit_2(train, here, options, words):
    refused(train(**options), here, *words)


def test_validate_alone_is_refused(train, here):
    refused(train("--validate"), here, "--validate belongs to --layer foreach")


def test_raw_and_sae_together_are_refused(train, here):
    refused(train("--raw"), here, "--raw and --sae exclude each other")


@pytest.mark.parametrize("arguments", [["bogus"], ["train"], ["eval"], ["tasks", "--bogus"]])
def test_wrong_usage_gets_one_line(call, here, arguments):
    refused(call(*arguments), here)


def test_a_malformed_line_is_named(train, here, letters):
    letters.write_text(letters.read_text() + "\n{oops")
    refused(train(), here, "line 61", "not JSON")


@pytest.mark.parametrize("split", ["fit", "select", "test"])
def test_an_empty_split_is_refused(train, here, letters, split):
    others = [name for name in ("fit", "select", "test") if name != split]
    rows = [{"prompt": f"say {i}", "split": others[i % 2]} for i in range(40)]
    letters.write_text("\n".join(map(json.dumps, rows)))
    refused(train(), here, f"the {split} split", "is empty")


def test_too_few_samples_are_refused(train, here, letters):
    letters.write_text("\n".join(json.dumps({"prompt": f"say {i}"}) for i in range(5)))
    refused(train(), here, "only 2 fit samples", "4 or more")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('bad reply')", ["raised ValueError", "bad reply"]),
        ("return 7", ["gave 7", "from 0 to 1"]),
        ("return 'yes'", ["gave 'yes'"]),
    ],
)
def test_a_bad_scorer_function_is_refused(train, here, tmp_path, monkeypatch, body, words):
    name = f"bad_scorer_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"def judge(reply, sample):\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    refused(train(scorer=f"{name}:judge"), here, *words)


def test_a_run_folder_of_other_settings_is_refused(train, here):
    assert train("--no-eval", strategy="S", out=here / "run")[0] == 0
    before = {path.name: path.read_bytes() for path in (here / "run").iterdir()}
    code, _, err = train("--no-eval", strategy="A", out=here / "run")
    assert code == 2
    assert "holds a run already" in err
    assert {path.name: path.read_bytes() for path in (here / "run").iterdir()} == before


def test_an_out_that_holds_other_files_is_refused(train, here, tmp_path):
    refused(train(out=tmp_path), here, "holds other files")


def test_eval_of_what_is_no_run_is_refused(call, here, tmp_path):
    refused(call("eval", "nowhere"), here, "no run at 'nowhere'")
    refused(call("eval", tmp_path), here, "has no run.json")
    refused(call("eval", "baseline"), here, "which task?")
    refused(call("eval", "baseline", "--task=mini-mmlu", "--strength=1"), here, "not steered")


def test_a_corrupt_run_is_refused(train, call, here, tmp_path):
    train("--no-eval", strategy="S", out=tmp_path / "run")
    (tmp_path / "run" / "steering.safetensors").write_bytes(b"\xff" * 64)
    refused(call("eval", tmp_path / "run"), here, "not a whole steering file")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d_in": 8}, ["has d_in 8", f"width {D_MODEL}"]),
        ({"layer": 9}, ["of layer 9", "0..2"]),
        ({"metadata": {}}, ["does not say where it belongs"]),
        ({"metadata": {"hook_name": "blocks.0.attn.hook_z"}}, ["cannot be steered"]),
        ({"architecture": "mystery"}, ["cannot be loaded"]),
        ({"weights": {"W_dec": torch.full((24, D_MODEL), torch.nan)}}, ["NaN or infinity"]),
        ({"weights": {"b_enc": torch.zeros(5)}}, ["cannot be loaded"]),
    ],
)
def test_an_sae_that_does_not_fit_is_refused(train, here, tmp_path, changes, words):
    write_sae(tmp_path / "saes" / "one", **({"layer": 0, "seed": 0} | changes))
    refused(train(sae=tmp_path / "saes"), here, *words)


def test_broken_sae_files_are_refused(train, here, tmp_path):
    folder = tmp_path / "saes" / "one"
    write_sae(folder, layer=0, seed=0)
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    refused(train(sae=tmp_path / "saes"), here, "cannot be loaded")
    (folder / "cfg.json").write_text("{")
    refused(train(sae=tmp_path / "saes"), here, "cfg.json cannot be read")
    shutil.rmtree(folder)
    refused(train(sae=tmp_path / "saes"), here, "no SAE in")


@pytest.fixture
def changed_model(hub, tmp_path):
    """A copy of the tiny model's folder, to be spoilt."""
    return shutil.copytree(hub / "model", tmp_path / "model")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_gives_nan_is_refused(train, here, changed_model, value):
    path = changed_model / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("layers.1.mlp.down_proj.weight"))
    weights[name][0, 0] = value
    save_file(weights, path, metadata={"format": "pt"})
    refused(train(model=changed_model), here, "NaN", "--dtype float32")


def test_a_tokenizer_without_padding_falls_back_to_eos_or_is_refused(train, here, changed_model):
    path = changed_model / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps(config))
    code, _, err = train("--no-eval", "--json", model=changed_model, strategy="S", out="run")
    assert code == 0, err
    assert "no padding token" in err
    shutil.rmtree(here / "run")
    del config["eos_token"]
    path.write_text(json.dumps(config))
    for name in ("config.json", "generation_config.json"):
        document = json.loads((changed_model / name).read_text())
        document["eos_token_id"] = None
        (changed_model / name).write_text(json.dumps(document))
    refused(train(model=changed_model), here, "neither a padding nor an EOS token")


def test_chats_for_a_model_without_a_template_are_refused(train, here, letters):
    turns = [{"messages": [{"role": "user", "content": f"hi {i}"}]} for i in range(40)]
    letters.write_text("\n".join(map(json.dumps, turns)))
    refused(train(), here, "has no chat template")


def test_a_folder_that_is_no_model_is_refused(train, here, tmp_path):
    refused(train(model=tmp_path), here, "cannot be loaded")


def test_a_full_disk_is_told_in_one_line(train, here, monkeypatch):
    import errno
    import os

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = train("--no-eval", strategy="S", out=here / "run")
    assert code == 2
    assert "No space left on device; free some space" in err
    assert list(here.iterdir()) == []


def test_ctrl_c_exits_130(train, here, monkeypatch):
    import corrsteer.method.train

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(corrsteer.method.train, "fit_with", interrupted)
    code, _, err = train(strategy="S")
    assert code == 130
    assert err.strip().splitlines()[-1].startswith("corrsteer: interrupted")
    assert list(here.iterdir()) == []


def test_parts_are_merged_and_what_they_collected_is_searched(train, call, tmp_path):
    whole = train(out=tmp_path / "whole", strategy="P", guard="none")
    parts = [tmp_path / f"part-{number}" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        assert train(out=part, shard=f"{number}/2")[0] == 0
    assert call("merge", *parts, "--out", tmp_path / "all")[0] == 0
    searched = {"out": tmp_path / "searched", "collected": tmp_path / "all"}
    for _ in range(2):  # then it is there already
        code, _, err = train("--resume", **searched, strategy="P", guard="none")
        assert (whole[0], code) == (0, 0), err
    one, two = (
        json.loads((tmp_path / name / "evaluation.json").read_text())
        for name in ("whole", "searched")
    )
    assert two["task"] == one["task"]
    assert two["steered"] == one["steered"]
    assert [f["latent"] for f in two["features"]] == [f["latent"] for f in one["features"]]
    assert f"--collected {tmp_path / 'all'}" in reproduce(load_run(tmp_path / "searched"))


def test_what_cannot_have_been_collected_is_refused(train, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    refused(train(collected=tmp_path / "none"), here, "no run at")
    refused(train(collected=tmp_path, shard="1/2"), here, "--shard", "--collected")


SEEDS = {"controls": 1, "permutations": 20, "strengths": "1", "seeds": "1,2"}


def test_runs_over_seeds_are_told_together(train, here):
    code, out, err = train("--json", out="both", **SEEDS)
    assert code == 0, err
    document = json.loads(out)
    assert document == json.loads((here / "both" / "seeds.json").read_text())
    runs = {seed: load_run(here / "both" / f"seed-{seed}") for seed in (1, 2)}
    assert [run.settings.seed for run in runs.values()] == [1, 2]
    assert [*document["arms"]] == ["S", "A", "P", "G", "dense", "denoised", "recommended"]
    for name, arm in document["arms"].items():
        found = document["runs"].values()
        of_arm = [run if name == "recommended" else run["strategies"][name] for run in found]
        changes = [each["delta"]["value"] for each in of_arm]
        assert [*arm["changes"].values()] == changes
        assert arm["mean"] == pytest.approx(sum(changes) / 2)
    assert sum(document["verdicts"].values()) == 2
    code, again, err = train("--json", "--resume", out="both", **SEEDS)
    assert code == 0, err
    assert json.loads(again)["arms"] == document["arms"]
    code, table, _ = train("--resume", out="both", **SEEDS)
    assert code == 0
    assert "recommended" in table
    assert "seed 2" in table


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"seeds": "1"}, "two or more different numbers"),
        ({"seeds": "1,1"}, "two or more different numbers"),
        ({"seeds": "1,-2"}, "seed is -2; choose 0 to"),
        ({"seed": "3"}, "go without --seed"),
        ({"shard": "1/2"}, "go without --shard"),
    ],
)
def test_seeds_that_are_no_several_runs_are_refused(train, here, more, told):
    refused(train(**(SEEDS | more)), here, told)


def test_replies_that_nothing_was_read_out_of_are_counted_and_count_as_wrong(call, tmp_path):
    rows = [{"prompt": "Say a number:", "target": 7, "split": split} for split in 4 * ["test"]]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ask = ("eval", "baseline", "--model=mini", f"--task={tmp_path / 't.jsonl'}", "--scorer=numeric")
    code, out, err = call(*ask, "--max-new-tokens=4", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["task"]["unread_test"], told["task"]["unscored_test"]) == (4, 0)
    assert told["baseline"]["accuracy"] == 0
    code, out, _ = call(*ask, "--max-new-tokens=4")
    assert "unread: nothing could be read out of the reply, so it counts as wrong" in out
