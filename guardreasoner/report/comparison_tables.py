"""Comparisons of runs as tables, notes and JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from guardreasoner.evaluation.comparison import ALL_RIGHT, Comparison, Difference, Pairwise
from guardreasoner.evaluation.comparison.criteria import Criterion
from guardreasoner.evaluation.comparison.published import MODELS, PAPER, ROWS, Published
from guardreasoner.evaluation.scoring import ModelScore
from guardreasoner.report.score_tables import (
    ONE_SIDED_NOTE,
    READINGS_NOTE,
    STEERABILITY_NOTE,
    estimate_as_json,
    flat,
    headline_cell,
    model_as_json,
    model_table,
    one_sided,
    steerability_tables,
)
from guardreasoner.report.slice_tables import (
    OVER_REFUSAL_NOTE,
    over_refusal_as_json,
    over_refusal_differences,
    over_refusal_table,
)
from guardreasoner.report.table import UNDEFINED, Cell, Table, estimate_cell

_HARD = "hard records"


def comparison_tables(
    comparison: Comparison, pairs: Sequence[Pairwise], criteria: Sequence[Criterion] = ()
) -> list[Table]:
    """Return all tables of a comparison: the runs, each pair of runs, the paper's scores, the criteria.

    Args:
        comparison: Comparison of the runs.
        pairs: Comparison of each pair of runs.
        criteria: Checked criteria of the plan; may be empty.
    """
    models = list(comparison.scores.values())
    tables = [model_table({comparison.mode: models}, comparison.tasks), *steerability_tables(models)]
    tables += [pair_table(comparison, pair) for pair in pairs]
    if comparison.over_refusal:
        tables += [over_refusal_table(comparison.over_refusal), over_refusal_differences(pairs)]
    if published := published_rows(comparison):
        tables.append(published_table(comparison, published))
    if criteria:
        tables.append(criteria_table(criteria))
    return tables


def criteria_table(criteria: Sequence[Criterion]) -> Table:
    """Return each criterion with its verdict and the number that decides it."""
    rows = [
        [
            Cell(criterion.name),
            Cell(criterion.verdict),
            estimate_cell(criterion.estimate, criterion.is_change) if criterion.estimate else Cell(criterion.missing),
        ]
        for criterion in criteria
    ]
    title = "Criteria of the two-stage plan" if all(criterion.of_plan for criterion in criteria) else "Criteria"
    return Table(title, ("criterion", "verdict", "value"), rows, text_columns=3)


def pair_table(comparison: Comparison, pair: Pairwise) -> Table:
    """Return the differences between two runs by benchmark and task, by task, on whole records and on hard records."""
    first, second = comparison.scores[pair.first], comparison.scores[pair.second]
    show_left_out = any(row.flips.left_out for row in (*_difference_rows(pair), pair.records))
    headings = ["benchmark", "task", "n", "F1\nfirst", "F1\nsecond", "F1\ndifference", "accuracy\ndifference"]
    headings += ["gained", "lost", *(["left out"] if show_left_out else []), "p"]
    rows = [
        _difference_cells(row, _f1_text(first, row), _f1_text(second, row), show_left_out)
        for row in _difference_rows(pair)
    ]
    overall = [estimate_cell(model.overall).text for model in (first, second)]
    rows.append(_difference_cells(pair.records, overall[0], overall[1], show_left_out))
    if pair.hard and first.hard:
        cells = [Cell(_HARD), Cell(ALL_RIGHT), Cell(str(first.hard.records)), *[Cell("")] * 3]
        rows.append([*cells, estimate_cell(pair.hard, True), *[Cell("")] * (len(headings) - 7)])
    return Table(f"{pair.first} (first) and {pair.second} (second)", tuple(headings), rows, text_columns=2)


def published_table(comparison: Comparison, published: Mapping[tuple[str, str], Published]) -> Table:
    """Return the paper's F1 scores, as from :func:`published_rows`, beside those of the runs."""
    run_scores = [
        {(row.benchmark, row.task): row.positive_f1 for row in run.benchmarks} for run in comparison.scores.values()
    ]
    headings = ["benchmark", "task", "table", *(f"paper\n{model}" for model in MODELS), *comparison.scores]
    rows = [
        [Cell(key[0]), Cell(key[1]), Cell(str(row.table))]
        + [Cell(f"{f1:.2f}") for f1 in row.f1]
        + [estimate_cell(f1_by_key[key]) for f1_by_key in run_scores]
        for key, row in published.items()
    ]
    return Table("F1 compared with the paper", tuple(headings), rows, text_columns=2)


