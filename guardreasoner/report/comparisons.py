"""Comparisons as tables: runs, each two of them, the paper's figures, the plan's criteria."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from guardreasoner.evaluation.comparison import ALL_RIGHT, Comparison, Difference, Pairwise
from guardreasoner.evaluation.comparison.criteria import Criterion
from guardreasoner.evaluation.comparison.published import MODELS, PAPER, ROWS, Published
from guardreasoner.evaluation.scoring import ModelScore
from guardreasoner.report.scores import estimate_as_json, model_as_json, model_table
from guardreasoner.report.tables import UNDEFINED, Cell, Table, figure

_HARD = "hard records"


def comparison_tables(
    comparison: Comparison, pairs: Sequence[Pairwise], criteria: Sequence[Criterion] = ()
) -> list[Table]:
    """Return the tables that show a comparison: the runs, each two of them, the paper's rows, the criteria.

    Args:
        comparison: of the runs.
        pairs: each two of them.
        criteria: where they were asked for.
    """
    tables = [model_table({comparison.mode: list(comparison.scores.values())}, comparison.tasks)]
    tables += [pair_table(comparison, pair) for pair in pairs]
    if published := published_rows(comparison):
        tables.append(published_table(comparison, published))
    if criteria:
        tables.append(criteria_table(criteria))
    return tables


def criteria_table(criteria: Sequence[Criterion]) -> Table:
    """Return each criterion with what the data say, and by which figure."""
    rows = [
        [Cell(c.name), Cell(c.verdict), figure(c.estimate, c.is_change) if c.estimate else Cell(c.missing)]
        for c in criteria
    ]
    return Table("Criteria of the two-stage plan", ("criterion", "verdict", "figure"), rows, words=3)


def pair_table(comparison: Comparison, pair: Pairwise) -> Table:
    """Return two runs by benchmark and task, by task, over whole records and on hard ones."""
    one, other = comparison.scores[pair.first], comparison.scores[pair.second]
    left_out = any(row.flips.left_out for row in (*_rows(pair), pair.records))
    headings = ["benchmark", "task", "n", "F1\nfirst", "F1\nsecond", "F1\ndifference", "accuracy\ndifference"]
    headings += ["gained", "lost", *(["left out"] if left_out else []), "p"]
    rows = [_cells(row, _f1(one, row), _f1(other, row), left_out) for row in _rows(pair)]
    rows.append(_cells(pair.records, figure(one.overall).text, figure(other.overall).text, left_out))
    if pair.hard and one.hard:
        blank = [Cell("")] * (len(headings) - 7)
        n = Cell(str(one.hard.records))
        rows.append([Cell(_HARD), Cell(ALL_RIGHT), n, *[Cell("")] * 3, figure(pair.hard, True), *blank])
    return Table(f"{pair.first} (first) and {pair.second} (second)", tuple(headings), rows, words=2)


def published_table(comparison: Comparison, published: Mapping[tuple[str, str], Published]) -> Table:
    """Return the paper's rows, as from :func:`published_rows`, with the runs' own figures beside them."""
    found = [
        {(row.benchmark, row.task): row.positive_f1 for row in one.benchmarks} for one in comparison.scores.values()
    ]
    headings = ["benchmark", "task", "table", *(f"paper\n{model}" for model in MODELS), *comparison.scores]
    rows = [
        [Cell(key[0]), Cell(key[1]), Cell(str(row.table))]
        + [Cell(f"{f1:.2f}") for f1 in row.f1]
        + [figure(of[key]) for of in found]
        for key, row in published.items()
    ]
    return Table("F1 beside the figures that the paper prints", tuple(headings), rows, words=2)


def comparison_notes(
    comparison: Comparison, pairs: Sequence[Pairwise], seeds: Mapping[str, int], resamples: int
) -> list[str]:
    """Return what the figures mean, and what was left out.

    Args:
        comparison: of the runs.
        pairs: each two of them.
        seeds: how many files each run has.
        resamples: how many the intervals are made of.
    """
    several = any(count > 1 for count in seeds.values())
    notes = [
        f"Differences: the second run minus the first on the same records, in percentage points ({comparison.mode}).",
        "Gained: records that the first has wrong and the second right; lost: the opposite.",
    ]
    if several:
        counts = ", ".join(f"{name} {count}" for name, count in seeds.items())
        notes.append(f"Seeds: {counts}. A run is their mean; right is a record that more than half of them have right.")
    if resamples:
        drawn = "records are drawn with replacement within their benchmark, the same for all runs"
        more = "; so are the seeds of each run" if several else ""
        notes.append(f"Below a figure: 95 % of {resamples:,} resamples; {drawn}{more}.")
    tests = [row.flips.p for pair in pairs for row in (*_rows(pair), pair.records) if row.flips.p is not None]
    if tests:
        notes.append(f"p: exact McNemar test, two-sided, of gained against lost; {len(tests)} tests, not corrected.")
    if several:
        notes.append("No p where a run has several seeds: what they say of one record is not independent.")
    if published_rows(comparison):
        notes.append(f"Paper: {PAPER}, tables 2, 5 and 8, F1 as the released script counts (score --mode released).")
    return notes + left_out_notes(comparison)


def left_out_notes(comparison: Comparison) -> list[str]:
    """Return what was not compared, since not all runs have it."""
    notes = []
    for what, left_out in (("records", comparison.aligned.left_out), (_HARD, comparison.aligned.hard_left_out)):
        if any(left_out.values()):
            lost = ", ".join(f"{name} {count}" for name, count in left_out.items() if count)
            notes.append(f"Not compared, since not all have them: {what} of {lost}.")
    if comparison.aligned.without_hard and len(comparison.aligned.without_hard) < len(comparison.aligned.files):
        lacking = ", ".join(comparison.aligned.without_hard)
        notes.append(f"Hard records are not compared: {lacking} has no outputs on them.")
    return notes


def comparison_as_json(
    comparison: Comparison, pairs: Sequence[Pairwise], criteria: Sequence[Criterion], files: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return all numbers.

    Args:
        comparison: of the runs.
        pairs: each two of them.
        criteria: where they were asked for.
        files: by run, where its predictions lie.
    """
    return {
        "mode": comparison.mode,
        "records": next(iter(comparison.scores.values())).records,
        "left_out": dict(comparison.aligned.left_out),
        "hard_left_out": dict(comparison.aligned.hard_left_out),
        "runs": {name: {"files": list(files[name]), **model_as_json(one)} for name, one in comparison.scores.items()},
        "pairs": [_pair_as_json(pair) for pair in pairs],
        "published": [
            {
                "benchmark": benchmark,
                "task": task,
                "table": row.table,
                "n": row.n,
                "f1": dict(zip(MODELS, row.f1, strict=True)),
            }
            for (benchmark, task), row in published_rows(comparison).items()
        ],
        "criteria": [
            {
                "criterion": one.name,
                "verdict": one.verdict,
                **estimate_as_json("figure", one.estimate),
                "missing": one.missing,
            }
            for one in criteria
        ],
    }


