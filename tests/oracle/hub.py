"""The hub that the recorded cases were computed on: a small Llama, SAEs, MMLU and SimpleQA.

All of it is drawn from the raw stream of PCG64, which is the same everywhere. Weights are small
integers over powers of two, which bfloat16 holds exactly; nothing is trained. The model says
letters, by a rule that only its weights know, and the answers are mostly B: what goes with success
is what makes it say B. `python -m oracle.hub FOLDER`, in `tests`, lays the hub out under FOLDER.
"""

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import offline_hub
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

HERE = Path(__file__).parent
THINGS = (
    *("anchor", "anvil", "basket", "bell", "cask", "chisel", "compass", "drum"),
    *("kettle", "ladder", "lantern", "ledger", "loom", "mirror", "quill", "saddle"),
)
TOWNS = ("Arle", "Brask", "Corvin", "Dunsey", "Elmar", "Farrow", "Gant", "Hythe")
PEOPLE = ("Anna", "Boris", "Clara", "Derek", "Edith", "Frank", "Greta", "Hugo")
ANSWERS = (1, 1, 1, 1, 0, 2, 3)
SPLITS = {"auxiliary_train": 400, "validation": 80, "test": 200, "dev": 5}
QUESTIONS = 400

LAYERS, D_MODEL, D_MLP, D_SAE = 4, 64, 64, 256
SEED = 3
THRESHOLD = 128.0
BOS, EOS, UNKNOWN = "<|begin_of_text|>", "<|end_of_text|>", "<|unknown|>"
REPLIES = (" A", " B", " C", " D", EOS)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": D_MODEL,
    "intermediate_size": D_MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "bfloat16",
}


def draws(seed: int, count: int) -> list[int]:
    """Numbers from 0 to 2**64 - 1; the same for a seed on every machine and in every version."""
    return [int(number) for number in np.random.PCG64(seed).random_raw(count)]


def mmlu_row(seed: int) -> dict:
    thing, town, hearsay, answer, first, step = draws(seed, 6)
    verb = "is said to keep" if hearsay % 3 == 0 else "keeps"
    people = [PEOPLE[(first + k * (1 + 2 * (step % 4))) % len(PEOPLE)] for k in range(4)]
    return {
        "question": f"Who {verb} the {THINGS[thing % 16]} of {TOWNS[town % 8]}?",
        "subject": "keepers",
        "choices": people,
        "answer": ANSWERS[answer % len(ANSWERS)],
    }


def simpleqa_row(seed: int) -> dict:
    thing, person, town, answer = draws(seed, 4)
    owned = f"{THINGS[thing % 16]} from {TOWNS[town % 8]} that {PEOPLE[person % 8]} owns"
    return {
        "metadata": "{}",
        "problem": f"In which house is the {owned}?",
        "answer": "ABCD"[ANSWERS[answer % len(ANSWERS)]],
    }


def distinct(make_row: Callable[[int], dict], count: int) -> list[dict]:
    """Rows of the first seeds, without those that ask what an earlier one asked."""
    rows: dict[str, dict] = {}
    seeds = itertools.count(1)
    while len(rows) < count:
        row = make_row(next(seeds))
        rows.setdefault(row.get("question", row.get("problem")) + str(row.get("choices")), row)
    return list(rows.values())


def lay_out(home: Path) -> None:
    rows = iter(distinct(mmlu_row, sum(SPLITS.values())))
    splits = {name: list(itertools.islice(rows, count)) for name, count in SPLITS.items()}
    offline_hub.write_data_set(home, "cais/mmlu", "all", offline_hub.MMLU, splits)
    questions = {"test": distinct(simpleqa_row, QUESTIONS)}
    offline_hub.write_data_set(
        home, "basicv8vc/SimpleQA", "default", offline_hub.SIMPLEQA, questions
    )
    write_model(offline_hub.write_snapshot(home, "models", offline_hub.LLAMA, {}))
    folder = offline_hub.write_snapshot(home, "models", "fnlp/Llama3_1-8B-Base-LXR-8x", {})
    for layer in range(LAYERS):
        write_sae(folder / f"Llama3_1-8B-Base-L{layer}R-8x", layer)


