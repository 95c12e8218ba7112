"""The command line: LightningCLI for fit, validate, test and predict; one file in ``commands`` for each other verb."""

LIGHTNING = {
    "fit": "train a model with R-SFT (configs/rsft.yaml), HS-DPO (hsdpo.yaml) or GRPO (grpo.yaml)",
    "validate": "compute the validation loss of a model",
    "test": "classify held-out records and compute metrics (configs/evaluate.yaml)",
    "predict": "sample model outputs for records, to mine preference pairs from them (configs/mine.yaml)",
}
"""The verbs that Lightning runs, with their help lines."""
