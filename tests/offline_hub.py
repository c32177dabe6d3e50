"""A small Hugging Face home laid out on disk, so that loading runs for real without a network.

Data sets have the hub's own schemas and rows made up here. Each lies where `load_dataset` looks
while offline (the prepared Arrow cache); `heegyu/bbq`, which comes with a loading script, lies in
the hub's file cache instead. Models, SAEs and judges are tiny and random, under their real ids.
"""

import json
from pathlib import Path

import datasets
import huggingface_hub.constants
import numpy as np
import pyarrow as pa
import torch
from datasets import ClassLabel, Dataset, DatasetInfo, Features, List, Value
from datasets.naming import camelcase_to_snakecase
from datasets.splits import SplitDict, SplitInfo
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

REVISION = "0" * 40
TEXT, NUMBER, TEXTS = Value("string"), Value("int64"), List(Value("string"))

BBQ_CATEGORIES = (
    "Age",
    "Disability_status",
    "Gender_identity",
    "Nationality",
    "Physical_appearance",
    "Race_ethnicity",
    "Race_x_SES",
    "Race_x_gender",
    "Religion",
    "SES",
    "Sexual_orientation",
)
UNKNOWN_WORDINGS = (
    "Can't answer",
    "Can't be determined",
    "Cannot answer",
    "Cannot be determined",
    "Not answerable",
    "Not enough info",
    "Not enough information",
    "Not known",
    "Undetermined",
    "Unknown",
)

MMLU = Features(
    {
        "question": TEXT,
        "subject": TEXT,
        "choices": TEXTS,
        "answer": ClassLabel(names=["A", "B", "C", "D"]),
    }
)
MMLU_PRO = Features(
    {
        "question_id": NUMBER,
        "question": TEXT,
        "options": TEXTS,
        "answer": TEXT,
        "answer_index": NUMBER,
        "cot_content": TEXT,
        "category": TEXT,
        "src": TEXT,
    }
)
XSTEST = Features(dict.fromkeys(("prompt", "focus", "type", "note", "label"), TEXT))
HARMBENCH = {
    "contextual": Features({"prompt": TEXT, "context": TEXT, "category": TEXT}),
    "copyright": Features({"prompt": TEXT, "tags": TEXTS}),
    "standard": Features({"prompt": TEXT, "category": TEXT}),
}
SIMPLEQA = Features({"metadata": TEXT, "problem": TEXT, "answer": TEXT})
GSM8K = Features({"question": TEXT, "answer": TEXT})


def mmlu_row(i: int) -> dict:
    return {
        "question": f"What comes after {i}?",
        "subject": "counting",
        "choices": [str(i - 1), str(i + 1), str(i), "nothing"],
        "answer": 1,
    }


def mmlu_pro_row(i: int) -> dict:
    options = [str(i * k) for k in range(2, 12 - i % 3)]
    return {
        "question_id": i,
        "question": f"Which is {i} times {2 + i % 4}?",
        "options": options,
        "answer": "ABCD"[i % 4],
        "answer_index": i % 4,
        "cot_content": "",
        "category": "math",
        "src": "made-up",
    }


def bbq_row(category: str, i: int) -> dict:
    """Two ambiguous rows, then two disambiguated ones; the unknown option moves about."""
    ambiguous = i % 4 < 2
    place = i % 3
    wording = UNKNOWN_WORDINGS[(i + 3 * BBQ_CATEGORIES.index(category)) % len(UNKNOWN_WORDINGS)]
    people = ["The baker", "The tailor"]
    people.insert(place, wording)
    told = "" if ambiguous else " The baker had lost the key."
    return {
        "example_id": i,
        "question_index": str(i),
        "question_polarity": "neg" if i % 2 else "nonneg",
        "context_condition": "ambig" if ambiguous else "disambig",
        "category": category,
        "answer_info": {f"ans{k}": [person, "group"] for k, person in enumerate(people)},
        "additional_metadata": {
            "subcategory": "None",
            "stereotyped_groups": ["group"],
            "version": "a",
            "source": "made up",
        },
        "context": f"A baker and a tailor met at gate {i} of {category}.{told}",
        "question": "Who had lost the key?",
        "ans0": people[0],
        "ans1": people[1],
        "ans2": people[2],
        "label": place if ambiguous else people.index("The baker"),
    }


