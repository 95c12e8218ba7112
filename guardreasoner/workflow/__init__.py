"""Configs, the stage graph, staleness, manifests, lineage and redaction; loads no torch."""
