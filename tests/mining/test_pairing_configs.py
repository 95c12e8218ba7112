"""Overlays in ``configs/pairing/`` equal the presets, and the ensemble mines each member on its training sources."""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from guardreasoner.cli.lightning_cli import GuardCLI
from guardreasoner.mining import PRESETS, Pairing
from guardreasoner.sources.embedded import Embedded
from guardreasoner.workflow.config import resolve
from guardreasoner.workflow.pipeline import Pipeline

ROOT = Path(__file__).parents[2]
PAIRINGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs" / "pairing").glob("*.yaml"))
ENSEMBLE = "configs/pairing/ensemble.yaml"
FIT = ["fit", "--config", "configs/hsdpo.yaml"]


@pytest.fixture(autouse=True)
def project_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with the configs of the project and no results."""
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")


@pytest.mark.parametrize("file", [file for file in PAIRINGS if file != ENSEMBLE])
def test_an_overlay_equals_the_preset_of_its_name(file: str) -> None:
    parser = GuardCLI("fit", ["--config", "configs/hsdpo.yaml", "--config", file], parse_only=True)
    pairing = parser.config.data.init_args.pairing
    values = getattr(pairing, "init_args", pairing)
    assert Pairing(**vars(values)) == PRESETS[Path(file).stem]
    written = yaml.safe_load((ROOT / file).read_text())["data"]["init_args"]["pairing"]
    assert set(written) == set(asdict(Pairing())) - {"seed"}  # no option is left to a default


def test_every_preset_has_an_overlay() -> None:
    assert {Path(file).stem for file in PAIRINGS if file != ENSEMBLE} == set(PRESETS)


def test_ensemble_members_are_mined_on_their_training_sources() -> None:
    config = resolve([*FIT, "--config", ENSEMBLE]).config
    sources_by_model = config["data"]["init_args"]["pairing"]["sources_by_model"]
    trained_on = {}
    for name, stage in Pipeline.load(Path("configs/pipeline.yaml")).stages.items():
        if name.startswith("member-"):
            assert stage.output is not None
            parts = stage.config["data"]["init_args"]["source"]["init_args"]["parts"]
            trained_on[stage.output.name] = [f"embedded/{part}" for part in parts]
    assert trained_on == sources_by_model
    sources = {record.source for record in Embedded(train=24, validation=6, test=6).records("train")}
    assert {source for model_sources in sources_by_model.values() for source in model_sources} == sources


def test_sources_by_model_is_the_same_in_the_parser_and_the_stage_graph() -> None:
    Path("other.yaml").write_text("data: {init_args: {pairing: {sources_by_model: {rsft: [embedded/home]}}}}")
    for overrides in (
        ["--config", ENSEMBLE, "--config", "other.yaml"],
        ["--config", ENSEMBLE, "--config", "configs/pairing/paper.yaml"],
        ["--config", ENSEMBLE, "--data.pairing.sources_by_model", "{rsft: []}"],
    ):
        parsed = GuardCLI("fit", [*FIT[1:], *overrides], parse_only=True).config.data.init_args.pairing
        merged = resolve([*FIT, *overrides]).config["data"]["init_args"]["pairing"]
        assert parsed.sources_by_model == merged["sources_by_model"], overrides
