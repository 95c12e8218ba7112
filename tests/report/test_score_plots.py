"""Confusion counts by hand, and plots that say what scores say, whatever names hold."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle

from guardreasoner.evaluation.scoring import ModelScore, score
from guardreasoner.evaluation.scoring.labels import Confusion, collect_labels, confusions
from guardreasoner.prompts import answer_block
from guardreasoner.records import Record, Rollout
from guardreasoner.report.plotting import render_figures
from guardreasoner.report.score_plots import UNDEFINED, UNPARSED, confusion_plots, f1_plots, hard_plots, score_plots
from guardreasoner.tasks import GUARD_TASKS, Task

REQUEST = GUARD_TASKS[0]
KIND = Task("kind", "Kind", "what kind is it?", ("a", "b", "c"), "a")
BOTH = (REQUEST, KIND)


def answered(said: str) -> tuple[list[Record], list[Rollout]]:
    """Return records and answers written as gold and verdict of both tasks: "HU aa", "-" for none of either."""
    records, answers = [], []
    for number, word in enumerate(said.split(", ")):
        both = [{"H": "harmful", "U": "unharmful", "-": None}.get(letter, letter) for letter in word.replace(" ", "")]
        gold = {"request": both[0], "kind": both[2]} if len(both) > 2 else {"request": both[0]}
        found = {"request": both[1], "kind": both[3]} if len(both) > 2 else {"request": both[1]}
        asked = [task for task in BOTH if found.get(task.name)]
        records.append(Record(str(number), "p", labels=gold, source="one" if number % 2 else "two"))
        answers.append(Rollout(str(number), "m", "f", 0, 0, answer_block(found, asked) if asked else "Hm."))
    return records, answers


SAID = "HH aa, HU ab, HU, H- a-, UU bb, UH ca, U- cc, HH -b"


def scored(name: str = "m", said: str = SAID, hard: bool = False, resamples: int = 50) -> ModelScore:
    records, answers = answered(said)
    more: Any = {"hard_records": records, "hard_answers": answers} if hard else {}
    return score(name, records, answers, BOTH, resamples=resamples, **more)


def test_confusion_counts_by_hand() -> None:
    records, answers = answered(SAID)
    request, kind = confusions(collect_labels("m", records, answers, BOTH), BOTH)
    # harmful: 2 right, 2 called unharmful, 1 none; unharmful: 1 called harmful, 1 right, 1 none
    assert request == Confusion("request", ("harmful", "unharmful"), ((2, 2, 1), (1, 1, 1)))
    # the third record was not asked for its kind, the last one has no gold label
    assert kind == Confusion("kind", ("a", "b", "c"), ((1, 1, 0, 1), (0, 1, 0, 0), (1, 0, 1, 0)))
    one = [outcomes for outcomes in collect_labels("m", records, answers, BOTH) if outcomes.benchmark == "one"]
    assert confusions(one, BOTH)[0].counts == ((1, 1, 1), (1, 0, 0))
    assert [one.task for one in confusions(collect_labels("m", records[2:3], answers[2:3], BOTH), BOTH)] == ["request"]


@pytest.mark.parametrize("mode", ["strict", "drop"])
def test_a_score_has_the_counts_of_all_benchmarks(mode: Any) -> None:
    records, answers = answered(SAID)
    found = score("m", records, answers, BOTH, mode, resamples=0)
    assert found.confusions == confusions(collect_labels("m", records, answers, BOTH), BOTH)
    assert [sum(map(sum, one.counts)) for one in found.confusions] == [row.n for row in found.averages]
    assert [sum(row[-1] for row in one.counts) for one in found.confusions] == [row.unparsed for row in found.averages]


def texts(figure: Any) -> list[str]:
    """Draw, and return all text that is seen."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        FigureCanvasAgg(figure).draw()
    seen = [axes.get_title(loc="left") for axes in figure.axes]
    for axes in figure.axes:
        seen += [one.get_text() for one in [*axes.texts, *axes.get_yticklabels(), *axes.get_xticklabels()]]
    return [one for one in seen if one]


