"""Reasoning from a teacher model: its prompt, the answers it gave and what they cost."""
