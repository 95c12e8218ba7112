"""Sections of the comparison page that are computed from the predictions alone.

A section that has nothing to show says so in one line.
"""

from collections.abc import Mapping, Sequence

from guardreasoner.evaluation.comparison import Comparison, Pairwise
from guardreasoner.evaluation.comparison.criteria import Criterion
from guardreasoner.evaluation.reasoning_quality import Quality, judged_text, quality
from guardreasoner.evaluation.scoring.probabilities import ProbabilityScore
from guardreasoner.evaluation.scoring.slices import SliceScore
from guardreasoner.report.comparison_tables import (
    criteria_table,
    p_value,
    pair_table,
    published_rows,
    published_table,
)
from guardreasoner.report.flip_examples import flip_examples
from guardreasoner.report.probability_plots import probability_plots
from guardreasoner.report.probability_tables import probability_notes, probability_table
from guardreasoner.report.reasoning_table import REASONING_NOTES, reasoning_table
from guardreasoner.report.score_plots import confusion_plots, f1_plots, hard_plots
from guardreasoner.report.score_tables import (
    READINGS_NOTE,
    STEERABILITY_NOTE,
    class_f1,
    confusion_tables,
    hard_table,
    model_table,
    reading_f1,
    steerability_tables,
)
from guardreasoner.report.section import Section, section_plots
from guardreasoner.report.slice_tables import (
    OVER_REFUSAL_NOTE,
    SLICES_NOTE,
    over_refusal_differences,
    over_refusal_table,
    slice_tables,
)
from guardreasoner.report.table import Cell, Table, estimate_cell


def scores_section(comparison: Comparison, pairs: Sequence[Pairwise]) -> Section:
    """Return the scores of all runs, and the differences of each pair of runs over all records."""
    models = list(comparison.scores.values())
    table = model_table({comparison.mode: models}, comparison.tasks)
    scores = Table(
        f"Scores of the runs, in percent ({comparison.mode})", table.headings, table.rows, table.text_columns
    )
    rows = [
        [Cell(pair.first), Cell(pair.second)]
        + [estimate_cell(pair.records.accuracy, True), estimate_cell(pair.records.f1, True)]
        + ([estimate_cell(pair.hard, True)] if comparison.hard else [])
        + [Cell(f"{count:,}") for count in (pair.records.flips.gained, pair.records.flips.lost)]
        + [Cell(p_value(pair.records.flips.p))]
        for pair in pairs
    ]
    hard = ("hard\nrecords",) if comparison.hard else ()
    headings = ("first", "second", "all\nright", "mean\nF1", *hard, "gained", "lost", "p")
    differences = Table("Differences in percentage points, second minus first", headings, rows, text_columns=2)
    note = "All right: records with every verdict right. Then F1 of each class, averaged over benchmarks."
    return Section("scores", "Scores", tables=(scores, differences), notes=(note,))


def pairs_section(comparison: Comparison, pairs: Sequence[Pairwise], notes: Sequence[str]) -> Section:
    """Return the differences of each pair of runs by benchmark and task.

    Args:
        comparison: Comparison of the runs.
        pairs: Comparison of each pair of runs.
        notes: Explanations of the numbers.
    """
    tables = tuple(pair_table(comparison, pair) for pair in pairs)
    return Section("pairs", "Differences by benchmark and task", tables=tables, notes=tuple(notes))


def f1_section(comparison: Comparison) -> Section:
    """Return F1 of each class as bars and as a table."""
    models = list(comparison.scores.values())
    plots = section_plots("f1", f1_plots(models, comparison.tasks))
    rows = [
        [Cell(average.task), Cell(label)] + [estimate_cell(class_f1(model, average.task, label)) for model in models]
        for average in models[0].averages
        for label in average.f1
    ]
    for average in models[0].averages:
        for reading, row in average.readings.items():
            f1 = (estimate_cell(reading_f1(model, average.task, reading)) for model in models)
            rows.append([Cell(row.task), Cell(row.positive), *f1])
    table = Table("F1 per class, in percent", ("task", "class", *comparison.scores), rows, text_columns=2)
    lines = () if plots else ("No F1: no record has a gold label.",)
    notes = (READINGS_NOTE,) if any(average.readings for average in models[0].averages) else ()
    return Section("f1", "F1 per class", lines, plots, (table,) if rows else (), notes=notes)


def confusion_section(comparison: Comparison, seeds: Mapping[str, int]) -> Section:
    """Return confusion matrices of gold labels and verdicts, with a column for unparsed answers.

    Args:
        comparison: Comparison of the runs.
        seeds: Number of training seeds by run.
    """
    models = list(comparison.scores.values())
    lines = ["Answers over all benchmarks by gold label. An unparsed answer has no verdict and is counted once."]
    if any(count > 1 for count in seeds.values()):
        lines.append("The answers of a run's seeds are added up.")
    plots = section_plots("confusion", confusion_plots(models, comparison.tasks))
    return Section("confusion", "Confusion matrices", tuple(lines), plots, tuple(confusion_tables(models)))


def hard_section(comparison: Comparison, pairs: Sequence[Pairwise]) -> Section:
    """Return accuracy on hard records and the differences of each pair of runs."""
    models = list(comparison.scores.values())
    if not comparison.hard:
        return Section("hard", "Hard records", ("Not all runs have outputs on hard records (hard_samples.jsonl).",))
    rows = [[Cell(pair.first), Cell(pair.second), estimate_cell(pair.hard, True)] for pair in pairs if pair.hard]
    headings = ("first", "second", "second − first")
    differences = Table("Hard records: differences in points", headings, rows, text_columns=2)
    line = "Share of sampled outputs with every verdict right, on records whose outputs were mixed during mining."
    plots = section_plots("hard", hard_plots(models))
    return Section("hard", "Hard records", (line,), plots, (hard_table(models), differences))


