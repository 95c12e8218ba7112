"""Curves of training from TensorBoard's event files, thinned and smoothed, as plots and as a table; takes no torch."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import InputError
from guardreasoner.report.plotting import Plot, legend
from guardreasoner.report.tables import Cell, Table

_MOST = 300
"""Points that are drawn of a curve."""

_FEW = 20
"""Values below which a curve is not smoothed."""

_SPAN = 20
"""A smoothed value leans on about this part of the curve before it."""

_HARD = "hard_sample_accuracy"

_PANELS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "loss": (
        "Loss",
        {
            "train/loss": "total",
            "train/preference_loss": "preference",
            "train/sft_loss": "SFT",
            "val/loss": "held out",
        },
    ),
    "margin": ("Margin, nats", {"train/margin": "training", "val/margin": "held out"}),
    "rewards": ("Rewards", {"train/reward_chosen": "chosen", "train/reward_rejected": "rejected"}),
    "preferred": ("Share of pairs with a margin above 0", {"train/preferred": "training", "val/preferred": "held out"}),
    "hard": (
        "Hard-sample accuracy",
        {f"train/{_HARD}": "training", f"val/{_HARD}": "held out", f"test/{_HARD}": "test"},
    ),
    "lr": ("Learning rate", {"train/lr": "learning rate"}),
    "gradient": ("Norm of the gradient", {"train/grad_norm": "norm"}),
}


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve.

    Args:
        steps: (N,) optimizer steps.
        values: (N,) finite.
        left_out: how many values are no finite numbers, and so are not in it.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    left_out: int


Curves = Mapping[str, Curve]
"""By tag."""


def read_curves(folders: Sequence[Path]) -> dict[str, Curve]:
    """Read the scalars of one run.

    Args:
        folders: of event files, oldest first; what a later one logged at a step takes the place of what an earlier one
            logged there or after.

    Raises:
        InputError: a file cannot be read.
    """
    parts: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
    for folder in folders:
        for tag, (steps, values) in _read(folder).items():
            if tag in parts:
                earlier = parts[tag][0] < steps[0]
                steps = np.concatenate([parts[tag][0][earlier], steps])
                values = np.concatenate([parts[tag][1][earlier], values])
            parts[tag] = steps, values
    curves = {}
    for tag, (steps, values) in parts.items():
        finite = np.isfinite(values)
        curves[tag] = Curve(steps[finite], values[finite], int((~finite).sum()))
    return curves


def shown_curves(curves: Curves) -> dict[str, dict[str, Curve]]:
    """Return, by panel, the curves that are drawn, by what they are called there."""
    panels = {}
    for panel, (_, tags) in _PANELS.items():
        drawn = {called: curves[tag] for tag, called in tags.items() if tag in curves and len(curves[tag].steps)}
        if {"total", "SFT"} <= drawn.keys() and np.array_equal(drawn["total"].values, drawn["SFT"].values):
            del drawn["total"]  # of R-SFT they are one curve
        if drawn:
            panels[panel] = drawn
    return panels


def curve_plots(curves: Curves) -> list[Plot]:
    """Return a plot for each panel that there are curves for."""
    return [_plot(panel, drawn) for panel, drawn in shown_curves(curves).items()]


def curve_table(curves: Curves, title: str) -> Table:
    """Return where each curve that is drawn begins, ends and turns."""
    rows = []
    for panel, drawn in shown_curves(curves).items():
        for called, one in drawn.items():
            values = one.values
            figures = (values[0], values[-1], _line(panel, values)[-1], values.min(), values.max())
            words = [Cell(_PANELS[panel][0]), Cell(called)]
            counts = [Cell(f"{len(values):,}"), Cell(f"{one.steps[-1]:,}")]
            rows.append([*words, *counts, *(Cell(f"{value:.4g}") for value in figures)])
    headings = ("plot", "curve", "values", "last\nstep", "first", "last", "last\nsmoothed", "lowest", "highest")
    return Table(title, headings, rows, words=2)


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N,) the mean of each value and those before it, which weigh less the longer ago they were."""
    if len(values) < _FEW:
        return values
    keep = float(np.exp(-_SPAN / len(values)))
    mean, weight, out = 0.0, 0.0, np.empty(len(values))
    for place, value in enumerate(values):
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        out[place] = mean / weight
    return out


def thinned(steps: NDArray[np.int64], values: NDArray[np.float64], most: int = _MOST) -> NDArray[np.int_]:
    """Return the places of at most ``most`` points that look the same: of each stretch its lowest and its highest.

    Args:
        steps: (N,).
        values: (N,).
        most: an even number, at least 4.
    """
    if len(steps) <= most:
        return np.arange(len(steps))
    places = {0, len(steps) - 1}
    for part in np.array_split(np.arange(1, len(steps) - 1), most // 2 - 1):
        places |= {int(part[values[part].argmin()]), int(part[values[part].argmax()])}
    return np.array(sorted(places))


def _plot(panel: str, drawn: Mapping[str, Curve]) -> Plot:
    def draw(figure: Any, colours: Sequence[str]) -> None:
        axes = figure.subplots()
        for colour, (called, one) in zip(colours, drawn.items(), strict=False):
            line = _line(panel, one.values)
            few = len(one.values) < _FEW
            for values, faint in ((one.values, True), (line, False)):
                if faint and line is one.values:
                    continue  # there is nothing but the values themselves
                at = thinned(one.steps, values)
                width, alpha, label = (0.8, 0.4, None) if faint else (1.6, 1.0, called)
                marker = "o" if few else None
                axes.plot(
                    one.steps[at], values[at], color=colour, lw=width, alpha=alpha, label=label, marker=marker, ms=4
                )
        axes.set_xlabel("optimizer step")
        if panel == "lr":
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=False)
        if len(drawn) > 1:
            legend(axes)

    return Plot(panel, _PANELS[panel][0], 2.6, draw)


def _line(panel: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values if panel == "lr" else smoothed(values)  # a schedule has no noise


def _read(folder: Path) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    keep = {"scalars": 0, "tensors": 1, "images": 1, "audio": 1, "histograms": 1, "compressedHistograms": 1}
    events = EventAccumulator(str(folder), size_guidance=keep)
    try:
        events.Reload()
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None
    found = {}
    for tag in events.Tags()["scalars"]:
        rows = events.Scalars(tag)
        steps = np.array([row.step for row in rows], dtype=np.int64)
        found[tag] = steps, np.array([row.value for row in rows], dtype=np.float64)
    return found
