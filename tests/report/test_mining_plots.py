"""The plots are drawn whatever names hold, and only where there are numbers."""

from dataclasses import replace

from matplotlib.backends.backend_agg import FigureCanvasAgg

from guardreasoner.mining import Pairing, mine
from guardreasoner.mining.findings import Findings, findings
from guardreasoner.report.mining_plots import plots
from guardreasoner.report.plotting import render_figures
from guardreasoner.tasks import GUARD_TASKS
from tests.support.scripted import R, W, make_outputs, make_record


def made(source: str = "s", model: str = "m") -> Findings:
    records = [make_record(str(number), f"{source}{number % 25}") for number in range(50)]
    rollouts = [o for record in records for one in (model, "n") for o in make_outputs(record.id, [R, R, W], one)]
    return findings(mine(records, rollouts, GUARD_TASKS, Pairing()))


def test_each_plot_is_a_figure_of_its_own() -> None:
    drawn = render_figures(plots(made("$\\frac$ 你好", "$m$ <b>")))
    assert list(drawn) == ["outcomes", "votes", "weights", "growth", "agreement"]
    for figure in drawn.values():
        FigureCanvasAgg(figure).draw()
        assert figure.axes
    labels = [label.get_text() for label in drawn["outcomes"].axes[0].get_yticklabels()]
    assert len(labels) == 20
    assert drawn["outcomes"].axes[0].get_xlabel() == "5 more are not shown"


def test_without_numbers_there_is_no_plot() -> None:
    empty = replace(made(), outcomes=(), votes=(), weights=((1.0, 0),), growth=(), agreement=())
    assert plots(empty) == []
    assert render_figures(plots(empty)) == {}
