"""The network: loading, adapters, tokenization, batches, packed rows and log-probabilities."""
