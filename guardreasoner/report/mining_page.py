"""The HTML page of a mining run (``pairs --html``)."""

from dataclasses import asdict

from markupsafe import Markup

from guardreasoner.mining.findings import Findings
from guardreasoner.mining.pairing import Pairing
from guardreasoner.report.mining_plots import mining_plots
from guardreasoner.report.mining_tables import count_columns
from guardreasoner.report.page_template import render_page
from guardreasoner.report.svg import plot_svg


def mining_page(findings: Findings, pairing: Pairing, command: str) -> str:
    """Return the page of mining results.

    Args:
        findings: The results.
        pairing: The mining options.
        command: Arguments of the command line that mined the pairs.
    """
    total = findings.total()
    return render_page(
        "mining.html",
        title="Mining: which records are hard",
        findings=findings,
        total=total,
        columns=count_columns(total),
        pairing=asdict(pairing),
        command=f"python -m guardreasoner {command}",
        plots={plot.name: Markup(plot_svg(plot, plot.name)) for plot in mining_plots(findings)},
    )
