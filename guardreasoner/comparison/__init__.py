"""Several models on the same records."""
