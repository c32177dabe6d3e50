"""Models of transformers as float32 GGUF files for llama.cpp, with a vocabulary of numbers.

Only what the tiny models of the tests need; the names are those of llama.cpp's own converter.
"""

import gguf
import torch

NORMS = {
    "llama": {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"},
    "gemma2": {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
}
MATRICES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(model, path):
    """Write a Llama or Gemma-2 model."""
    config, kind = model.config, model.config.model_type
    writer = gguf.GGUFWriter(path, kind)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(config.vocab_size)
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
        writer.add_sliding_window(config.sliding_window)
    else:
        writer.add_rope_dimension_count(config.head_dim)
    _add_vocabulary(writer, config.vocab_size)
    state = model.state_dict()
    writer.add_tensor("token_embd.weight", _array(state["model.embed_tokens.weight"]))
    if not config.tie_word_embeddings:
        writer.add_tensor("output.weight", _array(state["lm_head.weight"]))
    shift = 1 if kind == "gemma2" else 0  # Gemma's norms scale by 1 + weight
    writer.add_tensor("output_norm.weight", _array(state["model.norm.weight"] + shift))
    for layer in range(config.num_hidden_layers):
        of, to = f"model.layers.{layer}", f"blk.{layer}"
        for name, theirs in NORMS[kind].items():
            weight = state[f"{of}.{name}.weight"] + shift
            writer.add_tensor(f"{to}.{theirs}.weight", _array(weight))
        for name, theirs in MATRICES.items():
            weight = state[f"{of}.{name}.weight"]
            if kind == "llama" and theirs in ("attn_q", "attn_k"):
                weight = _rotated(weight, config.head_dim)
            writer.add_tensor(f"{to}.{theirs}.weight", _array(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _rotated(weight, head_dim):
    """Rows in the order of llama.cpp's rotary embedding: pairs next to each other."""
    heads = weight.view(-1, 2, head_dim // 2, weight.shape[1])
    return heads.transpose(1, 2).reshape(weight.shape)


def _array(weight):
    return weight.detach().to(torch.float32).contiguous().numpy()


def _add_vocabulary(writer, size):
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{index}>" for index in range(size)])
    writer.add_token_scores([0.0] * size)
    writer.add_token_types([int(gguf.TokenType.NORMAL)] * size)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(False)
