import json
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from sae_lens import SAE
from transformers import AutoTokenizer

from corrsteer.lm.models import load_model
from corrsteer.mini import MODEL_DIR, SAE_DIR, corpus

REPOSITORY = Path(__file__).parents[1]
PACKAGE_LIMIT = 12 * 2**20
FVU_LIMIT = 0.15
"""Fraction of variance that the SAEs may leave unexplained on prompts of the tasks."""
NAMES = corpus.FAMILIES + corpus.PROBES
SPLITS: tuple[corpus.Split, ...] = ("fit", "select", "test")


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REPOSITORY / "docs" / "mini.json").read_text())
    return found


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL_DIR)


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_those_recorded(name: str, record: dict[str, Any]) -> None:
    assert corpus.fingerprint(name) == record["rows"][name]


def test_rows_do_not_depend_on_the_hash_seed() -> None:
    program = "from corrsteer.mini import corpus; print(corpus.fingerprint('mini-harmbench'))"
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY / "src")},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {corpus.fingerprint("mini-harmbench") + "\n"}


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_neither_prompt_nor_id(name: str) -> None:
    rows = corpus.rows(name)
    everything = [row for split in SPLITS for row in rows[split]]
    assert len({row.prompt for row in everything}) == len(everything)
    assert len({row.id for row in everything}) == len(everything)


@pytest.mark.parametrize("name", corpus.FAMILIES)
def test_every_family_has_enough_rows(name: str) -> None:
    rows = corpus.rows(name)
    assert len(rows["fit"]) >= 600
    assert len(rows["select"]) >= 300
    assert len(rows["test"]) >= 400


def test_facts_of_one_split_are_in_no_other() -> None:
    def facts(split: corpus.Split) -> set[str]:
        asked = (row.prompt.split("\n")[1] for row in corpus.rows("mini-mmlu")[split])
        return {re.split(r"[,:] ", question, maxsplit=1)[1] for question in asked}

    assert not facts("fit") & facts("select")
    assert not facts("fit") & facts("test")
    assert not facts("select") & facts("test")


def test_no_row_is_a_training_document() -> None:
    prompts = corpus.row_prompts()
    documents = corpus.documents(seed=0, total=5000)
    assert not any(document[0][0] in prompts for document in documents)


def test_documents_follow_from_the_seed() -> None:
    assert list(corpus.documents(1, 200)) == list(corpus.documents(1, 200))
    assert list(corpus.documents(1, 200)) != list(corpus.documents(2, 200))


def test_shares_add_up_to_a_whole_throughout_the_curriculum() -> None:
    for progress in (0.0, 0.2, 1.0):
        assert sum(corpus.shares(progress)) == pytest.approx(100)


@pytest.mark.parametrize("name", NAMES)
def test_the_tokenizer_loses_nothing(name: str, tokenizer: Any) -> None:
    for row in corpus.rows(name)["test"][:100]:
        ids = tokenizer(row.prompt)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == row.prompt


def test_the_saved_tokenizer_does_not_pad(tokenizer: Any) -> None:
    lengths = [len(ids) for ids in tokenizer(["A.", "A. oak\nB. elm"])["input_ids"]]
    assert lengths[0] < lengths[1]


def test_shipped_files_are_those_recorded(record: dict[str, Any]) -> None:
    package = MODEL_DIR.parent
    found = {
        path.relative_to(package).as_posix(): sha256(path.read_bytes()).hexdigest()
        for folder in (MODEL_DIR, SAE_DIR)
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert found == record["files"]


def test_package_data_is_small() -> None:
    files = [path for folder in (MODEL_DIR, SAE_DIR) for path in folder.rglob("*")]
    assert sum(path.stat().st_size for path in files) < PACKAGE_LIMIT


@pytest.mark.parametrize("name", corpus.FAMILIES)
def test_the_recorded_baselines_leave_room_both_ways(name: str, record: dict[str, Any]) -> None:
    assert 0.2 <= record["baselines"][name] <= 0.85


def test_the_gates_were_passed(record: dict[str, Any]) -> None:
    assert record["gates"]["passed"]
    assert record["baselines"]["probe-harmless"] > 0.97


def test_saes_load_in_sae_lens_and_reconstruct() -> None:
    lm = load_model("mini")
    prompts = [row.prompt for row in corpus.rows("mini-harmbench")["select"][:100]]
    batch = lm.tokenizer(prompts, return_tensors="pt", padding=True)
    seen: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        for layer in lm.model.model.layers
    ]
    with torch.no_grad():
        lm.model(**batch)
    for hook in hooks:
        hook.remove()
    wanted = batch["attention_mask"].bool() & (batch["input_ids"] != lm.tokenizer.bos_token_id)
    assert len(list(SAE_DIR.iterdir())) == len(seen)
    for layer, hidden in enumerate(seen):
        sae = SAE.load_from_disk(SAE_DIR / f"layer_{layer}")
        assert sae.cfg.metadata.hook_name == f"blocks.{layer}.hook_resid_post"
        x = hidden[wanted]
        with torch.no_grad():
            error = (sae(x) - x).square().sum() / (x - x.mean(0)).square().sum()
        assert error < FVU_LIMIT


def test_a_scaled_down_build_runs_and_records_itself(tmp_path: Path) -> None:
    script = REPOSITORY / "scripts" / "build_mini.py"
    done = subprocess.run(
        [sys.executable, str(script), "--tiny", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    found = json.loads((tmp_path / "mini.json").read_text())
    assert set(found["baselines"]) == set(NAMES)
    assert {"model/model.safetensors", "saes/layer_1/cfg.json"} <= set(found["files"])
    AutoTokenizer.from_pretrained(tmp_path / "model")
    assert SAE.load_from_disk(tmp_path / "saes" / "layer_0").cfg.d_in == 32
