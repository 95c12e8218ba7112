"""Sections of a page of runs that follow from their predictions alone; what cannot be shown is said in a line."""

from collections.abc import Mapping, Sequence

from guardreasoner.evaluation.comparison import Comparison, Pairwise
from guardreasoner.evaluation.comparison.criteria import Criterion
from guardreasoner.evaluation.intervals import Estimate
from guardreasoner.evaluation.reasoning_quality import Quality, quality
from guardreasoner.prompts import conversation
from guardreasoner.report.comparisons import criteria_table, p_value, pair_table, published_rows, published_table
from guardreasoner.report.flipped import flipped
from guardreasoner.report.reasoning import REASONING_NOTES, reasoning_table
from guardreasoner.report.score_plots import confusion_plots, f1_plots, hard_plots
from guardreasoner.report.scores import confusion_tables, hard_table, model_table
from guardreasoner.report.section import Section, drawings
from guardreasoner.report.tables import Cell, Table, figure

_HARD_MISSING = "Not all runs have outputs on hard records (hard_samples.jsonl), so there is nothing to compare here."


def figures_section(comparison: Comparison, pairs: Sequence[Pairwise]) -> Section:
    """Return all runs in one table, and what each two of them differ by over all records."""
    models = list(comparison.scores.values())
    table = model_table({comparison.mode: models}, comparison.tasks)
    named = Table(f"The runs, figures in percent ({comparison.mode})", table.headings, table.rows, table.words)
    rows = [
        [Cell(pair.first), Cell(pair.second), figure(pair.records.accuracy, True), figure(pair.records.f1, True)]
        + ([figure(pair.hard, True)] if comparison.hard else [])
        + [Cell(f"{count:,}") for count in (pair.records.flips.gained, pair.records.flips.lost)]
        + [Cell(p_value(pair.records.flips.p))]
        for pair in pairs
    ]
    hard = ("hard\nrecords",) if comparison.hard else ()
    headings = ("first", "second", "all\nright", "mean\nF1", *hard, "gained", "lost", "p")
    change = Table("Differences in percentage points, second minus first", headings, rows, words=2)
    note = "All right: records with every verdict right. Then F1 of each class, averaged over benchmarks."
    return Section("figures", "Figures", tables=(named, change), notes=(note,))


def pairs_section(comparison: Comparison, pairs: Sequence[Pairwise], notes: Sequence[str]) -> Section:
    """Return each two runs by benchmark and task.

    Args:
        comparison: of the runs.
        pairs: each two of them.
        notes: what the figures mean.
    """
    tables = tuple(pair_table(comparison, pair) for pair in pairs)
    return Section("pairs", "Differences by benchmark and task", tables=tables, notes=tuple(notes))


def f1_section(comparison: Comparison) -> Section:
    """Return F1 of every class as bars."""
    models = list(comparison.scores.values())
    plots = drawings("f1", f1_plots(models, comparison.tasks))
    rows = [
        [
            Cell(average.task),
            Cell(label),
            *(figure(_f1(comparison, name, average.task, label)) for name in comparison.scores),
        ]
        for average in models[0].averages
        for label in average.f1
    ]
    table = Table("F1 per class, in percent", ("task", "class", *comparison.scores), rows, words=2)
    lines = () if plots else ("No record has a gold label, so there is no F1.",)
    return Section("f1", "F1 per class", lines, plots, (table,) if rows else ())


def confusion_section(comparison: Comparison, seeds: Mapping[str, int]) -> Section:
    """Return what was answered by gold label, answers without a verdict in a column of their own."""
    models = list(comparison.scores.values())
    lines = ["Answers over all benchmarks by gold label; an unparsed answer gives no verdict and counts once."]
    if any(count > 1 for count in seeds.values()):
        lines.append("Answers of a run's seeds add up.")
    plots = drawings("confusion", confusion_plots(models, comparison.tasks))
    return Section("confusion", "Confusion matrices", tuple(lines), plots, tuple(confusion_tables(models)))


