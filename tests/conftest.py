"""A tiny random Gemma-2 with a character tokenizer and random SAEs, laid out on disk.

Shapes and types of all tensors are checked while the tests run.
"""

import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # one worker a core

from jaxtyping import install_import_hook

install_import_hook("corrsteer", "typecheck.checked")

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

SCORER = r"regex:^\s*[n-zN-Z0-4]"
"""A reply is right if it begins in the second half of the alphabet or with a low digit."""
N_LAYERS, D_MODEL, D_SAE = 3, 16, 24
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;?!'#()[]-\n"

LONG = (
    "test_ray_workers",
    "test_builtin",
    "test_resume",
    "test_cli",
    "test_published",
    "test_study",
    "test_fuzz",
    "test_kills",
)
"""Files that take longest, which begin, so that no process ends minutes after the other."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.module.__name__ not in LONG)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    vocabulary = {token: index for index, token in enumerate([*special, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
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


def tiny_config(vocabulary: int) -> Gemma2Config:
    return Gemma2Config(
        vocab_size=vocabulary,
        hidden_size=D_MODEL,
        intermediate_size=32,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=8,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def write_sae(folder, layer: int, seed: int, d_in: int = D_MODEL, **changes) -> None:
    """A random JumpReLU SAE in sae-lens's format."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    w_dec = torch.randn(D_SAE, d_in, generator=generator)
    w_dec /= w_dec.norm(dim=1, keepdim=True)
    weights = {
        "W_enc": w_dec.T.contiguous() * 2,
        "W_dec": w_dec,
        "b_enc": torch.randn(D_SAE, generator=generator) * 0.1,
        "b_dec": torch.zeros(d_in),
        "threshold": torch.full((D_SAE,), 0.2),
    }
    weights |= changes.pop("weights", {})
    config = {
        "architecture": "jumprelu",
        "d_in": d_in,
        "d_sae": D_SAE,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"hook_name": f"blocks.{layer}.hook_resid_post", "model_name": "tiny"},
    } | changes
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(weights, folder / "sae_weights.safetensors")


@pytest.fixture(autouse=True)
def _draws():
    """What a test draws without a seed of its own is the same after any other tests."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """A folder with `model` and `saes`."""
    root = tmp_path_factory.mktemp("hub")
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(tiny_config(len(tokenizer)))
    for name, parameter in model.named_parameters():
        if "layernorm" not in name and "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.4)
    model.save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    for layer in range(N_LAYERS):
        write_sae(root / "saes" / f"layer_{layer}", layer, seed=layer)
    return root


@pytest.fixture(scope="session")
def lm(hub):
    """The tiny model with its SAEs."""
    from corrsteer import load_model

    return load_model(str(hub / "model"), sae=str(hub / "saes"))


@pytest.fixture(scope="session")
def prompts():
    """Texts of different lengths, some longer than the sliding window."""
    return [
        "hello",
        "a",
        "what is it?",
        "x y z 123, a longer prompt",
        "Q: yes\nA:",
        "bb",
        "c d",
        "ee",
    ]


@pytest.fixture(scope="session")
def task_file(tmp_path_factory):
    """60 questions, of which the tiny model's replies are right by chance (see `SCORER`)."""
    path = tmp_path_factory.mktemp("data") / "letters.jsonl"
    rows = [
        {"id": f"q{i}", "prompt": f"say {i} {chr(97 + i % 26)}{chr(97 + i * 7 % 26)}:"}
        for i in range(60)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture
def task(task_file):
    """The task of that file."""
    import corrsteer as cs

    return cs.load_task(task_file, scorer=SCORER, max_new_tokens=6)


@pytest.fixture
def call(capfd):
    """Run the command line: exit code, stdout, stderr."""
    from corrsteer.cli import main

    def call(*arguments):
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = leaving.code
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call
