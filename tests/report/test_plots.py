"""Plots: names are shown as they are, values are those of the scores, and there is no plot without numbers."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle

from guardreasoner.evaluation.scoring import ModelScore, score
from guardreasoner.evaluation.scoring.labels import Confusion, collect_labels, confusions
from guardreasoner.mining import Pairing, mine
from guardreasoner.mining.findings import Findings, findings
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.report.mining_plots import mining_plots
from guardreasoner.report.plot import COLOURS, Plot, draw_figures, label_rows, shorten
from guardreasoner.report.score_plots import (
    UNDEFINED_BAR,
    UNPARSED_COLUMN,
    confusion_plots,
    f1_plots,
    hard_plots,
    score_plots,
)
from guardreasoner.tasks import GUARD_TASKS, Task
from tests.support.scripted import R, W, make_outputs, make_record

REQUEST = GUARD_TASKS[0]
KIND = Task("kind", "Kind", "what kind is it?", ("a", "b", "c"), "a")
TASKS = (REQUEST, KIND)
ANSWERS = "HH aa, HU ab, HU, H- a-, UU bb, UH ca, U- cc, HH -b"


@pytest.mark.parametrize(
    ("name", "max_length", "short"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "ab…efg"),
        ("abcdefg", 5, "ab…fg"),
        ("ab" * 500_000, 6, "ab…bab"),
        ("a\x1b[31mb\nc\u202e\x00\ud800", 28, "a�[31mb�c���"),
        ("مرحبا", 28, "مرحبا"),
    ],
)
def test_long_names_are_shortened_in_the_middle(name: str, max_length: int, short: str) -> None:
    assert shorten(name, max_length) == short


def test_figures_have_the_requested_width_and_show_dollar_signs() -> None:
    received = []

    def draw(figure: Any, colours: Any) -> None:
        received.extend(colours)
        axes = figure.subplots()
        axes.barh([0, 1], [1, 2])
        label_rows(axes, ["$\\frac$", "b"])

    (name,) = figures = draw_figures([Plot("one", "A $title$", 2.5, draw)], width=4)
    FigureCanvasAgg(figures[name]).draw()
    assert (name, tuple(figures[name].get_size_inches()), tuple(received)) == ("one", (4, 2), COLOURS)
    axes = figures[name].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$\\frac$", "b"]
    assert axes.yaxis_inverted()
    assert draw_figures([]) == {}


def mined(source: str = "s", model: str = "m") -> Findings:
    """Return mining results for 50 records of 25 sources and two models."""
    records = [make_record(str(number), f"{source}{number % 25}") for number in range(50)]
    rollouts = [o for record in records for name in (model, "n") for o in make_outputs(record.id, [R, R, W], name)]
    return findings(mine(records, rollouts, GUARD_TASKS, Pairing()))


def test_mining_plots_are_drawn_with_any_names() -> None:
    figures = draw_figures(mining_plots(mined("$\\frac$ 你好", "$m$ <b>")))
    assert list(figures) == ["outcomes", "votes", "weights", "growth", "agreement"]
    for figure in figures.values():
        texts(figure)
        assert figure.axes
    labels = [label.get_text() for label in figures["outcomes"].axes[0].get_yticklabels()]
    assert len(labels) == 20
    assert figures["outcomes"].axes[0].get_xlabel() == "5 more are not shown"


def test_without_mining_results_there_is_no_plot() -> None:
    empty = replace(mined(), outcomes=(), votes=(), weights=((1.0, 0),), growth=(), agreement=())
    assert mining_plots(empty) == []


def answered(answers: str) -> tuple[list[Record], list[Rollout]]:
    """Return records and outputs from gold label and verdict of both tasks: "HU aa"; "-" stands for none of either."""
    records, rollouts = [], []
    for number, letters in enumerate(answers.split(", ")):
        labels = [{"H": "harmful", "U": "unharmful", "-": None}.get(x, x) for x in letters.replace(" ", "")]
        gold = {"request": labels[0], "kind": labels[2]} if len(labels) > 2 else {"request": labels[0]}
        verdicts = {"request": labels[1], "kind": labels[3]} if len(labels) > 2 else {"request": labels[1]}
        tasks = [task for task in TASKS if verdicts.get(task.name)]
        records.append(Record(str(number), "p", labels=gold, source="one" if number % 2 else "two"))
        rollouts.append(Rollout(str(number), "m", "f", 0, 0, answer_block(verdicts, tasks) if tasks else "Hm."))
    return records, rollouts


def scored(name: str = "m", answers: str = ANSWERS, hard: bool = False, resamples: int = 50) -> ModelScore:
    records, rollouts = answered(answers)
    more: Any = {"hard_records": records, "hard_answers": rollouts} if hard else {}
    return score(name, records, rollouts, TASKS, resamples=resamples, **more)


def test_confusion_counts_match_a_count_by_hand() -> None:
    records, rollouts = answered(ANSWERS)
    request, kind = confusions(collect_labels("m", records, rollouts, TASKS), TASKS)
    # harmful: 2 right, 2 called unharmful, 1 unparsed; unharmful: 1 called harmful, 1 right, 1 unparsed
    assert request == Confusion("request", ("harmful", "unharmful"), ((2, 2, 1), (1, 1, 1)))
    # The third record has no kind; the last one has no gold label for it.
    assert kind == Confusion("kind", ("a", "b", "c"), ((1, 1, 0, 1), (0, 1, 0, 0), (1, 0, 1, 0)))
    one = [outcomes for outcomes in collect_labels("m", records, rollouts, TASKS) if outcomes.benchmark == "one"]
    assert confusions(one, TASKS)[0].counts == ((1, 1, 1), (1, 0, 0))
    third = collect_labels("m", records[2:3], rollouts[2:3], TASKS)
    assert [matrix.task for matrix in confusions(third, TASKS)] == ["request"]


@pytest.mark.parametrize("mode", ["strict", "drop"])
def test_a_score_has_the_counts_of_all_benchmarks(mode: Any) -> None:
    records, rollouts = answered(ANSWERS)
    model = score("m", records, rollouts, TASKS, mode, resamples=0)
    assert model.confusions == confusions(collect_labels("m", records, rollouts, TASKS), TASKS)
    assert [sum(map(sum, matrix.counts)) for matrix in model.confusions] == [row.n for row in model.averages]
    unparsed = [sum(row[-1] for row in matrix.counts) for matrix in model.confusions]
    assert unparsed == [row.unparsed for row in model.averages]


def texts(figure: Any) -> list[str]:
    """Draw a figure and return all its visible texts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        FigureCanvasAgg(figure).draw()
    labels = [axes.get_title(loc="left") for axes in figure.axes]
    for axes in figure.axes:
        labels += [label.get_text() for label in [*axes.texts, *axes.get_yticklabels(), *axes.get_xticklabels()]]
    return [label for label in labels if label]


