"""What an output must not replace, and that the check comes before anything heavy."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.workflow.config import Command, resolve
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.output_checks import require_replaceable, require_writable
from guardreasoner.workflow.staleness import StageState


@pytest.fixture(autouse=True)
def work(workplace: Path) -> None:
    """Work in a folder with the project's configs and no outputs."""


def command(output: str, *more: str, verb: str = "fit") -> Command:
    config = {"fit": "rsft", "predict": "mine", "test": "evaluate", "base-model": "base"}[verb]
    return resolve([verb, "--config", f"configs/{config}.yaml", "--output", output, *more])


def make(path: str, text: str = "{}") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def made_by(verb: str, folder: str) -> None:
    """Write an artefact with its manifest."""
    make(f"{folder}/model.safetensors", "weights")
    Manifest.describe(folder, [verb, "--config", "a.yaml"], "", {}).write(folder)


def refusal(given: Command) -> str:
    with pytest.raises(InputError) as raised:
        require_replaceable(given)
    return str(raised.value)


def test_what_is_absent_empty_or_ours_is_replaced() -> None:
    Path("empty").mkdir()
    made_by("fit", "ours")
    for output in ("absent", "deep/absent", "empty", "ours"):
        require_replaceable(command(output))


def test_an_unfinished_output_of_ours_is_replaced() -> None:
    unfinished = command("unfinished")
    StageState.of(unfinished).begin()
    make("unfinished/model.safetensors")  # killed before the manifest was written
    require_replaceable(unfinished)


@pytest.mark.parametrize("verb", ["fit", "predict", "test", "base-model"])
@pytest.mark.parametrize("kind", ["folder", "file", "another manifest"])
def test_what_others_made_needs_overwrite(verb: str, kind: str) -> None:
    make({"folder": "mine/notes.txt", "file": "mine", "another manifest": "mine/manifest.json"}[kind])
    message = refusal(command("mine", verb=verb))
    assert message == (
        f"output: mine was not made by this project, or its manifest is missing; `{verb}` would replace it"
    )
    require_replaceable(command("mine", "--overwrite", verb=verb))
    require_replaceable(command("mine", "--overwrite", "true", verb=verb))


def test_what_another_verb_made_needs_overwrite() -> None:
    made_by("fit", "checkpoints/rsft")
    predict = ("--model.backbone.path", "checkpoints/other")
    message = refusal(command("checkpoints/rsft", *predict, verb="predict"))
    assert message == "output: checkpoints/rsft was made by `fit`; `predict` would replace it"
    require_replaceable(command("checkpoints/rsft", *predict, "--overwrite", verb="predict"))


@pytest.mark.parametrize(
    "below", ["a/config.json", "a/adapter_config.json", "deep/er/manifest.json", "a/x.safetensors"]
)
def test_a_folder_around_other_models_is_never_replaced(below: str) -> None:
    made_by("fit", "checkpoints")
    make(f"checkpoints/{below}")
    assert "output: checkpoints holds other artefacts, such as checkpoints/" in refusal(command("checkpoints"))
    assert "holds other artefacts" in refusal(command("checkpoints", "--overwrite"))


def test_a_folder_around_unfinished_mining_is_never_replaced() -> None:
    make("logs/.rollouts.0123456789ab.partial/rollouts-00000.jsonl")
    assert "holds other artefacts" in refusal(command("logs", "--overwrite", verb="predict"))


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (".", "is the working folder"),
        ("..", "is around the working folder"),
        ("/", "is around the working folder"),
        ("work/..", "is the working folder"),
        ("home", "is the home folder"),
        ("link", "is a link to elsewhere, which would be replaced by a folder"),
        ("dangling", "is a link to nowhere, which would be replaced by a folder"),
        ("~/model", "starts with ~, which only a shell replaces by the home folder"),
        ("/proc", "is a mount point, which cannot be replaced"),
        ("checkpoints/base", "is also read by this command (model.init_args.backbone.path)"),
        ("source", "is also read by this command (data.init_args.source.init_args.path)"),
    ],
)
@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_what_is_never_replaced(
    output: str, reason: str, overwrite: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("work", "home", "elsewhere", "source", "checkpoints/base"):
        Path(folder).mkdir(parents=True)
    make("source/records.jsonl")
    Path("link").symlink_to("elsewhere")
    Path("dangling").symlink_to("nowhere")
    monkeypatch.setenv("HOME", os.path.abspath("home"))
    source = ("--data.source", "guardreasoner.Files", "--data.source.path", "source/*.jsonl")
    assert refusal(command(output, *source, *overwrite)) == f"output: {output} {reason}"


def test_overwrite_does_not_count_as_part_of_the_command() -> None:
    for words in (("--overwrite",), ("--overwrite", "true"), ("--overwrite=true",)):
        with_flag, without = (
            command("made", *words, "--seed_everything", "1"),
            command("made", "--seed_everything", "1"),
        )
        assert StageState.of(with_flag).fingerprint == StageState.of(without).fingerprint
        made_by("fit", "made")
        manifest = Manifest.describe("made", with_flag.argv, "", {})
        assert manifest.command == list(without.argv)
        assert manifest.made_by(without.argv)
        assert manifest.made_by(with_flag.argv)


@pytest.mark.parametrize("verb", ["fit", "predict", "test", "base-model"])
def test_the_command_refuses_before_it_builds(verb: str, refused: Callable[..., str]) -> None:
    make("mine/notes.txt", "a year of work")
    if verb == "base-model":
        argv = ["base-model", "--config", "configs/base.yaml", "--config", "output.yaml"]
        make("output.yaml", "output: mine")
    else:
        argv = list(command("mine", verb=verb).argv)
    message = refused(*argv)
    assert message.endswith("hint: name another output, or replace it with --overwrite\n")
    assert Path("mine/notes.txt").read_text() == "a year of work"
    assert sorted(os.listdir(".")) == ["configs", "mine", *(["output.yaml"] if verb == "base-model" else [])]


def test_a_command_without_config_files_is_checked_too(refused: Callable[..., str]) -> None:
    make("mine/notes.txt")
    assert "output: mine was not made by this project" in refused("fit", "--output", "mine")


@pytest.mark.parametrize(
    ("key", "flags"),
    [
        ("output", ("--output", "file/made")),
        ("data.cache", ("--data.cache", "file/cache")),
        ("trainer.logger.save_dir", ("--trainer.logger.save_dir", "file/logs")),
        ("trainer.default_root_dir", ("--trainer.default_root_dir", "file/root")),
        ("model.reference.folder", ("--config", "configs/hsdpo.yaml", "--model.reference.folder", "file/values")),
    ],
)
def test_every_folder_of_a_run_must_be_writable(key: str, flags: tuple[str, ...]) -> None:
    make("file")
    with pytest.raises(InputError) as raised:
        require_writable(command("made", *flags))
    assert str(raised.value) == f"{key}: {Path('file').absolute()} cannot be written: Not a directory"


def test_nothing_is_left_by_the_check() -> None:
    before = sorted(os.listdir("."))
    require_writable(command("deep/made"))
    assert sorted(os.listdir(".")) == before


def test_nothing_is_refused_for_a_run_that_writes_nothing(refused: Callable[..., str]) -> None:
    make("mine/notes.txt")
    message = refused(*command("mine").argv, "--trainer.fast_dev_run", "true", "--auto_build", "false")
    assert "checkpoints/base is missing" in message
