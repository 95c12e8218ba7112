"""Training curves: reading, joining, thinning, smoothing, and counts of the values that are not drawn."""

from pathlib import Path

import numpy as np
import pytest

from guardreasoner.report.plot import draw_figures
from guardreasoner.report.training_curves import curve_plots, curve_table, curves_by_panel, read_curves, smooth, thin
from tests.support.report_runs import write_events


def test_values_are_read_by_step(tmp_path: Path) -> None:
    curves = read_curves([write_events(tmp_path, {"train/loss": [3, 2, 1], "epoch": [0, 0, 0]}, start=5)])
    assert curves["train/loss"].steps.tolist() == [5, 6, 7]
    assert curves["train/loss"].values.tolist() == [3, 2, 1]
    assert curves["train/loss"].left_out == 0


def test_nan_and_infinite_values_are_left_out_and_counted(tmp_path: Path) -> None:
    values = [1.0, float("nan"), float("inf"), 2.0]
    (curve,) = read_curves([write_events(tmp_path, {"train/loss": values})]).values()
    assert (curve.steps.tolist(), curve.values.tolist(), curve.left_out) == ([0, 3], [1, 2], 2)


def test_a_resumed_fit_replaces_earlier_values_from_its_first_step(tmp_path: Path) -> None:
    first = write_events(tmp_path / "0", {"train/loss": [9, 8, 7, 6]})
    second = write_events(tmp_path / "1", {"train/loss": [70, 60]}, start=2)
    (curve,) = read_curves([first, second]).values()
    assert (curve.steps.tolist(), curve.values.tolist()) == ([0, 1, 2, 3], [9, 8, 70, 60])


def test_a_truncated_file_is_read_up_to_its_last_complete_event(tmp_path: Path) -> None:
    (file,) = write_events(tmp_path, {"train/loss": [3, 2, 1]}).iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    assert read_curves([tmp_path])["train/loss"].values.tolist() == [3, 2]


def test_a_file_that_is_not_an_event_file_has_no_curves(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1.x").write_bytes(b"no events at all, but text" * 9)
    assert read_curves([tmp_path]) == {}


def test_panels_show_the_logged_tags(tmp_path: Path) -> None:
    falling, rising = [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]
    rsft = read_curves(
        [write_events(tmp_path / "r", {"train/loss": falling, "train/sft_loss": falling, "val/loss": [2]})]
    )
    assert {panel: list(drawn) for panel, drawn in curves_by_panel(rsft).items()} == {"loss": ["SFT", "held out"]}
    logged = {
        **{"train/loss": rising, "train/sft_loss": falling, "train/margin": rising},
        "val/hard_sample_accuracy": rising,
    }
    hsdpo = read_curves([write_events(tmp_path / "h", {**logged, "train/weight": rising})])
    panels = {panel: list(drawn) for panel, drawn in curves_by_panel(hsdpo).items()}
    assert panels == {"loss": ["total", "SFT"], "margin": ["training"], "hard": ["held out"]}


def test_the_table_shows_ends_and_extremes_of_each_curve(tmp_path: Path) -> None:
    curves = read_curves([write_events(tmp_path, {"train/margin": [0.5, -1.25, 4.0]})])
    (row,) = curve_table(curves, "t").rows
    assert [cell.text for cell in row] == ["Margin, nats", "training", "3", "2", "0.5", "4", "4", "-1.25", "4"]


def test_smoothing_keeps_constants_and_reduces_noise() -> None:
    assert smooth(np.full(200, 7.0)) == pytest.approx(np.full(200, 7.0))
    noisy = np.tile([0.0, 1.0], 200)
    smoothed = smooth(noisy)
    assert smoothed[0] == 0
    assert np.abs(smoothed[100:] - 0.5).max() < 0.05
    short = np.array([1.0, 5.0])
    assert smooth(short) is short


def test_thinning_keeps_ends_and_extremes() -> None:
    values = np.sin(np.arange(100_000) / 900)
    values[54_321], values[12_345] = 30, -30
    indices = thin(np.arange(100_000), values)
    assert len(indices) <= 300
    assert {0, 12_345, 54_321, 99_999} <= set(indices.tolist())
    assert (np.diff(indices) > 0).all()
    assert thin(np.arange(5), values[:5]).tolist() == [0, 1, 2, 3, 4]


def test_noisy_curves_are_drawn_raw_and_smooth(tmp_path: Path) -> None:
    noisy = [float(step % 2) for step in range(1000)]
    curves = read_curves([write_events(tmp_path, {"train/loss": noisy, "train/lr": noisy})])
    loss, lr = draw_figures(curve_plots(curves)).values()
    raw, line = loss.axes[0].get_lines()
    assert (max(raw.get_ydata()), len(raw.get_xdata()) <= 300) == (1, True)
    assert max(line.get_ydata()[10:]) < 0.7
    assert len(lr.axes[0].get_lines()) == 1
