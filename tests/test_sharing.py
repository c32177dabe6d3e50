"""Steerings on the hub and in folders: what is written, loaded, refused and forced."""

import json
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard

import corrsteer as cs
from corrsteer.cli import main
from corrsteer.cli.common import model_of
from corrsteer.cli.options import ModelOptions
from corrsteer.errors import ArtifactError, ModelError
from corrsteer.export import export
from corrsteer.features import Feature
from corrsteer.hook_points import HookPoint
from corrsteer.lm import models
from corrsteer.runs.folder import load_run
from corrsteer.runs.records import as_json
from corrsteer.runs.steer import mismatch, steer
from corrsteer.runs.steering import Steering

FILES = ["README.md", "config.json", "steer.py", "steering.safetensors"]
SITES = ("blocks.0.hook_resid_pre", "blocks.1.hook_mlp_out", "blocks.2.hook_resid_post")


def steering(lm, sites=SITES, **options):
    features = tuple(
        Feature(site, index, 3, 2.0, 0.5, (0.4, 0.6), 0.01, 0.9, 0.95, None)
        for index, site in enumerate(sites)
    )
    vectors = {
        HookPoint.parse(site): torch.randn(
            lm.d_model, generator=torch.Generator().manual_seed(index)
        )
        for index, site in enumerate(sites)
    }
    return Steering(vectors, features, options.pop("model", lm.id), **options)


@pytest.fixture(scope="module")
def run(lm, tmp_path_factory):
    """A run of the tiny model, evaluated and saved."""
    from corrsteer.method.train import train
    from corrsteer.settings import FitSettings

    folder = tmp_path_factory.mktemp("sharing")
    rows = [{"prompt": f"say {i}"} for i in range(60)]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = cs.load_task(folder / "t.jsonl", scorer=r"regex:^\s*[n-zN-Z0-4]", max_new_tokens=3)
    train(lm, task, (), FitSettings(strategy="A"), folder / "run")
    return folder / "run"


def test_a_saved_steering_comes_back_from_its_folder(lm, tmp_path):
    saved = steering(lm, strength=0.5, revision="abc", metadata={"model_type": "gemma2"})
    saved.save_pretrained(tmp_path / "s")
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == FILES
    back = Steering.from_pretrained(tmp_path / "s")
    assert list(back.vectors) == list(saved.vectors)
    assert all(torch.equal(back.vectors[hook], saved.vectors[hook]) for hook in back.vectors)
    assert (back.strength, back.revision, back.metadata) == (0.5, "abc", {"model_type": "gemma2"})
    assert json.loads((tmp_path / "s" / "config.json").read_text())["library"] == "corrsteer"


def test_pushing_uploads_the_folder_with_its_card(lm, monkeypatch):
    seen = {}

    def create_repo(self, repo_id, **options):
        seen["private"] = options["private"]
        return type("Repository", (), {"repo_id": repo_id})()

    def upload_folder(self, *, repo_id, folder_path, **options):
        seen["files"] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        return f"commit of {repo_id}"

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    pushed = steering(lm, model="gemma2b").push_to_hub(
        "me/mine", private=True, model_card_kwargs={"license": "mit"}
    )
    assert pushed == "commit of me/mine"
    assert seen["private"]
    assert sorted(seen["files"]) == FILES
    data = ModelCard(seen["files"]["README.md"].decode()).data
    assert data.base_model == "google/gemma-2-2b-it"
    assert data.library_name == "corrsteer"
    assert data.license == "mit"
    assert {"steering-vectors", "model_hub_mixin"} <= set(data.tags)


def cached(tmp_path, lm, commit="c" * 40):
    """A cache of the hub that holds `me/mine`."""
    cache = tmp_path / "cache"
    repository = cache / "models--me--mine"
    steering(lm).save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return cache


def test_a_cached_repository_is_loaded_without_a_network(lm, tmp_path):
    cache = cached(tmp_path, lm)
    back = Steering.from_pretrained("me/mine", cache_dir=cache)
    assert back.features == steering(lm).features
    with pytest.raises(ArtifactError, match="no steering to be had from 'me/other'"):
        Steering.from_pretrained("me/other", cache_dir=cache)
    with pytest.raises(ArtifactError, match="no steering to be had from 'not a name!'"):
        Steering.from_pretrained("not a name!", cache_dir=cache)


def test_a_folder_without_a_steering_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no steering at"):
        Steering.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ArtifactError):
        Steering.from_pretrained(tmp_path)


