"""A model, an adapter or a judge is what its files say, or refused."""

import json
import shutil

import offline_hub
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from corrsteer import load_model
from corrsteer.errors import ModelError, ScorerError
from corrsteer.scoring import judges
from corrsteer.scoring.judges import REFUSAL_MODEL, SEMANTIC

LAST = "model.layers.2."

# peft asks transformers 5 for an attribute by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def change_weights(path, change) -> None:
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.fixture
def folder(hub, tmp_path):
    return shutil.copytree(hub / "model", tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: {f"module.{k}": v for k, v in w.items()}, r"lack weights .*and \d+ more.*have"),
        (lambda w: {k: v for k, v in w.items() if LAST not in k}, rf"lack weights {LAST}\w+"),
        (lambda w: {k: v for k, v in w.items() if "embed" not in k}, "lack weights .*embed_tokens"),
        (
            lambda w: w | {"model.layers.3.mlp.up_proj.weight": torch.zeros(2)},
            r"have unknown weights model\.layers\.3\.mlp\.up_proj\.weight;",
        ),
        (
            lambda w: w | {"model.norm.weight": torch.zeros(7)},
            r"have misshapen weights model\.norm\.weight \[7\] in place of \[16\];",
        ),
    ],
    ids=["prefix", "layer", "embeddings", "extra", "shape"],
)
def test_other_weights_than_the_models_are_refused_by_name(folder, call, change, told):
    change_weights(folder / "model.safetensors", change)
    with pytest.raises(ModelError, match=f"is not what its files say: they {told}"):
        load_model(str(folder))
    code, out, err = call("eval", "baseline", "--model", folder, "--task", "mini-xstest")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_tied_weights_and_tables_of_positions_are_not_missed(folder):
    def change(weights):
        assert "lm_head.weight" not in weights
        table = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}
        return weights | table | {"model.layers.0.attn.masked_bias": torch.zeros(())}

    change_weights(folder / "model.safetensors", change)
    assert load_model(str(folder)).generate(["hello"], 2)


@pytest.fixture
def adapter(folder, tmp_path):
    """An adapter folder, beside its base model."""
    base = AutoModelForCausalLM.from_pretrained(folder)
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(base, config)
    torch.manual_seed(1)
    for name, weight in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.5)
    wrapped.save_pretrained(tmp_path / "adapter")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path / "adapter" / name)
    return tmp_path / "adapter"


def test_an_adapters_folder_is_its_base_model_with_the_adapter(adapter, folder):
    lm = load_model(str(adapter))
    base = AutoModelForCausalLM.from_pretrained(folder)
    wrapped = peft.PeftModel.from_pretrained(base, adapter).eval()
    ids = torch.tensor([lm.tokenizer("hello")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(lm.model(ids).logits, wrapped(ids).logits)
        assert not torch.equal(lm.model(ids).logits, load_model(str(folder)).model(ids).logits)


def test_an_adapters_weights_and_those_of_its_base_are_looked_at(adapter, folder):
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    change_weights(weights, lambda w: {k: v for k, v in w.items() if "layers.1" not in k})
    with pytest.raises(ModelError, match=r"adapter .*lack weights .*layers\.1.*lora_A"):
        load_model(str(adapter))
    weights.unlink()
    torch.save({}, adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors"):
        load_model(str(adapter))
    weights.write_bytes(whole)
    change_weights(folder / "model.safetensors", lambda w: {k: w[k] for k in w if LAST not in k})
    with pytest.raises(ModelError, match=rf"model '{folder}' .*lack weights {LAST}"):
        load_model(str(adapter))


@pytest.mark.parametrize(("judge", "head"), [(REFUSAL_MODEL, "classifier."), (SEMANTIC, ".norm")])
def test_a_judge_without_all_of_its_weights_judges_nothing(tmp_path, monkeypatch, judge, head):
    offline_hub.lay_out_judges(tmp_path)
    offline_hub.use(monkeypatch, tmp_path)
    owner = judge.model.partition("/")[0]
    [weights] = (tmp_path / "hub").glob(f"models--{owner}--*/snapshots/*/model.safetensors")
    found = load_file(weights)
    lost = [name for name in found if head in name]
    assert lost
    weights.unlink()  # it may be a link to a blob
    save_file({k: v for k, v in found.items() if k not in lost}, weights, {"format": "pt"})
    judges._classifier.cache_clear()
    judges._cross_encoder.cache_clear()
    with pytest.raises(ScorerError, match=f"the judge {judge.model} .*lack weights .*{lost[0]}"):
        judge.prepare()


def test_what_is_said_of_an_adapter_without_a_base_is_one_line(adapter):
    config = adapter / "adapter_config.json"
    said = json.loads(config.read_text()) | {"base_model_name_or_path": str(adapter / "nowhere")}
    config.write_text(json.dumps(said))
    with pytest.raises(ModelError, match="nowhere"):
        load_model(str(adapter))
