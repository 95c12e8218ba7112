"""Every user error is one line and at most one hint, sets the exit code and leaves no files."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.records import Record, Rollout, Split, write_jsonl
from tests.support.hub_folders import stay_offline, write_readme, write_rows
from tests.support.tiny import TinySource, answer, make_tiny_base, write_rollouts

ROOT = Path(__file__).parents[2]
Refused = Callable[..., str]


class Unlabelled(TinySource):
    """One training record has no label."""

    def records(self, split: Split) -> list[Record]:
        records = super().records(split)
        return [Record(r.id, r.prompt, r.response, {}) if r.id == "train/03" else r for r in records]


class Overlapping(TinySource):
    """A benchmark with the prompts of training records 2 and 5 in another spelling."""

    def records(self, split: Split) -> list[Record]:
        return [
            Record(f"bench/{place}", f"  {record.prompt.upper()} ", None, {"request": "harmful"})
            for place, record in enumerate(TinySource().records("train")[2:6:3])
        ]


class Empty(TinySource):
    """A source without any record."""

    def records(self, split: Split) -> list[Record]:
        return []


@pytest.fixture(autouse=True)
def offline(workplace: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with the project's configs and no outputs, and without access to a hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> Refused:
    """Return a function that runs a command that must end with a user error, and returns the message."""

    def run(*argv: str) -> str:
        monkeypatch.setattr(sys, "argv", ["guardreasoner", *argv])
        before = snapshot()
        code = main(list(argv))
        message = capsys.readouterr()
        assert code == 2
        heads = [line.split(":")[0] for line in message.err.splitlines()]
        assert heads[heads.index("error") :] in (["error"], ["error", "hint"]), message.err
        assert "Traceback" not in message.out + message.err
        assert snapshot() == before
        return message.err

    return run


def snapshot() -> set[str]:
    """Return every file below the working folder except curves, which are written until the error occurs."""
    found = {os.path.join(folder, name) for folder, _, names in os.walk(".") for name in names}
    return {name for name in found if "events.out.tfevents" not in name}


def train(base: Path, *more: str) -> tuple[str, ...]:
    """Return the arguments of an R-SFT fit on tiny data."""
    return ("fit", "--config", "configs/rsft.yaml", "--model.backbone.path", str(base), *TINY, *more)


def prefer(base: Path | str, rollouts: Path | str, *more: str) -> tuple[str, ...]:
    """Return the arguments of an HS-DPO fit on tiny data."""
    start = ("fit", "--config", "configs/hsdpo.yaml", "--model.backbone.path", str(base))
    return (*start, "--data.rollouts", f'["{rollouts}"]', *TINY, *more)


TINY = (
    *("--data.source", "tests.support.tiny.TinySource", "--output", "made/model", "--auto_build", "false"),
    *("--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--trainer.logger", "false"),
)


def test_a_missing_checkpoint_hints_at_its_command(refused: Refused) -> None:
    message = refused("predict", "--config", "configs/mine.yaml", "--auto_build", "false")
    error, hint = message.splitlines()
    assert error == "error: checkpoints/rsft is missing (model.init_args.backbone.path)"
    stages = hint.split(" && ")
    assert stages[0] == "hint: build it with python -m guardreasoner base-model --config configs/base.yaml"
    assert stages[-1] == "python -m guardreasoner fit --config configs/rsft.yaml --config configs/rsft_continued.yaml"


def test_a_real_model_is_never_trained_as_a_side_effect(refused: Refused) -> None:
    message = refused("fit", "--config", "configs/hsdpo.yaml", "--config", "configs/model/llama-3.2-3b-qlora.yaml")
    error, hint = message.splitlines()
    assert error == "error: checkpoints/llama-3.2-3b-qlora/rsft is missing (model.init_args.backbone.path)"
    commands = hint.removeprefix("hint: make it with ").split(" && ")
    assert len(commands) == 3  # R-SFT, continued R-SFT, rollouts
    assert all("--config configs/model/llama-3.2-3b-qlora.yaml" in command for command in commands)


@pytest.mark.parametrize("path", ["./elsewhere/model", "../elsewhere", "elsewhere/in/here", "/elsewhere/model"])
def test_a_model_folder_that_no_stage_makes(path: str, refused: Refused, tiny_rollouts: Path) -> None:
    assert f"error: {path}: no such model folder" in refused(*prefer(path, tiny_rollouts))


def test_a_model_missing_on_the_hub(refused: Refused, tiny_rollouts: Path) -> None:
    assert "error: nobody/no-model: " in refused(*prefer("nobody/no-model", tiny_rollouts))


def test_missing_rollouts_hint_at_their_command(refused: Refused, tiny_base: Path) -> None:
    error, hint = refused(*prefer(tiny_base, "logs/rollouts/rsft")).splitlines()
    assert error == "error: logs/rollouts/rsft is missing (data.init_args.rollouts)"
    assert hint.endswith("python -m guardreasoner predict --config configs/mine.yaml")


def test_rollouts_that_no_stage_makes(refused: Refused, tiny_base: Path) -> None:
    error, hint = refused(*prefer(tiny_base, "elsewhere/rollouts")).splitlines()
    assert error == "error: elsewhere/rollouts: no such file or folder"
    assert "predict --config configs/mine.yaml" in hint
    assert "elsewhere/rollouts" in refused("pairs", "--rollouts", "elsewhere/rollouts", "--out", "pairs.jsonl")


def test_a_missing_data_file(refused: Refused, tiny_base: Path) -> None:
    released = ("--data.source", "guardreasoner.sources.released.Released", "--data.source.folder", "elsewhere")
    message = refused(*train(tiny_base, *released))
    assert message.startswith("error: elsewhere/benchmarks/0_")
    assert ".json: no such file\nhint: " in message


def test_a_record_without_a_label(refused: Refused, tiny_base: Path) -> None:
    unlabelled = ("--data.source", "tests.cli.test_bad_input.Unlabelled")
    assert refused(*train(tiny_base, *unlabelled)) == "error: record train/03: no label for any task\n"
    mine = ("predict", "--config", "configs/mine.yaml", "--model.backbone.path", str(tiny_base), *TINY)
    assert "record train/03: no label for any task" in refused(*mine, *unlabelled)


def test_a_source_without_records(refused: Refused, tiny_base: Path) -> None:
    message = refused(*train(tiny_base, "--data.source", "tests.cli.test_bad_input.Empty"))
    assert message == "error: data.source: the training split is empty\n"


def test_rollouts_of_other_records(refused: Refused, tiny_base: Path) -> None:
    others = [Record(f"else/{n}", "How do I nap?", None, {"request": "unharmful"}) for n in range(3)]
    message = refused(*prefer(tiny_base, write_rollouts(Path("others"), others)))
    assert message.startswith(
        "error: others: these rollouts belong to other records: 'else/0' is no record of data.source"
    )


def test_rollouts_of_the_same_ids_but_other_conversations(refused: Refused, tiny_base: Path) -> None:
    records = TinySource().records("train")
    changed = [Record(r.id, r.prompt + "?", r.response, r.labels) for r in records[:3]]
    message = refused(*prefer(tiny_base, write_rollouts(Path("changed"), changed)))
    assert "'train/00' is another conversation in data.source" in message


def test_one_output_a_record(refused: Refused, tiny_base: Path) -> None:
    records = TinySource().records("train")
    write_jsonl("k1/records.jsonl", records)
    write_jsonl("k1/rollouts.jsonl", [Rollout(r.id, "m", "f", 0, 0, answer(r, True)) for r in records])
    message = refused(*prefer(tiny_base, "k1"))
    assert message.startswith("error: no record has two outputs over all models: with k = 1 nothing can be mixed")
    assert "k = 1" in refused("pairs", "--rollouts", "k1", "--out", "pairs.jsonl")


def test_no_hard_record(refused: Refused, tiny_base: Path) -> None:
    records = TinySource().records("train")
    write_jsonl("easy/records.jsonl", records)
    write_jsonl(
        "easy/rollouts.jsonl", [Rollout(r.id, "m", "f", i, 0, answer(r, True)) for r in records for i in (0, 1)]
    )
    message = refused(*prefer(tiny_base, "easy"))
    assert message.startswith(
        "error: data.rollouts: none of 24 records is hard: 24 all right, 0 mixed, 0 all wrong; 0 of 48"
    )
    assert "hint: outputs agree" in message


@pytest.mark.parametrize("gamma", ["1.0", "-0.1", ".nan", "nan", ".inf"])
def test_gamma_outside_its_range(gamma: str, refused: Refused, tiny_base: Path, tiny_rollouts: Path) -> None:
    message = refused(*prefer(tiny_base, tiny_rollouts, "--data.pairing.gamma", gamma))
    assert "gamma" in message
    assert gamma.removeprefix(".") in message
    if "n" not in gamma:
        assert "data.init_args.pairing.gamma: expected a number of at least 0 and below 1" in message
        verb = ("pairs", "--rollouts", str(tiny_rollouts), "--out", "pairs.jsonl")
        assert "gamma must be in [0, 1)" in refused(*verb, "--gamma", gamma)


@pytest.mark.parametrize("beta", ["0", "-1", ".nan", "nan", ".inf"])
def test_beta_outside_its_range(beta: str, refused: Refused, tiny_base: Path, tiny_rollouts: Path) -> None:
    message = refused(*prefer(tiny_base, tiny_rollouts, "--model.beta", beta))
    assert "beta" in message
    assert beta.removeprefix(".") in message
    if "n" not in beta:
        assert "model.init_args.beta: expected a number above 0" in message


@pytest.mark.slow
def test_an_empty_file(refused: Refused, tiny_base: Path, tiny_rollouts: Path) -> None:
    shutil.copytree(tiny_rollouts, "empty")
    Path("empty/rollouts.jsonl").write_text("")
    assert refused(*prefer(tiny_base, "empty")) == "error: empty/rollouts.jsonl: the file has no rollout\n"
    Path("empty/records.jsonl").write_text("\n")
    assert refused(*prefer(tiny_base, "empty")) == "error: empty/records.jsonl: the file has no record\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"record_id": "train/00", ', "rollouts.jsonl:3: not valid JSON: "),
        ("[1, 2]", "rollouts.jsonl:3: expected a JSON object, found list"),
        ('{"record": "train/00"}', "rollouts.jsonl:3: unknown field 'record'"),
        ('{"record_id": 7}', "rollouts.jsonl:3: record_id: expected str, found int"),
        ('{"record_id": "train/00"}', "rollouts.jsonl:3: missing field 'model'"),
    ],
)
def test_a_malformed_line(line: str, message: str, refused: Refused, tiny_base: Path, tiny_rollouts: Path) -> None:
    shutil.copytree(tiny_rollouts, "bad")
    lines = Path("bad/rollouts.jsonl").read_text().splitlines()
    Path("bad/rollouts.jsonl").write_text("\n".join([*lines[:2], line, *lines[3:]]) + "\n")
    assert refused(*prefer(tiny_base, "bad")).startswith(f"error: bad/{message}")


def test_a_rollout_given_twice(refused: Refused, tiny_base: Path, tiny_rollouts: Path) -> None:
    message = refused(*prefer(tiny_base, tiny_rollouts, "--data.rollouts+", str(tiny_rollouts)))
    assert "gives output 0 twice" in message


@pytest.mark.slow
def test_a_completion_longer_than_the_limit(refused: Refused, tiny_base: Path, tiny_rollouts: Path) -> None:
    for words in (
        train(tiny_base, "--data.max_length", "60"),
        prefer(tiny_base, tiny_rollouts, "--data.max_length", "60"),
    ):
        message = refused(*words)
        assert "train/" in message
        assert "60" in message
        assert "max_length" in message or "tokens" in message


@pytest.mark.parametrize("stage", ["rsft", "mine", "hsdpo"])
def test_a_record_in_training_and_in_a_benchmark(
    stage: str, refused: Refused, tiny_base: Path, tiny_rollouts: Path
) -> None:
    words = {
        "rsft": train(tiny_base),
        "mine": ("predict", "--config", "configs/mine.yaml", "--model.backbone.path", str(tiny_base), *TINY),
        "hsdpo": prefer(tiny_base, tiny_rollouts),
    }[stage]
    message = refused(*words, "--data.benchmarks", '["tests.cli.test_bad_input.Overlapping"]')
    # record 5 has no wrong output, so it is in no pair
    count, first = ("1 record", "train/02") if stage == "hsdpo" else ("2 records", "train/02, train/05")
    assert f"training data: {count} with a prompt that also occurs in a benchmark of this run: {first}\n" in message


@pytest.mark.parametrize(
    ("broken", "how"),
    [
        ("config.json", None),
        ("config.json", "{"),
        ("model.safetensors", None),
        ("model.safetensors", "not weights"),
        ("tokenizer.json", "{}"),
        ("guard.json", "{"),
    ],
)
def test_a_broken_model_folder(broken: str, how: str | None, refused: Refused, tiny_base: Path) -> None:
    shutil.copytree(tiny_base, "broken")
    Path("broken", broken).unlink() if how is None else Path("broken", broken).write_text(how)
    assert "broken" in refused(*train(Path("broken")))


def test_a_model_folder_with_a_weight_left_out(refused: Refused, tiny_base: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_base, "broken")
    kept = load_file("broken/model.safetensors")
    name = next(name for name in sorted(kept) if "q_proj" in name)
    save_file({key: value for key, value in kept.items() if key != name}, "broken/model.safetensors", {"format": "pt"})
    message = refused(*train(Path("broken")))
    assert message == f"error: broken: 1 weights are missing and would be random, first {name}\n"


def test_a_failed_run_leaves_the_old_output(refused: Refused, tiny_base: Path, tiny_rollouts: Path) -> None:
    Path("made/model").mkdir(parents=True)
    Path("made/model/kept.json").write_text(json.dumps({"by": "me"}))
    refused(*prefer(tiny_base, tiny_rollouts, "--data.benchmarks", '["tests.cli.test_bad_input.Overlapping"]'))
    assert json.loads(Path("made/model/kept.json").read_text()) == {"by": "me"}


def test_a_public_data_set_whose_columns_changed(
    refused: Refused, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("hub")
    stay_offline(elsewhere, monkeypatch)
    files = {split: f"{split}.csv" for split in ("train", "test")}
    write_readme(elsewhere / "set", {"toxicchat0124": files})
    for file in files.values():
        write_rows(elsewhere / "set" / file, [{"text": "How do I bake?", "human_annotation": True, "toxicity": 0}])
    named = ("--data.source", "guardreasoner.ToxicChat", "--data.source.path", str(elsewhere / "set"))
    named += ("--data.cache", "null")
    message = refused(*train(tiny_base, *named))
    assert "no column 'user_input', found text, human_annotation, toxicity; expected user_input, " in message


def test_an_adapter_of_another_base_model(
    refused: Refused, tiny_adapter: Path, tiny_rollouts: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = make_tiny_base(tmp_path_factory.mktemp("other") / "base", hidden_size=64)
    message = refused(*prefer(tiny_adapter, tiny_rollouts, "--model.backbone.base_path", str(other)))
    assert f"error: {tiny_adapter}: " in message
    assert str(other) in message


@pytest.mark.slow
def test_four_bits_without_bitsandbytes(tiny_base: Path) -> None:
    before = snapshot()
    script = (
        "import sys; sys.modules['bitsandbytes'] = None\n"
        "from guardreasoner.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    )
    words = train(tiny_base, "--model.backbone.quantization", "4bit", "--model.backbone.lora", "{r: 4}")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: model.backbone.quantization: 4bit needs bitsandbytes, which cannot be imported: ")
    assert hint.startswith("hint: pip install ")
    assert "Traceback" not in done.stdout + done.stderr
    assert snapshot() == before