def hard_section(comparison: Comparison, pairs: Sequence[Pairwise]) -> Section:
    """Return accuracy on hard records, before and after."""
    models = list(comparison.scores.values())
    if not comparison.hard:
        return Section("hard", "Hard records", (_HARD_MISSING,))
    rows = [[Cell(pair.first), Cell(pair.second), figure(pair.hard, True)] for pair in pairs if pair.hard]
    change = Table("Hard records: differences in points", ("first", "second", "second − first"), rows, words=2)
    line = "Share of sampled outputs with every verdict right, on records that were mixed when they were mined."
    return Section("hard", "Hard records", (line,), drawings("hard", hard_plots(models)), (hard_table(models), change))


def criteria_section(criteria: Sequence[Criterion]) -> Section:
    """Return the plan's criteria and what the data say of each."""
    title = "Criteria of the plan"
    if not criteria:
        hint = "--criteria rsft=NAME longer=NAME hsdpo=NAME says which run is which"
        return Section("criteria", title, (f"Not checked: the runs are not called as in the demo; {hint}.",))
    line = "Met: the whole 95 % interval is on the right side. Not met: all of it is on the wrong one."
    return Section("criteria", title, (line,), tables=(criteria_table(criteria),))


def reasoning_section(comparison: Comparison) -> Section:
    """Return what the reasoning of each run is like, by rules; a run's seeds together."""
    table = reasoning_table({name: _quality(comparison, name) for name in comparison.scores})
    several = any(len(comparison.files_of(name)) > 1 for name in comparison.scores)
    seeds = "The answers of a run's seeds stand together, and are taken as independent of each other."
    lines = (seeds,) if several else ()
    return Section("reasoning", "Reasoning, by rule", lines, tables=(table,), notes=REASONING_NOTES)


def ratings_section(tables: Sequence[Table] = (), notes: Sequence[str] = ()) -> Section:
    """Return what people thought of the reasoning.

    Args:
        tables: of their ratings; none where nobody gave any.
        notes: what the figures mean.
    """
    lines = (
        ()
        if tables or notes
        else ("No ratings by hand were given (report --ratings FILE; the verb review makes them).",)
    )
    return Section("ratings", "Reasoning, rated by hand", lines, tables=tuple(tables), notes=tuple(notes))


def flips_section(comparison: Comparison, count: int, seed: int) -> Section:
    """Return examples of records that flipped from the first run to the last, and from the one before it.

    Args:
        comparison: of the runs.
        count: most examples a direction.
        seed: of the choice among them.
    """
    names = list(comparison.scores)
    found = tuple(
        examples
        for first in dict.fromkeys((names[0], names[-2]))
        for examples in flipped(comparison, first, names[-1], count, seed)
    )
    lines = ["Gained: the last run is right where the other is wrong. Lost: the opposite."]
    lines.append(f"At most {count} of each are shown, drawn with seed {seed}; compare --flips FILE lists all.")
    return Section("flips", "Records that flipped", tuple(lines), examples=found)


def published_section(comparison: Comparison) -> Section:
    """Return the paper's figures beside those of the runs, where the benchmarks are the paper's."""
    title = "Beside the paper"
    rows = published_rows(comparison)
    if not rows:
        return Section("published", title, ("None of these benchmarks is among those that the paper prints.",))
    line = (
        "GuardReasoner 1B, 3B and 8B as printed in arXiv 2501.18492v2, tables 2, 5 and 8 "
        "(F1 as the released script counts); the runs as in the tables above."
    )
    return Section("published", title, (line,), tables=(published_table(comparison, rows),))


def _f1(comparison: Comparison, run: str, task: str, label: str) -> Estimate | None:
    averages = comparison.scores[run].averages
    return next((average.f1[label] for average in averages if average.task == task), None)


def _quality(comparison: Comparison, run: str) -> Quality:
    files = comparison.files_of(run)
    about = {record.id: conversation(record) for record in files[0].records}
    answers = [answer for file in files for answer in file.rollouts]
    texts = [answer.completion for answer in answers]
    return quality(texts, comparison.tasks, [about[answer.record_id] for answer in answers])
