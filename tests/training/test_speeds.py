"""A model of two speeds, through the commands: trained, mined, tuned on preferences and tested."""

import json
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.records.jsonl import read_jsonl
from guardreasoner.sources.predictions import PREDICTIONS
from tests.support.tiny import TinySource, command, write_rollouts

TRAIN = ("--data.batch_size", "8", "--data.micro_batch_size", "8")
SAMPLE = ("--model.generator.max_new_tokens", "24", "--model.k", "2")
TEST = (*SAMPLE, "--model.greedy.max_new_tokens", "24", "--data.rollouts", "null")


@pytest.fixture
def both(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a model that was trained for both speeds."""
    (tmp_path / "configs").symlink_to(Path("configs").resolve())
    monkeypatch.chdir(tmp_path)
    share = ("--data.direct_share", "1", "--data.cache", "null")
    assert main([*command("rsft", tiny_base, *TRAIN, *share), "--output", "both"]) == 0
    return tmp_path / "both"


def test_a_model_is_used_at_both_speeds(both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads((both / "guard.json").read_text())["format"]["speeds"] == ["reasoned", "direct"]
    for speed, start in (("direct", "Answer at once, without reasoning.\n"), (None, "\nHuman user:")):
        flags = ("--model.speed", speed) if speed else ()
        assert main([*command("evaluate", both, *TEST, *flags), "--output", f"tested-{speed}"]) == 0
        rows = [row for path in Path(f"tested-{speed}").rglob(PREDICTIONS) for _, row in read_jsonl(path)]
        assert len(rows) == 6
        assert all(row["prompt"].removeprefix("Judge.\n").startswith(start.lstrip("\n")) for row in rows)
        assert {row.get("speed") for row in rows} == {speed}
    assert main([*command("mine", both, *SAMPLE, "--model.speed", "direct"), "--output", "mined"]) == 0
    assert {row["speed"] for _, row in read_jsonl("mined/rollouts.jsonl")} == {"direct"}


def test_preferences_are_trained_at_the_speed_of_the_outputs(
    both: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    records = TinySource().records("train")
    for name, speed in (("reasoned", {}), ("direct", {"speed": "direct"})):
        write_rollouts(Path(name), records)
        path = Path(name, "rollouts.jsonl")
        rows = [row for _, row in read_jsonl(path)]
        for row in rows:
            if speed:
                row["completion"] = row["completion"].partition("\n\n")[2]
        path.write_text("".join(json.dumps({**row, **speed}) + "\n" for row in rows))
    flags = (*TRAIN, "--data.cache", "null", "--model.reference", "guardreasoner.FrozenCopy")
    assert main([*command("hsdpo", both, *flags, "--data.rollouts", '["direct"]'), "--output", "tuned"]) == 0
    assert json.loads(Path("tuned/guard.json").read_text())["format"]["speeds"] == ["reasoned", "direct"]
    capsys.readouterr()
    assert main([*command("hsdpo", both, *flags, "--data.rollouts", '["direct", "reasoned"]'), "--output", "mix"]) == 2
    assert "rollouts of two speeds" in capsys.readouterr().err
    assert not Path("mix").exists()


def test_a_speed_that_the_model_was_not_trained_for_is_refused(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "configs").symlink_to(Path("configs").resolve())
    monkeypatch.chdir(tmp_path)
    assert main([*command("rsft", tiny_base, *TRAIN, "--data.use_reasoning", "false"), "--output", "labels"]) == 0
    capsys.readouterr()
    assert main([*command("evaluate", Path("labels"), *TEST, "--model.speed", "reasoned"), "--output", "no"]) == 2
    assert "model.speed: reasoned, but the model was trained for direct answers alone" in capsys.readouterr().err
    assert main([*command("evaluate", Path("labels"), *TEST), "--output", "tested"]) == 0
    rows = [row for path in Path("tested").rglob(PREDICTIONS) for _, row in read_jsonl(path)]
    assert {row["speed"] for row in rows} == {"direct"}