def integers(seed: int, *shape: int) -> torch.Tensor:
    """Integers from -8 to 8."""
    numbers = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return torch.tensor((numbers % 17).astype(np.float32) - 8).reshape(shape)


def make_tokenizer() -> Tokenizer:
    """One token a word with the space before it, one for any other character."""
    split = pre_tokenizers.Split(Regex(" ?[A-Za-z]+|[\\s\\S]"), "isolated")
    texts = (
        "Choose one of the following options only: A, B, C, or D\nAnswer:\nD.\nQ:\nA:",
        "Answer the question with a short, direct response. Be concise and factual.\n",
        "Who is said to keep the keeps of? In which house is the from that owns?\nB.\nC.",
        *(f" {word}" for word in (*THINGS, *TOWNS, *PEOPLE)),
    )
    pieces = {piece for text in texts for piece, _ in split.pre_tokenize_str(text)}
    vocabulary = {token: i for i, token in enumerate((BOS, EOS, UNKNOWN, *sorted(pieces)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([BOS, EOS, UNKNOWN])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, 0)]
    )
    return tokenizer


def make_weights(tokenizer: Tokenizer, seed: int) -> dict[str, torch.Tensor]:
    """Weights with which the next token depends on the prompt, and is mostly one of REPLIES."""
    d, d_key, d_mlp, d_vocab = D_MODEL, 32, D_MLP, tokenizer.get_vocab_size()
    shapes: dict[str, tuple[tuple[int, ...], int]] = {"model.embed_tokens": ((d_vocab, d), 2)}
    for layer in range(LAYERS):
        block = f"model.layers.{layer}"
        shapes |= {
            f"{block}.self_attn.q_proj": ((d, d), 32),
            f"{block}.self_attn.k_proj": ((d_key, d), 32),
            f"{block}.self_attn.v_proj": ((d_key, d), 16),
            f"{block}.self_attn.o_proj": ((d, d), 16),
            f"{block}.mlp.gate_proj": ((d_mlp, d), 16),
            f"{block}.mlp.up_proj": ((d_mlp, d), 16),
            f"{block}.mlp.down_proj": ((d, d_mlp), 32),
        }
    shapes["lm_head"] = ((d_vocab, d), 16)
    weights = {
        f"{name}.weight": integers(100_000 * seed + i, *shape) / over
        for i, (name, (shape, over)) in enumerate(shapes.items())
    }
    weights["lm_head.weight"][[tokenizer.token_to_id(token) for token in REPLIES]] *= 8
    norms = [
        f"model.layers.{i}.{name}"
        for i in range(LAYERS)
        for name in ("input_layernorm", "post_attention_layernorm")
    ]
    return weights | {f"{name}.weight": torch.ones(d) for name in (*norms, "model.norm")}


def write_model(folder: Path) -> None:
    """Files that today's transformers and those of the paper's day both read."""
    tokenizer = make_tokenizer()
    weights = {name: w.bfloat16() for name, w in make_weights(tokenizer, SEED).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = CONFIG | {"vocab_size": tokenizer.get_vocab_size()}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": UNKNOWN,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_sae(folder: Path, layer: int) -> None:
    rows = integers(1000 + layer, D_SAE, D_MODEL) / 32
    weights = {
        "encoder.weight": rows,
        "encoder.bias": integers(2000 + layer, D_SAE),
        "decoder.weight": rows.T,
        "decoder.bias": torch.zeros(D_MODEL),
    }
    weights = {name: tensor.bfloat16().contiguous() for name, tensor in weights.items()}
    (folder / "checkpoints").mkdir(parents=True)
    save_file(weights, folder / "checkpoints" / "final.safetensors")
    hook_point = f"blocks.{layer}.hook_resid_post"
    config = {
        "d_model": D_MODEL,
        "d_sae": D_SAE,
        "hook_point_in": hook_point,
        "hook_point_out": hook_point,
        "jump_relu_threshold": THRESHOLD,
        "dataset_average_activation_norm": {"in": 8.0, "out": 8.0},
    }
    (folder / "hyperparams.json").write_text(json.dumps(config))


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