def steerability_sections(comparison: Comparison) -> list[Section]:
    """Return a section on how the verdicts of each run follow the policies; none if no conversation has several."""
    tables = steerability_tables(list(comparison.scores.values()))
    return [Section("steerability", "Steerability", tables=tuple(tables), notes=(STEERABILITY_NOTE,))] if tables else []


def probabilities_section(probabilities: Mapping[str, Sequence[ProbabilityScore]], resamples: int) -> Section:
    """Return how well the probabilities of each run rank and how well they are calibrated.

    Args:
        probabilities: Quality of the probabilities by run; empty without probabilities.
        resamples: Number of bootstrap resamples.
    """
    title = "Scores as probabilities"
    if not probabilities:
        return Section("probabilities", title, ("No run has probabilities of labels in its predictions.",))
    plots = section_plots("probabilities", probability_plots(probabilities))
    tables = tuple(probability_table(f"Scores as probabilities: {name}", rows) for name, rows in probabilities.items())
    notes = tuple(probability_notes([row for rows in probabilities.values() for row in rows], resamples))
    return Section("probabilities", title, (), plots, tables, notes=notes)


def over_refusal_section(comparison: Comparison, pairs: Sequence[Pairwise]) -> Section:
    """Return the false-positive rate on harmless look-alikes and the differences of each pair of runs."""
    tables = (over_refusal_table(comparison.over_refusal), over_refusal_differences(pairs))
    return Section("over-refusal", "Over-refusal", tables=tables, notes=(OVER_REFUSAL_NOTE,))


def slices_section(slices: Mapping[str, Sequence[SliceScore]]) -> Section:
    """Return the scores of all runs by slice.

    Args:
        slices: Scores by slice of each run.
    """
    return Section("slices", "Scores by slice", tables=tuple(slice_tables(slices)), notes=(SLICES_NOTE,))


def criteria_section(criteria: Sequence[Criterion]) -> Section:
    """Return the criteria of the plan and whether the runs meet them."""
    title = "Criteria of the plan" if all(criterion.of_plan for criterion in criteria) else "Criteria"
    if not criteria:
        line = "Not checked: assign runs to roles with --criteria rsft=NAME longer=NAME hsdpo=NAME."
        return Section("criteria", title, (line,))
    line = "Met: the whole 95 % interval meets the criterion. Not met: the whole interval fails it."
    return Section("criteria", title, (line,), tables=(criteria_table(criteria),))


def reasoning_section(comparison: Comparison) -> Section:
    """Return the reasoning quality of each run by rules, the mean over its seeds."""
    table = reasoning_table({name: _quality(comparison, name) for name in comparison.scores})
    several = any(len(comparison.files_of(name)) > 1 for name in comparison.scores)
    line = "The mean over a run's seeds; intervals count records, and leave out variation between seeds."
    lines = (line,) if several else ()
    return Section("reasoning", "Reasoning quality by rules", lines, tables=(table,), notes=REASONING_NOTES)


def ratings_section(tables: Sequence[Table] = (), notes: Sequence[str] = ()) -> Section:
    """Return the human ratings of the reasoning.

    Args:
        tables: Tables of the ratings; may be empty.
        notes: Explanations of the numbers.
    """
    missing = "No human ratings given (--ratings FILE; the command review collects them)."
    lines = () if tables or notes else (missing,)
    return Section("ratings", "Human ratings of the reasoning", lines, tables=tuple(tables), notes=tuple(notes))


def flips_section(comparison: Comparison, count: int, seed: int) -> Section:
    """Return examples of records that flipped from the first run to the last, and from the second last to the last.

    Args:
        comparison: Comparison of the runs.
        count: Largest number of examples per direction.
        seed: Seed of the sample.
    """
    names = list(comparison.scores)
    examples = tuple(
        direction
        for first in dict.fromkeys((names[0], names[-2]))
        for direction in flip_examples(comparison, first, names[-1], count, seed)
    )
    lines = ["Gained: the last run is right where the other is wrong. Lost: the opposite."]
    lines.append(f"A random sample of at most {count} each (seed {seed}); compare --flips FILE lists all.")
    return Section("flips", "Flipped records", tuple(lines), examples=examples)


def published_section(comparison: Comparison) -> Section:
    """Return the scores published in the paper beside those of the runs."""
    title = "Comparison with the paper"
    rows = published_rows(comparison)
    if not rows:
        return Section("published", title, ("The paper has no scores for these benchmarks.",))
    line = (
        "GuardReasoner 1B, 3B and 8B as printed in arXiv 2501.18492v2, tables 2, 5 and 8 "
        "(F1 as the released script counts); the runs as in the tables above."
    )
    return Section("published", title, (line,), tables=(published_table(comparison, rows),))


def _quality(comparison: Comparison, run: str) -> Quality:
    files = comparison.files_of(run)
    judged = [judged_text(record) for record in files[0].records] * len(files)
    texts = []
    for file in files:
        completions = {answer.record_id: answer.completion for answer in file.rollouts}
        texts += [completions[record.id] for record in file.records]
    return quality(texts, comparison.tasks, judged, format=files[0].format, seeds=len(files))