def test_one_model_has_one_bar_per_class() -> None:
    (plot,) = f1_plots([scored()], TASKS)
    figure = draw_figures([plot])["f1"]
    labels = texts(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["request", "kind"]
    values = [f1.value for row in scored().averages for f1 in row.f1.values()]
    assert [label for label in labels if "." in label] == [f"{value:.1f}" for value in values if value is not None]
    assert [bar.get_width() for axes in figure.axes for bar in axes.patches] == values
    intervals = [list(line.get_xdata()) for axes in figure.axes for line in axes.lines]
    assert intervals == [[f1.low, f1.high] for row in scored().averages for f1 in row.f1.values()]


def test_several_models_have_one_panel_per_class_and_undefined_is_not_zero() -> None:
    models = [scored("first"), scored("second", "HH, HH"), scored("third", "HU, UU")]
    (plot,) = f1_plots(models, TASKS)
    figure = draw_figures([plot])["f1"]
    texts(figure)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["request: harmful", "request: unharmful", "kind: a", "kind: b", "kind: c"]
    assert [label.get_text() for label in panels["request: harmful"].get_yticklabels()] == ["first", "second", "third"]
    labels = [[text.get_text() for text in axes.texts] for axes in panels.values()]
    # The second model has no unharmful record. The third calls a harmful record unharmful: its F1 is 0, not undefined.
    assert labels[0][1:] == ["100.0", "0.0"]
    assert labels[1][1] == UNDEFINED_BAR
    assert [row[1:] for row in labels[2:]] == [[UNDEFINED_BAR, UNDEFINED_BAR]] * 3
    first_colours = {bar.get_facecolor() for axes in figure.axes for bar in axes.patches[:1]}
    assert len(first_colours) == 1  # a model has the same colour in all panels


def test_hard_sample_accuracy_is_undefined_without_outputs() -> None:
    assert hard_plots([scored()]) == []
    (plot,) = hard_plots([scored("with", hard=True), scored("without")])
    assert plot.name == "hard"
    values = texts(draw_figures([plot])["hard"])[:2]
    assert values == ["37.5", UNDEFINED_BAR]  # three of eight outputs match every gold label


def test_confusion_matrices_show_counts_and_shares_of_rows() -> None:
    request, kind = draw_figures(confusion_plots([scored("x")], TASKS)).values()
    labels = texts(request)
    assert labels[:6] == ["2\n40 %", "2\n40 %", "1\n20 %", "1\n33 %", "1\n33 %", "1\n33 %"]
    assert labels[6:] == ["harmful", "unharmful", "harmful", "unharmful", UNPARSED_COLUMN]
    filled = [patch for patch in request.axes[0].patches if isinstance(patch, Rectangle) and patch.get_fill()]
    assert filled[0].get_facecolor()[:3] != filled[1].get_facecolor()[:3]  # right and wrong
    assert filled[0].get_alpha() == filled[1].get_alpha() > filled[2].get_alpha() > 0
    assert len(texts(kind)) == 12 + 3 + 4


def test_rows_without_records_show_a_dash() -> None:
    (request,) = draw_figures(confusion_plots([scored("x", "HH, HU")], TASKS)).values()
    assert texts(request)[3:6] == ["–"] * 3


@pytest.mark.parametrize(("label_count", "text"), [(7, "100"), (15, None)])
def test_large_confusion_matrices_show_less_text(label_count: int, text: str | None) -> None:
    task = Task("kind", "Kind", "which?", tuple(f"label-{number}" for number in range(label_count)))
    counts = tuple(tuple(int(row == column) for column in range(label_count + 1)) for row in range(label_count))
    model = replace(scored(), confusions=(Confusion("kind", task.labels, counts),))
    figure = draw_figures(confusion_plots([model], [task]))["confusion-kind"]
    cells = [label for label in texts(figure) if "label" not in label and label != UNPARSED_COLUMN]
    assert set(cells) == ({text, "0"} if text else set())
    assert figure.get_size_inches()[1] < 9


@pytest.mark.slow
def test_score_plots_are_drawn_with_any_names() -> None:
    names = ["$\\frac$", "<script>alert(1)</script>", "\x1b[31mred", "م" * 1_000_000, "你好", "5", "6", "7", "8", "9"]
    models = [scored(name, hard=True, resamples=0) for name in names]
    plots = score_plots(models, TASKS)
    assert [plot.name for plot in plots] == ["f1", "confusion-request", "confusion-kind", "hard"]
    for figure in draw_figures(plots, width=5).values():
        labels = texts(figure)
        assert "$\\frac$" in labels
        assert max(map(len, labels)) < 60
        assert "\x1b" not in "".join(labels)


def test_without_scores_there_is_no_plot() -> None:
    assert score_plots([], GUARD_TASKS) == []
