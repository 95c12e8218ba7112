"""Human ratings of reasoning as tables, notes and JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.report.comparison_tables import p_value
from guardreasoner.report.score_tables import estimate_as_json
from guardreasoner.report.table import UNDEFINED, Cell, Table, estimate_cell
from guardreasoner.review.rating_summary import BETTER, Summary
from guardreasoner.review.ratings import DECISIONS, RUBRIC

_QUESTIONS = {**{item.key: item.name for item in RUBRIC}, BETTER: "which is better"}


def rating_tables(summary: Summary) -> list[Table]:
    """Return the tables of a rating summary; none if nothing is rated."""
    labels = [_decisions(summary)] if summary.decisions else []
    if not summary.records:
        return labels
    tables = [*labels, _raters(summary), _rubric(summary)]
    if summary.wins:
        tables.append(_wins(summary))
    if summary.agreement:
        tables.append(_agreement(summary))
    return tables


def rating_notes(summary: Summary) -> list[str]:
    """Return notes that explain the numbers and count the ratings left out."""
    if not summary.records:
        return [*([] if summary.decisions else ["No ratings."]), *_left_out(summary)]
    notes = [
        "Blind human ratings, in percent, with 95 % Wilson intervals over records. A record with several raters counts "
        "once, with their mean. n: records; for agreement, the answers or records that both raters judged.",
    ]
    if summary.wins:
        notes.append(
            "Better: number of records on which more raters prefer that run. Win rate: of the second run; a tie counts "
            "half. p: exact sign test without ties."
        )
    if summary.agreement:
        notes.append("Kappa: Cohen's kappa with its bootstrap interval over records; – if chance agreement is 100 %.")
    return [*notes, *_left_out(summary)]


def summary_as_json(summary: Summary) -> dict[str, Any]:
    """Return all numbers of a rating summary as JSON."""
    return {
        "records": summary.records,
        "raters": dict(summary.raters),
        "skipped": dict(summary.skipped),
        "notes": summary.notes,
        "retracted": summary.retracted,
        "replaced": summary.replaced,
        "other_texts": summary.other_texts,
        "truncated": summary.truncated,
        **({"label_decisions": _decisions_as_json(summary)} if summary.decisions else {}),
        "rubric": {
            run: {
                item: {
                    **estimate_as_json("percent", rate.percent),
                    "records": rate.records,
                    "judgements": rate.judgements,
                }
                for item, rate in rates.items()
            }
            for run, rates in summary.rubric.items()
        },
        "wins": [
            {name: value for name, value in asdict(win).items() if name != "rate"} | estimate_as_json("rate", win.rate)
            for win in summary.wins
        ],
        "agreement": [
            {
                **{"one": row.one, "other": row.other, "item": row.item, "n": row.n},
                **estimate_as_json("percent", row.percent),
                **estimate_as_json("kappa", row.kappa),
            }
            for row in summary.agreement
        ],
    }


def _decisions_as_json(summary: Summary) -> dict[str, dict[str, int]]:
    return {
        rater: {decision or "skipped": count for decision, count in counts.items()}
        for rater, counts in summary.decisions.items()
    }


def _raters(summary: Summary) -> Table:
    names = sorted({*summary.raters, *summary.skipped})
    rows = [
        [Cell(name), Cell(f"{summary.raters.get(name, 0):,}"), Cell(f"{summary.skipped.get(name, 0):,}")]
        for name in names
    ]
    return Table("Raters", ("rater", "rated", "skipped"), rows)


def _decisions(summary: Summary) -> Table:
    rows = [
        [Cell(rater), *(Cell(f"{counts.get(decision, 0):,}") for decision in (*DECISIONS, None))]
        for rater, counts in summary.decisions.items()
    ]
    headings = ("rater", "label\nis right", "models\nare right", "unclear", "skipped")
    return Table("Labels that all models contradict", headings, rows)


def _rubric(summary: Summary) -> Table:
    rows = [
        [Cell(run), Cell(f"{max(rate.records for rate in rates.values()):,}")]
        + [estimate_cell(rate.percent) for rate in rates.values()]
        for run, rates in summary.rubric.items()
    ]
    return Table("Reasoning", ("model", "n", *(item.name.replace(" ", "\n", 1) for item in RUBRIC)), rows)


def _wins(summary: Summary) -> Table:
    rows = [
        [
            *(Cell(name) for name in (win.first, win.second)),
            *(Cell(f"{count:,}") for count in (win.first_better, win.ties, win.second_better)),
            estimate_cell(win.rate),
            Cell(p_value(win.p)),
        ]
        for win in summary.wins
    ]
    headings = ("first", "second", "first\nbetter", "tie", "second\nbetter", "win rate\nof second", "p")
    return Table("Which is better overall", headings, rows, text_columns=2)


def _agreement(summary: Summary) -> Table:
    rows = [
        [
            *(Cell(text) for text in (row.one, row.other, _QUESTIONS[row.item])),
            Cell(f"{row.n:,}"),
            estimate_cell(row.percent),
            _kappa(row.kappa),
        ]
        for row in summary.agreement
    ]
    return Table("Agreement of raters", ("rater", "rater", "question", "n", "same", "kappa"), rows, text_columns=3)


def _kappa(kappa: Estimate) -> Cell:
    if kappa.value is None:
        return Cell(UNDEFINED)
    if kappa.low is None or kappa.high is None:
        return Cell(f"{kappa.value:.2f}")
    return Cell(f"{kappa.value:.2f}", f"{kappa.low:.2f} to {kappa.high:.2f}")


def _left_out(summary: Summary) -> Sequence[str]:
    counts = {
        "of other texts (the run has changed since, or has another name)": summary.other_texts,
        "replaced by a later one": summary.replaced,
        "retracted": summary.retracted,
        "truncated in the file": summary.truncated,
    }
    parts = [f"{count:,} {what}" for what, count in counts.items() if count]
    return [f"Ratings and skips not counted: {'; '.join(parts)}."] if parts else []
