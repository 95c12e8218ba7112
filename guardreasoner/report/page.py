"""Numbers to pages: everything from data is escaped, and a page needs nothing but itself."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from guardreasoner import __version__
from guardreasoner.diagnosis import Diagnosis
from guardreasoner.mining.findings import Findings
from guardreasoner.mining.pairing import Pairing
from guardreasoner.report import plots
from guardreasoner.report.mining_screen import columns_of

if TYPE_CHECKING:
    from jinja2 import Environment


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
    return _render(
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
    return _render(
        "mining.html",
        title="Mining: which records are hard",
        found=found,
        total=found.total(),
        columns=columns_of(found.total()),
        pairing=asdict(pairing),
        command=f"python -m guardreasoner {command}",
        plots={name: Markup(svg) for name, svg in plots.mining_plots(found).items()},
    )


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(version=__version__, **values)


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("guardreasoner.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    return environment
