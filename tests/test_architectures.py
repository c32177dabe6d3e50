"""Every architecture replies as by transformers' own `generate`, or is refused."""

import pytest
import torch
import transformers
from transformers import AutoConfig

from corrsteer.errors import ModelError
from corrsteer.hook_points import HookPoint
from corrsteer.lm.decoding import Decoder, greedy, greedy_with_residuals, pad_left
from corrsteer.lm.hooks import adding, tapped
from corrsteer.lm.load_check import check_replies, shares_prefix
from corrsteer.lm.shared_prefix import decode_arms

WIDTH, LAYERS, WINDOW, NEW = 32, 3, 8, 6
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
PLAIN = {
    "vocab_size": 96,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    **IDS,
}
GROUPED = PLAIN | {"num_key_value_heads": 1}
HEADS = GROUPED | {"head_dim": 16}
SLIDING = HEADS | {"sliding_window": WINDOW}
EXPERTS = {"num_experts_per_tok": 2}
OLD = {"vocab_size": 96, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2, "n_positions": 128, **IDS}
VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

SHARING = {
    "gpt2": OLD | {"tie_word_embeddings": False},
    "gpt_neox": PLAIN,
    "llama": GROUPED,
    "qwen2": GROUPED,
    "qwen3": HEADS,
    "qwen3_moe": HEADS | EXPERTS | {"num_experts": 4, "moe_intermediate_size": 32},
    "mistral": GROUPED | {"sliding_window": WINDOW},
    "phi": PLAIN | {"partial_rotary_factor": 0.5},
    "phi3": GROUPED,
    "opt": PLAIN | {"ffn_dim": 48, "word_embed_proj_dim": WIDTH},
    "gemma2": SLIDING | {"query_pre_attn_scalar": 16},
    "gemma3_text": SLIDING,
    "gemma3": {
        "text_config": SLIDING,
        "vision_config": VISION,
        "mm_tokens_per_image": 4,
        **{f"{name}_token_index": 93 + i for i, name in enumerate(("image", "boi", "eoi"))},
    },
    "gpt_oss": SLIDING | EXPERTS | {"num_local_experts": 4},
    "mixtral": GROUPED | EXPERTS | {"num_local_experts": 3},
    "gptj": OLD | {"rotary_dim": 8},
    "falcon": {name: PLAIN[name] for name in PLAIN if name != "intermediate_size"},
    "olmo2": GROUPED,
}
APART = {
    "bloom": {"vocab_size": 96, "hidden_size": WIDTH, "n_layer": LAYERS, "n_head": 2, **IDS},
    "lfm2": GROUPED | {"layer_types": ["conv", "full_attention", "conv"]},
    "gpt_neo": {
        **{"vocab_size": 96, "hidden_size": WIDTH, "num_layers": 2, "num_heads": 2, **IDS},
        "attention_types": [[["global", "local"], 1]],
        **{"window_size": WINDOW, "max_position_embeddings": 128},
    },
    "mpt": {"vocab_size": 96, "d_model": WIDTH, "n_layers": LAYERS, "n_heads": 2, **IDS},
}
"""Where arms run one by one."""
REFUSED = {
    "mamba": {"vocab_size": 96, "hidden_size": WIDTH, "num_hidden_layers": 2, **IDS},
    "mamba2": {
        **{"vocab_size": 96, "hidden_size": WIDTH, "num_hidden_layers": 2, **IDS},
        **{"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    },
    "rwkv": {"vocab_size": 96, "hidden_size": WIDTH, "num_hidden_layers": 2, **IDS},
}
ALL = SHARING | APART | REFUSED

PROMPTS = [[1, 10, 11, 12, 13], [1, *range(20, 33)], [1, 40]]
"""One of them longer than the sliding windows."""


def decoder_of(kind: str) -> Decoder:
    """A random model of a type, which says many different things."""
    transformers.logging.set_verbosity_error()
    config = AutoConfig.for_model(kind, **ALL[kind])
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "vision" not in name:
            torch.nn.init.normal_(weight, std=3 * weight.shape[-1] ** -0.5)
    return Decoder(model, 0, frozenset())


def generated(decoder: Decoder) -> list[list[int]]:
    """The replies by transformers' own code."""
    ids, mask = pad_left(PROMPTS, 0)
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": -1}
    return decoder.model.generate(ids, attention_mask=mask, **options)[:, ids.shape[1] :].tolist()


def arms_of(model) -> list[dict[HookPoint, torch.Tensor]]:
    draws = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(3))
    small, large = (
        {HookPoint(layer, "resid_post"): x} for layer, x in ((0, draws[0]), (1, 6 * draws[1]))
    )
    return [{}, small, large]


@pytest.mark.parametrize("kind", [*SHARING, *APART])
def test_replies_residuals_and_arms_are_the_models_own(kind):
    decoder = decoder_of(kind)
    model, replies = decoder.model, generated(decoder)
    assert len({token for reply in replies for token in reply}) > 2
    check_replies(decoder, PROMPTS[:2], kind)
    assert greedy(decoder, PROMPTS, NEW) == replies
    # the last hidden state has the final norm applied
    depth = model.config.get_text_config().num_hidden_layers - 1
    points, seen = [HookPoint(layer, "resid_post") for layer in range(depth)], []
    assert greedy_with_residuals(decoder, PROMPTS, NEW, points, "generated", seen.append) == replies
    for row, (prompt, reply) in enumerate(zip(PROMPTS, replies, strict=True)):
        whole = model(torch.tensor([prompt + reply[:-1]]), output_hidden_states=True).hidden_states
        for point in points:
            found = torch.stack([step.at[point][row] for step in seen])
            expected = whole[point.layer + 1][0, len(prompt) - 1 :]
            torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)
    # together behind one prefix, or one by one
    sharing = shares_prefix(decoder, PROMPTS[:2])
    assert sharing == (kind in SHARING)
    decoder = Decoder(model, 0, frozenset(), shares_prefix=sharing)
    arms, expected = arms_of(model), []
    for arm in arms:
        with adding(model, arm):
            expected.append(generated(decoder))
    assert decode_arms(decoder, PROMPTS, replies, arms, NEW) == expected
    assert len({str(arm) for arm in expected}) > 1


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_decodes_otherwise_is_refused(kind):
    with pytest.raises(ModelError, match=rf"'{kind}' \(\w+ForCausalLM\) replies otherwise"):
        check_replies(decoder_of(kind), PROMPTS[:2], kind)


def test_an_mlp_that_adds_the_residual_itself_is_not_taken_for_mlp_out():
    decoder = decoder_of("bloom")
    with (
        pytest.raises(
            ModelError, match=r"the mlp of BloomBlock adds the residual itself; use SAEs"
        ),
        tapped(decoder.model, {HookPoint(1, "mlp_out"): lambda hidden: None}),
    ):
        pass
