"""Plots of mining results for the mining page, the comparison page and TensorBoard."""

from collections.abc import Sequence
from typing import Any

from guardreasoner.mining.findings import Findings
from guardreasoner.report.plot import Plot, add_legend, label_rows

_MAX_ROWS = 20
_MAX_VOTE_COUNTS = 4


def mining_plots(findings: Findings) -> list[Plot]:
    """Return the plots for which the findings have numbers."""
    return [plot for make in (_outcomes, _votes, _weights, _growth, _agreement) for plot in make(findings)]


def _outcomes(findings: Findings) -> list[Plot]:
    if not findings.outcomes:
        return []
    fields = {"all right": "all_right", "mixed": "mixed", "all wrong": "all_wrong"}
    if any(row.no_vote for row in findings.outcomes):
        fields["no vote"] = "no_vote"
    tasks = list(dict.fromkeys(row.task for row in findings.outcomes))
    rows = sorted(findings.outcomes, key=lambda row: (tasks.index(row.task), -row.groups))
    bars = [
        (f"{row.source or '(none)'}: {row.task}", [getattr(row, field) for field in fields.values()]) for row in rows
    ]
    return [_bar_plot("outcomes", "Groups of outputs by source and task", bars, list(fields))]


def _agreement(findings: Findings) -> list[Plot]:
    if not findings.agreement:
        return []
    rows = sorted(findings.agreement, key=lambda row: row.share)
    bars = [(f"{row.first} and {row.second}", [row.share, row.kappa or 0.0]) for row in rows]
    title = "Models: share of records with the same majority, and Cohen's kappa"
    return [_bar_plot("agreement", title, bars, ["share", "kappa"], stacked=False)]


def _votes(findings: Findings) -> list[Plot]:
    most_common = sorted(findings.votes, key=lambda votes: -sum(votes.groups))[:_MAX_VOTE_COUNTS]
    if not most_common:
        return []

    def draw(figure: Any, colours: Sequence[str]) -> None:
        axes = figure.subplots()
        width = 0.8 / len(most_common)
        for number, votes in enumerate(sorted(most_common, key=lambda votes: votes.votes)):
            shift = (number - (len(most_common) - 1) / 2) * width
            positions = [right + shift for right in range(votes.votes + 1)]
            axes.bar(positions, votes.groups, width, color=colours[number], label=f"of {votes.votes} votes")
        axes.set_xticks(range(max(votes.votes for votes in most_common) + 1))
        axes.set_xlabel("right outputs")
        axes.set_ylabel("groups")
        add_legend(axes)

    return [Plot("votes", "Groups by the number of right outputs", 2.9, draw)]


def _weights(findings: Findings) -> list[Plot]:
    if not any(count for _, count in findings.weights):
        return []

    def draw(figure: Any, colours: Sequence[str]) -> None:
        axes = figure.subplots()
        weights = [weight for weight, _ in findings.weights]
        step = (weights[-1] - weights[0]) / (len(weights) - 1) if len(weights) > 1 else 0.05
        axes.bar(weights, [count for _, count in findings.weights], 0.9 * step, color=colours[0])
        axes.set_xlabel("weight of a pair")
        axes.set_ylabel("pairs")

    return [Plot("weights", "Pairs by weight", 2.9, draw)]


def _growth(findings: Findings) -> list[Plot]:
    if len(findings.growth) < 2:
        return []

    def draw(figure: Any, colours: Sequence[str]) -> None:
        axes = figure.subplots()
        ks, expected = zip(*findings.growth, strict=True)
        axes.plot(ks, expected, color=colours[0], marker="o")
        axes.set_xticks(ks)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("outputs per model")
        axes.set_ylabel("expected hard records")

    return [Plot("growth", "Hard records by the number of outputs", 2.9, draw)]


def _bar_plot(
    name: str, title: str, bars: Sequence[tuple[str, Sequence[float]]], series: Sequence[str], stacked: bool = True
) -> Plot:
    """Return a plot of horizontal bars; only the first rows are drawn, and a label counts the others."""
    shown = list(bars[:_MAX_ROWS])
    hidden = len(bars) - len(shown)

    def draw(figure: Any, colours: Sequence[str]) -> None:
        axes = figure.subplots()
        offsets, thickness = [0.0] * len(shown), 0.7 if stacked else 0.7 / len(series)
        for number, label in enumerate(series):
            values = [row_values[number] for _, row_values in shown]
            shift = 0 if stacked else (number - (len(series) - 1) / 2) * thickness
            positions = [row + shift for row in range(len(shown))]
            left = offsets if stacked else None
            axes.barh(positions, values, thickness, left, color=colours[number], label=label)
            offsets = [offset + value for offset, value in zip(offsets, values, strict=True)]
        label_rows(axes, [row_name for row_name, _ in shown])
        if hidden:
            axes.set_xlabel(f"{hidden} more are not shown")
        add_legend(axes)

    return Plot(name, title, 1.0 + 0.28 * len(shown) + (0.2 if hidden else 0), draw)
