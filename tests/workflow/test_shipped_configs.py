"""The shipped pipelines and pairing overlays: their stages, dependencies and options."""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from guardreasoner.cli.lightning_cli import GuardCLI
from guardreasoner.mining import PRESETS, Pairing
from guardreasoner.sources.embedded import Embedded
from guardreasoner.sources.guardreasoner_train import PARTS
from guardreasoner.workflow.config import resolve
from guardreasoner.workflow.pipeline import Pipeline

ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").glob("*/*.yaml"))
OVERLAYS = [file for file in FILES if "recipe" in yaml.safe_load((ROOT / file).read_text())]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with the project's configs and no outputs."""
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")


def test_the_dependencies_of_the_pipeline() -> None:
    pipeline = Pipeline.load(Path("configs/pipeline.yaml"))
    needs = {name: set(stages) for name, stages in pipeline.needs.items()}
    assert needs["base"] == set()
    assert needs["rsft-1epoch"] == {"base"}
    assert needs["rsft"] == {"rsft-1epoch"}
    assert needs["rollouts"] == {"rsft"}
    assert needs["hsdpo"] == {"rsft", "rollouts"}
    assert needs["hard-set"] == {"rsft"}
    for model in ("rsft-1epoch", "rsft", "hsdpo", "hsdpo-ensemble"):
        assert needs[f"test-{model}"] == {model, "hard-set"}
    members = [name for name in pipeline.stages if name.startswith("member-")]
    assert len(members) == 3
    for member in members:
        assert needs[member] == {"base"}
        assert needs[f"mine-{member}"] == {member}
    assert needs["hsdpo-ensemble"] == {"rsft", "rollouts", *(f"mine-{member}" for member in members)}
    upstream = pipeline.upstream(["hsdpo"])
    assert upstream == ["base", "rsft-1epoch", "rsft", "rollouts", "hsdpo"]


@pytest.mark.parametrize("file", ["configs/pipeline.yaml", "configs/pipeline_paper.yaml"])
def test_no_two_models_of_an_ensemble_are_sampled_with_the_same_random_numbers(file: str) -> None:
    overlays = ["configs/model/llama-3.2-3b.yaml"] if "paper" in file else []
    stages = Pipeline.load(Path(file), overlays).stages
    seeds = [one.config["model"]["init_args"]["seed"] for one in stages.values() if one.verb == "predict"]
    assert len(seeds) == len(set(seeds)) == 5  # four models, and the hard set


def members_parts(pipeline: Pipeline) -> list[frozenset[str]]:
    """Parse every stage; return the parts that each member sees."""
    parts = []
    for stage in pipeline.stages.values():
        if stage.verb != "base-model":
            parsed = GuardCLI(stage.verb, list(stage.argv[1:]), parse_only=True).config
            assert Path(parsed.output) == stage.output
            if "/members/" in str(stage.output):
                source = parsed.data.init_args.source
                if "sources" in source.init_args:
                    source = source.init_args.sources[0]
                parts.append(frozenset(source.init_args.parts))
    return parts


@pytest.mark.slow
def test_every_stage_parses_and_members_see_two_parts_each() -> None:
    every = frozenset(Embedded().parts)
    assert set(members_parts(Pipeline.load(Path("configs/pipeline.yaml")))) == {every - {part} for part in every}


@pytest.mark.slow
def test_the_papers_members_see_wildguard_and_two_more() -> None:
    pipeline = Pipeline.load(Path("configs/pipeline_paper.yaml"), ["configs/model/llama-3.2-3b.yaml"])
    assert set(members_parts(pipeline)) == {frozenset(PARTS) - {part} for part in PARTS[1:]}
    members = {name for name, stage in pipeline.stages.items() if "/members/" in str(stage.output)}
    assert set(pipeline.needs["hsdpo"]) == {"rsft", "rollouts", *(f"mine-{member}" for member in members)}
    for member in members:
        assert set(pipeline.needs[f"mine-{member}"]) == {member}
        trained, mined = (pipeline.stages[name].config for name in (member, f"mine-{member}"))
        assert trained["data"]["init_args"]["source"] == mined["data"]["init_args"]["source"]
    main = pipeline.stages["rsft"].config["data"]["init_args"]["source"]["init_args"]["sources"][0]
    assert main["init_args"]["parts"] == list(PARTS)


@pytest.mark.parametrize("file", OVERLAYS)
def test_a_recipe_overlay_applies_to_the_whole_graph(file: str) -> None:
    pipeline = Pipeline.load(Path("configs/pipeline.yaml"), [file])
    recipe = yaml.safe_load((ROOT / file).read_text())["recipe"]
    for stage in pipeline.stages.values():
        assert stage.output is not None
        name = "logs" if stage.verb in ("predict", "test") else "checkpoints"
        root = recipe.get(name, name)
        assert stage.output.is_relative_to(root)


PAIRINGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs" / "pairing").glob("*.yaml"))
ENSEMBLE = "configs/pairing/ensemble.yaml"
FIT = ["fit", "--config", "configs/hsdpo.yaml"]


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
