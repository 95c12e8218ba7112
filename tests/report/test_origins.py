"""What runs came from: which fits, which of their event files, which rollouts."""

import json
import os
from pathlib import Path

import pytest

from guardreasoner.report.origins import origins
from guardreasoner.workflow.manifest import manifest_path
from tests.cli.commands.test_score import predictions
from tests.support.report_runs import lay_out_chain, record_made, write_events


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    monkeypatch.chdir(tmp_path)
    return {f"run {name}": [path] for name, path in lay_out_chain().items()}


def created(path: str, when: str) -> None:
    """Set when a model was made; its event files were begun in the meantime."""
    file = manifest_path(path)
    file.write_text(json.dumps({**json.loads(file.read_text()), "created": when}))


def begun(folder: Path, seconds: int) -> Path:
    """Give the event file of a folder a name that says when it was begun."""
    (file,) = folder.glob("events*")
    return file.rename(folder / f"events.out.tfevents.{seconds}.host.1.0").parent


def test_the_fits_of_a_chain_with_their_curves_and_rollouts(chain: dict[str, list[str]]) -> None:
    found = origins(chain)
    assert not found.unknown
    assert {fit.path: fit.runs for fit in found.fits} == {
        "checkpoints/rsft": ("run rsft",),
        "checkpoints/hsdpo": ("run hsdpo",),
    }
    assert {fit.path: [str(one.relative_to(Path.cwd())) for one in fit.curves] for fit in found.fits} == {
        "checkpoints/rsft": ["logs/fit/rsft/version_0"],
        "checkpoints/hsdpo": ["logs/fit/hsdpo/version_0"],
    }
    assert {fit.path: fit.rollouts for fit in found.fits} == {
        "checkpoints/rsft": (),
        "checkpoints/hsdpo": ("logs/rollouts/rsft",),
    }


def test_the_model_below_is_found_from_the_last_run_alone(chain: dict[str, list[str]]) -> None:
    found = origins({"run hsdpo": chain["run hsdpo"]})
    assert {fit.path: fit.runs for fit in found.fits} == {
        "checkpoints/rsft": (),
        "checkpoints/hsdpo": ("run hsdpo",),
    }


def test_from_elsewhere_the_same_files_are_found(
    chain: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {name: [os.path.abspath(path) for path in paths] for name, paths in chain.items()}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [len(fit.curves) for fit in origins(there).fits] == [1, 1]


def test_of_several_versions_the_last_before_the_model(chain: dict[str, list[str]]) -> None:
    folder = Path("logs/fit/rsft")
    begun(folder / "version_0", 1_000_000_000)
    begun(write_events(folder / "version_1", {"train/loss": [1]}), 1_000_000_500)
    begun(write_events(folder / "version_2", {"train/loss": [1]}), 1_000_002_000)
    created("checkpoints/rsft", "2001-09-09T02:00:00+00:00")  # 1,000,000,800 seconds since 1970
    (fit, _) = origins(chain).fits
    assert [one.name for one in fit.curves] == ["version_1"]
    (folder / "version_1" / "config.yaml").write_text("ckpt_path: last.ckpt\n")
    (fit, _) = origins(chain).fits
    assert [one.name for one in fit.curves] == ["version_0", "version_1"]


def test_rollouts_that_changed_are_said(chain: dict[str, list[str]]) -> None:
    with open("logs/rollouts/rsft/rollouts.jsonl", "a") as file:
        file.write("\n")
    (_, fit) = origins(chain).fits
    assert fit.changed == {"logs/rollouts/rsft": "changed by hand"}
    assert fit.rollouts == ("logs/rollouts/rsft",)
    Path("logs/rollouts/rsft").rename("gone")
    (_, fit) = origins(chain).fits
    assert (fit.changed, fit.rollouts) == ({"logs/rollouts/rsft": "missing"}, ())


def test_predictions_of_others_say_nothing(tmp_path: Path) -> None:
    folder = predictions(tmp_path / "a", "HH UU")
    found = origins({"a": [str(folder)]})
    assert (found.trees, found.fits) == ((), ())
    assert found.unknown == (f"{folder}: no manifest found",)


def test_a_fit_without_a_logger_has_no_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("model", "logs/predictions/a"):
        Path(path).mkdir(parents=True)
        Path(path, "made").write_text(path)
    record_made("fit", "model", trainer={"logger": False})
    record_made("test", "logs/predictions/a", paths=["model"])
    (fit,) = origins({"a": ["logs/predictions/a"]}).fits
    assert fit.curves == ()


def test_a_model_that_was_trained_over_itself_ends_the_way_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("model", "other", "logs/predictions/a"):
        Path(path).mkdir(parents=True)
        Path(path, "made").write_text(path)
    record_made("fit", "other", paths=["model"])
    record_made("fit", "model", paths=["other"])
    record_made("test", "logs/predictions/a", paths=["model"])
    assert [fit.path for fit in origins({"a": ["logs/predictions/a"]}).fits] == ["other", "model"]
