"""The HTML page of a data diagnosis (``doctor --html``)."""

from collections.abc import Sequence

from markupsafe import Markup

from guardreasoner.diagnosis import Diagnosis
from guardreasoner.report.diagnosis_plots import label_balance_svg, length_histogram_svg, length_percentiles_svg
from guardreasoner.report.page_template import render_page


def doctor_page(diagnosis: Diagnosis, command: str, log_lines: Sequence[str] = ()) -> str:
    """Return the page of a diagnosis.

    Args:
        diagnosis: The findings.
        command: Arguments of the command line that made the diagnosis.
        log_lines: Log messages from reading the data.
    """
    plots = {}
    if diagnosis.lengths and diagnosis.histogram:
        plots["histogram"] = length_histogram_svg(diagnosis.histogram, diagnosis.limit)
        plots["percentiles"] = length_percentiles_svg(diagnosis.lengths, diagnosis.limit)
    plots["balance"] = label_balance_svg(diagnosis.balance)
    return render_page(
        "doctor.html",
        title="Doctor: checks of the training data",
        diagnosis=diagnosis,
        command=f"python -m guardreasoner {command}",
        log_lines=log_lines,
        plots={name: Markup(svg) for name, svg in plots.items()},
    )
