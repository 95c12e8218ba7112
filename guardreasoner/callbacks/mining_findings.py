"""What mining found, in TensorBoard beside the curves of the fit that uses the pairs."""

import warnings
from dataclasses import asdict
from typing import Any

from lightning.pytorch import Callback

from guardreasoner.mining.findings import Findings
from guardreasoner.mining.plots import plots
from guardreasoner.plotting import figures


class MiningFindings(Callback):
    """Show the data module's ``findings`` when a fit starts: ``mining/…``, counts as scalars and plots as images."""

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Log them once, at the step at which the fit starts."""
        found: Findings | None = getattr(trainer.datamodule, "findings", None)
        if found is None or not trainer.is_global_zero or trainer.fast_dev_run:
            return
        total = found.total()
        counts = {"records": found.records, "hard": total.hard, **asdict(total)}
        for logger in trainer.loggers:
            if hasattr(logger.experiment, "add_figure"):
                for name, count in counts.items():
                    logger.experiment.add_scalar(f"mining/{name}", count, trainer.global_step)
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "Glyph .* missing")  # names may be in any script
                    for name, figure in figures(plots(found)).items():
                        logger.experiment.add_figure(f"mining/{name}", figure, trainer.global_step)