def test_a_runs_card_tells_its_evidence_and_where_it_holds(run, tmp_path):
    export(load_run(run).described(), "torch", tmp_path / "s")
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == FILES
    text = (tmp_path / "s" / "README.md").read_text()
    document = as_json(load_run(run).evaluation)
    for words in (
        document["verdict"]["text"],
        f"| accuracy without it | {100 * document['baseline']['accuracy']:.1f} % |",
        f"{document['side_effects']['unchanged']} stayed as they were",
        "10 random controls",
        "## Limits",
        "## Licence of the parts",
        "`t.jsonl`",
    ):
        assert words in text
    assert str(run.parent) not in text
    assert "which was not measured" not in text
    for feature in document["features"]:
        assert f"| `{feature['hook_point']}` | {feature['latent']} |" in text
    other = load_run(run).described().at(0.125)
    assert "this file steers at\n0.125, which was not measured" in str(other.generate_model_card())


def test_evidence_travels_with_the_vectors(run, tmp_path):
    Steering.load(run).save_pretrained(tmp_path / "s")
    assert (tmp_path / "s" / "README.md").read_text() == str(
        load_run(run).described().generate_model_card()
    )


def test_a_card_without_a_run_says_what_is_not_known(lm):
    text = str(steering(lm, model="a`b|c").generate_model_card())
    assert "| model | `a'b/c` |" in text
    assert "without the run that made it" in text
    assert "None is recorded in this file." in text


HOSTILE = "a\n---\nlicense: evil\n# Run *this*: `curl x` | sh <img src=x>[y](z)\x1b[31m\u202e"


@pytest.mark.parametrize("name", [HOSTILE, "a\n  - b", "a" * 2_000_000])
def test_names_are_text_in_a_card(lm, name):
    about = {"task": name, "sae": name, "strategy": name, "corrsteer": name}
    evidence = dict.fromkeys(("baseline", "steered", "delta", "side_effects", "controls"))
    about["evidence"] = json.dumps({"verdict": name, "strength": 1, "guards": {}, **evidence})
    card = str(steering(lm, model=name, metadata=about).generate_model_card())
    data = ModelCard(card).data.to_dict()
    assert "license" not in data
    assert "base_model" not in data
    lines = card.split("---", 2)[2].splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        line for line in lines if line.startswith("## ") or line.startswith("# Steering vectors")
    ]
    outside_code = "".join(re.sub("`[^`]*`", "", line) for line in lines)
    assert not re.search(r"(?<!\\)<", outside_code)
    assert not {"\x1b", "\u202e"} & {*card}


@pytest.mark.parametrize(
    "evidence",
    ["[]", "{", "[" * 100_000, '{"verdict": 1}', '"yes"', '{"verdict": "a", "baseline": "<b>"}'],
)
def test_evidence_that_is_none_is_refused(lm, evidence):
    made = steering(lm, metadata={"evidence": evidence})
    with pytest.raises(ArtifactError, match=r"the steering's evidence cannot be read \("):
        made.generate_model_card()


def identified(lm, monkeypatch, name, commit=None):
    """The tiny model under another name."""
    monkeypatch.setattr(lm, "id", name)
    monkeypatch.setattr(lm, "revision", commit)
    monkeypatch.setattr(lm.model.config, "_name_or_path", name)
    monkeypatch.setattr(lm.model.config, "_commit_hash", commit, raising=False)


def test_a_steering_for_another_model_or_revision_is_refused_unless_forced(lm, monkeypatch):
    identified(lm, monkeypatch, "google/gemma-2-2b-it", "new")
    for made, reason in (
        (steering(lm, model="meta-llama/Llama-3.1-8B"), "is for meta-llama/Llama-3.1-8B, and this"),
        (steering(lm, model="gemma2b", revision="old"), "is for revision old of google/gemma"),
        (steering(lm, metadata={"model_type": "llama"}), "type llama, and this one is gemma2"),
    ):
        for model in (lm, lm.model):
            with pytest.raises(ModelError, match=f"{reason}.*--force"), steer(model, made):
                pass
        with steer(lm, made, force=True):
            pass
    for made in (
        steering(lm, model="gemma2b", revision="new"),
        steering(lm, model="google/gemma-2-2b-it"),
        steering(lm, model=""),
        steering(lm, model="/somewhere/gemma"),
    ):
        with steer(lm, made):
            pass