def comparison_notes(
    comparison: Comparison, pairs: Sequence[Pairwise], seeds: Mapping[str, int], resamples: int
) -> list[str]:
    """Return notes that explain the numbers in the comparison tables and count what was left out.

    Args:
        comparison: Comparison of the runs.
        pairs: Comparison of each pair of runs.
        seeds: Number of prediction files (training seeds) by run.
        resamples: Number of bootstrap resamples; 0 for no intervals.
    """
    several_seeds = any(count > 1 for count in seeds.values())
    notes = [
        f"Differences: second run minus first on the same records, in percentage points ({comparison.mode}).",
        "Gained: records that the first run has wrong and the second right; lost: the opposite.",
    ]
    models = list(comparison.scores.values())
    if any(row.readings for model in models for row in model.averages):
        notes.append(READINGS_NOTE)
    if any(one_sided(row) for model in models for row in flat((*model.benchmarks, *model.averages))):
        notes.append(ONE_SIDED_NOTE)
    if several_seeds:
        counts = ", ".join(f"{name} {count}" for name, count in seeds.items())
        notes.append(
            f"Seeds: {counts}. A run is the mean of its seeds; a record is right if most seeds have it right. Unparsed "
            "answers are the sum over the seeds."
        )
    if resamples:
        seed_resampling = ", seeds resampled within each run" if several_seeds else ""
        notes.append(
            f"Below a number: 95 % bootstrap interval ({resamples:,} resamples within each benchmark, the same records "
            f"for all runs{seed_resampling})."
        )
    if any(model.steerability for model in comparison.scores.values()):
        notes.append(STEERABILITY_NOTE)
    tests = [row.flips.p for pair in pairs for row in (*_difference_rows(pair), pair.records)]
    if count := sum(p is not None for p in tests):
        notes.append(
            f"p: exact two-sided McNemar test of gained against lost; {count} tests, no correction for multiple tests."
        )
    if several_seeds:
        notes.append("No p for runs with several seeds: the answers of a run's seeds to a record are not independent.")
    if comparison.over_refusal:
        notes.append(OVER_REFUSAL_NOTE)
    if undefined := "; ".join(_undefined_for_some(comparison)):
        notes.append(f"Left out of the averages of all runs, as no answer that counts has the class: {undefined}.")
    if published_rows(comparison):
        notes.append(f"Paper: {PAPER}, tables 2, 5 and 8, F1 as the released script counts (score --mode released).")
    return notes + left_out_notes(comparison)


def left_out_notes(comparison: Comparison) -> list[str]:
    """Return notes on the records that were left out because some runs lack them."""
    notes = []
    for kind, left_out in (("records", comparison.aligned.left_out), (_HARD, comparison.aligned.hard_left_out)):
        if any(left_out.values()):
            counts = ", ".join(f"{name} {count}" for name, count in left_out.items() if count)
            notes.append(f"Left out because some runs lack them: {kind} of {counts}.")
    without_hard = comparison.aligned.without_hard
    if without_hard and len(without_hard) < len(comparison.aligned.files):
        notes.append(f"Hard records are not compared: no outputs on them from {', '.join(without_hard)}.")
    return notes


