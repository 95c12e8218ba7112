"""Evidence: studies that measure what each part of the method earns; start it with ``python -m evidence STUDY``."""
