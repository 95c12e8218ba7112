"""Ratings by hand as tables: who rated, rates of each model, which is better, how far raters agree."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.report.scores import estimate_as_json
from guardreasoner.report.tables import UNDEFINED, Cell, Table, figure
from guardreasoner.review.rating_summary import BETTER, Summary
from guardreasoner.review.ratings import RUBRIC

_QUESTIONS = {**{item.key: item.name for item in RUBRIC}, BETTER: "which is better"}


def rating_tables(summary: Summary) -> list[Table]:
    """Return the tables of a summary; none where nobody has rated anything."""
    if not summary.records:
        return []
    tables = [_raters(summary), _rubric(summary)]
    if summary.wins:
        tables.append(_wins(summary))
    if summary.agreement:
        tables.append(_agreement(summary))
    return tables


def rating_notes(summary: Summary) -> list[str]:
    """Return what the figures mean, and what is not in them."""
    if not summary.records:
        return ["Nothing is rated.", *_left_out(summary)]
    notes = [
        "Rated blind, by hand; in percent, with 95 % intervals (Wilson, over records). A record counts once however "
        "many raters it has: their mean. n are records, for agreement answers or records that both judged.",
    ]
    if summary.wins:
        notes.append(
            "Better: on so many records more raters prefer that run. Win rate: of the second, a tie as half. "
            "p: exact sign test, ties left out."
        )
    if summary.agreement:
        notes.append("Kappa: Cohen's, with its interval by bootstrap over records; – where chance alone is 100 %.")
    return [*notes, *_left_out(summary)]


def summary_as_json(summary: Summary) -> dict[str, Any]:
    """Return all numbers of a summary as JSON can hold them."""
    return {
        "records": summary.records,
        "raters": dict(summary.raters),
        "skipped": dict(summary.skipped),
        "notes": summary.notes,
        "retracted": summary.retracted,
        "replaced": summary.replaced,
        "other_texts": summary.other_texts,
        "torn": summary.torn,
        "rubric": {
            run: {
                item: {
                    **estimate_as_json("percent", rate.percent),
                    "records": rate.records,
                    "judgements": rate.judgements,
                }
                for item, rate in of.items()
            }
            for run, of in summary.rubric.items()
        },
        "wins": [
            {name: value for name, value in asdict(win).items() if name != "rate"} | estimate_as_json("rate", win.rate)
            for win in summary.wins
        ],
        "agreement": [
            {
                **{"one": one.one, "other": one.other, "item": one.item, "n": one.n},
                **estimate_as_json("percent", one.percent),
                **estimate_as_json("kappa", one.kappa),
            }
            for one in summary.agreement
        ],
    }


def _raters(summary: Summary) -> Table:
    names = sorted({*summary.raters, *summary.skipped})
    rows = [
        [Cell(name), Cell(f"{summary.raters.get(name, 0):,}"), Cell(f"{summary.skipped.get(name, 0):,}")]
        for name in names
    ]
    return Table("Raters", ("rater", "rated", "skipped"), rows)


def _rubric(summary: Summary) -> Table:
    rows = [
        [Cell(run), Cell(f"{max(rate.records for rate in of.values()):,}"), *(figure(r.percent) for r in of.values())]
        for run, of in summary.rubric.items()
    ]
    return Table("Reasoning", ("model", "n", *(item.name.replace(" ", "\n", 1) for item in RUBRIC)), rows)


def _wins(summary: Summary) -> Table:
    rows = [
        [
            *(Cell(name) for name in (one.first, one.second)),
            *(Cell(f"{count:,}") for count in (one.first_better, one.ties, one.second_better)),
            figure(one.rate),
            Cell(_p(one.p)),
        ]
        for one in summary.wins
    ]
    headings = ("first", "second", "first\nbetter", "tie", "second\nbetter", "win rate\nof second", "p")
    return Table("Which is better overall", headings, rows, words=2)


def _agreement(summary: Summary) -> Table:
    rows = [
        [
            *(Cell(text) for text in (one.one, one.other, _QUESTIONS[one.item])),
            Cell(f"{one.n:,}"),
            figure(one.percent),
            _kappa(one.kappa),
        ]
        for one in summary.agreement
    ]
    return Table("Agreement of raters", ("rater", "rater", "question", "n", "same", "kappa"), rows, words=3)


def _kappa(one: Estimate) -> Cell:
    if one.value is None:
        return Cell(UNDEFINED)
    if one.low is None or one.high is None:
        return Cell(f"{one.value:.2f}")
    return Cell(f"{one.value:.2f}", f"{one.low:.2f} to {one.high:.2f}")


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _left_out(summary: Summary) -> Sequence[str]:
    counts = {
        "of other texts (a run was made anew, or goes by another's name)": summary.other_texts,
        "replaced by a later one": summary.replaced,
        "taken back": summary.retracted,
        "cut off while it was written": summary.torn,
    }
    parts = [f"{count:,} {what}" for what, count in counts.items() if count]
    return [f"Ratings and skips not counted: {'; '.join(parts)}."] if parts else []
