"""Latents named by hand become an artifact like any other."""

import json

import pytest
import torch

import corrsteer as cs
from corrsteer.errors import DataError, SettingsError, UnknownNameError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.models import facts_of
from corrsteer.method.compose import compose
from corrsteer.runs.named_latents import NamedLatent, named_latents
from corrsteer.studies.paper.published import paper_latents


@pytest.fixture(scope="module")
def facts(hub):
    return facts_of(str(hub / "model"), sae=str(hub / "saes"))


def test_vectors_are_the_sums_of_decoder_rows(facts, lm):
    latents = named_latents("0/3=2.5, 2/1=-1,2/7=0.5")
    steering = compose(facts, latents)
    rows = {handle.layer: handle for handle in lm.saes}
    first, last = (steering.vectors[HookPoint(layer, "resid_post")] for layer in (0, 2))
    torch.testing.assert_close(first, 2.5 * rows[0].decoder_rows([3])[0])
    one, other = rows[2].decoder_rows([1, 7])
    torch.testing.assert_close(last, 0.5 * other - one)
    assert steering.direction == "latents named by hand, 0/3 = 2.5, 2/1 = -1, 2/7 = 0.5"


def test_a_file_and_a_run_name_latents_too(lm, task, tmp_path):
    file = tmp_path / "own.csv"
    file.write_text("latent,layer,coefficient\n3,0,2.5\n1,2,-1\n")
    assert named_latents(str(file)) == (NamedLatent(0, 3, 2.5), NamedLatent(2, 1, -1.0))
    run = cs.fit(lm, task, strategy="A")
    run.save(tmp_path / "run")
    found = named_latents(str(tmp_path / "run"))
    assert [(f.layer, f.latent, f.coefficient) for f in run.features] == [
        (each.layer, each.latent, each.coefficient) for each in found
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no latents"),
        ("7/11", "names no latent"),
        ("7/11=nan", "names no latent"),
        ("seven/11=1", "names no latent"),
        ("0/1=1,0/1=2", "named twice"),
    ],
)
def test_a_malformed_list_is_refused(text, told):
    with pytest.raises(SettingsError, match=told):
        named_latents(text)


@pytest.mark.parametrize("rows", ["layer,latent\n0,1\n", "layer,latent,coefficient\n0,x,1\n", None])
def test_a_malformed_file_is_refused(tmp_path, rows):
    file = tmp_path / "own.csv"
    if rows is not None:
        file.write_text(rows)
    with pytest.raises(DataError, match=r"own.csv"):
        named_latents(str(file))


def test_what_no_sae_has_is_refused(facts):
    for latent in (NamedLatent(9, 0, 1.0), NamedLatent(0, 10**6, 1.0)):
        with pytest.raises(UnknownNameError, match="layer"):
            compose(facts, [latent])


def test_the_papers_features_are_there_for_its_models_and_tasks():
    assert paper_latents("gemma2b", "mmlu")[0] == (1, 13714, 0.4033)
    assert len(paper_latents("llama8", "harmbench")) == 31
    with pytest.raises(UnknownNameError, match="gemma2b, llama8"):
        paper_latents("mini", "mmlu")


def test_the_command_writes_what_eval_runs(call, hub, task_file, tmp_path):
    model = ["--model", str(hub / "model"), "--sae", str(hub / "saes")]
    out = tmp_path / "mine"
    code, printed, _ = call("compose", *model, "--features", "1/2=3", "--out", str(out), "--json")
    assert code == 0
    assert json.loads(printed)["direction"] == "latents named by hand, 1/2 = 3"
    code, printed, _ = call(
        "eval", str(out), *model, "--task", str(task_file), "--scorer", "regex:a",
        "--max-new-tokens", "2", "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(printed)["strengths"][0]["strength"] == 1.0
