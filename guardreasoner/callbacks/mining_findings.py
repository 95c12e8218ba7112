"""What mining found, in TensorBoard beside the curves of the fit that uses the pairs."""

from dataclasses import asdict
from typing import Any

from lightning.pytorch import Callback

from guardreasoner.callbacks.tensorboard_plots import add_plots
from guardreasoner.mining.findings import Findings, HasFindings
from guardreasoner.report.mining_plots import plots


class MiningFindings(Callback):
    """Show the data module's ``findings`` when a fit starts: the text ``mining/counts`` and the images ``mining/…``.

    Counts are a table, as a curve of one point says little.
    """

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Log them once, at the step at which the fit starts."""
        data = trainer.datamodule
        found = data.findings if isinstance(data, HasFindings) else None
        if found is None or not trainer.is_global_zero or trainer.fast_dev_run:
            return
        for logger in trainer.loggers:
            if hasattr(logger.experiment, "add_text"):
                logger.experiment.add_text("mining/counts", _table(found), trainer.global_step)
        add_plots(trainer, "mining", plots(found))


def _table(found: Findings) -> str:
    """Return the counts as a table in Markdown; the names are those of :class:`guardreasoner.mining.counts.Counts`."""
    total = found.total()
    counts = {"records": found.records, "hard": total.hard, **asdict(total)}
    rows = [f"| {name.replace('_', ' ')} | {count:,} |" for name, count in counts.items()]
    return "\n".join(["| over all sources | |", "|---|---:|", *rows])
