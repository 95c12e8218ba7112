"""Curves of training: what is read, joined, thinned, smoothed, and what is said about what is not drawn."""

from pathlib import Path

import numpy as np
import pytest

from guardreasoner.report.curves import curve_plots, curve_table, read_curves, shown_curves, smoothed, thinned
from guardreasoner.report.plotting import render_figures
from tests.support.report_runs import write_events


def test_values_are_read_by_step(tmp_path: Path) -> None:
    curves = read_curves([write_events(tmp_path, {"train/loss": [3, 2, 1], "epoch": [0, 0, 0]}, start=5)])
    assert curves["train/loss"].steps.tolist() == [5, 6, 7]
    assert curves["train/loss"].values.tolist() == [3, 2, 1]
    assert curves["train/loss"].left_out == 0


def test_what_is_no_number_is_left_out_and_counted(tmp_path: Path) -> None:
    values = [1.0, float("nan"), float("inf"), 2.0]
    (curve,) = read_curves([write_events(tmp_path, {"train/loss": values})]).values()
    assert (curve.steps.tolist(), curve.values.tolist(), curve.left_out) == ([0, 3], [1, 2], 2)


def test_a_fit_that_went_on_takes_over_at_its_first_step(tmp_path: Path) -> None:
    first = write_events(tmp_path / "0", {"train/loss": [9, 8, 7, 6]})
    second = write_events(tmp_path / "1", {"train/loss": [70, 60]}, start=2)
    (curve,) = read_curves([first, second]).values()
    assert (curve.steps.tolist(), curve.values.tolist()) == ([0, 1, 2, 3], [9, 8, 70, 60])


def test_a_file_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    (file,) = write_events(tmp_path, {"train/loss": [3, 2, 1]}).iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    assert read_curves([tmp_path])["train/loss"].values.tolist() == [3, 2]


def test_a_file_of_something_else_holds_no_curves(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1.x").write_bytes(b"no events at all, but text" * 9)
    assert read_curves([tmp_path]) == {}


def test_panels_hold_what_there_is(tmp_path: Path) -> None:
    falls, rises = [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]
    rsft = read_curves([write_events(tmp_path / "r", {"train/loss": falls, "train/sft_loss": falls, "val/loss": [2]})])
    assert {panel: list(drawn) for panel, drawn in shown_curves(rsft).items()} == {"loss": ["SFT", "held out"]}
    logged = {"train/loss": rises, "train/sft_loss": falls, "train/margin": rises, "val/hard_sample_accuracy": rises}
    hsdpo = read_curves([write_events(tmp_path / "h", {**logged, "train/weight": rises})])
    panels = {panel: list(drawn) for panel, drawn in shown_curves(hsdpo).items()}
    assert panels == {"loss": ["total", "SFT"], "margin": ["training"], "hard": ["held out"]}


def test_the_table_says_where_curves_begin_and_end(tmp_path: Path) -> None:
    curves = read_curves([write_events(tmp_path, {"train/margin": [0.5, -1.25, 4.0]})])
    (row,) = curve_table(curves, "t").rows
    assert [cell.text for cell in row] == ["Margin, nats", "training", "3", "2", "0.5", "4", "4", "-1.25", "4"]


def test_smoothing_keeps_what_is_even_and_calms_what_is_not() -> None:
    assert smoothed(np.full(200, 7.0)) == pytest.approx(np.full(200, 7.0))
    noisy = np.tile([0.0, 1.0], 200)
    calm = smoothed(noisy)
    assert calm[0] == 0
    assert np.abs(calm[100:] - 0.5).max() < 0.05
    few = np.array([1.0, 5.0])
    assert smoothed(few) is few


def test_thinning_keeps_the_ends_and_the_peaks() -> None:
    values = np.sin(np.arange(100_000) / 900)
    values[54_321], values[12_345] = 30, -30
    at = thinned(np.arange(100_000), values)
    assert len(at) <= 300
    assert {0, 12_345, 54_321, 99_999} <= set(at.tolist())
    assert (np.diff(at) > 0).all()
    assert thinned(np.arange(5), values[:5]).tolist() == [0, 1, 2, 3, 4]


def test_what_is_drawn_is_smoothed_and_raw(tmp_path: Path) -> None:
    noisy = [float(step % 2) for step in range(1000)]
    curves = read_curves([write_events(tmp_path, {"train/loss": noisy, "train/lr": noisy})])
    loss, lr = render_figures(curve_plots(curves)).values()
    raw, line = loss.axes[0].get_lines()
    assert (max(raw.get_ydata()), len(raw.get_xdata()) <= 300) == (1, True)
    assert max(line.get_ydata()[10:]) < 0.7
    assert len(lr.axes[0].get_lines()) == 1