def harmbench_row(config: str, i: int) -> dict:
    row: dict = {"prompt": f"Explain how to jam the {config} lock number {i}."}
    if config == "contextual":
        row |= {"context": f"The lock was built in {1900 + i}.", "category": "illegal"}
    elif config == "copyright":
        row |= {"tags": ["book"]}
    else:
        row |= {"category": "illegal"}
    return row


def xstest_row(i: int) -> dict:
    label = "unsafe" if i % 3 == 0 else "safe"
    verb = "kill a neighbour" if label == "unsafe" else "kill a process"
    return {
        "prompt": f"How do I {verb} in {i} minutes?",
        "focus": "kill",
        "type": "homonyms",
        "note": None,
        "label": label,
    }


def simpleqa_row(i: int) -> dict:
    return {
        "metadata": "{'topic': 'Geography', 'answer_type': 'Place', 'urls': []}",
        "problem": f"Which town lies at milestone {i}?",
        "answer": f"Milltown {i}",
    }


def gsm8k_row(i: int) -> dict:
    total = 1000 + i
    return {
        "question": f"A mill grinds 1,000 sacks and then {i} more. How many is that?",
        "answer": f"It grinds 1000+{i}=<<1000+{i}={total}>>{total} sacks.\n#### {total:,}",
    }


def mixed_mmlu_row(i: int) -> dict:
    """A row whose answer is A, B or C by turns, for models that know nothing."""
    choices = [str(i * k % 97) for k in range(2, 6)]
    return {
        "question": f"Which is {choices[i % 3]}?",
        "subject": "counting",
        "choices": choices,
        "answer": i % 3,
    }


def small_sum_row(i: int) -> dict:
    """A row whose answer the models of `lay_out_models` may happen to say."""
    total = 1000 + i % 2
    return {"question": f"On day {i}, what is 1,000 + {i % 2}?", "answer": f"#### {total:,}"}


def lay_out_data(home: Path, mmlu_row=mmlu_row, gsm8k_row=gsm8k_row) -> None:
    """All data sets of the benchmarks."""

    def rows(make, count, first=0):
        return [make(i) for i in range(first, first + count)]

    mmlu = {
        "auxiliary_train": rows(mmlu_row, 20),
        "test": rows(mmlu_row, 10, 100),
        "validation": rows(mmlu_row, 6, 200),
        "dev": rows(mmlu_row, 5, 300),
    }
    write_data_set(home, "cais/mmlu", "all", MMLU, mmlu)
    pro = {"train": rows(mmlu_pro_row, 20), "test": rows(mmlu_pro_row, 10, 100)}
    write_data_set(home, "rbiswasfc/MMLU-Pro", "default", MMLU_PRO, pro)
    for config, features in HARMBENCH.items():
        requests = [harmbench_row(config, i) for i in range(10)]
        write_data_set(home, "walledai/HarmBench", config, features, {"train": requests})
    write_data_set(home, "walledai/XSTest", "default", XSTEST, {"test": rows(xstest_row, 30)})
    simpleqa = {"test": rows(simpleqa_row, 30)}
    write_data_set(home, "basicv8vc/SimpleQA", "default", SIMPLEQA, simpleqa)
    gsm8k = {"train": rows(gsm8k_row, 20), "test": rows(gsm8k_row, 10, 100)}
    write_data_set(home, "openai/gsm8k", "main", GSM8K, gsm8k)
    files = {"bbq.py": "raise RuntimeError('a loading script must not run')\n"}
    for category in BBQ_CATEGORIES:
        lines = [json.dumps(bbq_row(category, i)) for i in range(12)]
        files[f"data/{category}.jsonl"] = "\n".join(lines) + "\n"
    write_snapshot(home, "datasets", "heegyu/bbq", files)


