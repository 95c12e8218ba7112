"""Numbers to pages: what would spoil a run, and what mining found."""

from collections.abc import Sequence
from dataclasses import asdict

from markupsafe import Markup

from guardreasoner.diagnosis import Diagnosis
from guardreasoner.mining.findings import Findings
from guardreasoner.mining.pairing import Pairing
from guardreasoner.report import plots
from guardreasoner.report.mining_screen import columns_of
from guardreasoner.report.rendering import render


def doctor_page(diagnosis: Diagnosis, command: str, said: Sequence[str] = ()) -> str:
    """Return the page of a diagnosis.

    Args:
        diagnosis: what was found.
        command: what was looked at, as words of a command line.
        said: what was logged while the data were read.
    """
    drawings = {}
    if diagnosis.lengths and diagnosis.histogram:
        drawings["histogram"] = plots.length_histogram(diagnosis.histogram, diagnosis.limit)
        drawings["percentiles"] = plots.length_percentiles(diagnosis.lengths, diagnosis.limit)
    drawings["balance"] = plots.label_balance(diagnosis.balance)
    return render(
        "doctor.html",
        title="Doctor: what would spoil this run",
        diagnosis=diagnosis,
        command=f"python -m guardreasoner {command}",
        said=said,
        plots={name: Markup(svg) for name, svg in drawings.items()},
    )


def mining_page(found: Findings, pairing: Pairing, command: str) -> str:
    """Return the page of what mining found.

    Args:
        found: the numbers.
        pairing: the options.
        command: what was asked for, as words of a command line.
    """
    return render(
        "mining.html",
        title="Mining: which records are hard",
        found=found,
        total=found.total(),
        columns=columns_of(found.total()),
        pairing=asdict(pairing),
        command=f"python -m guardreasoner {command}",
        plots={name: Markup(svg) for name, svg in plots.mining_plots(found).items()},
    )
