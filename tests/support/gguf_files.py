"""Write a tiny Llama as a GGUF file, with its tokenizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np

_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Names of a layer's parts in GGUF by their names in transformers."""


def write_gguf(
    base: Path, file: Path, architecture: str = "llama", template: str | None = None, without: str | None = None
) -> Path:
    """Write the Llama of a folder, whose embeddings are tied, as an unquantized GGUF file.

    Args:
        base: model folder.
        file: the file to write.
        architecture: name of the architecture in the file.
        template: chat template.
        without: name of a tensor to leave out.
    """
    from gguf import GGUFWriter
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(base)
    config = network.config
    writer = GGUFWriter(str(file), architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, base, config, template)
    for name, tensor in network.state_dict().items():
        named = _name(name)
        values = tensor.float().numpy()
        if named.endswith(("attn_q.weight", "attn_k.weight")):
            is_query = named.endswith("attn_q.weight")
            values = _permuted(values, config.num_attention_heads if is_query else config.num_key_value_heads)
        if named not in ("output.weight", without):
            writer.add_tensor(named, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer: Any, base: Path, config: Any, template: str | None) -> None:
    content = json.loads((base / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
    special = {token["content"] for token in content["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in content["model"]["merges"]])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_pad_token_id(config.pad_token_id)
    if template is not None:
        writer.add_chat_template(template)


def _name(name: str) -> str:
    """Return a weight's name in GGUF."""
    top = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in top:
        return top[name]
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{_NAMES[part.removesuffix('.weight')]}.weight"


def _permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return a query or key weight in the order of llama.cpp's rotary embedding."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
