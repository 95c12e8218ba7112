"""The fit of ``configs/hsdpo.yaml``, made by the command line as a user's is, on other pairs."""

from pathlib import Path
from typing import Any

from guardreasoner.cli.lightning_cli import GuardCLI
from peers.job import Fit
from peers.our_side import Timed

CONFIG = Path(__file__).parents[2] / "configs" / "hsdpo.yaml"


def as_fit(job: Fit, *callbacks: Any) -> GuardCLI:
    """Return trainer, module and data, with logger and callbacks as a fit has them and a reference that is stored.

    Args:
        job: what to fit.
        callbacks: more of them, called last.
    """
    pairs = Path(job.pairs)
    words = ["--config", str(CONFIG), "--auto_build", "false", "--trainer.accelerator", "cpu"]
    words += ["--recipe.logs", str(Path(job.scratch, "logs")), "--model.backbone.path", job.base]
    words += ["--data.source", "guardreasoner.sources.files.Files"]
    words += ["--data.source.train", str(pairs / "records.jsonl"), "--data.rollouts", f'["{pairs}"]']
    words += ["--data.validation_share", "0", *job.flags]
    made = GuardCLI("fit", words)
    made.model.reference = Timed(str(Path(job.scratch, "reference")))
    made.trainer.callbacks += callbacks
    return made
