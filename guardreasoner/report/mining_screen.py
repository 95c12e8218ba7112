"""What mining found, as tables and lines on the screen."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from guardreasoner.mining.counts import MiningCounts
from guardreasoner.mining.findings import Findings, ModelAgreement
from guardreasoner.report.explanation import plain
from guardreasoner.report.tables import Cell, Table

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
_WORDS = ("source", "task", "model", "and model")
"""Headings of columns that hold no figures."""

_WHERE_THERE_ARE = ("too few", "duplicates", "dropped", "not mined", "beyond cap")
"""What can only be under some options is shown where it is."""


def columns_of(total: MiningCounts) -> dict[str, str]:
    """Return what to show of counts: the field by its heading."""
    return {name: field for name, field in _COLUMNS.items() if name not in _WHERE_THERE_ARE or getattr(total, field)}


def show_counts(counts: Mapping[str, MiningCounts]) -> None:
    """Show what was found by source."""
    headings, (*rows, total) = _counted(counts)
    _show(headings, rows, total)


def counts_table(counts: Mapping[str, MiningCounts], title: str) -> Table:
    """Return the same as a table."""
    headings, rows = _counted(counts)
    cells = [[Cell(str(source)), *(Cell(f"{number:,}") for number in numbers)] for source, *numbers in rows]
    return Table(title, headings, cells)


def brief(found: Findings) -> Iterator[str]:
    """Yield the findings that fit into a line each."""
    if len(found.growth) > 1:
        expected = ", ".join(f"{value:,.1f} with {k}" for k, value in found.growth)
        yield f"hard records to expect by outputs of each model: {expected}"
    if found.agreement:
        least, most = (pick(found.agreement, key=lambda row: row.share) for pick in (min, max))
        to = f" to {_agreement(most)}" if len(found.agreement) > 1 else ""
        yield f"models agree on the majority for {_agreement(least)}{to} of the records that both answered"
    for row in found.cost:
        rate, each = row.tokens_per_second(), row.seconds_per_pair(found.total().pairs)
        parts = [f"{row.seconds:,.0f} {row.device}-seconds"]
        parts += [f"{rate:,.0f} tokens a second"] if rate is not None else []
        parts += [f"{each:,.2f} {row.device}-seconds a pair"] if each is not None else []
        of = f" ({row.folders} of {row.total_folders} folders say)" if row.folders < row.total_folders else ""
        yield f"sampling took {', '.join(parts)}{of}"


def show_details(found: Findings) -> None:
    """Show everything that was found, table after table."""
    for title, headings, rows in _details(found):
        print(f"\n{title}")
        _show(headings, rows)


def detail_tables(found: Findings, of: str) -> list[Table]:
    """Return the same as tables.

    Args:
        found: the numbers.
        of: what was mined, for the titles.
    """
    return [
        Table(
            f"{title[:1].upper()}{title[1:]}: {of}",
            headings,
            [[Cell(_text(value)) for value in row] for row in rows],
            sum(heading in _WORDS for heading in headings),
        )
        for title, headings, rows in _details(found)
    ]


_Rows = Sequence[Sequence[object]]


def _details(found: Findings) -> Iterator[tuple[str, tuple[str, ...], _Rows]]:
    """Yield title, headings and rows of what there is; columns of words stand first."""
    outcomes = [
        (row.source or "(none)", row.task, *(row.groups, row.all_right, row.mixed, row.all_wrong), row.unparsed)
        for row in found.outcomes
    ]
    votes = [(one.votes, right, groups) for one in found.votes for right, groups in enumerate(one.groups)]
    weights = [(f"{weight:g}", count) for weight, count in found.weights if count]
    growth = [(k, f"{value:,.1f}") for k, value in found.growth]
    agreement = [
        (row.first, row.second, row.records, f"{row.share:.3f}", "–" if row.kappa is None else f"{row.kappa:.3f}")
        for row in found.agreement
    ]
    every: tuple[tuple[str, tuple[str, ...], _Rows], ...] = (
        ("by source and task", ("source", "task", "groups", "all right", "mixed", "all wrong", "unparsed"), outcomes),
        ("by right outputs (every gold label met)", ("votes", "right", "groups"), votes),
        ("by weight", ("weight", "pairs"), weights),
        ("if fewer outputs of each model had been drawn", ("outputs", "hard records to expect"), growth),
        ("agreement of models", ("model", "and model", "records", "share", "kappa"), agreement),
    )
    yield from (one for one in every if one[2])


def _counted(counts: Mapping[str, MiningCounts]) -> tuple[tuple[str, ...], list[tuple[str | int, ...]]]:
    """Return the headings, and a row a source, then their total."""
    total = sum(counts.values(), MiningCounts())
    shown = columns_of(total)
    named = (*counts.items(), ("total", total))
    rows = [(source or "(none)", *(getattr(one, field) for field in shown.values())) for source, one in named]
    return ("source", *shown), rows


def _agreement(row: ModelAgreement) -> str:
    kappa = "" if row.kappa is None else f", kappa {row.kappa:.2f}"
    return f"{100 * row.share:.1f} % ({plain(row.first)} and {plain(row.second)}{kappa})"


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _show(columns: Sequence[str], rows: Iterable[Sequence[object]], total: Sequence[object] = ()) -> None:
    """Show a table; all columns but those of words stand to the right."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    cells = [[plain(_text(cell)) for cell in row] for row in rows]
    footer = [_text(cell) for cell in total]
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=bool(footer))
    for place, name in enumerate(columns):
        side = "left" if name in _WORDS else "right"
        table.add_column(name, footer=footer[place] if footer else "", justify=side)  # type: ignore[arg-type]
    for row in cells:
        table.add_row(*map(escape, row))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(table)