def test_one_model_has_a_bar_a_class() -> None:
    (plot,) = f1_plots([scored()], BOTH)
    figure = render_figures([plot])["f1"]
    seen = texts(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["request", "kind"]
    values = [one.value for row in scored().averages for one in row.f1.values()]
    assert [word for word in seen if "." in word] == [f"{value:.1f}" for value in values if value is not None]
    assert [bar.get_width() for axes in figure.axes for bar in axes.patches] == values
    whiskers = [list(line.get_xdata()) for axes in figure.axes for line in axes.lines]
    assert whiskers == [[one.low, one.high] for row in scored().averages for one in row.f1.values()]


def test_several_models_stand_beside_each_other_and_what_is_undefined_is_no_zero() -> None:
    models = [scored("first"), scored("second", "HH, HH"), scored("third", "HU, UU")]
    (plot,) = f1_plots(models, BOTH)
    figure = render_figures([plot])["f1"]
    texts(figure)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["request: harmful", "request: unharmful", "kind: a", "kind: b", "kind: c"]
    assert [label.get_text() for label in panels["request: harmful"].get_yticklabels()] == ["first", "second", "third"]
    said = [[one.get_text() for one in axes.texts] for axes in panels.values()]
    # the second has no unharmful record; the third answers "unharmful" to a harmful one: F1 is 0 there, not undefined
    assert said[0][1:] == ["100.0", "0.0"]
    assert said[1][1] == UNDEFINED
    assert [words[1:] for words in said[2:]] == [[UNDEFINED, UNDEFINED]] * 3
    colours = {bar.get_facecolor() for axes in figure.axes for bar in axes.patches[:1]}
    assert len(colours) == 1  # a model has one colour in all groups


def test_hard_records_of_those_who_have_them() -> None:
    assert hard_plots([scored()]) == []
    (plot,) = hard_plots([scored("with", hard=True), scored("without")])
    assert plot.name == "hard"
    assert texts(render_figures([plot])["hard"])[:2] == [
        "37.5",
        UNDEFINED,
    ]  # three of eight outputs meet every gold label


def test_a_matrix_has_counts_and_shares_of_rows() -> None:
    request, kind = render_figures(confusion_plots([scored("x")], BOTH)).values()
    seen = texts(request)
    assert seen[:6] == ["2\n40 %", "2\n40 %", "1\n20 %", "1\n33 %", "1\n33 %", "1\n33 %"]
    assert seen[6:] == ["harmful", "unharmful", "harmful", "unharmful", UNPARSED]
    filled = [one for one in request.axes[0].patches if isinstance(one, Rectangle) and one.get_fill()]
    assert filled[0].get_facecolor()[:3] != filled[1].get_facecolor()[:3]  # right and wrong
    assert filled[0].get_alpha() == filled[1].get_alpha() > filled[2].get_alpha() > 0
    assert len(texts(kind)) == 12 + 3 + 4


def test_a_row_without_records_says_so() -> None:
    (request,) = render_figures(confusion_plots([scored("x", "HH, HU")], BOTH)).values()
    assert texts(request)[3:6] == ["–"] * 3


@pytest.mark.parametrize(("labels", "text"), [(7, "100"), (15, None)])
def test_many_labels_leave_room_for_less(labels: int, text: str | None) -> None:
    task = Task("kind", "Kind", "which?", tuple(f"label-{number}" for number in range(labels)))
    counts = tuple(tuple(int(row == column) for column in range(labels + 1)) for row in range(labels))
    one = replace(scored(), confusions=(Confusion("kind", task.labels, counts),))
    figure = render_figures(confusion_plots([one], [task]))["confusion-kind"]
    seen = [said for said in texts(figure) if "label" not in said and said != UNPARSED]
    assert set(seen) == ({text, "0"} if text else set())
    assert figure.get_size_inches()[1] < 9


def test_names_may_hold_anything() -> None:
    names = ["$\\frac$", "<script>alert(1)</script>", "\x1b[31mred", "م" * 1_000_000, "你好", "5", "6", "7", "8", "9"]
    models = [scored(name, hard=True, resamples=0) for name in names]
    plots = score_plots(models, BOTH)
    assert [plot.name for plot in plots] == ["f1", "confusion-request", "confusion-kind", "hard"]
    for figure in render_figures(plots, width=5).values():
        seen = texts(figure)
        assert "$\\frac$" in seen
        assert max(map(len, seen)) < 60
        assert "\x1b" not in "".join(seen)


def test_without_scores_there_is_no_plot() -> None:
    assert score_plots([], GUARD_TASKS) == []