def comparison_as_json(
    comparison: Comparison, pairs: Sequence[Pairwise], criteria: Sequence[Criterion], files: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return all numbers as JSON.

    Args:
        comparison: Comparison of the runs.
        pairs: Comparison of each pair of runs.
        criteria: Checked criteria of the plan; may be empty.
        files: Paths of the predictions by run.
    """
    refusal = {name: {"over_refusal": over_refusal_as_json(one)} for name, one in comparison.over_refusal.items()}
    return {
        "mode": comparison.mode,
        "records": next(iter(comparison.scores.values())).records,
        "left_out": dict(comparison.aligned.left_out),
        "hard_left_out": dict(comparison.aligned.hard_left_out),
        "runs": {
            name: {"files": list(files[name]), **model_as_json(run), **refusal.get(name, {})}
            for name, run in comparison.scores.items()
        },
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
                "criterion": criterion.name,
                "verdict": criterion.verdict,
                **estimate_as_json("figure", criterion.estimate),
                "missing": criterion.missing,
            }
            for criterion in criteria
        ],
    }


def published_rows(comparison: Comparison) -> dict[tuple[str, str], Published]:
    """Return the paper's scores for the compared benchmarks and tasks."""
    first = next(iter(comparison.scores.values()))
    return {key: ROWS[key] for row in first.benchmarks if (key := (row.benchmark, row.task)) in ROWS}


def p_value(value: float | None) -> str:
    """Format a p value; "–" if there is none."""
    if value is None:
        return UNDEFINED
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _difference_rows(pair: Pairwise) -> list[Difference]:
    several = len(pair.benchmarks) > len(pair.averages)
    rows = [*pair.benchmarks, *(pair.averages if several else ())]
    return [part for row in rows for part in (row, *row.readings.values())]


def _undefined_for_some(comparison: Comparison) -> Iterator[str]:
    """Yield each F1 on a benchmark that is undefined for some runs and defined for others, with those runs."""
    models = list(comparison.scores.values())
    for rows in zip(*(flat(model.benchmarks) for model in models), strict=True):
        for label in rows[0].f1:
            names = [model.model for model, row in zip(models, rows, strict=True) if row.f1[label].value is None]
            if 0 < len(names) < len(models):
                yield f"{label} ({rows[0].task}) in {rows[0].benchmark}, undefined for {', '.join(names)}"


def _difference_cells(row: Difference, first_f1: str, second_f1: str, show_left_out: bool) -> list[Cell]:
    flips = row.flips
    counts = [flips.gained, flips.lost, *([flips.left_out] if show_left_out else [])]
    return [
        *(Cell(text) for text in (row.benchmark, row.task, str(row.n), first_f1, second_f1)),
        *(estimate_cell(row.f1, True), estimate_cell(row.accuracy, True)),
        *(Cell(str(count)) for count in counts),
        Cell(p_value(flips.p)),
    ]


def _f1_text(model: ModelScore, difference: Difference) -> str:
    key = difference.benchmark, difference.task
    rows = flat((*model.benchmarks, *model.averages))
    return headline_cell(next(row for row in rows if (row.benchmark, row.task) == key)).text


def _pair_as_json(pair: Pairwise) -> dict[str, Any]:
    refusal = {task: estimate_as_json("rate", change) for task, change in pair.over_refusal.items()}
    return {
        "first": pair.first,
        "second": pair.second,
        "benchmarks": [_difference_as_json(row) for row in pair.benchmarks],
        "average": [_difference_as_json(row) for row in pair.averages],
        "all_right": _difference_as_json(pair.records),
        **estimate_as_json("hard", pair.hard),
        **({"over_refusal": refusal} if refusal else {}),
    }


def _difference_as_json(row: Difference) -> dict[str, Any]:
    binary = {name: _difference_as_json(reading) for name, reading in row.readings.items()}
    return {
        **{"benchmark": row.benchmark, "task": row.task, "n": row.n},
        **estimate_as_json("f1", row.f1),
        **estimate_as_json("accuracy", row.accuracy),
        **asdict(row.flips),
        **({"readings": binary} if binary else {}),
    }
