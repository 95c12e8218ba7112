"""A small network and a small fit whose plans are derived by hand."""

from transformers import LlamaConfig

from guardreasoner.diagnosis.data_sizes import DataSizes
from guardreasoner.diagnosis.run_plan import Settings

SHAPE = LlamaConfig(
    vocab_size=100,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
LAYER = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64 + 2 * 32
"""Weights of a layer: query and output, key and value, feed-forward, two norms."""
SIZES = DataSizes([30, 40, 50], [(10, 20), (10, 10), (5, 5)], 20, "three pairs")
FULL = Settings("float32", None, None, False, 2, 2, None, 512, None, 1, False, 1, "cpu")
