"""Sets up the fit of ``configs/hsdpo.yaml`` through the command line, on other pairs."""

from pathlib import Path
from typing import Any

from guardreasoner.cli.lightning_cli import GuardCLI
from peers.job import Fit
from peers.our_side import TimedReference

CONFIG = Path(__file__).parents[2] / "configs" / "hsdpo.yaml"


def make_fit(job: Fit, *callbacks: Any) -> GuardCLI:
    """Return trainer, module and data of a fit, with its logger and callbacks and a stored reference.

    Args:
        job: The fit to set up.
        callbacks: Further callbacks, called last.
    """
    pairs = Path(job.pairs)
    argv = ["--config", str(CONFIG), "--auto_build", "false", "--trainer.accelerator", "cpu"]
    argv += ["--recipe.logs", str(Path(job.scratch, "logs")), "--model.backbone.path", job.base]
    argv += ["--data.source", "guardreasoner.sources.files.Files"]
    argv += ["--data.source.train", str(pairs / "records.jsonl"), "--data.rollouts", f'["{pairs}"]']
    argv += ["--data.validation_share", "0", *job.flags]
    cli = GuardCLI("fit", argv)
    cli.model.reference = TimedReference(str(Path(job.scratch, "reference")))
    cli.trainer.callbacks += callbacks
    return cli