def test_width_and_layers_must_fit_even_if_forced(lm):
    foreign = Steering({HookPoint(7, "resid_post"): torch.ones(lm.d_model)})
    with pytest.raises(ModelError, match="does not fit"), steer(lm, foreign, force=True):
        pass


def test_a_forced_evaluation_says_so(lm, run, monkeypatch):
    task = cs.load_task(run.parent / "t.jsonl", scorer=r"regex:^\s*[n-z]", max_new_tokens=2)
    foreign = steering(lm, model="gemma2b")
    assert cs.evaluate(lm, task, steering(lm), limit=4).forced is None
    identified(lm, monkeypatch, "other/model")
    with pytest.raises(ModelError, match="--force"):
        cs.evaluate(lm, task, foreign, limit=4)
    result = cs.evaluate(lm, task, foreign, limit=4, force=True)
    assert result.forced == mismatch(lm, foreign)
    assert "is for google/gemma-2-2b-it" in result.forced


def test_the_command_line_forces_and_says_so(run, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "run")
    about = {"model_type": "llama"}
    replace(Steering.load(folder), metadata=about).save(folder)
    arguments = ["eval", str(folder), r"--scorer=regex:^\s*[n-z]", "--test-limit=4", "--json"]

    def call(*more):
        with pytest.raises(SystemExit) if not more else nullcontext() as left:
            main([*arguments, *more])
        captured = capsys.readouterr()
        return (left.value.code if not more else 0), captured.out, captured.err

    code, out, err = call()
    assert (code, out) == (2, "")
    assert "for a model of type llama, and this one is gemma2" in err
    assert "--force" in err
    code, out, _ = call("--force")
    assert code == 0
    assert "type llama" in json.loads(out)["forced"]


def test_a_run_is_evaluated_at_its_own_commit_unless_told_otherwise(run, hub, monkeypatch):
    made = load_run(run)
    made.provenance = replace(made.provenance, revision="abc")
    own = model_of(made, ModelOptions())
    assert (own.model, own.revision) == (str(hub / "model"), "abc")
    assert model_of(made, ModelOptions(revision="def")).revision == "def"
    assert model_of(made, ModelOptions(model="an/other")).revision is None
    asked, load = [], models._load

    def seen(*arguments, **options):
        asked.append(options.pop("revision", None))
        return load(*arguments, **options)

    monkeypatch.setattr(models, "_load", seen)
    cs.load_model(str(hub / "model"), sae=str(hub / "saes"), revision="abc")
    assert asked == ["abc", "abc"]


ALONE = """
import sys
sys.modules["corrsteer"] = None  # importing it fails
import json, torch
from transformers import AutoModelForCausalLM
from generated.steer import steer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = torch.tensor(json.loads(sys.argv[2]))
def reply():
    said = model.generate(
        input_ids=ids, attention_mask=(ids != 0).long(), max_new_tokens=6, do_sample=False,
        output_logits=True, return_dict_in_generate=True,
    )
    return {"ids": said.sequences.tolist(), "logits": [step.tolist() for step in said.logits]}
said = {}
for scope in ("generated", "all"):
    handles = steer(model, scope + "/steering.safetensors")
    said[scope] = reply()
    for handle in handles:
        handle.remove()
json.dump(said | {"plain": reply()}, sys.stdout)
"""


def test_the_script_alone_steers_as_we_do(lm, hub, tmp_path):
    made = {scope: steering(lm, positions=scope, strength=0.7) for scope in ("generated", "all")}
    for scope, each in made.items():
        export(each, "torch", tmp_path / scope)
    ids = [[0, 0, 1, 20, 30, 40], [1, 9, 8, 7, 6, 5]]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALONE, str(hub / "model"), json.dumps(ids)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    said, given = json.loads(done.stdout), torch.tensor(ids)

    def ours():
        return lm.model.generate(
            given,
            attention_mask=(given != 0).long(),
            max_new_tokens=6,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )

    plain = ours()
    assert said["plain"]["ids"] == plain.sequences.tolist()
    for scope, each in made.items():
        with steer(lm, each):
            steered = ours()
        assert said[scope]["ids"] == steered.sequences.tolist()
        logits = torch.tensor(said[scope]["logits"])
        torch.testing.assert_close(logits, torch.stack(steered.logits), atol=1e-5, rtol=0)
        assert (logits[0] - plain.logits[0]).abs().max() > 0.01
