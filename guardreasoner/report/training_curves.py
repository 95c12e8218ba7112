"""Training curves read from TensorBoard event files, as plots and as a table. Does not import torch."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import InputError
from guardreasoner.report.plot import Plot, add_legend
from guardreasoner.report.table import Cell, Table

_MAX_POINTS = 300
"""Points drawn per curve."""

_MIN_SMOOTHED = 20
"""Curves with fewer values are not smoothed."""

_SPANS = 20
"""The smoothing window is about 1 / 20 of the curve."""

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
    "gradient": ("Gradient norm", {"train/grad_norm": "norm"}),
}
"""By plot name: its title, and the label of each TensorBoard tag that it shows."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The values logged under one tag.

    Args:
        steps: (N,) optimizer steps.
        values: (N,) finite values.
        left_out: Number of values left out because they are NaN or infinite.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    left_out: int


Curves = Mapping[str, Curve]
"""Curves by TensorBoard tag."""


def read_curves(folders: Sequence[Path]) -> dict[str, Curve]:
    """Read the scalars of one training run.

    Args:
        folders: Folders of event files, oldest first. A resumed run replaces earlier values from its first step on.

    Raises:
        InputError: A file cannot be read.
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


def curves_by_panel(curves: Curves) -> dict[str, dict[str, Curve]]:
    """Return the curves to draw, by plot name and by their label in the plot."""
    panels = {}
    for panel, (_, tags) in _PANELS.items():
        drawn = {label: curves[tag] for tag, label in tags.items() if tag in curves and len(curves[tag].steps)}
        if {"total", "SFT"} <= drawn.keys() and np.array_equal(drawn["total"].values, drawn["SFT"].values):
            del drawn["total"]  # R-SFT logs its loss under both tags
        if drawn:
            panels[panel] = drawn
    return panels


def curve_plots(curves: Curves) -> list[Plot]:
    """Return one plot for each panel that has curves."""
    return [_plot(panel, drawn) for panel, drawn in curves_by_panel(curves).items()]


def curve_table(curves: Curves, title: str) -> Table:
    """Return a table with first, last, lowest and highest value of each curve."""
    rows = []
    for panel, drawn in curves_by_panel(curves).items():
        for label, curve in drawn.items():
            values = curve.values
            numbers = (values[0], values[-1], _line(panel, values)[-1], values.min(), values.max())
            names = [Cell(_PANELS[panel][0]), Cell(label)]
            counts = [Cell(f"{len(values):,}"), Cell(f"{curve.steps[-1]:,}")]
            rows.append([*names, *counts, *(Cell(f"{value:.4g}") for value in numbers)])
    headings = ("plot", "curve", "values", "last\nstep", "first", "last", "last\nsmoothed", "lowest", "highest")
    return Table(title, headings, rows, text_columns=2)


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (N,) bias-corrected exponential moving average; short curves are returned unchanged."""
    if len(values) < _MIN_SMOOTHED:
        return values
    decay = float(np.exp(-_SPANS / len(values)))
    mean, weight, smoothed = 0.0, 0.0, np.empty(len(values))
    for index, value in enumerate(values):
        mean, weight = decay * mean + (1 - decay) * value, decay * weight + (1 - decay)
        smoothed[index] = mean / weight
    return smoothed


def thin(steps: NDArray[np.int64], values: NDArray[np.float64], max_points: int = _MAX_POINTS) -> NDArray[np.int_]:
    """Return the indices of the points to draw: the ends, and the minimum and maximum of each stretch of the curve.

    Args:
        steps: (N,) optimizer steps.
        values: (N,) values.
        max_points: Largest number of indices; even and at least 4.
    """
    if len(steps) <= max_points:
        return np.arange(len(steps))
    indices = {0, len(steps) - 1}
    for part in np.array_split(np.arange(1, len(steps) - 1), max_points // 2 - 1):
        indices |= {int(part[values[part].argmin()]), int(part[values[part].argmax()])}
    return np.array(sorted(indices))


def _plot(panel: str, drawn: Mapping[str, Curve]) -> Plot:
    def draw(figure: Any, colours: Sequence[str]) -> None:
        axes = figure.subplots()
        for colour, (label, curve) in zip(colours, drawn.items(), strict=False):
            line = _line(panel, curve.values)
            style: dict[str, Any] = {"color": colour, "ms": 4}
            if len(curve.values) < _MIN_SMOOTHED:
                style["marker"] = "o"
            if line is not curve.values:
                points = thin(curve.steps, curve.values)
                axes.plot(curve.steps[points], curve.values[points], lw=0.8, alpha=0.4, **style)
            points = thin(curve.steps, line)
            axes.plot(curve.steps[points], line[points], lw=1.6, label=label, **style)
        axes.set_xlabel("optimizer step")
        if panel == "lr":
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=False)
        if len(drawn) > 1:
            add_legend(axes)

    return Plot(panel, _PANELS[panel][0], 2.6, draw)


def _line(panel: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values if panel == "lr" else smooth(values)  # a learning-rate schedule has no noise


def _read(folder: Path) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    limits = {"scalars": 0, "tensors": 1, "images": 1, "audio": 1, "histograms": 1, "compressedHistograms": 1}
    events = EventAccumulator(str(folder), size_guidance=limits)
    try:
        events.Reload()
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None
    scalars = {}
    for tag in events.Tags()["scalars"]:
        rows = events.Scalars(tag)
        steps = np.array([row.step for row in rows], dtype=np.int64)
        scalars[tag] = steps, np.array([row.value for row in rows], dtype=np.float64)
    return scalars