def write_data_set(
    home: Path, repo: str, config: str, features: Features, splits: dict[str, list[dict]]
) -> None:
    """One configuration in the prepared Arrow cache, which is all `load_dataset` reads offline."""
    org, name = repo.split("/")
    short = camelcase_to_snakecase(name)
    folder = home / "datasets" / f"{org}___{short}" / config / "0.0.0" / REVISION
    folder.mkdir(parents=True)
    infos = SplitDict(dataset_name=short)
    for split, rows in splits.items():
        table = Dataset.from_list(rows, features=features).data.table
        path = str(folder / f"{short}-{split}.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        infos.add(SplitInfo(split, table.nbytes, table.num_rows, dataset_name=short))
    DatasetInfo(
        features=features,
        splits=infos,
        builder_name="parquet",
        dataset_name=short,
        config_name=config,
        version="0.0.0",
    ).write_to_directory(str(folder))


def write_snapshot(home: Path, kind: str, repo: str, files: dict[str, str]) -> Path:
    """Files of a repository (kind: `datasets` or `models`) in the hub's cache; their folder."""
    base = home / "hub" / f"{kind}--{repo.replace('/', '--')}"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text(REVISION)
    snapshot = base / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_text(content, encoding="utf-8")
    return snapshot


def lay_out_judges(home: Path) -> None:
    """Both judges of the paper: right architectures, random weights, one token a byte."""
    torch.manual_seed(5)
    tokenizer = _byte_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "initializer_range": 1.0,
    }
    labels = {0: "NORMAL", 1: "REJECTION"}
    roberta = RobertaConfig(
        max_position_embeddings=514,
        type_vocab_size=1,
        id2label=labels,
        label2id={label: index for index, label in labels.items()},
        **sizes,
    )
    folder = write_snapshot(home, "models", "ProtectAI/distilroberta-base-rejection-v1", {})
    RobertaForSequenceClassification(roberta).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    modern = ModernBertConfig(num_labels=1, cls_token_id=0, sep_token_id=2, **sizes)
    folder = write_snapshot(home, "models", "dleemiller/ModernCE-base-sts", {})
    ModernBertForSequenceClassification(modern).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=512,
    )


def use(monkeypatch, home: Path) -> None:
    """Have the libraries take `home` for the Hugging Face home, as HF_HOME does at their start."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))


GEMMA, LLAMA, GPT2 = "google/gemma-2-2b-it", "meta-llama/Llama-3.1-8B", "openai-community/gpt2"
MODEL_LAYERS = 2
SEEDS = {GEMMA: 50, LLAMA: 1, GPT2: 1}
"""Ones with which a model is sometimes right on the benchmarks that the tests run it on."""
REPLIES = (" A", " B", " C", " 1000", " 1001")
"""Tokens of more than one character, which the models prefer to say."""


def lay_out_models(home: Path) -> None:
    """Small random models under the real ids, with SAEs where sae-lens's directory looks for them.

    Gemma Scope has a width of 2304 and 16,384 latents whatever is asked for, so the model has that
    width too, and next to nothing else. What they reply depends on the prompt, is made of
    `REPLIES`, and is sometimes right.
    """
    tokenizer = _reply_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": MODEL_LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "max_position_embeddings": 2048,
    }
    torch.manual_seed(SEEDS[GEMMA])
    gemma = Gemma2Config(
        hidden_size=2304,
        intermediate_size=64,
        head_dim=16,
        query_pre_attn_scalar=16,
        tie_word_embeddings=False,  # with shared ones it would only repeat the last token
        **sizes,
    )
    _write_model(home, GEMMA, Gemma2ForCausalLM(gemma), tokenizer)
    torch.manual_seed(SEEDS[LLAMA])
    llama = LlamaConfig(hidden_size=64, intermediate_size=64, head_dim=32, **sizes)
    _write_model(home, LLAMA, LlamaForCausalLM(llama), tokenizer)
    del sizes["num_key_value_heads"]
    torch.manual_seed(SEEDS[GPT2])
    gpt2 = GPT2Config(hidden_size=32, **sizes)
    tokenizer.backend_tokenizer.post_processor = None  # the real one adds no BOS either
    _write_model(home, GPT2, GPT2LMHeadModel(gpt2), tokenizer)
    for kind, l0 in (("res", (105, 102)), ("mlp", (119, 105))):
        folder = write_snapshot(home, "models", f"google/gemma-scope-2b-pt-{kind}", {})
        for layer in range(MODEL_LAYERS):
            place = folder / f"layer_{layer}" / "width_16k" / f"average_l0_{l0[layer]}"
            _write_gemma_scope(place, seed=layer)
    folder = write_snapshot(home, "models", "fnlp/Llama3_1-8B-Base-LXR-8x", {})
    for layer in range(MODEL_LAYERS):
        _write_llama_scope(folder / f"Llama3_1-8B-Base-L{layer}R-8x", layer)
    folder = write_snapshot(home, "models", "jbloom/GPT2-Small-SAEs-Reformatted", {})
    for layer in range(MODEL_LAYERS):
        _write_gpt2_sae(folder / f"blocks.{layer}.hook_resid_pre", layer)


def _reply_tokenizer() -> PreTrainedTokenizerFast:
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    characters = [chr(code) for code in (10, *range(32, 127))]
    vocabulary = {token: index for index, token in enumerate([*special, *characters, *REPLIES])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    pieces = "|".join([*REPLIES, r"[\s\S]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    )


def _write_model(home: Path, repo: str, model, tokenizer) -> None:
    """Random weights of a size at which the next token depends on the whole prompt."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 4 * parameter.shape[-1] ** -0.5)
            elif name.endswith("bias"):
                parameter.zero_()
        preferred = model.get_output_embeddings().weight
        preferred[len(tokenizer) - len(REPLIES) :] *= 20
        preferred[2] *= 15  # EOS
    folder = write_snapshot(home, "models", repo, {})
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _random_sae(seed: int, d_in: int, d_sae: int, alive: int) -> dict[str, np.ndarray]:
    """Weights of a JumpReLU SAE whose other latents are never active."""
    random = np.random.default_rng(seed)
    w_dec = np.zeros((d_sae, d_in), np.float32)
    latents = np.sort(random.choice(d_sae, alive, replace=False))
    directions = random.standard_normal((alive, d_in)).astype(np.float32)
    w_dec[latents] = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return {
        "W_enc": np.ascontiguousarray(w_dec.T),
        "W_dec": w_dec,
        "b_enc": np.zeros(d_sae, np.float32),
        "b_dec": np.zeros(d_in, np.float32),
        "threshold": np.full(d_sae, 0.01, np.float32),
    }


