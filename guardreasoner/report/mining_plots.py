"""Plots of what mining found: the same ones for a page and for TensorBoard."""

from collections.abc import Sequence
from typing import Any

from guardreasoner.mining.findings import Findings
from guardreasoner.report.plotting import Plot, legend, name_rows

_ROWS = 20
_SIZES = 4


def plots(found: Findings) -> list[Plot]:
    """Return the plots for which there are numbers."""
    return [plot for make in (_outcomes, _votes, _weights, _growth, _agreement) for plot in make(found)]


def _outcomes(found: Findings) -> list[Plot]:
    if not found.outcomes:
        return []
    kinds = {"all right": "all_right", "mixed": "mixed", "all wrong": "all_wrong"}
    if any(row.no_vote for row in found.outcomes):
        kinds["no vote"] = "no_vote"
    tasks = list(dict.fromkeys(row.task for row in found.outcomes))
    rows = sorted(found.outcomes, key=lambda row: (tasks.index(row.task), -row.groups))
    bars = [
        (f"{row.source or '(none)'}: {row.task}", [getattr(row, field) for field in kinds.values()]) for row in rows
    ]
    return [_bars("outcomes", "Groups of outputs by source and task", bars, list(kinds))]


def _agreement(found: Findings) -> list[Plot]:
    if not found.agreement:
        return []
    rows = sorted(found.agreement, key=lambda row: row.share)
    bars = [(f"{row.first} and {row.second}", [row.share, row.kappa or 0.0]) for row in rows]
    title = "Models: share of records with the same majority, and Cohen's kappa"
    return [_bars("agreement", title, bars, ["share", "kappa"], stacked=False)]


def _votes(found: Findings) -> list[Plot]:
    largest = sorted(found.votes, key=lambda one: -sum(one.groups))[:_SIZES]
    if not largest:
        return []

    def draw(figure: Any, colours: Sequence[str]) -> None:
        axes = figure.subplots()
        width = 0.8 / len(largest)
        for number, one in enumerate(sorted(largest, key=lambda one: one.votes)):
            places = [right + (number - (len(largest) - 1) / 2) * width for right in range(one.votes + 1)]
            axes.bar(places, one.groups, width, color=colours[number], label=f"of {one.votes} votes")
        axes.set_xticks(range(max(one.votes for one in largest) + 1))
        axes.set_xlabel("right outputs")
        axes.set_ylabel("groups")
        legend(axes)

    return [Plot("votes", "Groups by the number of right outputs", 2.9, draw)]


def _weights(found: Findings) -> list[Plot]:
    if not any(count for _, count in found.weights):
        return []

    def draw(figure: Any, colours: Sequence[str]) -> None:
        axes = figure.subplots()
        weights = [weight for weight, _ in found.weights]
        step = (weights[-1] - weights[0]) / (len(weights) - 1) if len(weights) > 1 else 0.05
        axes.bar(weights, [count for _, count in found.weights], 0.9 * step, color=colours[0])
        axes.set_xlabel("weight of a pair")
        axes.set_ylabel("pairs")

    return [Plot("weights", "Pairs by weight", 2.9, draw)]


def _growth(found: Findings) -> list[Plot]:
    if len(found.growth) < 2:
        return []

    def draw(figure: Any, colours: Sequence[str]) -> None:
        axes = figure.subplots()
        ks, expected = zip(*found.growth, strict=True)
        axes.plot(ks, expected, color=colours[0], marker="o")
        axes.set_xticks(ks)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("outputs drawn of each model")
        axes.set_ylabel("hard records to expect")

    return [Plot("growth", "Hard records by the number of outputs", 2.9, draw)]


def _bars(
    name: str, title: str, bars: Sequence[tuple[str, Sequence[float]]], series: Sequence[str], stacked: bool = True
) -> Plot:
    """Return horizontal bars, the first ones where there are many, with a row that says how many are not shown."""
    shown = list(bars[:_ROWS])
    left_out = len(bars) - len(shown)

    def draw(figure: Any, colours: Sequence[str]) -> None:
        axes = figure.subplots()
        done, thick = [0.0] * len(shown), 0.7 if stacked else 0.7 / len(series)
        for number, label in enumerate(series):
            values = [of[number] for _, of in shown]
            places = [row + (0 if stacked else (number - (len(series) - 1) / 2) * thick) for row in range(len(shown))]
            axes.barh(places, values, thick, done if stacked else None, color=colours[number], label=label)
            done = [before + value for before, value in zip(done, values, strict=True)]
        name_rows(axes, [called for called, _ in shown])
        if left_out:
            axes.set_xlabel(f"{left_out} more are not shown")
        legend(axes)

    return Plot(name, title, 1.0 + 0.28 * len(shown) + (0.2 if left_out else 0), draw)