def published_rows(comparison: Comparison) -> dict[tuple[str, str], Published]:
    """Return the paper's rows of the benchmarks and tasks that were compared."""
    first = next(iter(comparison.scores.values()))
    return {key: ROWS[key] for row in first.benchmarks if (key := (row.benchmark, row.task)) in ROWS}


def p_value(value: float | None) -> str:
    """Return the p of a test in words of a table; "–" where there is none."""
    if value is None:
        return UNDEFINED
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _rows(pair: Pairwise) -> list[Difference]:
    several = len(pair.benchmarks) > len(pair.averages)
    return [*pair.benchmarks, *(pair.averages if several else ())]


def _cells(row: Difference, first: str, second: str, left_out: bool) -> list[Cell]:
    flips = row.flips
    counts = [flips.gained, flips.lost, *([flips.left_out] if left_out else [])]
    return [
        *(Cell(text) for text in (row.benchmark, row.task, str(row.n), first, second)),
        *(figure(row.f1, True), figure(row.accuracy, True)),
        *(Cell(str(count)) for count in counts),
        Cell(p_value(flips.p)),
    ]


def _f1(one: ModelScore, of: Difference) -> str:
    rows = (*one.benchmarks, *one.averages)
    return figure(next(row.positive_f1 for row in rows if (row.benchmark, row.task) == (of.benchmark, of.task))).text


def _pair_as_json(pair: Pairwise) -> dict[str, Any]:
    return {
        "first": pair.first,
        "second": pair.second,
        "benchmarks": [_difference_as_json(row) for row in pair.benchmarks],
        "average": [_difference_as_json(row) for row in pair.averages],
        "all_right": _difference_as_json(pair.records),
        **estimate_as_json("hard", pair.hard),
    }


def _difference_as_json(row: Difference) -> dict[str, Any]:
    return {
        **{"benchmark": row.benchmark, "task": row.task, "n": row.n},
        **estimate_as_json("f1", row.f1),
        **estimate_as_json("accuracy", row.accuracy),
        **asdict(row.flips),
    }
