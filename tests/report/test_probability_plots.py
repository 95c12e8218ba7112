"""Plots and tables of probabilities: one panel per kind of score, one line per model, undefined values marked."""

from matplotlib.backends.backend_agg import FigureCanvasAgg

from guardreasoner.evaluation.scoring import score
from guardreasoner.evaluation.scoring.probabilities import POOLED, ProbabilityScore, probability_scores
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.report.plot import draw_figures
from guardreasoner.report.probability_plots import overall_rows, probability_plots
from guardreasoner.report.probability_tables import probability_notes, probability_table
from guardreasoner.report.score_plots import score_plots
from guardreasoner.report.svg import plot_svg
from guardreasoner.report.table import UNDEFINED
from guardreasoner.sources.label_scores import scores_by_kind
from guardreasoner.tasks import GUARD_TASKS
from tests.support.scored_predictions import random_scores


def rows_of(gold: str, sources: str = "", resamples: int = 10) -> tuple[ProbabilityScore, ...]:
    """Return rows of two kinds of score."""
    _, scores = random_scores(len(gold), 0)
    by_record = {
        str(number): {"request": {"harmful": value or 0.0, "unharmful": 1 - (value or 0.0)}}
        for number, value in enumerate(scores)
    }
    return probability_scores(
        records_of(gold, sources), {"direct": by_record, "votes": by_record}, GUARD_TASKS, resamples
    )


def records_of(gold: str, sources: str = "") -> list[Record]:
    labels = {"H": "harmful", "U": "unharmful"}
    return [
        Record(str(number), "p", labels={"request": labels[letter]}, source=sources[number] if sources else "b")
        for number, letter in enumerate(gold)
    ]


def test_kinds_are_panels_and_models_are_lines() -> None:
    rows = rows_of("HU" * 60)
    figures = draw_figures(probability_plots({"$\\frac$ <b>": rows, "n": rows}))
    assert list(figures) == ["roc-request", "reliability-request"]
    for figure in figures.values():
        FigureCanvasAgg(figure).draw()
        assert [axes.get_title(loc="left") for axes in figure.axes] == ["direct", "votes"]
        assert [len(axes.lines) for axes in figure.axes] == [3, 3]  # the diagonal and the two models
        first, second = figure.axes[0].lines[1:]
        assert first.get_linestyle() != second.get_linestyle()
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["$\\frac$ <b>", "n"]
    assert all(plot_svg(plot, "x").startswith("<svg") for plot in probability_plots({"m": rows}))


def test_one_class_has_no_roc_plot() -> None:
    assert [plot.name for plot in probability_plots({"m": rows_of("U" * 40)})] == ["reliability-request"]
    assert probability_plots({}) == []


def test_only_the_rows_over_all_benchmarks_are_drawn() -> None:
    rows = rows_of("HU" * 20, "ab" * 20)
    assert [(row.benchmark, row.kind) for row in overall_rows(rows)] == [(POOLED, "direct"), (POOLED, "votes")]
    assert len(overall_rows(rows_of("HU" * 20))) == 2


def test_what_is_undefined_is_marked_with_what_is_needed() -> None:
    rows = rows_of("HU" * 30)
    (first, _) = probability_table("m", rows).rows
    assert [first[-2].text, first[-1].text != UNDEFINED] == [UNDEFINED, True]
    notes = " ".join(probability_notes(rows, 10))
    assert "recall at 1 % FPR needs 100 negative records; b/request has 30." in notes
    assert "needs 20" not in notes
    assert probability_notes([], 10) == []


def test_score_plots_show_probabilities_too() -> None:
    records = records_of("HU" * 20)
    answers = [Rollout(record.id, "m", "f", 0, 0, answer_block(record.labels, GUARD_TASKS)) for record in records]
    shares = scores_by_kind((record.id, {"votes": {"request": {"harmful": 1.0}}}) for record in records)
    scored = score("m", records, answers, GUARD_TASKS, resamples=0, label_scores=shares)
    assert [plot.name for plot in score_plots([scored], GUARD_TASKS)][-2:] == ["roc-request", "reliability-request"]
    plain = score("m", records, answers, GUARD_TASKS, resamples=0)
    assert [plot.name for plot in score_plots([plain], GUARD_TASKS)] == ["f1", "confusion-request"]
