"""The published models, SAEs and benchmarks by the paper's own commands, on an offline hub.

Weights are small and random, so nothing here says whether steering helps; loading, prompting,
collecting, steering and writing are the real ones.
"""

import json

import numpy as np
import offline_hub
import pytest
import torch

import corrsteer as cs
from corrsteer.cli import main
from corrsteer.errors import ModelError, SAEError, SettingsError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.models import find_saes
from corrsteer.samples import Sample

COMMANDS = [
    ("train --model=gemma2b --task=mmlu --layer=global --eval", "S"),
    ("train --model=gemma2b --task=mmlu --layer=global --raw --eval", "S"),
    ("train --model=gemma2b --task=mmlu --layer=global --pool=mean --eval", "S"),
    (
        "train --model=gemma2b --task=bbq --layer=global --mask=all --filter_value=disambig --eval",
        "S",
    ),
    ("train --model=gemma2b --task=harmbench --layer=global --raw --eval", "S"),
    ("train --model=gemma2b --task=simpleqa --layer=global --pool=mean --eval", "S"),
    (
        "train --model=gemma2b --task=gsm8k --layer=foreach --pool=mean --steer_pool=mean --eval",
        "A",
    ),
    ("train --task=mmlu --layer=foreach --validate --eval", "P"),
]
"""Those of https://github.com/seonglae/CorrSteer, README.md at 1ebf252, and what they ask for."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    offline_hub.lay_out_data(home, offline_hub.mixed_mmlu_row, offline_hub.small_sum_row)
    offline_hub.lay_out_models(home)
    offline_hub.lay_out_judges(home)
    return home


@pytest.fixture(autouse=True)
def offline(home, monkeypatch):
    offline_hub.use(monkeypatch, home)


def run(capsys, command: str) -> dict:
    """The JSON that a command prints."""
    main([*command.split(), "--json"])
    return json.loads(capsys.readouterr().out)


def refused(capsys, command: str) -> str:
    """The one line that a refused command writes to stderr."""
    with pytest.raises(SystemExit) as stopped:
        main(command.split())
    assert stopped.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("corrsteer: ")
    return last


@pytest.mark.parametrize(("command", "strategy"), COMMANDS)
def test_the_papers_commands_run(command, strategy, tmp_path, capsys):
    # long replies and whole prompts through SAEs of 16,384 latents take long on a CPU
    few = "--samples 6 --test-limit 6" if "gsm8k" in command or "mask=all" in command else ""
    found = run(capsys, f"{command} {few} --out {tmp_path / 'run'}")
    assert found["strategy"] == strategy
    assert found["model"] == {"id": "gemma2b", "revision": offline_hub.REVISION}
    assert found["baseline"]["n"] == found["task"]["n_test"] > 0
    raw = "--raw" in command
    assert found["sae"]["source"] == ("raw" if raw else "gemma2b")
    assert set(found["sae"]["ids"]) == {"blocks.0.hook_resid_post", "blocks.1.hook_resid_post"}
    for feature in found["features"]:
        layer, latent = feature["layer"], feature["latent"]
        page = f"https://www.neuronpedia.org/gemma-2-2b/{layer}-gemmascope-res-16k/{latent}"
        assert feature["url"] == (None if raw else page)
    back = cs.load_run(tmp_path / "run")
    assert [f.key for f in back.features] == [
        (f["hook_point"], f["latent"]) for f in found["features"]
    ]


def test_the_papers_baseline_command_runs(capsys):
    found = run(capsys, "eval baseline --task=mmlu")
    assert found["model"]["id"] == "gemma2b"
    assert 0 < found["baseline"]["accuracy"] < 1


def test_llama_runs_with_its_own_saes(tmp_path, capsys):
    found = run(capsys, f"train --model llama8 --task mmlu --strategy A --out {tmp_path / 'run'}")
    assert found["features"]
    assert found["features"][0]["url"].startswith("https://www.neuronpedia.org/llama3.1-8b/")


def test_gemma_scope_latents_are_those_of_the_file(home):
    lm = cs.load_model("gemma2b")
    coder = lm.saes[1].load(torch.device("cpu"))
    weights = np.load(next(home.glob("hub/*scope-2b-pt-res*/*/*/layer_1/*/*/params.npz")))
    x = torch.randn(5, 2304)
    before = x.numpy() @ weights["W_enc"] + weights["b_enc"]
    expected = np.where(before > weights["threshold"], before, 0)
    assert (expected > 0).any()
    np.testing.assert_allclose(coder.encode(x).numpy(), expected, atol=1e-5)
    some = np.flatnonzero(weights["W_dec"].any(1))[:3].tolist()
    np.testing.assert_array_equal(lm.saes[1].decoder_rows(some).numpy(), weights["W_dec"][some])


def test_llama_scope_activations_do_not_depend_on_the_fold(home):
    """The loader folds the activation norm s into the weights: W_enc s, W_dec / s, threshold s."""
    lm = cs.load_model("llama8")
    coder = lm.saes[0].load(torch.device("cpu"))
    x = torch.randn(5, 64)
    from safetensors.torch import load_file

    file = load_file(next(home.glob("hub/*LXR-8x/*/*/*L0R-8x/checkpoints/final.safetensors")))
    s = 58.935251798561154  # norm_scaling_factor of l0r_8x in sae-lens's directory
    before = s * x @ file["encoder.weight"].float().T
    # dataset_average_activation_norm is 8 here, so the loader scales the threshold by sqrt(64) / 8
    expected = torch.where(before > 0.01, before, 0)
    torch.testing.assert_close(coder.encode(x), expected, rtol=1e-4, atol=1e-3)
    row = file["decoder.weight"].float().T[3] / s
    torch.testing.assert_close(lm.saes[0].decoder_rows([3])[0], row, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "sae", "site"),
    [
        ("gemma2b", "gemma-scope-2b-pt-mlp-canonical:layer_{L}/width_16k/canonical", "mlp_out"),
        ("openai-community/gpt2", "gpt2-small-res-jb", "resid_pre"),
    ],
)
def test_saes_of_other_sites_are_read_and_steered_there(model, sae, site, tmp_path, capsys):
    found = run(
        capsys,
        f"train --model {model} --sae {sae} --task mmlu --strategy A --layers 1 --out {tmp_path}",
    )
    assert {f["hook_point"] for f in found["features"]} == {f"blocks.1.hook_{site}"}
    steering = cs.Steering.load(tmp_path)
    assert set(steering.vectors) == {HookPoint(1, site)}


def test_hook_shift_reads_one_block_earlier_and_says_so(tmp_path, capsys):
    out = tmp_path / "run"
    found = run(
        capsys, f"train --model llama8 --task mmlu --strategy A --hook-shift -1 --out {out}"
    )
    assert [(f["layer"], f["hook_point"]) for f in found["features"]] == [
        (1, "blocks.0.hook_resid_post")
    ]
    assert json.loads((out / "run.json").read_text())["hook_shift"] == -1


def test_selecting_the_token_keeps_replies_to_the_letters(tmp_path, capsys):
    command = f"train --model llama8 --task mmlu --strategy A --select-token --out {tmp_path}"
    found = run(capsys, command)
    rows = cs.load_run(tmp_path).predictions
    assert {row.baseline_text.strip() for row in rows} <= set("ABCD")
    assert {row.steered_text.strip() for row in rows} <= set("ABCD")
    free = run(capsys, "eval baseline --model llama8 --task mmlu")
    assert found["baseline"]["accuracy"] >= free["baseline"]["accuracy"]
    again = run(capsys, f"eval {tmp_path}")
    assert again["baseline"] == found["baseline"]
    assert again["steered"] == found["steered"]


def test_selecting_the_token_is_for_multiple_choice():
    with pytest.raises(SettingsError, match="gsm8k is not answered by one letter"):
        cs.load_task("gsm8k", select_token=True)


def test_a_run_is_evaluated_again_on_its_own_split_and_prompts(tmp_path, capsys):
    first = run(
        capsys,
        "train --model llama8 --task bbq --filter-value ambig --few 2 --seed 7 --strategy A "
        f"--out {tmp_path}",
    )
    again = run(capsys, f"eval {tmp_path}")
    for arm in ("baseline", "steered", "side_effects"):
        assert again[arm] == first[arm]
    tested = {row.id for row in cs.load_run(tmp_path).predictions}
    task = cs.load_task("bbq-ambig", seed=7, few=2)
    assert tested == {sample.id for sample in task.test}


def test_saes_of_another_model_are_refused(tmp_path, capsys):
    out = tmp_path / "run"
    said = refused(capsys, f"train --model llama8 --sae gpt2-small-res-jb --task mmlu --out {out}")
    assert "has d_in 32, but the model's residual stream has width 64" in said
    assert not out.exists()


def test_an_sae_that_is_not_there_is_one_clear_line(tmp_path, capsys):
    said = refused(
        capsys,
        f"train --model gemma2b --sae gemma-scope-9b-it-res-canonical --task mmlu "
        f"--out {tmp_path / 'run'}",
    )
    assert "gemma-scope-9b-it-res-canonical" in said
    assert not (tmp_path / "run").exists()


def test_several_saes_a_layer_need_a_pattern():
    with pytest.raises(SAEError, match=r"several a layer.*--sae gemma-scope-2b-pt-res:PATTERN"):
        find_saes("gemma-scope-2b-pt-res", 2304, 26)
    with pytest.raises(SAEError, match="no SAE of gemma-scope-2b-pt-res matches 'nothing'"):
        find_saes("gemma-scope-2b-pt-res:nothing", 2304, 26)


def test_saes_of_layers_after_the_last_are_left_out_and_told(caplog):
    with caplog.at_level("INFO", logger="corrsteer"):
        lm = cs.load_model("gemma2b")
    assert [sae.layer for sae in lm.saes] == [0, 1]
    assert "24 SAEs are of layers after the model's last, 1, and are left out" in caplog.text


def test_a_transcoder_is_refused():
    with pytest.raises(SAEError, match=r"transcoder|cannot be steered"):
        find_saes("gemma-scope-2b-pt-transcoders:layer_{L}/width_16k/average_l0_76", 2304, 26)


def test_a_model_that_is_not_there_is_one_clear_line(tmp_path, capsys):
    said = refused(capsys, f"train --model nobody/nothing --raw --task mmlu --out {tmp_path / 'r'}")
    assert "model 'nobody/nothing' cannot be loaded" in said
    assert "network" in said


def test_a_letter_without_a_token_of_its_own_is_refused():
    lm = cs.load_model("llama8")
    with pytest.raises(ModelError, match="no single token for 'Ä'"):
        lm.decoder_for("AÄ")


def test_bos_comes_first_where_saes_were_trained_so_also_when_the_run_is_used(tmp_path, capsys):
    lm = cs.load_model(offline_hub.GPT2, sae="gpt2-small-res-jb")
    assert lm.tokenizer("hello")["input_ids"][0] != lm.tokenizer.bos_token_id
    assert lm.prompt_ids(Sample("0", "hello"))[0] == lm.tokenizer.bos_token_id
    command = f"train --model {offline_hub.GPT2} --sae gpt2-small-res-jb --task mmlu --strategy A"
    first = run(capsys, f"{command} --out {tmp_path}")
    again = run(capsys, f"eval {tmp_path}")
    assert (again["baseline"], again["steered"]) == (first["baseline"], first["steered"])
    plain = cs.load_model(offline_hub.GPT2, sae="raw")
    assert not plain.prepend_bos


def test_a_guard_reads_its_own_local_copy(tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    rows = [offline_hub.xstest_row(i) for i in range(40, 70)]
    (copy / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = run(
        capsys,
        "train --model llama8 --task mmlu --strategy A --guard xstest "
        f"--data xstest={copy} --controls 0 --out {tmp_path / 'run'}",
    )
    assert found["guards"]["xstest"]["n"] == 21
    said = refused(capsys, f"eval baseline --model llama8 --task mmlu --data {copy} --data {copy}")
    assert "--data is given 2 times" in said


def test_without_a_network_descriptions_are_left_out_and_that_is_said(tmp_path, capsys):
    out = tmp_path / "run"
    main(f"train --model llama8 --task mmlu --strategy A --describe --out {out}".split())
    assert "only explanations fetched before are shown" in capsys.readouterr().err
    assert cs.load_run(out).features[0].explanation is None


def test_a_model_spread_over_devices_is_steered_alike():
    """On one CPU, `auto` leaves the model whole but goes through the same dispatch."""
    prompts = [sample.prompt for sample in cs.load_task("mmlu").test[:6]]
    task, replies = cs.load_task("mmlu"), []
    for device in ("cpu", "auto"):
        lm = cs.load_model("llama8", device=device)
        run = cs.fit(lm, task, strategy="A")
        with cs.steer(lm, run.steering, strength=4.0):
            replies.append(lm.generate(prompts, max_new_tokens=8))
    assert replies[0] == replies[1]
