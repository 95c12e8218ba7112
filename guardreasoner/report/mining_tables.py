"""Mining results as tables and summary lines."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from guardreasoner.mining.counts import MiningCounts
from guardreasoner.mining.findings import Findings, ModelAgreement
from guardreasoner.report.table import Cell, Table
from guardreasoner.workflow.terminal import stdout_console
from guardreasoner.workflow.visible_text import visible_line

_COLUMNS = {
    "all right": "all_right",
    "mixed": "mixed",
    "all wrong": "all_wrong",
    "too few": "too_few",
    "duplicates": "duplicates",
    "unparsed outputs": "unparsed",
    "dropped": "dropped",
    "not mined": "not_mined",
    "beyond cap": "beyond_cap",
    "pairs": "pairs",
}
_TEXT_HEADINGS = ("source", "task", "model", "and model")
"""Headings of the columns that hold text."""

_OPTIONAL = ("too few", "duplicates", "dropped", "not mined", "beyond cap")
"""Columns that only some mining options fill; they are shown if a count is not 0."""


def count_columns(total: MiningCounts) -> dict[str, str]:
    """Return the columns to show: the field of :class:`MiningCounts` by heading."""
    return {name: field for name, field in _COLUMNS.items() if name not in _OPTIONAL or getattr(total, field)}


def show_counts(counts: Mapping[str, MiningCounts]) -> None:
    """Print the counts by source."""
    headings, (*rows, total) = _count_rows(counts)
    _show(headings, rows, total)


def counts_table(counts: Mapping[str, MiningCounts], title: str) -> Table:
    """Return the counts by source as a table."""
    headings, rows = _count_rows(counts)
    cells = [[Cell(str(source)), *(Cell(f"{number:,}") for number in numbers)] for source, *numbers in rows]
    return Table(title, headings, cells)


def summary_lines(findings: Findings) -> Iterator[str]:
    """Yield one line each on expected hard records, model agreement and sampling cost."""
    if len(findings.growth) > 1:
        expected = ", ".join(f"{value:,.1f} with {k}" for k, value in findings.growth)
        yield f"expected hard records by outputs per model: {expected}"
    if findings.agreement:
        least, most = (pick(findings.agreement, key=lambda row: row.share) for pick in (min, max))
        to = f" to {_agreement(most)}" if len(findings.agreement) > 1 else ""
        yield f"models agree on the majority for {_agreement(least)}{to} of the records that both answered"
    for row in findings.cost:
        rate, seconds_per_pair = row.tokens_per_second(), row.seconds_per_pair(findings.total().pairs)
        parts = [f"{row.seconds:,.0f} {row.device}-seconds"]
        parts += [f"{rate:,.0f} tokens per second"] if rate is not None else []
        parts += [f"{seconds_per_pair:,.2f} {row.device}-seconds per pair"] if seconds_per_pair is not None else []
        coverage = (
            f" (known for {row.folders} of {row.total_folders} folders)" if row.folders < row.total_folders else ""
        )
        yield f"sampling took {', '.join(parts)}{coverage}"


def show_details(findings: Findings) -> None:
    """Print all detail tables."""
    for title, headings, rows in _details(findings):
        print(f"\n{title}")
        _show(headings, rows)


def detail_tables(findings: Findings, name: str) -> list[Table]:
    """Return the detail tables.

    Args:
        findings: The results.
        name: What was mined, for the table titles.
    """
    return [
        Table(
            f"{title[:1].upper()}{title[1:]}: {name}",
            headings,
            [[Cell(_text(value)) for value in row] for row in rows],
            sum(heading in _TEXT_HEADINGS for heading in headings),
        )
        for title, headings, rows in _details(findings)
    ]


_Rows = Sequence[Sequence[object]]


def _details(findings: Findings) -> Iterator[tuple[str, tuple[str, ...], _Rows]]:
    """Yield title, headings and rows of each table that is not empty; text columns come first."""
    outcomes = [
        (row.source or "(none)", row.task, *(row.groups, row.all_right, row.mixed, row.all_wrong), row.unparsed)
        for row in findings.outcomes
    ]
    votes = [(votes.votes, right, groups) for votes in findings.votes for right, groups in enumerate(votes.groups)]
    weights = [(f"{weight:g}", count) for weight, count in findings.weights if count]
    growth = [(k, f"{value:,.1f}") for k, value in findings.growth]
    agreement = [
        (row.first, row.second, row.records, f"{row.share:.3f}", "–" if row.kappa is None else f"{row.kappa:.3f}")
        for row in findings.agreement
    ]
    tables: tuple[tuple[str, tuple[str, ...], _Rows], ...] = (
        ("by source and task", ("source", "task", "groups", "all right", "mixed", "all wrong", "unparsed"), outcomes),
        ("by right outputs (all gold labels matched)", ("votes", "right", "groups"), votes),
        ("by weight", ("weight", "pairs"), weights),
        ("with fewer outputs per model", ("outputs", "expected hard records"), growth),
        ("agreement of models", ("model", "and model", "records", "share", "kappa"), agreement),
    )
    yield from (table for table in tables if table[2])


def _count_rows(counts: Mapping[str, MiningCounts]) -> tuple[tuple[str, ...], list[tuple[str | int, ...]]]:
    """Return the headings, and one row per source followed by the total."""
    total = sum(counts.values(), MiningCounts())
    columns = count_columns(total)
    named = (*counts.items(), ("total", total))
    rows = [(source or "(none)", *(getattr(row, field) for field in columns.values())) for source, row in named]
    return ("source", *columns), rows


def _agreement(row: ModelAgreement) -> str:
    kappa = "" if row.kappa is None else f", kappa {row.kappa:.2f}"
    return f"{100 * row.share:.1f} % ({visible_line(row.first)} and {visible_line(row.second)}{kappa})"


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _show(columns: Sequence[str], rows: Iterable[Sequence[object]], total: Sequence[object] = ()) -> None:
    """Print a table; number columns are right-aligned."""
    from rich.markup import escape
    from rich.table import Table

    cells = [[visible_line(_text(cell)) for cell in row] for row in rows]
    footer = [_text(cell) for cell in total]
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=bool(footer))
    for index, name in enumerate(columns):
        side = "left" if name in _TEXT_HEADINGS else "right"
        table.add_column(name, footer=footer[index] if footer else "", justify=side)  # type: ignore[arg-type]
    for row in cells:
        table.add_row(*map(escape, row))
    stdout_console(120).print(table)