def _write_gemma_scope(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    np.savez_compressed(folder / "params.npz", **_random_sae(seed, 2304, 16384, alive=24))


def _write_llama_scope(folder: Path, layer: int) -> None:
    sae = {name: torch.tensor(array) for name, array in _random_sae(layer, 64, 512, 512).items()}
    (folder / "checkpoints").mkdir(parents=True)
    weights = {
        "encoder.weight": sae["W_enc"].T,
        "encoder.bias": sae["b_enc"],
        "decoder.weight": sae["W_dec"].T,
        "decoder.bias": sae["b_dec"],
    }
    weights = {name: tensor.bfloat16().contiguous() for name, tensor in weights.items()}
    save_file(weights, folder / "checkpoints" / "final.safetensors")
    hook_point = f"blocks.{layer}.hook_resid_post"
    config = {
        "d_model": 64,
        "d_sae": 512,
        "hook_point_in": hook_point,
        "hook_point_out": hook_point,
        "jump_relu_threshold": 0.01,
        "dataset_average_activation_norm": {"in": 8.0, "out": 8.0},
    }
    (folder / "hyperparams.json").write_text(json.dumps(config))


def _write_gpt2_sae(folder: Path, layer: int) -> None:
    folder.mkdir(parents=True)
    sae = _random_sae(layer, 32, 64, 64)
    del sae["threshold"]
    save_file(
        {name: torch.tensor(array) for name, array in sae.items()},
        folder / "sae_weights.safetensors",
    )
    config = {
        "architecture": "standard",
        "d_in": 32,
        "d_sae": 64,
        "dtype": "float32",
        "device": "cpu",
        "hook_name": f"blocks.{layer}.hook_resid_pre",
        "hook_layer": layer,
        "hook_head_index": None,
        "model_name": "gpt2-small",
        "prepend_bos": True,
        "activation_fn_str": "relu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "context_size": 128,
        "finetuning_scaling_factor": False,
        "dataset_path": "made-up",
        "dataset_trust_remote_code": False,
        "sae_lens_training_version": None,
    }
    (folder / "cfg.json").write_text(json.dumps(config))
