"""Lineage of runs: their fits, event files and rollouts."""

import json
import os
from pathlib import Path

import pytest

from guardreasoner.report.run_lineage import lineage_of_runs
from guardreasoner.workflow.manifest import manifest_path
from tests.support.output_files import predictions
from tests.support.report_runs import lay_out_chain, record_made, write_events


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    monkeypatch.chdir(tmp_path)
    return {f"run {name}": [path] for name, path in lay_out_chain().items()}


def set_created(path: str, time: str) -> None:
    """Set the time at which a model was made."""
    file = manifest_path(path)
    file.write_text(json.dumps({**json.loads(file.read_text()), "created": time}))


def set_start(folder: Path, seconds: int) -> Path:
    """Set the start time in the name of a folder's event file."""
    (file,) = folder.glob("events*")
    return file.rename(folder / f"events.out.tfevents.{seconds}.host.1.0").parent


def test_fits_have_their_event_folders_and_rollouts(chain: dict[str, list[str]]) -> None:
    run_lineage = lineage_of_runs(chain)
    assert not run_lineage.unknown
    assert {fit.path: fit.runs for fit in run_lineage.fits} == {
        "checkpoints/rsft": ("run rsft",),
        "checkpoints/hsdpo": ("run hsdpo",),
    }
    assert {
        fit.path: [str(folder.relative_to(Path.cwd())) for folder in fit.event_folders] for fit in run_lineage.fits
    } == {
        "checkpoints/rsft": ["logs/fit/rsft/version_0"],
        "checkpoints/hsdpo": ["logs/fit/hsdpo/version_0"],
    }
    assert {fit.path: fit.rollouts for fit in run_lineage.fits} == {
        "checkpoints/rsft": (),
        "checkpoints/hsdpo": ("logs/rollouts/rsft",),
    }


def test_parent_models_are_found_from_the_last_run(chain: dict[str, list[str]]) -> None:
    run_lineage = lineage_of_runs({"run hsdpo": chain["run hsdpo"]})
    assert {fit.path: fit.runs for fit in run_lineage.fits} == {
        "checkpoints/rsft": (),
        "checkpoints/hsdpo": ("run hsdpo",),
    }


def test_files_are_found_from_another_working_folder(
    chain: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absolute = {name: [os.path.abspath(path) for path in paths] for name, paths in chain.items()}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [len(fit.event_folders) for fit in lineage_of_runs(absolute).fits] == [1, 1]


def test_the_last_version_before_the_model_is_used(chain: dict[str, list[str]]) -> None:
    versions = Path("logs/fit/rsft")
    set_start(versions / "version_0", 1_000_000_000)
    set_start(write_events(versions / "version_1", {"train/loss": [1]}), 1_000_000_500)
    set_start(write_events(versions / "version_2", {"train/loss": [1]}), 1_000_002_000)
    set_created("checkpoints/rsft", "2001-09-09T02:00:00+00:00")  # 1,000,000,800 seconds since 1970
    (fit, _) = lineage_of_runs(chain).fits
    assert [folder.name for folder in fit.event_folders] == ["version_1"]
    (versions / "version_1" / "config.yaml").write_text("ckpt_path: last.ckpt\n")
    (fit, _) = lineage_of_runs(chain).fits
    assert [folder.name for folder in fit.event_folders] == ["version_0", "version_1"]


def test_changed_rollouts_are_reported(chain: dict[str, list[str]]) -> None:
    with open("logs/rollouts/rsft/rollouts.jsonl", "a") as file:
        file.write("\n")
    (_, fit) = lineage_of_runs(chain).fits
    assert fit.changed_rollouts == {"logs/rollouts/rsft": "changed by hand"}
    assert fit.rollouts == ("logs/rollouts/rsft",)
    Path("logs/rollouts/rsft").rename("gone")
    (_, fit) = lineage_of_runs(chain).fits
    assert (fit.changed_rollouts, fit.rollouts) == ({"logs/rollouts/rsft": "missing"}, ())


def test_predictions_without_a_manifest_are_unknown(tmp_path: Path) -> None:
    folder = predictions(tmp_path / "a", "HH UU")
    run_lineage = lineage_of_runs({"a": [str(folder)]})
    assert (run_lineage.trees, run_lineage.fits) == ((), ())
    assert run_lineage.unknown == (f"{folder}: no manifest found",)


def test_a_fit_without_a_logger_has_no_event_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("model", "logs/predictions/a"):
        Path(path).mkdir(parents=True)
        Path(path, "made").write_text(path)
    record_made("fit", "model", trainer={"logger": False})
    record_made("test", "logs/predictions/a", paths=["model"])
    (fit,) = lineage_of_runs({"a": ["logs/predictions/a"]}).fits
    assert fit.event_folders == ()


def test_a_model_trained_over_itself_does_not_recurse_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("model", "other", "logs/predictions/a"):
        Path(path).mkdir(parents=True)
        Path(path, "made").write_text(path)
    record_made("fit", "other", paths=["model"])
    record_made("fit", "model", paths=["other"])
    record_made("test", "logs/predictions/a", paths=["model"])
    assert [fit.path for fit in lineage_of_runs({"a": ["logs/predictions/a"]}).fits] == ["other", "model"]
