"""Mining results in TensorBoard, beside the curves of the fit that trains on the mined pairs."""

from dataclasses import asdict
from typing import Any

from lightning.pytorch import Callback

from guardreasoner.callbacks.tensorboard import write_plots, write_text
from guardreasoner.mining.findings import Findings, HasFindings
from guardreasoner.report.mining_plots import mining_plots


class MiningFindings(Callback):
    """Show the data module's ``findings`` when a fit starts.

    Writes the text ``mining/counts`` and the images ``mining/…``. Counts are a table because each would be a curve
    with a single point.
    """

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Write counts and plots once, at the first step of the fit; a resumed fit has them in its log."""
        if trainer.global_step:
            return
        data = trainer.datamodule
        if not isinstance(data, HasFindings) or data.findings is None:
            return
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        write_text(trainer, "mining/counts", _counts_as_markdown(data.findings), trainer.global_step)
        write_plots(trainer, "mining", mining_plots(data.findings))


def _counts_as_markdown(findings: Findings) -> str:
    """Return the counts over all sources as a Markdown table; names as in ``MiningCounts``."""
    total = findings.total()
    counts = {"records": findings.records, "hard": total.hard, **asdict(total)}
    rows = [f"| {name.replace('_', ' ')} | {count:,} |" for name, count in counts.items()]
    return "\n".join(["| over all sources | |", "|---|---:|", *rows])
