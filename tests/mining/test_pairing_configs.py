"""The overlays under ``configs/pairing/``: the presets by their names, and who mines what."""

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
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with the project's configs, where nothing has been made."""
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")


@pytest.mark.parametrize("file", [file for file in PAIRINGS if file != ENSEMBLE])
def test_a_pairing_is_the_preset_of_its_name(file: str) -> None:
    parser = GuardCLI("fit", ["--config", "configs/hsdpo.yaml", "--config", file], parse_only=True)
    found = parser.config.data.init_args.pairing
    values = getattr(found, "init_args", found)
    assert Pairing(**vars(values)) == PRESETS[Path(file).stem]
    written = yaml.safe_load((ROOT / file).read_text())["data"]["init_args"]["pairing"]
    assert set(written) == set(asdict(Pairing())) - {"seed"}  # no option is left to a default


def test_every_preset_has_a_file() -> None:
    assert {Path(file).stem for file in PAIRINGS if file != ENSEMBLE} == set(PRESETS)


def test_members_of_the_ensemble_mine_what_they_saw() -> None:
    laid = resolve([*FIT, "--config", ENSEMBLE]).config
    sources_by_model = laid["data"]["init_args"]["pairing"]["sources_by_model"]
    saw = {}
    for name, stage in Pipeline.load(Path("configs/pipeline.yaml")).stages.items():
        if name.startswith("member-"):
            assert stage.output is not None
            parts = stage.config["data"]["init_args"]["source"]["init_args"]["parts"]
            saw[stage.output.name] = [f"embedded/{part}" for part in parts]
    assert saw == sources_by_model
    sources = {record.source for record in Embedded(train=24, validation=6, test=6).records("train")}
    assert {source for named in sources_by_model.values() for source in named} == sources


def test_who_mines_is_one_value_in_the_parser_and_the_stage_graph() -> None:
    Path("other.yaml").write_text("data: {init_args: {pairing: {sources_by_model: {rsft: [embedded/home]}}}}")
    for more in (
        ["--config", ENSEMBLE, "--config", "other.yaml"],
        ["--config", ENSEMBLE, "--config", "configs/pairing/paper.yaml"],
        ["--config", ENSEMBLE, "--data.pairing.sources_by_model", "{rsft: []}"],
    ):
        parsed = GuardCLI("fit", [*FIT[1:], *more], parse_only=True).config.data.init_args.pairing
        merged = resolve([*FIT, *more]).config["data"]["init_args"]["pairing"]
        assert parsed.sources_by_model == merged["sources_by_model"], more
